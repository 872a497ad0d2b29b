//! A shift changes hands as an app sees it, and what is refused meanwhile.

use crdt_model::money::Currency;
use crdt_model::record::Role;
use serde_json::{Value, json};

use super::support::{Till, bread};

/// Two linked tills; the first, with the owner's key, has an open shift with one sale.
async fn linked() -> (Till, Till, String) {
    let (giver, receiver) = (Till::new(), Till::of(2, Role::Till, Currency::KES));
    let shift = giver.record("/api/shifts", &json!({ "float_minor": 100_000 })).await;
    giver.record("/api/sales", &bread()).await;
    receiver.record("/api/sales", &bread()).await;
    giver.meet(&receiver);
    giver.until(|shop| (shop.books().count_of(crdt_model::record::Kind::Sale) == 2).then_some(())).await;
    (giver, receiver, shift)
}

async fn reaches(till: &Till, id: &str, status: &str) -> Value {
    let (id, path) = (id.to_owned(), format!("/api/handoffs/{id}"));
    let id: crdt_model::ids::RecordId = id.parse().unwrap();
    loop {
        till.until(move |shop| shop.books().handoff(id).map(drop)).await;
        let found = till.found(&path).await;
        if found["status"] == status {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_shift_is_offered_accepted_and_completed() {
    let (giver, receiver, shift) = linked().await;
    let ticket = giver.record("/api/tickets", &json!({ "name": "Table 4" })).await;
    let offer = json!({ "operation_id": "h-1", "to": "till 2", "counted_minor": 112_500, "note": "10 short" });
    let id = giver.record("/api/handoffs", &offer).await;
    let again = giver.post("/api/handoffs", &offer).await.json();
    assert_eq!((again["id"].clone(), again["repeated"].clone()), (json!(id), json!(true)));
    let other = json!({ "operation_id": "h-1", "to": "till 2", "counted_minor": 1 });
    assert_eq!(giver.post("/api/handoffs", &other).await.problem().0, "shift_frozen");

    let offered = reaches(&receiver, &id, "offered").await;
    assert_eq!((offered["role"].clone(), offered["expected_minor"].clone()), (json!("receiver"), json!(113_000)));
    assert_eq!(offered["tickets"], json!([ticket]));
    assert_eq!(giver.post("/api/sales", &bread()).await.problem().0, "shift_frozen");
    let count = json!({ "counted_minor": 112_500 });
    assert_eq!(giver.post(&format!("/api/shifts/{shift}/close"), &count).await.problem().0, "shift_frozen");
    let rename = giver.patch(&format!("/api/tickets/{ticket}"), &json!({ "name": "Table 5" })).await;
    assert_eq!(rename.problem().0, "ticket_offered");
    assert_eq!(giver.found(&format!("/api/shifts/{shift}")).await["status"], "frozen");
    assert_eq!(giver.post(&format!("/api/handoffs/{id}/withdraw"), &json!({})).await.problem().0, "handoff_not_safe");

    let accept = format!("/api/handoffs/{id}/accept");
    let wrong = receiver.post(&accept, &json!({ "counted_minor": 5 })).await.problem();
    assert_eq!(wrong, ("count_differs".to_owned(), Some("counted_minor".to_owned())));
    receiver.record(&accept, &count).await;
    assert_eq!(receiver.post(&accept, &count).await.json()["repeated"], true);
    reaches(&receiver, &id, "completed").await;
    let held = receiver.found(&format!("/api/shifts/{shift}")).await;
    assert_eq!((held["status"].clone(), held["held_by"].clone()), (json!("open"), json!(receiver.device.to_string())));
    let elsewhere = giver.post(&format!("/api/shifts/{shift}/close"), &count).await;
    assert_eq!(elsewhere.problem().0, "shift_elsewhere");
    let drawer = json!({ "counted_minor": 112_500, "note": "still 10 short" });
    receiver.record(&format!("/api/shifts/{shift}/close"), &drawer).await;
    let report = receiver.found(&format!("/api/reports/z?shift={shift}")).await;
    assert_eq!(report["shift"]["difference_minor"], -500);
    assert_eq!(report["shift"]["handoffs"], json!([id]));
}

#[tokio::test]
async fn a_frozen_till_goes_on_in_another_shift_and_a_declined_one_comes_back() {
    let (giver, receiver, shift) = linked().await;
    let id =
        giver.record("/api/handoffs", &json!({ "to": receiver.device.to_string(), "counted_minor": 113_000 })).await;
    assert_eq!(giver.post("/api/expenses", &expense()).await.problem().0, "shift_frozen");
    let second = giver.record("/api/shifts", &json!({ "float_minor": 5_000 })).await;
    giver.record("/api/expenses", &expense()).await;
    reaches(&receiver, &id, "offered").await;
    receiver.record(&format!("/api/handoffs/{id}/withdraw"), &json!({ "reason": "not my shift" })).await;
    reaches(&giver, &id, "returning").await;
    giver.record(&format!("/api/shifts/{second}/close"), &json!({ "counted_minor": 4_000 })).await;
    reaches(&giver, &id, "withdrawn").await;
    giver.record("/api/sales", &bread()).await;
    let report = giver.found(&format!("/api/reports/z?shift={shift}")).await;
    assert_eq!(report["shift"]["cash_expected_minor"], 126_000);
}

fn expense() -> Value {
    json!({ "category": "rent", "amount_minor": 1_000, "currency": "KES" })
}

#[tokio::test]
async fn the_owner_decides_and_the_decision_is_a_conflict_with_both_sides() {
    let (giver, receiver, shift) = linked().await;
    let id = giver.record("/api/handoffs", &json!({ "to": "till 2", "counted_minor": 113_000 })).await;
    let decide = format!("/api/handoffs/{id}/decide");
    reaches(&receiver, &id, "offered").await;
    let refused = receiver.post(&decide, &json!({ "to": "receiver" })).await;
    assert_eq!(refused.problem().0, "not_an_owner");
    giver.record(&decide, &json!({ "to": "giver", "note": "he went home" })).await;
    assert_eq!(giver.post(&decide, &json!({ "to": "receiver" })).await.problem().0, "handoff_past");
    let ended = reaches(&receiver, &id, "withdrawn").await;
    assert_eq!(ended["decision"]["to"], "giver");
    assert_eq!(giver.found(&format!("/api/shifts/{shift}")).await["status"], "open");
    let conflicts = receiver.found("/api/conflicts?all=true").await;
    assert_eq!(conflicts["items"][0]["kind"], "handoff_decided");
    assert_eq!(conflicts["items"][0]["resolution"]["note"], "he went home");
}

#[tokio::test]
async fn only_the_receiver_accepts_and_it_waits_for_the_giver() {
    let (giver, receiver, _) = linked().await;
    let third = Till::of(4, Role::Till, Currency::KES);
    receiver.meet(&third);
    let id = giver.record("/api/handoffs", &json!({ "to": "till 2", "counted_minor": 113_000 })).await;
    reaches(&receiver, &id, "offered").await;
    reaches(&third, &id, "offered").await;
    giver.stop().await;
    let accept = format!("/api/handoffs/{id}/accept");
    assert_eq!(third.post(&accept, &json!({})).await.problem().0, "handoff_not_yours");
    receiver.record(&accept, &json!({})).await;
    let waiting = receiver.post("/api/shifts", &json!({ "float_minor": 0 })).await;
    assert_eq!(waiting.problem().0, "handoff_waiting");
    receiver.record("/api/sales", &bread()).await;
}

#[tokio::test]
async fn what_can_not_be_handed_over_says_why() {
    let (giver, receiver, _) = linked().await;
    let offer = |to: &str| json!({ "to": to, "counted_minor": 0 });
    for to in ["till 9", "till 1", &giver.device.to_string()] {
        assert_eq!(giver.post("/api/handoffs", &offer(to)).await.problem().1.as_deref(), Some("to"), "{to}");
    }
    let none_open = receiver.post("/api/handoffs", &offer("till 1")).await.problem();
    assert_eq!(none_open.1.as_deref(), Some("shift_id"));
    let unknown = "00000000-0000-8000-8000-000000000000";
    for word in ["accept", "withdraw"] {
        let refused = giver.post(&format!("/api/handoffs/{unknown}/{word}"), &json!({})).await;
        assert_eq!(refused.status, 404, "{}", refused.text());
    }
}

#[tokio::test]
async fn shifts_opened_and_refunds_made_at_the_same_moment_do_not_both_pass() {
    let till = Till::new();
    let float = json!({ "float_minor": 100 });
    let (one, two) = tokio::join!(till.post("/api/shifts", &float), till.post("/api/shifts", &float));
    assert_eq!([one.status, two.status].iter().filter(|status| status.is_success()).count(), 1);
    let sale = till.record("/api/sales", &bread()).await;
    let refund = json!({ "reason": "stale" });
    let path = format!("/api/sales/{sale}/refund");
    let (one, two) = tokio::join!(till.post(&path, &refund), till.post(&path, &refund));
    let refused = if one.status.is_success() { two } else { one };
    assert_eq!(refused.problem().0, "refund_too_large");
    let line = json!([{ "sku": "BREAD", "quantity_milli": 1000, "unit_price_minor": 1 }]);
    let cheap = till.post(&path, &json!({ "reason": "stale", "lines": line })).await.problem();
    assert_eq!(cheap.1.as_deref(), Some("lines[0].quantity_milli"), "nothing is left, whatever the price");
}
