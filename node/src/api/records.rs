//! Other lines of the shop's books: a loan, a deposit, a debt paid.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Kind};
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Changes, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::problem::Problem;
use super::sales::{annotated, corrected, currency};
use super::state::ApiState;
use super::stored::{self, Stored};
use super::values::{Head, conflicts_json, edit};
use crate::operations::{self, Edit, NewFinancialRecord, SharedRecord};
use crate::queue::corrections::Change;

/// A line of the books to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRecordBody {
    /// The client's own id: the same id and body is one record.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The shop's own word for what it is, such as `loan` or `deposit`.
    record_type: String,
    /// How much, in minor units; negative for money that goes out.
    amount_minor: i64,
    /// ISO 4217; the business's own if not given.
    currency: Option<String>,
    description: Option<String>,
    /// When it happened, in milliseconds since 1970 UTC, if not now.
    occurred_at_ms: Option<u64>,
}

/// Corrections of a record: absent keeps, `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    note: Edit<String>,
}

named!(NewRecordBody, RecordPatch);

/// A line of the books, with its corrections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordView {
    #[serde(flatten)]
    head: Head,
    record_type: String,
    amount_minor: i64,
    currency: String,
    description: Option<String>,
    note: Option<String>,
    /// Corrected fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Records a line of the books.
#[utoipa::path(post, path = "/api/records", tag = "records", request_body = NewRecordBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewRecordBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let new = NewFinancialRecord {
        source: source.clone(),
        occurred: body.occurred_at_ms.map(Timestamp),
        record_type: body.record_type,
        amount_minor: body.amount_minor,
        currency: body.currency.as_deref().map(currency).transpose()?,
        description: body.description,
    };
    let planned = operations::financial_record(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists records, the newest first.
#[utoipa::path(get, path = "/api/records", tag = "records", params(Page),
    responses((status = 200, body = Listed<RecordView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<RecordView>>, Problem> {
    let Listed { items, next } = stored::page(&state, &[Kind::FinancialRecord], &page).await?;
    Ok(Json(Listed { items: views(&state, items).await?, next }))
}

/// One record.
#[utoipa::path(get, path = "/api/records/{id}", tag = "records", params(("id" = String, Path)),
    responses((status = 200, body = RecordView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<RecordView>, Problem> {
    let found = stored::one(&state, "record", &[Kind::FinancialRecord], &id).await?;
    let view = views(&state, vec![found]).await?.into_iter().next();
    view.map(Json).ok_or_else(|| Problem::not_found("record", &id))
}

/// Corrects a record's note.
#[utoipa::path(patch, path = "/api/records/{id}", tag = "records", params(("id" = String, Path)),
    request_body = RecordPatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<RecordPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let found = stored::one(&state, "record", &[Kind::FinancialRecord], &id).await?.at.id;
    let planned = annotated(found, [("note", body.note)]);
    let path = format!("/api/records/{found}");
    let planned = state.queue.tell_server(planned, "record", path, Change::Corrected, None).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

async fn views(state: &ApiState, records: Vec<Stored>) -> Result<Vec<RecordView>, Problem> {
    let ids: Vec<RecordId> = records.iter().map(|record| record.at.id).collect();
    let corrections = stored::corrections(state, ids).await?;
    Ok(records.into_iter().zip(corrections).filter_map(|(record, corrections)| view(record, &corrections)).collect())
}

fn view(stored: Stored, corrections: &SharedRecord) -> Option<RecordView> {
    let head = Head::of(&stored);
    let Fact::FinancialRecord(record) = stored.fact else { return None };
    Some(RecordView {
        head,
        record_type: record.record_type,
        amount_minor: record.amount.minor,
        currency: record.amount.currency.to_string(),
        description: record.description,
        note: corrected(corrections, "note", None),
        conflicts: conflicts_json(corrections),
    })
}
