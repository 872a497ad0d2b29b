//! The documents behind the records: pages rendered from journals, and shared documents.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use crdt_model::document::{DocumentId, field_key};
use crdt_model::entry::{Entry, PageLabel, Place};
use crdt_model::page::{self, PageId};
use crdt_model::shop::{PageSpan, Shop};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::fact_json::fact_json;
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem};
use super::state::ApiState;
use super::values::field_json;
use crate::queue::kind_word;
use crate::shop_handle::ReadError;
use crate::storage::ReadLimits;

/// Where a document's heads are told.
const HEADS: HeaderName = HeaderName::from_static("x-automerge-heads");

/// In which form.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Form {
    /// `json` for the facts or fields; an Automerge save if not given.
    #[serde(rename = "as")]
    #[param(pattern = "^json$")]
    form: Option<String>,
}

/// A document in the list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentView {
    /// Such as `catalogue-17`, or `page-`, a journal and a number.
    id: String,
    /// `page` or `shared`.
    kind: &'static str,
    /// For a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<u32>,
    /// For a shared document: how many fields have different values at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts: Option<usize>,
}

/// What a document holds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecodedView {
    #[serde(flatten)]
    document: DocumentView,
    /// The hashes of the latest changes, the same wherever the same entries are.
    heads: Vec<String>,
    /// A page's facts, in order.
    #[serde(rename = "content", skip_serializing_if = "Option::is_none")]
    page: Option<Vec<FactView>>,
    /// A shared document's fields, by record.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<BTreeMap<String, BTreeMap<String, serde_json::Value>>>,
    /// The fields with different values at the same time, by `record/field`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    conflicting: BTreeMap<String, Vec<serde_json::Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FactView {
    id: String,
    seq: u64,
    index: u32,
    kind: &'static str,
    #[schema(value_type = Object)]
    fact: serde_json::Value,
}

/// Lists documents: shared ones first, then pages, each in the order of their ids.
#[utoipa::path(get, path = "/api/documents", tag = "documents", params(Page),
    responses((status = 200, body = Listed<DocumentView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<DocumentView>>, Problem> {
    let limit = page.limit()?;
    let (shared_after, page_after) = match page.cursor() {
        None => (None, None),
        Some(cursor) => match (cursor.parse::<DocumentId>(), cursor.parse::<PageId>()) {
            (Ok(shared), _) => (Some(shared), None),
            (_, Ok(page)) => (None, Some(page)),
            (Err(_), Err(_)) => return Err(bad_cursor()),
        },
    };
    let found = state
        .shop
        .ask(move |shop| {
            let shared = shop
                .documents()
                .filter(|(id, _)| page_after.is_none() && shared_after.is_none_or(|after| *id > after))
                .map(|(id, document)| shared_view(id, document.conflict_count()));
            let pages = shop
                .pages()
                .map(|(journal, ordinal, span)| (PageId { journal, ordinal }, span))
                .filter(|(id, _)| page_after.is_none_or(|after| *id > after))
                .map(|(id, span)| page_view(id, span));
            shared.chain(pages).take(limit + 1).collect::<Vec<_>>()
        })
        .await?;
    Ok(Json(Listed::of(found, limit, |document| document.id.clone())))
}

/// One document: an Automerge save, or what it holds.
#[utoipa::path(get, path = "/api/documents/{id}", tag = "documents", params(("id" = String, Path), Form),
    responses(
        (status = 200, content((DecodedView = "application/json"), (Vec<u8> = "application/octet-stream")),
            headers(("x-automerge-heads" = String, description = "Hashes of the latest changes, comma-separated")))))]
pub(super) async fn one(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(form): Query<Form>,
) -> Result<Response, Problem> {
    let json = match form.form.as_deref() {
        None => false,
        Some("json") => true,
        Some(_) => return Err(Problem::at(Code::BadParameter, "as", "as must be json, or left out")),
    };
    if let Ok(document) = id.parse::<DocumentId>() {
        return shared(&state, document, json).await;
    }
    let Ok(page) = id.parse::<PageId>() else { return Err(Problem::not_found("document", &id)) };
    rendered(&state, page, json).await
}

async fn shared(state: &ApiState, id: DocumentId, json: bool) -> Result<Response, Problem> {
    let missing = || Problem::not_found("document", &id.to_string());
    if json {
        let decoded = state.shop.ask(move |shop| decode_shared(shop, id)).await?;
        return decoded.map(|decoded| Json(decoded).into_response()).ok_or_else(missing);
    }
    let read = move |shop: &Shop| shop.document(id).map(|document| (document.save(), document.heads()));
    let (bytes, heads) = state.shop.ask(read).await?.ok_or_else(missing)?;
    Ok(save(bytes, &heads))
}

fn decode_shared(shop: &Shop, id: DocumentId) -> Option<DecodedView> {
    let document = shop.document(id)?;
    let records = document.records().map(|record| {
        let fields = document.record(record);
        let fields = fields.iter().map(|(field, value)| (field.clone(), field_json(value))).collect();
        (record.to_string(), fields)
    });
    let conflicting = document.conflicts().into_iter().map(|(record, field)| {
        let values = document.values(record, &field).iter().map(|valued| field_json(&valued.value)).collect();
        (field_key(record, &field), values)
    });
    Some(DecodedView {
        heads: hex(&document.heads()),
        page: None,
        records: Some(records.collect()),
        conflicting: conflicting.collect(),
        document: shared_view(id, document.conflict_count()),
    })
}

async fn rendered(state: &ApiState, id: PageId, json: bool) -> Result<Response, Problem> {
    let span = state.shop.ask(move |shop| shop.page(id.journal, id.ordinal).copied()).await?;
    let span = span.ok_or_else(|| Problem::not_found("document", &id.to_string()))?;
    let shop = state.shop.clone();
    let business = state.fixed().await?.business;
    // Rendering a full page takes long enough to hold up other requests.
    let work = tokio::task::spawn_blocking(move || {
        let unreadable = |error: &dyn std::fmt::Display| Problem::new(Code::Unreadable, error.to_string());
        let entries = page_entries(&shop, id, &span)?;
        let borrowed: Vec<_> = entries.iter().map(|(place, entry)| (*place, entry)).collect();
        let label = PageLabel { ordinal: id.ordinal, day: span.day };
        let page = page::render(&borrowed, id.journal, label).map_err(|error| unreadable(&error))?;
        if !json {
            return Ok(save(page.bytes, &page.heads));
        }
        let facts = page::read(&page.bytes).map_err(|error| unreadable(&error))?;
        let facts = facts.into_iter().map(|found| FactView {
            id: found.fact.record_id(business, id.journal, found.seq, found.index).to_string(),
            seq: found.seq,
            index: found.index,
            kind: kind_word(found.fact.kind()),
            fact: fact_json(&found.fact),
        });
        let decoded = DecodedView {
            document: page_view(id, &span),
            heads: hex(&page.heads),
            page: Some(facts.collect()),
            records: None,
            conflicting: BTreeMap::new(),
        };
        Ok::<_, Problem>(Json(decoded).into_response())
    });
    work.await.map_err(|error| Problem::new(Code::Unreadable, error.to_string()))?
}

fn page_entries(
    shop: &crate::shop_handle::ShopHandle,
    id: PageId,
    span: &PageSpan,
) -> Result<Vec<(Place, Entry)>, ReadError> {
    let mut entries = Vec::new();
    let mut damaged = None;
    let end = shop.reader().entries(id.journal, span.first..=span.last, ReadLimits::NONE, &mut |seq, bytes| {
        match Entry::from_bytes(bytes) {
            Ok(entry) if entry.page.ordinal == id.ordinal => {
                entries.push((Place { journal: id.journal, seq }, entry));
            }
            Ok(_) => {}
            Err(error) => {
                damaged = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    tracing::trace!(page = %id, ?end, count = entries.len(), "read a page's entries");
    damaged.map_or(Ok(entries), |error| Err(error.into()))
}

fn save(bytes: Vec<u8>, heads: &[[u8; 32]]) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response();
    if let Ok(heads) = HeaderValue::from_str(&hex(heads).join(",")) {
        response.headers_mut().insert(HEADS, heads);
    }
    response
}

fn hex(heads: &[[u8; 32]]) -> Vec<String> {
    heads.iter().map(|head| data_encoding::HEXLOWER.encode(head)).collect()
}

fn shared_view(id: DocumentId, conflicts: usize) -> DocumentView {
    DocumentView {
        id: id.to_string(),
        kind: "shared",
        journal: None,
        day: None,
        facts: None,
        conflicts: Some(conflicts),
    }
}

fn page_view(id: PageId, span: &PageSpan) -> DocumentView {
    DocumentView {
        id: id.to_string(),
        kind: "page",
        journal: Some(id.journal.to_string()),
        day: Some(span.day.to_string()),
        facts: Some(span.facts),
        conflicts: None,
    }
}
