//! Payments that go to another ledger by an owner's word: each is pushed by one of them, and what
//! the old one had asked for is never asked for again.

use std::time::Duration;

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::payment::AttemptState;
use crdt_model::record::{Fact, GiveUp, Instead, Ledger, LedgerMoved, PaymentFact, Role};
use crdt_model::shop::{Operation, Settings};
use ed25519_dalek::SigningKey;
use transport::LinkIds;

use super::super::{RelayConfig, Standing, Waiting};
use super::rig::{Device, NEVER_ANSWERS, PAYS, Provider, Rig, identity, link, status};
use crate::payments::simulator::{Behaviour, Kind};
use crate::storage::{MemoryDisk, RowWrite, Rows};

const OTHER: &str = "254711111111";

/// An owner's word, and the settings that go with it.
fn owners_word(device: &Device, from: Ledger, to: Ledger, old_is_gone: bool) -> Operation {
    let owner = SigningKey::from_bytes(&[250; 32]);
    let business = device.identity.genesis.business();
    let moved = LedgerMoved::sign(business, from, to, None, old_is_gone, &owner);
    Operation {
        facts: vec![Fact::Payment(PaymentFact::Moved(moved))],
        edits: Settings::name_paying_relay(to, None),
        ..Operation::default()
    }
}

/// The provider's list is read often, and is complete after two seconds.
fn eager(provider: &Provider) -> RelayConfig {
    RelayConfig {
        pull_every: Duration::from_millis(50),
        check_every: Duration::from_millis(50),
        absent_after: Duration::from_secs(2),
        ..provider.config()
    }
}

fn ledger(device: &Device, epoch: u64) -> Ledger {
    Ledger { relay: device.identity.certificate.device, epoch }
}

/// A relay that was restored, without the attempts that it had made since the backup.
async fn restored(rig: Rig, lost: RecordId, config: RelayConfig) -> Rig {
    let Rig { disk, device, provider, relay } = rig;
    drop(relay);
    let device = Device::start(&disk, device.identity, true);
    let key = [&lost.0.as_bytes()[..], &1_u32.to_be_bytes()[..]].concat();
    device.shop.write_rows(vec![RowWrite { rows: Rows::Attempts, key, value: None }]).await.unwrap();
    let relay = super::super::Relay::start(device.shop.clone(), &device.identity, config).await.unwrap();
    Rig { disk, device, provider, relay }
}

#[tokio::test]
async fn a_restored_relay_goes_on_once_named_and_reconciles_the_gap_first() {
    let rig = Rig::start().await;
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let asked = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.status("acceptance", |status| status.waiting.get(&asked) == Some(&Waiting::Outcome)).await;
    rig.provider.until(|counts| counts.charges == 1).await;
    rig.provider.behave(Behaviour::new(Kind::Pay)).await;
    let config = RelayConfig { absent_after: Duration::from_secs(3_600), ..eager(&rig.provider) };
    let rig = restored(rig, asked, config).await;
    rig.status("its freeze", |status| matches!(status.standing, Standing::Frozen { .. })).await;
    let promised = rig.device.promise("mpesa", 100, OTHER).await;
    let word = owners_word(&rig.device, ledger(&rig.device, 1), ledger(&rig.device, 2), false);
    rig.device.shop.record(word).await.unwrap();
    // What was asked for and forgotten is found in the list, and booked.
    rig.device.until(asked, IntentState::Paid).await;
    // What the list does not have may still come: an hour has not passed.
    rig.status("its wait", |status| status.waiting.get(&promised) == Some(&Waiting::Handover)).await;
    let fresh = rig.device.promise("mpesa", 200, "254711111112").await;
    rig.device.until(fresh, IntentState::Paid).await;
    assert_eq!(rig.device.payment(promised).await.unwrap().ledger, Some(ledger(&rig.device, 1)));
    assert_eq!(rig.provider.counts().await.pushes, 2);
    // A wish to give it up is not answered either, before that is known.
    let wish = PaymentFact::GiveUp(GiveUp { intent: promised, instead: Instead::Void });
    rig.device.shop.record(Operation { facts: vec![Fact::Payment(wish)], ..Operation::default() }).await.unwrap();
    assert_eq!(rig.device.payment(promised).await.unwrap().given_up.unwrap().granted, None);

    let Rig { disk, device, provider, relay } = rig;
    relay.stop().await;
    let device = Device::start(&disk, device.identity, false);
    let relay = super::super::Relay::start(device.shop.clone(), &device.identity, eager(&provider)).await.unwrap();
    status(&relay, "its claim", |status| status.standing == Standing::Paying).await;
    let payment = device.until(promised, IntentState::Void).await;
    assert_eq!(payment.given_up.unwrap().granted, Some(true));
    let after = device.promise("mpesa", 300, "254711111113").await;
    device.until(after, IntentState::Paid).await;
    let charged = provider.charged().await;
    assert_eq!((charged.len(), provider.counts().await.pushes), (3, 3), "{charged:?}");
}

#[tokio::test]
async fn what_was_never_asked_for_before_a_restore_is_asked_for_after_it_once() {
    let rig = Rig::start().await;
    let rig = restored(rig, RecordId(uuid::Uuid::nil()), RelayConfig::default()).await;
    let Rig { device, provider, relay, .. } = rig;
    relay.stop().await;
    let relay = super::super::Relay::start(device.shop.clone(), &device.identity, eager(&provider)).await.unwrap();
    status(&relay, "its freeze", |status| matches!(status.standing, Standing::Frozen { .. })).await;
    let promised = device.promise("mpesa", 100, OTHER).await;
    device.shop.record(owners_word(&device, ledger(&device, 1), ledger(&device, 2), false)).await.unwrap();
    let payment = device.until(promised, IntentState::Paid).await;
    assert_eq!(payment.ledger, Some(ledger(&device, 2)));
    assert_eq!(provider.counts().await.pushes, 1);
}

#[tokio::test]
async fn another_relay_takes_over_what_the_old_one_lets_go_and_nothing_else() {
    let rig = Rig::start().await;
    let (at, next) =
        (LinkIds::default(), Device::start(&MemoryDisk::new(), identity(2, Role::Relay, Currency::KES), false));
    // It learns first who pays already.
    let config = RelayConfig { claim_quiet: RelayConfig::default().claim_quiet, ..eager(&rig.provider) };
    let relay = super::super::Relay::start(next.shop.clone(), &next.identity, config).await.unwrap();
    link(&at, &rig.device, &next);
    let stores = |status: &super::super::RelayStatus| matches!(status.standing, Standing::Storing { .. });
    status(&relay, "the other's name", stores).await;
    // One customer is being asked, and does not answer.
    let doubtful = rig.device.promise("mpesa", 6500, NEVER_ANSWERS).await;
    rig.provider.until(|counts| counts.pushes == 1).await;
    let word = owners_word(&rig.device, ledger(&rig.device, 1), ledger(&next, 1), false);
    rig.device.shop.record(word).await.unwrap();
    status(&relay, "its turn", |status| status.standing == Standing::Paying).await;
    // Promised by a till that has not heard of it yet.
    let late = late_promise(&rig.device).await;
    let payment = next.until(late, IntentState::Paid).await;
    assert_eq!(payment.ledger, Some(ledger(&next, 1)));
    assert_eq!(super::super::attempts(&rig.device.shop, late).unwrap(), []);
    let waits = next.payment(doubtful).await.unwrap();
    assert_eq!((waits.state, waits.ledger), (IntentState::Open, Some(ledger(&rig.device, 1))));
    assert_eq!(super::super::attempts(&next.shop, doubtful).unwrap(), []);
    assert_eq!((rig.provider.counts().await.pushes, rig.provider.charged().await.len()), (2, 1));
}

/// An intent that names the old ledger, as an older entry of a till's would.
async fn late_promise(device: &Device) -> RecordId {
    let named = |ledger| Operation { edits: Settings::name_paying_relay(ledger, None), ..Operation::default() };
    let now = device.shop.ask(|shop| shop.settings().paying_ledger).await.unwrap().unwrap();
    device.shop.record(named(ledger(device, 1))).await.unwrap();
    let intent = device.promise("mpesa", 100, OTHER).await;
    device.shop.record(named(now)).await.unwrap();
    intent
}

#[tokio::test]
async fn a_lost_relays_heir_books_what_the_list_has_and_asks_for_what_it_lacks() {
    let rig = Rig::start().await;
    let (at, heir) =
        (LinkIds::default(), Device::start(&MemoryDisk::new(), identity(2, Role::Relay, Currency::KES), false));
    link(&at, &rig.device, &heir);
    rig.provider.behave(Behaviour::new(Kind::Silent)).await;
    let asked = rig.device.promise("mpesa", 6500, PAYS).await;
    rig.provider.until(|counts| counts.charges == 1).await;
    rig.provider.behave(Behaviour::new(Kind::Pay)).await;
    heir.until(asked, IntentState::Open).await;
    let Rig { device, provider, relay, .. } = rig;
    // It burns down; one intent has not been looked at.
    drop(relay);
    let promised = device.promise("mpesa", 100, OTHER).await;
    heir.until(promised, IntentState::Open).await;
    let relay = super::super::Relay::start(heir.shop.clone(), &heir.identity, eager(&provider)).await.unwrap();
    heir.shop.record(owners_word(&heir, ledger(&device, 1), ledger(&heir, 1), true)).await.unwrap();
    let payment = heir.until(asked, IntentState::Paid).await;
    assert_eq!(payment.receipts.iter().filter(|receipt| receipt.accepted).count(), 1);
    let payment = heir.until(promised, IntentState::Paid).await;
    assert_eq!(payment.ledger, Some(ledger(&heir, 1)));
    let states: Vec<AttemptState> =
        super::super::attempts(&heir.shop, promised).unwrap().iter().map(crdt_model::payment::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Paid]);
    assert_eq!((provider.counts().await.pushes, provider.charged().await.len()), (2, 2));
    relay.stop().await;
}
