//! Stories of intents that go to another ledger, and of cash that is taken instead.

use super::IntentState;
use super::test_shop::*;
use crate::ids::{DeviceId, OwnerKey, RecordId};
use crate::money::{Currency, Money};
use crate::record::{
    CashTaken, Decline, Fact, GiveUp, GiveUpAnswer, Instead, IntentReleased, Ledger, LedgerMoved, PaymentFact,
    ReceiptRevoked, TenderKind,
};

const LOST: Ledger = LEDGER;
const HEIR: Ledger = Ledger { relay: DeviceId([8; 32]), epoch: 1 };
const AGAIN: Ledger = Ledger { relay: RELAY, epoch: 2 };

fn moved(from: Ledger, to: Ledger, old_is_gone: bool) -> Fact {
    let (owner, signature) = (OwnerKey([1; 32]), [0; 64]);
    Fact::Payment(PaymentFact::Moved(LedgerMoved { from, to, intent: None, old_is_gone, owner, signature }))
}

fn released(intent: RecordId, moved: &Recorded, reconciled: bool) -> Fact {
    let released = IntentReleased { intent, moved: moved.id(), attempts: 1, reconciled };
    Fact::Payment(PaymentFact::Released(released))
}

/// A till with an open intent, the relay that has it, another relay, and the owner's device.
fn shop() -> (Recorded, Recorded, Till, Till, Till, Till) {
    let (mut till, relay, heir, owner) = (Till::new(1, 1), Till::new(9, 9), Till::new(8, 8), Till::new(3, 3));
    let sold = till.records(1, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Mpesa));
    let asked = till.records(1, intent_of(&sold, 6_500, Some(LOST)));
    (sold, asked, till, relay, heir, owner)
}

#[test]
fn an_intent_goes_over_once_its_ledger_lets_it_go() {
    let (sold, asked, _, mut relay, mut heir, mut owner) = shop();
    let intent = asked.id();
    let word = owner.records(2, moved(LOST, HEIR, false));
    let usurped = heir.records(3, released(intent, &word, true));
    let mut books = books_of(&[&sold, &asked, &usurped, &word]);
    let payment = books.payment(intent).unwrap();
    assert_eq!(payment.ledger, Some(LOST), "nobody vouched that the old ledger is gone");
    assert_eq!(payment.moving.map(|moving| moving.to), Some(HEIR));
    let let_go = relay.records(4, released(intent, &word, false));
    fold_all(&mut books, &[&let_go]);
    for order in [[&sold, &asked, &word, &let_go], [&let_go, &word, &asked, &sold]] {
        let books = books_of(&order);
        let payment = books.payment(intent).unwrap();
        assert_eq!((payment.ledger, payment.earlier_attempts, payment.moving), (Some(HEIR), 1, None));
        assert_eq!(books.open_intents_for(&HEIR).collect::<Vec<_>>(), [intent]);
        assert_eq!(books.open_intents_for(&LOST).count(), 0);
    }
    // Whoever had it is still heard: its customer's money may come late.
    fold_all(&mut books, &[&relay.records(5, receipt(intent, "AAA", 6_500))]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Paid));
    fold_all(&mut books, &[&heir.records(6, receipt(intent, "BBB", 6_500))]);
    assert_eq!(books.payment(intent).unwrap().receipts.iter().filter(|one| one.accepted).count(), 2);
}

#[test]
fn a_release_without_an_owners_word_is_none_and_what_was_let_go_never_comes_back() {
    let (sold, asked, mut till, mut relay, _, mut owner) = shop();
    let intent = asked.id();
    let word = owner.records(2, moved(LOST, HEIR, true));
    let back = owner.records(3, moved(HEIR, LOST, true));
    let stranger = till.records(4, released(intent, &word, false));
    let without = relay.records(4, released(intent, &sold, false));
    let books = books_of(&[&sold, &asked, &word, &stranger, &without]);
    assert_eq!(books.payment(intent).unwrap().ledger, Some(LOST));
    let let_go = relay.records(5, released(intent, &word, false));
    let taken_back = relay.records(6, released(intent, &back, true));
    let books = books_of(&[&sold, &asked, &word, &back, &let_go, &taken_back]);
    let payment = books.payment(intent).unwrap();
    assert_eq!((payment.ledger, payment.moving), (Some(HEIR), None), "a ledger that let go never asks again");
}

#[test]
fn a_restored_relay_reconciles_for_itself_and_an_heir_for_a_lost_one() {
    let (sold, asked, _, mut relay, mut heir, mut owner) = shop();
    let intent = asked.id();
    let word = owner.records(2, moved(LOST, AGAIN, false));
    let reconciled = relay.records(3, released(intent, &word, true));
    assert_eq!(books_of(&[&sold, &asked, &word, &reconciled]).payment(intent).unwrap().ledger, Some(AGAIN));
    let gone = owner.records(4, moved(AGAIN, HEIR, true));
    let mut books = books_of(&[&sold, &asked, &word, &reconciled, &gone]);
    // The heir's word counts for all that the lost relay had, whether it has gone over or not.
    let declined = Fact::Decline(Decline { intent, attempt: 2, code: "1032".into(), reason: String::new() });
    fold_all(&mut books, &[&heir.records(5, declined)]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Declined));
    fold_all(&mut books, &[&heir.records(6, released(intent, &gone, true))]);
    assert_eq!(books.payment(intent).unwrap().ledger, Some(HEIR));
}

#[test]
fn an_heir_books_what_a_lost_relay_had_asked_for_before_it_takes_it_over() {
    let (sold, asked, _, _, mut heir, mut owner) = shop();
    let intent = asked.id();
    let gone = owner.records(2, moved(LOST, HEIR, true));
    let paid = heir.records(3, receipt(intent, "AAA", 6_500));
    for order in [[&sold, &asked, &gone, &paid], [&paid, &gone, &asked, &sold], [&sold, &asked, &paid, &gone]] {
        let books = books_of(&order);
        assert_eq!(books.intent_state(intent), Some(IntentState::Paid));
        assert_eq!(books.open_intents_for(&LOST).count() + books.open_intents_for(&HEIR).count(), 0);
    }
}

/// One receipt of the heir's is claimed for two intents; its words begin to count by the move.
#[test]
fn intents_that_claim_one_receipt_are_counted_once_when_they_move_together() {
    let (sold, asked, mut till, _, mut heir, mut owner) = shop();
    let sold_too = till.records(2, sale("2", vec![line("MILK", 1, 6_500)], TenderKind::Mpesa));
    let asked_too = till.records(2, intent_of(&sold_too, 6_500, Some(LOST)));
    let paid = heir.records(3, receipt(asked.id(), "AAA", 6_500));
    let claimed_too = heir.records(4, receipt(asked_too.id(), "AAA", 6_500));
    let gone = owner.records(5, moved(LOST, HEIR, true));
    let sums = |facts: &[&Recorded]| books_of(facts).payment_sums().clone();
    let last = sums(&[&sold, &asked, &sold_too, &asked_too, &paid, &claimed_too, &gone]);
    assert_eq!(last.values().map(|sum| sum.intents).sum::<u64>(), 2);
    assert_eq!(last, sums(&[&gone, &sold, &asked, &sold_too, &asked_too, &paid, &claimed_too]));
}

#[test]
fn a_payment_that_was_taken_back_is_not_waited_for_any_more() {
    let (sold, asked, _, mut relay, _, _) = shop();
    let intent = asked.id();
    let paid = relay.records(2, receipt(intent, "AAA", 6_500));
    let revoked = ReceiptRevoked { intent, receipt: paid.id(), reason: "reversed".to_owned() };
    let revoked = relay.records(3, Fact::Payment(PaymentFact::Revoked(revoked)));
    for order in [[&sold, &asked, &paid, &revoked], [&revoked, &paid, &asked, &sold]] {
        let books = books_of(&order);
        assert_eq!(books.intent_state(intent), Some(IntentState::Void));
        assert_eq!(books.open_intents_for(&LOST).count(), 0);
    }
}

#[test]
fn cash_instead_is_in_the_drawer_of_the_till_that_asked_and_in_its_shift() {
    let (mut till, mut relay) = (Till::new(1, 1), Till::new(9, 9));
    let opened = till.records(1, shift_opened(1_000));
    let sold = till.records(2, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Mpesa));
    let asked = till.records(2, intent_of(&sold, 6_500, Some(LOST)));
    let intent = asked.id();
    let wish = till.records(3, Fact::Payment(PaymentFact::GiveUp(GiveUp { intent, instead: Instead::Cash })));
    let yes = GiveUpAnswer { intent, request: wish.id(), granted: true, instead: Instead::Cash };
    let yes = relay.records(4, Fact::Payment(PaymentFact::GiveUpAnswer(yes)));
    let mut books = books_of(&[&opened, &sold, &asked, &wish]);
    assert!(books.cash_due(till.device).is_empty(), "the relay has not agreed");
    assert_eq!(books.z_report(opened.id()).unwrap().cash_expected_minor, 1_000);
    fold_all(&mut books, &[&yes]);
    assert_eq!(books.cash_due(till.device), [intent]);
    assert!(books.cash_due(relay.device).is_empty(), "the cash is at the till that asked");
    let cash = CashTaken { intent, amount: Money::new(6_500, Currency::KES), of_tender: true };
    let taken = till.records(5, Fact::Payment(PaymentFact::CashTaken(cash)));
    for order in [[&opened, &sold, &asked, &wish, &yes, &taken], [&taken, &yes, &wish, &asked, &sold, &opened]] {
        let books = books_of(&order);
        let report = books.z_report(opened.id()).unwrap();
        assert_eq!(report.cash_expected_minor, 7_500);
        let totals = report.totals.currency(Currency::KES);
        assert_eq!((totals.of(super::Figure::CashInMinor), totals.of(super::Figure::MpesaInMinor)), (6_500, 0));
        assert!(books.cash_due(till.device).is_empty() && books.is_cash_taken(intent));
    }
}
