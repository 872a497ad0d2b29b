//! A shop's day through the API, resource by resource.

use axum::http::header;
use serde_json::json;

use super::support::{Till, bread, request};

#[tokio::test]
async fn a_sale_is_durable_listed_corrected_and_voided() {
    let till = Till::new();
    let answered = till.post("/api/sales", &bread()).await;
    assert_eq!(answered.status, 202, "{}", answered.text());
    let body = answered.json();
    assert_eq!((body["success"].clone(), body["queued"].clone()), (json!(true), json!(true)));
    assert_eq!(body["operationId"], body["id"]);
    assert_eq!(body["warnings"][0]["code"], "unknown_sku");
    let sale = body["id"].as_str().unwrap();

    let path = format!("/api/sales/{sale}");
    let found = till.found(&path).await;
    assert_eq!(found["status"], "completed");
    assert_eq!(found["total_minor"], 13_000);
    assert_eq!(found["seq"], body["queueId"]);

    let patch = json!({ "note": "for the school", "customer_id": "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f" });
    assert_eq!(till.patch(&path, &patch).await.status, 202);
    let found = till.found(&path).await;
    assert_eq!(found["note"], "for the school");
    assert_eq!(found["customer_id"], "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f");
    assert_eq!(till.patch(&path, &json!({ "note": null })).await.status, 202);
    assert_eq!(till.found(&path).await["note"], json!(null));

    assert_eq!(till.post(&format!("{path}/void"), &json!({ "reason": "wrong price" })).await.status, 202);
    assert_eq!(till.found(&path).await["status"], "voided");
    let again = till.post(&format!("{path}/void"), &json!({ "reason": "wrong price" })).await;
    assert_eq!(again.json()["repeated"], true);
    let other = till.post(&format!("{path}/void"), &json!({ "reason": "another" })).await;
    assert_eq!(other.problem().0, "sale_voided");
}

#[tokio::test]
async fn lists_go_on_from_their_cursor_the_newest_first() {
    let till = Till::new();
    let mut sold = Vec::new();
    for _ in 0..5 {
        sold.push(till.record("/api/sales", &bread()).await);
    }
    sold.reverse();
    let mut listed = Vec::new();
    let mut path = "/api/sales?limit=2".to_owned();
    loop {
        let page = till.found(&path).await;
        let ids = page["items"].as_array().unwrap().iter().map(|sale| sale["id"].as_str().unwrap().to_owned());
        listed.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/sales?limit=2&cursor={next}");
    }
    assert_eq!(listed, sold);
}

#[tokio::test]
async fn goods_come_back_in_part_and_never_more_than_were_sold() {
    let till = Till::new();
    let sale = till.record("/api/sales", &bread()).await;
    let refund = |milli: i64| {
        json!({
            "lines": [{ "sku": "BREAD", "quantity_milli": milli, "unit_price_minor": 6500 }],
            "reason": "stale",
        })
    };
    till.record(&format!("/api/sales/{sale}/refund"), &refund(1000)).await;
    let too_much = till.post(&format!("/api/sales/{sale}/refund"), &refund(3000)).await;
    assert_eq!(too_much.problem(), ("invalid_field".to_owned(), Some("lines[0].quantity_milli".to_owned())));
    let by_mpesa = json!({
        "tenders": [{ "kind": "mpesa", "amount_minor": 13_000, "phone": "0708374149" }],
        "reason": "stale",
    });
    let refused = till.post(&format!("/api/sales/{sale}/refund"), &by_mpesa).await;
    assert_eq!(refused.problem(), ("unsupported_tender".to_owned(), Some("tenders[0].kind".to_owned())));

    let report = till.found("/api/reports/z").await;
    let totals = &report["totals"]["KES"];
    assert_eq!(totals["sales"], 1);
    assert_eq!(totals["refunds_minor"], 6_500);
    assert_eq!(totals["net_minor"], 6_500);
    assert_eq!(till.found("/api/stock/BREAD").await["on_hand_milli"], -1_000);
}

#[tokio::test]
async fn expenses_and_records_are_kept_and_corrected() {
    let till = Till::new();
    let tea = json!({ "category": "tea", "amount_minor": 5_000, "description": "for the staff" });
    let expense = till.record("/api/expenses", &tea).await;
    assert_eq!(till.patch(&format!("/api/expenses/{expense}"), &json!({ "category": "staff" })).await.status, 202);
    assert_eq!(till.found(&format!("/api/expenses/{expense}")).await["category"], "staff");
    let empty = till.patch(&format!("/api/expenses/{expense}"), &json!({ "category": null })).await;
    assert_eq!(empty.problem(), ("invalid_field".to_owned(), Some("category".to_owned())));

    let loan = json!({ "record_type": "loan", "amount_minor": -20_000 });
    let record = till.record("/api/records", &loan).await;
    till.patch(&format!("/api/records/{record}"), &json!({ "note": "to Mama Mboga" })).await;
    assert_eq!(till.found(&format!("/api/records/{record}")).await["note"], "to Mama Mboga");
    assert_eq!(till.found("/api/expenses").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(till.found("/api/records").await["items"][0]["amount_minor"], -20_000);
    let totals = till.found("/api/reports/z").await["totals"]["KES"].clone();
    assert_eq!((totals["expenses_minor"].clone(), totals["records_out_minor"].clone()), (json!(5_000), json!(20_000)));
}

#[tokio::test]
async fn mpesa_becomes_a_payment_that_waits_for_the_relay() {
    let till = Till::new();
    let sale = json!({
        "lines": [{ "sku": "BREAD", "quantity_milli": 2000, "unit_price_minor": 6500 }],
        "currency": "KES",
        "tenders": [{ "kind": "mpesa", "amount_minor": 13_000, "phone": "0708 374 149" }],
    });
    let body = till.post("/api/sales", &sale).await.json();
    let intent = body["intents"][0].as_str().unwrap().to_owned();
    let payment = till.found(&format!("/api/payments/{intent}")).await;
    assert_eq!((payment["state"].clone(), payment["sale_id"].clone()), (json!("open"), body["id"].clone()));
    let found = till.found(&format!("/api/sales/{}", body["id"].as_str().unwrap())).await;
    assert_eq!((found["status"].clone(), found["tenders"][0]["state"].clone()), (json!("recorded"), json!("open")));

    let asked = json!({ "amount_minor": 5_000, "currency": "KES", "phone": "+254708374149", "operation_id": "p-1" });
    let alone = till.record("/api/payments", &asked).await;
    assert_eq!(till.post("/api/payments", &asked).await.json()["repeated"], true);
    assert_eq!(till.post(&format!("/api/payments/{alone}/confirm"), &json!({})).await.status, 202);
    assert!(till.found(&format!("/api/payments/{alone}")).await["confirmed_at"].is_string());
    assert_eq!(till.found("/api/payments").await["items"].as_array().unwrap().len(), 2);

    let void = format!("/api/sales/{}/void", body["id"].as_str().unwrap());
    till.record(&void, &json!({ "reason": "changed their mind" })).await;
    let settled = till.post(&format!("/api/payments/{intent}/confirm"), &json!({})).await;
    assert_eq!(settled.problem().0, "payment_not_open");
}

#[tokio::test]
async fn stock_comes_goes_and_is_counted() {
    let till = Till::new();
    let delivery = json!({ "sku": "BREAD", "quantity_milli": 10_000, "reason": "delivery" });
    let unknown = till.post("/api/stock/adjustments", &delivery).await;
    assert_eq!(unknown.problem(), ("unknown_sku".to_owned(), Some("sku".to_owned())));
    till.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread" })).await;
    let delivered = till.record("/api/stock/adjustments", &delivery).await;
    till.record("/api/sales", &bread()).await;
    assert_eq!(till.found("/api/stock/BREAD").await["on_hand_milli"], 8_000);

    let count = json!({ "sku": "BREAD", "counted_milli": 7_000, "operation_id": "count-1" });
    let counted = till.record("/api/stock/adjustments", &count).await;
    till.record("/api/sales", &bread()).await;
    assert_eq!(till.post("/api/stock/adjustments", &count).await.json()["repeated"], true);
    let view = till.found(&format!("/api/stock/adjustments/{counted}")).await;
    assert_eq!((view["kind"].clone(), view["expected_milli"].clone()), (json!("count"), json!(8_000)));
    let level = till.found("/api/stock").await["items"][0].clone();
    assert_eq!((level["sku"].clone(), level["on_hand_milli"].clone()), (json!("BREAD"), json!(5_000)));
    let adjustments = till.found("/api/stock/adjustments").await;
    assert_eq!(adjustments["items"][1]["id"], json!(delivered));
}

#[tokio::test]
async fn the_catalogue_is_added_to_corrected_replaced_and_cleared() {
    let till = Till::new();
    let product = json!({ "sku": "TEA 250/g", "name": "Tea", "price_minor": 18_000, "tax_rate_bp": 1_600 });
    let added = till.post("/api/products", &product).await;
    assert_eq!(added.status, 202, "{}", added.text());
    let again = till.post("/api/products", &product).await.json();
    assert_eq!((again["repeated"].clone(), again["id"].clone()), (json!(true), added.json()["id"].clone()));
    let other = till.post("/api/products", &json!({ "sku": "TEA 250/g", "name": "Coffee" })).await;
    assert_eq!(other.problem().0, "product_exists");

    let path = "/api/products/TEA%20250%2Fg";
    assert_eq!(till.patch(path, &json!({ "price_minor": 19_000, "category": "drinks" })).await.status, 202);
    let found = till.found(path).await;
    assert_eq!((found["price_minor"].clone(), found["name"].clone()), (json!(19_000), json!("Tea")));
    assert_eq!(till.call(request("PUT", path, &json!({ "name": "Green tea" }).to_string())).await.status, 202);
    let found = till.found(path).await;
    assert_eq!((found["price_minor"].clone(), found["name"].clone()), (json!(null), json!("Green tea")));
    assert_eq!(till.found("/api/products").await["items"].as_array().unwrap().len(), 1);

    assert_eq!(till.call(request("DELETE", path, "")).await.status, 202);
    assert_eq!(till.get(path).await.problem().0, "not_found");
    assert_eq!(till.found("/api/products").await["items"].as_array().unwrap().len(), 0);
    till.record("/api/products", &product).await;
    assert_eq!(till.found(path).await["name"], "Tea");
}

#[tokio::test]
async fn customers_are_added_corrected_and_forgotten() {
    let till = Till::new();
    let asha = json!({ "name": "Asha", "phone": "0708374149", "operation_id": "c-1" });
    let id = till.record("/api/customers", &asha).await;
    let path = format!("/api/customers/{id}");
    till.patch(&path, &json!({ "name": "Asha W.", "phone": null })).await;
    let again = till.post("/api/customers", &asha).await.json();
    assert_eq!((again["repeated"].clone(), again["id"].clone()), (json!(true), json!(id)));
    let found = till.found(&path).await;
    assert_eq!((found["name"].clone(), found["phone"].clone()), (json!("Asha W."), json!(null)));
    let reused = till.post("/api/customers", &json!({ "name": "Juma", "operation_id": "c-1" })).await;
    assert_eq!(reused.problem(), ("operation_id_reused".to_owned(), Some("operation_id".to_owned())));
    assert_eq!(till.found("/api/customers").await["items"].as_array().unwrap().len(), 1);

    assert_eq!(till.call(request("DELETE", &path, "")).await.status, 202);
    assert_eq!(till.get(&path).await.problem().0, "not_found");
    assert_eq!(till.patch(&path, &json!({ "name": "Asha" })).await.problem().0, "not_found");
}

#[tokio::test]
async fn a_ticket_is_filled_and_closed_once_with_a_sale() {
    let till = Till::new();
    let line = |sku: &str| json!({ "sku": sku, "quantity_milli": 1000, "unit_price_minor": 5000 });
    let ticket = till.record("/api/tickets", &json!({ "name": "Table 4", "lines": [line("TEA")] })).await;
    let path = format!("/api/tickets/{ticket}");
    assert_eq!(till.patch(&path, &json!({ "add_lines": [line("MANDAZI"), line("CAKE")] })).await.status, 202);
    let lines = till.found(&path).await["lines"].clone();
    assert_eq!((lines[0]["sku"].clone(), lines[2]["sku"].clone()), (json!("TEA"), json!("CAKE")));
    let key = lines[2]["key"].as_str().unwrap();
    assert_eq!(till.patch(&path, &json!({ "set_lines": { key: null } })).await.status, 202);
    let wrong = till.patch(&path, &json!({ "set_lines": { "nine": null } })).await;
    assert_eq!(wrong.problem(), ("invalid_field".to_owned(), Some("set_lines.nine".to_owned())));

    let close = format!("{path}/close");
    let paid = json!({ "tenders": [{ "kind": "cash", "amount_minor": 10_000 }] });
    let short = till.post(&close, &json!({ "tenders": [{ "kind": "cash", "amount_minor": 9_000 }] })).await;
    assert_eq!(short.problem(), ("unbalanced".to_owned(), Some("tenders".to_owned())));
    let sale = till.record(&close, &paid).await;
    assert_eq!(till.post(&close, &paid).await.json()["repeated"], true);
    assert_eq!(till.post(&close, &json!({})).await.problem().0, "ticket_closed");
    assert_eq!(till.patch(&path, &json!({ "name": "Table 5" })).await.problem().0, "ticket_closed");
    let found = till.found(&path).await;
    assert_eq!((found["status"].clone(), found["sale_id"].clone()), (json!("closed"), json!(sale)));
    assert_eq!(till.found(&format!("/api/sales/{sale}")).await["ticket_id"], json!(ticket));
    assert_eq!(till.found("/api/tickets").await["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_shift_goes_from_float_to_count() {
    let till = Till::new();
    let opening = json!({ "float_minor": 100_000, "operation_id": "morning" });
    let shift = till.record("/api/shifts", &opening).await;
    assert_eq!(till.post("/api/shifts", &opening).await.json()["repeated"], true);
    assert_eq!(till.post("/api/shifts", &json!({ "float_minor": 1 })).await.problem().0, "shift_open");
    till.record("/api/sales", &bread()).await;

    let close = format!("/api/shifts/{shift}/close");
    till.record(&close, &json!({ "counted_minor": 112_000, "note": "a note is missing" })).await;
    let repeated = till.post(&close, &json!({ "counted_minor": 112_000, "note": "a note is missing" })).await;
    assert_eq!(repeated.json()["repeated"], true);
    assert_eq!(till.post(&close, &json!({ "counted_minor": 113_000 })).await.problem().0, "shift_closed");

    let view = till.found(&format!("/api/shifts/{shift}")).await;
    assert_eq!((view["status"].clone(), view["difference_minor"].clone()), (json!("closed"), json!(-1_000)));
    let report = till.found(&format!("/api/reports/z?shift={shift}")).await;
    assert_eq!(report["totals"]["KES"]["cash_in_minor"], 13_000);
    let of_device = till.found(&format!("/api/reports/z?device={}", till.device)).await;
    assert_eq!(of_device["totals"]["KES"]["sales"], 1);
    assert_eq!(till.found("/api/reports/z?day=2010-12-01").await["totals"], json!({}));
    assert_eq!(till.found("/api/shifts").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn documents_are_automerge_saves_and_can_be_read_as_json() {
    let till = Till::new();
    let sale = till.record("/api/sales", &bread()).await;
    till.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread" })).await;
    let documents = till.found("/api/documents?limit=1").await;
    let shared = documents["items"][0]["id"].as_str().unwrap().to_owned();
    let rest = till.found(&format!("/api/documents?cursor={}", documents["next"].as_str().unwrap())).await;
    let page = rest["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(shared.starts_with("catalogue-") && page.starts_with("page-"), "{shared} {page}");

    for id in [&shared, &page] {
        let save = till.get(&format!("/api/documents/{id}")).await;
        assert_eq!(save.headers[header::CONTENT_TYPE], "application/octet-stream");
        let heads = save.headers["x-automerge-heads"].to_str().unwrap().to_owned();
        let json = till.found(&format!("/api/documents/{id}?as=json")).await;
        assert_eq!(json["heads"][0], json!(heads));
        assert_eq!(save.bytes[..4], [0x85, 0x6f, 0x4a, 0x83], "the magic bytes of an Automerge save");
    }
    let facts = till.found(&format!("/api/documents/{page}?as=json")).await["content"].clone();
    assert_eq!((facts[0]["id"].clone(), facts[0]["kind"].clone()), (json!(sale), json!("sale")));
    assert_eq!(facts[0]["fact"]["lines"][0]["sku"], "BREAD");
    assert_eq!(till.get("/api/documents/catalogue-99").await.problem().0, "not_found");
    assert_eq!(till.get(&format!("/api/documents/{page}?as=xml")).await.problem().0, "bad_parameter");
}

#[tokio::test]
async fn the_queue_the_business_and_the_settings_are_shown() {
    let till = Till::new();
    let mut sale = bread();
    sale["operation_id"] = json!("s-1");
    till.record("/api/sales", &sale).await;
    till.record("/api/products", &json!({ "sku": "BREAD", "name": "Bread" })).await;
    let status = till.found("/api/offline/status").await;
    assert_eq!((status["pending"].clone(), status["total"].clone()), (json!(2), json!(2)));
    let newest = till.found("/api/offline/pending?limit=1").await;
    assert_eq!(newest["items"][0]["operation_type"], "edit");
    let next = till.found(&format!("/api/offline/pending?cursor={}", newest["next"].as_str().unwrap())).await;
    assert_eq!(next["items"][0]["operation_id"], "s-1");
    assert_eq!(next["next"], json!(null));

    let business = till.found("/api/business").await;
    assert_eq!((business["currency"].clone(), business["role"].clone()), (json!("KES"), json!("till")));
    assert_eq!(business["device"], json!(till.device.to_string()));
    assert_eq!(till.patch("/api/settings", &json!({ "require_known_sku": true })).await.status, 202);
    assert_eq!(till.found("/api/settings").await["require_known_sku"], true);
    let paying = json!({ "paying_relay": { "device": "ab".repeat(32), "epoch": 2 }, "paying_shortcode": "174379" });
    till.patch("/api/settings", &paying).await;
    assert_eq!(till.found("/api/settings").await["paying_relay"], paying["paying_relay"]);

    assert_eq!(till.post("/api/invitations", &json!({ "role": "relay" })).await.json()["invitation"], "TILLMESH1Relay");
    let sync = till.post("/api/offline/sync?wait=0", &json!({})).await;
    assert_eq!((sync.status.as_u16(), sync.json()["total"].clone()), (200, json!(4)), "{}", sync.text());
    assert_eq!(till.found("/healthz").await["status"], "alive");
    assert_eq!(till.found("/readyz").await["status"], "ready");
    assert_eq!(till.found("/api/peers").await["items"], json!([]));
}

#[tokio::test]
async fn events_tell_what_changes() {
    use futures::StreamExt;
    let till = Till::new();
    let response = till.send(request("GET", "/api/events", "")).await;
    let mut stream = response.into_body().into_data_stream();
    let sale = till.record("/api/sales", &bread()).await;
    let hint = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(hint.starts_with("event: fact\n") && hint.contains(&sale), "{hint}");
}

#[tokio::test]
async fn a_sale_on_account_is_paid_later_and_never_twice() {
    let till = Till::new();
    let mut sold = bread();
    sold["tenders"] = json!([]);
    let sale = till.record("/api/sales", &sold).await;
    let ask = |key: &str, minor: i64| {
        json!({
            "operation_id": key, "sale_id": sale, "amount_minor": minor, "currency": "KES", "phone": "254708374149",
        })
    };
    let first = till.record("/api/payments", &ask("p-1", 10_000)).await;
    let again = till.post("/api/payments", &ask("p-1", 10_000)).await.json();
    assert_eq!((again["id"].clone(), again["repeated"].clone()), (json!(first), json!(true)));
    assert_eq!(till.post("/api/payments", &ask("p-1", 9_000)).await.problem().0, "operation_id_reused");
    let too_much = till.post("/api/payments", &ask("p-2", 3_100)).await.problem();
    assert_eq!(too_much.1.as_deref(), Some("amount_minor"));
    let rest = till.record("/api/payments", &ask("p-3", 3_000)).await;
    assert_ne!(first, rest);
    assert_eq!(till.found(&format!("/api/payments/{rest}")).await["sale_id"], json!(sale));
    till.record(&format!("/api/sales/{sale}/void"), &json!({ "reason": "mistake" })).await;
    assert_eq!(till.found(&format!("/api/payments/{first}")).await["state"], "void");
    assert_eq!(till.post("/api/payments", &ask("p-4", 100)).await.problem().0, "sale_voided");
}
