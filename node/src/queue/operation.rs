//! An operation as a server hears of it: its type, method, path and JSON body. What the shop
//! itself records has the shape of tillmesh's own API; the app's own operations are as they came.

use crdt_model::ids::{BusinessId, RecordId};
use crdt_model::record::{Custom, Fact, Kind, Line, Tender, TenderKind};
use serde_json::{Value, json};

/// An operation as a server hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `sale`, `expense`, `record`, `payment`, `stock_adjustment`, or the app's own word.
    pub operation_type: String,
    /// POST, PUT, PATCH or DELETE.
    pub method: String,
    /// The path at the server; `{sale}` stands for the server's id of [`Described::about`].
    pub path: String,
    /// The body.
    pub body: Value,
    /// The record that it changes, if it is not a record of its own.
    pub about: Option<RecordId>,
}

/// Where in a path the server's id of the record goes that an operation is about.
pub const SALE_PLACE: &str = "{sale}";

/// An operation as a server hears of it; `None` for facts that are no operation for it.
#[must_use]
pub fn describe(fact: &Fact, id: RecordId) -> Option<Described> {
    let (operation_type, path, body, about) = match fact {
        Fact::Sale(sale) => {
            let body = json!({
                "currency": sale.currency.code(),
                "lines": lines(&sale.lines),
                "tenders": tenders(&sale.tenders),
                "customer_id": sale.customer.map(|id| id.to_string()),
                "note": sale.note,
            });
            ("sale", "/api/sales".to_owned(), body, None)
        }
        Fact::Void(void) => {
            let body = json!({ "sale_id": void.sale.to_string(), "reason": void.reason });
            ("sale", format!("/api/sales/{SALE_PLACE}/void"), body, Some(void.sale))
        }
        Fact::Refund(refund) => {
            let body = json!({
                "sale_id": refund.sale.map(|id| id.to_string()),
                "currency": refund.currency.code(),
                "lines": lines(&refund.lines),
                "tenders": tenders(&refund.tenders),
                "reason": refund.reason,
            });
            match refund.sale {
                Some(sale) => ("sale", format!("/api/sales/{SALE_PLACE}/refund"), body, Some(sale)),
                None => ("sale", "/api/refunds".to_owned(), body, None),
            }
        }
        Fact::Expense(expense) => {
            let body = json!({
                "category": expense.category,
                "amount_minor": expense.amount.minor,
                "currency": expense.amount.currency.code(),
                "description": expense.description,
            });
            ("expense", "/api/expenses".to_owned(), body, None)
        }
        Fact::FinancialRecord(record) => {
            let body = json!({
                "record_type": record.record_type,
                "amount_minor": record.amount.minor,
                "currency": record.amount.currency.code(),
                "description": record.description,
            });
            ("record", "/api/records".to_owned(), body, None)
        }
        Fact::StockMovement(movement) => {
            let body = json!({
                "sku": movement.sku, "quantity_milli": movement.quantity_milli, "reason": movement.reason,
            });
            ("stock_adjustment", "/api/stock/adjustments".to_owned(), body, None)
        }
        Fact::StockCount(count) => {
            let body = json!({ "sku": count.sku, "counted_milli": count.counted_milli });
            ("stock_adjustment", "/api/stock/adjustments".to_owned(), body, None)
        }
        Fact::Intent(intent) => {
            let body = json!({
                "provider": intent.provider,
                "amount_minor": intent.amount.minor,
                "currency": intent.amount.currency.code(),
            });
            ("payment", "/api/payments".to_owned(), body, None)
        }
        Fact::Custom(custom) => return Some(custom_operation(custom)),
        Fact::ShiftOpened(_)
        | Fact::ShiftClosed(_)
        | Fact::Receipt(_)
        | Fact::Decline(_)
        | Fact::Enrolment(_)
        | Fact::IntentAddressed(_)
        | Fact::IntentConfirmed(_)
        | Fact::Resolution(_)
        | Fact::HandoffOffered(_)
        | Fact::HandoffAccepted(_)
        | Fact::HandoffTransferred(_)
        | Fact::HandoffWithdrawn(_)
        | Fact::HandoffDecided(_)
        | Fact::Payment(_)
        | Fact::Upstream(_) => return None,
    };
    let mut body = body;
    if let Some(object) = body.as_object_mut() {
        object.retain(|_, value| !value.is_null());
        object.insert("id".to_owned(), id.to_string().into());
        if let Some(source) = fact.source() {
            object.insert("operation_id".to_owned(), source.key.clone().into());
        }
        if let Some(occurred) = fact.occurred() {
            object.insert("occurred_at_ms".to_owned(), occurred.0.into());
        }
    }
    Some(Described { operation_type: operation_type.to_owned(), method: "POST".to_owned(), path, body, about })
}

/// A kind of fact, in the API's words.
#[must_use]
pub const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Sale => "sale",
        Kind::Expense => "expense",
        Kind::FinancialRecord => "record",
        Kind::StockMovement => "stock_movement",
        Kind::StockCount => "stock_count",
        Kind::Intent => "payment",
        Kind::Void => "void",
        Kind::Refund => "refund",
        Kind::ShiftOpened => "shift_opened",
        Kind::ShiftClosed => "shift_closed",
        Kind::Receipt => "receipt",
        Kind::Decline => "decline",
        Kind::Custom => "custom",
        Kind::Enrolment => "enrolment",
        Kind::IntentAddressed => "payment_addressed",
        Kind::IntentConfirmed => "payment_confirmed",
        Kind::Resolution => "resolution",
        Kind::HandoffOffered => "handoff_offered",
        Kind::HandoffAccepted => "handoff_accepted",
        Kind::HandoffTransferred => "handoff_transferred",
        Kind::HandoffWithdrawn => "handoff_withdrawn",
        Kind::HandoffDecided => "handoff_decided",
        Kind::Payment => "payment_note",
        Kind::Upstream => "delivery",
    }
}

fn custom_operation(custom: &Custom) -> Described {
    Described {
        operation_type: custom.operation_type.clone(),
        method: custom.method.clone(),
        path: custom.path.clone(),
        body: serde_json::from_str(&custom.body).unwrap_or(Value::Null),
        about: None,
    }
}

/// The record that an operation is about: operations about one record keep their order. `named`
/// finds the operation that a client's own id names.
pub(super) fn lane(
    fact: &Fact,
    id: RecordId,
    business: BusinessId,
    mut named: impl FnMut(&str) -> Option<RecordId>,
) -> RecordId {
    let stock = |sku: &str| RecordId::from_client(business, "stock lane", sku);
    if let Fact::Void(void) = fact {
        return void.sale;
    }
    if let Fact::Refund(refund) = fact {
        return refund.sale.unwrap_or(id);
    }
    if let Fact::StockMovement(movement) = fact {
        return stock(&movement.sku);
    }
    if let Fact::StockCount(count) = fact {
        return stock(&count.sku);
    }
    let Fact::Custom(custom) = fact else { return id };
    let path = custom.path.split('?').next().unwrap_or_default();
    if let Some(referred) = path.split('/').filter(|piece| !piece.is_empty()).find_map(&mut named) {
        return referred;
    }
    if custom.method == "POST" { id } else { RecordId::from_client(business, "path lane", path) }
}

fn lines(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        json!({
            "sku": line.sku,
            "quantity_milli": line.quantity_milli,
            "unit_price_minor": line.unit_price_minor,
            "discount_minor": line.discount_minor,
            "tax_rate_bp": line.tax_rate_bp,
        })
    };
    lines.iter().map(line).collect()
}

fn tenders(tenders: &[Tender]) -> Value {
    let kind = |kind| match kind {
        TenderKind::Cash => "cash",
        TenderKind::Mpesa => "mpesa",
        TenderKind::Other => "other",
    };
    tenders.iter().map(|tender| json!({ "kind": kind(tender.kind), "amount_minor": tender.amount_minor })).collect()
}
