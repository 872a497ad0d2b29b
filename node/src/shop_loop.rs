//! The loop that owns the shop: it takes what is queued, makes one durable commit, and only
//! then sends and acknowledges. It is the only writer; `turn` says who runs it when.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

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
pub(crate) const GROUP_MAX: usize = 1_024;
/// A snapshot is due after so many entries, or a quarter of what is stored if that is more, so
/// that writing them costs a constant a sale.
const SNAPSHOT_ENTRIES_MIN: u64 = 10_000;

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
    /// Rows of the node's own, to be made durable, or to be durable with what follows.
    Rows { rows: Vec<RowWrite>, durable: bool, reply: oneshot::Sender<()> },
    /// Write a snapshot and end.
    Close,
}

/// Rows of the node's own that are written together.
#[derive(Default)]
struct NodeRows {
    rows: Vec<RowWrite>,
    /// All of them can be made again.
    derived: bool,
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
    /// The node itself failed while it served the shop.
    #[error(
        "the node failed while it recorded; nothing acknowledged is lost: start it again, and report what its log says"
    )]
    Broken,
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
    /// What the last group left to be done, and whether there is such a group.
    left: Vec<Output>,
    unsealed: bool,
    wakes: Option<mpsc::UnboundedSender<Timestamp>>,
}

pub use crate::clock::now;

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
        let mut opened = Self {
            storage,
            reader,
            identity,
            shop,
            links,
            changes,
            since_snapshot: 0,
            left: Vec::new(),
            unsealed: false,
            wakes: None,
        };
        opened.carry_out(outputs)?;
        if let Some(marker) = marker {
            // Only now: a copy must have begun its own epoch before it counts as the original.
            marker.bind(opened.storage.as_mut(), crate::folder::random()?)?;
        }
        Ok(opened)
    }

    pub(crate) fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader)
    }

    pub(crate) fn changes(&self) -> broadcast::Sender<Change> {
        self.changes.clone()
    }

    /// Where times to wake at are told.
    pub(crate) fn wakes(&mut self) -> mpsc::UnboundedReceiver<Timestamp> {
        let (wakes, alarms) = mpsc::unbounded_channel();
        self.wakes = Some(wakes);
        alarms
    }

    fn wake_at(&self, at: Timestamp) {
        if self.wakes.as_ref().is_some_and(|wakes| wakes.send(at).is_err()) {
            tracing::debug!("the alarm has ended");
        }
    }

    /// Handles a group of requests with one commit, answers them, and leaves what keeps no caller
    /// waiting (signing, sending) to [`Self::finish`]. Tells whether the loop is to end.
    pub(crate) fn group(&mut self, group: Vec<Request>) -> Result<bool, LoopError> {
        self.finish()?;
        let mut outputs = Vec::new();
        let mut rows = Vec::new();
        let mut replies = VecDeque::new();
        let mut written = Vec::new();
        let mut questions = Vec::new();
        let mut close = false;
        let mut all_derived = true;
        for request in group {
            self.unsealed |= matches!(request, Request::Act { .. } | Request::Input(_));
            match request {
                Request::Act { plan, rows: more, reply } => {
                    outputs.extend(self.shop.catch_up());
                    let Some(operation) = plan(&self.shop) else { continue };
                    let before = outputs.len();
                    outputs.extend(self.shop.handle(Input::Act(Box::new(operation)), now()));
                    let accepted = outputs.iter().skip(before).any(|output| matches!(output, Output::Acted(Ok(_))));
                    if accepted {
                        all_derived &= more.is_empty();
                        rows.extend(more);
                    }
                    replies.push_back(reply);
                }
                Request::Input(input) => outputs.extend(self.shop.handle(input, now())),
                Request::Ask(question) => questions.push(question),
                Request::Rows { rows: more, durable, reply } => {
                    all_derived &= !durable;
                    rows.extend(more);
                    written.push(reply);
                }
                Request::Close => close = true,
            }
        }
        self.commit_and_answer(outputs, NodeRows { rows, derived: all_derived }, replies)?;
        for reply in written {
            if reply.send(()).is_err() {
                tracing::debug!("nobody waits for these rows any more");
            }
        }
        if close || !questions.is_empty() {
            self.finish()?;
        }
        for question in questions {
            question(&self.shop);
        }
        Ok(close)
    }

    /// Whether something of the last group is left to be done.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unsealed
    }

    /// Does what the last group left: signs, sends, tells.
    pub(crate) fn finish(&mut self) -> Result<(), LoopError> {
        if !std::mem::take(&mut self.unsealed) {
            return Ok(());
        }
        let left = std::mem::take(&mut self.left);
        self.carry_out(left)?;
        if self.shop.needs_rebuild() {
            self.rebuild()?;
        }
        self.snapshot_if_due()
    }

    /// Makes a group durable and answers it.
    fn commit_and_answer(
        &mut self,
        mut outputs: Vec<Output>,
        rows: NodeRows,
        mut replies: VecDeque<oneshot::Sender<Result<Acted, ActError>>>,
    ) -> Result<(), LoopError> {
        outputs.extend(self.shop.handle(Input::Stage, now()));
        let later = self.commit(outputs, rows)?;
        for output in later {
            if let Output::Acted(answer) = output {
                if let Some(reply) = replies.pop_front() {
                    // The asker may have gone; what it recorded stays recorded.
                    drop(reply.send(answer));
                }
            } else {
                self.left.push(output);
            }
        }
        Ok(())
    }

    /// Seals a group and carries out what is left of it, in order.
    fn carry_out(&mut self, mut left: Vec<Output>) -> Result<(), LoopError> {
        loop {
            left.extend(self.shop.handle(Input::Seal, now()));
            let later = self.commit(left, NodeRows::default())?;
            left = Vec::new();
            let mut fed = false;
            for output in later {
                match output {
                    Output::Load { journal, from } => {
                        fed = true;
                        let entries = self.load(journal, from)?;
                        left.extend(self.shop.handle(Input::Loaded { journal, from, entries }, now()));
                    }
                    Output::Fetch(places) => {
                        fed = true;
                        let entries = self.fetch(&places)?;
                        left.extend(self.shop.handle(Input::Fetched(entries), now()));
                    }
                    Output::Split(split) => {
                        fed = true;
                        left.extend(self.split(&split)?);
                    }
                    Output::Send(link, frame) => self.links.send(link, frame),
                    Output::SendRange { link, journal, info, from, through, branch } => {
                        self.links.send_range(link, crate::links::Range { journal, info, from, through, branch });
                    }
                    Output::Greeted(link) => self.links.greeted(link),
                    Output::Refuse(link, reason) => self.links.refuse(link, &reason),
                    Output::Changed(change) => self.tell(change),
                    Output::WakeAt(at) => self.wake_at(at),
                    // Stored already, or answered.
                    Output::Begun(_) | Output::Journal { .. } | Output::Signed(_) | Output::Acted(_) => {}
                }
            }
            if !fed {
                return Ok(());
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
    fn commit(&mut self, outputs: Vec<Output>, rows: NodeRows) -> Result<Vec<Output>, LoopError> {
        let mut batch = Batch { rows: rows.rows, ..Batch::default() };
        let mut has_shops_own = false;
        let mut later = Vec::with_capacity(outputs.len());
        let mut signed = Vec::new();
        for output in outputs {
            match output {
                Output::Begun(info) => {
                    has_shops_own = true;
                    put_journal(&mut batch, &info);
                }
                Output::Journal { entries, runs, ours } => {
                    has_shops_own = true;
                    let packed: u64 = runs.iter().map(|run| run.last - run.first + 1).sum();
                    self.since_snapshot += entries.len() as u64 + packed;
                    batch.runs.extend(runs);
                    let stored = entries.into_iter().map(|entry| EntryRow { place: entry.place, bytes: entry.bytes });
                    batch.entries.extend(stored);
                    if !ours {
                        batch.durability = Durability::PeerData;
                    }
                }
                Output::Signed(entry) => signed.push(EntryRow { place: entry.place, bytes: entry.bytes }),
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
        if rows.derived && !has_shops_own {
            batch.durability = Durability::Background;
        }
        if !batch.is_empty() {
            self.storage.commit(&batch)?;
        }
        if !signed.is_empty() {
            self.storage.settle(signed)?;
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
        self.links.close_all();
        Ok(outputs)
    }

    /// Opens the shop anew from the journals, without its snapshot.
    fn rebuild(&mut self) -> Result<(), LoopError> {
        let mut batch = Batch::new(Durability::OwnEntries);
        batch.delete(Rows::Snapshot, SNAPSHOT_KEY);
        self.storage.commit(&batch)?;
        let (shop, outputs) = open_shop(self.reader.as_ref(), &self.identity, None, false)?;
        self.shop = shop;
        self.links.close_all();
        self.carry_out(outputs)
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

    pub(crate) fn close(mut self) -> Result<(), LoopError> {
        self.write_snapshot(Durability::OwnEntries)
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
