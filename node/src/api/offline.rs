//! How far this device's operations have come: here only, or at a relay.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crdt_model::entry::Place;
use crdt_model::ids::JournalId;
use crdt_model::record::Role;
use crdt_model::shop::{Shop, Status};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Body, Query};
use super::fact_json::kind_word;
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;
use super::values::{recorded_at, rfc3339};
use crate::shop_handle::ReadError;

/// How many operations there are in each state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusView {
    /// Not at a relay, and no relay is connected.
    pending: u64,
    /// Not at a relay yet, and one is connected.
    syncing: u64,
    /// At a relay.
    synced: u64,
    /// Conflicts that wait for a person.
    conflicts: u64,
    /// Kept, but not applicable.
    failed: u64,
    /// All of this device's operations.
    total: u64,
    /// When a relay was last heard.
    #[serde(rename = "lastSync")]
    last_sync: Option<String>,
}

/// An operation that no relay has yet.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PendingView {
    /// Its number in this node's queue.
    #[serde(rename = "queueId")]
    queue_id: u64,
    /// The journal that it is in; a restore begins a new one.
    journal: String,
    /// The kind of its first fact, or `edit`.
    operation_type: &'static str,
    /// The client's own id, or else the record's.
    operation_id: String,
    /// pending, or syncing while a relay is connected.
    status: &'static str,
    created_at: String,
}

/// No fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncBody {}

/// The node is looking for its peers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SyncView {
    success: bool,
    message: &'static str,
}

/// How far this device's operations have come.
#[utoipa::path(get, path = "/api/offline/status", tag = "offline", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(state): State<ApiState>) -> Result<Json<StatusView>, Problem> {
    let (status, connected) = state.shop.ask(|shop| (shop.status(), relay_is_connected(shop))).await?;
    Ok(Json(view(status, connected)))
}

/// Lists the operations that no relay has yet, the newest first.
#[utoipa::path(get, path = "/api/offline/pending", tag = "offline", params(Page),
    responses((status = 200, body = Listed<PendingView>)))]
pub(super) async fn pending(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<PendingView>>, Problem> {
    let limit = page.limit()?;
    let before = page.cursor().map(|cursor| parse(cursor).ok_or_else(bad_cursor)).transpose()?;
    let (places, connected) =
        state.shop.ask(move |shop| (waiting(shop, before, limit + 1), relay_is_connected(shop))).await?;
    let Listed { items, next } = Listed::of(places, limit, |place| format!("{}_{}", place.journal, place.seq));
    let business = state.fixed().await?.business;
    let shop = state.shop.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut views = Vec::with_capacity(items.len());
        for place in items {
            let Some(entry) = shop.entry(place)? else { continue };
            let body = entry.body()?;
            let first = body.facts.first();
            let record = body.record_id(business, place, 0);
            let named = first.and_then(|fact| fact.source()).map(|source| source.key.clone());
            views.push(PendingView {
                queue_id: place.seq,
                journal: place.journal.to_string(),
                operation_type: first.map_or("edit", |fact| kind_word(fact.kind())),
                operation_id: named.or_else(|| record.map(|id| id.to_string())).unwrap_or_default(),
                status: if connected { "syncing" } else { "pending" },
                created_at: recorded_at(entry.time),
            });
        }
        Ok::<_, ReadError>(views)
    });
    let items = read.await.map_err(|error| Problem::new(Code::Unreadable, error.to_string()))??;
    Ok(Json(Listed { items, next }))
}

/// Looks for peers and syncs with them now.
#[utoipa::path(post, path = "/api/offline/sync", tag = "offline", request_body = SyncBody,
    responses((status = 202, body = SyncView),
        (status = "5XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn sync(
    State(state): State<ApiState>,
    Body(SyncBody {}): Body<SyncBody>,
) -> Result<Response, Problem> {
    state.node.sync_now().await?;
    let view = SyncView { success: true, message: "looking for the relay and other devices" };
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

fn view(status: Status, connected: bool) -> StatusView {
    let (pending, syncing) = if connected { (0, status.pending) } else { (status.pending, 0) };
    StatusView {
        pending,
        syncing,
        synced: status.synced,
        conflicts: status.conflicts,
        failed: status.failed,
        total: status.total,
        last_sync: status.last_sync.map(rfc3339),
    }
}

fn relay_is_connected(shop: &Shop) -> bool {
    shop.peers().iter().any(|peer| {
        let relay = peer.certificate.as_ref().is_some_and(|certificate| certificate.role == Role::Relay);
        relay && !peer.links.is_empty()
    })
}

/// Own entries that no relay has: the latest epoch's first, and in each the latest first.
fn waiting(shop: &Shop, before: Option<(JournalId, u64)>, count: usize) -> Vec<Place> {
    let device = shop.device();
    let mut own: Vec<_> = shop.journals().filter(|journal| journal.info.device() == device).collect();
    own.sort_by_key(|journal| (std::cmp::Reverse(journal.info.genesis.epoch), journal.id()));
    let begun = own.iter().position(|journal| before.is_some_and(|(last, _)| journal.id() == last));
    let places = own.into_iter().skip(begun.unwrap_or_default()).flat_map(|journal| {
        let id = journal.id();
        let first = shop.relay_holds(id).max(journal.info.before_first().0).saturating_add(1);
        let last = match before {
            Some((at, seq)) if at == id => seq.saturating_sub(1).min(journal.high),
            Some(_) | None => journal.high,
        };
        (first..=last).rev().map(move |seq| Place { journal: id, seq })
    });
    places.take(count).collect()
}

fn parse(cursor: &str) -> Option<(JournalId, u64)> {
    let (journal, seq) = cursor.split_once('_')?;
    Some((journal.parse().ok()?, seq.parse().ok()?))
}
