//! Storage without a disk, for tests: it can be crashed, opened again, and told to fail.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crdt_model::entry::Place;
use crdt_model::ids::JournalId;
use crdt_model::sync::packed::PackedRun;

use super::packed::unpacked;
use super::tables::{row_key, row_name, rows_from};
use super::{
    Batch, Durability, EntryRow, Keys, ReadEnd, ReadLimits, Reader, Row, RowPage, Rows, Sizes, Storage, StorageError,
};

/// What stays when a node with [`MemoryStorage`] crashes: its "disk".
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<DiskState>>,
}

/// The in-memory engine.
#[derive(Debug)]
pub struct MemoryStorage {
    disk: MemoryDisk,
    opening: u64,
    ended: bool,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens what survived. A storage opened before is cut off as by a crash: it commits nothing
    /// more, and what it wrote in the background is gone unless a durable commit followed.
    #[must_use]
    pub fn open(&self) -> MemoryStorage {
        let mut state = self.lock();
        state.opening += 1;
        state.seen = state.durable.clone();
        state.background.clear();
        MemoryStorage { disk: self.clone(), opening: state.opening, ended: false }
    }

    /// Makes the `nth` commit from now on fail (1 is the next) as a full disk would.
    pub fn fail_commit(&self, nth: u64) {
        let mut state = self.lock();
        state.fail_at = Some(state.commits + nth);
    }

    /// How many commits were asked for so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if self.ended {
            return Err(StorageError::Ended);
        }
        let written = self.write(batch);
        self.ended = written.is_err();
        written
    }

    fn settle(&mut self, signed: Vec<EntryRow>) -> Result<(), StorageError> {
        if self.ended {
            return Err(StorageError::Ended);
        }
        let mut state = self.disk.lock();
        if state.opening == self.opening {
            let changes = Changes::of(&Batch::own(signed));
            state.seen.apply(&changes);
            state.background.push(changes);
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader { disk: self.disk.clone(), opening: self.opening })
    }
}

impl MemoryStorage {
    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        batch.check_sizes()?;
        let mut state = self.disk.lock();
        if state.opening != self.opening {
            return Err(StorageError::Closed);
        }
        state.commits += 1;
        if state.fail_at == Some(state.commits) {
            return Err(StorageError::Full);
        }
        let changes = Changes::of(batch);
        state.seen.apply(&changes);
        state.background.push(changes);
        if batch.durability != Durability::Background {
            for changes in std::mem::take(&mut state.background) {
                state.durable.apply(&changes);
            }
        }
        Ok(())
    }
}

impl Drop for MemoryStorage {
    /// A storage that is dropped closes cleanly: what it wrote in the background stays.
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.opening != self.opening {
            return;
        }
        state.opening += 1;
        for changes in std::mem::take(&mut state.background) {
            state.durable.apply(&changes);
        }
    }
}

#[derive(Debug)]
struct MemoryReader {
    disk: MemoryDisk,
    opening: u64,
}

#[derive(Debug, Default)]
struct DiskState {
    durable: Contents,
    seen: Contents,
    background: Vec<Changes>,
    opening: u64,
    commits: u64,
    fail_at: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Contents {
    entries: BTreeMap<Place, Bytes>,
    rows: BTreeMap<Vec<u8>, Bytes>,
}

type Bytes = Arc<[u8]>;

#[derive(Debug)]
struct Changes {
    dropped: Vec<Place>,
    entries: Vec<(Place, Bytes)>,
    rows: Vec<(Vec<u8>, Option<Bytes>)>,
}

impl Changes {
    fn of(batch: &Batch) -> Self {
        // Runs are taken apart: only the result is part of the contract.
        let single = batch.entries.iter().map(|entry| (entry.place, Arc::from(entry.bytes.as_slice())));
        let packed = batch.runs.iter().flat_map(|run| unpacked(run).unwrap_or_default());
        let entries = packed.map(|entry| (entry.place, Arc::from(entry.bytes))).chain(single);
        let rows = batch.rows.iter().map(|row| (row_key(row.rows, &row.key), row.value.as_deref().map(Arc::from)));
        Self { dropped: batch.dropped.clone(), entries: entries.collect(), rows: rows.collect() }
    }
}

impl Contents {
    fn apply(&mut self, changes: &Changes) {
        for place in &changes.dropped {
            self.entries.remove(place);
        }
        for (place, bytes) in &changes.entries {
            self.entries.insert(*place, bytes.clone());
        }
        for (key, value) in &changes.rows {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
    }
}

impl MemoryReader {
    fn open(&self) -> Result<MutexGuard<'_, DiskState>, StorageError> {
        let state = self.disk.lock();
        if state.opening == self.opening { Ok(state) } else { Err(StorageError::Closed) }
    }
}

impl Reader for MemoryReader {
    fn entries(
        &self,
        journal: JournalId,
        seqs: RangeInclusive<u64>,
        limits: ReadLimits,
        each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<ReadEnd, StorageError> {
        if seqs.is_empty() {
            return Ok(ReadEnd::Finished);
        }
        let mut found = Vec::new();
        let mut bytes_read = 0;
        let mut end = ReadEnd::Finished;
        let (low, high) = (Place { journal, seq: *seqs.start() }, Place { journal, seq: *seqs.end() });
        // Collected first, so that `each` runs without the lock and may read or commit itself.
        for (place, bytes) in self.open()?.seen.entries.range(low..=high) {
            if !limits.admits(found.len(), bytes_read, bytes.len()) {
                end = ReadEnd::At(place.seq);
                break;
            }
            bytes_read += bytes.len();
            found.push((place.seq, bytes.clone()));
        }
        for (seq, bytes) in found {
            if each(seq, &bytes).is_break() {
                return Ok(ReadEnd::broken_off(seq, &seqs));
            }
        }
        Ok(end)
    }

    fn entry(&self, place: Place) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.open()?.seen.entries.get(&place).map(|bytes| bytes.to_vec()))
    }

    fn run_at(&self, _: Place) -> Result<Option<PackedRun>, StorageError> {
        Ok(None)
    }

    fn seqs(&self, journal: JournalId) -> Result<Option<RangeInclusive<u64>>, StorageError> {
        let state = self.open()?;
        let mut held = state.seen.entries.range(Place { journal, seq: 0 }..=Place { journal, seq: u64::MAX });
        let Some((first, _)) = held.next() else {
            return Ok(None);
        };
        let last = held.next_back().map_or(first.seq, |(last, _)| last.seq);
        Ok(Some(first.seq..=last))
    }

    fn journals(&self, after: Option<JournalId>, journals_max: usize) -> Result<Vec<JournalId>, StorageError> {
        let state = self.open()?;
        let mut journals = Vec::new();
        let mut behind = after;
        while journals.len() < journals_max {
            let from = match behind {
                Some(journal) => Bound::Excluded(Place { journal, seq: u64::MAX }),
                None => Bound::Unbounded,
            };
            let Some((place, _)) = state.seen.entries.range((from, Bound::Unbounded)).next() else {
                break;
            };
            journals.push(place.journal);
            behind = Some(place.journal);
        }
        Ok(journals)
    }

    fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.open()?.seen.rows.get(&row_key(rows, key)).map(|value| value.to_vec()))
    }

    fn rows(&self, rows: Rows, keys: Keys<'_>, limits: ReadLimits) -> Result<RowPage, StorageError> {
        let prefix = row_key(rows, keys.prefix);
        let from = rows_from(rows, keys);
        let mut page = RowPage::default();
        let mut bytes_read = 0;
        for (key, value) in self.open()?.seen.rows.range((from, Bound::Unbounded)) {
            if !key.starts_with(&prefix) {
                break;
            }
            let key = row_name(key);
            let bytes = key.len() + value.len();
            if !limits.admits(page.rows.len(), bytes_read, bytes) {
                page.more = true;
                break;
            }
            bytes_read += bytes;
            page.rows.push(Row { key: key.to_vec(), value: value.to_vec() });
        }
        Ok(page)
    }

    fn sizes(&self) -> Result<Sizes, StorageError> {
        let state = self.open()?;
        let entries = state.seen.entries.values().map(|bytes| bytes.len());
        let rows = state.seen.rows.iter().map(|(key, value)| key.len() + value.len());
        let bytes: usize = entries.chain(rows).sum();
        Ok(Sizes {
            file_bytes: bytes as u64,
            entries: state.seen.entries.len() as u64,
            rows: state.seen.rows.len() as u64,
        })
    }
}
