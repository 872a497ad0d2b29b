//! The simulator's own calls, which the real provider lacks: set a behaviour, read the truth.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::super::Phone;
use super::Simulator;
use super::behaviour::Behaviour;
use super::ledger::{Counts, LedgerLine};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Whose; without it, everyone's who has none of their own.
    #[serde(default)]
    phone: Option<String>,
    /// What to do from now on; null goes back to the usual.
    behaviour: Option<Behaviour>,
}

const PHONES_MAX: usize = 10_000;

pub(super) async fn set_behaviour(
    State(simulator): State<Arc<Simulator>>,
    order: Result<Json<Order>, JsonRejection>,
) -> Response {
    let Json(order) = match order {
        Ok(order) => order,
        Err(error) => return refuse(&error.body_text()),
    };
    if let Some(Err(problem)) = order.behaviour.as_ref().map(Behaviour::check) {
        return refuse(problem);
    }
    let mut ledger = simulator.ledger();
    let Some(phone) = order.phone else {
        ledger.default_behaviour = order.behaviour;
        return StatusCode::NO_CONTENT.into_response();
    };
    let phone = match phone.parse::<Phone>() {
        Ok(phone) => phone.msisdn().to_owned(),
        Err(error) => return refuse(&error.to_string()),
    };
    let full = ledger.behaviours.len() >= PHONES_MAX && !ledger.behaviours.contains_key(&phone);
    match order.behaviour {
        Some(_) if full => return refuse("phone: too many phones have a behaviour of their own"),
        Some(behaviour) => drop(ledger.behaviours.insert(phone, behaviour)),
        None => drop(ledger.behaviours.remove(&phone)),
    }
    StatusCode::NO_CONTENT.into_response()
}

pub(super) async fn ledger(State(simulator): State<Arc<Simulator>>) -> Json<Vec<LedgerLine>> {
    Json(simulator.ledger().charges.clone())
}

pub(super) async fn counts(State(simulator): State<Arc<Simulator>>) -> Json<Counts> {
    Json(simulator.ledger().counts)
}

fn refuse(problem: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": problem }))).into_response()
}
