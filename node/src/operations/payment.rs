//! Payments that belong to no sale, and the word that an old payment's customer is there.

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, Intent, IntentConfirmed, Source};
use crdt_model::shop::Phone as PayerPhone;

use super::money_moved::own_currency;
use super::sale::{check_mpesa, payer};
use super::{PlanError, Planned, State};
use crate::shop_handle::ShopHandle;

/// Money to ask a customer for, through M-PESA.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The client's own id.
    pub source: Option<Source>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// The currency of the amount.
    pub currency: Currency,
    /// The payer's phone number, in any of the usual spellings.
    pub phone: String,
}

/// Builds a payment intent.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn payment(shop: &ShopHandle, new: NewPayment) -> Result<Planned, PlanError> {
    let currency = own_currency(shop, Some(new.currency)).await?;
    let mut planned = Planned::fact(Fact::Intent(Intent {
        source: new.source.clone(),
        sale: None,
        amount: Money::new(new.amount_minor, currency),
        provider: "mpesa".to_owned(),
        ledger: recorded_ledger(shop, new.source.as_ref()).await?,
    }))?;
    check_mpesa("", currency, new.amount_minor)?;
    let number = payer("phone", Some(&new.phone))?;
    planned.operation.phones.push(PayerPhone { fact: 0, tender: 0, number });
    if let Some(source) = &new.source
        && super::counted_fact(shop, super::named_record(shop, source).await?).await?.is_some()
    {
        return Ok(planned);
    }
    super::check_promises(shop, &planned.operation).await?;
    Ok(planned)
}

/// A cashier says that the customer of an old payment is there.
///
/// # Errors
/// [`PlanError`]; [`State::PaymentNotOpen`] if nothing is waited for.
pub async fn confirm_payment(shop: &ShopHandle, intent: RecordId) -> Result<Planned, PlanError> {
    match shop.ask(move |shop| shop.books().intent_state(intent)).await? {
        None => Err(PlanError::NotFound { what: "payment", id: intent.to_string() }),
        Some(IntentState::Open) => {
            let mut planned = Planned::fact(Fact::IntentConfirmed(IntentConfirmed { intent }))?;
            planned.record = Some(intent);
            Ok(planned)
        }
        Some(IntentState::Paid | IntentState::Declined | IntentState::Void | IntentState::Review) => {
            let reason = format!("payment {intent} is not open any more: look at its state");
            Err(PlanError::State { state: State::PaymentNotOpen, reason })
        }
    }
}

/// A repeated request is the same payment even if the paying relay has changed since.
async fn recorded_ledger(
    shop: &ShopHandle,
    source: Option<&Source>,
) -> Result<Option<crdt_model::record::Ledger>, PlanError> {
    let Some(source) = source else { return Ok(None) };
    let record = super::named_record(shop, source).await?;
    match super::counted_fact(shop, record).await? {
        Some(Fact::Intent(intent)) => Ok(intent.ledger),
        Some(_) | None => Ok(None),
    }
}
