//! Whether the node lives, and whether it serves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;

/// A shop that takes longer to answer is not serving.
const PATIENCE: Duration = Duration::from_secs(5);

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthView {
    status: &'static str,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = HealthView)))]
pub(super) async fn healthz() -> Json<HealthView> {
    Json(HealthView { status: "alive" })
}

/// The shop answers, and everything stored is loaded.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = HealthView),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(state): State<ApiState>) -> Result<Json<HealthView>, Problem> {
    if let Some(trouble) = state.node.trouble() {
        return Err(Problem::new(Code::NotReady, trouble));
    }
    let slow = |_| Problem::new(Code::NotReady, "the shop is busy: try again in a moment");
    let loaded = tokio::time::timeout(PATIENCE, state.shop.ask(|shop| shop.is_loaded())).await.map_err(slow)??;
    if !loaded {
        return Err(Problem::new(Code::NotReady, "the shop is still loading what is stored: try again in a moment"));
    }
    Ok(Json(HealthView { status: "ready" }))
}
