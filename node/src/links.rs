//! Links: between the transports' frame streams and the shop's sessions. One task reads and one
//! writes each; a slow one is closed and catches up later, and never stalls the shop.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crdt_model::entry::{Entry, Place};
use crdt_model::ids::{DeviceId, JournalId};
use crdt_model::journal::JournalInfo;
use crdt_model::shop::{Arrival, Input, LinkId, LinkKind};
use crdt_model::sync::codec::{CodecError, RUN_BYTES_SOFT, RUN_ENTRIES_MAX, Run, RunBuilder};
use crdt_model::sync::compact::range_frame;
use crdt_model::sync::message::{BranchPoint, Message};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::asides;
use crate::shop_handle::ShopHandle;
use crate::storage::{ReadLimits, Reader, StorageError};
use crate::ways::Ways;

/// Live frames that may wait for one link; beyond it the link is closed and catches up later
/// from storage, which costs no memory.
const QUEUE_FRAMES_MAX: usize = 1_024;
/// The first run of many is short, so that the peer has something to do while the next is read;
/// each one after it is twice as long. At least as many as an author may leave unsigned.
const FIRST_RUN_ENTRIES: usize = 128;
/// A peer that is not of our business is left alone for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// A run on a slow link: a second of 4 KB/s, because what is cut off in the middle of a run has
/// to be sent again.
const SLOW_RUN_ENTRIES_MAX: usize = 128;
const SLOW_RUN_BYTES: usize = 12 * 1024;
/// How often it is looked at whether the peer has to be told new addresses.
const ADDRESSES_CHECK: Duration = Duration::from_secs(2);

/// Stored entries to be sent.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) journal: JournalId,
    pub(crate) info: Option<JournalInfo>,
    pub(crate) from: u64,
    pub(crate) through: u64,
    pub(crate) branch: Option<BranchPoint>,
}

#[derive(Debug)]
enum Job {
    Frame(Vec<u8>),
    Range(Box<Range>),
}

#[derive(Debug)]
struct Open {
    device: DeviceId,
    remote: String,
    received_bytes: Arc<AtomicU64>,
    traffic: transport::Traffic,
    jobs: mpsc::Sender<Job>,
    greeted: watch::Sender<bool>,
    close: Closer,
}

/// What a link has moved, and where its other end is.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The address of the other end, for people.
    pub remote: String,
    /// Bytes of frames that were received.
    pub received_bytes: u64,
    /// Bytes that the carrier was given, everything included; 0 if it does not count.
    pub carried_sent_bytes: u64,
    /// Bytes that the carrier gave, everything included; 0 if it does not count.
    pub carried_received_bytes: u64,
}

/// Closes a link from outside.
#[derive(Debug, Clone)]
struct Closer(watch::Sender<bool>);

impl Closer {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn close(&self) {
        self.0.send_replace(true);
    }

    async fn closed(&self) {
        let mut closed = self.0.subscribe();
        // The sender lives in `self`, so this ends only once it says so.
        drop(closed.wait_for(|closed| *closed).await);
    }
}

/// The links that are up, by number. The shop's loop sends through it and never waits.
#[derive(Debug, Default)]
pub(crate) struct LinkTable {
    open: Mutex<BTreeMap<LinkId, Open>>,
    refused: Mutex<Option<mpsc::UnboundedSender<(DeviceId, Duration)>>>,
    bytes_sent: AtomicU64,
    ways: OnceLock<Ways>,
}

impl LinkTable {
    /// Tells where links learn and teach addresses.
    pub(crate) fn told_by(&self, ways: Ways) {
        self.ways.get_or_init(|| ways);
    }

    /// Tells where refused devices go.
    pub(crate) fn on_refuse(&self, refused: mpsc::UnboundedSender<(DeviceId, Duration)>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }

    /// What a link has moved.
    pub(crate) fn moved(&self, link: LinkId) -> Option<Moved> {
        self.with(link, |open| Moved {
            remote: open.remote.clone(),
            received_bytes: open.received_bytes.load(Ordering::Relaxed),
            carried_sent_bytes: open.traffic.sent_bytes(),
            carried_received_bytes: open.traffic.received_bytes(),
        })
    }

    /// Bytes of frames that were given to links so far.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    fn with<T>(&self, link: LinkId, then: impl FnOnce(&Open) -> T) -> Option<T> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&link).map(then)
    }

    fn push(&self, link: LinkId, job: Job) {
        let full = self.with(link, |open| open.jobs.try_send(job).is_err());
        if full == Some(true) {
            tracing::warn!(link = link.0, "a link is too slow for live entries: it is closed and catches up later");
            self.close(link);
        }
    }

    pub(crate) fn send(&self, link: LinkId, frame: Vec<u8>) {
        self.push(link, Job::Frame(frame));
    }

    pub(crate) fn send_range(&self, link: LinkId, range: Range) {
        self.push(link, Job::Range(Box::new(range)));
    }

    pub(crate) fn greeted(&self, link: LinkId) {
        self.with(link, |open| open.greeted.send_replace(true));
    }

    fn close(&self, link: LinkId) {
        self.with(link, |open| open.close.close());
    }

    /// Closes a link to a device that is not one of ours, and leaves the device alone a while.
    pub(crate) fn refuse(&self, link: LinkId, reason: &str) {
        let Some(device) = self.with(link, |open| open.device) else { return };
        tracing::warn!(link = link.0, %device, reason, "a link is refused");
        self.close(link);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref().is_some_and(|refused| refused.send((device, REFUSED_PAUSE)).is_err()) {
            tracing::debug!("no transport is left to be told");
        }
    }

    /// Closes every link. If the shop was opened anew, each begins its session again by being made
    /// again.
    pub(crate) fn close_all(&self) {
        let links: Vec<LinkId> = self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for link in links {
            self.close(link);
        }
    }
}

fn kind_of(kind: transport::LinkKind) -> LinkKind {
    match kind {
        transport::LinkKind::Lan => LinkKind::Lan,
        transport::LinkKind::Bluetooth => LinkKind::Bluetooth,
        transport::LinkKind::Host => LinkKind::Host,
        transport::LinkKind::Memory => LinkKind::Memory,
    }
}

/// Runs one link until either side ends it.
pub(crate) async fn run(table: Arc<LinkTable>, handle: ShopHandle, link: transport::Link) {
    let id = LinkId(link.id.0);
    let device = DeviceId(link.peer.0);
    let kind = kind_of(link.kind);
    let span = tracing::info_span!("link", id = id.0, peer = %device, remote = link.remote);
    let closer = Closer::new();
    let (jobs, waiting) = mpsc::channel(QUEUE_FRAMES_MAX);
    let greeted = watch::Sender::new(false);
    let greeting = greeted.subscribe();
    // On the LAN the peer knows where we are.
    let told = matches!(kind, LinkKind::Bluetooth | LinkKind::Host).then(|| table.ways.get().cloned()).flatten();
    let pace = Pace::of(kind);
    let received_bytes = Arc::new(AtomicU64::new(0));
    let opened = Open {
        device,
        remote: link.remote.clone(),
        received_bytes: Arc::clone(&received_bytes),
        traffic: link.traffic.clone(),
        jobs,
        greeted,
        close: closer.clone(),
    };
    table.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, opened);
    let work = async {
        if handle.input(Input::LinkUp(id, device, kind)).await.is_err() {
            return;
        }
        tracing::info!("link up");
        tokio::select! {
            () = read(id, device, &handle, link.frames_in, greeting.clone(), told.clone(), &received_bytes) => {}
            () = write(id, &handle, &table, link.frames_out, waiting, Telling { ways: told, greeting, said: None, pace }) => {}
            () = closer.closed() => {}
        }
        tracing::info!("link down");
    };
    work.instrument(span).await;
    table.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    if handle.input(Input::LinkDown(id)).await.is_err() {
        tracing::debug!("the shop stopped before its link");
    }
}

async fn read(
    id: LinkId,
    device: DeviceId,
    handle: &ShopHandle,
    mut frames: transport::FrameReceiver,
    mut greeting: watch::Receiver<bool>,
    ways: Option<Ways>,
    received_bytes: &AtomicU64,
) {
    let mut greeted = false;
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            changed = greeting.changed(), if !greeted => {
                greeted = true;
                if changed.is_ok() {
                    frames.raise_limit();
                }
                continue;
            }
        };
        if let Some(Ok(frame)) = &frame {
            received_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        match frame {
            Some(Ok(frame)) if asides::is_aside(&frame) => {
                // Only a device that has proved to be one of ours can make us dial.
                if let Some(ways) = ways.as_ref().filter(|_| greeted) {
                    ways.learnt(device, &asides::heard(&frame));
                }
            }
            Some(Ok(frame)) => {
                // Nothing that a stranger may have sent is read here.
                let taken = if greeted {
                    handle.arrived(id, Arrival::read(&frame)).await
                } else {
                    handle.input(Input::Received(id, frame.to_vec())).await
                };
                if taken.is_err() {
                    return;
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the link broke");
                return;
            }
            None => return,
        }
    }
}

async fn write(
    id: LinkId,
    handle: &ShopHandle,
    table: &LinkTable,
    frames: transport::FrameSender,
    mut jobs: mpsc::Receiver<Job>,
    mut telling: Telling,
) {
    let mut frames = Counted { frames, table };
    loop {
        let job = tokio::select! {
            biased;
            job = jobs.recv() => job,
            aside = telling.next() => Some(Job::Frame(aside)),
        };
        let sent = match job {
            Some(Job::Frame(frame)) => frames.send(frame).await,
            Some(Job::Range(range)) => send_range(id, handle, &mut frames, *range, telling.pace).await,
            None => return,
        };
        if !sent {
            return;
        }
    }
}

/// How much is sent in one piece.
#[derive(Debug, Clone, Copy)]
struct Pace {
    run_entries_max: usize,
    run_bytes: usize,
}

impl Pace {
    fn of(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Lan | LinkKind::Memory => Self { run_entries_max: RUN_ENTRIES_MAX, run_bytes: RUN_BYTES_SOFT },
            LinkKind::Bluetooth | LinkKind::Host => {
                Self { run_entries_max: SLOW_RUN_ENTRIES_MAX, run_bytes: SLOW_RUN_BYTES }
            }
        }
    }

    fn takes_long_runs(self) -> bool {
        self.run_entries_max == RUN_ENTRIES_MAX
    }

    fn at_most(self, entries: usize) -> Self {
        Self { run_entries_max: self.run_entries_max.min(entries), ..self }
    }
}

/// What a peer is told about where this node listens.
struct Telling {
    ways: Option<Ways>,
    greeting: watch::Receiver<bool>,
    said: Option<Vec<u8>>,
    pace: Pace,
}

impl Telling {
    /// The next aside; waits until there is something new to tell.
    async fn next(&mut self) -> Vec<u8> {
        let Some(ways) = self.ways.clone() else { return std::future::pending().await };
        if self.greeting.wait_for(|greeted| *greeted).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            let aside = asides::listening(&ways.addresses());
            if aside != self.said
                && let Some(aside) = aside
            {
                self.said = Some(aside.clone());
                return aside;
            }
            tokio::time::sleep(ADDRESSES_CHECK).await;
        }
    }
}

/// A link's outgoing side, counted.
struct Counted<'t> {
    frames: transport::FrameSender,
    table: &'t LinkTable,
}

impl Counted<'_> {
    async fn send(&mut self, frame: Vec<u8>) -> bool {
        self.table.bytes_sent.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.frames.send(Bytes::from(frame)).await.is_ok()
    }
}

/// Sends stored entries as runs, and tells the shop how far it got.
async fn send_range(id: LinkId, handle: &ShopHandle, frames: &mut Counted<'_>, range: Range, pace: Pace) -> bool {
    let reader = Arc::clone(handle.reader());
    let Range { journal, mut info, from, through, branch } = range;
    let mut next = from;
    let mut entries_max = FIRST_RUN_ENTRIES;
    while next <= through {
        let reader = Arc::clone(&reader);
        let introduction = info.take();
        let cut = tokio::task::spawn_blocking(move || {
            let kept = if pace.takes_long_runs() { reader.run_at(Place { journal, seq: next })? } else { None };
            let mut end = through;
            match kept.filter(|run| run.last <= through && branch.is_none()) {
                // It goes out as it came in.
                Some(run) if run.first == next => {
                    let damaged = |error: CodecError| StorageError::Corrupt(error.to_string());
                    return Ok(Some((run.last, run.to_frame(introduction).map_err(damaged)?)));
                }
                // Up to its end, so that the next ones go out as they came in.
                Some(run) => end = run.last,
                None => {}
            }
            let run = read_run(reader.as_ref(), journal, introduction, next..=end, pace.at_most(entries_max))?;
            let Some(run) = run else { return Ok(None) };
            let last = run.start + run.entries.len() as u64 - 1;
            let frame = match branch {
                None => range_frame(run, |seq| read_entry(reader.as_ref(), Place { journal, seq }))?,
                Some(point) => Message::Branch(point, Box::new(run)).to_frame(),
            };
            Ok::<_, StorageError>(Some((last, frame)))
        })
        .await;
        match cut {
            Ok(Ok(Some((last, frame)))) => {
                if !frames.send(frame).await {
                    return false;
                }
                next = last + 1;
                entries_max = RUN_ENTRIES_MAX.min(entries_max * 2);
                if branch.is_some() {
                    return true;
                }
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                tracing::error!(%error, "stored entries can't be read for a peer");
                return false;
            }
            Err(_) => return false,
        }
    }
    branch.is_some() || handle.input(Input::RangeSent { link: id, journal, through: next - 1 }).await.is_ok()
}

fn read_entry(reader: &dyn Reader, place: Place) -> Result<Option<Entry>, StorageError> {
    Ok(reader.entry(place)?.and_then(|bytes| Entry::from_bytes(&bytes).ok()))
}

/// Reads stored entries as one run.
fn read_run(
    reader: &dyn Reader,
    journal: JournalId,
    info: Option<JournalInfo>,
    range: RangeInclusive<u64>,
    pace: Pace,
) -> Result<Option<Run>, StorageError> {
    let limits = ReadLimits { entries_max: RUN_ENTRIES_MAX, bytes_max: usize::MAX };
    let mut builder = RunBuilder::new(journal, info, *range.start()).limited_to(pace.run_entries_max, pace.run_bytes);
    let _end = reader.entries(journal, range, limits, &mut |_, bytes| match Entry::from_bytes(bytes) {
        Ok(entry) => builder.push(entry),
        Err(_) => ControlFlow::Break(()),
    })?;
    Ok(builder.finish())
}
