//! Expenses and other lines of the shop's books.

use crdt_model::money::{Currency, Money};
use crdt_model::record::{Expense, Fact, FinancialRecord, Source, TenderKind};
use crdt_model::time::Timestamp;

use super::{PlanError, Planned};
use crate::shop_handle::ShopHandle;

/// Money the shop spent.
#[derive(Debug, Clone)]
pub struct NewExpense {
    /// The client's own id.
    pub source: Option<Source>,
    /// When it happened, if not now.
    pub occurred: Option<Timestamp>,
    /// What for.
    pub category: String,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// The business's own if `None`.
    pub currency: Option<Currency>,
    /// A description.
    pub description: Option<String>,
    /// What it was paid with.
    pub paid_with: TenderKind,
}

/// Any other line of the shop's books.
#[derive(Debug, Clone)]
pub struct NewFinancialRecord {
    /// The client's own id.
    pub source: Option<Source>,
    /// When it happened, if not now.
    pub occurred: Option<Timestamp>,
    /// The shop's own word for what it is.
    pub record_type: String,
    /// How much, in minor units; negative for money that goes out.
    pub amount_minor: i64,
    /// The business's own if `None`.
    pub currency: Option<Currency>,
    /// A description.
    pub description: Option<String>,
}

/// Builds an expense.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn expense(shop: &ShopHandle, new: NewExpense) -> Result<Planned, PlanError> {
    let currency = own_currency(shop, new.currency).await?;
    Planned::fact(Fact::Expense(Expense {
        source: new.source,
        occurred: new.occurred,
        category: new.category,
        amount: Money::new(new.amount_minor, currency),
        description: new.description,
        paid_with: new.paid_with,
    }))
}

/// Builds any other line of the books.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn financial_record(shop: &ShopHandle, new: NewFinancialRecord) -> Result<Planned, PlanError> {
    let currency = own_currency(shop, new.currency).await?;
    Planned::fact(Fact::FinancialRecord(FinancialRecord {
        source: new.source,
        occurred: new.occurred,
        record_type: new.record_type,
        amount: Money::new(new.amount_minor, currency),
        description: new.description,
    }))
}

/// The business's currency, which is the only one that may be given.
pub(super) async fn own_currency(shop: &ShopHandle, given: Option<Currency>) -> Result<Currency, PlanError> {
    let own = shop.ask(|shop| shop.genesis().currency).await?;
    if given.is_some_and(|given| given != own) {
        return Err(PlanError::WrongCurrency { expected: own.to_string() });
    }
    Ok(own)
}
