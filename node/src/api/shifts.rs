//! Shifts: opened with a float, closed with a count.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::{RecordAt, ZReport};
use crdt_model::ids::RecordId;
use crdt_model::record::Kind;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page, cursor};
use super::problem::{Problem, path_id};
use super::reports::{ShiftView, shift_view};
use super::sales::currency;
use super::state::ApiState;
use crate::operations::{self, NewShift};

/// A shift to open on this till.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewShiftBody {
    /// The client's own id: the same id and body is one shift.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What is in the drawer, in minor units.
    float_minor: i64,
    /// ISO 4217; the business's own if not given.
    currency: Option<String>,
}

/// The drawer, counted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseShiftBody {
    /// Not needed: a shift is closed once.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// What is in the drawer, in minor units.
    counted_minor: i64,
    note: Option<String>,
}

named!(NewShiftBody, CloseShiftBody);

/// Opens a shift on this till.
#[utoipa::path(post, path = "/api/shifts", tag = "shifts", request_body = NewShiftBody, responses(Creates))]
pub(super) async fn open(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewShiftBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let currency = body.currency.as_deref().map(currency).transpose()?;
    let new = NewShift { source: source.clone(), float_minor: body.float_minor, currency };
    let planned = operations::open_shift(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists shifts of every till, the newest first.
#[utoipa::path(get, path = "/api/shifts", tag = "shifts", params(Page),
    responses((status = 200, body = Listed<ShiftView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<ShiftView>>, Problem> {
    let (limit, before) = (page.limit()?, page.before()?);
    let found: Vec<(RecordAt, ZReport)> = state
        .shop
        .ask(move |shop| {
            let shifts = shop.books().list(Kind::ShiftOpened, before).take(limit + 1);
            shifts.filter_map(|at| Some((at, shop.books().z_report(at.id)?))).collect()
        })
        .await?;
    let listed = Listed::of(found, limit, |(at, _)| cursor(at.time, at.id));
    Ok(Json(listed.map(|(_, report)| shift_view(&report))))
}

/// One shift. Its figures are in the Z report.
#[utoipa::path(get, path = "/api/shifts/{id}", tag = "shifts", params(("id" = String, Path)),
    responses((status = 200, body = ShiftView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<ShiftView>, Problem> {
    let shift: RecordId = path_id("shift", &id)?;
    let report = state.shop.ask(move |shop| shop.books().z_report(shift)).await?;
    report.map(|report| Json(shift_view(&report))).ok_or_else(|| Problem::not_found("shift", &id))
}

/// Closes a shift.
#[utoipa::path(post, path = "/api/shifts/{id}/close", tag = "shifts", params(("id" = String, Path)),
    request_body = CloseShiftBody, responses(Creates))]
pub(super) async fn close(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<CloseShiftBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let closing = operations::close_shift(&state.shop, path_id("shift", &id)?, body.counted_minor, body.note);
    record(&state, &caller, source.as_ref(), closing.await?, Answer::Created).await
}
