//! What a node keeps: journal entries by place, and small named rows. Engines differ, the contract
//! of [`Storage`] and [`Reader`] does not. Table bytes are in `tables`; docs/storage.md explains.

use std::fmt::Debug;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crdt_model::entry::Place;
use crdt_model::ids::JournalId;
use crdt_model::sync::packed::PackedRun;

#[cfg(test)]
mod contract;
mod device;
mod error;
mod file;
mod file_in_memory;
pub mod marker;
mod memory;
mod packed;
#[cfg(test)]
mod power_cut;
mod redb;
mod redb_reader;
#[cfg(test)]
mod rig;
mod tables;
mod tail;

pub use error::{OpenError, StorageError};
pub(crate) use file_in_memory::FileInMemory;
pub use marker::{Break, Continuity, MarkerError, RestoreMarker};
pub use memory::{MemoryDisk, MemoryStorage};
pub use redb::RedbStorage;

/// The largest entry that can be stored, in bytes.
pub const STORED_ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// The largest run that can be stored in one piece, in bytes.
pub const PACKED_RUN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest key of a named row, in bytes.
pub const ROW_KEY_BYTES_MAX: usize = 1024;
/// The largest value of a named row, in bytes.
pub const ROW_VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The one writer of a node's data.
///
/// - [`commit`](Self::commit) applies a whole batch or none of it.
/// - When it answers `Ok`, the batch survives a crash and a power cut, unless it is
///   [`Durability::Background`].
/// - Batches become durable in the order of their commits.
/// - After an `Err` every further commit is refused with [`StorageError::Ended`]: memory may be
///   ahead of the disk, and the node has to start again. The failed batch is on the disk either
///   whole or not at all.
/// - Readers see a batch as soon as `commit` answers, never a part of it.
/// - Dropping the storage closes it; its readers then answer [`StorageError::Closed`].
pub trait Storage: Debug + Send {
    /// Writes a batch: drops, then runs, then entries, then rows. Later writes of one place or key
    /// win over earlier ones. A run in one piece is read like the entries in it.
    ///
    /// # Errors
    /// [`StorageError`]; see the contract above.
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Does what the commits so far have left to do, so that the next one or a reader needn't wait
    /// for it. `signed` replaces the stored form of entries by one that says more, such as a
    /// signature that the node would make again: a crash may take that back, and nothing else.
    ///
    /// # Errors
    /// [`StorageError`]; see the contract above.
    fn settle(&mut self, signed: Vec<EntryRow>) -> Result<(), StorageError>;

    /// A reader for any thread. Clone the `Arc` freely.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// Reads what was committed.
///
/// - Each call sees one snapshot: everything committed when it began, nothing of what follows.
/// - The writer never waits for a call to end; a call waits at most for a commit to be written. It
///   may be made from within another one's callback.
/// - Nothing is read beyond the limits given, whatever is stored.
pub trait Reader: Debug + Send + Sync {
    /// Hands over the entries of `journal` with a sequence number in `seqs`, in order, until
    /// `each` breaks or a limit is reached. The first entry comes even if it alone is over
    /// `bytes_max`, so that a caller who asks again from [`ReadEnd::At`] always gets on.
    ///
    /// # Errors
    /// [`StorageError`].
    fn entries(
        &self,
        journal: JournalId,
        seqs: RangeInclusive<u64>,
        limits: ReadLimits,
        each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<ReadEnd, StorageError>;

    /// One entry's bytes.
    ///
    /// # Errors
    /// [`StorageError`].
    fn entry(&self, place: Place) -> Result<Option<Vec<u8>>, StorageError>;

    /// The run in one piece that has a place, if the engine keeps it so and nothing in it was
    /// written anew since.
    ///
    /// # Errors
    /// [`StorageError`].
    fn run_at(&self, place: Place) -> Result<Option<PackedRun>, StorageError>;

    /// The lowest and the highest sequence number held of a journal.
    ///
    /// # Errors
    /// [`StorageError`].
    fn seqs(&self, journal: JournalId) -> Result<Option<RangeInclusive<u64>>, StorageError>;

    /// The highest sequence number held of a journal.
    ///
    /// # Errors
    /// [`StorageError`].
    fn last_seq(&self, journal: JournalId) -> Result<Option<u64>, StorageError> {
        Ok(self.seqs(journal)?.map(|seqs| *seqs.end()))
    }

    /// The journals of which entries are held, in the order of their ids, from the first one
    /// behind `after`, at most `journals_max`. Its cost follows the number of journals.
    ///
    /// # Errors
    /// [`StorageError`].
    fn journals(&self, after: Option<JournalId>, journals_max: usize) -> Result<Vec<JournalId>, StorageError>;

    /// One named row's value.
    ///
    /// # Errors
    /// [`StorageError`].
    fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// The named rows that `keys` selects, in the order of their keys.
    ///
    /// # Errors
    /// [`StorageError`].
    fn rows(&self, rows: Rows, keys: Keys<'_>, limits: ReadLimits) -> Result<RowPage, StorageError>;

    /// How much is stored.
    ///
    /// # Errors
    /// [`StorageError`].
    fn sizes(&self) -> Result<Sizes, StorageError>;
}

/// What one commit writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Places to empty, before anything is put: where a journal turned out to be a fork, its
    /// branch moves to a journal of its own.
    pub dropped: Vec<Place>,
    /// Longer runs to put in their places, each in one piece.
    pub runs: Vec<PackedRun>,
    /// Entries to put in their places.
    pub entries: Vec<EntryRow>,
    /// Named rows to put or delete.
    pub rows: Vec<RowWrite>,
    /// What the disk must promise.
    pub durability: Durability,
}

/// An entry as it is stored; its bytes mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// Journal and sequence number.
    pub place: Place,
    /// The stored form.
    pub bytes: Vec<u8>,
}

/// A change of one named row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// Where it belongs.
    pub rows: Rows,
    /// Its key there.
    pub key: Vec<u8>,
    /// What to put, or `None` to delete it.
    pub value: Option<Vec<u8>>,
}

/// The named rows, each a space of keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    /// What the device knows about itself: its business, keys, epoch, settings, watermarks.
    Local,
    /// What is known about each journal beyond its entries.
    Journals,
    /// The saved state that replay starts from.
    Snapshot,
    /// Rendered pages and shared documents; can be rebuilt.
    Pages,
    /// Invitations given out.
    Invitations,
    /// Payment attempts.
    Attempts,
    /// What a payment provider called back.
    Callbacks,
    /// Answers given, by idempotency key.
    Answers,
    /// What can't be applied, with its reason.
    Quarantine,
    /// The restore marker's half in the file.
    Marker,
    /// Operations on their way to the shop's own server; can be rebuilt from the journals.
    Queue,
    /// Calls of the shop's own server: those under way, and the chain of those that ended.
    AttemptLog,
}

impl Rows {
    /// Every kind.
    pub(crate) const ALL: [Self; 12] = [
        Self::Local,
        Self::Journals,
        Self::Snapshot,
        Self::Pages,
        Self::Invitations,
        Self::Attempts,
        Self::Callbacks,
        Self::Answers,
        Self::Quarantine,
        Self::Marker,
        Self::Queue,
        Self::AttemptLog,
    ];
}

/// What the disk must promise before a commit answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// For bytes that this device made.
    #[default]
    OwnEntries,
    /// For bytes that others chose: nobody can craft a half-written commit that looks whole after
    /// a power cut.
    PeerData,
    /// For what can be rebuilt: no sync. It becomes durable with the next durable commit; until
    /// then a crash takes it away, whole batches at a time, the latest first.
    Background,
}

/// Where to stop reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// At most so many entries or rows.
    pub entries_max: usize,
    /// At most so many bytes of them (keys of rows included), save for the first.
    pub bytes_max: usize,
}

/// Why a read of entries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ReadEnd {
    /// Nothing is left in the range.
    Finished,
    /// A limit was reached, or the caller broke off: entries from this sequence number on were
    /// not handed over.
    At(u64),
}

/// Which keys of named rows to read: those that begin with `prefix` and lie behind `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys<'k> {
    /// What the keys begin with; empty for all.
    pub prefix: &'k [u8],
    /// The last key of the page before.
    pub after: Option<&'k [u8]>,
}

/// A named row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Some named rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowPage {
    /// The rows, in the order of their keys.
    pub rows: Vec<Row>,
    /// Whether a limit cut the page short: ask again with the last key as [`Keys::after`].
    pub more: bool,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Bytes on the disk (of contents, where there is no disk).
    pub file_bytes: u64,
    /// Entries of all journals.
    pub entries: u64,
    /// Named rows of all kinds.
    pub rows: u64,
}

impl ReadLimits {
    /// No limits, for what the caller knows to be small.
    pub const NONE: Self = Self { entries_max: usize::MAX, bytes_max: usize::MAX };
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, ..Self::default() }
    }

    /// A batch of this device's own entries: the acknowledgement path.
    #[must_use]
    pub fn own(entries: Vec<EntryRow>) -> Self {
        Self { entries, durability: Durability::OwnEntries, ..Self::default() }
    }

    /// Whether it writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.runs.is_empty() && self.entries.is_empty() && self.rows.is_empty()
    }

    /// Adds a place to empty. An empty one may be named too.
    pub fn drop_entry(&mut self, place: Place) {
        self.dropped.push(place);
    }

    /// Adds a row to put.
    pub fn put(&mut self, rows: Rows, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.rows.push(RowWrite { rows, key: key.into(), value: Some(value.into()) });
    }

    /// Adds a row to delete.
    pub fn delete(&mut self, rows: Rows, key: impl Into<Vec<u8>>) {
        self.rows.push(RowWrite { rows, key: key.into(), value: None });
    }

    fn check_sizes(&self) -> Result<(), StorageError> {
        let entries = self.entries.iter().map(|entry| ("an entry", entry.bytes.len(), STORED_ENTRY_BYTES_MAX));
        let keys = self.rows.iter().map(|row| ("a row's key", row.key.len(), ROW_KEY_BYTES_MAX));
        let values =
            self.rows.iter().map(|row| ("a row's value", row.value.as_ref().map_or(0, Vec::len), ROW_VALUE_BYTES_MAX));
        let runs = self.runs.iter().map(|run| ("a run", run.block.len(), PACKED_RUN_BYTES_MAX));
        for (what, bytes, bytes_max) in entries.chain(runs).chain(keys).chain(values) {
            if bytes > bytes_max {
                return Err(StorageError::TooLarge { what, bytes, bytes_max });
            }
        }
        Ok(())
    }
}

impl ReadEnd {
    fn broken_off(seq: u64, seqs: &RangeInclusive<u64>) -> Self {
        if seq >= *seqs.end() { Self::Finished } else { Self::At(seq + 1) }
    }
}

impl ReadLimits {
    /// Whether one more item of `bytes` fits behind what was read.
    fn admits(&self, count: usize, bytes_before: usize, bytes: usize) -> bool {
        count < self.entries_max && (count == 0 || bytes_before.saturating_add(bytes) <= self.bytes_max)
    }
}
