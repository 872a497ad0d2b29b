//! A shift changes hands, with contact lost at every point: it never belongs to two tills, and
//! it always belongs to one in the end.

use std::collections::BTreeSet;

use crate::support::{Dice, ShopNet, bread, owner};
use crdt_model::books::{Handoff, HandoffPhase};
use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::entry::Entry;
use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{
    Fact, HandoffAccepted, HandoffDecided, HandoffOffered, HandoffTransferred, HandoffWithdrawn, Kind, ShiftClosed,
    ShiftOpened,
};
use crdt_model::rules::{ConflictKind, ConflictState};
use crdt_model::shop::{ActError, HandoffError, Input, Operation};
use crdt_model::sync::codec::RunBuilder;
use crdt_model::sync::message::{Hello, Message, PROTOCOL_VERSION};

/// The giver, the receiver, a third till on which the owner decides, and the relay.
const AMINA: usize = 0;
const OTIENO: usize = 1;
const OWNER: usize = 2;
const RELAY: usize = 3;

fn of(fact: Fact) -> Operation {
    Operation { facts: vec![fact], ..Operation::default() }
}

fn kes(minor: i64) -> Money {
    Money::new(minor, Currency::KES)
}

fn opening() -> Operation {
    of(Fact::ShiftOpened(ShiftOpened { source: None, opening_float: kes(100_000) }))
}

/// What a till's app offers: everything that the relay lacks comes along.
fn offer(net: &ShopNet, giver: usize, to: usize, shift: RecordId, tickets: Vec<RecordId>) -> Operation {
    let shop = net.shop(giver);
    let expected = shop.books().z_report(shift).unwrap().cash_expected_minor;
    let expected_minor = i64::try_from(expected).unwrap();
    let seen = shop.seen().into_iter().filter(|(journal, seq)| shop.relay_holds(*journal) < *seq).collect();
    of(Fact::HandoffOffered(HandoffOffered {
        source: None,
        shift,
        previous: shop.books().shift_came_by(shift),
        to: net.shop(to).device(),
        counted: kes(expected_minor),
        expected_minor,
        tickets,
        seen,
        arbiter: shop.certificate().owner,
        note: None,
    }))
}

fn accept(net: &ShopNet, till: usize, handoff: RecordId) -> Operation {
    let counted = net.shop(till).books().handoff(handoff).map_or(kes(0), |handoff| handoff.counted());
    of(Fact::HandoffAccepted(HandoffAccepted { handoff, counted }))
}

fn withdraw(handoff: RecordId) -> Operation {
    of(Fact::HandoffWithdrawn(HandoffWithdrawn { handoff, reason: None }))
}

fn decide(net: &ShopNet, handoff: RecordId, to: usize) -> Operation {
    let to = net.devices[to].identity.certificate.device;
    of(Fact::HandoffDecided(HandoffDecided::sign(handoff, to, None, &owner())))
}

fn close(net: &ShopNet, till: usize, shift: RecordId) -> Operation {
    let shop = net.shop(till);
    let expected_minor = i64::try_from(shop.books().z_report(shift).unwrap().cash_expected_minor).unwrap();
    of(Fact::ShiftClosed(ShiftClosed {
        shift,
        counted: kes(expected_minor),
        expected_minor,
        seen: shop.seen(),
        note: None,
    }))
}

fn refused(net: &mut ShopNet, till: usize, operation: Operation) -> HandoffError {
    match net.act(till, operation) {
        Err(ActError::Handoff(error)) => *error,
        other => panic!("{other:?}"),
    }
}

fn handoff(net: &ShopNet, till: usize, id: RecordId) -> Handoff {
    net.shop(till).books().handoff(id).unwrap()
}

fn phase(net: &ShopNet, till: usize, id: RecordId) -> HandoffPhase {
    handoff(net, till, id).phase
}

/// The tills that would record a sale in this shift, each by what it knows itself.
fn users(net: &ShopNet, shift: RecordId) -> Vec<usize> {
    let running = (0..net.devices.len()).filter(|index| net.devices[*index].shop.is_some());
    running.filter(|index| net.shop(*index).books().current_shift(net.shop(*index).device()) == Some(shift)).collect()
}

/// Amina's open shift with two sales, and the offer of it, made before anybody is near.
fn offered(seed: u64) -> (ShopNet, RecordId, RecordId) {
    let mut net = ShopNet::new(seed, 3);
    let shift = net.act(AMINA, opening()).unwrap().records[0];
    net.act(AMINA, bread(1, None)).unwrap();
    net.act(AMINA, bread(2, None)).unwrap();
    // Tills know each other from their journals.
    for till in [OTIENO, OWNER] {
        net.act(till, bread(1, None)).unwrap();
        net.heal(AMINA, till);
        net.run_until_quiet();
        net.cut(AMINA, till);
        net.run_until_quiet();
    }
    let operation = offer(&net, AMINA, OTIENO, shift, Vec::new());
    let id = net.act(AMINA, operation).unwrap().records[0];
    (net, shift, id)
}

#[test]
fn a_shift_with_its_ticket_float_and_sales_is_handed_over_where_there_is_no_network() {
    let mut net = ShopNet::new(200, 3);
    let ticket = RecordId::from_client(net.shop(AMINA).business(), "ticket", "table 4");
    let edit = |field: &str, value: &str| {
        let edit =
            FieldEdit { record: ticket, field: field.to_owned(), value: Some(FieldValue::Text(value.to_owned())) };
        Operation { edits: vec![(DocumentId::tickets(ticket), edit)], ..Operation::default() }
    };
    let shift = net.act(AMINA, opening()).unwrap().records[0];
    net.act(AMINA, bread(2, None)).unwrap();
    net.act(AMINA, edit("name", "Table 4")).unwrap();
    net.act(OTIENO, bread(1, None)).unwrap();
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();

    let operation = offer(&net, AMINA, OTIENO, shift, vec![ticket]);
    let id = net.act(AMINA, operation).unwrap().records[0];
    assert!(matches!(refused(&mut net, AMINA, bread(1, None)), HandoffError::ShiftFrozen { .. }));
    assert!(matches!(refused(&mut net, AMINA, edit("name", "Table 5")), HandoffError::TicketOffered { .. }));
    let operation = close(&net, AMINA, shift);
    assert!(matches!(refused(&mut net, AMINA, operation), HandoffError::ShiftFrozen { .. }));
    net.run_until_quiet();
    assert_eq!(phase(&net, OTIENO, id), HandoffPhase::Offered);
    assert!(users(&net, shift).is_empty());

    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    assert!(users(&net, shift).is_empty(), "the giver has the last word");
    net.run_until_quiet();
    assert_eq!(phase(&net, AMINA, id), HandoffPhase::Completed);
    assert_eq!(users(&net, shift), [OTIENO]);
    assert_eq!(net.shop(AMINA).books().ticket_holder(ticket), Some(net.shop(OTIENO).device()));

    net.act(OTIENO, bread(3, None)).unwrap();
    net.act(AMINA, bread(7, None)).unwrap();
    net.run_until_quiet();
    let report = net.shop(AMINA).books().z_report(shift).unwrap();
    assert_eq!(report.cash_expected_minor, 100_000 + (2 + 3) * 6500, "what Amina sells now is not in it");
    assert_eq!((report.holder, report.handoffs), (net.shop(OTIENO).device(), vec![id]));
    let operation = close(&net, AMINA, shift);
    assert!(matches!(refused(&mut net, AMINA, operation), HandoffError::ShiftElsewhere { .. }));
    let operation = close(&net, OTIENO, shift);
    net.act(OTIENO, operation).unwrap();
    net.act(OTIENO, bread(1, None)).unwrap();
    net.heal(OTIENO, RELAY);
    net.heal(OTIENO, OWNER);
    net.run_until_quiet();
    net.assert_converged();
    let report = net.shop(RELAY).books().z_report(shift).unwrap();
    assert_eq!(report.difference_minor, Some(0));
}

#[test]
fn contact_breaks_before_the_offer_arrives() {
    let (mut net, shift, id) = offered(201);
    assert!(matches!(refused(&mut net, AMINA, bread(1, None)), HandoffError::ShiftFrozen { .. }));
    assert!(users(&net, shift).is_empty());
    // Nobody can have seen it, so it can be taken back.
    net.act(AMINA, withdraw(id)).unwrap();
    assert_eq!(users(&net, shift), [AMINA]);
    net.act(AMINA, bread(1, None)).unwrap();
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    let operation = accept(&net, OTIENO, id);
    assert_eq!(refused(&mut net, OTIENO, operation), HandoffError::Past(id));
    let report = net.shop(OTIENO).books().z_report(shift).unwrap();
    assert_eq!(report.cash_expected_minor, 100_000 + 4 * 6500, "the sales before the offer and after the withdrawal");
}

#[test]
fn an_offer_that_was_on_its_way_can_not_be_taken_back() {
    let (mut net, shift, id) = offered(202);
    net.heal(AMINA, OTIENO);
    net.run_for(6);
    net.cut(AMINA, OTIENO);
    assert_eq!(refused(&mut net, AMINA, withdraw(id)), HandoffError::NotSafe(id));
    net.crash(AMINA);
    net.start(AMINA, false);
    assert_eq!(refused(&mut net, AMINA, withdraw(id)), HandoffError::NotSafe(id), "nor after a restart");
    // The shop goes on selling, in a shift of its own.
    let second = net.act(AMINA, opening()).unwrap().records[0];
    net.act(AMINA, bread(5, None)).unwrap();
    assert!(users(&net, shift).is_empty());

    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    net.act(OTIENO, withdraw(id)).unwrap();
    net.run_until_quiet();
    assert_eq!(phase(&net, AMINA, id), HandoffPhase::Returning, "it waits until the second shift is closed");
    let operation = close(&net, AMINA, second);
    net.act(AMINA, operation).unwrap();
    assert_eq!(users(&net, shift), [AMINA]);
    net.act(AMINA, bread(1, None)).unwrap();
    net.run_until_quiet();
    let cash = |shift| net.shop(OTIENO).books().z_report(shift).unwrap().cash_expected_minor;
    assert_eq!(cash(shift), 100_000 + 4 * 6500);
    assert_eq!(cash(second), 100_000 + 5 * 6500);
}

#[test]
fn contact_breaks_after_the_acceptance_and_they_meet_again() {
    let (mut net, shift, id) = offered(203);
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    net.cut(AMINA, OTIENO);
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    assert!(users(&net, shift).is_empty());
    assert_eq!(refused(&mut net, OTIENO, opening()), HandoffError::Waiting(id));
    assert_eq!(refused(&mut net, OTIENO, withdraw(id)), HandoffError::Past(id));
    assert_eq!(refused(&mut net, AMINA, withdraw(id)), HandoffError::NotSafe(id));
    net.act(OTIENO, bread(2, None)).unwrap();
    for till in [AMINA, OTIENO] {
        net.crash(till);
        net.start(till, false);
    }
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    assert_eq!(users(&net, shift), [OTIENO]);
    let report = net.shop(AMINA).books().z_report(shift).unwrap();
    assert_eq!(report.cash_expected_minor, 100_000 + 5 * 6500, "Otieno has had the drawer since he accepted");
}

#[test]
fn a_third_device_brings_the_acceptance_and_the_transfer() {
    let (mut net, shift, id) = offered(204);
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    net.cut(AMINA, OTIENO);
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    for (from, to) in [(OTIENO, OWNER), (OWNER, AMINA), (AMINA, RELAY)] {
        net.heal(from, to);
        net.run_until_quiet();
        net.cut(from, to);
        assert!(users(&net, shift).is_empty());
    }
    assert_eq!(
        phase(&net, RELAY, id),
        HandoffPhase::Completed,
        "Amina has transferred, and can't know who heard of it"
    );
    net.heal(RELAY, OTIENO);
    net.run_until_quiet();
    assert_eq!(users(&net, shift), [OTIENO]);
}

#[test]
fn the_owner_gives_the_shift_to_the_receiver_because_the_giver_is_lost() {
    let (mut net, shift, id) = offered(205);
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    net.crash(AMINA);
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    net.heal(OTIENO, OWNER);
    net.run_until_quiet();
    let operation = decide(&net, id, OTIENO);
    net.act(OWNER, operation).unwrap();
    let operation = decide(&net, id, AMINA);
    assert_eq!(refused(&mut net, OWNER, operation), HandoffError::Past(id), "once is enough");
    net.run_until_quiet();
    assert_eq!(users(&net, shift), [OTIENO]);
    net.act(OTIENO, bread(1, None)).unwrap();

    // The giver turns up after all.
    net.start(AMINA, false);
    assert!(matches!(refused(&mut net, AMINA, bread(1, None)), HandoffError::ShiftFrozen { .. }));
    net.heal(AMINA, OTIENO);
    net.heal(OWNER, RELAY);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(users(&net, shift), [OTIENO]);
    let conflicts: Vec<_> = net.shop(AMINA).books().conflicts(false).collect();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].kind, ConflictKind::HandoffDecided);
    assert!(matches!(&conflicts[0].state, ConflictState::Resolved(decision) if decision.choice == "receiver"));
    let sides: Vec<_> = conflicts[0].sides.iter().map(|side| (side.label.as_str(), side.counted)).collect();
    assert_eq!(sides, [("receiver", true), ("giver", false)]);
}

#[test]
fn the_owner_gives_the_shift_back_to_the_giver() {
    let (mut net, shift, id) = offered(206);
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    net.cut(AMINA, OTIENO);
    net.heal(AMINA, OWNER);
    net.run_until_quiet();
    let operation = decide(&net, id, AMINA);
    net.act(OWNER, operation).unwrap();
    // Meanwhile, and without having heard of it:
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    net.run_until_quiet();
    assert_eq!(users(&net, shift), [AMINA]);
    net.heal(AMINA, OTIENO);
    net.heal(OWNER, RELAY);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(users(&net, shift), [AMINA]);
    assert_eq!(phase(&net, OTIENO, id), HandoffPhase::Withdrawn);
    let conflict = net.shop(RELAY).books().conflicts(false).next().unwrap();
    let sides: Vec<_> = conflict.sides.iter().map(|side| (side.label.as_str(), side.counted)).collect();
    assert_eq!(sides, [("giver", true), ("receiver", false)], "both sides are kept");
    // The receiver is free again.
    net.act(OTIENO, opening()).unwrap();
}

#[test]
fn a_decision_that_comes_after_the_transfer_changes_nothing_and_is_shown() {
    let (mut net, shift, id) = offered(207);
    net.heal(AMINA, OTIENO);
    net.heal(AMINA, OWNER);
    net.run_until_quiet();
    net.cut(AMINA, OWNER);
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    net.run_until_quiet();
    let operation = decide(&net, id, AMINA);
    net.act(OWNER, operation).unwrap();
    net.heal(AMINA, OWNER);
    net.heal(OWNER, RELAY);
    net.run_until_quiet();
    net.assert_converged();
    assert_eq!(users(&net, shift), [OTIENO], "it was his before the owner said anything that Amina heard");
    let torn = net.shop(RELAY).books().conflicts(true).next().unwrap();
    assert_eq!(torn.kind, ConflictKind::HandoffTorn);
    let sides: Vec<_> = torn.sides.iter().map(|side| (side.label.as_str(), side.counted)).collect();
    assert_eq!(sides, [("transfer", true), ("decision", false)]);
}

#[test]
fn nobody_else_can_accept_transfer_or_decide() {
    let (mut net, shift, id) = offered(208);
    net.heal(AMINA, OTIENO);
    net.heal(OTIENO, OWNER);
    net.run_until_quiet();
    let operation = accept(&net, OWNER, id);
    assert!(matches!(refused(&mut net, OWNER, operation), HandoffError::NotYours { .. }));
    let transfer = || of(Fact::HandoffTransferred(HandoffTransferred { handoff: id }));
    assert!(matches!(refused(&mut net, OTIENO, transfer()), HandoffError::NotYours { .. }));
    assert_eq!(refused(&mut net, AMINA, transfer()), HandoffError::Past(id), "there is no acceptance");
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[77; 32]);
    let forged = HandoffDecided::sign(id, net.shop(OTIENO).device(), None, &stranger);
    assert!(matches!(
        refused(&mut net, OWNER, of(Fact::HandoffDecided(forged.clone()))),
        HandoffError::NotTheArbiter(_)
    ));
    let renamed = HandoffDecided { owner: net.shop(AMINA).certificate().owner, ..forged };
    assert!(matches!(refused(&mut net, OWNER, of(Fact::HandoffDecided(renamed))), HandoffError::NotTheArbiter(_)));
    let other_count = of(Fact::HandoffAccepted(HandoffAccepted { handoff: id, counted: kes(1) }));
    assert!(matches!(refused(&mut net, OTIENO, other_count), HandoffError::CountDiffers { .. }));
    assert!(users(&net, shift).is_empty());
}

#[test]
fn whoever_accepts_holds_everything_that_the_relay_lacks() {
    let mut net = ShopNet::new(209, 3);
    let shift = net.act(AMINA, opening()).unwrap().records[0];
    for till in [OTIENO, OWNER] {
        net.act(till, bread(1, None)).unwrap();
    }
    // Amina carries the owner's sale for the relay, and has many of her own.
    for till in [OWNER, OTIENO] {
        net.heal(AMINA, till);
        net.run_until_quiet();
        net.cut(AMINA, till);
    }
    net.act(OWNER, bread(9, None)).unwrap();
    net.heal(AMINA, OWNER);
    net.run_until_quiet();
    net.cut(AMINA, OWNER);
    let operation = offer(&net, AMINA, OTIENO, shift, Vec::new());
    let id = net.act(AMINA, operation).unwrap().records[0];
    // Only her own journal gets through.
    only_the_journal_of(&mut net, AMINA, OTIENO);
    let missing = net.shop(OTIENO).missing_of(&handoff(&net, OTIENO, id));
    assert_eq!(missing, 1);
    let operation = accept(&net, OTIENO, id);
    assert_eq!(refused(&mut net, OTIENO, operation), HandoffError::Incomplete { missing });
    net.heal(AMINA, OTIENO);
    net.run_until_quiet();
    let operation = accept(&net, OTIENO, id);
    net.act(OTIENO, operation).unwrap();
    net.run_until_quiet();
    net.crash(AMINA);
    net.heal(OTIENO, RELAY);
    net.run_until_quiet();
    assert_eq!(net.shop(RELAY).books().count_of(Kind::Sale), 3, "nothing is lost with Amina's phone");
}

/// One till gets what another recorded itself, and nothing else that it holds.
fn only_the_journal_of(net: &mut ShopNet, from: usize, to: usize) {
    let journal = net.shop(from).own_journal();
    let held = net.shop(to).journal(journal).unwrap().high;
    let mut builder = RunBuilder::new(journal, None, held + 1);
    for (_, bytes) in net.devices[from].disk.entries.range((journal, held + 1)..=(journal, u64::MAX)) {
        assert!(builder.push(Entry::from_bytes(bytes).unwrap()).is_continue());
    }
    let certificate = net.devices[from].identity.certificate.clone();
    let link = net.play_peer(to, certificate.device);
    let hello = Hello { version: PROTOCOL_VERSION, business: certificate.business, certificate };
    net.feed(to, Input::Received(link, Message::Hello(hello).to_frame()));
    net.feed(to, Input::Received(link, Message::Entries(vec![builder.finish().unwrap()]).to_frame()));
    net.feed(to, Input::LinkDown(link));
}

#[test]
fn a_shift_goes_round_and_comes_back() {
    let mut net = ShopNet::new(210, 3);
    let shift = net.act(AMINA, opening()).unwrap().records[0];
    for till in [OTIENO, OWNER] {
        net.act(till, bread(1, None)).unwrap();
    }
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        net.heal(a, b);
    }
    net.run_until_quiet();
    for (giver, to) in [(AMINA, OTIENO), (OTIENO, OWNER), (OWNER, AMINA), (AMINA, OTIENO)] {
        net.act(giver, bread(1, None)).unwrap();
        let operation = offer(&net, giver, to, shift, Vec::new());
        let id = net.act(giver, operation).unwrap().records[0];
        net.run_until_quiet();
        let operation = accept(&net, to, id);
        net.act(to, operation).unwrap();
        net.run_until_quiet();
        assert_eq!(users(&net, shift), [to]);
    }
    let report = net.shop(OWNER).books().z_report(shift).unwrap();
    assert_eq!((report.handoffs.len(), report.cash_expected_minor), (4, 100_000 + 4 * 6500));
}

#[test]
fn two_shifts_can_not_be_opened_on_one_till() {
    let mut net = ShopNet::new(211, 2);
    let first = net.act(0, opening()).unwrap().records[0];
    assert_eq!(refused(&mut net, 0, opening()), HandoffError::ShiftOpen(first));
    let operation = close(&net, 0, first);
    net.act(0, operation.clone()).unwrap();
    assert!(net.act(0, operation).unwrap().repeated);
    net.act(0, opening()).unwrap();
}

/// Everybody does anything at any time, while links come and go and devices crash.
fn anything_goes(seed: u64) -> BTreeSet<HandoffPhase> {
    let mut net = ShopNet::new(seed, 3);
    let mut dice = Dice::new(seed);
    let shift = net.act(AMINA, opening()).unwrap().records[0];
    for till in [OTIENO, OWNER] {
        net.act(till, bread(1, None)).unwrap();
    }
    let pairs = [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3)];
    pairs.iter().for_each(|(a, b)| net.heal(*a, *b));
    net.run_until_quiet();
    pairs.iter().for_each(|(a, b)| net.cut(*a, *b));
    let mut handoffs: Vec<RecordId> = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let till = usize::try_from(dice.roll(3)).unwrap();
        let (a, b) = pairs[usize::try_from(dice.roll(5)).unwrap()];
        let chosen = handoffs.last().copied();
        // What is refused is part of it.
        match (dice.roll(12), chosen) {
            (0, _) => {
                let to = (till + 1 + usize::try_from(dice.roll(2)).unwrap()) % 3;
                let operation = offer(&net, till, to, shift, Vec::new());
                handoffs.extend(net.act(till, operation).ok().and_then(|acted| acted.records.first().copied()));
            }
            (1 | 2, Some(id)) => {
                let operation = accept(&net, till, id);
                drop(net.act(till, operation));
            }
            (3, Some(id)) => drop(net.act(till, withdraw(id))),
            (4, Some(id)) => {
                let given = net.shop(OWNER).books().handoff(id);
                let to = given.map_or(AMINA, |handoff| {
                    let receives = dice.roll(2) == 0;
                    (0..3).find(|till| (net.shop(*till).device() == handoff.giver) != receives).unwrap()
                });
                let operation = decide(&net, id, to);
                drop(net.act(OWNER, operation));
            }
            (5, _) => drop(net.act(till, opening())),
            (6, _) => {
                net.crash(till);
                net.start(till, false);
            }
            (7, _) => net.cut(a, b),
            (8 | 9, _) => net.heal(a, b),
            (10, _) => net.run_until_quiet(),
            _ => drop(net.act(till, bread(1, None))),
        }
        net.run_for(dice.roll(6));
        let users = users(&net, shift);
        assert!(users.len() <= 1, "seed {seed}: the shift belongs to {users:?}");
        seen.extend(handoffs.iter().filter_map(|id| Some(net.shop(till).books().handoff(*id)?.phase)));
    }
    for (a, b) in pairs {
        net.cut(a, b);
        net.heal(a, b);
    }
    net.run_until_quiet();
    net.assert_converged();
    assert!(users(&net, shift).len() <= 1, "seed {seed}");
    // Nothing waits for ever once everybody has met: what is accepted is transferred.
    let last: Vec<HandoffPhase> = handoffs.iter().map(|id| phase(&net, RELAY, *id)).collect();
    assert!(!last.contains(&HandoffPhase::Accepted), "seed {seed}: {last:?}");
    seen
}

#[test]
fn whatever_everybody_does_a_shift_never_belongs_to_two() {
    let mut seen = BTreeSet::new();
    for seed in 1_000..1_300 {
        seen.extend(anything_goes(seed));
    }
    assert_eq!(seen.len(), 5, "every phase was reached: {seen:?}");
}
