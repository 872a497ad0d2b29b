//! How far operations have come: to a relay, and to the shop's own server where there is one.

use axum::Json;
use axum::extract::{Path, State};
use crdt_model::entry::Place;
use crdt_model::ids::{DeviceId, JournalId, RecordId};
use crdt_model::record::{DeliveryOutcome, ErrorClass, Fact, SOURCE_BYTES_MAX, Source, Strategy, UpstreamConflict};
use crdt_model::shop::{Shop, Status};
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::caller::Caller;
use super::fact_json::{given_json, kind_word};
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem, ProblemDocument, body_id};
use super::state::ApiState;
use super::values::{recorded_at, rfc3339};
use crate::queue::rules::relay_is_connected;
use crate::queue::{Filter, QueueStatus, Shown, attempts, describe};
use crate::shop_handle::ReadError;

/// How many operations there are in each state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusView {
    /// They wait.
    pending: u64,
    /// They are being sent; without a server of the shop's own: not at a relay yet, and one is connected.
    syncing: u64,
    /// They are where they should be.
    synced: u64,
    /// Conflicts that wait for a person.
    conflicts: u64,
    /// Not tried again by itself; without a server of the shop's own: kept, but not applicable.
    failed: u64,
    /// All of them.
    total: u64,
    /// When one was last synced.
    #[serde(rename = "lastSync")]
    last_sync: Option<String>,
    /// This device's entries of every kind that no relay has yet.
    relay_pending: u64,
    /// `relay`, or `upstream` where the shop has a server of its own.
    destination: &'static str,
    /// What is waited for.
    schedule: ScheduleView,
}

/// What is waited for, and until when.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleView {
    /// `idle`, `sending`, `relay` (there is no link to one), `carrier` (the relay sends it on),
    /// `backing_off`, `server_away`, `not_let_in`, `rate_limited`, `off_peak`, `no_wifi`,
    /// `data_budget`, `paused` or `not_carrier`.
    waits_for: &'static str,
    /// Until when, where that can be told.
    until: Option<String>,
    /// For people.
    detail: String,
    /// Calls under way.
    calling: u64,
    /// Operations behind another one of the same record, or behind a person's decision.
    held: u64,
}

/// Which operations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Statuses, with commas between: pending, syncing, synced, conflict, failed. The first two if
    /// not given.
    #[param(pattern = "^(pending|syncing|synced|conflict|failed)(,(pending|syncing|synced|conflict|failed))*$")]
    status: Option<String>,
    /// A type of operation.
    #[serde(rename = "type")]
    operation_type: Option<String>,
    /// A device's id.
    #[param(pattern = "^[0-9a-f]{64}$")]
    device: Option<String>,
}

/// An operation in the queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OperationView {
    /// Its record, the same on every device; the idempotency key at the shop's server.
    id: String,
    /// Its number in the journal of the device that recorded it.
    #[serde(rename = "queueId")]
    queue_id: u64,
    /// The journal that it is in; a restore begins a new one.
    journal: String,
    user_id: Option<String>,
    business_id: String,
    /// sale, expense, record, payment, stock_adjustment, the app's own word, or `edit`.
    operation_type: String,
    /// The client's own id, or else the record's.
    operation_id: String,
    /// The path at the server.
    endpoint: Option<String>,
    method: Option<String>,
    #[schema(value_type = serde_json::Value)]
    request_body: Option<serde_json::Value>,
    /// pending, syncing, synced, conflict or failed.
    status: &'static str,
    sync_attempts: u32,
    #[schema(value_type = serde_json::Value)]
    server_response: Option<serde_json::Value>,
    /// The server's own id.
    server_id: Option<String>,
    /// DUPLICATE, VERSION_MISMATCH, DELETED or MANUAL.
    conflict_type: Option<&'static str>,
    /// The conflict, to be decided at /api/conflicts.
    conflict_id: Option<String>,
    #[schema(value_type = serde_json::Value)]
    conflict_data: Option<serde_json::Value>,
    /// client_wins, server_wins, merge or manual, once one was applied.
    resolution_strategy: Option<&'static str>,
    last_error: Option<ErrorView>,
    /// 0 goes first.
    priority: u8,
    device_id: String,
    network_type: Option<String>,
    /// The server may have taken it twice.
    maybe_twice: bool,
    /// Not before this.
    next_attempt_at: Option<String>,
    created_at: String,
    updated_at: String,
}

/// Why the last call did not do.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorView {
    /// NETWORK, SERVER_ERROR, VALIDATION, AUTH, CONFLICT or RATE.
    class: Option<&'static str>,
    code: Option<String>,
    detail: Option<String>,
    http_status: Option<u16>,
}

/// An operation and the calls for it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryView {
    operation: OperationView,
    /// `success`, `failed`, `partial` (some of its calls did what they should, not all), or `none`.
    result: &'static str,
    /// The calls that this node made for it, the first one first; other devices' are with them.
    attempts: Vec<AttemptView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AttemptView {
    number: u32,
    at: String,
    #[serde(rename = "durationMs")]
    duration_ms: u64,
    /// success, failed, partial or cut_off.
    result: &'static str,
    http_status: Option<u16>,
    error: Option<ErrorView>,
    endpoint: String,
    bytes_sent: u64,
    bytes_received: u64,
    device_id: String,
    network_type: Option<String>,
}

/// An operation that somebody named.
pub(super) struct Op {
    pub(super) id: RecordId,
    pub(super) status: QueueStatus,
    shown: Option<Shown>,
    place: Option<Place>,
}

/// How far operations have come: this device's, or on a relay everybody's. Takes the same time
/// however many there are.
#[utoipa::path(get, path = "/api/offline/status", tag = "offline", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(state): State<ApiState>) -> Result<Json<StatusView>, Problem> {
    let (status, connected, carried) =
        state.shop.ask(|shop| (shop.status(), relay_is_connected(shop), shop.upstream_relay().is_some())).await?;
    let carrier = state.desk.carrier();
    if carrier.is_none() && !carried {
        return Ok(Json(relay_view(status, connected)));
    }
    let counters = state.desk.counters().await?;
    let explained = match carrier {
        Some(carrier) => carrier.explain().await,
        None => None,
    };
    let pending = counters.of(QueueStatus::Pending);
    let schedule = match explained {
        Some(schedule) => ScheduleView {
            waits_for: schedule.waits_for,
            until: schedule.until_ms.map(|ms| rfc3339(Timestamp(ms))),
            detail: schedule.detail,
            calling: schedule.calling,
            held: schedule.held,
        },
        None if pending == 0 => plain("idle", "nothing is due"),
        None if status.pending > 0 && !connected => plain("relay", "there is no link to the relay"),
        None => plain("carrier", "the relay has it, and sends it to the shop's server"),
    };
    Ok(Json(StatusView {
        pending,
        syncing: counters.of(QueueStatus::Syncing),
        synced: counters.of(QueueStatus::Synced),
        conflicts: counters.of(QueueStatus::Conflict),
        failed: counters.of(QueueStatus::Failed),
        total: counters.total(),
        last_sync: counters.last_sync_ms.map(|ms| rfc3339(Timestamp(ms))),
        relay_pending: status.pending,
        destination: "upstream",
        schedule,
    }))
}

/// Lists operations: those that wait, or of the statuses that are asked for. With a server of the
/// shop's own by status and the oldest first, otherwise the newest first.
#[utoipa::path(get, path = "/api/offline/pending", tag = "offline", params(Page, Which),
    responses((status = 200, body = Listed<OperationView>),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn pending(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
    Query(which): Query<Which>,
) -> Result<Json<Listed<OperationView>>, Problem> {
    let limit = page.limit()?;
    let filter = filter(&which)?;
    if !state.desk.is_engaged().await? {
        return waiting_for_relay(&state, &page, limit, &filter).await.map(Json);
    }
    let listing = state.desk.list(&filter, limit, page.cursor()).await?.ok_or_else(bad_cursor)?;
    let business = state.fixed().await?.business.to_string();
    let items = listing.items.iter().filter_map(|shown| queue_view(shown, &business)).collect();
    Ok(Json(Listed { items, next: listing.next }))
}

/// One operation, and every call that was made for it.
#[utoipa::path(get, path = "/api/offline/history/{id}", tag = "offline",
    params(("id" = String, Path, description = "`id`, `queueId` or `operation_id`")),
    responses((status = 200, body = HistoryView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn history(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<HistoryView>, Problem> {
    let found = find(&state, &caller, &id).await?;
    let business = state.fixed().await?.business.to_string();
    let operation = match (&found.shown, found.place) {
        (Some(shown), _) => queue_view(shown, &business),
        (None, Some(place)) => entry_views(&state, vec![place], found.status).await?.pop(),
        (None, None) => None,
    };
    let operation = operation.ok_or_else(|| Problem::not_found("operation", &id))?;
    let calls = attempts::of_operation(state.shop.reader().as_ref(), found.id, ATTEMPTS_MAX)
        .map_err(|error| Problem::from(ReadError::from(error)))?;
    let good = calls.iter().filter(|call| call.result == attempts::AttemptResult::Success).count();
    let result = match (calls.len(), good, found.status) {
        (0, _, QueueStatus::Synced) => "success",
        (0, _, QueueStatus::Failed | QueueStatus::Conflict) => "failed",
        (0, ..) => "none",
        (all, good, QueueStatus::Synced) if good > 0 && all > good => "partial",
        (_, good, QueueStatus::Synced) if good > 0 => "success",
        (_, 0, _) => "failed",
        (..) => "partial",
    };
    Ok(Json(HistoryView { operation, result, attempts: calls.into_iter().map(attempt_view).collect() }))
}

/// The operation that an id names: its record, its number in this device's journal, or the client's
/// own id.
pub(super) async fn find(state: &ApiState, caller: &Caller, id: &str) -> Result<Op, Problem> {
    let missing = || Problem::not_found("operation", id);
    let engaged = state.desk.is_engaged().await?;
    if engaged {
        state.desk.catch_up().await?;
    }
    let record = match (id.parse::<RecordId>(), id.parse::<u64>()) {
        (Ok(record), _) => Some(record),
        (_, Ok(seq)) => {
            let journal = state.shop.ask(Shop::own_journal).await?;
            let entry = state.shop.entry(Place { journal, seq })?.ok_or_else(missing)?;
            let body = entry.body().map_err(ReadError::from)?;
            let business = state.fixed().await?.business;
            let place = Place { journal, seq };
            Some(body.record_id(business, place, 0).unwrap_or_else(|| RecordId::from_place(journal, seq, 0)))
        }
        _ => None,
    };
    let record = match record {
        Some(record) => record,
        None => named(state, caller, id).await?,
    };
    if let Some(shown) = state.desk.one(record).await?.filter(|_| engaged) {
        let status = shown.row.status().ok_or_else(missing)?;
        return Ok(Op { id: record, status, shown: Some(shown), place: None });
    }
    let at = state.shop.ask(move |shop| {
        let at = shop.books().record(record)?;
        Some((at.place, shop.relay_holds(at.place.journal)))
    });
    let (place, held) = at.await?.ok_or_else(missing)?;
    let status = if held >= place.seq { QueueStatus::Synced } else { QueueStatus::Pending };
    Ok(Op { id: record, status, shown: None, place: Some(place) })
}

async fn named(state: &ApiState, caller: &Caller, id: &str) -> Result<RecordId, Problem> {
    let key: String = id.chars().take(SOURCE_BYTES_MAX).collect();
    let source = Source { instance: caller.instance().to_owned(), key };
    if let Some(record) = state.desk.named(&source)? {
        return Ok(record);
    }
    Ok(RecordId::from_client(state.fixed().await?.business, &source.instance, &source.key))
}

fn filter(which: &Which) -> Result<Filter, Problem> {
    let words = which.status.as_deref().unwrap_or("pending,syncing").split(',');
    let statuses = words.map(|word| {
        QueueStatus::parse(word.trim()).ok_or_else(|| {
            let detail = "status must be pending, syncing, synced, conflict or failed, with commas between";
            Problem::at(Code::BadParameter, "status", detail)
        })
    });
    let device: Option<DeviceId> = match &which.device {
        Some(device) => {
            Some(body_id("device", device).map_err(|problem| Problem { code: Code::BadParameter, ..problem })?)
        }
        None => None,
    };
    Ok(Filter { statuses: statuses.collect::<Result<_, _>>()?, operation_type: which.operation_type.clone(), device })
}

fn plain(waits_for: &'static str, detail: &str) -> ScheduleView {
    ScheduleView { waits_for, until: None, detail: detail.to_owned(), calling: 0, held: 0 }
}

fn relay_view(status: Status, connected: bool) -> StatusView {
    let (pending, syncing) = if connected { (0, status.pending) } else { (status.pending, 0) };
    let schedule = match (status.pending, connected) {
        (0, _) => plain("idle", "nothing is due"),
        (_, true) => plain("sending", "a relay is connected"),
        (_, false) => plain("relay", "there is no link to a relay"),
    };
    StatusView {
        pending,
        syncing,
        synced: status.synced,
        conflicts: status.conflicts,
        failed: status.failed,
        total: status.total,
        last_sync: status.last_sync.map(rfc3339),
        relay_pending: status.pending,
        destination: "relay",
        schedule,
    }
}

fn error_view(
    class: Option<ErrorClass>,
    code: Option<String>,
    detail: Option<String>,
    http: Option<u16>,
) -> Option<ErrorView> {
    class.is_some().then(|| ErrorView { class: class.map(ErrorClass::word), code, detail, http_status: http })
}

fn attempt_view(call: attempts::Attempt) -> AttemptView {
    AttemptView {
        number: call.number,
        at: rfc3339(call.at),
        duration_ms: call.duration_ms,
        result: call.result.word(),
        http_status: call.http_status,
        error: error_view(call.class, call.code, call.detail, call.http_status),
        endpoint: call.endpoint,
        bytes_sent: call.bytes_sent,
        bytes_received: call.bytes_received,
        device_id: call.device.to_string(),
        network_type: call.network_type,
    }
}

/// An operation as its row tells.
pub(super) fn queue_view(shown: &Shown, business: &str) -> Option<OperationView> {
    let (row, recorded) = (&shown.row, shown.row.recorded.as_ref()?);
    let status = row.status()?;
    let described = shown.described();
    let outcome = row.outcome.as_ref().map(|(_, _, outcome)| outcome);
    let tried = row.tries.error.as_ref();
    let last_error = match tried {
        Some(error) => {
            error_view(Some(error.class), Some(error.code.clone()), Some(error.detail.clone()), error.http_status)
        }
        None => outcome.and_then(|one| error_view(one.class, one.code.clone(), one.detail.clone(), one.http_status)),
    };
    let conflict = outcome.filter(|outcome| outcome.conflict.is_some());
    let server = outcome.and_then(|outcome| outcome.server.as_deref()).map(given_json);
    let network = match &shown.fact {
        Some(Fact::Custom(custom)) => custom.network_type.clone(),
        _ => None,
    };
    let updated = row.outcome.as_ref().map_or(recorded.time, |(_, key, _)| key.time);
    Some(OperationView {
        id: shown.id.to_string(),
        queue_id: recorded.place.seq,
        journal: recorded.place.journal.to_string(),
        user_id: recorded.user.clone(),
        business_id: business.to_owned(),
        operation_type: recorded.operation_type.clone(),
        operation_id: recorded.source.as_ref().map_or_else(|| shown.id.to_string(), |source| source.key.clone()),
        endpoint: described.as_ref().map(|described| described.path.clone()),
        method: described.as_ref().map(|described| described.method.clone()),
        request_body: described.map(|described| described.body),
        status: status.word(),
        sync_attempts: row.tries.attempts,
        server_response: server.clone(),
        server_id: row.server_id().map(str::to_owned),
        conflict_type: conflict.and_then(|outcome| outcome.conflict).map(UpstreamConflict::word),
        conflict_id: (status == QueueStatus::Conflict).then(|| {
            let ordinal = outcome.map_or(0, |outcome| outcome.ordinal);
            DeliveryOutcome::conflict_id(shown.id, ordinal).to_string()
        }),
        conflict_data: conflict.map(|outcome| serde_json::json!({ "server": server, "disputed": outcome.disputed })),
        resolution_strategy: outcome.and_then(|outcome| outcome.strategy).map(Strategy::word),
        last_error,
        priority: recorded.priority.unwrap_or(match recorded.operation_type.as_str() {
            "payment" => 0,
            "sale" => 1,
            _ => 2,
        }),
        device_id: recorded.device.to_string(),
        network_type: network,
        maybe_twice: outcome.is_some_and(|outcome| outcome.maybe_twice),
        next_attempt_at: (row.tries.not_before_ms > 0).then(|| rfc3339(Timestamp(row.tries.not_before_ms))),
        created_at: recorded_at(recorded.time),
        updated_at: recorded_at(updated),
    })
}

/// Without a server of the shop's own: what no relay has.
async fn waiting_for_relay(
    state: &ApiState,
    page: &Page,
    limit: usize,
    filter: &Filter,
) -> Result<Listed<OperationView>, Problem> {
    let before = page.cursor().map(|cursor| parse(cursor).ok_or_else(bad_cursor)).transpose()?;
    let own = state.fixed().await?.device;
    let waits = filter.statuses.iter().any(|status| matches!(status, QueueStatus::Pending | QueueStatus::Syncing));
    if !waits || filter.device.is_some_and(|device| device != own) {
        return Ok(Listed { items: Vec::new(), next: None });
    }
    // A type is known only once the entry is read.
    let looks = if filter.operation_type.is_some() { LOOKS_MAX } else { limit };
    let (places, connected) =
        state.shop.ask(move |shop| (waiting(shop, before, looks + 1), relay_is_connected(shop))).await?;
    let status = if connected { QueueStatus::Syncing } else { QueueStatus::Pending };
    if !filter.statuses.contains(&status) {
        return Ok(Listed { items: Vec::new(), next: None });
    }
    let Listed { items: places, next } = Listed::of(places, looks, |place| format!("{}_{}", place.journal, place.seq));
    let mut items = entry_views(state, places, status).await?;
    let Some(wanted) = &filter.operation_type else { return Ok(Listed { items, next }) };
    items.retain(|view| view.operation_type == *wanted);
    let next = if items.len() > limit {
        items.truncate(limit);
        items.last().map(|view| format!("{}_{}", view.journal, view.queue_id))
    } else {
        next
    };
    Ok(Listed { items, next })
}

async fn entry_views(state: &ApiState, places: Vec<Place>, status: QueueStatus) -> Result<Vec<OperationView>, Problem> {
    let fixed = state.fixed().await?;
    let business = fixed.business;
    let devices = state.shop.ask(|shop| {
        shop.journals()
            .map(|journal| (journal.id(), journal.info.device()))
            .collect::<std::collections::BTreeMap<_, _>>()
    });
    let devices = devices.await?;
    let (shop, own) = (state.shop.clone(), fixed.device);
    let read = tokio::task::spawn_blocking(move || {
        let mut views = Vec::with_capacity(places.len());
        for place in places {
            let Some(entry) = shop.entry(place)? else { continue };
            let body = entry.body()?;
            let first = body.facts.first();
            let record = body.record_id(business, place, 0);
            let id = record.unwrap_or_else(|| RecordId::from_place(place.journal, place.seq, 0));
            let source = first.and_then(|fact| fact.source());
            let described = first.and_then(|fact| describe(fact, id));
            let network_type = match first {
                Some(Fact::Custom(custom)) => custom.network_type.clone(),
                _ => None,
            };
            let kind = first.map_or("edit", |fact| kind_word(fact.kind())).to_owned();
            views.push(OperationView {
                id: id.to_string(),
                queue_id: place.seq,
                journal: place.journal.to_string(),
                user_id: entry.user.clone(),
                business_id: business.to_string(),
                operation_type: described.as_ref().map_or(kind, |described| described.operation_type.clone()),
                operation_id: source.map_or_else(|| id.to_string(), |source| source.key.clone()),
                endpoint: described.as_ref().map(|described| described.path.clone()),
                method: described.as_ref().map(|described| described.method.clone()),
                request_body: described.map(|described| described.body),
                status: status.word(),
                sync_attempts: 0,
                server_response: None,
                server_id: None,
                conflict_type: None,
                conflict_id: None,
                conflict_data: None,
                resolution_strategy: None,
                last_error: None,
                priority: 2,
                device_id: devices.get(&place.journal).copied().unwrap_or(own).to_string(),
                network_type,
                maybe_twice: false,
                next_attempt_at: None,
                created_at: recorded_at(entry.time),
                updated_at: recorded_at(entry.time),
            });
        }
        Ok::<_, ReadError>(views)
    });
    Ok(read.await.map_err(|error| Problem::new(Code::Unreadable, error.to_string()))??)
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

/// The most calls of one operation that are shown.
const ATTEMPTS_MAX: usize = 1_000;
const LOOKS_MAX: usize = 2_000;
