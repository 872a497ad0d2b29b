//! Any other line of the shop's books: a loan, a deposit, a debt paid.

use minicbor::{Decode, Encode};

use super::{FactError, NAME_BYTES_MAX, Source, TEXT_BYTES_MAX, check_name, check_text};
use crate::money::Money;
use crate::time::Timestamp;

/// A line of the shop's books. Positive amounts come in, negative ones go out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FinancialRecord {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// When it happened, if not when it was recorded.
    #[n(1)]
    pub occurred: Option<Timestamp>,
    /// The shop's own word for what it is, such as `loan` or `deposit`.
    #[n(2)]
    pub record_type: String,
    /// How much.
    #[n(3)]
    pub amount: Money,
    /// A description.
    #[n(4)]
    pub description: Option<String>,
}

impl FinancialRecord {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("record_type", &self.record_type, NAME_BYTES_MAX)?;
        check_text("description", self.description.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}
