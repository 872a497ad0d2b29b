//! Stories of a shop's devices, in virtual time. Each prints its seed.

use crate::support::{Dice, ShopNet, bread};
use crdt_model::books::IntentState;
use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Kind, Ledger, Resolution, TenderKind};
use crdt_model::rules::{ConflictKind, ConflictState};
use crdt_model::shop::{Operation, Phone, Settings};

fn sales(net: &ShopNet, index: usize) -> usize {
    net.shop(index).books().count_of(Kind::Sale)
}

fn edit(record: RecordId, field: &str, value: &str) -> Operation {
    let edit = FieldEdit { record, field: field.to_owned(), value: Some(FieldValue::Text(value.to_owned())) };
    Operation { edits: vec![(DocumentId::catalogue(record), edit)], ..Operation::default() }
}

fn values(net: &ShopNet, index: usize, record: RecordId, field: &str) -> Vec<FieldValue> {
    let document = net.shop(index).document(DocumentId::catalogue(record)).unwrap();
    document.values(record, field).into_iter().map(|valued| valued.value).collect()
}

#[test]
fn a_sale_reaches_a_linked_till_at_once_and_every_device_in_time() {
    let mut net = ShopNet::new(1, 2);
    net.heal(0, 1);
    net.run_until_quiet();
    net.act(0, bread(2, None)).unwrap();
    net.run_until_quiet();
    assert_eq!(sales(&net, 1), 1);
    assert_eq!(sales(&net, 2), 0, "the relay is not linked yet");
    net.heal(1, 2);
    net.run_until_quiet();
    assert_eq!(sales(&net, 2), 1, "carried on by a till that did not make it");
    net.assert_converged();
}

#[test]
fn a_live_sale_costs_about_a_hundred_bytes_both_ways() {
    let mut net = ShopNet::new(9, 2);
    net.heal(0, 1);
    for _ in 0..300 {
        net.act(0, bread(1, None)).unwrap();
        net.run_until_quiet();
    }
    let before = (net.devices[0].bytes_sent, net.devices[1].bytes_sent);
    for _ in 0..100 {
        net.act(0, bread(3, None)).unwrap();
        net.now = net.now.plus_ms(20_000);
        net.run_until_quiet();
    }
    let (there, back) = (net.devices[0].bytes_sent - before.0, net.devices[1].bytes_sent - before.1);
    assert_eq!(sales(&net, 1), 400);
    // Each acknowledgement takes 5 bytes; the other till signs twice in this half an hour.
    assert!(there <= 100 * 76 && back <= 100 * 5 + 2 * 170, "a sale takes {there} and {back} hundredths of a byte");

    net.cut(0, 1);
    for _ in 0..100 {
        net.now = net.now.plus_ms(20_000);
        net.act(0, bread(2, None)).unwrap();
    }
    let before = net.devices[0].bytes_sent + net.devices[1].bytes_sent;
    net.heal(0, 1);
    net.run_until_quiet();
    assert_eq!(sales(&net, 1), 500);
    let waiting = net.devices[0].bytes_sent + net.devices[1].bytes_sent - before;
    assert!(waiting <= 1_500, "a meeting with a hundred waiting sales takes {waiting} bytes");
}

#[test]
fn sales_that_are_carried_on_or_cross_stay_small_and_right() {
    let mut net = ShopNet::new(10, 3);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)] {
        net.heal(a, b);
    }
    net.run_until_quiet();
    for round in 0..40 {
        for till in 0..3 {
            net.act(till, bread(1 + round % 3, None)).unwrap();
            if round % 4 == 0 {
                net.act(till, bread(2, Some(&format!("{till}-{round}")))).unwrap();
            }
        }
        net.run_until_quiet();
    }
    net.assert_converged();
    assert_eq!(sales(&net, 3), 150);
}

#[test]
fn tills_that_were_apart_merge_in_both_directions() {
    let mut net = ShopNet::new(2, 2);
    for _ in 0..700 {
        net.act(0, bread(1, None)).unwrap();
    }
    for _ in 0..300 {
        net.act(1, bread(3, None)).unwrap();
    }
    net.heal(0, 1);
    net.heal(1, 2);
    net.run_until_quiet();
    assert_eq!(sales(&net, 0), 1_000);
    net.assert_converged();
}

#[test]
fn edits_of_different_fields_merge_and_edits_of_one_field_keep_both_values() {
    let mut net = ShopNet::new(3, 2);
    net.heal(0, 1);
    net.heal(0, 2);
    let product = RecordId::from_client(net.shop(0).business(), "product", "BREAD");
    net.act(0, edit(product, "name", "Bread")).unwrap();
    net.run_until_quiet();
    net.cut(0, 1);
    net.act(0, edit(product, "category", "bakery")).unwrap();
    net.act(1, edit(product, "unit", "loaf")).unwrap();
    net.act(0, edit(product, "name", "White bread")).unwrap();
    net.act(1, edit(product, "name", "Brown bread")).unwrap();
    net.run_until_quiet();
    net.heal(0, 1);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(values(&net, 0, product, "category").len(), 1);
    assert_eq!(values(&net, 0, product, "unit").len(), 1);
    assert_eq!(values(&net, 0, product, "name").len(), 2);
    assert_eq!(net.shop(2).conflict_count(), 1);

    net.act(1, edit(product, "name", "Brown bread")).unwrap();
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(net.shop(2).conflict_count(), 0);
}

#[test]
fn a_lost_till_gets_everything_back_and_writes_on_in_a_new_epoch() {
    let mut net = ShopNet::new(4, 2);
    net.heal(0, 2);
    for _ in 0..200 {
        net.act(0, bread(1, None)).unwrap();
    }
    net.run_until_quiet();
    net.crash(0);
    net.devices[0].disk = crate::support::Disk::default();
    net.start(0, false);
    net.act(0, bread(1, None)).unwrap();
    net.heal(0, 2);
    net.run_until_quiet();
    assert_eq!(sales(&net, 0), 201);
    net.act(0, bread(1, None)).unwrap();
    net.heal(1, 2);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(sales(&net, 1), 202);
}

#[test]
fn a_till_that_dies_after_it_acknowledged_signs_when_it_comes_back() {
    for new_epoch in [false, true] {
        let mut net = ShopNet::new(6, 2);
        net.act(0, bread(1, None)).unwrap();
        net.snapshot(0);
        net.act_and_crash(0, bread(1, None));
        net.start(0, new_epoch);
        net.heal(0, 1);
        net.heal(1, 2);
        net.run_until_quiet();
        assert_eq!((sales(&net, 1), sales(&net, 2)), (2, 2), "nobody waits for another sale to see this one");
        net.act(0, bread(1, None)).unwrap();
        net.run_until_quiet();
        assert_eq!(sales(&net, 2), 3);
        net.assert_converged();
    }
}

#[test]
fn a_till_restored_from_an_old_backup_takes_its_own_entries_back() {
    let mut net = ShopNet::new(5, 2);
    net.heal(0, 2);
    net.act(0, bread(1, None)).unwrap();
    net.run_until_quiet();
    let backup = net.devices[0].disk.clone();
    for _ in 0..50 {
        net.act(0, bread(1, None)).unwrap();
    }
    net.run_until_quiet();
    net.crash(0);
    net.devices[0].disk = backup;
    // The marker went unnoticed, so the old epoch goes on until the relay shows that it holds more.
    net.start(0, false);
    net.heal(0, 2);
    net.run_until_quiet();
    assert_eq!(sales(&net, 0), 51);
    net.act(0, bread(1, None)).unwrap();
    net.heal(1, 2);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(sales(&net, 1), 52);
}

#[test]
fn a_copied_till_that_sold_twice_loses_no_sale() {
    let mut net = ShopNet::new(6, 2);
    net.heal(0, 1);
    net.heal(1, 2);
    for _ in 0..10 {
        net.act(0, bread(1, None)).unwrap();
    }
    net.run_until_quiet();
    net.cut(0, 1);
    let copy = net.devices[0].disk.clone();
    let identity = net.devices[0].identity.clone();
    let twin = net.add(identity, copy);
    for _ in 0..5 {
        net.act(0, bread(1, None)).unwrap();
    }
    for _ in 0..7 {
        net.act(twin, bread(2, None)).unwrap();
    }
    net.heal(0, 1);
    net.run_until_quiet();
    net.heal(twin, 2);
    net.run_until_quiet();
    assert_eq!(sales(&net, 1), 22);
    net.act(0, bread(1, None)).unwrap();
    net.act(twin, bread(1, None)).unwrap();
    net.run_until_quiet();
    assert_eq!(sales(&net, 2), 24);
    net.assert_converged();
}

/// A sale that is paid by M-PESA.
fn by_mpesa(quantity: i64) -> Operation {
    let mut operation = bread(quantity, None);
    if let Some(Fact::Sale(sale)) = operation.facts.first_mut() {
        sale.tenders[0].kind = TenderKind::Mpesa;
    }
    let number = "254708374149".to_owned();
    Operation { phones: vec![Phone { fact: 0, tender: 0, number }], ..operation }
}

#[test]
fn nothing_is_charged_above_a_fork() {
    let mut net = ShopNet::new(8, 2);
    net.heal(0, 2);
    let ledger = Ledger { relay: net.shop(2).device(), epoch: 1 };
    let named = Operation { edits: Settings::name_paying_relay(ledger, Some("174379")), ..Operation::default() };
    net.act(2, named).unwrap();
    net.run_until_quiet();
    let waiting = |net: &ShopNet| net.shop(2).books().open_intents_for(&ledger).count();
    net.act(0, by_mpesa(1)).unwrap();
    net.run_until_quiet();
    assert_eq!(waiting(&net), 1, "the relay may ask for what was sold before the fork");

    let copy = net.devices[0].disk.clone();
    let identity = net.devices[0].identity.clone();
    net.cut(0, 2);
    let twin = net.add(identity, copy);
    net.act(0, by_mpesa(2)).unwrap();
    net.act(twin, by_mpesa(3)).unwrap();
    net.heal(0, 2);
    net.run_until_quiet();
    net.heal(twin, 2);
    net.run_until_quiet();
    net.heal(1, 2);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(sales(&net, 2), 3, "no sale is lost");
    assert_eq!(waiting(&net), 1, "and nobody is asked for those above the fork");
    assert_eq!(net.shop(1).books().intent_count(IntentState::Review), 2, "a person decides");

    let forks = net.shop(1).fork_conflicts();
    assert_eq!((forks.len(), forks[0].kind, forks[0].sides.len()), (1, ConflictKind::JournalForked, 2));
    let before = net.shop(2).conflict_count();
    let looked = Resolution { conflict: forks[0].id, choice: "the copy is wiped".to_owned(), note: None, fields: None };
    net.act(1, Operation { facts: vec![Fact::Resolution(looked)], ..Operation::default() }).unwrap();
    net.run_until_quiet();
    assert_eq!(net.shop(2).conflict_count(), before - 1);
    for device in [0, 1, 2] {
        let forks = net.shop(device).fork_conflicts();
        assert!(matches!(&forks[0].state, ConflictState::Resolved(by) if by.choice == "the copy is wiped"));
        assert_eq!(forks, net.shop(1).fork_conflicts(), "every device tells of the same fork");
    }
}

#[test]
fn a_client_that_repeats_itself_is_answered_the_same_and_sells_once() {
    let mut net = ShopNet::new(7, 2);
    let first = net.act(0, bread(1, Some("42"))).unwrap();
    let again = net.act(0, bread(1, Some("42"))).unwrap();
    assert!(again.repeated);
    assert_eq!(first.records, again.records);
    assert!(net.act(0, bread(2, Some("42"))).is_err());
    // Entered again on another till that had not heard of it.
    net.act(1, bread(1, Some("42"))).unwrap();
    net.heal(0, 1);
    net.heal(1, 2);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(sales(&net, 2), 1);
}

#[test]
fn random_days_with_cuts_and_crashes_converge() {
    for seed in 100..130 {
        random_day(seed);
    }
}

fn random_day(seed: u64) {
    let mut net = ShopNet::new(seed, 3);
    let mut dice = Dice::new(seed);
    let product = RecordId::from_client(net.shop(0).business(), "product", "BREAD");
    let mut recorded = 0;
    let mut linked = std::collections::BTreeSet::new();
    for step in 0..120 {
        let a = usize::try_from(dice.roll(4)).unwrap();
        let b = usize::try_from(dice.roll(4)).unwrap();
        match dice.roll(10) {
            0..5 => {
                let key = format!("{}", dice.roll(1_000_000));
                recorded += usize::from(!net.act(a, bread(1, Some(&key))).unwrap().repeated);
            }
            5 => {
                net.act(a, edit(product, "name", &format!("name {step}"))).unwrap();
            }
            6 if a != b && !linked.contains(&(a.min(b), a.max(b))) => {
                net.heal(a, b);
                linked.insert((a.min(b), a.max(b)));
            }
            7 if a != b => {
                net.cut(a, b);
                linked.remove(&(a.min(b), a.max(b)));
            }
            8 => {
                if dice.roll(2) == 0 {
                    net.snapshot(a);
                }
                if dice.roll(2) == 0 {
                    net.act_and_crash(a, bread(1, None));
                    recorded += 1;
                } else {
                    net.crash(a);
                }
                linked.retain(|(x, y)| *x != a && *y != a);
                net.start(a, dice.roll(4) == 0);
            }
            _ => net.run_until_quiet(),
        }
    }
    for a in 0..4 {
        for b in 0..a {
            if !linked.contains(&(b, a)) {
                net.heal(a, b);
            }
        }
    }
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(sales(&net, 0), recorded, "seed {seed}");
}
