//! The provider's side of the protocol: token, push and query, with its checks and its errors.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::super::http;
use super::super::mpesa::{password, read_timestamp};
use super::super::phone::Phone;
use super::behaviour::{Behaviour, Kind, fixed_phones};
use super::delivery::{Order, carry_out};
use super::{Reset, Simulator, chaos};

/// How long an unanswered request is held when the client does not give up.
const HOLD_MAX: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
pub(super) struct TokenAsked {
    #[serde(default)]
    grant_type: String,
}

pub(super) async fn generate_token(
    State(simulator): State<Arc<Simulator>>,
    Query(asked): Query<TokenAsked>,
    headers: HeaderMap,
) -> Response {
    let config = &simulator.config;
    let wanted = STANDARD.encode(format!("{}:{}", config.consumer_key, config.consumer_secret));
    if authorization(&headers, "Basic ") != Some(wanted.as_str()) {
        return Fault::bad_request("400.008.01", "Invalid Authentication passed").into_response();
    }
    if asked.grant_type != "client_credentials" {
        return Fault::bad_request("400.008.02", "Invalid grant type passed").into_response();
    }
    let life_s = config.token_life_s;
    let token = simulator.ledger().issue_token(Duration::from_secs(life_s));
    Json(json!({ "access_token": token, "expires_in": life_s.to_string() })).into_response()
}

pub(super) async fn stk_push(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    match take_push(&simulator, &headers, &body) {
        Ok((order, permit)) => answer_push(simulator, order, permit).await,
        Err(fault) => fault.into_response(),
    }
}

pub(super) async fn stk_query(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    match answer_query(&simulator, &headers, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(fault) => fault.into_response(),
    }
}

fn take_push(simulator: &Simulator, headers: &HeaderMap, body: &[u8]) -> Result<(Order, OwnedSemaphorePermit), Fault> {
    check_token(simulator, headers)?;
    let fields = Fields::read(body)?;
    check_password(simulator, &fields)?;
    let transaction_type = fields.text("TransactionType")?;
    let party_b = fields.text("PartyB")?;
    match transaction_type.as_str() {
        "CustomerPayBillOnline" if party_b == simulator.config.shortcode => {}
        "CustomerBuyGoodsOnline" if party_b.bytes().all(|byte| byte.is_ascii_digit()) => {}
        "CustomerPayBillOnline" | "CustomerBuyGoodsOnline" => return Err(Fault::invalid("PartyB")),
        _ => return Err(Fault::invalid("TransactionType")),
    }
    let amount = fields.text("Amount")?.parse::<u32>().ok();
    let shillings = amount.filter(|a| (1..=250_000).contains(a)).ok_or_else(|| Fault::invalid("Amount"))?;
    let number = fields.text("PhoneNumber")?;
    let phone = number.parse::<Phone>().ok().filter(|phone| phone.msisdn() == number);
    let phone = phone.ok_or_else(|| Fault::invalid("PhoneNumber"))?;
    if fields.text("PartyA")? != number {
        return Err(Fault::invalid("PartyA"));
    }
    let callback_url = callback_url(&fields.text("CallBackURL")?)?;
    let account_reference = fields.text("AccountReference")?;
    let alphanumeric = account_reference.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !alphanumeric || !(1..=12).contains(&account_reference.len()) {
        return Err(Fault::invalid("AccountReference"));
    }
    if !(1..=13).contains(&fields.text("TransactionDesc")?.chars().count()) {
        return Err(Fault::invalid("TransactionDesc"));
    }
    let behaviour = behaviour_of(simulator, &phone, &account_reference);
    if behaviour.kind == Kind::Error && behaviour.charged.is_none() && is_gate(behaviour.status) {
        // Refused at the gate: nothing of it goes any further.
        return Err(Fault::of(&behaviour));
    }
    if !simulator.ledger().admit_push(simulator.config.pushes_a_minute, crate::clock::now().0) {
        return Err(Fault::spike());
    }
    if behaviour.kind == Kind::Reset && behaviour.charged != Some(true) {
        return Err(Fault::reset());
    }
    let permit = Arc::clone(&simulator.pending).try_acquire_owned().map_err(|_| Fault::spike())?;
    let mut ledger = simulator.ledger();
    if ledger.is_full() {
        return Err(Fault::spike());
    }
    let ids = ledger.open_checkout();
    if let Some(code) = &behaviour.query_code {
        ledger.lie(&ids, code);
    }
    let order = Order { ids, phone, shillings, account_reference, callback_url, behaviour };
    Ok((order, permit))
}

/// A phone's own behaviour, else a fixed phone's, else everyone's, else the mix, else it pays.
fn behaviour_of(simulator: &Simulator, phone: &Phone, account_reference: &str) -> Behaviour {
    let ledger = simulator.ledger();
    if let Some(behaviour) = ledger.behaviours.get(phone.msisdn()) {
        return behaviour.clone();
    }
    let fixed = fixed_phones().into_iter().find(|(number, _, _)| *number == phone.msisdn());
    if let Some((_, _, behaviour)) = fixed {
        return behaviour;
    }
    if let Some(behaviour) = &ledger.default_behaviour {
        return behaviour.clone();
    }
    if simulator.config.chaos {
        return chaos::draw(simulator.config.seed, account_reference);
    }
    match &simulator.config.mix {
        Some(mix) => mix.draw(simulator.config.seed, account_reference),
        None => Behaviour::new(Kind::Pay),
    }
}

async fn answer_push(simulator: Arc<Simulator>, order: Order, permit: OwnedSemaphorePermit) -> Response {
    let order = Arc::new(order);
    let work = carry_out(Arc::clone(&simulator), Arc::clone(&order));
    // The customer's side goes on even if the client hangs up.
    let work = tokio::spawn(async move {
        work.await;
        drop(permit);
    });
    if order.behaviour.callback_first && work.await.is_err() {
        return Fault::new(500, "500.003.1001", "Internal Server Error").into_response();
    }
    match order.behaviour.kind {
        Kind::Pay | Kind::Decline | Kind::Silent => Json(json!({
            "MerchantRequestID": order.ids.request_id,
            "CheckoutRequestID": order.ids.checkout_id,
            "ResponseCode": "0",
            "ResponseDescription": "Success. Request accepted for processing",
            "CustomerMessage": "Success. Request accepted for processing",
        }))
        .into_response(),
        Kind::Timeout => {
            tokio::select! {
                () = simulator.closed() => {}
                () = tokio::time::sleep(HOLD_MAX) => {}
            }
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Kind::Reset => {
            // The customer is charged, or about to be, when the connection breaks.
            tokio::time::sleep(Duration::from_millis(order.behaviour.delay_ms)).await;
            Fault::reset().into_response()
        }
        Kind::Malformed => (StatusCode::OK, "<html>accepted</html>").into_response(),
        Kind::Error => Fault::of(&order.behaviour).into_response(),
    }
}

/// Statuses that a gateway gives without asking anybody behind it.
fn is_gate(status: Option<u16>) -> bool {
    matches!(status, Some(400 | 401 | 404 | 405 | 429))
}

fn answer_query(simulator: &Simulator, headers: &HeaderMap, body: &[u8]) -> Result<Value, Fault> {
    check_token(simulator, headers)?;
    let fields = Fields::read(body)?;
    check_password(simulator, &fields)?;
    let checkout_id = fields.text("CheckoutRequestID")?;
    let mut ledger = simulator.ledger();
    if !ledger.admit_query(simulator.config.queries_a_minute, crate::clock::now().0) {
        return Err(Fault::spike());
    }
    ledger.counts.queries += 1;
    let lie = ledger.lie_about(&checkout_id).map(str::to_owned);
    if lie.as_deref() == Some("4999") {
        return Err(Fault::new(500, "500.001.1001", "The transaction is being processed"));
    }
    let known = ledger.checkout(&checkout_id);
    let known = match (known, &lie) {
        (Some((request_id, _)), Some(code)) => Some((request_id, Some(code.as_str()))),
        (known, _) => known,
    };
    match known {
        None => Err(Fault::invalid("CheckoutRequestID")),
        Some((_, None)) => Err(Fault::new(500, "500.001.1001", "The transaction is being processed")),
        Some((request_id, Some(code))) => Ok(json!({
            "ResponseCode": "0",
            "ResponseDescription": "The service request has been accepted successfully",
            "MerchantRequestID": request_id,
            "CheckoutRequestID": checkout_id,
            "ResultCode": code,
            "ResultDesc": if code == "0" { "The payment was made." } else { "The payment was not made." },
        })),
    }
}

pub(super) fn check_token(simulator: &Simulator, headers: &HeaderMap) -> Result<(), Fault> {
    if simulator.config.chaos && chaos::invalidates(simulator) {
        simulator.ledger().invalidate_token();
    }
    let good = authorization(headers, "Bearer ").is_some_and(|token| simulator.ledger().token_is_good(token));
    if good { Ok(()) } else { Err(Fault::new(404, "404.001.03", "Invalid Access Token")) }
}

fn check_password(simulator: &Simulator, fields: &Fields) -> Result<(), Fault> {
    let config = &simulator.config;
    if fields.text("BusinessShortCode")? != config.shortcode {
        return Err(Fault::new(500, "500.001.1001", "Merchant does not exist"));
    }
    let timestamp = fields.text("Timestamp")?;
    if read_timestamp(&timestamp).is_none() {
        return Err(Fault::invalid("Timestamp"));
    }
    if fields.text("Password")? != password(&config.shortcode, &config.passkey, &timestamp) {
        return Err(Fault::new(500, "500.001.1001", "Wrong credentials"));
    }
    Ok(())
}

pub(super) fn callback_url(text: &str) -> Result<Url, Fault> {
    let url = Url::parse(text).map_err(|_| Fault::invalid("CallBackURL"))?;
    if !http::is_allowed(&url) || http::refused_word(text).is_some() {
        return Err(Fault::invalid("CallBackURL"));
    }
    Ok(url)
}

fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)
}

/// A request's fields; the provider takes numbers and strings alike.
pub(super) struct Fields(serde_json::Map<String, Value>);

impl Fields {
    pub(super) fn read(body: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(body).map(Self).map_err(|_| Fault::bad_request("400.002.05", "Invalid Request Payload"))
    }

    pub(super) fn text(&self, name: &'static str) -> Result<String, Fault> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => Err(Fault::invalid(name)),
        }
    }
}

/// An error as the provider words it.
pub(super) struct Fault {
    status: StatusCode,
    code: String,
    message: String,
    resets: bool,
}

impl Fault {
    pub(super) fn new(status: u16, code: &str, message: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code: code.to_owned(), message: message.to_owned(), resets: false }
    }

    fn bad_request(code: &str, message: &str) -> Self {
        Self::new(400, code, message)
    }

    pub(super) fn invalid(field: &str) -> Self {
        Self::bad_request("400.002.02", &format!("Bad Request - Invalid {field}"))
    }

    /// The error that a behaviour asks for.
    fn of(behaviour: &Behaviour) -> Self {
        Self::new(
            behaviour.status.unwrap_or(500),
            behaviour.code.as_deref().unwrap_or("500.003.1001"),
            behaviour.message.as_deref().unwrap_or("Internal Server Error"),
        )
    }

    /// No answer at all: the connection is reset.
    fn reset() -> Self {
        Self { resets: true, ..Self::new(500, "", "reset") }
    }

    fn spike() -> Self {
        Self::new(500, "500.003.02", "Error Occurred: Spike Arrest Violation")
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = json!({
            "requestId": "TEST-1-1",
            "errorCode": self.code,
            "errorMessage": self.message,
        });
        let mut answer = (self.status, Json(body)).into_response();
        if self.resets {
            answer.extensions_mut().insert(Reset);
        }
        answer
    }
}
