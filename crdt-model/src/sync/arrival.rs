//! Frames as they arrive, read as far as they can be without the shop. It is most of the work of
//! taking many entries, and any thread may do it while the shop takes others.

use super::codec::Run;
use super::message::{Message, MessageError};
use crate::entry::{Body, Entry, EntryError};

/// A frame that was read; nothing of it is believed yet.
#[derive(Debug)]
pub struct Arrival {
    pub(crate) message: Result<Message, MessageError>,
    /// What was worked out of each run of an entries message, entry by entry.
    pub(crate) prepared: Vec<Vec<Prepared>>,
}

/// What taking an entry needs and depends on the entry alone.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its part hashes, one after another.
    pub(crate) part_hashes: Vec<u8>,
    /// Its body, or why it can't be read.
    pub(crate) body: Result<Body, EntryError>,
    /// Its stored form without a mark.
    pub(crate) bytes: Vec<u8>,
}

impl Arrival {
    /// Reads a frame whose length the transport has bounded.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let message = Message::from_frame(frame);
        let prepared = match &message {
            Ok(Message::Entries(runs)) => runs.iter().map(prepare_run).collect(),
            Ok(_) | Err(_) => Vec::new(),
        };
        Self { message, prepared }
    }
}

/// Prepares a run, unless an entry is over a limit: then nothing of it will be taken.
pub(crate) fn prepare_run(run: &Run) -> Vec<Prepared> {
    if run.entries.iter().any(|entry| entry.check_limits().is_err()) {
        return Vec::new();
    }
    run.entries.iter().map(Prepared::of).collect()
}

impl Prepared {
    fn of(entry: &Entry) -> Self {
        Self { part_hashes: entry.part_hashes(), body: entry.body(), bytes: entry.to_bytes() }
    }
}
