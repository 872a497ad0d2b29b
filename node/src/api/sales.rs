//! Sales: recorded, listed, corrected, voided and refunded.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::{IntentState, SaleStatus};
use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::record::{Fact, Kind, Line};
use crdt_model::shop::{Operation, Shop};
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Changes, Creates, alert_over_limit, answer, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::payments::state_word;
use super::problem::{Code, Problem, body_id, path_id};
use super::state::ApiState;
use super::stored::{self, Stored};
use super::values::{Head, Sum, Way, conflicts_json, edit};
use crate::operations::{self, Edit, NewRefund, NewSale, NewTender, Planned, SharedRecord};
use crate::queue::corrections::Change;
use crate::queue::rules;

/// A sale to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSaleBody {
    /// The client's own id: the same id and body is one sale.
    operation_id: Option<String>,
    /// The business, if it is to be checked.
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What was sold; at least one line.
    lines: Vec<LineBody>,
    /// ISO 4217; the business's own.
    currency: String,
    /// How it is paid: nothing (on account), or exactly the total.
    #[serde(default)]
    tenders: Vec<TenderBody>,
    /// Who bought.
    customer_id: Option<String>,
    /// A note.
    note: Option<String>,
    /// When it happened, in milliseconds since 1970 UTC, if not now.
    occurred_at_ms: Option<u64>,
}

/// A line of a sale or refund.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LineBody {
    /// The product.
    sku: String,
    /// Thousandths of a unit; more than zero.
    quantity_milli: i64,
    /// The price of one unit, in minor units.
    unit_price_minor: i64,
    /// What is taken off the whole line, in minor units.
    #[serde(default)]
    discount_minor: i64,
    /// The tax that the price includes, in hundredths of a per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    tax_rate_bp: Option<u32>,
}

/// A line of a ticket.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TicketLine)]
pub(super) struct KeyedLine {
    /// What PATCH calls this line.
    key: String,
    sku: String,
    quantity_milli: i64,
    unit_price_minor: i64,
    discount_minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tax_rate_bp: Option<u32>,
}

impl LineBody {
    /// As a line of a ticket.
    pub(super) fn keyed(self, key: String) -> KeyedLine {
        let Self { sku, quantity_milli, unit_price_minor, discount_minor, tax_rate_bp } = self;
        KeyedLine { key, sku, quantity_milli, unit_price_minor, discount_minor, tax_rate_bp }
    }
}

/// A part of what is paid.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenderBody {
    /// The way.
    kind: Way,
    /// How much, in minor units.
    amount_minor: i64,
    /// The payer's phone number, for M-PESA.
    phone: Option<String>,
    /// For cash: what the customer hands over; the answer says how much goes back.
    given_minor: Option<i64>,
}

/// What goes back to a customer who hands over more than is owed.
pub(super) fn change_due(tenders: &[TenderBody]) -> Result<Option<i64>, Problem> {
    let mut due = None;
    for (index, tender) in tenders.iter().enumerate() {
        let Some(given_minor) = tender.given_minor else { continue };
        let field = format!("tenders[{index}].given_minor");
        if tender.kind != Way::Cash {
            let detail = format!("{field} is only for cash: leave it out");
            return Err(Problem::at(Code::InvalidField, field, detail));
        }
        let change = given_minor.checked_sub(tender.amount_minor).filter(|change| *change >= 0);
        let Some(change) = change else {
            let detail = format!("{field} is less than amount_minor: ask for the rest, or split the tender");
            return Err(Problem::at(Code::InvalidField, field, detail));
        };
        due = Some(due.unwrap_or(0_i64).saturating_add(change));
    }
    Ok(due)
}

/// A sale to take back whole.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VoidBody {
    /// Not needed: a sale is voided once.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// Why.
    reason: String,
}

/// Goods that come back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefundBody {
    /// The client's own id: the same id and body is one refund.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What comes back; all of the sale's lines if not given.
    lines: Option<Vec<LineBody>>,
    /// How the money goes back; in cash if not given and the sale was paid.
    tenders: Option<Vec<TenderBody>>,
    /// Why.
    reason: String,
}

/// Corrections of a sale: absent keeps, `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SalePatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    note: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    customer_id: Edit<String>,
}

named!(NewSaleBody, VoidBody, RefundBody, SalePatch);

/// A sale, with its corrections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SaleView {
    #[serde(flatten)]
    head: Head,
    /// `completed` once every tender is settled, `recorded` until then, `voided`.
    status: &'static str,
    currency: String,
    total_minor: Sum,
    lines: Vec<LineBody>,
    tenders: Vec<TenderView>,
    customer_id: Option<String>,
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket_id: Option<String>,
    /// Corrected fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TenderView {
    kind: Way,
    amount_minor: i64,
    /// For M-PESA: the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<String>,
    /// For M-PESA: open, paid, declined, void or review.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

/// Records a sale. It is durable when this answers.
#[utoipa::path(post, path = "/api/sales", tag = "sales", request_body = NewSaleBody,
    responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewSaleBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let change_due_minor = change_due(&body.tenders)?;
    let new = NewSale {
        source: source.clone(),
        occurred: body.occurred_at_ms.map(Timestamp),
        currency: currency(&body.currency)?,
        lines: body.lines.into_iter().map(LineBody::into_line).collect(),
        tenders: body.tenders.into_iter().map(TenderBody::into_tender).collect(),
        customer: body.customer_id.map(|id| body_id("customer_id", &id)).transpose()?,
        note: body.note,
        ticket: None,
    };
    let prepared = operations::prepare_sale(new)?;
    if prepared.has_promises() {
        operations::check_promises(&state.shop, &prepared.promises()).await?;
    }
    let restricted = state.desk.offline().restricts();
    // One visit to the shop: a sale is what tills wait for.
    let plan = move |shop: &Shop| {
        let Planned { operation, warnings, .. } = prepared.plan(shop).map_err(Problem::from)?;
        let over = if restricted { rules::check_operation(shop, &operation)? } else { None };
        Ok::<_, Problem>((operation, (warnings, over)))
    };
    let (acted, (warnings, over)) = state.shop.record_planned(plan).await?;
    alert_over_limit(&state, &acted, over);
    let planned = Planned { warnings, change_due_minor, ..Planned::default() };
    answer(&state, &caller, source.as_ref(), acted, planned, Answer::Created).await
}

/// Lists sales, the newest first.
#[utoipa::path(get, path = "/api/sales", tag = "sales", params(Page), responses((status = 200, body = Listed<SaleView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<SaleView>>, Problem> {
    let Listed { items, next } = stored::page(&state, &[Kind::Sale], &page).await?;
    Ok(Json(Listed { items: views(&state, items).await?, next }))
}

/// One sale.
#[utoipa::path(get, path = "/api/sales/{id}", tag = "sales", params(("id" = String, Path)),
    responses((status = 200, body = SaleView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<SaleView>, Problem> {
    let found = stored::one(&state, "sale", &[Kind::Sale], &id).await?;
    let view = views(&state, vec![found]).await?.into_iter().next();
    view.map(Json).ok_or_else(|| Problem::not_found("sale", &id))
}

/// Corrects a sale's note or customer.
#[utoipa::path(patch, path = "/api/sales/{id}", tag = "sales", params(("id" = String, Path)),
    request_body = SalePatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<SalePatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let sale = stored::one(&state, "sale", &[Kind::Sale], &id).await?.at.id;
    if let Edit::Set(customer) = &body.customer_id {
        body_id::<RecordId>("customer_id", customer)?;
    }
    let planned = annotated(sale, [("note", body.note), ("customer_id", body.customer_id)]);
    let path = format!("/api/sales/{sale}");
    let planned = state.queue.tell_server(planned, "sale", path, Change::Corrected, None).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// Takes a sale back whole.
#[utoipa::path(post, path = "/api/sales/{id}/void", tag = "sales", params(("id" = String, Path)),
    request_body = VoidBody, responses(Creates))]
pub(super) async fn void(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<VoidBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::void(&state.shop, path_id("sale", &id)?, body.reason).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Takes a sale back in part, or whole with the money going back another way.
#[utoipa::path(post, path = "/api/sales/{id}/refund", tag = "sales", params(("id" = String, Path)),
    request_body = RefundBody, responses(Creates))]
pub(super) async fn refund(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<RefundBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let new = NewRefund {
        source: source.clone(),
        lines: body.lines.map(|lines| lines.into_iter().map(LineBody::into_line).collect()),
        tenders: body.tenders.map(|tenders| tenders.into_iter().map(TenderBody::into_tender).collect()),
        reason: body.reason,
    };
    let planned = operations::refund(&state.shop, path_id("sale", &id)?, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// A currency in a body.
pub(super) fn currency(code: &str) -> Result<Currency, Problem> {
    code.parse().map_err(|_| {
        Problem::at(Code::WrongCurrency, "currency", "currency is not a currency: write an ISO 4217 code such as KES")
    })
}

/// Corrections of a fact. What is taken away is kept as an empty text, because the fact itself
/// still has its first value.
pub(super) fn annotated<const N: usize>(fact: RecordId, fields: [(&str, Edit<String>); N]) -> Planned {
    let document = DocumentId::annotations(fact);
    let edits = fields.into_iter().filter_map(|(field, edit)| {
        let text = match edit {
            Edit::Keep => return None,
            Edit::Clear => String::new(),
            Edit::Set(text) => text,
        };
        let value = Some(FieldValue::Text(text));
        Some((document, FieldEdit { record: fact, field: field.to_owned(), value }))
    });
    let operation = Operation { edits: edits.collect(), ..Operation::default() };
    Planned { operation, record: Some(fact), ..Planned::default() }
}

/// A correctable field: its correction, or else what the fact says.
pub(super) fn corrected(corrections: &SharedRecord, field: &str, recorded: Option<String>) -> Option<String> {
    corrections.text(field).or(recorded).filter(|text| !text.is_empty())
}

async fn views(state: &ApiState, sales: Vec<Stored>) -> Result<Vec<SaleView>, Problem> {
    let ids: Vec<RecordId> = sales.iter().map(|sale| sale.at.id).collect();
    let corrections = stored::corrections(state, ids.clone()).await?;
    let statuses: Vec<SaleStatus> =
        state.shop.ask(move |shop| ids.iter().map(|id| shop.books().sale_status(*id)).collect()).await?;
    let all = sales.into_iter().zip(corrections).zip(statuses);
    Ok(all.filter_map(|((sale, corrections), status)| view(sale, &corrections, &status)).collect())
}

fn view(stored: Stored, corrections: &SharedRecord, status: &SaleStatus) -> Option<SaleView> {
    let head = Head::of(&stored);
    let Fact::Sale(sale) = stored.fact else { return None };
    let total_minor = Sum(sale.lines.iter().filter_map(|line| line.amount_minor().ok()).map(i128::from).sum());
    let tenders = (0..).zip(&sale.tenders).map(|(index, tender)| {
        let payment = status.payments.iter().find(|(at, _, _)| *at == index);
        TenderView {
            kind: tender.kind.into(),
            amount_minor: tender.amount_minor,
            payment_id: payment.map(|(_, intent, _)| intent.to_string()),
            state: payment.map(|(_, _, state)| state_word(state.unwrap_or(IntentState::Open))),
        }
    });
    Some(SaleView {
        head,
        status: status_word(status),
        currency: sale.currency.to_string(),
        total_minor,
        tenders: tenders.collect(),
        lines: sale.lines.into_iter().map(LineBody::of).collect(),
        customer_id: corrected(corrections, "customer_id", sale.customer.map(|id| id.to_string())),
        note: corrected(corrections, "note", sale.note),
        ticket_id: sale.ticket.map(|id| id.to_string()),
        conflicts: conflicts_json(corrections),
    })
}

const fn status_word(status: &SaleStatus) -> &'static str {
    match (status.voided, status.completed) {
        (true, _) => "voided",
        (false, true) => "completed",
        (false, false) => "recorded",
    }
}

impl LineBody {
    pub(super) fn into_line(self) -> Line {
        Line {
            sku: self.sku,
            quantity_milli: self.quantity_milli,
            unit_price_minor: self.unit_price_minor,
            discount_minor: self.discount_minor,
            tax_rate_bp: self.tax_rate_bp,
        }
    }

    pub(super) fn of(line: Line) -> Self {
        Self {
            sku: line.sku,
            quantity_milli: line.quantity_milli,
            unit_price_minor: line.unit_price_minor,
            discount_minor: line.discount_minor,
            tax_rate_bp: line.tax_rate_bp,
        }
    }
}

impl TenderBody {
    pub(super) fn into_tender(self) -> NewTender {
        NewTender { kind: self.kind.into(), amount_minor: self.amount_minor, phone: self.phone }
    }
}
