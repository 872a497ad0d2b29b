//! Money in suspense goes one way: to a payment, or back to the customer.

use std::time::Duration;

use crdt_model::books::{IntentState, ProposalState, SuspenseEntry};
use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::record::{Check, CodeClaim, Fact, OutcomeState, PaymentFact, Proposal, Role, Settlement};
use crdt_model::shop::Operation;
use serde_json::json;
use transport::LinkIds;

use super::super::RelayConfig;
use super::rig::{CANCELS, Device, Provider, Rig, identity, link, patiently};
use crate::storage::MemoryDisk;

async fn record(device: &Device, fact: PaymentFact) -> RecordId {
    let operation = Operation { facts: vec![Fact::Payment(fact)], ..Operation::default() };
    device.shop.record(operation).await.unwrap().records[0]
}

async fn propose(device: &Device, subject: RecordId, settlement: Settlement, ordinal: u32) -> RecordId {
    let proposal = Proposal { subject, settlement, note: "at the counter".to_owned(), ordinal };
    record(device, PaymentFact::Proposal(proposal)).await
}

async fn show(device: &Device, intent: RecordId, code: &str) {
    let code = code.to_owned();
    record(device, PaymentFact::CodeClaim(CodeClaim { intent, provider: "mpesa".to_owned(), code })).await;
}

async fn wait_for<T>(device: &Device, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut changes = device.shop.changes();
    let waiting = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => drop(changes.recv().await),
            }
        }
    };
    patiently(what, waiting).await
}

async fn outcome(device: &Device, proposal: RecordId, state: OutcomeState) -> ProposalState {
    wait_for(device, &format!("{state:?}"), async || {
        let known = device.shop.ask(move |shop| shop.books().proposal(proposal)).await.unwrap();
        known.filter(|known| known.outcomes.last().is_some_and(|(last, ..)| *last == state))
    })
    .await
}

/// A customer pays by hand, and the provider reports it.
async fn suspended(rig: &Rig) -> SuspenseEntry {
    let order = json!({ "phone": "0799999999", "amount_minor": 6500, "account": "BREAD", "confirmations": 1 });
    let paid = rig.provider.order("/simulator/pay", &order).await;
    let number = paid["receipt_number"].as_str().unwrap().to_owned();
    wait_for(&rig.device, "suspense", async || {
        let number = number.clone();
        let all = rig.device.shop.ask(|shop| shop.books().suspense().collect::<Vec<_>>()).await.unwrap();
        all.into_iter().find(|entry| entry.number == number)
    })
    .await
}

async fn declined(rig: &Rig) -> RecordId {
    let intent = rig.device.promise("mpesa", 6500, CANCELS).await;
    rig.device.until(intent, IntentState::Declined).await;
    intent
}

/// A relay, and a second person's device beside it.
async fn rig() -> (Rig, Device) {
    let provider = Provider::start().await;
    let often = Duration::from_millis(50);
    let config = RelayConfig { pull_every: often, check_every: often, ..provider.config() };
    let rig = Rig::start_with(provider, config, Currency::KES).await;
    let second = Device::start(&MemoryDisk::new(), identity(2, Role::Till, Currency::KES), false);
    link(&LinkIds::default(), &rig.device, &second);
    (rig, second)
}

/// Both have it, and it is agreed on.
async fn agree(second: &Device, proposal: RecordId) {
    wait_for(second, "the proposal", async || {
        second.shop.ask(move |shop| shop.books().proposal(proposal)).await.unwrap()
    })
    .await;
    record(second, PaymentFact::Check(Check { proposal, agreed: true, note: String::new() })).await;
}

#[tokio::test]
async fn money_that_was_claimed_meanwhile_is_not_sent_back() {
    let (rig, second) = rig().await;
    let (entry, intent) = (suspended(&rig).await, declined(&rig).await);
    let proposal = propose(&rig.device, entry.record, Settlement::Reverse, 0).await;
    show(&rig.device, intent, &entry.number).await;
    rig.device.until(intent, IntentState::Paid).await;
    agree(&second, proposal).await;
    outcome(&rig.device, proposal, OutcomeState::Failed).await;
    rig.device.until(intent, IntentState::Paid).await;
    assert_eq!(rig.provider.counts().await.reversals, 0);
}

#[tokio::test]
async fn money_that_was_sent_back_pays_nothing_however_often_it_is_listed() {
    let (rig, second) = rig().await;
    let (entry, intent) = (suspended(&rig).await, declined(&rig).await);
    let back = propose(&rig.device, entry.record, Settlement::Reverse, 0).await;
    let to_intent = propose(&rig.device, entry.record, Settlement::Assign(intent), 1).await;
    agree(&second, back).await;
    outcome(&rig.device, back, OutcomeState::Done).await;
    // Another two agreed on something else, and the customer shows the number.
    agree(&second, to_intent).await;
    outcome(&rig.device, to_intent, OutcomeState::Failed).await;
    show(&rig.device, intent, &entry.number).await;
    let read = rig.provider.counts().await.pulls;
    // A list ends with an empty page.
    rig.provider.until(|counts| counts.pulls >= read + 6).await;
    let payment = rig.device.payment(intent).await.unwrap();
    assert_eq!((payment.state, payment.receipts.len()), (IntentState::Declined, 0));
}
