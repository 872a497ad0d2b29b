//! Giving the payments of one relay, or of its older epoch, to another: the owner says so, and each
//! payment follows once it is safe.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use crdt_model::ids::DeviceId;
use crdt_model::record::Ledger;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::Body;
use super::caller::{Caller, named};
use super::payment_care::All;
use super::problem::{Problem, body_id};
use super::settings::LedgerBody;
use super::state::ApiState;
use super::values::recorded_at;
use crate::operations::{self, NewMove};

/// Whose payments go to which relay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveBody {
    /// Not needed: the same words are one move.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// Whose; the settings' paying relay if not given.
    from: Option<LedgerBody>,
    /// The relay that is to have them: its name or device id.
    to: String,
    /// Its epoch; the latest that this device knows if not given.
    to_epoch: Option<u64>,
    /// Only this payment; all that are open, and the settings' paying relay, if not given.
    payment_id: Option<String>,
    /// The old relay is lost for good, and asks nobody any more.
    #[serde(default)]
    old_is_gone: bool,
}

named!(MoveBody);

/// What an owner said, and how far it has come.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MoveView {
    id: String,
    from: LedgerBody,
    to: LedgerBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<String>,
    old_is_gone: bool,
    at: String,
    /// Payments that have gone over.
    gone_over: usize,
    /// Open payments that still have to be let go, or reconciled.
    waiting: usize,
}

/// Gives payments to another relay, or to a restored relay's new epoch. Only on the device with the
/// owner's key.
#[utoipa::path(post, path = "/api/payments/moves", tag = "payments", request_body = MoveBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<MoveBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let from = match &body.from {
        Some(from) => {
            let relay: DeviceId = body_id("from.device", &from.device)?;
            Some(Ledger { relay, epoch: from.epoch })
        }
        None => None,
    };
    let new = NewMove {
        from,
        to: body.to,
        to_epoch: body.to_epoch,
        intent: body.payment_id.as_deref().map(|id| body_id("payment_id", id)).transpose()?,
        old_is_gone: body.old_is_gone,
    };
    let words = operations::plan_move(&state.shop, new).await?;
    let business = state.fixed().await?.business;
    let moved = state.node.sign_move(business, words)?;
    let planned = operations::record_move(&state.shop, moved).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists what owners said about whose payments are.
#[utoipa::path(get, path = "/api/payments/moves", tag = "payments", responses((status = 200, body = All<MoveView>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<All<MoveView>>, Problem> {
    let moves = state.shop.ask(|shop| {
        let books = shop.books();
        let view = |(id, at, moved, gone_over)| {
            let moved: crdt_model::record::LedgerMoved = moved;
            let open = books.open_intents_for(&moved.from);
            MoveView {
                id: crdt_model::ids::RecordId::to_string(&id),
                payment_id: moved.intent.map(|intent| intent.to_string()),
                old_is_gone: moved.old_is_gone,
                at: recorded_at(at),
                gone_over,
                waiting: open.filter(|intent| moved.covers(moved.from, *intent)).count(),
                from: LedgerBody::of(moved.from),
                to: LedgerBody::of(moved.to),
            }
        };
        books.ledger_moves().into_iter().map(view).collect::<Vec<_>>()
    });
    Ok(Json(All { items: moves.await? }))
}
