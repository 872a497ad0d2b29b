//! Stock: movements that are not sales, and counts.

use minicbor::{Decode, Encode};

use super::{FactError, NAME_BYTES_MAX, Source, check_name, check_not_negative, check_text};
use crate::ids::JournalId;
use crate::time::Timestamp;

/// Stock that came, went or was corrected other than by a sale.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StockMovement {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// When it happened, if not when it was recorded.
    #[n(1)]
    pub occurred: Option<Timestamp>,
    /// The product.
    #[n(2)]
    pub sku: String,
    /// Thousandths of a unit; negative when it went. Not zero.
    #[n(3)]
    pub quantity_milli: i64,
    /// Why, such as `delivery` or `breakage`.
    #[n(4)]
    pub reason: String,
}

impl StockMovement {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("sku", &self.sku, NAME_BYTES_MAX)?;
        check_text("reason", &self.reason, NAME_BYTES_MAX)?;
        if self.quantity_milli == 0 {
            return Err(FactError::Zero { field: "quantity_milli".to_owned() });
        }
        Ok(())
    }
}

/// What was found on the shelf. Stock is the latest count and the movements not before it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StockCount {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// The product.
    #[n(1)]
    pub sku: String,
    /// Thousandths of a unit found; not negative.
    #[n(2)]
    pub counted_milli: i64,
    /// Thousandths of a unit that the books had at that moment.
    #[n(3)]
    pub expected_milli: i64,
    /// What the counting device had applied: movements up to here are before the count.
    #[n(4)]
    pub seen: Vec<(JournalId, u64)>,
}

impl StockCount {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("sku", &self.sku, NAME_BYTES_MAX)?;
        check_not_negative("counted_milli", self.counted_milli)
    }
}
