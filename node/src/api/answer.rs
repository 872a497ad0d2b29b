//! What is answered once an operation is durable: 201 (or 200) if a relay has it, else 202.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crdt_model::entry::Place;
use crdt_model::ids::RecordId;
use crdt_model::record::{Role, Source};
use crdt_model::shop::{Acted, Shop};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use utoipa::{IntoResponses, ToSchema};

use super::caller::Caller;
use super::problem::{Problem, ProblemDocument};
use super::state::ApiState;
use crate::operations::{Planned, Warning};
use crate::queue::alerts::{Alert, AlertKind};
use crate::queue::rules;
use crate::queue::rules::OverLimit;
use crate::shop_handle::Stopped;

/// A relay's word arrives without a hint of its own, so it is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An operation that is durable.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Recorded {
    /// Always true: errors are problem documents.
    success: bool,
    /// No relay has it yet.
    queued: bool,
    /// Its number in this node's queue; `null` if nothing needed to be recorded.
    #[serde(rename = "queueId")]
    queue_id: Option<u64>,
    /// The client's own id, or else the record's.
    #[serde(rename = "operationId")]
    operation_id: String,
    /// For people.
    message: &'static str,
    /// The record.
    id: String,
    /// The same was asked before, and nothing was added.
    repeated: bool,
    /// The payment intents of the sale's M-PESA tenders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    intents: Vec<String>,
    /// What people should know.
    warnings: Vec<WarningBody>,
    /// What goes back to the customer, where `given_minor` says what was handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    change_due_minor: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Warning)]
struct WarningBody {
    /// `unknown_sku` or `sale_paid`.
    code: &'static str,
    /// The field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// For people.
    detail: String,
}

/// The answers of what creates a record.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers in the OpenAPI document")]
pub(super) enum Creates {
    /// Durable, and a relay has it.
    #[response(status = 201)]
    AtRelay(Recorded),
    /// Durable here; no relay has it yet.
    #[response(status = 202)]
    Queued(Recorded),
    /// Nothing was recorded.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(ProblemDocument),
}

/// The answers of what changes a record.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers in the OpenAPI document")]
pub(super) enum Changes {
    /// Durable, and a relay has it.
    #[response(status = 200)]
    AtRelay(Recorded),
    /// Durable here; no relay has it yet.
    #[response(status = 202)]
    Queued(Recorded),
    /// Nothing was recorded.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(ProblemDocument),
}

/// Whether an answer tells of something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Created,
    Changed,
}

/// Records an operation and answers once it is durable.
pub(super) async fn record(
    state: &ApiState,
    caller: &Caller,
    source: Option<&Source>,
    mut planned: Planned,
    answer: Answer,
) -> Result<Response, Problem> {
    let operation = std::mem::take(&mut planned.operation);
    let limit = planned.limit.take();
    let plan = move |shop: &Shop| {
        let over = rules::check_operation(shop, &operation)?;
        limit.map_or(Ok(()), |limit| limit.check(shop))?;
        Ok::<_, Problem>((operation, over))
    };
    let (acted, over) = state.shop.record_planned(plan).await?;
    alert_over_limit(state, &acted, over);
    self::answer(state, caller, source, acted, planned, answer).await
}

/// A sale that was taken although too much waits is somebody's concern.
pub(super) fn alert_over_limit(state: &ApiState, acted: &Acted, over: Option<OverLimit>) {
    let Some(OverLimit { waiting, max }) = over.filter(|_| !acted.repeated) else { return };
    let detail = format!("a sale was taken although {waiting} operations wait and max_queue_size is {max}");
    state.desk.raise(Alert { kind: AlertKind::SaleOverLimit, operation: acted.records.first().copied(), detail });
}

/// Answers for an operation that is durable.
pub(super) async fn answer(
    state: &ApiState,
    caller: &Caller,
    source: Option<&Source>,
    acted: Acted,
    planned: Planned,
    answer: Answer,
) -> Result<Response, Problem> {
    let at_relay = match acted.place {
        // What was recorded just now can be at a relay only if this device is one.
        Some(_) if !acted.repeated && caller.wait.is_zero() => state.fixed().await?.role == Role::Relay,
        Some(place) => relay_has(state, place, caller.wait).await?,
        None => true,
    };
    let first = acted.records.first().copied();
    let id = planned.record.or(first).map(|id| id.to_string()).unwrap_or_default();
    let repeated = acted.repeated || planned.repeated;
    let body = Recorded {
        success: true,
        queued: !at_relay,
        queue_id: acted.place.map(|place| place.seq),
        operation_id: source.map_or_else(|| id.clone(), |source| source.key.clone()),
        message: message(repeated, at_relay),
        id,
        repeated,
        intents: acted.records.iter().skip(1).map(RecordId::to_string).collect(),
        warnings: planned.warnings.into_iter().map(warning).collect(),
        change_due_minor: planned.change_due_minor,
    };
    let status = match (answer, at_relay) {
        (_, false) => StatusCode::ACCEPTED,
        (Answer::Created, true) => StatusCode::CREATED,
        (Answer::Changed, true) => StatusCode::OK,
    };
    Ok((status, Json(body)).into_response())
}

/// Waits until a relay durably holds an entry.
async fn relay_has(state: &ApiState, place: Place, wait: Duration) -> Result<bool, Stopped> {
    let deadline = Instant::now() + wait;
    let mut changes = state.shop.changes();
    loop {
        if state.shop.ask(move |shop| shop.relay_holds(place.journal)).await? >= place.seq {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        let pause = tokio::time::sleep_until(deadline.min(now + LOOK_AGAIN));
        tokio::select! {
            () = pause => {}
            change = changes.recv() => if matches!(change, Err(RecvError::Closed)) {
                return Err(Stopped);
            },
        }
    }
}

const fn message(repeated: bool, at_relay: bool) -> &'static str {
    match (repeated, at_relay) {
        (false, false) => "recorded on this device; it goes to the relay when there is a link",
        (false, true) => "recorded, and the relay has it",
        (true, false) => "recorded before on this device; it goes to the relay when there is a link",
        (true, true) => "recorded before, and the relay has it",
    }
}

fn warning(warning: Warning) -> WarningBody {
    match warning {
        Warning::UnknownSku { field, sku } => WarningBody {
            code: "unknown_sku",
            field: Some(field),
            detail: format!("product {sku} is not in the catalogue: add it, or correct the SKU"),
        },
        Warning::SalePaid => WarningBody {
            code: "sale_paid",
            field: None,
            detail: "the customer has paid by M-PESA: the money has to go back".to_owned(),
        },
    }
}
