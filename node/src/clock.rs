//! The wall clock of the node. A simulation on one thread brings a clock of its own, which
//! follows the paused clock of its runtime.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use crdt_model::time::Timestamp;
use tokio::time::Instant;

thread_local! {
    /// The virtual time at a moment of the runtime's clock, where a simulation runs.
    static VIRTUAL: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// The wall clock, in milliseconds since 1970 UTC.
#[must_use]
pub fn now() -> Timestamp {
    if let Some((began, since)) = VIRTUAL.get() {
        return began.plus_ms(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// As long as it lives, this thread's clock is virtual.
#[derive(Debug)]
pub(crate) struct VirtualClock(());

impl VirtualClock {
    /// Begins at `began`. Call it within the simulation's runtime, whose clock is paused.
    pub(crate) fn start(began: Timestamp) -> Self {
        VIRTUAL.set(Some((began, Instant::now())));
        Self(())
    }
}

impl Drop for VirtualClock {
    fn drop(&mut self) {
        VIRTUAL.set(None);
    }
}
