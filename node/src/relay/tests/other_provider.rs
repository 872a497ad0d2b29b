//! A payment through a service of the shop's own: the same engine, the same machine, and the till
//! chooses it by name.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use crdt_model::books::IntentState;
use crdt_model::money::Currency;
use crdt_model::payment::account_reference;
use crdt_model::record::{Evidence, Role};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::super::{Relay, RelayConfig};
use super::rig::{Device, identity, patiently, paying};
use crate::operations::{NewPayment, payment};
use crate::payments::WebhookConfig;
use crate::storage::MemoryDisk;

const SECRET: &str = "a-secret-of-thirty-two-bytes-at-least";

/// What the service was asked, each request's idempotency key and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

fn sign(at_ms: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{at_ms}.{body}").as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

/// A service that takes whatever is signed, and calls back once it has answered.
async fn service() -> (String, Asked) {
    let asked = Asked::default();
    let known = Arc::clone(&asked);
    let ask = move |headers: HeaderMap, body: Bytes| {
        let known = Arc::clone(&known);
        async move {
            let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let signature = header("x-signature");
            let (at, given) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
            assert_eq!(given, sign(at.parse().unwrap(), &text), "the request is signed");
            let request: Value = serde_json::from_str(&text).unwrap();
            known.lock().unwrap().push((header("idempotency-key"), request.clone()));
            tokio::spawn(call_back(request));
            axum::Json(json!({ "status": "accepted", "id": "bank-1" }))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pay", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/pay", post(ask))).await });
    (url, asked)
}

async fn call_back(request: Value) {
    let amount = &request["amount_minor"];
    let paid = json!({ "id": "bank-1", "status": "paid", "amount_minor": amount, "receipt_number": "BANK0001" });
    let payload = paid.to_string();
    let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = request["callback_url"].as_str().unwrap();
    for signature in ["0".repeat(64), sign(5, &payload), sign(5, &payload)] {
        let body = json!({ "at_ms": 5, "payload": payload, "signature": signature });
        assert!(plain.post(url).json(&body).send().await.unwrap().status().is_success());
    }
}

#[tokio::test]
async fn a_shop_without_mpesa_is_paid_through_its_own_service() {
    let (url, asked) = service().await;
    let callbacks = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = WebhookConfig {
        name: "bank".to_owned(),
        url,
        secret: SECRET.to_owned(),
        callback_base_url: format!("http://{callbacks}"),
        currency: "KES".to_owned(),
        amount_max_minor: 1_000_000,
        timeout_ms: 5_000,
    };
    let config = RelayConfig {
        webhooks: vec![webhook],
        callbacks: Some(callbacks),
        claim_quiet: Duration::ZERO,
        ..RelayConfig::default()
    };
    let device = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let relay: Relay = paying(&device, config).await;
    let named = patiently("its name", async {
        while device.shop.ask(|shop| shop.settings().payment_providers).await.unwrap() != ["bank"] {
            tokio::task::yield_now().await;
        }
    });
    named.await;
    let new = NewPayment {
        source: None,
        sale: None,
        amount_minor: 6_550,
        currency: Currency::KES,
        provider: Some("bank".to_owned()),
        phone: None,
    };
    let planned = payment(&device.shop, new).await.unwrap();
    let intent = device.shop.record(planned.operation).await.unwrap().records[0];
    let paid = device.until(intent, IntentState::Paid).await;
    let [receipt] = paid.receipts.as_slice() else { panic!("{:?}", paid.receipts) };
    assert_eq!((receipt.number.as_str(), receipt.amount.minor), ("BANK0001", 6_550));
    assert_eq!((receipt.evidence, receipt.test), (Evidence::Callback, false));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, account_reference(intent.0, 1).as_str());
    relay.stop().await;
}
