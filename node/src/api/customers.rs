//! Customers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::document::{CUSTOMERS_SHARDS, DocumentId};
use crdt_model::ids::RecordId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Changes, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::problem::{Problem, path_id};
use super::shards;
use super::state::ApiState;
use super::values::{conflicts_json, edit, given};
use crate::operations::{self, CustomerFields, Edit, SharedRecord};
use crate::queue::corrections::Change;

/// A customer to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCustomerBody {
    /// The client's own id: the same id and body is one customer.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    name: String,
    phone: Option<String>,
    note: Option<String>,
}

/// Corrections of a customer: absent keeps, `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CustomerPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    name: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    phone: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    note: Edit<String>,
}

named!(NewCustomerBody, CustomerPatch);

/// A customer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CustomerView {
    id: String,
    name: Option<String>,
    phone: Option<String>,
    note: Option<String>,
    /// Fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Adds a customer.
#[utoipa::path(post, path = "/api/customers", tag = "customers", request_body = NewCustomerBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewCustomerBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let fields = CustomerFields { name: Edit::Set(body.name), phone: given(body.phone), note: given(body.note) };
    let planned = operations::create_customer(&state.shop, source.as_ref(), &fields).await?;
    // By this key later operations find what the server calls the customer.
    let key = planned.record.map(|record| record.to_string());
    let path = "/api/customers".to_owned();
    let planned = state.queue.tell_server(planned, "customer", path, Change::Created, key).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists customers, in no order that means anything.
#[utoipa::path(get, path = "/api/customers", tag = "customers", params(Page),
    responses((status = 200, body = Listed<CustomerView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<CustomerView>>, Problem> {
    let found = shards::page(&state, DocumentId::Customers, CUSTOMERS_SHARDS, &page, |_| true).await?;
    Ok(Json(found.map(|(id, customer)| view(id, &customer))))
}

/// One customer.
#[utoipa::path(get, path = "/api/customers/{id}", tag = "customers", params(("id" = String, Path)),
    responses((status = 200, body = CustomerView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<CustomerView>, Problem> {
    let record: RecordId = path_id("customer", &id)?;
    let read = move |shop: &crdt_model::shop::Shop| SharedRecord::read(shop, DocumentId::customers(record), record);
    let customer = state.shop.ask(read).await?;
    if !customer.exists() {
        return Err(Problem::not_found("customer", &id));
    }
    Ok(Json(view(record, &customer)))
}

/// Corrects fields of a customer.
#[utoipa::path(patch, path = "/api/customers/{id}", tag = "customers", params(("id" = String, Path)),
    request_body = CustomerPatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<CustomerPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let fields = CustomerFields { name: body.name, phone: body.phone, note: body.note };
    let planned = operations::edit_customer(&state.shop, path_id("customer", &id)?, &fields).await?;
    let path = format!("/api/customers/{id}");
    let planned = state.queue.tell_server(planned, "customer", path, Change::Corrected, None).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// Deletes a customer's fields. Sales keep the id.
#[utoipa::path(delete, path = "/api/customers/{id}", tag = "customers", params(("id" = String, Path)),
    responses(Changes))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let planned = operations::delete_customer(&state.shop, path_id("customer", &id)?).await?;
    let path = format!("/api/customers/{id}");
    let planned = state.queue.tell_server(planned, "customer", path, Change::Deleted, None).await?;
    record(&state, &caller, None, planned, Answer::Changed).await
}

fn view(id: RecordId, customer: &SharedRecord) -> CustomerView {
    CustomerView {
        id: id.to_string(),
        name: customer.text("name"),
        phone: customer.text("phone"),
        note: customer.text("note"),
        conflicts: conflicts_json(customer),
    }
}
