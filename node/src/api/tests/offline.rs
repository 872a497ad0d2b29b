//! The queue's calls, and what a business lets nobody record while its relay is away.

use axum::body::Body;
use axum::http::Request;
use crdt_model::money::Currency;
use crdt_model::record::Role;
use serde_json::{Value, json};

use super::support::{Till, bread, request};

fn expense(id: &str) -> Value {
    json!({ "operation_id": id, "category": "rent", "amount_minor": 100 })
}

/// A till that knows of its relay, and has no link to it.
async fn left_alone() -> Till {
    let (till, relay) = (Till::new(), Till::of(2, Role::Relay, Currency::KES));
    let certificate = relay.shop.ask(|shop| shop.certificate().clone()).await.unwrap();
    let enrolment = crdt_model::record::Fact::Enrolment(certificate);
    till.shop.record(crdt_model::shop::Operation { facts: vec![enrolment], ..Default::default() }).await.unwrap();
    till
}

#[tokio::test]
async fn the_config_is_shown_changed_and_checked_field_by_field() {
    let till = Till::new();
    let config = till.found("/api/offline/config").await;
    assert_eq!((config["max_retries"].clone(), config["max_queue_size"].clone()), (json!(3), json!(500)));
    assert_eq!(
        (config["default_conflict_strategy"].clone(), config["upstream_relay"].clone()),
        (json!("merge"), json!(null))
    );
    let change = json!({ "max_retries": 5, "wifi_only": true, "sale_conflict_strategy": "client_wins" });
    assert_eq!(till.patch("/api/offline/config", &change).await.status, 202);
    let config = till.found("/api/offline/config").await;
    assert_eq!((config["max_retries"].clone(), config["wifi_only"].clone()), (json!(5), json!(true)));
    assert_eq!(till.patch("/api/offline/config", &json!({ "max_retries": null })).await.status, 202);
    assert_eq!(till.found("/api/offline/config").await["max_retries"], 3);
    for (wrong, code, field) in [
        (json!({ "max_retries": 0 }), "invalid_field", "max_retries"),
        (json!({ "max_retries": "3" }), "wrong_type", "max_retries"),
        (json!({ "max_retries": 1.5 }), "wrong_type", "max_retries"),
        (json!({ "wifi_only": 1 }), "wrong_type", "wifi_only"),
        (json!({ "default_conflict_strategy": "me" }), "invalid_field", "default_conflict_strategy"),
        (json!({ "max_retrys": 3 }), "unknown_field", "max_retrys"),
        (json!({ "upstream_relay": "x" }), "invalid_field", "upstream_relay"),
    ] {
        let refused = till.patch("/api/offline/config", &wrong).await;
        assert_eq!(refused.problem(), (code.to_owned(), Some(field.to_owned())), "{wrong}");
    }
    let wrong = json!({ "max_retries": 0, "wifi_only": [], "max_retrys": 3, "compress": true });
    let refused = till.patch("/api/offline/config", &wrong).await.json();
    let told: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|one| (&one["field"], &one["code"])).collect();
    let expected = [("max_retries", "invalid_field"), ("max_retrys", "unknown_field"), ("wifi_only", "wrong_type")];
    assert_eq!(
        told,
        expected.map(|(field, code)| (json!(field), json!(code))).iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
    assert_eq!(till.found("/api/offline/config").await["compress"], false, "all or nothing");
}

#[tokio::test]
async fn an_operation_of_the_apps_own_is_queued_once_and_found_by_each_of_its_names() {
    let till = Till::new();
    let points = json!({
        "operation_id": "points-1", "operation_type": "loyalty", "endpoint": "/api/points", "method": "POST",
        "request_body": { "points": 5 }, "user_id": "amina", "priority": 4,
    });
    let answered = till.post("/api/offline/queue", &points).await;
    assert_eq!(answered.status, 202, "{}", answered.text());
    let (id, number) = (answered.json()["id"].clone(), answered.json()["queueId"].clone());
    assert_eq!(till.post("/api/offline/queue", &points).await.json()["repeated"], true);
    let listed = till.found("/api/offline/pending?type=loyalty").await;
    let one = &listed["items"][0];
    assert_eq!(
        (one["id"].clone(), one["method"].clone(), one["endpoint"].clone()),
        (id.clone(), json!("POST"), json!("/api/points"))
    );
    assert_eq!((one["request_body"].clone(), one["user_id"].clone()), (json!({ "points": 5 }), json!("amina")));
    assert_eq!(till.found("/api/offline/pending?type=sale").await["items"], json!([]));
    assert_eq!(till.found("/api/offline/pending?status=failed").await["items"], json!([]));
    for name in [id.as_str().unwrap().to_owned(), number.to_string(), "points-1".to_owned()] {
        let history = till.found(&format!("/api/offline/history/{name}")).await;
        assert_eq!(
            (history["operation"]["operation_id"].clone(), history["result"].clone()),
            (json!("points-1"), json!("none"))
        );
    }
    assert_eq!(till.get("/api/offline/history/points-2").await.problem().0, "not_found");
    assert_eq!(till.get("/api/offline/pending?status=done").await.problem().1.as_deref(), Some("status"));
    for (field, value, code) in [
        ("method", json!("GET"), "invalid_field"),
        ("endpoint", json!("https://elsewhere.example/"), "invalid_field"),
        ("operation_type", json!(""), "invalid_field"),
        ("priority", json!(10), "invalid_field"),
        ("resolution_strategy", json!("mine"), "invalid_field"),
        ("requestBody", json!({}), "unknown_field"),
    ] {
        let mut wrong = points.clone();
        wrong["operation_id"] = json!("other");
        wrong[field] = value;
        assert_eq!(till.post("/api/offline/queue", &wrong).await.problem(), (code.to_owned(), Some(field.to_owned())));
    }
    let cleaned = till.call(request("DELETE", "/api/offline/cleanup?olderThanDays=0", "")).await.json();
    assert_eq!(cleaned, json!({ "success": true, "deleted": 0, "olderThanDays": 0 }));
    assert_eq!(till.post("/api/offline/retry", &json!({})).await.json()["retried"], 0);
}

#[tokio::test]
async fn away_from_its_relay_a_till_records_what_the_business_allows() {
    let till = left_alone().await;
    assert_eq!(till.post("/api/expenses", &expense("e-1")).await.status, 202);
    till.patch("/api/offline/config", &json!({ "allow_expenses_offline": false })).await;
    assert_eq!(till.post("/api/expenses", &expense("e-2")).await.problem().0, "offline_not_allowed");
    assert_eq!(till.post("/api/expenses", &expense("e-1")).await.json()["repeated"], true, "recorded before");
    assert_eq!(till.post("/api/sales", &bread()).await.status, 202);
    till.patch("/api/offline/config", &json!({ "offline_mode_enabled": false })).await;
    let refused = till.post("/api/sales", &bread()).await;
    assert_eq!((refused.status.as_u16(), refused.problem().0.as_str()), (503, "offline_disabled"));
    let back = json!({ "offline_mode_enabled": null, "allow_expenses_offline": null, "max_queue_size": 1 });
    till.patch("/api/offline/config", &back).await;
    let full = till.post("/api/expenses", &expense("e-3")).await;
    assert_eq!((full.status.as_u16(), full.problem().0.as_str()), (507, "queue_full"));
    assert_eq!(till.post("/api/sales", &bread()).await.status, 202, "a sale is always taken");
}

#[tokio::test]
async fn a_shop_without_a_relay_is_never_offline() {
    let till = Till::new();
    till.patch("/api/offline/config", &json!({ "offline_mode_enabled": false, "max_queue_size": 1 })).await;
    assert_eq!(till.post("/api/sales", &bread()).await.status, 202);
    assert_eq!(till.post("/api/expenses", &expense("e-1")).await.status, 202);
}

#[tokio::test]
async fn a_till_syncs_with_its_relay_and_says_how_many() {
    let (till, relay) = (Till::new(), Till::of(2, Role::Relay, Currency::KES));
    till.post("/api/sales", &bread()).await;
    till.post("/api/expenses", &expense("e-1")).await;
    till.meet(&relay);
    let summary = till.post("/api/offline/sync", &json!({})).await.json();
    assert_eq!(
        (summary["failed"].clone(), summary["success"].clone()),
        (json!(0), summary["total"].clone()),
        "{summary}"
    );
    let status = till.found("/api/offline/status").await;
    assert_eq!((status["pending"].clone(), status["schedule"]["waits_for"].clone()), (json!(0), json!("idle")));
    assert_eq!(till.found("/api/offline/history/e-1").await["operation"]["status"], "synced");
}

#[tokio::test(start_paused = true)]
async fn who_knows_that_there_is_no_network_waits_for_nobody() {
    let till = Till::new();
    let begun = tokio::time::Instant::now();
    let sale = |online: &str| {
        let mut sale: Request<Body> = request("POST", "/api/sales?wait=3000", &bread().to_string());
        sale.headers_mut().insert("x-is-online", online.parse().unwrap());
        sale
    };
    assert_eq!(till.call(sale("false")).await.status, 202);
    assert!(begun.elapsed().as_millis() < 1_000);
    assert_eq!(till.call(sale("maybe")).await.problem(), ("bad_parameter".to_owned(), Some("x-is-online".to_owned())));
}

#[tokio::test]
async fn whoever_changes_the_list_of_calls_is_found_out() {
    use crate::queue::attempts::{Attempt, AttemptResult, ChainEnd};
    use crdt_model::record::{AttemptAnchor, Fact, UpstreamFact};
    let till = Till::new();
    let mut chain = ChainEnd::default();
    let call = |number: u32| Attempt {
        operation: crdt_model::ids::RecordId(uuid::Uuid::from_u128(7)),
        number,
        at: crdt_model::time::Timestamp(1),
        duration_ms: 12,
        result: AttemptResult::Failed,
        http_status: Some(500),
        class: Some(crdt_model::record::ErrorClass::ServerError),
        code: None,
        detail: None,
        bytes_sent: 1,
        bytes_received: 2,
        device: till.device,
        network_type: None,
        endpoint: "POST /api/sales".to_owned(),
        operation_type: Some("sale".to_owned()),
    };
    for number in 1..=5 {
        till.shop.write_rows(chain.add(call(number))).await.unwrap();
        if number == 3 {
            let anchor = AttemptAnchor { through: 3, head: chain.hash };
            let facts = vec![Fact::Upstream(UpstreamFact::Anchor(anchor))];
            till.shop.record(crdt_model::shop::Operation { facts, ..Default::default() }).await.unwrap();
        }
    }
    let said = till.found("/api/audit/verify").await;
    assert_eq!(
        (said["ok"].clone(), said["calls"].clone(), said["anchored_through"].clone()),
        (json!(true), json!(5), json!(3))
    );
    assert_eq!(said["proven_through"], 0, "nobody else holds the anchor");
    let page = till.found("/api/audit?limit=2").await;
    assert_eq!((page["items"][1]["number"].clone(), page["next"].clone()), (json!(2), json!("2")));
    assert_eq!(till.found("/api/audit?status=failed&type=sale").await["items"].as_array().unwrap().len(), 5);
    for wrong in ["status=well", "device=me", "from=yesterday", "to=2026-02-30", "limit=0"] {
        let field = wrong.split('=').next().map(str::to_owned);
        let problem = till.get(&format!("/api/audit?{wrong}")).await.problem();
        assert_eq!(problem, ("bad_parameter".to_owned(), field), "{wrong}");
    }
    // A chain that is whole by itself, made anew without the anchor's word.
    let mut forged = ChainEnd::default();
    for number in 1..=5 {
        let mut call = call(number);
        call.http_status = Some(200);
        till.shop.write_rows(forged.add(call)).await.unwrap();
    }
    let said = till.found("/api/audit/verify").await;
    assert_eq!((said["ok"].clone(), said["broken_at"].clone()), (json!(false), json!(3)), "{said}");
    // One call changed alone breaks the chain where the next one follows.
    let mut rows = Vec::new();
    let mut chain = ChainEnd::default();
    for number in 1..=5 {
        rows.extend(chain.add(call(number)));
    }
    till.shop.write_rows(rows).await.unwrap();
    assert_eq!(till.found("/api/audit/verify").await["ok"], true);
    let mut elsewhere = ChainEnd { number: 3, hash: [9; 32] };
    till.shop.write_rows(elsewhere.add(call(4))).await.unwrap();
    assert_eq!(till.found("/api/audit/verify").await["broken_at"], 4);
}
