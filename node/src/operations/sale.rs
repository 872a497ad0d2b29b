//! Sales, with the checks that only the shop's settings, catalogue and payment provider allow.

use std::collections::BTreeSet;

use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::record::{Fact, Line, Sale, Source, Tender, TenderKind};
use crdt_model::shop::{Operation, Phone as PayerPhone, Shop};
use crdt_model::time::Timestamp;

use super::product::product_is_listed;
use super::{PlanError, Planned, Warning};
use crate::payments::{Phone, Unsupported, mpesa};
use crate::shop_handle::ShopHandle;

/// What was sold, as the till's app says it.
#[derive(Debug, Clone)]
pub struct NewSale {
    /// The client's own id.
    pub source: Option<Source>,
    /// When it happened, if not now.
    pub occurred: Option<Timestamp>,
    /// The currency of every amount in it.
    pub currency: Currency,
    /// What was sold.
    pub lines: Vec<Line>,
    /// How it is paid: nothing (on account), or exactly the total.
    pub tenders: Vec<NewTender>,
    /// Who bought.
    pub customer: Option<RecordId>,
    /// A note.
    pub note: Option<String>,
    /// The ticket it closes.
    pub ticket: Option<RecordId>,
}

/// A part of what is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTender {
    /// The way.
    pub kind: TenderKind,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// The payer's phone number, for M-PESA, in any of the usual spellings.
    pub phone: Option<String>,
}

/// Builds a sale.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn sale(shop: &ShopHandle, new: NewSale) -> Result<Planned, PlanError> {
    let phones = payers(&new.tenders);
    let tenders: Vec<Tender> =
        new.tenders.iter().map(|tender| Tender { kind: tender.kind, amount_minor: tender.amount_minor }).collect();
    let fact = Fact::Sale(Sale {
        source: new.source,
        occurred: new.occurred,
        currency: new.currency,
        lines: new.lines,
        tenders,
        customer: new.customer,
        note: new.note,
        ticket: new.ticket,
    });
    fact.check()?;
    let Fact::Sale(sold) = &fact else { return Err(PlanError::IdReused) };
    let skus: Vec<String> = sold.lines.iter().map(|line| line.sku.clone()).collect();
    let named = sold.ticket.is_some() || sold.source.is_some();
    let question = fact.clone();
    let known = shop.ask(move |shop| look_up(shop, named.then_some(&question), &skus)).await?;
    if new.currency != known.currency {
        return Err(PlanError::WrongCurrency { expected: known.currency.to_string() });
    }
    if let (true, Some((field, sku))) = (known.refuse_unknown, known.unknown.first()) {
        return Err(PlanError::UnknownSku { field: field.clone(), sku: sku.clone() });
    }
    for (index, tender) in new.tenders.iter().enumerate().filter(|(_, tender)| tender.kind == TenderKind::Mpesa) {
        check_mpesa(&format!("tenders[{index}]."), new.currency, tender.amount_minor)?;
    }
    let warnings = known.unknown.into_iter().map(|(field, sku)| Warning::UnknownSku { field, sku }).collect();
    let operation = Operation { facts: vec![fact], phones: phones?, ..Operation::default() };
    Ok(Planned { operation, warnings, ..Planned::default() })
}

/// Whether M-PESA can be asked for an amount.
pub(super) fn check_mpesa(path: &str, currency: Currency, amount_minor: i64) -> Result<(), PlanError> {
    mpesa::supports(currency.code(), amount_minor).map_err(|unsupported| {
        let field = match unsupported {
            Unsupported::Currency { .. } => "currency".to_owned(),
            Unsupported::PartShillings(_) | Unsupported::OutOfRange { .. } => format!("{path}amount_minor"),
        };
        let text = unsupported.to_string();
        let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason).to_owned();
        PlanError::Tender { field, reason }
    })
}

/// A payer's number as the provider takes it.
pub(super) fn payer(field: &str, phone: Option<&str>) -> Result<String, PlanError> {
    let Some(phone) = phone else {
        return Err(PlanError::field(field, "is missing: M-PESA needs the payer's phone number"));
    };
    let phone: Phone = phone.parse().map_err(|_| {
        PlanError::field(
            field,
            "is not a Kenyan mobile number: write it as 07XXXXXXXX, 01XXXXXXXX, +2547XXXXXXXX or 2547XXXXXXXX",
        )
    })?;
    Ok(phone.msisdn().to_owned())
}

fn payers(tenders: &[NewTender]) -> Result<Vec<PayerPhone>, PlanError> {
    let mut phones = Vec::new();
    for (index, tender) in (0_u32..).zip(tenders) {
        let field = format!("tenders[{index}].phone");
        match tender.kind {
            TenderKind::Mpesa => {
                phones.push(PayerPhone { fact: 0, tender: index, number: payer(&field, tender.phone.as_deref())? });
            }
            TenderKind::Cash | TenderKind::Other => {
                if tender.phone.is_some() {
                    return Err(PlanError::field(field, "is only for M-PESA: leave it out"));
                }
            }
        }
    }
    Ok(phones)
}

struct LookedUp {
    currency: Currency,
    unknown: Vec<(String, String)>,
    refuse_unknown: bool,
}

/// A repeated sale is never refused: its products were judged when it was recorded.
fn look_up(shop: &Shop, named: Option<&Fact>, skus: &[String]) -> LookedUp {
    let recorded = named.is_some_and(|fact| {
        let record = fact.record_id(shop.business(), shop.own_journal(), 0, 0);
        shop.books().record(record).is_some()
    });
    let mut seen = BTreeSet::new();
    let unknown = skus
        .iter()
        .enumerate()
        .filter(|(_, sku)| seen.insert(*sku) && !product_is_listed(shop, sku))
        .map(|(index, sku)| (format!("lines[{index}].sku"), sku.clone()))
        .collect();
    LookedUp {
        currency: shop.genesis().currency,
        unknown,
        refuse_unknown: !recorded && shop.settings().require_known_sku,
    }
}
