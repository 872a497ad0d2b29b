//! The simulator's own calls, which the real provider lacks: set a behaviour, read the truth.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::super::Phone;
use super::Simulator;
use super::behaviour::{Behaviour, StatusWay};
use super::ledger::{Charge, Counts, LedgerLine};
use super::lists::confirm;
use super::statement::{self, Style};

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

/// A payment that a customer makes by hand, to the shop's number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandPayment {
    phone: String,
    amount_minor: i64,
    /// What the customer writes as the account; nothing for a till.
    #[serde(default)]
    account: String,
    /// How many times it is confirmed; once unless told.
    #[serde(default = "once")]
    confirmations: u8,
    /// How long it takes to appear in the list, in milliseconds.
    #[serde(default)]
    list_delay_ms: u64,
    /// How status queries about it go.
    #[serde(default)]
    status: Option<StatusWay>,
}

fn once() -> u8 {
    1
}

const HAND_AMOUNT_MAX_MINOR: i64 = 25_000_000;

pub(super) async fn pay(
    State(simulator): State<Arc<Simulator>>,
    payment: Result<Json<HandPayment>, JsonRejection>,
) -> Response {
    let Json(payment) = match payment {
        Ok(payment) => payment,
        Err(error) => return refuse(&error.body_text()),
    };
    let phone = match payment.phone.parse::<Phone>() {
        Ok(phone) => phone,
        Err(error) => return refuse(&error.to_string()),
    };
    if !(1..=HAND_AMOUNT_MAX_MINOR).contains(&payment.amount_minor) || payment.account.len() > 64 {
        return refuse("amount_minor, account: choose 1 to 25000000, and at most 64 bytes");
    }
    if let Some(Err(problem)) = payment.status.as_ref().map(StatusWay::check) {
        return refuse(problem);
    }
    let at_ms = crate::clock::now().0;
    let charge = Charge {
        account: payment.account,
        phone: phone.masked(),
        amount_minor: payment.amount_minor,
        at_ms,
        listed_at_ms: at_ms.saturating_add(payment.list_delay_ms),
        denied: false,
    };
    let line = {
        let mut ledger = simulator.ledger();
        let receipt_number = ledger.charge(None, charge);
        if let Some(way) = payment.status {
            ledger.set_status_way(&receipt_number, way);
        }
        ledger.charges.last().cloned()
    };
    let Some(line) = line else { return refuse("nothing was charged") };
    let confirmed = confirm(&simulator, &line, payment.confirmations.min(10)).await;
    Json(json!({ "receipt_number": line.receipt_number, "confirmed": confirmed })).into_response()
}

#[derive(Deserialize)]
pub(super) struct StatementAsked {
    #[serde(default)]
    day_first: bool,
    #[serde(default)]
    commas: bool,
    #[serde(default)]
    till: bool,
    #[serde(default)]
    windows: bool,
}

pub(super) async fn statement(State(simulator): State<Arc<Simulator>>, Query(asked): Query<StatementAsked>) -> String {
    let StatementAsked { day_first, commas, till, windows } = asked;
    let charges = simulator.ledger().charges.clone();
    statement::statement(&charges, Style { day_first, commas, till, windows })
}

fn refuse(problem: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": problem }))).into_response()
}
