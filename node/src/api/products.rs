//! The catalogue, by SKU.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::document::{CATALOGUE_SHARDS, DocumentId};
use crdt_model::ids::RecordId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Changes, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::problem::Problem;
use super::shards;
use super::state::ApiState;
use super::values::{conflicts_json, edit, given};
use crate::operations::{self, Edit, Planned, ProductFields, SharedRecord, product_record};
use crate::queue::corrections::Change;
use crate::upstream::encoded;

/// A product to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProductBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The stock-keeping unit; it names the product.
    sku: String,
    name: String,
    /// The price of one unit, in minor units of the business's currency.
    price_minor: Option<i64>,
    /// The tax that the price includes, in hundredths of a per cent.
    tax_rate_bp: Option<u32>,
    category: Option<String>,
    /// Whether it is sold at the moment.
    active: Option<bool>,
}

/// A product's fields, all of them: what is left out is taken away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    name: String,
    price_minor: Option<i64>,
    tax_rate_bp: Option<u32>,
    category: Option<String>,
    active: Option<bool>,
}

/// Corrections of a product: absent keeps, `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    name: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<i64>)]
    price_minor: Edit<i64>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<u32>)]
    tax_rate_bp: Edit<u32>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    category: Edit<String>,
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<bool>)]
    active: Edit<bool>,
}

named!(NewProductBody, ProductBody, ProductPatch);

/// A product.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProductView {
    /// The record that holds its fields.
    id: String,
    sku: String,
    name: Option<String>,
    price_minor: Option<i64>,
    tax_rate_bp: Option<i64>,
    category: Option<String>,
    active: bool,
    /// Fields with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Adds a product.
#[utoipa::path(post, path = "/api/products", tag = "products", request_body = NewProductBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewProductBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let fields = ProductFields {
        name: Edit::Set(body.name),
        price_minor: given(body.price_minor),
        tax_rate_bp: given(body.tax_rate_bp),
        category: given(body.category),
        active: given(body.active),
    };
    let planned = operations::create_product(&state.shop, &body.sku, &fields).await?;
    let planned = told(&state, planned, None, Change::Created).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists the catalogue, in no order that means anything.
#[utoipa::path(get, path = "/api/products", tag = "products", params(Page),
    responses((status = 200, body = Listed<ProductView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<ProductView>>, Problem> {
    let found =
        shards::page(&state, DocumentId::Catalogue, CATALOGUE_SHARDS, &page, |product| product.text("sku").is_some());
    Ok(Json(found.await?.map(|(id, product)| view(id, &product))))
}

/// One product.
#[utoipa::path(get, path = "/api/products/{sku}", tag = "products", params(("sku" = String, Path)),
    responses((status = 200, body = ProductView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(sku): Path<String>) -> Result<Json<ProductView>, Problem> {
    let id = product_record(state.fixed().await?.business, &sku);
    let product = state.shop.ask(move |shop| SharedRecord::read(shop, DocumentId::catalogue(id), id)).await?;
    if !product.exists() {
        return Err(Problem::not_found("product", &sku));
    }
    Ok(Json(view(id, &product)))
}

/// Gives a product exactly these fields, whether or not it is there.
#[utoipa::path(put, path = "/api/products/{sku}", tag = "products", params(("sku" = String, Path)),
    request_body = ProductBody, responses(Changes))]
pub(super) async fn replace(
    State(state): State<ApiState>,
    caller: Caller,
    Path(sku): Path<String>,
    Body(body): Body<ProductBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let fields = ProductFields {
        name: Edit::Set(body.name),
        price_minor: given(body.price_minor),
        tax_rate_bp: given(body.tax_rate_bp),
        category: given(body.category),
        active: given(body.active),
    };
    let planned = operations::replace_product(&state.shop, &sku, &fields).await?;
    let planned = told(&state, planned, Some(&sku), Change::Corrected).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// Corrects fields of a product.
#[utoipa::path(patch, path = "/api/products/{sku}", tag = "products", params(("sku" = String, Path)),
    request_body = ProductPatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Path(sku): Path<String>,
    Body(body): Body<ProductPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let fields = ProductFields {
        name: body.name,
        price_minor: body.price_minor,
        tax_rate_bp: body.tax_rate_bp,
        category: body.category,
        active: body.active,
    };
    let planned = operations::edit_product(&state.shop, &sku, &fields).await?;
    let planned = told(&state, planned, Some(&sku), Change::Corrected).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// Takes a product out of the catalogue. What was sold of it stays sold.
#[utoipa::path(delete, path = "/api/products/{sku}", tag = "products", params(("sku" = String, Path)),
    responses(Changes))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(sku): Path<String>,
) -> Result<Response, Problem> {
    let planned = operations::delete_product(&state.shop, &sku).await?;
    let planned = told(&state, planned, Some(&sku), Change::Deleted).await?;
    record(&state, &caller, None, planned, Answer::Changed).await
}

/// With what the shop's server is told: there a product is called by its SKU.
async fn told(state: &ApiState, planned: Planned, sku: Option<&str>, change: Change) -> Result<Planned, Problem> {
    let path = match sku {
        Some(sku) => format!("/api/products/{}", encoded(sku)),
        None => "/api/products".to_owned(),
    };
    Ok(state.queue.tell_server(planned, "product", path, change, None).await?)
}

fn view(id: RecordId, product: &SharedRecord) -> ProductView {
    ProductView {
        id: id.to_string(),
        sku: product.text("sku").unwrap_or_default(),
        name: product.text("name"),
        price_minor: product.int("price_minor"),
        tax_rate_bp: product.int("tax_rate_bp"),
        category: product.text("category"),
        active: product.bool("active").unwrap_or(true),
        conflicts: conflicts_json(product),
    }
}
