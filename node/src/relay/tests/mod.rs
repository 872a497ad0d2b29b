//! The engine against the simulator over loopback HTTP, on a real shop loop.

mod cash_instead;
mod handover;
mod other_provider;
mod rig;
mod secrecy;
mod status;
mod suspense;

use std::sync::atomic::Ordering;

use crdt_model::books::IntentState;
use crdt_model::money::Currency;
use crdt_model::payment::{AttemptState, ReviewReason};
use crdt_model::record::{Evidence, Fact, IntentConfirmed, Role};
use crdt_model::shop::Operation;
use reqwest::StatusCode;
use transport::LinkIds;

use super::{Relay, Standing, StartError, Waiting};
use crate::payments::simulator::{Behaviour, Kind};
use crate::storage::MemoryDisk;
use rig::{
    CALLBACK_FIRST, CANCELS, Device, NEVER_ANSWERS, PAYS, Provider, Rig, THREE_CALLBACKS, callback, identity, link,
    path, paying, set_clock, status,
};

fn confirmed(intent: crdt_model::ids::RecordId) -> Operation {
    Operation { facts: vec![Fact::IntentConfirmed(IntentConfirmed { intent })], ..Operation::default() }
}

#[tokio::test]
async fn a_customer_pays_and_the_receipt_is_what_was_charged() {
    let rig = Rig::start().await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    let payment = rig.device.until(intent, IntentState::Paid).await;
    let charged = rig.provider.charged().await;
    assert_eq!(charged.len(), 1);
    let [receipt] = payment.receipts.as_slice() else { panic!("{:?}", payment.receipts) };
    assert_eq!((&receipt.number, receipt.amount.minor), (&charged[0].receipt_number, 6500));
    assert_eq!((receipt.evidence, receipt.test, receipt.accepted), (Evidence::Callback, true, true));
    assert_eq!(rig.states(intent), [AttemptState::Paid]);
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_customer_who_cancels_is_declined_with_the_providers_code() {
    let rig = Rig::start().await;
    let intent = rig.device.promise("mpesa", 6500, CANCELS).await;
    let payment = rig.device.until(intent, IntentState::Declined).await;
    assert_eq!(payment.declines[0].code, "1032");
    assert_eq!((rig.states(intent), rig.provider.charged().await.len()), (vec![AttemptState::Failed], 0));
}

#[tokio::test]
async fn without_an_answer_the_payment_stays_open_and_is_not_asked_for_again() {
    let provider = Provider::start().await;
    let config = provider.impatient();
    let rig = Rig::start_with(provider, config, Currency::KES).await;
    let intent = rig.device.promise("mpesa", 6500, NEVER_ANSWERS).await;
    let open = |status: &super::RelayStatus| status.waiting.get(&intent) == Some(&Waiting::Outcome);
    rig.status("an open outcome", |status| open(status) && status.asking == 0).await;
    assert_eq!(rig.states(intent), [AttemptState::Unknown]);
    // A cashier's word is no reason to charge again what may have been charged.
    rig.device.shop.record(confirmed(intent)).await.unwrap();
    let other = rig.device.promise("mpesa", 100, PAYS).await;
    rig.device.until(other, IntentState::Paid).await;
    rig.status("an open outcome", |status| open(status) && status.queued == 0).await;
    assert_eq!(rig.device.payment(intent).await.unwrap().state, IntentState::Open);
    assert_eq!((rig.provider.counts().await.pushes, rig.attempts(intent).len()), (2, 1));
}

#[tokio::test]
async fn repeated_and_reordered_callbacks_are_one_receipt() {
    let rig = Rig::start().await;
    let intent = rig.device.promise("mpesa", 6500, THREE_CALLBACKS).await;
    rig.device.until(intent, IntentState::Paid).await;
    rig.provider.until(|counts| counts.callbacks_taken == 3).await;
    let charged = rig.provider.charged().await;
    let (checkout, receipt) = (&charged[0].checkout_request_id, charged[0].receipt_number.as_str());
    let late = path(&rig.device.identity, intent, 1);
    for body in [callback(checkout, 1032, None), callback(checkout, 0, Some((receipt, 6500)))] {
        assert_eq!(rig.provider.call_back(&rig.relay, &late, body).await, StatusCode::OK);
    }
    let next = rig.device.promise("mpesa", 100, PAYS).await;
    rig.device.until(next, IntentState::Paid).await;
    let payment = rig.device.payment(intent).await.unwrap();
    assert_eq!((payment.state, payment.receipts.len(), payment.declines.len()), (IntentState::Paid, 1, 0));
    assert_eq!(rig.states(intent), [AttemptState::Paid]);
}

#[tokio::test]
async fn a_callback_that_overtakes_the_answer_is_booked_once() {
    let rig = Rig::start().await;
    let intent = rig.device.promise("mpesa", 6500, CALLBACK_FIRST).await;
    let payment = rig.device.until(intent, IntentState::Paid).await;
    rig.status("the answer", |status| status.asking == 0).await;
    assert_eq!((payment.receipts.len(), rig.states(intent)), (1, vec![AttemptState::Paid]));
    assert_eq!(rig.provider.charged().await.len(), 1);
}

#[tokio::test]
async fn a_crash_while_the_provider_is_called_never_leads_to_a_second_call() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour { delay_ms: 2_000, ..Behaviour::timeout(true) }).await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.provider.until(|counts| counts.pushes == 1).await;
    assert_eq!(rig.states(intent), [AttemptState::Calling]);

    let rig = rig.crash(false).await;
    rig.status("an open outcome", |status| status.waiting.get(&intent) == Some(&Waiting::Outcome)).await;
    assert_eq!(rig.states(intent), [AttemptState::Unknown]);
    rig.provider.behave(Behaviour::new(Kind::Pay)).await;
    // The customer is charged now, and the call back goes to where the relay no longer is.
    rig.provider.until(|counts| counts.charges == 1 && counts.callbacks_lost == 1).await;
    let other = rig.device.promise("mpesa", 100, "254711111111").await;
    rig.device.until(other, IntentState::Paid).await;
    assert_eq!(rig.provider.counts().await.pushes, 2);

    let charged = rig.provider.charged().await;
    let line = charged.iter().find(|line| line.amount_minor == 6500).unwrap();
    let body = callback(&line.checkout_request_id, 0, Some((&line.receipt_number, 6500)));
    let path = path(&rig.device.identity, intent, 1);
    assert_eq!(rig.provider.call_back(&rig.relay, &path, body).await, StatusCode::OK);
    let payment = rig.device.until(intent, IntentState::Paid).await;
    assert_eq!((payment.receipts.len(), rig.provider.counts().await.charges), (1, 2));
}

#[tokio::test]
async fn a_callback_kept_just_before_a_crash_is_booked_after_it() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("acceptance", |status| status.waiting.get(&intent) == Some(&Waiting::Outcome)).await;
    rig.provider.until(|counts| counts.charges == 1).await;
    let line = rig.provider.charged().await.remove(0);
    let body = callback(&line.checkout_request_id, 0, Some((&line.receipt_number, 6500)));
    let Rig { disk, device, provider, relay } = rig;
    drop(relay);
    // As the listener keeps it, with no engine left to process it.
    device.shop.write_rows(vec![super::rows::Arrival::new(intent, 1, &body).put(&body)]).await.unwrap();
    let device = Device::start(&disk, device.identity, false);
    let relay = paying(&device, provider.config()).await;
    let payment = device.until(intent, IntentState::Paid).await;
    assert_eq!(payment.receipts.len(), 1);
    relay.stop().await;
}

#[tokio::test]
async fn an_intent_that_two_devices_deliver_is_charged_once() {
    let rig = Rig::start().await;
    let (mama, baba) = (MemoryDisk::new(), MemoryDisk::new());
    let mama = Device::start(&mama, identity(2, Role::Till, Currency::KES), false);
    let baba = Device::start(&baba, identity(3, Role::Till, Currency::KES), false);
    let intent = mama.promise("mpesa", 6500, PAYS).await;
    let ids = LinkIds::default();
    link(&ids, &mama, &baba);
    link(&ids, &mama, &rig.device);
    link(&ids, &baba, &rig.device);
    for device in [&mama, &baba, &rig.device] {
        assert_eq!(device.until(intent, IntentState::Paid).await.receipts.len(), 1);
    }
    assert_eq!((rig.provider.counts().await.pushes, rig.provider.charged().await.len()), (1, 1));
}

#[tokio::test]
async fn an_old_intent_waits_for_the_cashiers_word() {
    const HALF_HOUR_MS: u64 = 30 * 60 * 1000;
    let provider = Provider::start().await;
    let device = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let (at, clock) = set_clock();
    at.store(crate::shop_loop::now().0, Ordering::SeqCst);
    let relay = Relay::start_at(device.shop.clone(), &device.identity, provider.config(), clock).await.unwrap();
    status(&relay, "its claim", |status| status.standing == Standing::Paying).await;
    at.store(u64::MAX / 2, Ordering::SeqCst);
    let intent = device.promise("mpesa", 6500, PAYS).await;
    let promised = device.payment(intent).await.unwrap().time.wall();
    status(&relay, "its wait", |status| status.waiting.get(&intent) == Some(&Waiting::Confirmation)).await;
    // The word must be a millisecond younger than the intent, for the clock to stand between.
    at.store(promised.0 + HALF_HOUR_MS + 1, Ordering::SeqCst);
    while device.shop.record(confirmed(intent)).await.unwrap().time.wall() <= promised {}
    device.until(intent, IntentState::Paid).await;
    assert_eq!(provider.counts().await.pushes, 1);
}

#[tokio::test]
async fn other_currencies_and_part_shillings_are_declined_without_asking() {
    for (currency, amount_minor, code) in [
        (Currency::GBP, 6500, "unsupported_currency"),
        (Currency::KES, 6550, "part_shilling"),
        (Currency::KES, 25_000_100, "amount_out_of_range"),
    ] {
        let provider = Provider::start().await;
        let config = provider.config();
        let rig = Rig::start_with(provider, config, currency).await;
        let intent = rig.device.promise("mpesa", amount_minor, PAYS).await;
        let payment = rig.device.until(intent, IntentState::Declined).await;
        assert_eq!((payment.declines[0].code.as_str(), rig.attempts(intent).len()), (code, 0));
        assert_eq!(rig.provider.counts().await.pushes, 0);
    }
}

#[tokio::test]
async fn a_declined_payment_is_asked_for_again_only_on_request_and_after_a_pause() {
    let provider = Provider::start().await;
    let device = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let (at, clock) = set_clock();
    at.store(crate::shop_loop::now().0, Ordering::SeqCst);
    let relay = Relay::start_at(device.shop.clone(), &device.identity, provider.config(), clock).await.unwrap();
    provider.behave(Behaviour::decline("1")).await;
    let intent = device.promise("mpesa", 6500, PAYS).await;
    device.until(intent, IntentState::Declined).await;
    provider.behave(Behaviour::new(Kind::Pay)).await;
    device.shop.record(confirmed(intent)).await.unwrap();
    status(&relay, "its pause", |status| status.waiting.get(&intent) == Some(&Waiting::Pause)).await;
    at.fetch_add(super::intake::RETRY_PAUSE_MS, Ordering::SeqCst);
    device.shop.record(confirmed(intent)).await.unwrap();
    let payment = device.until(intent, IntentState::Paid).await;
    assert_eq!((payment.receipts.len(), provider.counts().await.pushes), (1, 2));
}

#[tokio::test]
async fn a_person_asks_again_each_time_and_three_times_at_most() {
    let provider = Provider::start().await;
    let device = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let (at, clock) = set_clock();
    at.store(crate::shop_loop::now().0, Ordering::SeqCst);
    let relay = Relay::start_at(device.shop.clone(), &device.identity, provider.config(), clock).await.unwrap();
    provider.behave(Behaviour::decline("1032")).await;
    let intent = device.promise("mpesa", 6500, PAYS).await;
    let idle =
        |status: &super::RelayStatus| !status.waiting.contains_key(&intent) && status.asking == 0 && status.queued == 0;
    for attempts in 1..=3 {
        let pushed = |count: u64| provider.until(move |counts| counts.pushes == count);
        pushed(attempts).await;
        device.until(intent, IntentState::Declined).await;
        status(&relay, "its rest", idle).await;
        assert_eq!(provider.counts().await.pushes, attempts);
        let again = crate::operations::retry_payment(&device.shop, intent).await;
        let Ok(again) = again else {
            assert_eq!(attempts, 3);
            let refused = again.unwrap_err().to_string();
            assert!(refused.contains("3 times"), "{refused}");
            return;
        };
        assert!(attempts < 3);
        device.shop.record(again.operation).await.unwrap();
        status(&relay, "its pause", |status| status.waiting.get(&intent) == Some(&Waiting::Pause)).await;
        at.fetch_add(super::intake::RETRY_PAUSE_MS, Ordering::SeqCst);
        // A word of confirmation makes the relay look again at once.
        device.shop.record(confirmed(intent)).await.unwrap();
    }
}

#[tokio::test]
async fn a_callback_without_the_token_is_not_found_and_an_oversized_one_is_refused() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("acceptance", |status| status.waiting.get(&intent) == Some(&Waiting::Outcome)).await;
    let good = path(&rig.device.identity, intent, 1);
    let (stem, _) = good.rsplit_once('/').unwrap();
    let others = path(&identity(9, Role::Relay, Currency::KES), intent, 1);
    let second = path(&rig.device.identity, intent, 2).replace("/2/", "/1/");
    let paid = || callback("ws_CO_forged", 0, Some(("SFF6XYZ123", 6500)));
    for wrong in [format!("{stem}/00"), others, second, "/callbacks/x/1/00".to_owned(), "/".to_owned()] {
        assert_eq!(rig.provider.call_back(&rig.relay, &wrong, paid()).await, StatusCode::NOT_FOUND, "{wrong}");
    }
    let large = vec![b' '; crate::payments::CALLBACK_BYTES_MAX + 1];
    assert_eq!(rig.provider.call_back(&rig.relay, &good, large).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rig.states(intent), [AttemptState::Accepted]);
    assert_eq!(rig.device.payment(intent).await.unwrap().receipts, []);
}

#[tokio::test]
async fn a_wrong_amount_or_another_checkout_books_nothing_and_calls_for_a_person() {
    for (checkout, amount_minor, reason) in
        [(None, 100, ReviewReason::WrongAmount), (Some("ws_CO_forged"), 6500, ReviewReason::OtherCheckout)]
    {
        let rig = Rig::start().await;
        rig.provider.behave(Behaviour::new(Kind::Silent)).await;
        let intent = rig.device.promise("mpesa", 6500, PAYS).await;
        rig.status("acceptance", |status| status.waiting.get(&intent) == Some(&Waiting::Outcome)).await;
        let known = rig.attempts(intent)[0].ids().unwrap().checkout_id.clone();
        let body = callback(checkout.unwrap_or(&known), 0, Some(("SFF6XYZ123", amount_minor)));
        let path = path(&rig.device.identity, intent, 1);
        assert_eq!(rig.provider.call_back(&rig.relay, &path, body).await, StatusCode::OK);
        let other = rig.device.promise("cash", 100, PAYS).await;
        rig.device.until(other, IntentState::Paid).await;
        while rig.attempts(intent)[0].review().is_none() {
            rig.device.payment(intent).await.unwrap();
        }
        assert_eq!(rig.attempts(intent)[0].review(), Some(reason));
        assert_eq!(rig.device.payment(intent).await.unwrap().receipts, []);
    }
}

#[tokio::test]
async fn a_callback_that_cant_be_kept_is_not_acknowledged() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("acceptance", |status| status.waiting.get(&intent) == Some(&Waiting::Outcome)).await;
    rig.disk.fail_commit(1);
    let path = path(&rig.device.identity, intent, 1);
    let body = callback("ws_CO_any", 1032, None);
    assert_eq!(rig.provider.call_back(&rig.relay, &path, body).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn two_relays_that_name_themselves_at_once_both_stop_pushing() {
    let provider = Provider::start().await;
    let one = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let two = Device::start(&MemoryDisk::new(), identity(2, Role::Relay, Currency::KES), false);
    let (at, clock) = set_clock();
    at.store(u64::MAX / 2, Ordering::SeqCst);
    let first = Relay::start_at(one.shop.clone(), &one.identity, provider.config(), clock).await.unwrap();
    status(&first, "its claim", |status| status.standing == Standing::Paying).await;
    let second = paying(&two, provider.config()).await;
    // One intent is addressed already, and waits.
    let intent = one.promise("mpesa", 6500, PAYS).await;
    status(&first, "its wait", |status| status.waiting.contains_key(&intent)).await;
    link(&LinkIds::default(), &one, &two);
    for relay in [&first, &second] {
        let idle = |status: &super::RelayStatus| status.standing == Standing::Disputed && status.waiting.is_empty();
        status(relay, "the dispute", idle).await;
    }
    at.store(crate::shop_loop::now().0, Ordering::SeqCst);
    one.shop.record(confirmed(intent)).await.unwrap();
    let unaddressed = one.promise("mpesa", 6500, PAYS).await;
    two.until(unaddressed, IntentState::Open).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(provider.counts().await.pushes, 0);
}

#[tokio::test]
async fn a_relay_that_joins_later_learns_who_pays_and_only_stores() {
    let rig = Rig::start().await;
    let other = Device::start(&MemoryDisk::new(), identity(2, Role::Relay, Currency::KES), false);
    let mut config = rig.provider.config();
    config.claim_quiet = super::RelayConfig::default().claim_quiet;
    let relay = Relay::start(other.shop.clone(), &other.identity, config).await.unwrap();
    link(&LinkIds::default(), &rig.device, &other);
    let stores = |status: &super::RelayStatus| matches!(status.standing, Standing::Storing { .. });
    status(&relay, "the other's name", stores).await;
    let intent = other.promise("mpesa", 6500, PAYS).await;
    other.until(intent, IntentState::Paid).await;
    assert_eq!(rig.provider.counts().await.pushes, 1);
    assert_eq!(super::attempts(&other.shop, intent).unwrap(), []);
}

#[tokio::test]
async fn a_restored_relay_starts_frozen_and_still_books_what_comes_back() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let asked = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("acceptance", |status| status.waiting.get(&asked) == Some(&Waiting::Outcome)).await;
    rig.provider.until(|counts| counts.charges == 1).await;
    let rig = rig.crash(true).await;
    rig.status("its freeze", |status| matches!(status.standing, Standing::Frozen { .. })).await;
    let promised = rig.device.promise("mpesa", 100, PAYS).await;
    let line = rig.provider.charged().await.remove(0);
    let body = callback(&line.checkout_request_id, 0, Some((&line.receipt_number, 6500)));
    let path = path(&rig.device.identity, asked, 1);
    assert_eq!(rig.provider.call_back(&rig.relay, &path, body).await, StatusCode::OK);
    rig.device.until(asked, IntentState::Paid).await;
    assert_eq!(rig.device.payment(promised).await.unwrap().state, IntentState::Open);
    assert_eq!((rig.provider.counts().await.pushes, rig.attempts(promised).len()), (1, 0));
}

#[tokio::test]
async fn cash_settles_at_once() {
    let rig = Rig::start().await;
    let intent = rig.device.promise("cash", 6550, PAYS).await;
    let payment = rig.device.until(intent, IntentState::Paid).await;
    let [receipt] = payment.receipts.as_slice() else { panic!("{:?}", payment.receipts) };
    assert_eq!((receipt.evidence, receipt.test), (Evidence::Immediate, false));
    assert!(receipt.number.starts_with("CASH"));
}

#[tokio::test]
async fn while_the_provider_is_away_attempts_wait_uncalled() {
    let provider = Provider::nowhere().await;
    let config = provider.config();
    let rig = Rig::start_with(provider, config, Currency::KES).await;
    let intent = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("its wait", |status| matches!(status.waiting.get(&intent), Some(Waiting::Provider(_)))).await;
    assert_eq!(rig.states(intent), [AttemptState::Ready]);
}

#[tokio::test]
async fn many_payments_are_each_charged_once_a_few_at_a_time() {
    let rig = Rig::start().await;
    let mut intents = Vec::new();
    for number in 0..40 {
        intents.push(rig.device.promise("mpesa", 100, &format!("2547111111{number:02}")).await);
    }
    for intent in intents {
        rig.device.until(intent, IntentState::Paid).await;
        assert_eq!(rig.attempts(intent).len(), 1);
    }
    let counts = rig.provider.counts().await;
    assert_eq!((counts.pushes, counts.charges), (40, 40));
}

#[tokio::test]
async fn what_cant_pay_does_not_start() {
    let provider = Provider::start().await;
    let till = Device::start(&MemoryDisk::new(), identity(1, Role::Till, Currency::KES), false);
    let refused = Relay::start(till.shop.clone(), &till.identity, provider.config()).await.unwrap_err();
    assert!(matches!(refused, StartError::NotARelay), "{refused}");
    let relay = Device::start(&MemoryDisk::new(), identity(1, Role::Relay, Currency::KES), false);
    let deaf = super::RelayConfig { callbacks: None, ..provider.config() };
    let refused = Relay::start(relay.shop.clone(), &relay.identity, deaf).await.unwrap_err();
    assert!(matches!(refused, StartError::NoCallbacks), "{refused}");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = super::RelayConfig { callbacks: Some(taken.local_addr().unwrap()), ..provider.config() };
    let refused = Relay::start(relay.shop.clone(), &relay.identity, busy).await.unwrap_err();
    assert!(matches!(refused, StartError::Callbacks { .. }), "{refused}");
}
