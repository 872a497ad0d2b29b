//! What a cashier can do about payments, without a relay.

use serde_json::{Value, json};

use super::support::Till;

fn payment(key: &str, phone: &str, amount_minor: i64) -> Value {
    json!({ "operation_id": key, "amount_minor": amount_minor, "currency": "KES", "phone": phone })
}

#[tokio::test]
async fn a_sale_is_split_between_cash_and_mpesa_and_change_is_told() {
    let till = Till::new();
    let sale = |tenders: Value| {
        json!({
            "lines": [{ "sku": "BREAD", "quantity_milli": 2000, "unit_price_minor": 6500 }],
            "currency": "KES", "tenders": tenders,
        })
    };
    let split = json!([
        { "kind": "cash", "amount_minor": 3_000, "given_minor": 5_000 },
        { "kind": "mpesa", "amount_minor": 10_000, "phone": "0712345678" },
    ]);
    let body = till.post("/api/sales", &sale(split)).await.json();
    assert_eq!((&body["change_due_minor"], body["intents"].as_array().unwrap().len()), (&json!(2_000), 1));
    let intent = body["intents"][0].as_str().unwrap();
    let asked = till.found(&format!("/api/payments/{intent}")).await;
    assert_eq!(
        (&asked["amount_minor"], &asked["shown"], &asked["counts_as"]),
        (&json!(10_000), &json!("pending"), &json!("outstanding"))
    );
    assert!(asked["say"].as_str().unwrap().contains("as soon as we are online"));
    let totals = till.found("/api/reports/z").await["totals"]["KES"].clone();
    assert_eq!(totals["cash_in_minor"], 3_000, "{totals}");
    for (tenders, field) in [
        (json!([{ "kind": "cash", "amount_minor": 13_000, "given_minor": 12_000 }]), "tenders[0].given_minor"),
        (
            json!([{ "kind": "mpesa", "amount_minor": 13_000, "phone": "0712345678", "given_minor": 13_000 }]),
            "tenders[0].given_minor",
        ),
    ] {
        assert_eq!(till.post("/api/sales", &sale(tenders)).await.json()["field"], field);
    }
}

#[tokio::test]
async fn only_a_declined_payment_is_asked_for_again_and_only_an_unpaid_one_is_given_up() {
    let till = Till::new();
    let asked = till.record("/api/payments", &payment("p-1", "0712345678", 5_000)).await;
    let retry = till.post(&format!("/api/payments/{asked}/retry"), &json!({})).await;
    assert_eq!(retry.problem().0, "payment_not_declined");
    let first = till.record(&format!("/api/payments/{asked}/give-up"), &json!({ "instead": "cash" })).await;
    let again = till.post(&format!("/api/payments/{asked}/give-up"), &json!({ "instead": "cash" })).await.json();
    assert_eq!((&again["id"], &again["repeated"]), (&json!(first), &json!(true)));
    let view = till.found(&format!("/api/payments/{asked}")).await;
    assert_eq!((&view["state"], &view["given_up"]["granted"]), (&json!("open"), &Value::Null));
    let unknown = "00000000-0000-8000-8000-000000000000";
    for call in ["retry", "give-up", "code"] {
        let body = match call {
            "retry" => json!({}),
            "give-up" => json!({ "instead": "void" }),
            _ => json!({ "code": "SFF6XYZ123" }),
        };
        assert_eq!(till.post(&format!("/api/payments/{unknown}/{call}"), &body).await.problem().0, "not_found");
    }
}

#[tokio::test]
async fn a_receipt_number_is_claimed_once() {
    let till = Till::new();
    let one = till.record("/api/payments", &payment("p-1", "0712345678", 5_000)).await;
    let two = till.record("/api/payments", &payment("p-2", "0712345679", 5_000)).await;
    let code = |payment: &str| format!("/api/payments/{payment}/code");
    assert_eq!(till.post(&code(&one), &json!({ "code": "no; such" })).await.json()["field"], "code");
    till.record(&code(&one), &json!({ "code": " sff6xyz123 " })).await;
    assert_eq!(till.post(&code(&one), &json!({ "code": "SFF6XYZ123" })).await.json()["repeated"], true);
    assert_eq!(till.post(&code(&two), &json!({ "code": "SFF6XYZ123" })).await.problem().0, "code_claimed");
    assert_eq!(till.found(&format!("/api/payments/{one}")).await["codes"], json!(["SFF6XYZ123"]));
}

#[tokio::test]
async fn what_may_be_promised_is_limited_and_repeating_a_promise_is_not() {
    let till = Till::new();
    till.patch("/api/settings", &json!({ "promise_phone_max_minor": 8_000, "promise_device_max_minor": 20_000 })).await;
    till.record("/api/payments", &payment("p-1", "0712345678", 5_000)).await;
    let over = till.post("/api/payments", &payment("p-2", "0712 345 678", 4_000)).await;
    assert_eq!(over.problem().0, "promise_limit");
    assert!(over.json()["detail"].as_str().unwrap().contains("promise_phone_max_minor"));
    till.record("/api/payments", &payment("p-3", "0712345679", 8_000)).await;
    assert_eq!(till.post("/api/payments", &payment("p-1", "0712345678", 5_000)).await.json()["repeated"], true);
    let sale = json!({
        "lines": [{ "sku": "BREAD", "quantity_milli": 1000, "unit_price_minor": 8_000 }],
        "currency": "KES", "tenders": [{ "kind": "mpesa", "amount_minor": 8_000, "phone": "0712345670" }],
    });
    let over = till.post("/api/sales", &sale).await;
    assert!(over.json()["detail"].as_str().unwrap().contains("promise_device_max_minor"));
    let negative = till.patch("/api/settings", &json!({ "promise_day_max_minor": -1 })).await;
    assert_eq!(negative.json()["field"], "promise_day_max_minor");
}

#[tokio::test]
async fn there_is_nothing_to_settle_where_nothing_is_in_review() {
    let till = Till::new();
    let asked = till.record("/api/payments", &payment("p-1", "0712345678", 5_000)).await;
    for settlement in ["as_booked", "not_paid", "keep", "reverse"] {
        let body = json!({ "subject": asked, "settlement": { "kind": settlement } });
        assert_eq!(till.post("/api/proposals", &body).await.problem().0, "nothing_to_settle");
    }
    let check = till.post(&format!("/api/proposals/{asked}/check"), &json!({ "agreed": true })).await;
    assert_eq!(check.problem().0, "not_found");
    assert_eq!(till.found("/api/proposals").await["items"], json!([]));
    assert_eq!(till.found("/api/suspense").await["items"], json!([]));
    let statement = json!({ "lines": [{ "receipt_number": "SFF6XYZ123", "amount_minor": 100 }] });
    assert_eq!(till.post("/api/payments/statement", &statement).await.problem().0, "not_a_relay");
}

#[tokio::test]
async fn a_payment_names_a_provider_that_the_paying_relay_has() {
    use crdt_model::shop::{Operation, Settings};
    let till = Till::new();
    let by = |provider: &str, phone: Value| json!({ "operation_id": provider, "amount_minor": 6_550, "currency": "KES", "provider": provider, "phone": phone });
    let refused = till.post("/api/payments", &by("bank", Value::Null)).await;
    assert_eq!(refused.problem(), ("unknown_provider".to_owned(), Some("provider".to_owned())));
    assert!(refused.json()["detail"].as_str().unwrap().contains("choose one of mpesa"));
    let edits = Settings::name_providers(&["bank".to_owned(), "card".to_owned()]);
    till.shop.record(Operation { edits, ..Operation::default() }).await.unwrap();
    assert_eq!(till.found("/api/settings").await["payment_providers"], json!(["bank", "card"]));
    // Cents, and no phone: what M-PESA can't do, others may.
    let asked = till.record("/api/payments", &by("bank", Value::Null)).await;
    assert_eq!(till.found(&format!("/api/payments/{asked}")).await["provider"], "bank");
    assert_eq!(till.post("/api/payments", &by("bank", Value::Null)).await.json()["repeated"], true);
    let other = json!({ "operation_id": "bank", "amount_minor": 6_550, "currency": "KES", "provider": "card" });
    assert_eq!(till.post("/api/payments", &other).await.problem().0, "operation_id_reused");
    assert_eq!(till.post("/api/payments", &by("mpesa", json!("0712345678"))).await.problem().0, "unsupported_tender");
    let whole = json!({ "amount_minor": 6_500, "currency": "KES", "phone": Value::Null });
    assert_eq!(
        till.post("/api/payments", &whole).await.problem(),
        ("invalid_field".to_owned(), Some("phone".to_owned()))
    );
}

#[tokio::test]
async fn only_the_owner_moves_payments_to_another_ledger_and_only_to_one() {
    use crdt_model::record::{Ledger, Role};
    use crdt_model::shop::{Operation, Settings};
    let (owner, relay) = (Till::new(), Till::of(7, Role::Relay, crdt_model::money::Currency::KES));
    let name =
        |ledger| Operation { edits: Settings::name_paying_relay(ledger, Some("174379")), ..Operation::default() };
    let old = Ledger { relay: relay.device, epoch: 1 };
    relay.shop.record(name(old)).await.unwrap();
    owner.meet(&relay);
    let named = async {
        while owner.found("/api/settings").await["paying_relay"]["epoch"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), named).await.unwrap();
    let asked = owner.record("/api/payments", &payment("p-1", "0712345678", 5_000)).await;
    let to = |to: &str, epoch: u64| json!({ "to": to, "to_epoch": epoch });
    assert_eq!(relay.post("/api/payments/moves", &to("till 7", 2)).await.problem().0, "not_an_owner");
    for (body, field) in [(to("nobody", 2), "to"), (to("till 1", 2), "to"), (to("till 7", 1), "to")] {
        assert_eq!(
            owner.post("/api/payments/moves", &body).await.problem(),
            ("invalid_field".to_owned(), Some(field.to_owned()))
        );
    }
    let moved = owner.record("/api/payments/moves", &to("till 7", 2)).await;
    let view = owner.found(&format!("/api/payments/{asked}")).await;
    assert_eq!((&view["ledger"]["epoch"], &view["moving_to"]["epoch"]), (&json!(1), &json!(2)));
    assert_eq!(owner.found("/api/settings").await["paying_relay"]["epoch"], 2, "new payments go there at once");
    let all = owner.found("/api/payments/moves").await;
    let one = &all["items"][0];
    assert_eq!((&one["id"], &one["waiting"], &one["gone_over"]), (&json!(moved), &json!(1), &json!(0)), "{all}");
    let from = json!({ "device": relay.device.to_string(), "epoch": 1 });
    let elsewhere = json!({ "from": from, "to": "till 7", "to_epoch": 3 });
    assert_eq!(owner.post("/api/payments/moves", &elsewhere).await.problem().0, "ledger_moved");
    assert_eq!(owner.post("/api/payments/moves", &to("till 7", 1)).await.problem().0, "ledger_moved");
    let again = json!({ "from": from, "to": "till 7", "to_epoch": 2 });
    assert_eq!(owner.post("/api/payments/moves", &again).await.json()["repeated"], true);
}
