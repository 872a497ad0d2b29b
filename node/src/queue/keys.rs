//! The keys of the queue's rows, in one place. docs/storage.md describes them.

use crdt_model::ids::{JournalId, RecordId};
use crdt_model::record::Source;
use crdt_model::time::Hlc;
use uuid::Uuid;

use super::row::QueueStatus;

const OPERATION: u8 = b'o';
const LISTED: u8 = b's';
const TEMPORARY: u8 = b't';
const CONFLICT: u8 = b'k';
const DECISION: u8 = b'd';
const WATERMARK: u8 = b'w';
const MAPPING: u8 = b'm';
pub(super) const COUNTERS: &[u8] = b"c";

const UUID_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;

/// An operation's row.
pub(super) fn operation(id: RecordId) -> Vec<u8> {
    with_id(OPERATION, id)
}

/// The operations of a status, the oldest first.
pub(super) fn listed(status: QueueStatus, time: Hlc, id: RecordId) -> Vec<u8> {
    let mut key = listed_prefix(status);
    key.extend(time.0.to_be_bytes());
    key.extend(id.0.as_bytes());
    key
}

pub(super) fn listed_prefix(status: QueueStatus) -> Vec<u8> {
    vec![LISTED, status as u8]
}

/// The time and id in the key of a list.
pub(super) fn listed_at(key: &[u8]) -> Option<(Hlc, RecordId)> {
    let (time, id) = key.get(2..)?.split_at_checked(NUMBER_BYTES)?;
    Some((Hlc(u64::from_be_bytes(time.try_into().ok()?)), RecordId(Uuid::from_slice(id).ok()?)))
}

/// The operation that a client's own id names.
pub(super) fn temporary(instance: &str, key: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(instance.len() as u64).to_le_bytes());
    hasher.update(instance.as_bytes());
    hasher.update(key.as_bytes());
    let mut row = vec![TEMPORARY];
    row.extend(hasher.finalize().as_bytes().iter().take(UUID_BYTES));
    row
}

pub(super) fn temporary_of(source: &Source) -> Vec<u8> {
    temporary(&source.instance, &source.key)
}

pub(super) fn temporary_prefix() -> [u8; 1] {
    [TEMPORARY]
}

/// The operation that a conflict is about.
pub(super) fn conflict(id: RecordId) -> Vec<u8> {
    with_id(CONFLICT, id)
}

/// A decision that waits for its conflict.
pub(super) fn decision(conflict: RecordId) -> Vec<u8> {
    with_id(DECISION, conflict)
}

/// How far a journal was read.
pub(super) fn watermark(journal: JournalId) -> Vec<u8> {
    let mut key = vec![WATERMARK];
    key.extend(journal.0);
    key
}

pub(super) fn watermark_prefix() -> [u8; 1] {
    [WATERMARK]
}

pub(super) fn watermark_journal(key: &[u8]) -> Option<JournalId> {
    Some(JournalId(key.get(1..)?.try_into().ok()?))
}

/// What the server calls a record.
pub(super) fn mapping(id: RecordId) -> Vec<u8> {
    with_id(MAPPING, id)
}

pub(super) fn mapping_prefix() -> [u8; 1] {
    [MAPPING]
}

fn with_id(lead: u8, id: RecordId) -> Vec<u8> {
    let mut key = vec![lead];
    key.extend(id.0.as_bytes());
    key
}

/// The id in a value.
pub(super) fn id_of(value: &[u8]) -> Option<RecordId> {
    Uuid::from_slice(value).ok().map(RecordId)
}
