//! The loop that owns the shop: it drains what is queued, makes one durable commit, and only
//! then sends and acknowledges. It runs on a thread of its own and is the only writer.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crdt_model::entry::{Entry, Place};
use crdt_model::ids::JournalId;
use crdt_model::journal::JournalInfo;
use crdt_model::shop::{
    ActError, Acted, Change, Identity, Input, LOAD_ENTRIES_MAX, Operation, Output, Shop, Split, Stored,
};
use crdt_model::time::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::links::LinkTable;
use crate::storage::{
    Batch, Durability, EntryRow, ReadLimits, Reader, RestoreMarker, RowWrite, Rows, Storage, StorageError,
};

/// How many requests one commit takes at most; more would only make the first ones wait.
const GROUP_MAX: usize = 1_024;
/// A snapshot is due after so many entries, or a quarter of what is stored if that is more, so
/// that writing them costs a constant a sale.
const SNAPSHOT_ENTRIES_MIN: u64 = 10_000;
/// Without anything to do, the shop is given the time this often.
const TICK: Duration = Duration::from_secs(5);

const SNAPSHOT_KEY: &[u8] = b"shop";

/// What the loop is asked.
pub(crate) enum Request {
    /// The till's app records or edits something; the rows are written in the same commit. The
    /// plan may still refuse, once it has seen the shop; then nobody waits for the reply.
    Act { plan: Plan, rows: Vec<RowWrite>, reply: oneshot::Sender<Result<Acted, ActError>> },
    /// Something happened on a link.
    Input(Input),
    /// A question, answered between two groups.
    Ask(Box<dyn FnOnce(&Shop) + Send>),
    /// Rows of the node's own, to be made durable.
    Rows { rows: Vec<RowWrite>, reply: oneshot::Sender<()> },
    /// Write a snapshot and end.
    Close,
}

/// Makes an operation from what the shop knows at that moment, or none.
pub(crate) type Plan = Box<dyn FnOnce(&Shop) -> Option<Operation> + Send>;

/// Why the loop ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoopError {
    /// The disk let us down; memory is ahead of it, so the node has to start again.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The restore marker.
    #[error(transparent)]
    Marker(#[from] crate::storage::MarkerError),
    /// The system gives no randomness.
    #[error("the system gives no randomness ({0}): try again")]
    Randomness(#[from] getrandom::Error),
    /// What is stored can't be opened.
    #[error(transparent)]
    Open(#[from] crdt_model::shop::OpenError),
    /// A stored entry can't be read back.
    #[error(
        "entry {seq} of journal {journal} is damaged on the disk: keep the file and join the business again, the relay has everything that was synced ({reason})"
    )]
    Damaged {
        /// The journal.
        journal: JournalId,
        /// The entry.
        seq: u64,
        /// What is wrong with it.
        reason: String,
    },
}

pub(crate) struct ShopLoop {
    storage: Box<dyn Storage>,
    reader: Arc<dyn Reader>,
    identity: Identity,
    shop: Shop,
    links: Arc<LinkTable>,
    changes: broadcast::Sender<Change>,
    since_snapshot: u64,
    wakes: Option<mpsc::UnboundedSender<Timestamp>>,
}

/// The wall clock, in milliseconds since 1970 UTC.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl ShopLoop {
    /// Opens the shop over what is stored, and loads what its snapshot lacks.
    pub(crate) fn open(
        storage: Box<dyn Storage>,
        identity: Identity,
        begin_epoch: bool,
        links: Arc<LinkTable>,
        changes: broadcast::Sender<Change>,
        marker: Option<&RestoreMarker>,
    ) -> Result<Self, LoopError> {
        let reader = storage.reader();
        let snapshot = reader.row(Rows::Snapshot, SNAPSHOT_KEY)?;
        let (shop, outputs) = open_shop(reader.as_ref(), &identity, snapshot, begin_epoch)?;
        let mut opened = Self { storage, reader, identity, shop, links, changes, since_snapshot: 0, wakes: None };
        opened.finish_group(outputs, Vec::new())?;
        if let Some(marker) = marker {
            // Only now: a copy must have begun its own epoch before it counts as the original.
            marker.bind(opened.storage.as_mut(), crate::folder::random()?)?;
        }
        Ok(opened)
    }

    /// Runs until it is closed or the disk fails. It waits for requests alone: the alarm, a task
    /// of its own, turns times to wake into requests.
    pub(crate) async fn run(
        mut self,
        requests: mpsc::WeakSender<Request>,
        mut waiting: mpsc::Receiver<Request>,
    ) -> Result<(), LoopError> {
        let (wakes, alarms) = mpsc::unbounded_channel();
        self.wakes = Some(wakes);
        tokio::spawn(alarm(requests, alarms));
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
            if self.group(std::mem::take(&mut group))? {
                break;
            }
        }
        self.close()
    }

    fn wake_at(&self, at: Timestamp) {
        if self.wakes.as_ref().is_some_and(|wakes| wakes.send(at).is_err()) {
            tracing::debug!("the alarm has ended");
        }
    }

    /// Handles a group of requests with one commit. Tells whether the loop is to end.
    fn group(&mut self, group: Vec<Request>) -> Result<bool, LoopError> {
        let mut outputs = Vec::new();
        let mut rows = Vec::new();
        let mut replies = VecDeque::new();
        let mut written = Vec::new();
        let mut questions = Vec::new();
        let mut close = false;
        for request in group {
            match request {
                Request::Act { plan, rows: more, reply } => {
                    let Some(operation) = plan(&self.shop) else { continue };
                    let before = outputs.len();
                    outputs.extend(self.shop.handle(Input::Act(Box::new(operation)), now()));
                    let accepted = outputs.iter().skip(before).any(|output| matches!(output, Output::Acted(Ok(_))));
                    if accepted {
                        rows.extend(more);
                    }
                    replies.push_back(reply);
                }
                Request::Input(input) => outputs.extend(self.shop.handle(input, now())),
                Request::Ask(question) => questions.push(question),
                Request::Rows { rows: more, reply } => {
                    rows.extend(more);
                    written.push(reply);
                }
                Request::Close => close = true,
            }
        }
        let answers = self.finish_group(outputs, rows)?;
        for (answer, reply) in answers.into_iter().zip(replies) {
            // The asker may have gone; what it recorded stays recorded.
            drop(reply.send(answer));
        }
        for reply in written {
            if reply.send(()).is_err() {
                tracing::debug!("nobody waits for these rows any more");
            }
        }
        for question in questions {
            question(&self.shop);
        }
        if self.shop.needs_rebuild() {
            self.rebuild()?;
        }
        self.snapshot_if_due()?;
        Ok(close)
    }

    /// Seals the group, commits it, and carries out the rest in order. Gives the answers to the
    /// group's operations.
    fn finish_group(
        &mut self,
        mut outputs: Vec<Output>,
        mut rows: Vec<RowWrite>,
    ) -> Result<Vec<Result<Acted, ActError>>, LoopError> {
        let mut answers = Vec::new();
        loop {
            outputs.extend(self.shop.handle(Input::Seal, now()));
            let later = self.commit(outputs, std::mem::take(&mut rows))?;
            outputs = Vec::new();
            let mut fed = false;
            for output in later {
                match output {
                    Output::Acted(answer) => answers.push(answer),
                    Output::Load { journal, from } => {
                        fed = true;
                        let entries = self.load(journal, from)?;
                        outputs.extend(self.shop.handle(Input::Loaded { journal, from, entries }, now()));
                    }
                    Output::Fetch(places) => {
                        fed = true;
                        let entries = self.fetch(&places)?;
                        outputs.extend(self.shop.handle(Input::Fetched(entries), now()));
                    }
                    Output::Split(split) => {
                        fed = true;
                        outputs.extend(self.split(&split)?);
                    }
                    Output::Send(link, frame) => self.links.send(link, frame),
                    Output::SendRange { link, journal, info, from, through, branch } => {
                        self.links.send_range(link, crate::links::Range { journal, info, from, through, branch });
                    }
                    Output::Greeted(link) => self.links.greeted(link),
                    Output::Refuse(link, reason) => self.links.refuse(link, &reason),
                    Output::Changed(change) => self.tell(change),
                    Output::WakeAt(at) => self.wake_at(at),
                    // Committed already.
                    Output::Begun(_) | Output::Journal { .. } => {}
                }
            }
            if !fed {
                return Ok(answers);
            }
        }
    }

    fn tell(&self, change: Change) {
        if self.changes.receiver_count() > 0 {
            // Nobody listening any more is no error.
            drop(self.changes.send(change));
        }
    }

    /// Writes everything that has to be durable in one commit, and gives back the rest in order.
    fn commit(&mut self, outputs: Vec<Output>, rows: Vec<RowWrite>) -> Result<Vec<Output>, LoopError> {
        let mut batch = Batch { rows, ..Batch::default() };
        let mut later = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Begun(info) => put_journal(&mut batch, &info),
                Output::Journal { entries, ours } => {
                    self.since_snapshot += entries.len() as u64;
                    let stored = entries.into_iter().map(|entry| EntryRow { place: entry.place, bytes: entry.bytes });
                    batch.entries.extend(stored);
                    if !ours {
                        batch.durability = Durability::PeerData;
                    }
                }
                rest @ (Output::Acted(_)
                | Output::Send(..)
                | Output::SendRange { .. }
                | Output::Load { .. }
                | Output::Fetch(_)
                | Output::Split(_)
                | Output::Greeted(_)
                | Output::Refuse(..)
                | Output::Changed(_)
                | Output::WakeAt(_)) => later.push(rest),
            }
        }
        if !batch.is_empty() {
            self.storage.commit(&batch)?;
        }
        Ok(later)
    }

    fn load(&self, journal: JournalId, from: u64) -> Result<Vec<Entry>, LoopError> {
        let limits = ReadLimits { entries_max: LOAD_ENTRIES_MAX, bytes_max: usize::MAX };
        let mut entries = Vec::new();
        let mut damaged = None;
        let end = self.reader.entries(journal, from..=u64::MAX, limits, &mut |seq, bytes| match Entry::from_bytes(
            bytes,
        ) {
            Ok(entry) => {
                entries.push(entry);
                ControlFlow::Continue(())
            }
            Err(error) => {
                damaged = Some(LoopError::Damaged { journal, seq, reason: error.to_string() });
                ControlFlow::Break(())
            }
        })?;
        tracing::trace!(%journal, from, count = entries.len(), ?end, "loaded");
        damaged.map_or(Ok(entries), Err)
    }

    fn fetch(&self, places: &[Place]) -> Result<Vec<(Place, Entry)>, LoopError> {
        let mut entries = Vec::new();
        for place in places {
            let Some(bytes) = self.reader.entry(*place)? else { continue };
            let entry = Entry::from_bytes(&bytes).map_err(|error| LoopError::Damaged {
                journal: place.journal,
                seq: place.seq,
                reason: error.to_string(),
            })?;
            entries.push((*place, entry));
        }
        Ok(entries)
    }

    /// Moves a forked journal's later entries to its branch, and opens the shop anew: what was
    /// folded from them has to be folded again in their new place.
    fn split(&mut self, split: &Split) -> Result<Vec<Output>, LoopError> {
        let branch = split.branch.id();
        let mut batch = Batch::new(Durability::PeerData);
        put_journal(&mut batch, &split.branch);
        let beyond = split.keep_through.saturating_add(1)..=u64::MAX;
        let mut moved = Vec::new();
        let _end = self.reader.entries(split.journal, beyond, ReadLimits::NONE, &mut |seq, bytes| {
            moved.push((seq, bytes.to_vec()));
            ControlFlow::Continue(())
        })?;
        for (seq, bytes) in moved {
            batch.drop_entry(Place { journal: split.journal, seq });
            batch.entries.push(EntryRow { place: Place { journal: branch, seq }, bytes });
        }
        batch.delete(Rows::Snapshot, SNAPSHOT_KEY);
        self.storage.commit(&batch)?;
        tracing::warn!(journal = %split.journal, %branch, keep_through = split.keep_through, "a journal was copied and written twice: both histories are kept");
        let (shop, outputs) = open_shop(self.reader.as_ref(), &self.identity, None, false)?;
        self.shop = shop;
        self.links.reset();
        Ok(outputs)
    }

    /// Opens the shop anew from the journals, without its snapshot.
    fn rebuild(&mut self) -> Result<(), LoopError> {
        let mut batch = Batch::new(Durability::OwnEntries);
        batch.delete(Rows::Snapshot, SNAPSHOT_KEY);
        self.storage.commit(&batch)?;
        let (shop, outputs) = open_shop(self.reader.as_ref(), &self.identity, None, false)?;
        self.shop = shop;
        self.links.reset();
        self.finish_group(outputs, Vec::new())?;
        Ok(())
    }

    fn snapshot_if_due(&mut self) -> Result<(), LoopError> {
        let stored: u64 = self.shop.journals().map(|journal| journal.high).sum();
        if self.since_snapshot > SNAPSHOT_ENTRIES_MIN.max(stored / 4) && self.shop.is_loaded() {
            self.write_snapshot(Durability::Background)?;
        }
        Ok(())
    }

    fn write_snapshot(&mut self, durability: Durability) -> Result<(), LoopError> {
        let started = Instant::now();
        let mut batch = Batch::new(durability);
        batch.put(Rows::Snapshot, SNAPSHOT_KEY, self.shop.snapshot());
        self.storage.commit(&batch)?;
        self.since_snapshot = 0;
        tracing::debug!(ms = started.elapsed().as_millis(), "wrote a snapshot");
        Ok(())
    }

    fn close(mut self) -> Result<(), LoopError> {
        self.write_snapshot(Durability::OwnEntries)
    }
}

/// Gives the shop the time: when it asked for it, and now and then.
async fn alarm(requests: mpsc::WeakSender<Request>, mut wakes: mpsc::UnboundedReceiver<Timestamp>) {
    let mut due: BTreeSet<Timestamp> = BTreeSet::new();
    loop {
        let at = now();
        let wait = due.first().map_or(TICK, |next| Duration::from_millis(next.0.saturating_sub(at.0)).min(TICK));
        tokio::select! {
            wake = wakes.recv() => match wake {
                Some(wake) => {
                    due.insert(wake);
                    continue;
                }
                None => return,
            },
            () = tokio::time::sleep(wait) => {}
        }
        let at = now();
        due.retain(|wake| *wake > at);
        // The shop must end once nobody else can ask it.
        let Some(requests) = requests.upgrade() else { return };
        if requests.send(Request::Input(Input::Tick)).await.is_err() {
            return;
        }
    }
}

fn put_journal(batch: &mut Batch, info: &JournalInfo) {
    batch.put(Rows::Journals, info.id().0, minicbor::to_vec(info).unwrap_or_default());
}

fn open_shop(
    reader: &dyn Reader,
    identity: &Identity,
    snapshot: Option<Vec<u8>>,
    begin_epoch: bool,
) -> Result<(Shop, Vec<Output>), LoopError> {
    let page = reader.rows(Rows::Journals, crate::storage::Keys::default(), ReadLimits::NONE)?;
    let journals: Vec<JournalInfo> = page.rows.iter().filter_map(|row| minicbor::decode(&row.value).ok()).collect();
    let stored = Stored { snapshot, journals: journals.clone(), begin_epoch };
    match Shop::open(identity.clone(), stored) {
        Err(crdt_model::shop::OpenError::Snapshot(reason)) => {
            tracing::warn!(reason, "the snapshot is rebuilt from the journals");
            Ok(Shop::open(identity.clone(), Stored { snapshot: None, journals, begin_epoch })?)
        }
        opened => Ok(opened?),
    }
}
