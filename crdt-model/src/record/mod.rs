//! Facts: what a shop records. A fact never changes; amounts change only by an amendment
//! and a new fact. Each is one CBOR value (docs/protocol.md has the schema).

mod amendment;
mod custom;
mod expense;
mod financial_record;
mod handoff;
mod intent;
mod ledger_fact;
mod membership;
mod payment_fact;
mod receipt;
mod sale;
mod shift;
mod stock;
mod upstream_fact;

use std::fmt;

use minicbor::{Decode, Encode};

pub use amendment::{Refund, Resolution, Void};
pub use custom::Custom;
pub use expense::Expense;
pub use financial_record::FinancialRecord;
pub use handoff::{
    HANDOFF_TICKETS_MAX, HandoffAccepted, HandoffDecided, HandoffOffered, HandoffTransferred, HandoffWithdrawn,
};
pub use intent::{Intent, IntentAddressed, IntentConfirmed, Ledger};
pub use ledger_fact::{CashTaken, IntentReleased, LedgerMoved};
pub use membership::{Certificate, CertificateError, DEVICE_NAME_BYTES_MAX, Genesis, Role};
pub use payment_fact::{
    Check, CodeClaim, GiveUp, GiveUpAnswer, Instead, IntentRetry, IntentReview, Outcome, OutcomeState, PaymentFact,
    Progress, Proposal, ReceiptRevoked, Settlement, Stage, Suspense, claim_id, suspense_id,
};
pub use receipt::{Decline, Evidence, Receipt};
pub use sale::{Line, Sale, Tender, TenderKind};
pub use shift::{ShiftClosed, ShiftOpened};
pub use stock::{StockCount, StockMovement};
pub use upstream_fact::{
    AttemptAnchor, DeliveryOutcome, DeliveryState, DeliveryWish, ErrorClass, Strategy, UpstreamConflict, UpstreamFact,
    VERSION_BYTES_MAX,
};

use crate::ids::{BusinessId, JournalId, RecordId};
use crate::money::MoneyError;
use crate::time::Timestamp;

/// Where a record's name comes from, when its client named it: the client instance (an API
/// token's name, an X-Device-Id, an import) and the client's own id within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Source {
    /// Who gave the key; at most [`SOURCE_BYTES_MAX`] bytes.
    #[n(0)]
    pub instance: String,
    /// The client's own id; at most [`SOURCE_BYTES_MAX`] bytes.
    #[n(1)]
    pub key: String,
}

/// The longest client instance or client id.
pub const SOURCE_BYTES_MAX: usize = 128;
/// The longest short text (a SKU, a category, a reason code).
pub const NAME_BYTES_MAX: usize = 128;
/// The longest free text (a note, a description).
pub const TEXT_BYTES_MAX: usize = 2_000;
/// The most lines one sale, refund or void holds.
pub const LINES_MAX: usize = 1_500;
/// The most tenders one sale holds.
pub const TENDERS_MAX: usize = 16;
/// The largest body of a custom operation.
pub const CUSTOM_BODY_BYTES_MAX: usize = 64 * 1024;

/// Why a fact can't be recorded. `field` is the path of the field as the API names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactError {
    /// A text or list is longer than its limit.
    #[error("{field} is too long: keep it to {limit}")]
    TooLong {
        /// The field.
        field: String,
        /// Its limit, in bytes or items.
        limit: usize,
    },
    /// Something that must be there is empty.
    #[error("{field} is empty: give it a value")]
    Empty {
        /// The field.
        field: String,
    },
    /// An amount or quantity that must not be negative is.
    #[error("{field} must not be negative")]
    Negative {
        /// The field.
        field: String,
    },
    /// A quantity or amount that must not be zero is.
    #[error("{field} must not be zero")]
    Zero {
        /// The field.
        field: String,
    },
    /// The figures add up to more than 64 bits hold.
    #[error("{field}: {source}")]
    Money {
        /// The field.
        field: String,
        /// What is wrong with it.
        source: MoneyError,
    },
    /// What is paid is not what is owed.
    #[error("tenders add up to {tendered_minor} minor units, but the lines to {total_minor}: make them equal")]
    Unbalanced {
        /// The sum of the tenders.
        tendered_minor: i64,
        /// The sum of the lines.
        total_minor: i64,
    },
    /// A value outside what is allowed.
    #[error("{field} {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// Why it is refused.
        reason: &'static str,
    },
}

impl FactError {
    /// The field that is wrong.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::TooLong { field, .. }
            | Self::Empty { field }
            | Self::Negative { field }
            | Self::Zero { field }
            | Self::Money { field, .. }
            | Self::Invalid { field, .. } => field,
            Self::Unbalanced { .. } => "tenders",
        }
    }
}

/// One immutable fact.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Fact {
    /// Goods sold.
    #[n(0)]
    Sale(#[n(0)] Sale),
    /// Money spent.
    #[n(1)]
    Expense(#[n(0)] Expense),
    /// Any other line of the shop's books.
    #[n(2)]
    FinancialRecord(#[n(0)] FinancialRecord),
    /// Stock that came, went or was corrected.
    #[n(3)]
    StockMovement(#[n(0)] StockMovement),
    /// Stock that was counted.
    #[n(4)]
    StockCount(#[n(0)] StockCount),
    /// A promise to ask a customer for money.
    #[n(5)]
    Intent(#[n(0)] Intent),
    /// A sale that is taken back whole.
    #[n(6)]
    Void(#[n(0)] Void),
    /// Goods that came back.
    #[n(7)]
    Refund(#[n(0)] Refund),
    /// A shift begins.
    #[n(8)]
    ShiftOpened(#[n(0)] ShiftOpened),
    /// A shift ends.
    #[n(9)]
    ShiftClosed(#[n(0)] ShiftClosed),
    /// A ledger's proof that an intent was paid.
    #[n(10)]
    Receipt(#[n(0)] Receipt),
    /// A ledger's word that an attempt was not paid.
    #[n(11)]
    Decline(#[n(0)] Decline),
    /// An operation only the app and its server understand.
    #[n(12)]
    Custom(#[n(0)] Custom),
    /// A device joined the business.
    #[n(13)]
    Enrolment(#[n(0)] Certificate),
    /// The ledger of an intent that was made before one was known.
    #[n(14)]
    IntentAddressed(#[n(0)] IntentAddressed),
    /// A cashier says that the customer of an old intent is there.
    #[n(15)]
    IntentConfirmed(#[n(0)] IntentConfirmed),
    /// A person decided a conflict.
    #[n(16)]
    Resolution(#[n(0)] Resolution),
    /// A shift is offered to another till, and frozen.
    #[n(20)]
    HandoffOffered(#[n(0)] HandoffOffered),
    /// The other till takes it.
    #[n(21)]
    HandoffAccepted(#[n(0)] HandoffAccepted),
    /// The giver's last word: the shift is the other till's.
    #[n(22)]
    HandoffTransferred(#[n(0)] HandoffTransferred),
    /// The receiver declines, or the giver goes on.
    #[n(23)]
    HandoffWithdrawn(#[n(0)] HandoffWithdrawn),
    /// An owner decides whose a shift is.
    #[n(24)]
    HandoffDecided(#[n(0)] HandoffDecided),
    /// What else is said about payments.
    #[n(25)]
    Payment(#[n(0)] PaymentFact),
    /// What is said about delivery to the shop's own server.
    #[n(35)]
    Upstream(#[n(0)] UpstreamFact),
}

/// What kind of record a fact is, for lists and indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// See [`Fact::Sale`].
    #[n(0)]
    Sale,
    /// See [`Fact::Expense`].
    #[n(1)]
    Expense,
    /// See [`Fact::FinancialRecord`].
    #[n(2)]
    FinancialRecord,
    /// See [`Fact::StockMovement`].
    #[n(3)]
    StockMovement,
    /// See [`Fact::StockCount`].
    #[n(4)]
    StockCount,
    /// See [`Fact::Intent`].
    #[n(5)]
    Intent,
    /// See [`Fact::Void`].
    #[n(6)]
    Void,
    /// See [`Fact::Refund`].
    #[n(7)]
    Refund,
    /// See [`Fact::ShiftOpened`].
    #[n(8)]
    ShiftOpened,
    /// See [`Fact::ShiftClosed`].
    #[n(9)]
    ShiftClosed,
    /// See [`Fact::Receipt`].
    #[n(10)]
    Receipt,
    /// See [`Fact::Decline`].
    #[n(11)]
    Decline,
    /// See [`Fact::Custom`].
    #[n(12)]
    Custom,
    /// See [`Fact::Enrolment`].
    #[n(13)]
    Enrolment,
    /// See [`Fact::IntentAddressed`].
    #[n(14)]
    IntentAddressed,
    /// See [`Fact::IntentConfirmed`].
    #[n(15)]
    IntentConfirmed,
    /// See [`Fact::Resolution`].
    #[n(16)]
    Resolution,
    /// See [`Fact::HandoffOffered`].
    #[n(20)]
    HandoffOffered,
    /// See [`Fact::HandoffAccepted`].
    #[n(21)]
    HandoffAccepted,
    /// See [`Fact::HandoffTransferred`].
    #[n(22)]
    HandoffTransferred,
    /// See [`Fact::HandoffWithdrawn`].
    #[n(23)]
    HandoffWithdrawn,
    /// See [`Fact::HandoffDecided`].
    #[n(24)]
    HandoffDecided,
    /// See [`Fact::Payment`].
    #[n(25)]
    Payment,
    /// See [`Fact::Upstream`].
    #[n(35)]
    Upstream,
}

impl Fact {
    /// What kind of record this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sale(_) => Kind::Sale,
            Self::Expense(_) => Kind::Expense,
            Self::FinancialRecord(_) => Kind::FinancialRecord,
            Self::StockMovement(_) => Kind::StockMovement,
            Self::StockCount(_) => Kind::StockCount,
            Self::Intent(_) => Kind::Intent,
            Self::Void(_) => Kind::Void,
            Self::Refund(_) => Kind::Refund,
            Self::ShiftOpened(_) => Kind::ShiftOpened,
            Self::ShiftClosed(_) => Kind::ShiftClosed,
            Self::Receipt(_) => Kind::Receipt,
            Self::Decline(_) => Kind::Decline,
            Self::Custom(_) => Kind::Custom,
            Self::Enrolment(_) => Kind::Enrolment,
            Self::IntentAddressed(_) => Kind::IntentAddressed,
            Self::IntentConfirmed(_) => Kind::IntentConfirmed,
            Self::Resolution(_) => Kind::Resolution,
            Self::HandoffOffered(_) => Kind::HandoffOffered,
            Self::HandoffAccepted(_) => Kind::HandoffAccepted,
            Self::HandoffTransferred(_) => Kind::HandoffTransferred,
            Self::HandoffWithdrawn(_) => Kind::HandoffWithdrawn,
            Self::HandoffDecided(_) => Kind::HandoffDecided,
            Self::Payment(_) => Kind::Payment,
            Self::Upstream(_) => Kind::Upstream,
        }
    }

    /// Whether the shop's own server would want to hear of it. The intents of a sale's tenders are
    /// told with the sale.
    #[must_use]
    pub fn is_for_upstream(&self) -> bool {
        match self {
            Self::Sale(_)
            | Self::Expense(_)
            | Self::FinancialRecord(_)
            | Self::StockMovement(_)
            | Self::StockCount(_)
            | Self::Void(_)
            | Self::Refund(_)
            | Self::Custom(_) => true,
            Self::Intent(intent) => intent.sale.is_none(),
            Self::ShiftOpened(_)
            | Self::ShiftClosed(_)
            | Self::Receipt(_)
            | Self::Decline(_)
            | Self::Enrolment(_)
            | Self::IntentAddressed(_)
            | Self::IntentConfirmed(_)
            | Self::Resolution(_)
            | Self::HandoffOffered(_)
            | Self::HandoffAccepted(_)
            | Self::HandoffTransferred(_)
            | Self::HandoffWithdrawn(_)
            | Self::HandoffDecided(_)
            | Self::Payment(_)
            | Self::Upstream(_) => false,
        }
    }

    /// The record's id: from what it belongs to, else from the client's own id, else from
    /// its place in the journal.
    #[must_use]
    pub fn record_id(&self, business: BusinessId, journal: JournalId, seq: u64, index: u32) -> RecordId {
        let owned = match self {
            Self::Intent(intent) => intent.sale.map(|(sale, tender)| sale.derived("intent", tender)),
            Self::Void(void) => Some(void.sale.derived("void", 0)),
            Self::ShiftClosed(closed) => Some(closed.shift.derived("closed", 0)),
            Self::Receipt(receipt) => Some(receipt.id(business)),
            Self::Sale(sale) => sale.ticket.map(|ticket| ticket.derived("sale", 0)),
            Self::Payment(fact) => fact.record_id(business),
            Self::Expense(_)
            | Self::FinancialRecord(_)
            | Self::StockMovement(_)
            | Self::StockCount(_)
            | Self::Refund(_)
            | Self::ShiftOpened(_)
            | Self::Decline(_)
            | Self::Custom(_)
            | Self::Enrolment(_)
            | Self::IntentAddressed(_)
            | Self::IntentConfirmed(_)
            | Self::Resolution(_)
            | Self::HandoffOffered(_)
            | Self::HandoffAccepted(_)
            | Self::HandoffTransferred(_)
            | Self::HandoffWithdrawn(_)
            | Self::HandoffDecided(_)
            | Self::Upstream(_) => None,
        };
        owned
            .or_else(|| self.source().map(|source| RecordId::from_client(business, &source.instance, &source.key)))
            .unwrap_or_else(|| RecordId::from_place(journal, seq, index))
    }

    /// The client's own name for the record, if it gave one.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        match self {
            Self::Sale(fact) => fact.source.as_ref(),
            Self::Expense(fact) => fact.source.as_ref(),
            Self::FinancialRecord(fact) => fact.source.as_ref(),
            Self::StockMovement(fact) => fact.source.as_ref(),
            Self::StockCount(fact) => fact.source.as_ref(),
            Self::Intent(fact) => fact.source.as_ref(),
            Self::Refund(fact) => fact.source.as_ref(),
            Self::ShiftOpened(fact) => fact.source.as_ref(),
            Self::HandoffOffered(fact) => fact.source.as_ref(),
            Self::Custom(fact) => fact.source.as_ref(),
            Self::Void(_)
            | Self::ShiftClosed(_)
            | Self::Receipt(_)
            | Self::Decline(_)
            | Self::Enrolment(_)
            | Self::IntentAddressed(_)
            | Self::IntentConfirmed(_)
            | Self::Resolution(_)
            | Self::Payment(_)
            | Self::Upstream(_)
            | Self::HandoffAccepted(_)
            | Self::HandoffTransferred(_)
            | Self::HandoffWithdrawn(_)
            | Self::HandoffDecided(_) => None,
        }
    }

    /// When it happened, if that is not when it was recorded (an import).
    #[must_use]
    pub fn occurred(&self) -> Option<Timestamp> {
        match self {
            Self::Sale(fact) => fact.occurred,
            Self::Expense(fact) => fact.occurred,
            Self::FinancialRecord(fact) => fact.occurred,
            Self::StockMovement(fact) => fact.occurred,
            Self::Refund(fact) => fact.occurred,
            Self::StockCount(_)
            | Self::Intent(_)
            | Self::Void(_)
            | Self::ShiftOpened(_)
            | Self::ShiftClosed(_)
            | Self::Receipt(_)
            | Self::Decline(_)
            | Self::Custom(_)
            | Self::Enrolment(_)
            | Self::IntentAddressed(_)
            | Self::IntentConfirmed(_)
            | Self::Resolution(_)
            | Self::Payment(_)
            | Self::Upstream(_)
            | Self::HandoffOffered(_)
            | Self::HandoffAccepted(_)
            | Self::HandoffTransferred(_)
            | Self::HandoffWithdrawn(_)
            | Self::HandoffDecided(_) => None,
        }
    }

    /// Checks the fact by itself: limits, signs, sums.
    ///
    /// # Errors
    /// A [`FactError`] that names the field.
    pub fn check(&self) -> Result<(), FactError> {
        if let Some(source) = self.source() {
            check_name("operation_id", &source.key, SOURCE_BYTES_MAX)?;
            check_name("instance", &source.instance, SOURCE_BYTES_MAX)?;
        }
        match self {
            Self::Sale(fact) => fact.check(),
            Self::Expense(fact) => fact.check(),
            Self::FinancialRecord(fact) => fact.check(),
            Self::StockMovement(fact) => fact.check(),
            Self::StockCount(fact) => fact.check(),
            Self::Intent(fact) => fact.check(),
            Self::Void(fact) => fact.check(),
            Self::Refund(fact) => fact.check(),
            Self::ShiftOpened(fact) => fact.check(),
            Self::ShiftClosed(fact) => fact.check(),
            Self::Receipt(fact) => fact.check(),
            Self::Decline(fact) => fact.check(),
            Self::Custom(fact) => fact.check(),
            Self::Resolution(fact) => fact.check(),
            Self::Payment(fact) => fact.check(),
            Self::Upstream(fact) => fact.check(),
            Self::HandoffOffered(fact) => fact.check(),
            Self::HandoffAccepted(fact) => fact.check(),
            Self::HandoffWithdrawn(fact) => fact.check(),
            Self::HandoffDecided(fact) => fact.check(),
            Self::Enrolment(_) | Self::IntentAddressed(_) | Self::IntentConfirmed(_) | Self::HandoffTransferred(_) => {
                Ok(())
            }
        }
    }
}

pub(crate) fn check_name(field: impl fmt::Display, text: &str, limit: usize) -> Result<(), FactError> {
    if text.is_empty() {
        return Err(FactError::Empty { field: field.to_string() });
    }
    check_text(field, text, limit)
}

pub(crate) fn check_text(field: impl fmt::Display, text: &str, limit: usize) -> Result<(), FactError> {
    if text.len() > limit {
        return Err(FactError::TooLong { field: field.to_string(), limit });
    }
    Ok(())
}

pub(crate) fn check_count(field: impl fmt::Display, count: usize, limit: usize) -> Result<(), FactError> {
    if count > limit {
        return Err(FactError::TooLong { field: field.to_string(), limit });
    }
    Ok(())
}

pub(crate) fn check_not_negative(field: impl fmt::Display, amount: i64) -> Result<(), FactError> {
    if amount < 0 {
        return Err(FactError::Negative { field: field.to_string() });
    }
    Ok(())
}
