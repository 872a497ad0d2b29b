//! What follows a push: the customer decides, the ledger is written, the callbacks go out.

use std::sync::Arc;
use std::time::Duration;

use crdt_model::payment::{ProviderIds, ResultClass, classify};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::super::mpesa::timestamp;
use super::super::phone::Phone;
use super::super::wire::{Auth, HttpWire, Wire, WireAnswer, WireError, WireRequest};
use super::behaviour::Behaviour;
use super::ledger::Charge;
use super::{CALLBACK_TIMEOUT, Simulator};

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
    for number in 0..order.behaviour.forged {
        forge(simulator, order, number).await;
    }
    let Some(code) = order.behaviour.result_code() else {
        // The provider never took it.
        simulator.ledger().decline(&order.ids, "1037");
        return;
    };
    if let Some(first) = &order.behaviour.first_code {
        tokio::time::sleep(Duration::from_millis(order.behaviour.delay_ms / 2)).await;
        simulator.ledger().say(&order.ids, first);
        let body = callback(&order.ids, first, "The payment was not made.", None);
        count(simulator, report(simulator, &order.callback_url, &body).await);
        tokio::time::sleep(Duration::from_millis(order.behaviour.delay_ms / 2)).await;
    } else {
        tokio::time::sleep(Duration::from_millis(order.behaviour.delay_ms)).await;
    }
    let body = settle(simulator, order, code);
    for _ in 0..order.behaviour.callbacks() {
        count(simulator, report(simulator, &order.callback_url, &body).await);
        tokio::time::sleep(Duration::from_millis(order.behaviour.apart_ms)).await;
    }
}

fn count(simulator: &Simulator, taken: bool) {
    let mut ledger = simulator.ledger();
    let count = if taken { &mut ledger.counts.callbacks_taken } else { &mut ledger.counts.callbacks_lost };
    *count += 1;
}

/// What somebody who has seen an address, or guesses one, may send. Nobody was charged.
async fn forge(simulator: &Simulator, order: &Order, number: u8) {
    let mut url = order.callback_url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop();
        path.push(&"0".repeat(64));
    }
    let receipt = format!("TESTFORGED{number:06}");
    let metadata = paid_metadata(order, &receipt, crate::clock::now().0);
    let body = callback(&order.ids, "0", "The payment was made.", Some(metadata));
    if report(simulator, &url, &body).await {
        tracing::error!("a forged callback was taken");
        simulator.ledger().counts.forgeries_taken += 1;
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
    let at_ms = crate::clock::now().0;
    let charge = Charge {
        account: reference.clone(),
        phone: phone.clone(),
        amount_minor: i64::from(order.shillings) * 100,
        at_ms,
        listed_at_ms: at_ms.saturating_add(order.behaviour.list_delay_ms),
        denied: order.behaviour.first_code.as_deref().is_some_and(is_certain_failure),
    };
    let receipt_number = simulator.ledger().charge(Some(&order.ids), charge);
    tracing::info!(%reference, %phone, %receipt_number, "charged");
    let metadata = paid_metadata(order, &receipt_number, at_ms);
    callback(&order.ids, code, "The payment was made.", Some(metadata))
}

fn is_certain_failure(code: &str) -> bool {
    matches!(classify(code), ResultClass::HardFail(_))
}

fn paid_metadata(order: &Order, receipt_number: &str, at_ms: u64) -> Value {
    json!({ "Item": [
        { "Name": "Amount", "Value": f64::from(order.shillings) },
        { "Name": "MpesaReceiptNumber", "Value": receipt_number },
        { "Name": "Balance" },
        { "Name": "TransactionDate", "Value": timestamp(at_ms).parse::<u64>().unwrap_or(0) },
        { "Name": "PhoneNumber", "Value": order.phone.msisdn().parse::<u64>().unwrap_or(0) },
    ] })
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

/// Posts a body; tells whether it was taken.
pub(super) async fn report(simulator: &Simulator, url: &Url, body: &Value) -> bool {
    let request = WireRequest {
        method: Method::POST,
        url: url.to_string(),
        auth: Auth::None,
        headers: Vec::new(),
        body: Some(serde_json::to_vec(body).unwrap_or_default()),
    };
    match simulator.out.send(request).await {
        Ok(answer) if answer.status.is_success() => true,
        Ok(answer) => {
            tracing::warn!(status = answer.status.as_u16(), "a callback was refused");
            false
        }
        Err(error) => {
            // The URL holds the callback's token, so it is not told.
            tracing::warn!(%error, "a callback did not arrive");
            false
        }
    }
}

/// The network to callback listeners. Certificates are loaded only for those that need them.
#[derive(Debug)]
pub(super) struct OutWire {
    loopback: HttpWire,
}

impl OutWire {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        Ok(Self { loopback: HttpWire::new(true, CALLBACK_TIMEOUT, CALLBACK_TIMEOUT)? })
    }
}

impl Wire for OutWire {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        if request.url.starts_with("http:") {
            return self.loopback.send(request);
        }
        async move {
            let secure = HttpWire::new(false, CALLBACK_TIMEOUT, CALLBACK_TIMEOUT);
            let secure = secure.map_err(|error| WireError::NotSent(error.to_string()))?;
            secure.send(request).await
        }
        .boxed()
    }

    fn reach<'a>(&'a self, base: &'a Url) -> BoxFuture<'a, Result<(), String>> {
        self.loopback.reach(base)
    }
}
