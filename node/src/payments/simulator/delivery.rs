//! What follows a push: the customer decides, the ledger is written, the callbacks go out.

use std::sync::Arc;
use std::time::Duration;

use crdt_model::payment::ProviderIds;
use reqwest::{Client, Url};
use serde_json::{Value, json};

use super::super::http;
use super::super::mpesa::timestamp;
use super::super::phone::Phone;
use super::behaviour::Behaviour;
use super::{CALLBACK_TIMEOUT, Simulator, now_ms};

/// A push that passed every check.
pub(super) struct Order {
    pub(super) ids: ProviderIds,
    pub(super) phone: Phone,
    pub(super) shillings: u32,
    pub(super) account_reference: String,
    pub(super) callback_url: Url,
    pub(super) behaviour: Behaviour,
}

/// Carries an order out, unless the simulator stops first.
pub(super) async fn carry_out(simulator: Arc<Simulator>, order: Arc<Order>) {
    tokio::select! {
        () = simulator.closed() => {}
        () = settle_and_report(&simulator, &order) => {}
    }
}

async fn settle_and_report(simulator: &Simulator, order: &Order) {
    let Some(code) = order.behaviour.result_code() else {
        return;
    };
    tokio::time::sleep(Duration::from_millis(order.behaviour.delay_ms)).await;
    let body = settle(simulator, order, code);
    for _ in 0..order.behaviour.callbacks() {
        let taken = report(simulator, &order.callback_url, &body).await;
        let mut ledger = simulator.ledger();
        let count = if taken { &mut ledger.counts.callbacks_taken } else { &mut ledger.counts.callbacks_lost };
        *count += 1;
    }
}

fn settle(simulator: &Simulator, order: &Order, code: &str) -> Value {
    let phone = order.phone.masked();
    let reference = &order.account_reference;
    if code != "0" {
        simulator.ledger().decline(&order.ids, code);
        tracing::info!(%reference, %phone, code, "declined");
        return callback(&order.ids, code, "The payment was not made.", None);
    }
    let at_ms = now_ms();
    let amount_minor = i64::from(order.shillings) * 100;
    let receipt_number = simulator.ledger().charge(&order.ids, reference, phone.clone(), amount_minor, at_ms);
    tracing::info!(%reference, %phone, %receipt_number, "charged");
    let metadata = json!({ "Item": [
        { "Name": "Amount", "Value": f64::from(order.shillings) },
        { "Name": "MpesaReceiptNumber", "Value": receipt_number },
        { "Name": "Balance" },
        { "Name": "TransactionDate", "Value": timestamp(at_ms).parse::<u64>().unwrap_or(0) },
        { "Name": "PhoneNumber", "Value": order.phone.msisdn().parse::<u64>().unwrap_or(0) },
    ] });
    callback(&order.ids, code, "The payment was made.", Some(metadata))
}

/// The code is a number where it can be one, as the provider has it.
fn callback(ids: &ProviderIds, code: &str, said: &str, metadata: Option<Value>) -> Value {
    let code = code.parse::<i64>().map_or_else(|_| json!(code), |number| json!(number));
    let mut inside = json!({
        "MerchantRequestID": ids.request_id,
        "CheckoutRequestID": ids.checkout_id,
        "ResultCode": code,
        "ResultDesc": said,
    });
    if let (Some(metadata), Some(fields)) = (metadata, inside.as_object_mut()) {
        fields.insert("CallbackMetadata".to_owned(), metadata);
    }
    json!({ "Body": { "stkCallback": inside } })
}

async fn report(simulator: &Simulator, url: &Url, body: &Value) -> bool {
    let sent = match client_for(simulator, url) {
        Ok(client) => client.post(url.clone()).json(body).send().await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(response) if response.status().is_success() => true,
        Ok(response) => {
            tracing::warn!(status = response.status().as_u16(), "a callback was refused");
            false
        }
        Err(error) => {
            // The URL holds the callback's token.
            tracing::warn!(error = %error.without_url(), "a callback did not arrive");
            false
        }
    }
}

/// Certificates are loaded only for a listener that needs them.
fn client_for(simulator: &Simulator, url: &Url) -> Result<Client, reqwest::Error> {
    if url.scheme() == "http" {
        return Ok(simulator.loopback.clone());
    }
    http::client(false, CALLBACK_TIMEOUT, CALLBACK_TIMEOUT)
}
