//! Money the shop spent.

use minicbor::{Decode, Encode};

use super::{
    FactError, NAME_BYTES_MAX, Source, TEXT_BYTES_MAX, TenderKind, check_name, check_not_negative, check_text,
};
use crate::money::Money;
use crate::time::Timestamp;

/// Money the shop spent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Expense {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// When it happened, if not when it was recorded.
    #[n(1)]
    pub occurred: Option<Timestamp>,
    /// What for, as recorded; correctable in the annotations.
    #[n(2)]
    pub category: String,
    /// How much; not negative.
    #[n(3)]
    pub amount: Money,
    /// A description.
    #[n(4)]
    pub description: Option<String>,
    /// What it was paid with.
    #[n(5)]
    pub paid_with: TenderKind,
}

impl Expense {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("category", &self.category, NAME_BYTES_MAX)?;
        check_not_negative("amount_minor", self.amount.minor)?;
        check_text("description", self.description.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}
