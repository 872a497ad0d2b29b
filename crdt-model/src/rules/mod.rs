//! Conflicts: what a merge must not decide in silence. Both sides are kept; until a person
//! decides, each rule says what counts. One rule a file.

mod docket;
mod double_claim;
mod forked;
mod handoff;
mod oversold;
mod paid_twice;
mod same_id;
mod ticket;
mod upstream;
mod voided_and_paid;

use minicbor::{Decode, Encode};

pub(crate) use docket::Docket;
pub(crate) use double_claim::double_claim;
pub(crate) use forked::{fork_id, forked};
pub(crate) use handoff::{GIVER, RECEIVER, handoff_decided, handoff_torn};
pub(crate) use oversold::oversold;
pub(crate) use paid_twice::paid_twice;
pub(crate) use same_id::same_id;
pub(crate) use ticket::ticket_closed_twice;
pub(crate) use upstream::upstream;
pub use upstream::{CLIENT, SERVER};
pub(crate) use voided_and_paid::voided_and_paid;

use crate::entry::Place;
use crate::ids::{DeviceId, RecordId, domain_hash, hash_uuid};
use crate::record::DeliveryOutcome;
use crate::time::Hlc;

/// What kind of conflict it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ConflictKind {
    /// One client id was used for two different records. The earliest counts.
    #[n(0)]
    SameIdOtherBody,
    /// A sale was voided, and its customer paid. Both count: the money has to go back.
    #[n(1)]
    VoidedAndPaid,
    /// Two receipts pay one intent. One payment counts: the other has to go back.
    #[n(2)]
    PaidTwice,
    /// One receipt number is claimed for two intents. The earliest claim that the intent's
    /// ledger made counts.
    #[n(3)]
    DoubleClaim,
    /// More was sold than there was. Goes away when the stock is not negative any more.
    #[n(4)]
    Oversold,
    /// One ticket was closed with two different sales. The earliest counts.
    #[n(5)]
    TicketClosedTwice,
    /// Two edits of one field of a shared document.
    #[n(6)]
    Field,
    /// An owner decided whose a shift is, because giver and receiver had lost contact.
    #[n(7)]
    HandoffDecided,
    /// What was said about a handoff does not go together, such as a transfer and a decision
    /// against it. The transfer counts.
    #[n(8)]
    HandoffTorn,
    /// The shop's own server has something else than what a till recorded.
    #[n(9)]
    Upstream,
    /// A device's journal has two histories. All of them count.
    #[n(10)]
    JournalForked,
}

/// Something that a person should decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Derived from what it is about, so it is the same on every device.
    pub id: RecordId,
    /// What kind.
    pub kind: ConflictKind,
    /// The record that it is about; for oversold stock its latest count, if it has one.
    pub record: Option<RecordId>,
    /// The product, for oversold stock.
    pub sku: Option<String>,
    /// What stands against what, the side that counts first.
    pub sides: Vec<Side>,
    /// Whether it was decided.
    pub state: ConflictState,
}

/// One side of a conflict. Its fact is at `place` and `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// What a resolution names to choose this side.
    pub label: String,
    /// The side's entry.
    pub place: Place,
    /// The index of the fact in it.
    pub index: u32,
    /// When that entry was made.
    pub time: Hlc,
    /// The device that recorded it.
    pub device: DeviceId,
    /// Whether the figures hold it.
    pub counted: bool,
}

/// Whether a conflict was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictState {
    /// Nobody decided yet.
    Open,
    /// A person decided.
    Resolved(Decision),
}

/// The latest decision about a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decision {
    /// The side that was picked.
    #[n(0)]
    pub choice: String,
    /// Why.
    #[n(1)]
    pub note: Option<String>,
    /// On which device.
    #[n(2)]
    pub device: DeviceId,
    /// When.
    #[n(3)]
    pub time: Hlc,
    /// What was decided field by field, as a JSON object.
    #[n(4)]
    pub fields: Option<String>,
}

/// What a conflict between facts is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) enum Subject {
    /// A record with several bodies.
    #[n(0)]
    Contested(#[n(0)] RecordId),
    /// An intent.
    #[n(1)]
    VoidedAndPaid(#[n(0)] RecordId),
    /// An intent.
    #[n(2)]
    PaidTwice(#[n(0)] RecordId),
    /// A product since its latest count: a new count begins a new conflict.
    #[n(3)]
    Oversold(#[n(0)] String, #[n(1)] Option<RecordId>),
    /// A handoff.
    #[n(4)]
    HandoffDecided(#[n(0)] RecordId),
    /// A handoff.
    #[n(5)]
    HandoffTorn(#[n(0)] RecordId),
    /// An operation, and which of its outcomes.
    #[n(6)]
    Upstream(#[n(0)] RecordId, #[n(1)] u32),
}

impl Subject {
    /// The id of the conflict about it.
    pub(crate) fn id(&self) -> RecordId {
        if let Self::Upstream(operation, ordinal) = self {
            return DeliveryOutcome::conflict_id(*operation, *ordinal);
        }
        let (tag, record, text): (&[u8], _, _) = match self {
            Self::Contested(record) => (b"same id", Some(record), ""),
            Self::VoidedAndPaid(intent) => (b"voided and paid", Some(intent), ""),
            Self::PaidTwice(intent) => (b"paid twice", Some(intent), ""),
            Self::HandoffDecided(handoff) => (b"handoff decided", Some(handoff), ""),
            Self::HandoffTorn(handoff) => (b"handoff torn", Some(handoff), ""),
            Self::Oversold(sku, count) => (b"oversold", count.as_ref(), sku.as_str()),
            Self::Upstream(operation, _) => (b"upstream", Some(operation), ""),
        };
        let record = record.map(|record| record.0.into_bytes());
        let record = record.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        RecordId(hash_uuid(domain_hash("tillmesh 2026 conflict", &[tag, record, text.as_bytes()])))
    }
}
