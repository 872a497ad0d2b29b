//! The provider is asked about receipt numbers that customers show.

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::record::{CodeClaim, Evidence, Fact, PaymentFact};
use crdt_model::shop::Operation;
use serde_json::{Value, json};

use super::super::RelayConfig;
use super::rig::{CANCELS, Rig};

/// A relay that reads no list, for a shop with a till number.
async fn rig() -> Rig {
    let provider = super::rig::Provider::start().await;
    let mut config = RelayConfig { queries_a_minute: 6_000, ..provider.config() };
    if let Some(mpesa) = &mut config.mpesa {
        mpesa.pull = false;
    }
    Rig::start_with(provider, config, Currency::KES).await
}

async fn declined(rig: &Rig) -> RecordId {
    let intent = rig.device.promise("mpesa", 6500, CANCELS).await;
    rig.device.until(intent, IntentState::Declined).await;
    intent
}

async fn show(rig: &Rig, intent: RecordId, code: &str) {
    let claim = CodeClaim { intent, provider: "mpesa".to_owned(), code: code.to_owned() };
    let facts = vec![Fact::Payment(PaymentFact::CodeClaim(claim))];
    rig.device.shop.record(Operation { facts, ..Operation::default() }).await.unwrap();
}

async fn pay_by_hand(rig: &Rig, amount_minor: i64, status: Value) -> String {
    let order = json!({ "phone": "0799999999", "amount_minor": amount_minor, "confirmations": 0, "status": status });
    let paid = rig.provider.order("/simulator/pay", &order).await;
    paid["receipt_number"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_payment_by_hand_that_nobody_reported_is_confirmed_by_asking_for_its_number() {
    let rig = rig().await;
    let intent = declined(&rig).await;
    // The result comes three times, and a forged one before it.
    let code = pay_by_hand(&rig, 6500, json!({ "repeat": 3, "forged": true })).await;
    show(&rig, intent, &code).await;
    let payment = rig.device.until(intent, IntentState::Paid).await;
    let [receipt] = payment.receipts.as_slice() else { panic!("{:?}", payment.receipts) };
    assert_eq!(
        (receipt.number.as_str(), receipt.amount.minor, receipt.evidence),
        (code.as_str(), 6500, Evidence::Query)
    );
    assert_eq!(rig.provider.counts().await.forgeries_taken, 0);
}

#[tokio::test]
async fn a_number_that_the_provider_denies_books_nothing_and_another_amount_is_suspended() {
    let rig = rig().await;
    let (first, second) = (declined(&rig).await, rig.device.promise("mpesa", 6500, "0700000002").await);
    rig.device.until(second, IntentState::Declined).await;
    let denied = pay_by_hand(&rig, 6500, json!({ "denies": true })).await;
    let other = pay_by_hand(&rig, 6400, json!({})).await;
    show(&rig, first, &denied).await;
    show(&rig, second, &other).await;
    let mut changes = rig.device.shop.changes();
    let suspense = super::rig::patiently("suspense", async {
        loop {
            let found = rig.device.shop.ask(|shop| shop.books().suspense().next()).await.unwrap();
            match found {
                Some(entry) => return entry,
                None => drop(changes.recv().await),
            }
        }
    });
    let suspense = suspense.await;
    assert_eq!(
        (suspense.number.as_str(), suspense.amount.minor, suspense.intent),
        (other.as_str(), 6400, Some(second))
    );
    for intent in [first, second] {
        let payment = rig.device.payment(intent).await.unwrap();
        assert_eq!((payment.state, payment.receipts.len()), (IntentState::Declined, 0));
    }
}
