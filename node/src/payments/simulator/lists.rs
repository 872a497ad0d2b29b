//! The provider's list of transactions, and reports of payments made by hand.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use reqwest::Url;
use serde_json::{Value, json};

use super::super::mpesa::{plain_time, read_plain_time, timestamp};
use super::Simulator;
use super::delivery::report;
use super::ledger::LedgerLine;
use super::protocol::{Fault, Fields, callback_url, check_token};

/// Lines a page.
const PAGE_LINES: usize = 100;
/// How far back the list reaches.
const LISTED_MS: u64 = 48 * 3_600_000;

pub(super) async fn register_pull(
    State(simulator): State<Arc<Simulator>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let registered = registration(&simulator, &headers, &body, "CallBackURL");
    answer(registered.map(|_| registered_answer("ResponseRefID", "1000")))
}

pub(super) async fn register_confirmations(
    State(simulator): State<Arc<Simulator>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let registered = registration(&simulator, &headers, &body, "ConfirmationURL");
    answer(registered.map(|url| {
        simulator.ledger().confirmations = Some(url.to_string());
        // The provider's own spelling.
        registered_answer("OriginatorCoversationID", "0")
    }))
}

/// The address of a registration that is in order.
fn registration(simulator: &Simulator, headers: &HeaderMap, body: &[u8], url: &'static str) -> Result<Url, Fault> {
    check_token(simulator, headers)?;
    let fields = Fields::read(body)?;
    fields.text("ShortCode")?;
    callback_url(&fields.text(url)?)
}

fn registered_answer(id: &str, code: &str) -> Value {
    json!({ id: "TEST-1", "ResponseCode": code, "ResponseDescription": "Success" })
}

pub(super) async fn pull(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    let page = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        let from_ms = read_plain_time(&fields.text("StartDate")?).ok_or_else(|| Fault::invalid("StartDate"))?;
        let until_ms = read_plain_time(&fields.text("EndDate")?).ok_or_else(|| Fault::invalid("EndDate"))?;
        let offset: usize = fields.text("OffSetValue")?.parse().map_err(|_| Fault::invalid("OffSetValue"))?;
        let now_ms = crate::clock::now().0;
        let mut ledger = simulator.ledger();
        ledger.counts.pulls += 1;
        let from_ms = from_ms.max(now_ms.saturating_sub(LISTED_MS + 3_600_000));
        // Times are whole seconds in both directions.
        let within = |line: &&LedgerLine| {
            line.at_ms / 1000 >= from_ms / 1000 && line.at_ms / 1000 <= until_ms / 1000 && line.listed_at_ms <= now_ms
        };
        let lines: Vec<Value> =
            ledger.charges.iter().filter(within).skip(offset).take(PAGE_LINES).map(listed).collect();
        Ok::<_, Fault>(json!({ "ResponseRefID": "TEST-1", "ResponseCode": "1000", "Response": [lines] }))
    };
    answer(page())
}

fn listed(line: &LedgerLine) -> Value {
    json!({
        "transactionId": line.receipt_number,
        "trxDate": plain_time(line.at_ms).replace(' ', "T"),
        "msisdn": line.phone,
        "sender": "MPESA",
        "transactiontype": "c2b-pay-bill-debit",
        "billreference": line.account_reference,
        "amount": format!("{}.{:02}", line.amount_minor / 100, line.amount_minor % 100),
        "organizationname": "Simulated",
    })
}

/// Reports a payment made by hand, if somebody asked to be told.
pub(super) async fn confirm(simulator: &Simulator, line: &LedgerLine, times: u8) -> u8 {
    let url = simulator.ledger().confirmations.clone().and_then(|url| Url::parse(&url).ok());
    let Some(url) = url else { return 0 };
    let body = json!({
        "TransactionType": "Pay Bill",
        "TransID": line.receipt_number,
        "TransTime": timestamp(line.at_ms),
        "TransAmount": format!("{}.{:02}", line.amount_minor / 100, line.amount_minor % 100),
        "BusinessShortCode": simulator.config.shortcode,
        "BillRefNumber": line.account_reference,
        "InvoiceNumber": "", "OrgAccountBalance": "", "ThirdPartyTransID": "",
        "MSISDN": line.phone,
        "FirstName": "TEST",
    });
    let mut taken = 0;
    for _ in 0..times {
        taken += u8::from(report(simulator, &url, &body).await);
    }
    taken
}

fn answer(result: Result<Value, Fault>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(fault) => fault.into_response(),
    }
}
