//! Every call of the shop's own server that this node made, and whether the list is what it was.

use axum::Json;
use axum::extract::State;
use crdt_model::shop::Input;
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem, ProblemDocument, body_id};
use super::state::ApiState;
use super::values::{moments, rfc3339};
use crate::queue::attempts::{AttemptResult, CallFilter, Linked, calls_after};
use crate::queue::audit::audit;
use crate::shop_handle::ReadError;

/// Which calls.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// How they ended, with commas between: success, failed, partial, cut_off.
    #[param(pattern = "^(success|failed|partial|cut_off)(,(success|failed|partial|cut_off))*$")]
    status: Option<String>,
    /// For operations of this type.
    #[serde(rename = "type")]
    operation_type: Option<String>,
    /// For operations that this device recorded.
    #[param(pattern = "^[0-9a-f]{64}$")]
    device: Option<String>,
    /// Over this kind of network, as the app called it.
    network: Option<String>,
    /// That began at this time or later: 2026-03-01T08:00:00Z, or one of the shop's days.
    #[param(
        pattern = "^[1-9]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))(T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?Z)?$"
    )]
    from: Option<String>,
    /// That began at this time or earlier; a day to its end.
    #[param(
        pattern = "^[1-9]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))(T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?Z)?$"
    )]
    to: Option<String>,
}

/// One call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallView {
    /// Its number in the chain, from 1.
    number: u64,
    /// The operation.
    operation: String,
    /// The operation's type.
    operation_type: Option<String>,
    /// Which call for it.
    attempt: u32,
    at: String,
    #[serde(rename = "durationMs")]
    duration_ms: u64,
    /// success, failed, partial or cut_off.
    status: &'static str,
    http_status: Option<u16>,
    error_class: Option<&'static str>,
    error_code: Option<String>,
    error: Option<String>,
    endpoint: String,
    bytes_sent: u64,
    bytes_received: u64,
    device: String,
    network_type: Option<String>,
    /// Its hash, over everything before it, in hexadecimal digits.
    hash: String,
}

/// What can be said of the chain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditView {
    /// Nothing was found that is not what it was.
    ok: bool,
    /// How many calls there are.
    calls: u64,
    /// The first call that is not what it was, or is missing.
    broken_at: Option<u64>,
    /// Up to which call the newest anchor in this device's journal reaches.
    anchored_through: u64,
    /// Up to which call the newest anchor reaches that another device has signed for.
    proven_through: u64,
    /// The devices that have.
    held_by: Vec<String>,
    /// For people.
    message: String,
}

/// Lists this node's calls of the shop's own server, the first one first. A page may hold fewer than
/// `limit` and still have a `next`.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(Page, Which),
    responses((status = 200, body = Listed<CallView>),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn calls(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
    Query(which): Query<Which>,
) -> Result<Json<Listed<CallView>>, Problem> {
    let limit = page.limit()?;
    let filter = filter(&which, state.fixed().await?.utc_offset_minutes)?;
    let after: u64 = page.cursor().map_or(Ok(0), |cursor| cursor.parse().map_err(|_| bad_cursor()))?;
    let found = calls_after(state.shop.reader().as_ref(), after, &filter, limit).map_err(ReadError::from)?;
    let items = found.calls.into_iter().map(view).collect();
    Ok(Json(Listed { items, next: found.next.map(|number| number.to_string()) }))
}

fn filter(which: &Which, utc_offset_minutes: i32) -> Result<CallFilter, Problem> {
    let words = which.status.iter().flat_map(|words| words.split(','));
    let results = words.map(|word| {
        AttemptResult::parse(word.trim()).ok_or_else(|| {
            let detail = "status must be success, failed, partial or cut_off, with commas between";
            Problem::at(Code::BadParameter, "status", detail)
        })
    });
    let device = which
        .device
        .as_deref()
        .map(|device| body_id("device", device).map_err(|problem| Problem { code: Code::BadParameter, ..problem }));
    let moment = |name: &'static str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => moments(text, utc_offset_minutes).map(Some).ok_or_else(|| {
            let detail = format!("{name} must be a time such as 2026-03-01T08:00:00Z, or a date such as 2026-03-01");
            Problem::at(Code::BadParameter, name, detail)
        }),
    };
    let (from, to) = (moment("from", &which.from)?, moment("to", &which.to)?);
    let first = from.map_or(Timestamp(0), |(first, _)| first);
    let last = to.map_or(Timestamp(u64::MAX), |(_, last)| last);
    Ok(CallFilter {
        results: results.collect::<Result<_, _>>()?,
        operation_type: which.operation_type.clone(),
        device: device.transpose()?,
        network_type: which.network.clone(),
        between: Some((first, last)),
    })
}

/// Checks that the calls are what they were, and says up to which one another device can prove it.
#[utoipa::path(get, path = "/api/audit/verify", tag = "audit", responses((status = 200, body = AuditView)))]
pub(super) async fn verify(State(state): State<ApiState>) -> Result<Json<AuditView>, Problem> {
    // The others' signed words come a little later, for who asks again.
    state.shop.input(Input::AskHoldings).await?;
    let audited = audit(&state.shop).await?;
    let message = match (audited.broken_at, audited.proven_through) {
        (Some(at), _) => format!("call {at} is not what it was, or is missing: somebody has changed this node's file"),
        (None, 0) => format!("{} calls form a whole chain, but no other device holds an anchor yet", audited.calls),
        (None, proven) => format!(
            "calls 1 to {proven} of {} are what they were when their anchor was made, which {} other devices hold; \
             the rest forms a whole chain",
            audited.calls,
            audited.held_by.len()
        ),
    };
    Ok(Json(AuditView {
        ok: audited.broken_at.is_none(),
        calls: audited.calls,
        broken_at: audited.broken_at,
        anchored_through: audited.anchored_through,
        proven_through: audited.proven_through,
        held_by: audited.held_by.iter().map(ToString::to_string).collect(),
        message,
    }))
}

fn view(linked: Linked) -> CallView {
    let hash = data_encoding::HEXLOWER.encode(&linked.hash());
    let Linked { number, attempt, .. } = linked;
    CallView {
        number,
        operation: attempt.operation.to_string(),
        operation_type: attempt.operation_type,
        attempt: attempt.number,
        at: rfc3339(attempt.at),
        duration_ms: attempt.duration_ms,
        status: attempt.result.word(),
        http_status: attempt.http_status,
        error_class: attempt.class.map(crdt_model::record::ErrorClass::word),
        error_code: attempt.code,
        error: attempt.detail,
        endpoint: attempt.endpoint,
        bytes_sent: attempt.bytes_sent,
        bytes_received: attempt.bytes_received,
        device: attempt.device.to_string(),
        network_type: attempt.network_type,
        hash,
    }
}
