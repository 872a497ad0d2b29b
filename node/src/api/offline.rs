//! How far operations have come: to a relay, and to the shop's own server where there is one.

use axum::Json;
use axum::extract::{Path, State};
use crdt_model::ids::DeviceId;
use crdt_model::record::{DeliveryOutcome, ErrorClass, Fact, Strategy, UpstreamConflict};
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::caller::Caller;
use super::fact_json::given_json;
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem, ProblemDocument, body_id};
use super::state::ApiState;
use super::values::{recorded_at, rfc3339};
use crate::queue::{Destination, Filter, QueueStatus, Shown, attempts};

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

/// How far operations have come: this device's, or on a relay everybody's. Takes the same time
/// however many there are.
#[utoipa::path(get, path = "/api/offline/status", tag = "offline", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(state): State<ApiState>) -> Result<Json<StatusView>, Problem> {
    let now = state.queue.status().await?;
    Ok(Json(StatusView {
        pending: now.of(QueueStatus::Pending),
        syncing: now.of(QueueStatus::Syncing),
        synced: now.of(QueueStatus::Synced),
        conflicts: now.of(QueueStatus::Conflict),
        failed: now.of(QueueStatus::Failed),
        total: now.total(),
        last_sync: now.last_sync.map(rfc3339),
        relay_pending: now.relay_pending,
        destination: match now.destination {
            Destination::Relay => "relay",
            Destination::Upstream => "upstream",
        },
        schedule: ScheduleView {
            waits_for: now.schedule.waits_for,
            until: now.schedule.until_ms.map(|ms| rfc3339(Timestamp(ms))),
            detail: now.schedule.detail,
            calling: now.schedule.calling,
            held: now.schedule.held,
        },
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
    let listing = state.queue.operations(&filter, limit, page.cursor()).await?.ok_or_else(bad_cursor)?;
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
    let history = state.queue.history(caller.instance(), &id).await?;
    let business = state.fixed().await?.business.to_string();
    let operation = queue_view(&history.operation, &business).ok_or_else(|| Problem::not_found("operation", &id))?;
    let attempts = history.attempts.into_iter().map(attempt_view).collect();
    Ok(Json(HistoryView { operation, result: history.result.word(), attempts }))
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
fn queue_view(shown: &Shown, business: &str) -> Option<OperationView> {
    let (row, recorded) = (&shown.row, shown.row.recorded.as_ref()?);
    let status = shown.status?;
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
