//! What the provider reported by itself, and lines of its statement, kept until the engine has
//! taken them in. docs/payments.md describes the rows.

use crdt_model::ids::RecordId;
use minicbor::{Decode, Encode};
use uuid::Uuid;

use crate::payments::Listed;
use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows, StorageError};

/// Behind the leads of callbacks in the same rows.
const WAITING: u8 = 2;
const TAKEN: u8 = 3;
/// How many are taken in at once.
const PAGE_MAX: usize = 256;
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const DIGEST_BYTES: usize = 16;

/// Something that waits to be taken in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Mail {
    /// A payment made by hand, as the provider reported it: the raw body.
    #[n(0)]
    Confirmation(#[n(0)] Body),
    /// The result of a reversal that a proposal asked for: the raw body.
    #[n(1)]
    Result(#[n(0)] Subject, #[n(1)] Body),
    /// A line of the provider's statement.
    #[n(2)]
    Line(#[n(0)] Line),
}

/// Bytes as they arrived.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Body(#[cbor(n(0), with = "minicbor::bytes")] pub(crate) Vec<u8>);

/// The proposal that a result is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Subject(#[cbor(n(0), with = "minicbor::bytes")] pub(crate) [u8; 16]);

/// A line of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Line {
    /// The provider's receipt number.
    #[n(0)]
    pub(crate) receipt_number: String,
    /// Minor units.
    #[n(1)]
    pub(crate) amount_minor: i64,
    /// The account.
    #[n(2)]
    pub(crate) account: String,
    /// When, in milliseconds since 1970 UTC.
    #[n(3)]
    pub(crate) paid_at_ms: Option<u64>,
}

impl From<Line> for Listed {
    fn from(line: Line) -> Self {
        let Line { receipt_number, amount_minor, account, paid_at_ms } = line;
        Self { receipt_number, amount_minor, account, paid_at_ms }
    }
}

impl Subject {
    pub(crate) fn of(proposal: RecordId) -> Self {
        Self(proposal.0.into_bytes())
    }

    pub(crate) fn record(self) -> RecordId {
        RecordId(Uuid::from_bytes(self.0))
    }
}

impl Mail {
    fn bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// The key of its row; the same mail twice is one.
    pub(crate) fn key(&self) -> Vec<u8> {
        key(WAITING, &self.bytes())
    }

    /// Keeps it until it is taken in.
    pub(crate) fn put(&self) -> RowWrite {
        RowWrite { rows: Rows::Callbacks, key: self.key(), value: Some(self.bytes()) }
    }

    /// Takes it out of the inbox. What the provider said is kept, lines of a statement are not.
    pub(super) fn taken(&self) -> Vec<RowWrite> {
        let bytes = self.bytes();
        let mut rows = vec![RowWrite { rows: Rows::Callbacks, key: key(WAITING, &bytes), value: None }];
        if !matches!(self, Self::Line(_)) {
            rows.push(RowWrite { rows: Rows::Callbacks, key: key(TAKEN, &bytes), value: Some(bytes) });
        }
        rows
    }

    pub(super) fn is_stored(&self, reader: &dyn Reader) -> Result<bool, StorageError> {
        let bytes = self.bytes();
        Ok(reader.row(Rows::Callbacks, &key(WAITING, &bytes))?.is_some()
            || reader.row(Rows::Callbacks, &key(TAKEN, &bytes))?.is_some())
    }
}

/// Some of what waits.
pub(super) fn waiting(reader: &dyn Reader) -> Result<Vec<Mail>, StorageError> {
    let limits = ReadLimits { entries_max: PAGE_MAX, bytes_max: PAGE_BYTES_MAX };
    let page = reader.rows(Rows::Callbacks, Keys { prefix: &[WAITING], after: None }, limits)?;
    Ok(page.rows.iter().filter_map(|row| minicbor::decode(&row.value).ok()).collect())
}

/// How many reports wait; beyond a limit no more are taken from outside.
pub(super) fn is_crowded(reader: &dyn Reader) -> Result<bool, StorageError> {
    let limits = ReadLimits { entries_max: WAITING_MAX, bytes_max: usize::MAX };
    Ok(reader.rows(Rows::Callbacks, Keys { prefix: &[WAITING], after: None }, limits)?.more)
}

const WAITING_MAX: usize = 20_000;

fn key(lead: u8, bytes: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(bytes);
    let mut key = vec![lead];
    key.extend(hash.as_bytes().iter().take(DIGEST_BYTES));
    key
}
