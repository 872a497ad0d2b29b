//! Payments that are asked for by themselves, for a sale or for none, and the word that an old payment's customer is there.

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, Instead, Intent, IntentConfirmed, Source, TENDERS_MAX, TenderKind};
use crdt_model::shop::Phone as PayerPhone;

use super::money_moved::own_currency;
use super::sale::{check_mpesa, payer};
use super::{PlanError, Planned, State};
use crate::shop_handle::ShopHandle;

/// Money to ask a customer for.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The client's own id.
    pub source: Option<Source>,
    /// The sale that it pays, where that was sold on account or its own payment was given up.
    pub sale: Option<RecordId>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// The currency of the amount.
    pub currency: Currency,
    /// Who asks the customer: M-PESA, or one that the paying relay has named.
    pub provider: Option<String>,
    /// The payer's phone number, in any of the usual spellings. M-PESA needs it.
    pub phone: Option<String>,
}

/// Builds a payment intent.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn payment(shop: &ShopHandle, new: NewPayment) -> Result<Planned, PlanError> {
    let currency = own_currency(shop, Some(new.currency)).await?;
    let provider = provider(shop, new.provider.as_deref()).await?;
    let by_mpesa = provider == MPESA;
    let (sale, ledger) = match new.sale {
        None => (None, recorded_ledger(shop, new.source.as_ref()).await?),
        Some(sale) => {
            let (tender, before) = tender_of(shop, sale, &new).await?;
            (Some((sale, tender)), before.and_then(|intent| intent.ledger))
        }
    };
    let mut planned = Planned::fact(Fact::Intent(Intent {
        source: new.source.clone(),
        sale,
        amount: Money::new(new.amount_minor, currency),
        provider,
        ledger,
    }))?;
    if by_mpesa {
        check_mpesa("", currency, new.amount_minor)?;
    }
    if by_mpesa || new.phone.is_some() {
        let number = payer("phone", new.phone.as_deref())?;
        planned.operation.phones.push(PayerPhone { fact: 0, tender: 0, number });
    }
    if let Some(source) = &new.source
        && super::counted_fact(shop, super::named_record(shop, source).await?).await?.is_some()
    {
        return Ok(planned);
    }
    super::check_promises(shop, &planned.operation).await?;
    Ok(planned)
}

/// Whom to ask, if the paying relay can.
async fn provider(shop: &ShopHandle, wanted: Option<&str>) -> Result<String, PlanError> {
    let wanted = wanted.unwrap_or(MPESA).to_owned();
    let mut known = shop.ask(|shop| shop.settings().payment_providers).await?;
    if wanted == MPESA || known.contains(&wanted) {
        return Ok(wanted);
    }
    known.insert(0, MPESA.to_owned());
    Err(PlanError::UnknownProvider { provider: wanted.chars().take(NAME_CHARS_MAX).collect(), known: known.join(", ") })
}

const MPESA: &str = "mpesa";
const NAME_CHARS_MAX: usize = 64;

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

/// Which tender of its sale a further payment is: the first behind the sale's own that is free,
/// or the one that the same client asked for before.
async fn tender_of(shop: &ShopHandle, sale: RecordId, new: &NewPayment) -> Result<(u32, Option<Intent>), PlanError> {
    let Some(Fact::Sale(sold)) = super::counted_fact(shop, sale).await? else {
        return Err(PlanError::NotFound { what: "sale", id: sale.to_string() });
    };
    if shop.ask(move |shop| shop.books().sale_status(sale).voided).await? {
        let reason = format!("sale {sale} was voided: there is nothing to pay");
        return Err(PlanError::State { state: State::SaleVoided, reason });
    }
    let settled = sold.tenders.iter().filter(|tender| tender.kind != TenderKind::Mpesa);
    let mut owed = i128::from(sold.total_minor()?);
    owed -= settled.map(|tender| i128::from(tender.amount_minor)).sum::<i128>();
    let mut free = None;
    for tender in 0..u32::try_from(TENDERS_MAX).unwrap_or_default() {
        let intent = sale.derived("intent", tender);
        let further = usize::try_from(tender).is_ok_and(|tender| tender >= sold.tenders.len());
        match shop.ask(move |shop| shop.books().payment(intent)).await? {
            None if further => free = free.or(Some(tender)),
            None => {}
            Some(payment) => {
                let before = super::counted_fact(shop, intent).await?;
                if let Some(Fact::Intent(before)) = before
                    && new.source.is_some()
                    && before.source == new.source
                {
                    return Ok((tender, Some(before)));
                }
                // A declined one may be asked for again, or be paid late: only what was given up
                // makes room for another, and only if the money was not taken in cash instead.
                let in_cash = payment.given_up.is_some_and(|wish| wish.instead == Instead::Cash);
                let stands = payment.state != IntentState::Void || in_cash;
                owed -= if stands { i128::from(payment.amount.minor) } else { 0 };
            }
        }
    }
    if i128::from(new.amount_minor) > owed {
        let reason = format!("is more than the {owed} minor units of the sale that nobody has paid or promised");
        return Err(PlanError::field("amount_minor", reason));
    }
    let full = || PlanError::field("sale_id", format!("has {TENDERS_MAX} payments already: no more fit"));
    Ok((free.ok_or_else(full)?, None))
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
