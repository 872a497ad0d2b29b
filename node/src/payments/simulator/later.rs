//! What the provider carries out or finds out later, and reports: reversals and status queries.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use reqwest::Url;
use serde_json::{Value, json};

use super::super::mpesa::timestamp;
use super::Simulator;
use super::behaviour::StatusWay;
use super::chaos;
use super::delivery::report;
use super::ledger::LedgerLine;
use super::protocol::{Fault, Fields, callback_url, check_token};

/// How long a reversal takes, unless everyone's behaviour says how slow the provider is.
const REVERSAL_TIME: Duration = Duration::from_millis(200);

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
    let everyone = simulator.ledger().default_behaviour.as_ref().map(|behaviour| behaviour.delay_ms);
    tokio::spawn(async move {
        tokio::time::sleep(everyone.map_or(REVERSAL_TIME, Duration::from_millis)).await;
        let reversed = reversing.ledger().reverse(&receipt_number);
        let (code, said) = match reversed {
            Some(true) => (json!(0), "The service request is processed successfully."),
            Some(false) => (json!("R000001"), "The transaction has already been reversed."),
            None => (json!("R000002"), "The OriginalTransactionID is invalid."),
        };
        let result = result_body(&reversing.config.shortcode, &told, &receipt_number, &code, said, None);
        let taken = report(&reversing, &url, &result).await;
        reversing.ledger().counts.results_lost += u64::from(!taken);
    });
    taken_answer(&conversation)
}

pub(super) async fn status(State(simulator): State<Arc<Simulator>>, headers: HeaderMap, body: Bytes) -> Response {
    let taken = || {
        check_token(&simulator, &headers)?;
        let fields = Fields::read(&body)?;
        for field in ["Initiator", "SecurityCredential", "PartyA", "IdentifierType"] {
            fields.text(field)?;
        }
        if fields.text("CommandID")? != "TransactionStatusQuery" {
            return Err(Fault::invalid("CommandID"));
        }
        Ok((fields.text("TransactionID")?, callback_url(&fields.text("ResultURL")?)?))
    };
    let (receipt_number, url) = match taken() {
        Ok(taken) => taken,
        Err(fault) => return fault.into_response(),
    };
    // The ledger is let go before chance looks into it.
    let told = simulator.ledger().status_way(&receipt_number);
    let way = match told {
        Some(way) => way,
        None if simulator.config.chaos => chaos::status(&simulator, &receipt_number),
        None => StatusWay::default(),
    };
    let conversation = format!("AG_TEST_{receipt_number}");
    tokio::spawn(tell_status(simulator, receipt_number, url, conversation.clone(), way));
    taken_answer(&conversation)
}

/// Reports what a receipt number stands for, or what a lying provider says.
async fn tell_status(
    simulator: Arc<Simulator>,
    receipt_number: String,
    url: Url,
    conversation: String,
    way: StatusWay,
) {
    tokio::time::sleep(Duration::from_millis(way.delay_ms)).await;
    let line = simulator.ledger().charges.iter().find(|line| line.receipt_number == receipt_number).cloned();
    if way.forged {
        forge(&simulator, &receipt_number, &url, &conversation).await;
    }
    let known = line.filter(|_| !way.denies);
    let code = if known.is_some() { json!(0) } else { json!(2_032) };
    let result =
        result_body(&simulator.config.shortcode, &conversation, &receipt_number, &code, "status", known.as_ref());
    for _ in 0..way.repeat {
        report(&simulator, &url, &result).await;
    }
}

/// What somebody who guesses an address may send: money that nobody paid.
async fn forge(simulator: &Simulator, receipt_number: &str, url: &Url, conversation: &str) {
    let mut url = url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop();
        path.push(&"0".repeat(64));
    }
    let line = LedgerLine {
        account_reference: String::new(),
        phone: String::new(),
        amount_minor: 100,
        receipt_number: receipt_number.to_owned(),
        checkout_request_id: String::new(),
        at_ms: crate::clock::now().0,
        listed_at_ms: 0,
        reversed: false,
        denied: false,
    };
    let result =
        result_body(&simulator.config.shortcode, conversation, receipt_number, &json!(0), "status", Some(&line));
    if report(simulator, &url, &result).await {
        tracing::error!("a forged result was taken");
        simulator.ledger().counts.forgeries_taken += 1;
    }
}

fn result_body(
    shop: &str,
    conversation: &str,
    receipt: &str,
    code: &Value,
    said: &str,
    line: Option<&LedgerLine>,
) -> Value {
    let parameters: Vec<Value> = line
        .map(|line| {
            vec![
                json!({ "Key": "ReceiptNo", "Value": line.receipt_number }),
                json!({ "Key": "Amount", "Value": line.amount_minor / 100 }),
                json!({ "Key": "TransactionStatus", "Value": if line.reversed { "Reversed" } else { "Completed" } }),
                json!({ "Key": "CreditPartyName", "Value": format!("{shop} - Simulated") }),
                json!({ "Key": "DebitPartyName", "Value": line.phone }),
                json!({ "Key": "FinalisedTime", "Value": timestamp(line.at_ms).parse::<u64>().unwrap_or(0) }),
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
