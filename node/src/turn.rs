//! Whose turn it is to serve the shop. Whoever brings a request serves what waits himself if
//! nobody else is at it, so that a single sale changes no threads until it is acknowledged. What
//! then is left to do, and what has come meanwhile, is done on the loop's own thread.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crdt_model::shop::Input;
use crdt_model::time::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::shop_handle::Stopped;
use crate::shop_loop::{GROUP_MAX, LoopError, Request, ShopLoop, now};

/// Requests that may wait for the shop; more callers wait in their own tasks.
const REQUESTS_MAX: usize = 1_024;
/// Moving a thread's other tasks away costs about 30 µs, so it is done only where commits are slower
/// than this, as on a memory card.
const SLOW: Duration = Duration::from_millis(1);
/// Without anything to do, the shop is given the time this often.
const TICK: Duration = Duration::from_secs(5);

/// The way in: requests are queued, and served by whoever has the turn.
#[derive(Debug)]
pub(crate) struct Turn {
    requests: mpsc::Sender<Request>,
    served: Weak<Mutex<Served>>,
    bell: Arc<Notify>,
    /// The last commit took long: other tasks of the thread are to be moved away meanwhile.
    slow: AtomicBool,
    /// Goes with the last handle.
    _open: oneshot::Sender<()>,
}

/// The shop's loop and what waits for it.
struct Served {
    shop_loop: Option<ShopLoop>,
    waiting: mpsc::Receiver<Request>,
    end: Option<Result<(), LoopError>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Serves when nobody who brings requests does, and closes the shop in the end.
#[derive(Debug)]
pub(crate) struct Attendant {
    served: Arc<Mutex<Served>>,
    bell: Arc<Notify>,
    left: oneshot::Receiver<()>,
}

impl Turn {
    /// Opens the way to a shop; the attendant has to run for it to be served at all.
    pub(crate) fn open(shop_loop: ShopLoop) -> (Arc<Self>, Attendant) {
        Self::open_ticking(shop_loop, TICK)
    }

    fn open_ticking(mut shop_loop: ShopLoop, tick: Duration) -> (Arc<Self>, Attendant) {
        let wakes = shop_loop.wakes();
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let served = Arc::new(Mutex::new(Served { shop_loop: Some(shop_loop), waiting, end: None }));
        let bell = Arc::new(Notify::new());
        let (open, left) = oneshot::channel();
        let turn = Self {
            requests,
            served: Arc::downgrade(&served),
            bell: Arc::clone(&bell),
            slow: AtomicBool::new(false),
            _open: open,
        };
        let turn = Arc::new(turn);
        tokio::spawn(alarm(Arc::downgrade(&turn), wakes, tick));
        (turn, Attendant { served, bell, left })
    }

    /// Queues a request, and serves it if nobody else does.
    pub(crate) async fn bring(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)?;
        if may_block() {
            self.serve_once();
        } else {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Queues a request, and leaves it to the loop's own thread: the caller has more to read.
    pub(crate) async fn leave(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)?;
        self.bell.notify_one();
        Ok(())
    }

    fn serve_once(&self) {
        let Some(served) = self.served.upgrade() else { return };
        // Either we get the turn, or whoever has it sees our request when it looks again.
        fence(Ordering::SeqCst);
        let Ok(mut turn) = served.try_lock() else { return };
        let rings = RingOnPanic(&self.bell);
        let started = Instant::now();
        if self.slow.load(Ordering::Relaxed) {
            tokio::task::block_in_place(|| turn.serve_group());
        } else {
            turn.serve_group();
        }
        self.slow.store(started.elapsed() > SLOW, Ordering::Relaxed);
        drop(rings);
        let (ended, unfinished) = (turn.end.is_some(), turn.is_unfinished());
        drop(turn);
        fence(Ordering::SeqCst);
        if ended || self.requests.capacity() < self.requests.max_capacity() {
            self.bell.notify_one();
        } else if unfinished {
            // On this thread, once the caller has sent its answer.
            tokio::spawn(finish_later(Weak::clone(&self.served), Arc::clone(&self.bell)));
        }
    }
}

/// Does what the last group left, unless somebody serves already and does it first.
async fn finish_later(served: Weak<Mutex<Served>>, bell: Arc<Notify>) {
    let Some(served) = served.upgrade() else { return };
    let rings = RingOnPanic(&bell);
    if let Ok(mut turn) = served.try_lock() {
        turn.finish_group();
        let more = turn.end.is_some();
        drop(turn);
        fence(Ordering::SeqCst);
        if more || served.try_lock().is_ok_and(|turn| !turn.waiting.is_empty()) {
            bell.notify_one();
        }
    }
    drop(rings);
}

/// Whether a commit may be waited for on this thread: only where another one takes over its tasks.
fn may_block() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// A panic while serving must not go unnoticed: the attendant ends the node.
struct RingOnPanic<'b>(&'b Notify);

impl Drop for RingOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

impl Served {
    /// Serves what waits now, at most one group of it.
    fn serve_group(&mut self) {
        let Some(shop_loop) = self.shop_loop.as_mut().filter(|_| self.end.is_none()) else { return };
        let mut group = Vec::new();
        while group.len() < GROUP_MAX
            && let Ok(request) = self.waiting.try_recv()
        {
            group.push(request);
        }
        if group.is_empty() {
            return;
        }
        match shop_loop.group(group) {
            Ok(false) => {}
            Ok(true) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error)),
        }
    }

    fn is_unfinished(&self) -> bool {
        self.shop_loop.as_ref().is_some_and(ShopLoop::is_unfinished)
    }

    /// Does what the last group left to do.
    fn finish_group(&mut self) {
        let Some(shop_loop) = self.shop_loop.as_mut().filter(|_| self.end.is_none()) else { return };
        if let Err(error) = shop_loop.finish() {
            self.end = Some(Err(error));
        }
    }
}

impl Attendant {
    /// Runs until the shop is closed, its disk fails, or nobody holds a way to it any more.
    pub(crate) async fn run(mut self) -> Result<(), LoopError> {
        loop {
            let deserted = tokio::select! {
                () = self.bell.notified() => false,
                _ = &mut self.left => true,
            };
            let mut turn = self.take_turn()?;
            while turn.end.is_none() && !turn.waiting.is_empty() {
                turn.serve_group();
            }
            turn.finish_group();
            if turn.end.is_some() || deserted {
                return turn.finish();
            }
            drop(turn);
            // Whoever brought a request in the last moment has left it to us.
            fence(Ordering::SeqCst);
            if self.served.try_lock().is_ok_and(|turn| !turn.waiting.is_empty()) {
                self.bell.notify_one();
            }
        }
    }

    fn take_turn(&self) -> Result<MutexGuard<'_, Served>, LoopError> {
        // A short wait on the loop's own thread, for somebody's commit.
        match self.served.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::WouldBlock) => self.served.lock().map_err(broken),
            Err(TryLockError::Poisoned(poisoned)) => Err(broken(poisoned)),
        }
    }
}

/// Somebody panicked while serving: memory can't be trusted any more, the disk can.
fn broken(poisoned: PoisonError<MutexGuard<'_, Served>>) -> LoopError {
    let mut turn = poisoned.into_inner();
    turn.waiting.close();
    turn.shop_loop = None;
    LoopError::Broken
}

impl Served {
    /// Closes the shop and its file; who still waits is told by the closed queue.
    fn finish(&mut self) -> Result<(), LoopError> {
        self.waiting.close();
        while self.waiting.try_recv().is_ok() {}
        let end = self.end.take().unwrap_or(Ok(()));
        match self.shop_loop.take() {
            Some(shop_loop) if end.is_ok() => shop_loop.close(),
            _ => end,
        }
    }
}

/// Gives the shop the time: when it asked for it, and now and then.
async fn alarm(turn: Weak<Turn>, mut wakes: mpsc::UnboundedReceiver<Timestamp>, tick: Duration) {
    let mut due: BTreeSet<Timestamp> = BTreeSet::new();
    loop {
        let at = now();
        let wait = due.first().map_or(tick, |next| Duration::from_millis(next.0.saturating_sub(at.0)).min(tick));
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
        let Some(turn) = turn.upgrade() else { return };
        if turn.bring(Request::Input(Input::Tick)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crdt_model::money::Currency;
    use crdt_model::record::{Custom, Fact, Kind};
    use crdt_model::shop::{Operation, Shop};
    use tokio::sync::broadcast;

    use super::*;
    use crate::folder;
    use crate::links::LinkTable;
    use crate::node::{Node, NodeConfig};

    async fn node_at(folder: &Path) -> Node {
        if std::fs::read_dir(folder).unwrap().next().is_none() {
            folder::found(folder, "Duka", Currency::KES, 180, "till", now()).unwrap();
        }
        Node::start(NodeConfig::new(folder)).await.unwrap()
    }

    fn operation() -> Operation {
        let custom = Custom {
            source: None,
            operation_type: "note".to_owned(),
            method: "POST".to_owned(),
            path: "/notes".to_owned(),
            body: "{}".to_owned(),
            ..Custom::default()
        };
        Operation { facts: vec![Fact::Custom(custom)], ..Operation::default() }
    }

    /// A request that nobody serves would wait for the next tick, so here none comes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_who_brings_a_request_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        folder::found(folder.path(), "Duka", Currency::KES, 180, "till", now()).unwrap();
        let opened = folder::open(folder.path(), None).unwrap();
        let changes = broadcast::Sender::new(16);
        let links = Arc::new(LinkTable::default());
        let shop_loop = ShopLoop::open(Box::new(opened.storage), opened.identity, true, links, changes, None).unwrap();
        let (turn, attendant) = Turn::open_ticking(shop_loop, Duration::from_secs(3_600));
        let attending = tokio::spawn(attendant.run());
        let callers: Vec<_> = (0..32)
            .map(|_| {
                let turn = Arc::clone(&turn);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let (reply, answer) = oneshot::channel();
                        let plan = Box::new(|_: &Shop| Some(operation()));
                        turn.bring(Request::Act { plan, rows: Vec::new(), reply }).await.unwrap();
                        answer.await.unwrap().unwrap();
                    }
                })
            })
            .collect();
        let served = async {
            for caller in callers {
                caller.await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), served).await.expect("somebody was forgotten");
        let (reply, answer) = oneshot::channel();
        let count = Box::new(move |shop: &Shop| reply.send(shop.books().count_of(Kind::Custom)).unwrap());
        turn.bring(Request::Ask(count)).await.unwrap();
        assert_eq!(answer.await.unwrap(), 640);
        drop(turn);
        attending.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_failure_while_serving_ends_the_node_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let node = node_at(folder.path()).await;
        node.shop().record(operation()).await.unwrap();
        let shop = node.shop().clone();
        let failed = tokio::spawn(async move { shop.ask(|_| -> () { panic!("as a mistake would") }).await });
        assert!(!matches!(failed.await, Ok(Ok(()))), "a failed question has no answer");
        assert!(node.ended().await.unwrap().contains("start it again"));
        assert!(node.shop().record(operation()).await.is_err());
        drop(node.stop().await.unwrap_err());
        let node = node_at(folder.path()).await;
        assert_eq!(node.shop().ask(|shop| shop.books().count_of(Kind::Custom)).await.unwrap(), 1);
        node.stop().await.unwrap();
    }
}
