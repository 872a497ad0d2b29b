//! The bytes of attempts and callbacks as they are stored. docs/payments.md describes them.

use crdt_model::ids::RecordId;
use crdt_model::payment::Attempt;
use uuid::Uuid;

use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows, StorageError};

/// The most callbacks of one attempt that are kept; a provider sends a few at most.
pub(super) const CALLBACKS_MAX: usize = 64;

/// Why an intent's attempts can't be told. It is not pushed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptsError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row is damaged.
    #[error(
        "an attempt of payment {intent} is damaged on the disk ({reason}): settle it with the provider's statement"
    )]
    Damaged {
        /// The intent.
        intent: RecordId,
        /// What is wrong with the row.
        reason: String,
    },
}

/// A callback as it arrived. The same body twice is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    pub(super) intent: RecordId,
    pub(super) number: u32,
    digest: [u8; DIGEST_BYTES],
}

const DIGEST_BYTES: usize = 16;
const UUID_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;

/// Leads the keys of callbacks that are still to be processed, so that a start finds them
/// without reading the others.
const PENDING: u8 = 0;
const PROCESSED: u8 = 1;

/// An intent's attempts, in the order of their numbers.
pub(super) fn attempts(reader: &dyn Reader, intent: RecordId) -> Result<Vec<Attempt>, AttemptsError> {
    let keys = Keys { prefix: intent.0.as_bytes(), after: None };
    let page = reader.rows(Rows::Attempts, keys, ReadLimits::NONE)?;
    let damaged = |reason: String| AttemptsError::Damaged { intent, reason };
    page.rows
        .iter()
        .map(|row| {
            let attempt: Attempt = minicbor::decode(&row.value).map_err(|error| damaged(error.to_string()))?;
            if row.key != attempt_key(attempt.intent(), attempt.number()) {
                return Err(damaged("it is another attempt's".to_owned()));
            }
            Ok(attempt)
        })
        .collect()
}

pub(super) fn put_attempt(attempt: &Attempt) -> RowWrite {
    RowWrite {
        rows: Rows::Attempts,
        key: attempt_key(attempt.intent(), attempt.number()),
        value: Some(minicbor::to_vec(attempt).unwrap_or_default()),
    }
}

impl Arrival {
    pub(super) fn new(intent: RecordId, number: u32, body: &[u8]) -> Self {
        let [digest, _] = halves(blake3::hash(body));
        Self { intent, number, digest }
    }

    fn key(&self, lead: u8) -> Vec<u8> {
        let mut key = vec![lead];
        key.extend(attempt_key(self.intent.0, self.number));
        key.extend(self.digest);
        key
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        let rest = key.get(1..)?;
        let (intent, rest) = rest.split_at_checked(UUID_BYTES)?;
        let (number, digest) = rest.split_at_checked(NUMBER_BYTES)?;
        Some(Self {
            intent: RecordId(Uuid::from_slice(intent).ok()?),
            number: u32::from_be_bytes(number.try_into().ok()?),
            digest: digest.try_into().ok()?,
        })
    }

    /// Keeps the body until it is processed.
    pub(super) fn put(&self, body: &[u8]) -> RowWrite {
        RowWrite { rows: Rows::Callbacks, key: self.key(PENDING), value: Some(body.to_vec()) }
    }

    /// Keeps the body as processed.
    pub(super) fn processed(&self, body: &[u8]) -> [RowWrite; 2] {
        [
            RowWrite { rows: Rows::Callbacks, key: self.key(PENDING), value: None },
            RowWrite { rows: Rows::Callbacks, key: self.key(PROCESSED), value: Some(body.to_vec()) },
        ]
    }

    pub(super) fn is_stored(&self, reader: &dyn Reader) -> Result<bool, StorageError> {
        for lead in [PENDING, PROCESSED] {
            if reader.row(Rows::Callbacks, &self.key(lead))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether so many bodies are kept for the attempt that no more are taken.
    pub(super) fn is_crowded(&self, reader: &dyn Reader) -> Result<bool, StorageError> {
        let mut count = 0;
        for lead in [PENDING, PROCESSED] {
            let mut prefix = vec![lead];
            prefix.extend(attempt_key(self.intent.0, self.number));
            let limits = ReadLimits { entries_max: CALLBACKS_MAX, bytes_max: usize::MAX };
            count += reader.rows(Rows::Callbacks, Keys { prefix: &prefix, after: None }, limits)?.rows.len();
        }
        Ok(count >= CALLBACKS_MAX)
    }
}

/// Some callbacks that are to be processed.
pub(super) struct Pending {
    /// With their bodies.
    pub(super) arrivals: Vec<(Arrival, Vec<u8>)>,
    /// Where to go on, if there are more.
    pub(super) next: Option<Vec<u8>>,
}

/// Callbacks to be processed, behind `after`.
pub(super) fn pending(reader: &dyn Reader, after: Option<&[u8]>) -> Result<Pending, StorageError> {
    let limits = ReadLimits { entries_max: CALLBACKS_MAX, bytes_max: PAGE_BYTES_MAX };
    let page = reader.rows(Rows::Callbacks, Keys { prefix: &[PENDING], after }, limits)?;
    let next = page.rows.last().filter(|_| page.more).map(|row| row.key.clone());
    let arrivals = page.rows.into_iter().filter_map(|row| Some((Arrival::from_key(&row.key)?, row.value)));
    Ok(Pending { arrivals: arrivals.collect(), next })
}

const PAGE_BYTES_MAX: usize = 1024 * 1024;

fn attempt_key(intent: Uuid, number: u32) -> Vec<u8> {
    let mut key = intent.as_bytes().to_vec();
    key.extend(number.to_be_bytes());
    key
}

fn halves(hash: blake3::Hash) -> [[u8; DIGEST_BYTES]; 2] {
    let mut halves = [[0; DIGEST_BYTES]; 2];
    for (half, source) in halves.iter_mut().zip(hash.as_bytes().chunks_exact(DIGEST_BYTES)) {
        half.copy_from_slice(source);
    }
    halves
}
