//! Runs in one piece, in a table of their own. What is in the journal's table wins over what a run
//! says of the same place, so that one entry can be written anew without touching its run.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use crdt_model::entry::Place;
use crdt_model::ids::{EntryHash, JournalId};
use crdt_model::sync::packed::PackedRun;
use redb::{ReadableTable, Table};

use super::tables::{PLACE_BYTES, place_key, place_keys, place_of};
use super::{EntryRow, StorageError};

type Key = &'static [u8; PLACE_BYTES];
type Rows<'t> = Table<'t, Key, &'static [u8]>;

/// The entries of a run, as they would be stored one by one.
pub(super) fn unpacked(run: &PackedRun) -> Result<Vec<EntryRow>, StorageError> {
    let damaged = |error| StorageError::Corrupt(format!("run {} of journal {}: {error}", run.first, run.journal));
    let entries = run.unpack().map_err(damaged)?;
    let rows = (run.first..).zip(entries).map(|(seq, entry)| {
        let place = Place { journal: run.journal, seq };
        EntryRow { place, bytes: entry.to_bytes() }
    });
    Ok(rows.collect())
}

/// A row of the table: the sequence number of the last entry (8), its hash (32), the block.
fn value(run: &PackedRun) -> Vec<u8> {
    [run.last.to_be_bytes().as_slice(), &run.head.0, &run.block].concat()
}

/// Reads a row of the table.
pub(super) fn run_of(key: &[u8; PLACE_BYTES], value: &[u8]) -> Result<PackedRun, redb::Error> {
    let Place { journal, seq: first } = place_of(key);
    let cut = || {
        let (last, rest) = value.split_first_chunk::<8>()?;
        let (head, block) = rest.split_first_chunk::<32>()?;
        Some((u64::from_be_bytes(*last), EntryHash(*head), block))
    };
    match cut() {
        Some((last, head, block)) if last >= first => {
            Ok(PackedRun { journal, first, last, head, block: block.to_vec() })
        }
        _ => Err(redb::Error::Corrupted("a run without a beginning".to_owned())),
    }
}

/// The last place of a row, without its block.
pub(super) fn last_of(value: &[u8]) -> u64 {
    value.first_chunk::<8>().map_or(0, |last| u64::from_be_bytes(*last))
}

/// The run that has a place, if one has.
pub(super) fn covering(
    table: &impl ReadableTable<Key, &'static [u8]>,
    place: Place,
) -> Result<Option<PackedRun>, redb::Error> {
    let keys = place_keys(place.journal, &(0..=place.seq));
    let Some((key, value)) = table.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?.next_back().transpose()?
    else {
        return Ok(None);
    };
    if last_of(value.value()) < place.seq { Ok(None) } else { run_of(key.value(), value.value()).map(Some) }
}

/// Puts a run; it wins over what is there.
pub(super) fn put(journal: &mut Rows<'_>, packed: &mut Rows<'_>, run: &PackedRun) -> Result<(), redb::Error> {
    let keys = place_keys(run.journal, &(run.first..=run.last));
    while let Some(other) = meeting(packed, run.journal, &(run.first..=run.last))? {
        take_apart(journal, packed, &other)?;
    }
    journal.retain_in::<&[u8; PLACE_BYTES], _>(keys.start()..=keys.end(), |_, _| false)?;
    packed.insert(&place_key(run.journal, run.first), value(run).as_slice())?;
    Ok(())
}

/// Takes the run apart that has a place, if one has: something in it is to go.
pub(super) fn open_up(journal: &mut Rows<'_>, packed: &mut Rows<'_>, place: Place) -> Result<(), redb::Error> {
    match covering(packed, place)? {
        Some(run) => take_apart(journal, packed, &run),
        None => Ok(()),
    }
}

fn meeting(
    packed: &Rows<'_>,
    journal: JournalId,
    seqs: &RangeInclusive<u64>,
) -> Result<Option<PackedRun>, redb::Error> {
    if let Some(run) = covering(packed, Place { journal, seq: *seqs.start() })? {
        return Ok(Some(run));
    }
    let keys = place_keys(journal, seqs);
    let first = packed.range::<&[u8; PLACE_BYTES]>(keys.start()..=keys.end())?.next().transpose()?;
    first.map(|(key, value)| run_of(key.value(), value.value())).transpose()
}

fn take_apart(journal: &mut Rows<'_>, packed: &mut Rows<'_>, run: &PackedRun) -> Result<(), redb::Error> {
    packed.remove(&place_key(run.journal, run.first))?;
    let rows = unpacked(run).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
    for row in rows {
        let key = place_key(row.place.journal, row.place.seq);
        if journal.get(&key)?.is_none() {
            journal.insert(&key, row.bytes.as_slice())?;
        }
    }
    Ok(())
}

/// The entries of a run that lie in a range, in order.
pub(super) fn entries_in(
    run: &PackedRun,
    seqs: &RangeInclusive<u64>,
) -> Result<VecDeque<(u64, Vec<u8>)>, StorageError> {
    let rows = unpacked(run)?.into_iter().filter(|row| seqs.contains(&row.place.seq));
    Ok(rows.map(|row| (row.place.seq, row.bytes)).collect())
}

/// The run that was looked into last: whoever reads one entry mostly reads its neighbours too.
#[derive(Debug, Default)]
pub(super) struct LastRun(Mutex<Option<(RunName, Arc<Vec<EntryRow>>)>>);

/// What a run is told from every other by.
type RunName = (JournalId, u64, u64, EntryHash);

impl LastRun {
    pub(super) fn entry(&self, run: &PackedRun, place: Place) -> Result<Option<Vec<u8>>, StorageError> {
        let name = (run.journal, run.first, run.last, run.head);
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = match held {
            Some((last, rows)) if last == name => rows,
            _ => {
                let rows = Arc::new(unpacked(run)?);
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, Arc::clone(&rows)));
                rows
            }
        };
        let at = usize::try_from(place.seq - run.first).ok();
        Ok(at.and_then(|at| rows.get(at)).map(|row| row.bytes.clone()))
    }
}
