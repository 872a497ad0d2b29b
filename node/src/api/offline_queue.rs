//! Operations of the app's own, for the shop's server; and cleaning up after those that are done.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use crdt_model::record::{CUSTOM_BODY_BYTES_MAX, Custom, Strategy};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Creates, answer};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;
use crate::operations::Planned;
use crate::queue::QueueError;

/// An operation to be queued for the shop's server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueBody {
    /// The client's own id. Later operations may use it wherever the server's id will be: in the
    /// path, and in fields whose names end in `id`.
    operation_id: Option<String>,
    #[serde(rename = "businessId", alias = "business_id")]
    business_id: Option<String>,
    user_id: Option<String>,
    /// sale, expense, record, payment, stock_adjustment, or a word of the app's own.
    operation_type: String,
    /// The path at the server.
    endpoint: String,
    /// POST, PUT, PATCH or DELETE.
    method: String,
    /// The body; none for most DELETEs.
    #[serde(default)]
    request_body: serde_json::Value,
    /// The version that the client last saw: what a merge starts from.
    #[schema(value_type = serde_json::Value, required = false)]
    base: Option<serde_json::Value>,
    /// The server's tag (ETag) of that version.
    base_etag: Option<String>,
    /// 0 goes first, 9 last; if not given, payments 0, sales 1, the rest 2.
    priority: Option<u8>,
    /// client_wins, server_wins, merge or manual; the business's choice if not given.
    resolution_strategy: Option<String>,
}

named!(QueueBody);

/// How old.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CleanupQuery {
    /// Only what was recorded more than so many days ago; 7 if not given.
    #[serde(rename = "olderThanDays")]
    #[param(maximum = 36500)]
    older_than_days: Option<u32>,
}

/// What was cleaned up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CleanupView {
    success: bool,
    /// How many rows of the queue went. The journals keep everything.
    deleted: u64,
    #[serde(rename = "olderThanDays")]
    older_than_days: u32,
}

/// Queues an operation for the shop's server.
#[utoipa::path(post, path = "/api/offline/queue", tag = "offline", request_body = QueueBody, responses(Creates))]
pub(super) async fn queue(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<QueueBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let strategy = body.resolution_strategy.as_deref().map(|word| {
        Strategy::parse(word).ok_or_else(|| {
            let detail = "resolution_strategy must be client_wins, server_wins, merge or manual";
            Problem::at(Code::InvalidField, "resolution_strategy", detail)
        })
    });
    let given = body.request_body.to_string();
    if given.len() > CUSTOM_BODY_BYTES_MAX {
        let detail = format!("request_body is larger than {CUSTOM_BODY_BYTES_MAX} bytes: send less at once");
        return Err(Problem::at(Code::InvalidField, "request_body", detail));
    }
    let operation = Custom {
        source: source.clone(),
        operation_type: body.operation_type,
        method: body.method,
        path: body.endpoint,
        body: given,
        base: body.base.map(|base| base.to_string()),
        base_tag: body.base_etag,
        priority: body.priority,
        network_type: caller.network.clone(),
        strategy: strategy.transpose()?,
    };
    let acted = state.queue.add(operation, body.user_id).await.map_err(as_named_here)?;
    answer(&state, &caller, source.as_ref(), acted, Planned::default(), Answer::Created).await
}

/// Takes away rows of the queue that are done. What is not synced always stays.
#[utoipa::path(delete, path = "/api/offline/cleanup", tag = "offline", params(CleanupQuery),
    responses((status = 200, body = CleanupView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn cleanup(
    State(state): State<ApiState>,
    Query(query): Query<CleanupQuery>,
) -> Result<Json<CleanupView>, Problem> {
    let days = query.older_than_days.unwrap_or(DAYS_DEFAULT);
    if days > DAYS_MAX {
        let detail = format!("olderThanDays is 0 to {DAYS_MAX}");
        return Err(Problem::at(Code::BadParameter, "olderThanDays", detail));
    }
    let deleted = state.queue.clear_synced(Duration::from_secs(u64::from(days) * DAY_SECONDS)).await?;
    Ok(Json(CleanupView { success: true, deleted, older_than_days: days }))
}

/// The fact's own words for its fields, in the words of this call.
fn as_named_here(error: QueueError) -> Problem {
    let problem = Problem::from(error);
    let names = [("type", "operation_type"), ("path", "endpoint"), ("body", "request_body"), ("base_tag", "base_etag")];
    let field = problem.field.clone().unwrap_or_default();
    match names.iter().find(|(own, _)| *own == field) {
        Some((own, here)) => {
            Problem { detail: problem.detail.replacen(own, here, 1), field: Some((*here).to_owned()), ..problem }
        }
        None => problem,
    }
}

const DAYS_DEFAULT: u32 = 7;
const DAYS_MAX: u32 = 36_500;
const DAY_SECONDS: u64 = 24 * 60 * 60;
