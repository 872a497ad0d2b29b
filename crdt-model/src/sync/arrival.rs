//! Frames as they arrive, read as far as they can be without the shop. It is most of the work of
//! taking many entries, and any thread may do it while the shop takes others.

use super::codec::Run;
use super::message::{Message, MessageError};
use super::packed::PACK_ENTRIES_MIN;
use crate::books::{BodyDigest, fact_digests};
use crate::entry::{Body, Entry, EntryError};

/// A frame that was read; nothing of it is believed yet.
#[derive(Debug)]
pub struct Arrival {
    pub(crate) message: Result<Message, MessageError>,
    /// What was worked out of each run of an entries message, entry by entry.
    pub(crate) prepared: Vec<Vec<Prepared>>,
    /// The block, if it is one run that is worth storing in one piece.
    pub(crate) block: Option<Vec<u8>>,
}

/// What taking an entry needs and depends on the entry alone.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its part hashes, one after another.
    pub(crate) part_hashes: Vec<u8>,
    /// Its body, or why it can't be read, and the digests of its facts.
    pub(crate) read: ReadBody,
}

impl Arrival {
    /// Reads a frame whose length the transport has bounded.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let message = Message::from_frame(frame);
        let runs = match &message {
            Ok(Message::Entries(runs)) => runs.as_slice(),
            Ok(_) | Err(_) => &[],
        };
        let prepared = runs.iter().map(prepare_run).collect();
        let packs = matches!(runs, [run] if run.entries.len() >= PACK_ENTRIES_MIN);
        let block = Message::block(frame).filter(|_| packs).map(<[u8]>::to_vec);
        Self { message, prepared, block }
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
        Self { part_hashes: entry.part_hashes(), read: ReadBody::of(entry) }
    }
}

/// An entry's body as it can be read.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub(crate) body: Result<Body, EntryError>,
    /// One for each fact.
    pub(crate) digests: Vec<BodyDigest>,
}

impl ReadBody {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self { body: entry.body(), digests: fact_digests(entry) }
    }
}
