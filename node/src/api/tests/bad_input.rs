//! Bad input gives a clear error that names the field, and nothing is recorded.

use std::collections::BTreeSet;

use axum::http::header;
use crdt_model::money::Currency;
use crdt_model::record::Role;
use serde_json::{Value, json};

use super::support::{HOST, Till, bread, request};
use crate::api::Code;

fn changed(path: &str, value: Value) -> Value {
    let mut sale = bread();
    *sale.pointer_mut(path).unwrap() = value;
    sale
}

#[tokio::test]
async fn what_is_no_json_is_refused_by_line_and_column() {
    let till = Till::new();
    for (body, at) in [("{\n  \"lines\": [,]", "line 2, column 13"), ("", "line 1, column 0"), ("{} {}", "line 1")] {
        let answered = till.call(request("POST", "/api/offline/sync", body)).await;
        let answered =
            if body.contains("lines") { till.call(request("POST", "/api/sales", body)).await } else { answered };
        assert_eq!(answered.problem().0, "malformed_json", "{body}: {}", answered.text());
        assert!(answered.text().contains(at), "{}", answered.text());
    }
}

#[tokio::test]
async fn each_wrong_field_is_named() {
    let till = Till::new();
    let line = json!({ "sku": "BREAD", "quantity_milli": 2000, "unit_price_minor": 6500 });
    let mut unknown = bread();
    unknown["lines"][0]["colour"] = json!("red");
    let mut missing = bread();
    missing["lines"][0].as_object_mut().unwrap().remove("unit_price_minor");
    let mut no_currency = bread();
    no_currency.as_object_mut().unwrap().remove("currency");
    let many: Vec<Value> = std::iter::repeat_n(line, 1_501).collect();
    let mpesa = |amount: i64, phone: Value| {
        let mut sale = changed("/tenders/0", json!({ "kind": "mpesa", "amount_minor": amount, "phone": phone }));
        sale["lines"][0]["quantity_milli"] = json!(1000);
        sale["lines"][0]["unit_price_minor"] = json!(amount);
        sale
    };
    let number = "0708374149";
    let cases = [
        (unknown, 400, "unknown_field", "lines[0].colour"),
        (missing, 400, "missing_field", "lines[0].unit_price_minor"),
        (no_currency, 400, "missing_field", "currency"),
        (changed("/lines/0/quantity_milli", json!("two")), 400, "wrong_type", "lines[0].quantity_milli"),
        (changed("/lines/0/quantity_milli", json!(1.5)), 400, "wrong_type", "lines[0].quantity_milli"),
        (changed("/lines/0/unit_price_minor", json!(u64::MAX)), 422, "invalid_field", "lines[0].unit_price_minor"),
        (changed("/lines/0/unit_price_minor", json!(-1)), 422, "invalid_field", "lines[0].unit_price_minor"),
        (changed("/lines/0/unit_price_minor", json!(i64::MAX)), 422, "amount_too_large", "lines[0].unit_price_minor"),
        (changed("/lines/0/quantity_milli", json!(0)), 422, "invalid_field", "lines[0].quantity_milli"),
        (changed("/lines/0/sku", json!("")), 422, "invalid_field", "lines[0].sku"),
        (changed("/lines", json!([])), 422, "invalid_field", "lines"),
        (changed("/lines", json!(many)), 413, "too_large", "lines"),
        (changed("/currency", json!("USD")), 422, "wrong_currency", "currency"),
        (changed("/currency", json!("shillings")), 422, "wrong_currency", "currency"),
        (changed("/tenders/0/amount_minor", json!(12_999)), 422, "unbalanced", "tenders"),
        (changed("/tenders/0/kind", json!("barter")), 422, "invalid_field", "tenders[0].kind"),
        (mpesa(13_050, json!(number)), 422, "unsupported_tender", "tenders[0].amount_minor"),
        (mpesa(25_000_100, json!(number)), 422, "unsupported_tender", "tenders[0].amount_minor"),
        (mpesa(13_000, json!("12345")), 422, "invalid_field", "tenders[0].phone"),
        (mpesa(13_000, json!(null)), 422, "invalid_field", "tenders[0].phone"),
    ];
    for (body, status, code, field) in cases {
        let answered = till.post("/api/sales", &body).await;
        assert_eq!(answered.status, status, "{field}: {}", answered.text());
        assert_eq!(answered.problem(), (code.to_owned(), Some(field.to_owned())), "{}", answered.text());
    }
    assert_eq!(till.found("/api/offline/status").await["total"], 0);
}

#[tokio::test]
async fn mpesa_takes_shillings_only() {
    let till = Till::of(1, Role::Till, Currency::GBP);
    let payment = json!({ "amount_minor": 500, "currency": "GBP", "phone": "0708374149" });
    let answered = till.post("/api/payments", &payment).await;
    assert_eq!(answered.problem(), ("unsupported_tender".to_owned(), Some("currency".to_owned())));
}

#[tokio::test]
async fn large_bodies_and_operations_are_refused_before_they_cost_anything() {
    let till = Till::new();
    let huge = changed("/lines/0/sku", json!("x".repeat(300_000)));
    let answered = till.post("/api/sales", &huge).await;
    assert_eq!((answered.status.as_u16(), answered.problem().0), (413, "body_too_large".to_owned()));
    // It fits in a body, but not in an entry.
    let line = json!({ "sku": "A".repeat(128), "quantity_milli": 1000, "unit_price_minor": 0 });
    let lines: Vec<Value> = std::iter::repeat_n(line, 1_000).collect();
    let answered = till.post("/api/sales", &json!({ "lines": lines, "currency": "KES" })).await;
    assert_eq!((answered.status.as_u16(), answered.problem().0), (413, "too_large".to_owned()));
}

#[tokio::test]
async fn other_sites_and_hosts_may_not_use_it() {
    let till = Till::new();
    let send = |name: header::HeaderName, value: &'static str, method: &str| {
        let mut request = request(method, "/api/sales", &bread().to_string());
        request.headers_mut().insert(name, value.parse().unwrap());
        till.call(request)
    };
    for host in ["evil.example", "evil.example:7470", "192.168.1.7:7470", "127.0.0.1.evil.example", "127.0.0.1:x", ""] {
        let answered = send(header::HOST, host, "GET").await;
        assert_eq!((answered.status.as_u16(), answered.problem().0), (421, "host_not_allowed".to_owned()), "{host}");
    }
    for host in ["localhost", "LOCALHOST:1", "[::1]:7470", "127.0.0.2:7470", "till.shop.example"] {
        assert_eq!(send(header::HOST, host, "GET").await.status, 200, "{host}");
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8080", "http://localhost:7470"] {
        let answered = send(header::ORIGIN, origin, "POST").await;
        assert_eq!(
            (answered.status.as_u16(), answered.problem().0),
            (403, "origin_not_allowed".to_owned()),
            "{origin}"
        );
        assert!(answered.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    }
    assert_eq!(send(header::ORIGIN, "http://127.0.0.1:7470", "GET").await.status, 200);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let answered = send(header::CONTENT_TYPE, kind, "POST").await;
        assert_eq!((answered.status.as_u16(), answered.problem().0), (415, "unsupported_media_type".to_owned()));
    }
    assert_eq!(send(header::CONTENT_TYPE, "application/json; charset=utf-8", "POST").await.status, 202);
    assert_eq!(till.found("/api/sales").await["items"].as_array().unwrap().len(), 1, "{HOST}");
}

#[tokio::test]
async fn another_business_is_as_if_it_did_not_exist() {
    let till = Till::new();
    let other = "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f";
    let answered = till.get(&format!("/api/sales?businessId={other}")).await;
    assert_eq!(answered.problem(), ("unknown_business".to_owned(), Some("businessId".to_owned())));
    let mut sale = bread();
    sale["businessId"] = json!(other);
    assert_eq!(till.post("/api/sales", &sale).await.status, 404);
    let own = till.found("/api/business").await["id"].clone();
    sale["businessId"] = own.clone();
    assert_eq!(till.post("/api/sales", &sale).await.status, 202);
    till.found(&format!("/api/sales?businessId={}", own.as_str().unwrap())).await;
}

#[tokio::test]
async fn a_stopped_node_says_so() {
    let till = Till::new();
    till.stop().await;
    let answered = till.post("/api/sales", &bread()).await;
    assert_eq!((answered.status.as_u16(), answered.problem().0), (503, "node_stopped".to_owned()));
}

#[tokio::test]
async fn every_code_can_be_reached_or_is_only_for_a_damaged_disk() {
    let till = Till::new();
    let second = Till::of(2, Role::Till, Currency::KES);
    let mut seen = BTreeSet::new();
    for (method, path, body) in [
        ("GET", "/api/nothing", ""),
        ("DELETE", "/api/sales", ""),
        ("GET", "/api/sales?limit=0", ""),
        ("GET", "/api/sales?limit=many", ""),
        ("GET", "/api/sales?cursor=x", ""),
        ("POST", "/api/sales?wait=30001", "{}"),
        ("GET", "/api/reports/z?day=yesterday", ""),
        ("GET", "/api/sales/not-an-id", ""),
        ("PATCH", "/api/products/NONE", "{}"),
        ("POST", "/api/sales/6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f/void", "{\"reason\":\"none\"}"),
        ("POST", "/api/conflicts/6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f/resolve", "{\"choice\":\"1\"}"),
    ] {
        let answered = till.call(request(method, path, body)).await;
        seen.insert((path, answered.problem().0));
    }
    let codes: BTreeSet<&str> = seen.iter().map(|(_, code)| code.as_str()).collect();
    assert_eq!(codes, BTreeSet::from(["bad_cursor", "bad_parameter", "method_not_allowed", "not_found"]), "{seen:?}");
    assert_eq!(second.post("/api/invitations", &json!({})).await.problem().0, "not_an_owner");
    assert_eq!(second.get("/readyz").await.problem().0, "not_ready");

    // The rest is met by the stories; a new code has to be added to one, and here.
    let met = [
        "malformed_json",
        "unknown_field",
        "missing_field",
        "wrong_type",
        "bad_parameter",
        "bad_cursor",
        "operation_id_mismatch",
        "host_not_allowed",
        "origin_not_allowed",
        "offline_not_allowed",
        "not_found",
        "unknown_business",
        "method_not_allowed",
        "operation_id_reused",
        "sale_voided",
        "product_exists",
        "ticket_closed",
        "shift_open",
        "shift_closed",
        "shift_frozen",
        "shift_elsewhere",
        "ticket_offered",
        "handoff_past",
        "handoff_not_yours",
        "handoff_not_safe",
        "handoff_incomplete",
        "handoff_waiting",
        "count_differs",
        "refund_too_large",
        "payment_not_open",
        "promise_limit",
        "payment_not_declined",
        "too_many_attempts",
        "code_claimed",
        "nothing_to_settle",
        "same_person",
        "proposal_decided",
        "ledger_moved",
        "not_a_relay",
        "not_an_owner",
        "body_too_large",
        "too_large",
        "unsupported_media_type",
        "invalid_field",
        "wrong_currency",
        "amount_too_large",
        "unbalanced",
        "unknown_sku",
        "unknown_provider",
        "unsupported_tender",
        "node_stopped",
        "not_ready",
        // Answers of the layers, met in their tests.
        "upstream_failed",
        "offline",
        "offline_disabled",
        "queue_full",
    ];
    let never: Vec<&str> = Code::ALL.iter().map(|code| code.text()).filter(|code| !met.contains(code)).collect();
    assert_eq!(never, ["unreadable"]);
}
