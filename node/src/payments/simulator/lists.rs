//! The provider's list of transactions, payments made by hand, reversals and status queries.

use std::sync::Arc;
use std::time::Duration;

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
/// How long a reversal takes.
const REVERSAL_TIME: Duration = Duration::from_millis(200);

pub(super) async fn register_pull(
    State(simulator): State<Arc<Simulator>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let registered = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        fields.text("ShortCode")?;
        callback_url(&fields.text("CallBackURL")?)?;
        Ok::<_, Fault>(json!({ "ResponseRefID": "TEST-1", "ResponseCode": "1000", "ResponseDescription": "Success" }))
    };
    answer(registered())
}

pub(super) async fn register_confirmations(
    State(simulator): State<Arc<Simulator>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let registered = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        fields.text("ShortCode")?;
        let url = callback_url(&fields.text("ConfirmationURL")?)?;
        simulator.ledger().confirmations = Some(url.to_string());
        Ok::<_, Fault>(
            json!({ "OriginatorCoversationID": "TEST-1", "ResponseCode": "0", "ResponseDescription": "Success" }),
        )
    };
    answer(registered())
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

pub(super) async fn reverse(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    let taken = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        for field in ["Initiator", "SecurityCredential", "Remarks", "Amount"] {
            fields.text(field)?;
        }
        if fields.text("CommandID")? != "TransactionReversal" {
            return Err(Fault::invalid("CommandID"));
        }
        Ok((fields.text("TransactionID")?, callback_url(&fields.text("ResultURL")?)?))
    };
    let (receipt_number, url) = match taken() {
        Ok(taken) => taken,
        Err(fault) => return fault.into_response(),
    };
    let reversing = Arc::clone(&simulator);
    let conversation = format!("AG_TEST_{receipt_number}");
    let told = conversation.clone();
    tokio::spawn(async move {
        tokio::time::sleep(REVERSAL_TIME).await;
        let reversed = reversing.ledger().reverse(&receipt_number);
        let (code, said) = match reversed {
            Some(true) => (json!(0), "The service request is processed successfully."),
            Some(false) => (json!("R000001"), "The transaction has already been reversed."),
            None => (json!("R000002"), "The OriginalTransactionID is invalid."),
        };
        let result = result_body(&told, &receipt_number, &code, said, None);
        report(&reversing, &url, &result).await;
    });
    taken_answer(&conversation)
}

pub(super) async fn status(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    let taken = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        if fields.text("CommandID")? != "TransactionStatusQuery" {
            return Err(Fault::invalid("CommandID"));
        }
        Ok((fields.text("TransactionID")?, callback_url(&fields.text("ResultURL")?)?))
    };
    let (receipt_number, url) = match taken() {
        Ok(taken) => taken,
        Err(fault) => return fault.into_response(),
    };
    let conversation = format!("AG_TEST_{receipt_number}");
    let told = conversation.clone();
    tokio::spawn(async move {
        let line = simulator.ledger().charges.iter().find(|line| line.receipt_number == receipt_number).cloned();
        let code = json!(if line.is_some() { 0 } else { 2_032 });
        let result = result_body(&told, &receipt_number, &code, "status", line.as_ref());
        report(&simulator, &url, &result).await;
    });
    taken_answer(&conversation)
}

fn result_body(conversation: &str, receipt: &str, code: &Value, said: &str, line: Option<&LedgerLine>) -> Value {
    let parameters: Vec<Value> = line
        .map(|line| {
            vec![
                json!({ "Key": "ReceiptNo", "Value": line.receipt_number }),
                json!({ "Key": "Amount", "Value": line.amount_minor / 100 }),
                json!({ "Key": "TransactionStatus", "Value": "Completed" }),
            ]
        })
        .unwrap_or_default();
    json!({ "Result": {
        "ResultType": 0,
        "ResultCode": code,
        "ResultDesc": said,
        "OriginatorConversationID": conversation,
        "ConversationID": conversation,
        "TransactionID": receipt,
        "ResultParameters": { "ResultParameter": parameters },
    } })
}

fn taken_answer(conversation: &str) -> Response {
    Json(json!({
        "OriginatorConversationID": conversation,
        "ConversationID": conversation,
        "ResponseCode": "0",
        "ResponseDescription": "Accept the service request successfully.",
    }))
    .into_response()
}

fn answer(result: Result<Value, Fault>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(fault) => fault.into_response(),
    }
}
