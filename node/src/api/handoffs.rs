//! Handoffs: a shift goes to another till by offer, acceptance and transfer.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::{Handoff, HandoffPhase, Key};
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::Kind;
use crdt_model::shop::Shop;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page, cursor};
use super::problem::{Problem, body_id, path_id};
use super::state::ApiState;
use super::values::recorded_at;
use crate::operations::{self, NewHandoff};

/// A shift to hand over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHandoffBody {
    /// The client's own id: the same id and body is one handoff.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The shift; the one that is open on this till if not given.
    shift_id: Option<String>,
    /// The till that is to have it: its device id, or its name.
    to: String,
    /// What is in the drawer, in minor units.
    counted_minor: i64,
    /// The open tickets that go along; all of this till's if not given.
    tickets: Option<Vec<String>>,
    note: Option<String>,
}

/// The receiver takes the shift.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptBody {
    /// Not needed: a handoff is accepted once.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What the receiver counted; if not given, it agrees with the giver.
    counted_minor: Option<i64>,
}

/// The receiver declines, or the giver goes on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WithdrawBody {
    /// Not needed: a handoff is withdrawn once.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    reason: Option<String>,
}

/// An owner's decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecideBody {
    /// Not needed: a handoff is decided once.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// Whose the shift is to be.
    to: Side,
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Side {
    Giver,
    Receiver,
}

named!(NewHandoffBody, AcceptBody, WithdrawBody, DecideBody);

/// A handoff and what was said about it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HandoffView {
    id: String,
    /// offered, accepted (the giver has the last word), completed (the shift is the receiver's),
    /// returning (declined, or decided for the giver) or withdrawn (the giver goes on).
    status: &'static str,
    /// giver, receiver or none: what this device is in it.
    role: &'static str,
    shift_id: String,
    giver: PartyView,
    receiver: PartyView,
    counted_minor: i64,
    expected_minor: i64,
    currency: String,
    tickets: Vec<String>,
    note: Option<String>,
    offered_at: String,
    accepted_at: Option<String>,
    declined_at: Option<String>,
    transferred_at: Option<String>,
    withdrawn_at: Option<String>,
    /// What an owner decided because contact broke.
    decision: Option<DecisionView>,
    /// How many operations that come along have not arrived at this device.
    missing: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct PartyView {
    device: String,
    name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoffDecision)]
struct DecisionView {
    /// giver or receiver.
    to: &'static str,
    note: Option<String>,
    device: String,
    at: String,
}

/// Offers a shift to another till. From here on it is frozen on this one.
#[utoipa::path(post, path = "/api/handoffs", tag = "mesh", request_body = NewHandoffBody, responses(Creates))]
pub(super) async fn offer(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewHandoffBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let ticket = |(index, id): (usize, &String)| body_id(&format!("tickets[{index}]"), id);
    let tickets = body.tickets.as_ref().map(|tickets| tickets.iter().enumerate().map(ticket).collect());
    let new = NewHandoff {
        source: source.clone(),
        shift: body.shift_id.as_deref().map(|id| body_id("shift_id", id)).transpose()?,
        to: body.to,
        counted_minor: body.counted_minor,
        tickets: tickets.transpose()?,
        note: body.note,
    };
    let planned = operations::offer_handoff(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists handoffs, the newest first.
#[utoipa::path(get, path = "/api/handoffs", tag = "mesh", params(Page),
    responses((status = 200, body = Listed<HandoffView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<HandoffView>>, Problem> {
    let (limit, before) = (page.limit()?, page.before()?);
    let found: Vec<(Key, RecordId, HandoffView)> = state
        .shop
        .ask(move |shop| {
            let offers = shop.books().list(Kind::HandoffOffered, before).take(limit + 1);
            let handoffs = offers.filter_map(|offer| shop.books().handoff(offer.id));
            handoffs.map(|handoff| (handoff.offered, handoff.id, view(shop, handoff))).collect()
        })
        .await?;
    let listed = Listed::of(found, limit, |(offered, id, _)| cursor(offered.time, *id));
    Ok(Json(listed.map(|(_, _, view)| view)))
}

/// One handoff.
#[utoipa::path(get, path = "/api/handoffs/{id}", tag = "mesh", params(("id" = String, Path)),
    responses((status = 200, body = HandoffView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<HandoffView>, Problem> {
    let handoff: RecordId = path_id("handoff", &id)?;
    let read = move |shop: &Shop| shop.books().handoff(handoff).map(|handoff| view(shop, handoff));
    state.shop.ask(read).await?.map(Json).ok_or_else(|| Problem::not_found("handoff", &id))
}

/// Takes a shift that was offered to this till.
#[utoipa::path(post, path = "/api/handoffs/{id}/accept", tag = "mesh", params(("id" = String, Path)),
    request_body = AcceptBody, responses(Creates))]
pub(super) async fn accept(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<AcceptBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::accept_handoff(&state.shop, path_id("handoff", &id)?, body.counted_minor).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// By the receiver, declines. By the giver, goes on with the shift, where that is safe.
#[utoipa::path(post, path = "/api/handoffs/{id}/withdraw", tag = "mesh", params(("id" = String, Path)),
    request_body = WithdrawBody, responses(Creates))]
pub(super) async fn withdraw(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<WithdrawBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::withdraw_handoff(&state.shop, path_id("handoff", &id)?, body.reason).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Decides whose the shift is, because giver and receiver have lost contact. Only on the device
/// with the owner's key.
#[utoipa::path(post, path = "/api/handoffs/{id}/decide", tag = "mesh", params(("id" = String, Path)),
    request_body = DecideBody, responses(Creates))]
pub(super) async fn decide(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<DecideBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let handoff: RecordId = path_id("handoff", &id)?;
    let known = state.shop.ask(move |shop| shop.books().handoff(handoff)).await?;
    let known = known.ok_or_else(|| Problem::not_found("handoff", &id))?;
    let to = match body.to {
        Side::Giver => known.giver,
        Side::Receiver => known.offer.to,
    };
    let decided = state.node.decide_handoff(handoff, to, body.note)?;
    let planned = operations::decide_handoff(decided)?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

fn view(shop: &Shop, handoff: Handoff) -> HandoffView {
    let party = |device: DeviceId| {
        let name = shop.members().find(|member| member.device == device).map(|member| member.name.clone());
        PartyView { device: device.to_string(), name }
    };
    let at = |key: Option<Key>| key.map(|key| recorded_at(key.time));
    let (giver, receiver) = (handoff.giver, handoff.offer.to);
    let decision = handoff.decision.as_ref().map(|decision| DecisionView {
        to: if decision.to == giver { "giver" } else { "receiver" },
        note: decision.note.clone(),
        device: decision.device.to_string(),
        at: recorded_at(decision.key.time),
    });
    HandoffView {
        status: phase_word(handoff.phase),
        role: match shop.device() {
            device if device == giver => "giver",
            device if device == receiver => "receiver",
            _ => "none",
        },
        giver: party(giver),
        receiver: party(receiver),
        offered_at: recorded_at(handoff.offered.time),
        accepted_at: at(handoff.accepted),
        declined_at: at(handoff.declined),
        transferred_at: at(handoff.transferred),
        withdrawn_at: at(handoff.withdrawn),
        decision,
        missing: shop.missing_of(&handoff),
        id: handoff.id.to_string(),
        shift_id: handoff.offer.shift.to_string(),
        counted_minor: handoff.offer.counted.minor,
        expected_minor: handoff.offer.expected_minor,
        currency: handoff.offer.counted.currency.to_string(),
        tickets: handoff.offer.tickets.iter().map(ToString::to_string).collect(),
        note: handoff.offer.note,
    }
}

const fn phase_word(phase: HandoffPhase) -> &'static str {
    match phase {
        HandoffPhase::Offered => "offered",
        HandoffPhase::Accepted => "accepted",
        HandoffPhase::Completed => "completed",
        HandoffPhase::Returning => "returning",
        HandoffPhase::Withdrawn => "withdrawn",
    }
}
