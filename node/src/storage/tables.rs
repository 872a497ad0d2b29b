//! The bytes of tables and keys, in one place. docs/storage.md describes them.

use std::ops::{Bound, RangeInclusive};

use crdt_model::entry::Place;
use crdt_model::ids::JournalId;
use redb::TableDefinition;

use super::{Keys, Rows};

/// The newest file format that this version reads and writes.
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const FILE_ID_KEY: &str = "file id";
/// The key of the tail's checksums.
pub(super) const TAIL_KEY_KEY: &str = "tail key";
/// The number of the last record of the tail that the engine holds.
pub(super) const TAIL_THROUGH_KEY: &str = "tail through";

/// About the file itself.
pub(super) const FILE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("file");
/// Entries by journal id and sequence number: all that the acknowledgement path writes.
pub(super) const JOURNAL: TableDefinition<'_, &[u8; PLACE_BYTES], &[u8]> = TableDefinition::new("journal");
/// Runs in one piece, by journal id and the sequence number of their first entry.
pub(super) const PACKED: TableDefinition<'_, &[u8; PLACE_BYTES], &[u8]> = TableDefinition::new("packed");
/// All named rows, their keys led by a byte that names the kind: one more table in a transaction
/// costs about 50 µs, and so a batch touches two at most.
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub(super) const PLACE_BYTES: usize = JOURNAL_BYTES + 8;
const JOURNAL_BYTES: usize = 16;

/// Journal id, then sequence number, big-endian so that bytes sort as numbers do.
pub(super) fn place_key(journal: JournalId, seq: u64) -> [u8; PLACE_BYTES] {
    let mut key = [0; PLACE_BYTES];
    let (id, number) = key.split_at_mut(JOURNAL_BYTES);
    id.copy_from_slice(&journal.0);
    number.copy_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn place_keys(journal: JournalId, seqs: &RangeInclusive<u64>) -> RangeInclusive<[u8; PLACE_BYTES]> {
    place_key(journal, *seqs.start())..=place_key(journal, *seqs.end())
}

pub(super) fn place_of(key: &[u8; PLACE_BYTES]) -> Place {
    let (id, number) = key.split_at(JOURNAL_BYTES);
    let mut journal = [0; JOURNAL_BYTES];
    journal.copy_from_slice(id);
    let mut seq = [0; 8];
    seq.copy_from_slice(number);
    Place { journal: JournalId(journal), seq: u64::from_be_bytes(seq) }
}

/// The byte that leads the keys of `rows`. Never given to another kind, even when one goes.
pub(super) fn rows_byte(rows: Rows) -> u8 {
    match rows {
        Rows::Local => 1,
        Rows::Journals => 2,
        Rows::Snapshot => 3,
        Rows::Pages => 4,
        Rows::Invitations => 5,
        Rows::Attempts => 6,
        Rows::Callbacks => 7,
        Rows::Answers => 8,
        Rows::Quarantine => 9,
        Rows::Marker => 10,
        Rows::Queue => 11,
        Rows::AttemptLog => 12,
    }
}

/// The kind of rows that a byte stands for.
pub(super) fn rows_of_byte(byte: u8) -> Option<Rows> {
    Rows::ALL.into_iter().find(|rows| rows_byte(*rows) == byte)
}

pub(super) fn row_key(rows: Rows, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(rows_byte(rows));
    bytes.extend_from_slice(key);
    bytes
}

/// The key without the byte that leads it.
pub(super) fn row_name(key: &[u8]) -> &[u8] {
    key.get(1..).unwrap_or_default()
}

/// Where the rows that `keys` selects begin.
pub(super) fn rows_from(rows: Rows, keys: Keys<'_>) -> Bound<Vec<u8>> {
    let prefix = row_key(rows, keys.prefix);
    match keys.after.map(|after| row_key(rows, after)) {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    }
}
