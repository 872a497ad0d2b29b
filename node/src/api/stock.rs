//! Stock: what there is, and what came, went or was counted.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::StockLevel;
use crdt_model::record::{Fact, Kind};
use crdt_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page};
use super::problem::{Code, Problem};
use super::state::ApiState;
use super::stored::{self, Stored};
use super::values::{Head, recorded_at};
use crate::operations::{self, Adjusted, NewAdjustment};

/// A movement (`quantity_milli` and `reason`) or a count (`counted_milli`).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAdjustmentBody {
    /// The client's own id: the same id and body is one adjustment.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The product.
    sku: String,
    /// Thousandths of a unit that came (positive) or went (negative).
    quantity_milli: Option<i64>,
    /// Thousandths of a unit that were found.
    counted_milli: Option<i64>,
    /// Why, for a movement.
    reason: Option<String>,
    /// When it happened, in milliseconds since 1970 UTC, if not now; for a movement.
    occurred_at_ms: Option<u64>,
}

named!(NewAdjustmentBody);

/// What there is of a product.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LevelView {
    sku: String,
    /// Thousandths of a unit; `null` while quantities beyond belief are recorded.
    on_hand_milli: Option<i64>,
    /// More went out than ever came in or was counted.
    oversold: bool,
    /// Movements from before the last count that the counting device did not know of.
    late_movements: u32,
    last_count: Option<CountView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CountView {
    id: String,
    counted_milli: i64,
    expected_milli: i64,
    recorded_at: String,
}

/// A movement or a count.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdjustmentView {
    #[serde(flatten)]
    head: Head,
    /// `movement` or `count`.
    kind: &'static str,
    sku: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_milli: Option<i64>,
    /// What the books had at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_milli: Option<i64>,
}

const ADJUSTMENTS: &[Kind] = &[Kind::StockMovement, Kind::StockCount];

/// What there is of each product, in the order of their SKUs.
#[utoipa::path(get, path = "/api/stock", tag = "stock", params(Page),
    responses((status = 200, body = Listed<LevelView>)))]
pub(super) async fn levels(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<LevelView>>, Problem> {
    let limit = page.limit()?;
    let after = page.cursor().map(str::to_owned);
    let found: Vec<StockLevel> =
        state.shop.ask(move |shop| shop.books().stock_levels(after.as_deref()).take(limit + 1).collect()).await?;
    Ok(Json(Listed::of(found, limit, |level| level.sku.clone()).map(level_view)))
}

/// What there is of one product.
#[utoipa::path(get, path = "/api/stock/{sku}", tag = "stock", params(("sku" = String, Path)),
    responses((status = 200, body = LevelView)))]
pub(super) async fn level(State(state): State<ApiState>, Path(sku): Path<String>) -> Result<Json<LevelView>, Problem> {
    let wanted = sku.clone();
    let level = state.shop.ask(move |shop| shop.books().stock(&wanted)).await?;
    level.map(level_view).map(Json).ok_or_else(|| Problem::not_found("stock of product", &sku))
}

/// Records stock that came, went or was counted.
#[utoipa::path(post, path = "/api/stock/adjustments", tag = "stock", request_body = NewAdjustmentBody,
    responses(Creates))]
pub(super) async fn adjust(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewAdjustmentBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let refused = |field: &str, reason: &str| Problem::at(Code::InvalidField, field, format!("{field} {reason}"));
    let adjusted = match (body.quantity_milli, body.counted_milli) {
        (Some(quantity_milli), None) => Adjusted::Moved { quantity_milli, reason: body.reason.unwrap_or_default() },
        (None, Some(_)) if body.reason.is_some() => {
            return Err(refused("reason", "is only for a movement: leave it out"));
        }
        (None, Some(_)) if body.occurred_at_ms.is_some() => {
            return Err(refused("occurred_at_ms", "is only for a movement: a count is now"));
        }
        (None, Some(counted_milli)) => Adjusted::Counted { counted_milli },
        (Some(_), Some(_)) => return Err(refused("counted_milli", "and quantity_milli are both given: send one")),
        (None, None) => return Err(refused("quantity_milli", "is missing: send it, or counted_milli")),
    };
    let occurred = body.occurred_at_ms.map(Timestamp);
    let new = NewAdjustment { source: source.clone(), occurred, sku: body.sku, adjusted };
    let planned = operations::adjustment(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists movements and counts, the newest first.
#[utoipa::path(get, path = "/api/stock/adjustments", tag = "stock", params(Page),
    responses((status = 200, body = Listed<AdjustmentView>)))]
pub(super) async fn adjustments(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<AdjustmentView>>, Problem> {
    let Listed { items, next } = stored::page(&state, ADJUSTMENTS, &page).await?;
    Ok(Json(Listed { items: items.into_iter().filter_map(view).collect(), next }))
}

/// One movement or count.
#[utoipa::path(get, path = "/api/stock/adjustments/{id}", tag = "stock", params(("id" = String, Path)),
    responses((status = 200, body = AdjustmentView)))]
pub(super) async fn adjustment(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<AdjustmentView>, Problem> {
    let found = stored::one(&state, "adjustment", ADJUSTMENTS, &id).await?;
    view(found).map(Json).ok_or_else(|| Problem::not_found("adjustment", &id))
}

fn level_view(level: StockLevel) -> LevelView {
    LevelView {
        sku: level.sku,
        on_hand_milli: level.on_hand_milli,
        oversold: level.oversold,
        late_movements: level.late_movements,
        last_count: level.last_count.map(|count| CountView {
            id: count.record.to_string(),
            counted_milli: count.counted_milli,
            expected_milli: count.expected_milli,
            recorded_at: recorded_at(count.time),
        }),
    }
}

fn view(stored: Stored) -> Option<AdjustmentView> {
    let head = Head::of(&stored);
    if let Fact::StockMovement(movement) = stored.fact {
        return Some(AdjustmentView {
            head,
            kind: "movement",
            sku: movement.sku,
            quantity_milli: Some(movement.quantity_milli),
            reason: Some(movement.reason),
            counted_milli: None,
            expected_milli: None,
        });
    }
    let Fact::StockCount(count) = stored.fact else { return None };
    Some(AdjustmentView {
        head,
        kind: "count",
        sku: count.sku,
        quantity_milli: None,
        reason: None,
        counted_milli: Some(count.counted_milli),
        expected_milli: Some(count.expected_milli),
    })
}
