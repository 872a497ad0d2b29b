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

/// A sale that is right by itself; what the shop says about it is asked when it is recorded.
#[derive(Debug, Clone)]
pub struct PreparedSale {
    fact: Fact,
    phones: Vec<PayerPhone>,
}

/// Builds a sale.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn sale(shop: &ShopHandle, new: NewSale) -> Result<Planned, PlanError> {
    let prepared = prepare_sale(new)?;
    shop.ask(move |shop| prepared.plan(shop)).await?
}

/// Checks what can be checked without the shop.
///
/// # Errors
/// [`PlanError`], naming the field.
pub fn prepare_sale(new: NewSale) -> Result<PreparedSale, PlanError> {
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
    for (index, tender) in new.tenders.iter().enumerate().filter(|(_, tender)| tender.kind == TenderKind::Mpesa) {
        check_mpesa(&format!("tenders[{index}]."), new.currency, tender.amount_minor)?;
    }
    Ok(PreparedSale { fact, phones: payers(&new.tenders)? })
}

impl PreparedSale {
    /// The promises that it makes, for [`super::check_promises`].
    #[must_use]
    pub fn promises(&self) -> Operation {
        Operation { facts: vec![self.fact.clone()], phones: self.phones.clone(), ..Operation::default() }
    }

    /// Whether it promises to ask anybody for money.
    #[must_use]
    pub fn has_promises(&self) -> bool {
        !self.phones.is_empty()
    }

    /// Checks it against the shop's currency, catalogue and settings.
    ///
    /// # Errors
    /// [`PlanError`], naming the field.
    pub fn plan(self, shop: &Shop) -> Result<Planned, PlanError> {
        let Fact::Sale(sold) = &self.fact else { return Err(PlanError::IdReused) };
        let expected = shop.genesis().currency;
        if sold.currency != expected {
            return Err(PlanError::WrongCurrency { expected: expected.to_string() });
        }
        let unknown = unknown_products(shop, sold);
        if let Some((field, sku)) = unknown.first()
            && shop.settings().require_known_sku
            && !is_recorded(shop, &self.fact)
        {
            return Err(PlanError::UnknownSku { field: field.clone(), sku: sku.clone() });
        }
        let warnings = unknown.into_iter().map(|(field, sku)| Warning::UnknownSku { field, sku }).collect();
        let operation = Operation { facts: vec![self.fact], phones: self.phones, ..Operation::default() };
        Ok(Planned { operation, warnings, ..Planned::default() })
    }
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

/// A repeated sale is never refused: its products were judged when it was recorded.
fn is_recorded(shop: &Shop, fact: &Fact) -> bool {
    let named = matches!(fact, Fact::Sale(sale) if sale.ticket.is_some() || sale.source.is_some());
    named && shop.books().record(fact.record_id(shop.business(), shop.own_journal(), 0, 0)).is_some()
}

/// The lines whose product is not in the catalogue, each product once, as field and SKU.
fn unknown_products(shop: &Shop, sale: &Sale) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let lines = sale.lines.iter().enumerate();
    lines
        .filter(|(_, line)| seen.insert(&line.sku) && !product_is_listed(shop, &line.sku))
        .map(|(index, line)| (format!("lines[{index}].sku"), line.sku.clone()))
        .collect()
}
