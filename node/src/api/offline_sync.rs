//! Sending now, for those who ask: the carrier sends to the shop's server, a till to its relay.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use crdt_model::ids::RecordId;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::body::{Body, Query};
use super::caller::Caller;
use super::offline::{Op, find};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;
use crate::queue::rules::relay_is_connected;
use crate::queue::{QueueStatus, SyncSummary};

/// A sync of a till with its relay that is under way, for others to join.
#[derive(Debug, Clone, Default)]
pub(super) struct SyncTurn(Arc<Mutex<Option<Joined>>>);

type Joined = Shared<BoxFuture<'static, Result<SyncSummary, Problem>>>;

/// How long a till waits for its relay, if nobody said.
const WAIT_MS_DEFAULT: u64 = 10_000;
/// How long a till looks for a relay that is not connected.
const LOOK_MS: u64 = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// No fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncBody {}

/// What came of sending.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SyncView {
    /// Operations that are now where they should be.
    success: u64,
    /// Operations that are not.
    failed: u64,
    /// Operations that a person has to decide about.
    conflict: u64,
    /// All that were to be sent.
    total: u64,
    #[serde(rename = "durationMs")]
    duration_ms: u64,
}

/// Which failed operations to try again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryOperations)]
pub(super) struct RetryBody {
    /// One of them, by its `id`, `queueId` or `operation_id`; all if not given.
    id: Option<String>,
}

/// What is tried again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetryView {
    success: bool,
    /// How many operations.
    retried: u64,
}

/// Sends everything that waits, now, and answers what came of it. A call during another one joins it.
#[utoipa::path(post, path = "/api/offline/sync", tag = "offline", request_body = SyncBody,
    params(("wait" = Option<u64>, Query, maximum = 30000, description = "On a till: how long to wait for the relay, in milliseconds; 10000 if not given, at most 30000")),
    responses((status = 200, body = SyncView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn sync(
    State(state): State<ApiState>,
    Query(waiting): Query<SyncQuery>,
    Body(SyncBody {}): Body<SyncBody>,
) -> Result<Json<SyncView>, Problem> {
    let wait = waiting.wait()?;
    if let Some(carrier) = state.desk.carrier() {
        state.node.sync_now().await.or_else(|error| match error {
            // A carrier without a network of the shop still reaches the server.
            super::control::ControlError::Unavailable(_) => Ok(()),
            error @ super::control::ControlError::NotAnOwner(_) => Err(error),
        })?;
        let summary = carrier.sync(None).await.ok_or_else(carrier_gone)?;
        return Ok(Json(view(summary)));
    }
    let joined = join(&state, wait);
    let summary = joined.await?;
    Ok(Json(view(summary)))
}

/// Sends one operation now.
#[utoipa::path(post, path = "/api/offline/sync/{id}", tag = "offline", request_body = SyncBody,
    params(("id" = String, Path, description = "`id`, `queueId` or `operation_id`"),
        ("wait" = Option<u64>, Query, maximum = 30000, description = "On a till: how long to wait for the relay, in milliseconds")),
    responses((status = 200, body = SyncView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn sync_one(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(waiting): Query<SyncQuery>,
    Body(SyncBody {}): Body<SyncBody>,
) -> Result<Json<SyncView>, Problem> {
    let wait = waiting.wait()?;
    let found = find(&state, &caller, &id).await?;
    if let Some(carrier) = state.desk.carrier() {
        let summary = carrier.sync(Some(found.id)).await.ok_or_else(carrier_gone)?;
        return Ok(Json(view(summary)));
    }
    let (begun, before) = (Instant::now(), found.status);
    state.node.sync_now().await?;
    let last = until(&state, wait, begun, || async {
        let now = find(&state, &caller, &id).await?.status;
        Ok((now, !matches!(now, QueueStatus::Pending | QueueStatus::Syncing)))
    });
    let last = last.await?;
    let mut summary = SyncSummary { duration: begun.elapsed(), ..SyncSummary::default() };
    if matches!(before, QueueStatus::Pending | QueueStatus::Syncing) {
        summary.total = 1;
        match last {
            QueueStatus::Synced => summary.success = 1,
            QueueStatus::Conflict => summary.conflict = 1,
            QueueStatus::Pending | QueueStatus::Syncing | QueueStatus::Failed => summary.failed = 1,
        }
    }
    Ok(Json(view(summary)))
}

/// Tries failed operations again: one, or all.
#[utoipa::path(post, path = "/api/offline/retry", tag = "offline", request_body = RetryBody,
    responses((status = 200, body = RetryView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn retry(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<RetryBody>,
) -> Result<Json<RetryView>, Problem> {
    let only: Option<RecordId> = match &body.id {
        Some(id) => Some(find(&state, &caller, id).await.map(|Op { id, .. }| id)?),
        None => None,
    };
    if !state.desk.is_engaged().await? {
        return Ok(Json(RetryView { success: true, retried: 0 }));
    }
    let retried = state.desk.retry(only).await?;
    Ok(Json(RetryView { success: true, retried }))
}

/// How long to wait.
#[derive(Debug, Deserialize)]
pub(super) struct SyncQuery {
    wait: Option<u64>,
}

impl SyncQuery {
    fn wait(&self) -> Result<Duration, Problem> {
        let wait = self.wait.unwrap_or(WAIT_MS_DEFAULT);
        if wait > super::caller::WAIT_MS_MAX {
            let detail = format!("wait is at most {} milliseconds", super::caller::WAIT_MS_MAX);
            return Err(Problem::at(Code::BadParameter, "wait", detail));
        }
        Ok(Duration::from_millis(wait))
    }
}

fn carrier_gone() -> Problem {
    Problem::new(Code::NotReady, "the carrier has stopped: see the node's log, and start it again")
}

fn view(summary: SyncSummary) -> SyncView {
    SyncView {
        success: summary.success,
        failed: summary.failed,
        conflict: summary.conflict,
        total: summary.total,
        duration_ms: u64::try_from(summary.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Joins the sync that is under way, or begins one.
fn join(state: &ApiState, wait: Duration) -> Joined {
    let mut turn = state.syncing.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(joined) = turn.as_ref().filter(|joined| joined.peek().is_none()) {
        return joined.clone();
    }
    // Whoever began it may go; the others still wait for it.
    let own = state.clone();
    let task = tokio::spawn(async move { sync_with_relay(&own, wait).await });
    let joined = async move {
        task.await.unwrap_or_else(|error| Err(Problem::new(Code::NotReady, format!("the sync broke off: {error}"))))
    };
    let joined = joined.boxed().shared();
    *turn = Some(joined.clone());
    joined
}

/// How many wait, failed and conflict.
async fn counts(state: &ApiState) -> Result<(u64, u64, u64), Problem> {
    if state.desk.is_engaged().await? {
        let counters = state.desk.counters().await?;
        let waiting = counters.of(QueueStatus::Pending) + counters.of(QueueStatus::Syncing);
        return Ok((waiting, counters.of(QueueStatus::Failed), counters.of(QueueStatus::Conflict)));
    }
    let status = state.shop.ask(|shop| shop.status()).await?;
    Ok((status.pending, 0, 0))
}

async fn sync_with_relay(state: &ApiState, wait: Duration) -> Result<SyncSummary, Problem> {
    let begun = Instant::now();
    let before = counts(state).await?;
    state.node.sync_now().await?;
    let after = until(state, wait, begun, || async {
        let now = counts(state).await?;
        Ok((now, now.0 == 0))
    });
    let (waiting, failed, conflict) = after.await?;
    let (failed, conflict) = (failed.saturating_sub(before.1), conflict.saturating_sub(before.2));
    // What was recorded meanwhile is not counted.
    let failed = (failed + waiting.min(before.0)).min(before.0);
    let conflict = conflict.min(before.0 - failed);
    Ok(SyncSummary {
        success: before.0 - failed - conflict,
        failed,
        conflict,
        total: before.0,
        duration: begun.elapsed(),
    })
}

/// Looks until it is done, time is up, or no relay is there.
async fn until<T, F: Future<Output = Result<(T, bool), Problem>>>(
    state: &ApiState,
    wait: Duration,
    begun: Instant,
    mut look: impl FnMut() -> F,
) -> Result<T, Problem> {
    loop {
        let (seen, done) = look().await?;
        let connected = state.shop.ask(relay_is_connected).await?;
        let patience = if connected { wait } else { wait.min(Duration::from_millis(LOOK_MS)) };
        if done || begun.elapsed() >= patience {
            return Ok(seen);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
