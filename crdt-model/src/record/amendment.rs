//! Amendments: what takes back or decides about earlier facts. They carry the lines and
//! totals that they reverse, so they fold even where the sale itself is not held.

use minicbor::{Decode, Encode};

use super::sale::{check_tenders, checked_total};
use super::{
    FactError, Line, NAME_BYTES_MAX, Source, TEXT_BYTES_MAX, Tender, VERSION_BYTES_MAX, check_name, check_text,
};
use crate::ids::RecordId;
use crate::money::Currency;
use crate::time::Timestamp;

/// A sale that is taken back whole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Void {
    /// The sale.
    #[n(0)]
    pub sale: RecordId,
    /// The sale's currency.
    #[n(1)]
    pub currency: Currency,
    /// The sale's lines.
    #[n(2)]
    pub lines: Vec<Line>,
    /// The sale's tenders.
    #[n(3)]
    pub tenders: Vec<Tender>,
    /// Why.
    #[n(4)]
    pub reason: String,
}

impl Void {
    pub(super) fn check(&self) -> Result<(), FactError> {
        checked_total("lines", &self.lines)?;
        check_text("reason", &self.reason, TEXT_BYTES_MAX)
    }
}

/// Goods that came back, and the money given for them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refund {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// When it happened, if not when it was recorded.
    #[n(1)]
    pub occurred: Option<Timestamp>,
    /// The sale it takes back in part, if known.
    #[n(2)]
    pub sale: Option<RecordId>,
    /// The currency of every amount in it.
    #[n(3)]
    pub currency: Currency,
    /// What came back, with positive quantities.
    #[n(4)]
    pub lines: Vec<Line>,
    /// How the money went back; nothing, or exactly the total.
    #[n(5)]
    pub tenders: Vec<Tender>,
    /// Why.
    #[n(6)]
    pub reason: String,
    /// Who brought it back.
    #[n(7)]
    pub customer: Option<RecordId>,
}

impl Refund {
    /// The sum of the lines, in minor units (positive).
    ///
    /// # Errors
    /// A [`FactError`] that names the line that is wrong.
    pub fn total_minor(&self) -> Result<i64, FactError> {
        checked_total("lines", &self.lines)
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        check_tenders(&self.tenders, self.total_minor()?)?;
        check_text("reason", &self.reason, TEXT_BYTES_MAX)
    }
}

/// A person's decision about a conflict between facts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resolution {
    /// The conflict.
    #[n(0)]
    pub conflict: RecordId,
    /// The side that was picked, as the conflict lists it.
    #[n(1)]
    pub choice: String,
    /// Why.
    #[n(2)]
    pub note: Option<String>,
    /// For a conflict with the shop's own server, decided field by field: a JSON object of values.
    #[n(3)]
    pub fields: Option<String>,
}

impl Resolution {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("choice", &self.choice, NAME_BYTES_MAX)?;
        check_text("fields", self.fields.as_deref().unwrap_or_default(), VERSION_BYTES_MAX)?;
        check_text("note", self.note.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}
