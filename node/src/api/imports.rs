//! Imports from other systems, a batch at a time.

use axum::Json;
use axum::extract::State;

use super::body::Body;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::ApiState;
use crate::import::{Added, Batch, BatchError, record};

/// Records a batch of another system's products, customers, sales and returns. All of it is
/// durable when this answers; posted again, it adds nothing.
#[utoipa::path(post, path = "/api/imports", tag = "imports", request_body = Batch,
    responses((status = 200, body = Added),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn create(State(state): State<ApiState>, Body(batch): Body<Batch>) -> Result<Json<Added>, Problem> {
    Ok(Json(record(&state.shop, batch).await?))
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        let detail = error.to_string();
        match error {
            BatchError::WrongCurrency { .. } => Self::at(Code::WrongCurrency, "currency", detail),
            BatchError::Field { field, .. } => Self::at(Code::InvalidField, field, detail),
            BatchError::Record(error) => error.into(),
            BatchError::Stopped(stopped) => stopped.into(),
        }
    }
}
