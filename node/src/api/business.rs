//! The business, and this device in it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::peers::role_word;
use super::problem::Problem;
use super::state::ApiState;
use super::values::rfc3339;

/// The business, and this device in it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BusinessView {
    id: String,
    name: String,
    currency: String,
    /// How far ahead of UTC the shop's clocks are; it decides which day a moment belongs to.
    utc_offset_minutes: i32,
    founded_at: String,
    device: String,
    device_name: String,
    /// till or relay.
    role: &'static str,
    /// This device's journal, and its epoch: a restore begins a new one.
    journal: String,
    epoch: u64,
    /// Where its links listen, for other devices to dial.
    addresses: Vec<String>,
}

/// The business, and this device in it.
#[utoipa::path(get, path = "/api/business", tag = "mesh", responses((status = 200, body = BusinessView)))]
pub(super) async fn business(State(state): State<ApiState>) -> Result<Json<BusinessView>, Problem> {
    let addresses = state.node.addresses();
    let fixed = state.fixed().await?.clone();
    let view = state.shop.ask(move |shop| {
        let journal = shop.own_journal();
        BusinessView {
            id: fixed.business.to_string(),
            name: fixed.name,
            currency: fixed.currency.to_string(),
            utc_offset_minutes: fixed.utc_offset_minutes,
            founded_at: rfc3339(shop.genesis().founded),
            device: fixed.device.to_string(),
            device_name: shop.certificate().name.clone(),
            role: role_word(shop.certificate().role),
            journal: journal.to_string(),
            epoch: shop.journal(journal).map(|journal| journal.info.genesis.epoch).unwrap_or_default(),
            addresses,
        }
    });
    Ok(Json(view.await?))
}
