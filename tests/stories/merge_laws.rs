//! The merge laws: the order, duplication and route of entries change nothing. The same set of
//! entries gives the same heads, the same counted facts and the same figures.

use std::collections::BTreeMap;

use crate::support::{Dice, Disk, ShopNet};
use crdt_model::document::{DELETED, DocumentId, FieldEdit, FieldValue};
use crdt_model::entry::Entry;
use crdt_model::ids::{JournalId, RecordId};
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Expense, Fact, Line, Sale, Source, StockCount, StockMovement, Tender, TenderKind, Void};
use crdt_model::shop::{Input, Operation, Phone};
use crdt_model::sync::codec::{Run, RunBuilder};
use crdt_model::sync::message::{Hello, Message, PROTOCOL_VERSION};
use proptest::prelude::*;

/// One random operation; few ids, so that tills often mean the same record.
fn operation(net: &ShopNet, till: usize, dice: &mut Dice) -> Operation {
    let source = Some(Source { instance: "app".to_owned(), key: dice.roll(40).to_string() });
    let sku = format!("SKU{}", dice.roll(3));
    let quantity_milli = i64::try_from(dice.roll(5)).unwrap() * 1000 + 1000;
    let line =
        Line { sku: sku.clone(), quantity_milli, unit_price_minor: 100, discount_minor: 0, tax_rate_bp: Some(1600) };
    let amount_minor = line.amount_minor().unwrap();
    let kind = if dice.roll(3) == 0 { TenderKind::Mpesa } else { TenderKind::Cash };
    let lines = vec![line];
    let tenders = vec![Tender { kind, amount_minor }];
    let product = RecordId::from_client(net.shop(till).business(), "product", &sku);
    match dice.roll(7) {
        0..3 => Operation {
            facts: vec![Fact::Sale(Sale {
                source,
                occurred: None,
                currency: Currency::KES,
                lines,
                tenders,
                customer: None,
                note: None,
                ticket: None,
            })],
            phones: vec![Phone { fact: 0, tender: 0, number: "254708374149".to_owned() }],
            ..Operation::default()
        },
        3 => Operation {
            facts: vec![Fact::StockMovement(StockMovement {
                source,
                occurred: None,
                sku,
                quantity_milli,
                reason: "delivery".to_owned(),
            })],
            ..Operation::default()
        },
        4 => Operation {
            facts: vec![Fact::StockCount(StockCount {
                source: None,
                sku,
                counted_milli: quantity_milli,
                expected_milli: 0,
                seen: net.shop(till).seen(),
            })],
            ..Operation::default()
        },
        5 => {
            let text = FieldValue::Text(format!("v{}", dice.roll(4)));
            let (field, value) = match dice.roll(4) {
                0 => ("name", Some(text)),
                1 => ("category", Some(text)),
                2 => ("sku", Some(FieldValue::Text(sku))),
                _ => (DELETED, Some(FieldValue::Bool(true)).filter(|_| dice.roll(2) == 0)),
            };
            let edit = FieldEdit { record: product, field: field.to_owned(), value };
            Operation { edits: vec![(DocumentId::catalogue(product), edit)], ..Operation::default() }
        }
        _ if dice.roll(2) == 0 => Operation {
            facts: vec![Fact::Expense(Expense {
                source,
                occurred: None,
                category: "rent".to_owned(),
                amount: Money::new(amount_minor, Currency::KES),
                description: None,
                paid_with: TenderKind::Cash,
            })],
            ..Operation::default()
        },
        _ => {
            let key = dice.roll(40).to_string();
            let sale = RecordId::from_client(net.shop(till).business(), "app", &key);
            Operation {
                facts: vec![Fact::Void(Void {
                    sale,
                    currency: Currency::KES,
                    lines,
                    tenders: vec![Tender { kind: TenderKind::Cash, amount_minor }],
                    reason: "mistake".to_owned(),
                })],
                ..Operation::default()
            }
        }
    }
}

/// Three tills that meet now and then, until all hold the same.
fn history(seed: u64, steps: usize) -> ShopNet {
    let mut net = ShopNet::new(seed, 3);
    let mut dice = Dice::new(seed);
    let mut linked = false;
    for _ in 0..steps {
        let till = usize::try_from(dice.roll(3)).unwrap();
        let operation = operation(&net, till, &mut dice);
        // A reused id with another body is refused; that is part of the day.
        drop(net.act(till, operation));
        if dice.roll(12) == 0 {
            let other = (till + 1) % 3;
            if linked {
                net.cut(till, other);
            } else {
                net.heal(till, other);
                net.run_until_quiet();
            }
            linked = !linked;
        }
    }
    for (a, b) in [(0, 1), (1, 2), (2, 0), (2, 3)] {
        net.cut(a, b);
        net.heal(a, b);
    }
    net.run_until_quiet();
    net.assert_converged();
    net
}

/// A journal cut into runs at random marks.
fn runs(net: &ShopNet, journal: JournalId, entries: &BTreeMap<u64, Entry>, dice: &mut Dice) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut from = 1;
    while let Some(last) = entries.keys().next_back().filter(|last| **last >= from) {
        let through = from + dice.roll(last - from + 1);
        let info = net.devices[0].disk.journals.get(&journal).cloned();
        let mut builder = RunBuilder::new(journal, info, from);
        for (seq, entry) in entries.range(from..) {
            if builder.push(entry.clone()).is_break() || (*seq >= through && entry.mark.is_some()) {
                break;
            }
        }
        let run = builder.finish().expect("the last entry is signed");
        from = run.start + run.entries.len() as u64;
        runs.push(run);
    }
    runs
}

/// Gives a new device everything in a random order, some of it several times.
fn deliver(net: &mut ShopNet, dice: &mut Dice) {
    let mut identity = net.devices[1].identity.clone();
    identity.entropy = [77; 32];
    let new = net.add(identity, Disk::default());
    let author = net.devices[0].identity.certificate.clone();
    let link = net.play_peer(new, author.device);
    let business = net.shop(0).business();
    let hello = Hello { version: PROTOCOL_VERSION, business, certificate: author };
    net.feed(new, Input::Received(link, Message::Hello(hello).to_frame()));

    let mut journals: BTreeMap<JournalId, BTreeMap<u64, Entry>> = BTreeMap::new();
    for ((journal, seq), bytes) in &net.devices[0].disk.entries {
        journals.entry(*journal).or_default().insert(*seq, Entry::from_bytes(bytes).unwrap());
    }
    let mut waiting: Vec<(Vec<Run>, usize)> =
        journals.iter().map(|(journal, entries)| (runs(net, *journal, entries, dice), 0)).collect();
    while waiting.iter().any(|(runs, next)| next < &runs.len()) {
        let at = usize::try_from(dice.roll(waiting.len() as u64)).unwrap();
        let (runs, next) = &mut waiting[at];
        // Usually the next one, sometimes an earlier one again, sometimes one too early.
        let chosen = match dice.roll(5) {
            0 => usize::try_from(dice.roll(*next as u64 + 1)).unwrap(),
            1 => *next + 1,
            _ => *next,
        };
        let Some(run) = runs.get(chosen).cloned() else { continue };
        *next += usize::from(chosen == *next);
        net.feed(new, Input::Received(link, Message::Entries(vec![run]).to_frame()));
    }
    net.run_until_quiet();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn order_duplication_and_route_change_nothing(seed in 1..u64::MAX, steps in 20..120_usize) {
        let mut net = history(seed, steps);
        let mut dice = Dice::new(seed ^ 0xABCD);
        deliver(&mut net, &mut dice);
        net.assert_converged();
    }

    #[test]
    fn a_restart_at_any_moment_changes_nothing(seed in 1..u64::MAX, steps in 20..80_usize, snapshot in any::<bool>()) {
        let mut net = history(seed, steps);
        if snapshot {
            net.snapshot(0);
        }
        net.crash(0);
        net.start(0, false);
        net.run_until_quiet();
        net.assert_converged();
    }
}
