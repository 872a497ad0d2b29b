//! Links: between the transports' frame streams and the shop's sessions. One task reads and one
//! writes each; a slow one is closed and catches up later, and never stalls the shop.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crdt_model::entry::{Entry, Place};
use crdt_model::ids::{DeviceId, JournalId};
use crdt_model::journal::JournalInfo;
use crdt_model::shop::{Arrival, Input, LinkId, LinkKind};
use crdt_model::sync::codec::{RUN_ENTRIES_MAX, Run, RunBuilder};
use crdt_model::sync::compact::range_frame;
use crdt_model::sync::message::{BranchPoint, Message};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::shop_handle::ShopHandle;
use crate::storage::{ReadLimits, Reader, StorageError};

/// Live frames that may wait for one link; beyond it the link is closed and catches up later
/// from storage, which costs no memory.
const QUEUE_FRAMES_MAX: usize = 1_024;
/// The first run of many is short, so that the peer has something to do while the next is read;
/// each one after it is twice as long. At least as many as an author may leave unsigned.
const FIRST_RUN_ENTRIES: usize = 128;
/// A peer that is not of our business is left alone for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

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
    jobs: mpsc::Sender<Job>,
    greeted: watch::Sender<bool>,
    close: Closer,
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
}

impl LinkTable {
    /// Tells where refused devices go.
    pub(crate) fn on_refuse(&self, refused: mpsc::UnboundedSender<(DeviceId, Duration)>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
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

    /// The shop was opened anew: every link begins its session again, by being made again.
    pub(crate) fn reset(&self) {
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
    table
        .open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(id, Open { device, jobs, greeted, close: closer.clone() });
    let work = async {
        if handle.input(Input::LinkUp(id, device, kind)).await.is_err() {
            return;
        }
        tracing::info!("link up");
        tokio::select! {
            () = read(id, &handle, link.frames_in, greeting) => {}
            () = write(id, &handle, &table, link.frames_out, waiting) => {}
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
    handle: &ShopHandle,
    mut frames: transport::FrameReceiver,
    mut greeting: watch::Receiver<bool>,
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
        match frame {
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
) {
    let mut frames = Counted { frames, table };
    while let Some(job) = jobs.recv().await {
        let sent = match job {
            Job::Frame(frame) => frames.send(frame).await,
            Job::Range(range) => send_range(id, handle, &mut frames, *range).await,
        };
        if !sent {
            return;
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
async fn send_range(id: LinkId, handle: &ShopHandle, frames: &mut Counted<'_>, range: Range) -> bool {
    let reader = Arc::clone(handle.reader());
    let Range { journal, mut info, from, through, branch } = range;
    let mut next = from;
    let mut entries_max = FIRST_RUN_ENTRIES;
    while next <= through {
        let reader = Arc::clone(&reader);
        let introduction = info.take();
        let cut = tokio::task::spawn_blocking(move || {
            let run = read_run(reader.as_ref(), journal, introduction, next..=through, entries_max)?;
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
    seqs: RangeInclusive<u64>,
    entries_max: usize,
) -> Result<Option<Run>, StorageError> {
    let limits = ReadLimits { entries_max, bytes_max: usize::MAX };
    let mut builder = RunBuilder::new(journal, info, *seqs.start());
    let _end = reader.entries(journal, seqs, limits, &mut |_, bytes| match Entry::from_bytes(bytes) {
        Ok(entry) => builder.push(entry),
        Err(_) => ControlFlow::Break(()),
    })?;
    Ok(builder.finish())
}
