//! Tickets: open carts, until one is closed with a sale.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::document::{DocumentId, TICKETS_SHARDS};
use crdt_model::ids::RecordId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Changes, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::problem::{Problem, path_id};
use super::sales::{KeyedLine, LineBody, TenderBody, change_due, currency};
use super::shards;
use super::state::ApiState;
use super::values::{conflicts_json, edit};
use crate::operations::{self, Edit, NewTicket, SharedRecord, TicketEdit, TicketLine, ticket_lines};

/// A ticket to open.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTicketBody {
    /// The client's own id: the same id and body is one ticket.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What people call it, such as a table.
    name: Option<String>,
    #[serde(default)]
    lines: Vec<LineBody>,
}

/// Changes to an open ticket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    name: Edit<String>,
    /// Lines to add.
    #[serde(default)]
    add_lines: Vec<LineBody>,
    /// Lines to replace, by key; `null` takes a line away.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, LineBody>)]
    set_lines: BTreeMap<String, Option<LineBody>>,
}

/// How a ticket is paid.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseTicketBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// Nothing (on account), or exactly the total.
    #[serde(default)]
    tenders: Vec<TenderBody>,
    /// ISO 4217; the business's own if not given.
    currency: Option<String>,
    note: Option<String>,
}

named!(NewTicketBody, TicketPatch, CloseTicketBody);

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TicketView {
    id: String,
    name: Option<String>,
    /// open or closed.
    status: String,
    /// The sale that closed it, or will.
    sale_id: String,
    lines: Vec<KeyedLine>,
    /// Fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Opens a ticket.
#[utoipa::path(post, path = "/api/tickets", tag = "tickets", request_body = NewTicketBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewTicketBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let lines = body.lines.into_iter().map(ticket_line).collect();
    let new = NewTicket { source: source.clone(), name: body.name, lines };
    let planned = operations::create_ticket(&state.shop, &new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists open tickets, in no order that means anything.
#[utoipa::path(get, path = "/api/tickets", tag = "tickets", params(Page),
    responses((status = 200, body = Listed<TicketView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<TicketView>>, Problem> {
    let open = |ticket: &SharedRecord| ticket.text("status").as_deref() == Some("open");
    let found = shards::page(&state, DocumentId::Tickets, TICKETS_SHARDS, &page, open).await?;
    Ok(Json(found.map(|(id, ticket)| view(id, &ticket))))
}

/// One ticket, open or closed.
#[utoipa::path(get, path = "/api/tickets/{id}", tag = "tickets", params(("id" = String, Path)),
    responses((status = 200, body = TicketView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<TicketView>, Problem> {
    let record: RecordId = path_id("ticket", &id)?;
    let read = move |shop: &crdt_model::shop::Shop| SharedRecord::read(shop, DocumentId::tickets(record), record);
    let ticket = state.shop.ask(read).await?;
    if !ticket.exists() {
        return Err(Problem::not_found("ticket", &id));
    }
    Ok(Json(view(record, &ticket)))
}

/// Changes an open ticket.
#[utoipa::path(patch, path = "/api/tickets/{id}", tag = "tickets", params(("id" = String, Path)),
    request_body = TicketPatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<TicketPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let edit = TicketEdit {
        name: body.name,
        add_lines: body.add_lines.into_iter().map(ticket_line).collect(),
        set_lines: body.set_lines.into_iter().map(|(key, line)| (key, line.map(ticket_line))).collect(),
    };
    let planned = operations::edit_ticket(&state.shop, path_id("ticket", &id)?, &edit).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// Closes a ticket with a sale of what is on it. The answer's id is the sale's.
#[utoipa::path(post, path = "/api/tickets/{id}/close", tag = "tickets", params(("id" = String, Path)),
    request_body = CloseTicketBody, responses(Creates))]
pub(super) async fn close(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<CloseTicketBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let ticket: RecordId = path_id("ticket", &id)?;
    let currency = match &body.currency {
        Some(code) => currency(code)?,
        None => state.fixed().await?.currency,
    };
    let change_due_minor = change_due(&body.tenders)?;
    let tenders = body.tenders.into_iter().map(TenderBody::into_tender).collect();
    let closing = operations::close_ticket(&state.shop, ticket, source.clone(), currency, tenders, body.note);
    let mut planned = closing.await?;
    planned.change_due_minor = change_due_minor;
    operations::check_promises(&state.shop, &planned.operation).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

fn ticket_line(line: LineBody) -> TicketLine {
    let line = line.into_line();
    TicketLine {
        sku: line.sku,
        quantity_milli: line.quantity_milli,
        unit_price_minor: line.unit_price_minor,
        discount_minor: (line.discount_minor != 0).then_some(line.discount_minor),
        tax_rate_bp: line.tax_rate_bp,
    }
}

fn view(id: RecordId, ticket: &SharedRecord) -> TicketView {
    let lines = ticket_lines(ticket).into_iter().map(|(key, line)| LineBody::of(line.into_line()).keyed(key));
    TicketView {
        id: id.to_string(),
        name: ticket.text("name"),
        status: ticket.text("status").unwrap_or_default(),
        sale_id: id.derived("sale", 0).to_string(),
        lines: lines.collect(),
        conflicts: conflicts_json(ticket),
    }
}
