//! Reading from the redb file: entries one by one and in runs, merged, and named rows.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, ControlFlow, RangeInclusive};
use std::path::PathBuf;
use std::sync::Weak;

use crdt_model::entry::Place;
use crdt_model::ids::JournalId;
use crdt_model::sync::packed::PackedRun;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::packed;
use super::redb::{Held, guarded};
use super::tables::{
    JOURNAL, PACKED, PLACE_BYTES, ROWS, place_key, place_keys, place_of, row_key, row_name, rows_from,
};
use super::{Keys, ReadEnd, ReadLimits, Reader, Row, RowPage, Rows, Sizes, StorageError};

/// Readers don't keep the file open: it closes when its storage is dropped.
pub(super) struct RedbReader {
    pub(super) held: Weak<Held>,
    pub(super) path: PathBuf,
}

impl fmt::Debug for RedbReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbReader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbReader {
    fn read<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        let held = self.held.upgrade().ok_or(StorageError::Closed)?;
        held.settle()?;
        guarded(|| read(&held.database.begin_read()?))
    }
}

impl Reader for RedbReader {
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
        let keys = place_keys(journal, &seqs);
        let (mut rows, mut runs) = self.read(|transaction| {
            let packed = transaction.open_table(PACKED)?;
            let before = Place { journal, seq: *seqs.start() };
            let first = packed::covering(&packed, before)?.map_or(before.seq, |run| run.first);
            let runs = packed.range::<&[u8; PLACE_BYTES]>(&place_key(journal, first)..=keys.end())?;
            Ok((transaction.open_table(JOURNAL)?.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?, runs))
        })?;
        // Only the engine's own steps are guarded: a panic in `each` is the caller's.
        let mut next_row = || guarded(|| Ok(rows.next().transpose()?));
        let mut next_run = || {
            let run = guarded(|| {
                let run = runs.next().transpose()?;
                run.map(|(key, value)| packed::run_of(key.value(), value.value())).transpose()
            })?;
            run.map(|run| packed::entries_in(&run, &seqs)).transpose()
        };
        let mut row = next_row()?;
        let mut run = next_run()?;
        let (mut count, mut bytes_read, mut next) = (0, 0, *seqs.start());
        loop {
            while run.as_ref().is_some_and(VecDeque::is_empty) {
                run = next_run()?;
            }
            let in_run = run.as_ref().and_then(|run| run.front()).map(|(seq, _)| *seq);
            let in_rows = row.as_ref().map(|(key, _)| place_of(key.value()));
            let seq = match (in_rows.map(|place| place.seq), in_run) {
                (None, None) => return Ok(ReadEnd::Finished),
                (Some(only), None) | (None, Some(only)) => only,
                (Some(one), Some(other)) => one.min(other),
            };
            if in_rows.is_some_and(|place| place.journal != journal) || seq < next || seq > *seqs.end() {
                return Err(out_of_order());
            }
            next = seq.saturating_add(1);
            let taken = run.as_mut().filter(|_| in_run == Some(seq)).and_then(VecDeque::pop_front);
            let held = row.as_ref().filter(|_| in_rows.is_some_and(|place| place.seq == seq));
            let bytes = match (held, &taken) {
                (Some((_, value)), _) => value.value(),
                (None, Some((_, bytes))) => bytes.as_slice(),
                (None, None) => return Err(out_of_order()),
            };
            if !limits.admits(count, bytes_read, bytes.len()) {
                return Ok(ReadEnd::At(seq));
            }
            count += 1;
            bytes_read += bytes.len();
            if each(seq, bytes).is_break() {
                return Ok(ReadEnd::broken_off(seq, &seqs));
            }
            if held.is_some() {
                row = next_row()?;
            }
        }
    }

    fn entry(&self, place: Place) -> Result<Option<Vec<u8>>, StorageError> {
        let found = self.read(|transaction| {
            let journal = transaction.open_table(JOURNAL)?;
            if let Some(bytes) = journal.get(&place_key(place.journal, place.seq))? {
                return Ok(Err(bytes.value().to_vec()));
            }
            Ok(Ok(packed::covering(&transaction.open_table(PACKED)?, place)?))
        })?;
        match found {
            Err(bytes) => Ok(Some(bytes)),
            Ok(None) => Ok(None),
            Ok(Some(run)) => self.held.upgrade().ok_or(StorageError::Closed)?.last_run.entry(&run, place),
        }
    }

    fn run_at(&self, place: Place) -> Result<Option<PackedRun>, StorageError> {
        self.read(|transaction| {
            let Some(run) = packed::covering(&transaction.open_table(PACKED)?, place)? else { return Ok(None) };
            let keys = place_keys(run.journal, &(run.first..=run.last));
            let rows = transaction.open_table(JOURNAL)?;
            let anew = rows.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?.next().transpose()?;
            Ok(anew.is_none().then_some(run))
        })
    }

    fn seqs(&self, journal: JournalId) -> Result<Option<RangeInclusive<u64>>, StorageError> {
        let keys = place_keys(journal, &(0..=u64::MAX));
        self.read(|transaction| {
            let (rows, runs) = (transaction.open_table(JOURNAL)?, transaction.open_table(PACKED)?);
            let mut ends = Vec::new();
            let mut rows = rows.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?;
            for held in [rows.next(), rows.next_back()].into_iter().flatten() {
                let seq = place_of(held?.0.value()).seq;
                ends.push((seq, seq));
            }
            let mut runs = runs.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?;
            for held in [runs.next(), runs.next_back()].into_iter().flatten() {
                let (key, value) = held?;
                ends.push((place_of(key.value()).seq, packed::last_of(value.value())));
            }
            let low = ends.iter().map(|(low, _)| *low).min();
            let high = ends.iter().map(|(_, high)| *high).max();
            Ok(low.zip(high).map(|(low, high)| low..=high))
        })
    }

    fn journals(&self, after: Option<JournalId>, journals_max: usize) -> Result<Vec<JournalId>, StorageError> {
        self.read(|transaction| {
            let tables = [transaction.open_table(JOURNAL)?, transaction.open_table(PACKED)?];
            let mut journals = Vec::new();
            let mut behind = after.map(|journal| place_key(journal, u64::MAX));
            while journals.len() < journals_max {
                let from = behind.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut next = None;
                for table in &tables {
                    let Some((key, _)) =
                        table.range::<&[u8; PLACE_BYTES]>((from, Bound::Unbounded))?.next().transpose()?
                    else {
                        continue;
                    };
                    if behind.as_ref().is_some_and(|behind| key.value() <= behind) {
                        return Err(redb::Error::Corrupted(OUT_OF_ORDER.to_owned()));
                    }
                    let journal = place_of(key.value()).journal;
                    next = Some(next.map_or(journal, |other: JournalId| other.min(journal)));
                }
                let Some(journal) = next else { break };
                journals.push(journal);
                behind = Some(place_key(journal, u64::MAX));
            }
            Ok(journals)
        })
    }

    fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|transaction| {
            let table = transaction.open_table(ROWS)?;
            Ok(table.get(row_key(rows, key).as_slice())?.map(|value| value.value().to_vec()))
        })
    }

    fn rows(&self, rows: Rows, keys: Keys<'_>, limits: ReadLimits) -> Result<RowPage, StorageError> {
        let prefix = row_key(rows, keys.prefix);
        let from = rows_from(rows, keys);
        self.read(|transaction| {
            let table = transaction.open_table(ROWS)?;
            let mut page = RowPage::default();
            let mut bytes_read = 0;
            let from = from.as_ref().map(Vec::as_slice);
            for row in table.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let name = row_name(key.value());
                if page.rows.last().map(|row| row.key.as_slice()).or(keys.after).is_some_and(|before| name <= before) {
                    return Err(redb::Error::Corrupted(OUT_OF_ORDER.to_owned()));
                }
                let bytes = name.len() + value.value().len();
                if !limits.admits(page.rows.len(), bytes_read, bytes) {
                    page.more = true;
                    break;
                }
                bytes_read += bytes;
                page.rows.push(Row { key: name.to_vec(), value: value.value().to_vec() });
            }
            Ok(page)
        })
    }

    fn sizes(&self) -> Result<Sizes, StorageError> {
        let (entries, rows) = self.read(|transaction| {
            let mut entries = transaction.open_table(JOURNAL)?.len()?;
            for run in transaction.open_table(PACKED)?.iter()? {
                let (key, value) = run?;
                entries += packed::last_of(value.value()).saturating_sub(place_of(key.value()).seq) + 1;
            }
            Ok((entries, transaction.open_table(ROWS)?.len()?))
        })?;
        // An engine without a file, as in tests, has no path to measure.
        let file_bytes = if self.path.as_os_str().is_empty() { 0 } else { std::fs::metadata(&self.path)?.len() };
        Ok(Sizes { file_bytes, entries, rows })
    }
}

/// A damaged file may hold keys in any order; a caller that reads page by page would never end.
const OUT_OF_ORDER: &str = "keys out of order";

fn out_of_order() -> StorageError {
    StorageError::Corrupt(OUT_OF_ORDER.to_owned())
}
