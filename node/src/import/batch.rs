//! What an import hands to a node, a piece at a time: plain values that serve any source.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A piece of an import. Posted again, it adds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Names the source; with each key it makes ids that are the same at every import.
    pub instance: String,
    /// The currency of every amount: ISO 4217, the business's own.
    pub currency: String,
    /// Products, added where the catalogue has none of that SKU.
    #[serde(default)]
    pub products: Vec<BatchProduct>,
    /// Customers, added where there is none of that key.
    #[serde(default)]
    pub customers: Vec<BatchCustomer>,
    /// Sales and returns.
    #[serde(default)]
    pub invoices: Vec<BatchInvoice>,
}

/// A product to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchProduct {
    /// Its SKU.
    pub sku: String,
    /// Its name.
    pub name: Option<String>,
    /// The price of one unit, in minor units.
    pub price_minor: Option<i64>,
}

/// A customer to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchCustomer {
    /// The source's own key.
    pub key: String,
    /// The name.
    pub name: String,
    /// A note.
    pub note: Option<String>,
}

/// What was sold and what came back under one number: one entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchInvoice {
    /// The source's own key.
    pub key: String,
    /// When it happened by the shop's clocks, in milliseconds since 1970-01-01 00:00 there.
    pub local_ms: u64,
    /// The customer's key.
    pub customer: Option<String>,
    /// What was sold, paid in cash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sold: Vec<BatchLine>,
    /// What came back, the money given in cash; with positive quantities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<BatchLine>,
    /// Why it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchLine {
    /// The product.
    pub sku: String,
    /// Thousandths of a unit; more than zero.
    pub quantity_milli: i64,
    /// The price of one unit, in minor units.
    pub unit_price_minor: i64,
    /// What is taken off the whole line, in minor units.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discount_minor: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
