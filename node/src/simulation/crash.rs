//! Where the relay's process may be killed: before and after every commit and every exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::storage::{Batch, EntryRow, Reader, Storage, StorageError};

/// Counts steps, and kills the process at one of them.
#[derive(Debug, Default)]
pub(super) struct Steps {
    passed: AtomicU64,
    kill_at: AtomicU64,
    is_dead: AtomicBool,
    killed: Notify,
}

impl Steps {
    /// A process begins, and is killed so many steps from now; 0 lets it live.
    pub(super) fn begin(&self, kill_in: u64) {
        let passed = self.passed.load(Ordering::SeqCst);
        self.kill_at.store(if kill_in == 0 { u64::MAX } else { passed + kill_in }, Ordering::SeqCst);
        self.is_dead.store(false, Ordering::SeqCst);
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Whether the process is still there to take this step.
    pub(super) fn take(&self) -> bool {
        if self.is_dead.load(Ordering::SeqCst) {
            return false;
        }
        let step = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if step < self.kill_at.load(Ordering::SeqCst) {
            return true;
        }
        self.kill();
        false
    }

    pub(super) fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.killed.notify_one();
    }

    /// A step of an exchange: a process that is dead never goes on.
    pub(super) async fn pass(&self) {
        if !self.take() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn killed(&self) {
        self.killed.notified().await;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }
}

/// The real engine, with a step before and after each commit.
#[derive(Debug)]
pub(super) struct Killable<S> {
    pub(super) storage: S,
    pub(super) steps: Arc<Steps>,
}

impl<S: Storage> Storage for Killable<S> {
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if !self.steps.take() {
            return Err(StorageError::Ended);
        }
        self.storage.commit(batch)?;
        // Durable, but nobody hears of it.
        if self.steps.take() { Ok(()) } else { Err(StorageError::Ended) }
    }

    fn settle(&mut self, signed: Vec<EntryRow>) -> Result<(), StorageError> {
        if self.steps.take() { self.storage.settle(signed) } else { Err(StorageError::Ended) }
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.storage.reader()
    }
}
