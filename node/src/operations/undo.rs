//! Taking sales back: voids whole, refunds in part.

use std::collections::BTreeMap;

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Line, Refund, Sale, Source, Tender, TenderKind, Void};

use super::{NewTender, PlanError, Planned, State, Warning, counted_fact, named_record};
use crdt_model::shop::Shop;

use crate::shop_handle::ShopHandle;

/// Goods that come back.
#[derive(Debug, Clone, Default)]
pub struct NewRefund {
    /// The client's own id.
    pub source: Option<Source>,
    /// What comes back; all of the sale's lines if `None`.
    pub lines: Option<Vec<Line>>,
    /// How the money goes back; in cash if `None` and the sale was paid.
    pub tenders: Option<Vec<NewTender>>,
    /// Why.
    pub reason: String,
}

/// Takes a sale back whole. Asked again with the same reason, it is the same void.
///
/// # Errors
/// [`PlanError`]; [`State::SaleVoided`] if it was voided for another reason.
pub async fn void(shop: &ShopHandle, sale: RecordId, reason: String) -> Result<Planned, PlanError> {
    let sold = stored_sale(shop, sale).await?;
    let fact = match counted_fact(shop, sale.derived("void", 0)).await? {
        Some(Fact::Void(before)) if before.reason != reason => return Err(already_voided(sale)),
        Some(Fact::Void(before)) => before,
        Some(_) | None => {
            let tenders = as_taken(shop, sale, sold.tenders).await?;
            Void { sale, currency: sold.currency, lines: sold.lines, tenders, reason }
        }
    };
    let status = shop.ask(move |shop| shop.books().sale_status(sale)).await?;
    let paid = status.payments.iter().any(|(_, _, state)| *state == Some(IntentState::Paid));
    let mut planned = Planned::fact(Fact::Void(fact))?;
    if paid {
        planned.warnings.push(Warning::SalePaid);
    }
    Ok(planned)
}

/// A sale's tenders as the money really came in: cash, where a till took that instead.
async fn as_taken(shop: &ShopHandle, sale: RecordId, mut tenders: Vec<Tender>) -> Result<Vec<Tender>, PlanError> {
    let taken = shop.ask(move |shop| {
        let payments = shop.books().sale_status(sale).payments.into_iter();
        let taken = payments.filter(|(_, intent, _)| shop.books().is_cash_taken(*intent));
        taken.filter_map(|(tender, ..)| usize::try_from(tender).ok()).collect::<Vec<_>>()
    });
    for tender in taken.await? {
        if let Some(tender) = tenders.get_mut(tender) {
            tender.kind = TenderKind::Cash;
        }
    }
    Ok(tenders)
}

/// Takes a sale back in part, or whole with the money going back another way.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn refund(shop: &ShopHandle, sale: RecordId, new: NewRefund) -> Result<Planned, PlanError> {
    let sold = stored_sale(shop, sale).await?;
    let voided = shop.ask(move |shop| shop.books().sale_status(sale).voided).await?;
    if voided {
        return Err(already_voided(sale));
    }
    let again = match &new.source {
        Some(source) => Some(named_record(shop, source).await?),
        None => None,
    };
    let lines = match new.lines {
        None => sold.lines.clone(),
        Some(lines) => {
            check_sold(&sold, &refunded_before(shop, sale, again).await?, &lines)?;
            lines
        }
    };
    let mut refund = Refund {
        source: new.source,
        occurred: None,
        sale: Some(sale),
        currency: sold.currency,
        lines,
        tenders: Vec::new(),
        reason: new.reason,
        customer: sold.customer,
    };
    let total_minor = refund.total_minor()?;
    refund.tenders = match new.tenders {
        Some(tenders) => given_back(&tenders)?,
        None if sold.tenders.is_empty() || total_minor == 0 => Vec::new(),
        None => vec![Tender { kind: TenderKind::Cash, amount_minor: total_minor }],
    };
    let limit = RefundLimit { sale, sold_minor: sold.total_minor()?, refund_minor: total_minor, again };
    Ok(Planned { limit: Some(limit), ..Planned::fact(Fact::Refund(refund))? })
}

/// What a sale's refunds may add up to; checked where the refund is recorded, so that two at
/// once don't pass together.
#[derive(Debug, Clone, Copy)]
pub struct RefundLimit {
    sale: RecordId,
    sold_minor: i64,
    refund_minor: i64,
    /// The refund, if its client named it: the same one again is no further refund.
    again: Option<RecordId>,
}

impl RefundLimit {
    /// Checks it against the refunds so far.
    ///
    /// # Errors
    /// [`State::RefundTooLarge`].
    pub fn check(&self, shop: &Shop) -> Result<(), PlanError> {
        let known = self.again.is_some_and(|record| shop.books().record(record).is_some());
        let before = shop.books().refunded_minor(self.sale);
        let left = i128::from(self.sold_minor) - before;
        if known || i128::from(self.refund_minor) <= left {
            return Ok(());
        }
        let reason = format!("of sale {} only {left} minor units are left to be refunded: refund less", self.sale);
        Err(PlanError::State { state: State::RefundTooLarge, reason })
    }
}

/// The lines of a sale's refunds so far, but for the one that is asked again.
async fn refunded_before(shop: &ShopHandle, sale: RecordId, again: Option<RecordId>) -> Result<Vec<Line>, PlanError> {
    let mut lines = Vec::new();
    for refund in shop.ask(move |shop| shop.books().amendments_of(sale)).await? {
        if Some(refund) == again {
            continue;
        }
        if let Some(Fact::Refund(before)) = counted_fact(shop, refund).await? {
            lines.extend(before.lines);
        }
    }
    Ok(lines)
}

async fn stored_sale(shop: &ShopHandle, sale: RecordId) -> Result<Sale, PlanError> {
    match counted_fact(shop, sale).await? {
        Some(Fact::Sale(sold)) => Ok(sold),
        Some(_) | None => Err(PlanError::NotFound { what: "sale", id: sale.to_string() }),
    }
}

fn already_voided(sale: RecordId) -> PlanError {
    let reason = format!("sale {sale} was voided before: look at it, nothing more can be taken back");
    PlanError::State { state: State::SaleVoided, reason }
}

/// No more of a product can come back than was sold.
fn check_sold(sold: &Sale, before: &[Line], lines: &[Line]) -> Result<(), PlanError> {
    let mut left: BTreeMap<&str, i128> = BTreeMap::new();
    for line in &sold.lines {
        *left.entry(&line.sku).or_default() += i128::from(line.quantity_milli);
    }
    for line in before {
        left.entry(&line.sku).and_modify(|left| *left -= i128::from(line.quantity_milli));
    }
    for (index, line) in lines.iter().enumerate() {
        let Some(left) = left.get_mut(line.sku.as_str()) else {
            return Err(PlanError::field(format!("lines[{index}].sku"), "was not in the sale: correct it"));
        };
        *left -= i128::from(line.quantity_milli);
        if *left < 0 {
            let reason = "is more than was sold and not taken back yet: correct it";
            return Err(PlanError::field(format!("lines[{index}].quantity_milli"), reason));
        }
    }
    Ok(())
}

fn given_back(tenders: &[NewTender]) -> Result<Vec<Tender>, PlanError> {
    let mut given = Vec::with_capacity(tenders.len());
    for (index, tender) in tenders.iter().enumerate() {
        if tender.kind == TenderKind::Mpesa {
            return Err(PlanError::Tender {
                field: format!("tenders[{index}].kind"),
                reason: "can't be mpesa: give the money back in cash or another way".to_owned(),
            });
        }
        if tender.phone.is_some() {
            return Err(PlanError::field(format!("tenders[{index}].phone"), "is only for M-PESA: leave it out"));
        }
        given.push(Tender { kind: tender.kind, amount_minor: tender.amount_minor });
    }
    Ok(given)
}
