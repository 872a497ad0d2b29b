//! Every call of the shop's own server that this node made, and whether the list is what it was.

use axum::Json;
use axum::extract::State;
use crdt_model::shop::Input;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Query;
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Problem, ProblemDocument};
use super::state::ApiState;
use super::values::rfc3339;
use crate::queue::attempts::{Linked, links_after};
use crate::queue::audit::audit;
use crate::shop_handle::ReadError;

/// One call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallView {
    /// Its number in the chain, from 1.
    number: u64,
    /// The operation.
    operation: String,
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

/// Lists this node's calls of the shop's own server, the first one first.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(Page),
    responses((status = 200, body = Listed<CallView>),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn calls(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<CallView>>, Problem> {
    let limit = page.limit()?;
    let after: u64 = page.cursor().map_or(Ok(0), |cursor| cursor.parse().map_err(|_| bad_cursor()))?;
    let links = links_after(state.shop.reader().as_ref(), after, limit + 1).map_err(ReadError::from)?;
    let views = links.into_iter().filter_map(|(_, linked)| linked).map(view).collect();
    Ok(Json(Listed::of(views, limit, |view: &CallView| view.number.to_string())))
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
