//! Money the shop spent.

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
use super::problem::{Code, Problem};
use super::sales::{annotated, corrected, currency};
use super::state::ApiState;
use super::stored::{self, Stored};
use super::values::{Head, Way, conflicts_json, edit};
use crate::operations::{self, Edit, NewExpense, SharedRecord};
use crate::queue::corrections::Change;

/// An expense to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewExpenseBody {
    /// The client's own id: the same id and body is one expense.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What for.
    category: String,
    /// How much, in minor units; not negative.
    amount_minor: i64,
    /// ISO 4217; the business's own if not given.
    currency: Option<String>,
    description: Option<String>,
    /// What it was paid with; cash if not given.
    paid_with: Option<Way>,
    /// When it happened, in milliseconds since 1970 UTC, if not now.
    occurred_at_ms: Option<u64>,
}

/// Corrections of an expense: absent keeps, `null` takes a note away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpensePatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    category: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    note: Edit<String>,
}

named!(NewExpenseBody, ExpensePatch);

/// An expense, with its corrections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExpenseView {
    #[serde(flatten)]
    head: Head,
    category: Option<String>,
    amount_minor: i64,
    currency: String,
    description: Option<String>,
    paid_with: Way,
    note: Option<String>,
    /// Corrected fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Records an expense.
#[utoipa::path(post, path = "/api/expenses", tag = "expenses", request_body = NewExpenseBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewExpenseBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let new = NewExpense {
        source: source.clone(),
        occurred: body.occurred_at_ms.map(Timestamp),
        category: body.category,
        amount_minor: body.amount_minor,
        currency: body.currency.as_deref().map(currency).transpose()?,
        description: body.description,
        paid_with: body.paid_with.unwrap_or(Way::Cash).into(),
    };
    let planned = operations::expense(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists expenses, the newest first.
#[utoipa::path(get, path = "/api/expenses", tag = "expenses", params(Page),
    responses((status = 200, body = Listed<ExpenseView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<ExpenseView>>, Problem> {
    let Listed { items, next } = stored::page(&state, &[Kind::Expense], &page).await?;
    Ok(Json(Listed { items: views(&state, items).await?, next }))
}

/// One expense.
#[utoipa::path(get, path = "/api/expenses/{id}", tag = "expenses", params(("id" = String, Path)),
    responses((status = 200, body = ExpenseView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<ExpenseView>, Problem> {
    let found = stored::one(&state, "expense", &[Kind::Expense], &id).await?;
    let view = views(&state, vec![found]).await?.into_iter().next();
    view.map(Json).ok_or_else(|| Problem::not_found("expense", &id))
}

/// Corrects an expense's category or note.
#[utoipa::path(patch, path = "/api/expenses/{id}", tag = "expenses", params(("id" = String, Path)),
    request_body = ExpensePatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<ExpensePatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let expense = stored::one(&state, "expense", &[Kind::Expense], &id).await?.at.id;
    let empty = match &body.category {
        Edit::Keep => false,
        Edit::Clear => true,
        Edit::Set(category) => category.is_empty(),
    };
    if empty {
        return Err(Problem::at(Code::InvalidField, "category", "category is empty: give it a value"));
    }
    let planned = annotated(expense, [("category", body.category), ("note", body.note)]);
    let path = format!("/api/expenses/{expense}");
    let planned = state.queue.tell_server(planned, "expense", path, Change::Corrected, None).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

async fn views(state: &ApiState, expenses: Vec<Stored>) -> Result<Vec<ExpenseView>, Problem> {
    let ids: Vec<RecordId> = expenses.iter().map(|expense| expense.at.id).collect();
    let corrections = stored::corrections(state, ids).await?;
    Ok(expenses.into_iter().zip(corrections).filter_map(|(expense, corrections)| view(expense, &corrections)).collect())
}

fn view(stored: Stored, corrections: &SharedRecord) -> Option<ExpenseView> {
    let head = Head::of(&stored);
    let Fact::Expense(expense) = stored.fact else { return None };
    Some(ExpenseView {
        head,
        category: corrected(corrections, "category", Some(expense.category)),
        amount_minor: expense.amount.minor,
        currency: expense.amount.currency.to_string(),
        description: expense.description,
        paid_with: expense.paid_with.into(),
        note: corrected(corrections, "note", None),
        conflicts: conflicts_json(corrections),
    })
}
