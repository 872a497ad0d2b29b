//! A repeated request gives the same answer, and never a second record.

use axum::body::Body;
use axum::http::Request;
use crdt_model::money::Currency;
use crdt_model::record::Role;
use serde_json::json;

use super::support::{Till, bread, request};

fn with(header: &'static str, value: &str, body: &str) -> Request<Body> {
    let mut request = request("POST", "/api/sales", body);
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

#[tokio::test]
async fn the_same_id_and_body_is_one_sale_however_the_id_is_given() {
    let till = Till::new();
    let first = till.call(with("idempotency-key", "s-1", &bread().to_string())).await;
    let mut named = bread();
    named["operation_id"] = json!("s-1");
    let second = till.post("/api/sales", &named).await;
    assert_eq!((first.status, second.status), (second.status, first.status));
    let (first, second) = (first.json(), second.json());
    for field in ["id", "queueId", "operationId"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!((first["repeated"].clone(), second["repeated"].clone()), (json!(false), json!(true)));
    assert_eq!(till.found("/api/sales").await["items"].as_array().unwrap().len(), 1);

    named["note"] = json!("another body");
    let reused = till.post("/api/sales", &named).await;
    assert_eq!(reused.status, 409);
    assert_eq!(reused.problem(), ("operation_id_reused".to_owned(), Some("operation_id".to_owned())));

    let mismatch = till.call(with("idempotency-key", "s-2", &named.to_string())).await;
    assert_eq!(mismatch.problem(), ("operation_id_mismatch".to_owned(), Some("operation_id".to_owned())));
}

#[tokio::test]
async fn devices_have_ids_of_their_own() {
    let till = Till::new();
    let mut named = bread();
    named["operation_id"] = json!("1");
    let first = till.call(with("x-device-id", "phone-a", &named.to_string())).await.json();
    let second = till.call(with("x-device-id", "phone-b", &named.to_string())).await.json();
    assert_ne!(first["id"], second["id"]);
    assert_eq!(second["repeated"], false);
}

#[tokio::test]
async fn many_callers_with_one_id_make_one_sale() {
    let till = Till::new();
    let mut named = bread();
    named["operation_id"] = json!("busy");
    let answers = futures::future::join_all((0..20).map(|_| till.post("/api/sales", &named))).await;
    let fresh = answers.iter().filter(|answer| answer.json()["repeated"] == false).count();
    assert_eq!(fresh, 1);
    assert_eq!(till.found("/api/sales").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_known_sale_is_repeated_even_if_its_product_is_refused_by_now() {
    let till = Till::new();
    let mut named = bread();
    named["operation_id"] = json!("before");
    till.record("/api/sales", &named).await;
    till.patch("/api/settings", &json!({ "require_known_sku": true })).await;
    assert_eq!(till.post("/api/sales", &named).await.json()["repeated"], true);
    let refused = till.post("/api/sales", &bread()).await;
    assert_eq!(refused.problem(), ("unknown_sku".to_owned(), Some("lines[0].sku".to_owned())));
}

#[tokio::test]
async fn a_relay_answers_201_at_once() {
    let relay = Till::of(1, Role::Relay, Currency::KES);
    let answered = relay.post("/api/sales", &bread()).await;
    assert_eq!(answered.status, 201);
    assert_eq!(answered.json()["queued"], false);
    let status = relay.found("/api/offline/status").await;
    assert_eq!((status["synced"].clone(), status["pending"].clone()), (json!(1), json!(0)));
}

#[tokio::test(start_paused = true)]
async fn without_a_relay_a_caller_waits_as_long_as_it_said_and_is_answered_202() {
    let till = Till::new();
    let begun = tokio::time::Instant::now();
    let answered = till.post("/api/sales?wait=3000", &bread()).await;
    assert_eq!(answered.status, 202);
    assert!((3_000..4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}
