//! Sending now, for those who ask: the carrier sends to the shop's server, a till to its relay.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Body, Query};
use super::caller::Caller;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;
use crate::queue::SyncSummary;

/// How long a till waits for its relay, if nobody said.
const WAIT_MS_DEFAULT: u64 = 10_000;

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
    Ok(Json(view(state.queue.sync(waiting.wait()?).await?)))
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
    Ok(Json(view(state.queue.sync_one(caller.instance(), &id, wait).await?)))
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
    let only = match &body.id {
        Some(id) => Some(state.queue.find(caller.instance(), id).await?.id),
        None => None,
    };
    Ok(Json(RetryView { success: true, retried: state.queue.retry(only).await? }))
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

fn view(summary: SyncSummary) -> SyncView {
    SyncView {
        success: summary.success,
        failed: summary.failed,
        conflict: summary.conflict,
        total: summary.total,
        duration_ms: u64::try_from(summary.duration.as_millis()).unwrap_or(u64::MAX),
    }
}
