//! The books as stories of a shop.

use super::test_shop::*;
use super::{Books, BooksError, Figure, IntentState};
use crate::ids::RecordId;
use crate::money::{Currency, Money};
use crate::record::{Decline, Expense, Fact, IntentAddressed, IntentConfirmed, Kind, Refund, Resolution, TenderKind};
use crate::rules::{ConflictKind, ConflictState};
use crate::time::Day;

fn kinds(books: &Books) -> Vec<ConflictKind> {
    books.conflicts(true).map(|conflict| conflict.kind).collect()
}

#[test]
fn a_day_with_sales_a_void_a_refund_and_tea() {
    let mut till = Till::new(1, 1);
    let mut bread = line("BREAD", 2, 6_500);
    bread.discount_minor = 1_000;
    let first = till.records(1, sale("1", vec![bread, line("MILK", 1, 5_800)], TenderKind::Cash));
    let second = till.records(2, sale("2", vec![line("MILK", 3, 5_800)], TenderKind::Cash));
    let void = till.records(3, void_of(&second, "wrong customer"));
    let refund = till.records(
        4,
        Fact::Refund(Refund {
            source: source("3"),
            occurred: None,
            sale: Some(first.id()),
            currency: Currency::KES,
            lines: vec![line("MILK", 1, 5_800)],
            tenders: Vec::new(),
            reason: "sour".to_owned(),
            customer: None,
        }),
    );
    let tea = till.records(
        5,
        Fact::Expense(Expense {
            source: None,
            occurred: None,
            category: "tea".to_owned(),
            amount: Money::new(300, Currency::KES),
            description: None,
            paid_with: TenderKind::Cash,
        }),
    );
    let books = books_of(&[&first, &second, &void, &refund, &tea]);
    let day = books.day(Day(1)).currency(Currency::KES);
    assert_eq!(day.of(Figure::Sales), 2);
    assert_eq!(day.of(Figure::GrossMinor), 13_000 + 5_800 + 17_400);
    assert_eq!(day.of(Figure::DiscountsMinor), 1_000);
    assert_eq!((day.of(Figure::Voids), day.of(Figure::VoidsMinor)), (1, 17_400));
    assert_eq!((day.of(Figure::Refunds), day.of(Figure::RefundsMinor)), (1, 5_800));
    assert_eq!(day.net_minor(), 12_000);
    assert_eq!(day.cash_expected_minor(), 17_800 - 300);
    let tax = day.taxes()[&1_600];
    assert_eq!((tax.amount_minor, tax.tax_minor), (12_000, 1_655), "the milk came back with its tax");
    assert_eq!(books.device_day(Day(1), till.device), books.day(Day(1)));
    assert!(books.day(Day(2)).is_empty());
    assert_eq!((on_hand(&books, "BREAD"), on_hand(&books, "MILK")), (Some(-2), Some(0)));
    assert_eq!(books.open_conflict_count(), 0, "who never receives stock keeps none, and oversells none");
}

#[test]
fn two_tills_void_one_sale_and_it_is_voided_once() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let sold = one.records(1, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Cash));
    let later = one.records(3, void_of(&sold, "customer left"));
    let earlier = two.records(2, void_of(&sold, "wrong price"));
    for order in [[&sold, &later, &earlier], [&earlier, &later, &sold], [&later, &earlier, &sold]] {
        let books = books_of(&order);
        assert_eq!(figure(&books, Figure::Voids), 1);
        assert_eq!(on_hand(&books, "BREAD"), Some(0));
        assert_eq!(books.record(later.id()).unwrap().place, earlier.place, "the earlier void counts");
        assert_eq!(books.device_day(Day(1), two.device).currency(Currency::KES).of(Figure::Voids), 1);
        assert_eq!(kinds(&books), [ConflictKind::SameIdOtherBody]);
        assert!(books.sale_status(sold.id()).voided);
    }
}

#[test]
fn a_sale_entered_on_two_tills_is_one_sale_of_the_earlier_till() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let bread = || sale("42", vec![line("BREAD", 1, 6_500)], TenderKind::Cash);
    let (later, earlier) = (one.records(9, bread()), two.records(4, bread()));
    let books = books_of(&[&later, &earlier, &later]);
    assert_eq!(figure(&books, Figure::Sales), 1);
    assert_eq!(books.device_day(Day(1), two.device).currency(Currency::KES).of(Figure::Sales), 1);
    assert!(books.device_day(Day(1), one.device).is_empty());
    assert_eq!(books.open_conflict_count(), 0, "equal bodies are one fact");
}

#[test]
fn a_recount_waits_for_its_facts_and_survives_a_snapshot_and_being_overtaken() {
    let (mut one, mut two, mut three) = (Till::new(1, 1), Till::new(2, 2), Till::new(3, 3));
    let cost = |minor| sale("42", vec![line("BREAD", 1, minor)], TenderKind::Cash);
    let (third, second, first) = (one.records(3, cost(300)), two.records(2, cost(200)), three.records(1, cost(100)));
    let mut books = Books::default();
    assert!(books.fold(&third.placed()).is_empty());
    assert_eq!(books.fold(&second.placed()).len(), 1);
    assert_eq!(books.fold(&first.placed()).len(), 1);
    assert_eq!(figure(&books, Figure::GrossMinor), 300, "until the facts are loaded the old one counts");
    let mut books = Books::decode(&books.encode()).unwrap();
    let overtaken = books.recount(&[third.placed(), second.placed()]);
    assert_eq!(overtaken, books.pending());
    follow_up(&mut books, &[&first, &second, &third], overtaken);
    assert_eq!(figure(&books, Figure::GrossMinor), 100);
    assert!(books.pending().is_empty());
    let conflict = books.conflicts(true).next().unwrap();
    assert_eq!(conflict.sides.iter().map(|side| side.time).collect::<Vec<_>>(), [first.time, second.time, third.time]);
    assert_eq!(conflict.sides.iter().map(|side| side.counted).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(books.digest(), books_of(&[&first, &second, &third]).digest());
}

#[test]
fn stock_is_the_latest_count_and_what_moved_since() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let delivered = one.records(1, movement("MILK", 20));
    let known = two.records(2, sale("a", vec![line("MILK", 3, 100)], TenderKind::Cash));
    let unknown_before = two.records(3, sale("b", vec![line("MILK", 2, 100)], TenderKind::Cash));
    let counted = one.records(5, count("MILK", 15, vec![(two.journal, 1)]));
    let after = two.records(6, sale("c", vec![line("MILK", 4, 100)], TenderKind::Cash));
    let own = one.records(7, sale("d", vec![line("MILK", 1, 100)], TenderKind::Cash));
    for order in [
        [&delivered, &known, &unknown_before, &counted, &after, &own],
        [&own, &after, &counted, &unknown_before, &known, &delivered],
    ] {
        let books = books_of(&order);
        let level = books.stock("MILK").unwrap();
        assert_eq!(level.on_hand_milli, Some(10_000));
        assert_eq!(level.late_movements, 1, "the counter did not know of sale b");
        assert_eq!(level.last_count.unwrap().record, counted.id());
    }
}

#[test]
fn oversold_stock_is_a_conflict_until_it_is_back() {
    let mut till = Till::new(1, 1);
    let delivered = till.records(1, movement("MILK", 2));
    let sold = till.records(2, sale("a", vec![line("MILK", 3, 100)], TenderKind::Cash));
    let mut books = books_of(&[&sold, &delivered]);
    let conflict = books.conflicts(true).next().unwrap();
    assert_eq!((conflict.kind, conflict.sku.as_deref()), (ConflictKind::Oversold, Some("MILK")));
    let more = till.records(3, movement("MILK", 5));
    fold_all(&mut books, &[&more]);
    assert_eq!(books.open_conflict_count(), 0);
    assert_eq!(on_hand(&books, "MILK"), Some(4));
}

#[test]
fn quantities_beyond_belief_make_stock_unknown_and_never_panic() {
    let mut till = Till::new(1, 1);
    let mut huge = line("MILK", 1, 0);
    huge.quantity_milli = i64::MAX;
    let sold = till.records(1, sale("a", vec![huge.clone(), huge], TenderKind::Cash));
    let mut books = books_of(&[&sold]);
    assert_eq!(books.stock("MILK").unwrap().on_hand_milli, None);
    let void = till.records(2, void_of(&sold, "mistake"));
    fold_all(&mut books, &[&void]);
    assert_eq!(books.stock("MILK").unwrap().on_hand_milli, None);
    let mut dear = line("GOLD", 1, i64::MAX);
    dear.quantity_milli = i64::MAX;
    let Fact::Sale(mut fact) = sale("b", vec![line("GOLD", 1, 1)], TenderKind::Cash) else { unreachable!() };
    fact.lines = vec![dear];
    fold_all(&mut books, &[&till.records(3, Fact::Sale(fact))]);
    assert_eq!(figure(&books, Figure::Unusable), 1);
}

#[test]
fn an_mpesa_sale_is_complete_when_its_ledger_says_so() {
    let (mut till, mut relay, mut rogue) = (Till::new(1, 1), Till::new(9, 9), Till::new(5, 5));
    let sold = till.records(1, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Mpesa));
    let asked = till.records(1, intent_of(&sold, 6_500, None));
    let intent = asked.id();
    let forged = rogue.records(0, receipt(intent, "AAA", 6_500));
    let mut books = books_of(&[&forged, &sold, &asked]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Open));
    assert!(books.has_open_intents(till.device));
    assert_eq!(books.unaddressed_intents(till.device).collect::<Vec<_>>(), [intent]);
    assert!(!books.payment(intent).unwrap().receipts[0].accepted);
    let addressed = |ledger| Fact::IntentAddressed(IntentAddressed { intent, ledger });
    let other_ledger = crate::record::Ledger { relay: rogue.device, epoch: 1 };
    fold_all(&mut books, &[&rogue.records(2, addressed(other_ledger))]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Open), "only its own device may address it");
    fold_all(&mut books, &[&till.records(3, addressed(LEDGER)), &till.records(4, addressed(other_ledger))]);
    assert_eq!(books.open_intents_for(&LEDGER).collect::<Vec<_>>(), [intent], "the first address stands");
    assert!(!books.sale_status(sold.id()).completed);
    let declined = Fact::Decline(Decline { intent, attempt: 1, code: "1032".into(), reason: "cancelled".into() });
    fold_all(&mut books, &[&relay.records(5, declined)]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Declined));
    assert!(!books.has_open_intents(till.device));
    fold_all(&mut books, &[&till.records(6, Fact::IntentConfirmed(IntentConfirmed { intent }))]);
    assert_eq!(books.intent_state(intent), Some(IntentState::Open), "the customer tries again");
    fold_all(&mut books, &[&relay.records(7, receipt(intent, "AAA", 6_500))]);
    assert_eq!(
        books.intent_state(intent),
        Some(IntentState::Paid),
        "a forged copy with an earlier time changes nothing"
    );
    assert!(books.sale_status(sold.id()).completed);
    assert_eq!(books.intent_count(IntentState::Paid), 1);
    assert_eq!(books.payment_sums()[&(IntentState::Paid, Currency::KES)].amount_minor, 6_500);
}

#[test]
fn a_payment_of_another_amount_and_an_intent_above_a_fork_go_to_a_person() {
    let (mut till, mut relay) = (Till::new(1, 1), Till::new(9, 9));
    let sold = till.records(1, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Mpesa));
    let asked = till.records(2, intent_of(&sold, 6_500, Some(LEDGER)));
    let paid = relay.records(3, receipt(asked.id(), "AAA", 6_000));
    assert_eq!(books_of(&[&paid, &asked]).intent_state(asked.id()), Some(IntentState::Review));
    till.branch = true;
    let above = till.records(4, intent_of(&sold, 6_500, Some(LEDGER)));
    let books = books_of(&[&above]);
    assert_eq!(books.intent_state(above.id()), Some(IntentState::Review));
    assert_eq!(books.open_intents_for(&LEDGER).count(), 0, "never pushed");
}

#[test]
fn a_sale_voided_while_its_customer_pays_twice_is_two_conflicts() {
    let (mut till, mut relay) = (Till::new(1, 1), Till::new(9, 9));
    let sold = till.records(1, sale("1", vec![line("BREAD", 1, 6_500)], TenderKind::Mpesa));
    let asked = till.records(2, intent_of(&sold, 6_500, Some(LEDGER)));
    let void = till.records(3, void_of(&sold, "left"));
    let (first, second) =
        (relay.records(4, receipt(asked.id(), "AAA", 6_500)), relay.records(5, receipt(asked.id(), "BBB", 6_500)));
    assert_eq!(books_of(&[&void, &asked]).intent_state(asked.id()), Some(IntentState::Void));
    for order in [[&sold, &asked, &void, &first, &second], [&second, &void, &first, &asked, &sold]] {
        let books = books_of(&order);
        assert_eq!(books.intent_state(asked.id()), Some(IntentState::Paid));
        let mut found = kinds(&books);
        found.sort_unstable();
        assert_eq!(found, [ConflictKind::VoidedAndPaid, ConflictKind::PaidTwice]);
        let twice = books.conflicts(true).find(|conflict| conflict.kind == ConflictKind::PaidTwice).unwrap();
        assert_eq!(twice.sides.iter().map(|side| side.label.as_str()).collect::<Vec<_>>(), ["AAA", "BBB"]);
    }
}

#[test]
fn one_receipt_number_pays_one_intent() {
    let (mut till, mut relay) = (Till::new(1, 1), Till::new(9, 9));
    let one = till.records(1, sale("1", vec![line("BREAD", 1, 100)], TenderKind::Mpesa));
    let two = till.records(2, sale("2", vec![line("BREAD", 1, 100)], TenderKind::Mpesa));
    let (ask_one, ask_two) =
        (till.records(3, intent_of(&one, 100, Some(LEDGER))), till.records(4, intent_of(&two, 100, Some(LEDGER))));
    let (first, second) =
        (relay.records(5, receipt(ask_two.id(), "AAA", 100)), relay.records(6, receipt(ask_one.id(), "AAA", 100)));
    for order in [[&ask_one, &ask_two, &second, &first], [&first, &second, &ask_two, &ask_one]] {
        let books = books_of(&order);
        assert_eq!(books.intent_state(ask_two.id()), Some(IntentState::Paid), "the earlier claim");
        assert_eq!(books.intent_state(ask_one.id()), Some(IntentState::Open));
        let conflict = books.conflicts(true).next().unwrap();
        assert_eq!(conflict.kind, ConflictKind::DoubleClaim);
        assert!(conflict.sides[0].counted && conflict.sides[0].place == first.place && !conflict.sides[1].counted);
    }
}

#[test]
fn a_ticket_closed_on_two_tills_is_a_conflict_of_its_own_kind() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let close = |key, quantity| {
        let Fact::Sale(mut fact) = sale(key, vec![line("TEA", quantity, 50)], TenderKind::Cash) else { unreachable!() };
        fact.ticket = Some(RecordId::from_place(crate::ids::JournalId([8; 16]), 1, 0));
        Fact::Sale(fact)
    };
    let (first, second) = (one.records(1, close("1", 1)), two.records(2, close("2", 2)));
    let books = books_of(&[&second, &first]);
    assert_eq!(figure(&books, Figure::GrossMinor), 50);
    assert_eq!(kinds(&books), [ConflictKind::TicketClosedTwice]);
}

#[test]
fn the_latest_decision_stands_even_if_it_came_before_its_conflict() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let cost = |minor| sale("42", vec![line("BREAD", 1, minor)], TenderKind::Cash);
    let (first, second) = (one.records(1, cost(100)), two.records(2, cost(200)));
    let conflict = books_of(&[&first, &second]).conflicts(true).next().unwrap().id;
    let decide =
        |choice: &str| Fact::Resolution(Resolution { conflict, choice: choice.to_owned(), note: None, fields: None });
    let (early, late) = (one.records(3, decide("left")), two.records(4, decide("right")));
    for order in [[&early, &late, &first, &second], [&first, &second, &late, &early]] {
        let books = books_of(&order);
        assert_eq!(books.open_conflict_count(), 0);
        let ConflictState::Resolved(decision) = books.conflicts(false).next().unwrap().state else { panic!() };
        assert_eq!((decision.choice.as_str(), decision.device), ("right", two.device));
    }
}

#[test]
fn a_closed_shift_has_its_figures_and_late_facts_go_to_its_addendum() {
    let (mut till, mut other) = (Till::new(1, 1), Till::new(2, 2));
    let before = till.records(1, sale("0", vec![line("BREAD", 1, 999)], TenderKind::Cash));
    let opened = till.records(2, shift_opened(1_000));
    let sold = till.records(3, sale("1", vec![line("BREAD", 1, 500)], TenderKind::Cash));
    let by_phone = till.records(4, sale("2", vec![line("BREAD", 1, 700)], TenderKind::Mpesa));
    let seen_void = other.records(5, void_of(&sold, "seen by the close"));
    let closed = till.records(6, shift_closed(opened.id(), 1_450, vec![(till.journal, 4), (other.journal, 1)]));
    let late_void = other.records(7, void_of(&by_phone, "late"));
    let after = till.records(8, sale("3", vec![line("BREAD", 1, 100)], TenderKind::Cash));
    let all = [&before, &opened, &sold, &by_phone, &seen_void, &closed, &late_void, &after];
    let mut backwards = all;
    backwards.reverse();
    for order in [all, backwards] {
        let report = books_of(&order).z_report(opened.id()).unwrap();
        let totals = report.totals.currency(Currency::KES);
        assert_eq!((totals.of(Figure::Sales), totals.of(Figure::GrossMinor)), (2, 1_200));
        assert_eq!(report.cash_expected_minor, 1_500);
        assert_eq!(report.difference_minor, Some(-50));
        let late = report.addendum.currency(Currency::KES);
        assert_eq!((late.of(Figure::Voids), late.of(Figure::VoidsMinor)), (1, 700));
    }
    let mut books = books_of(&all[..5]);
    assert_eq!(books.current_shift(till.device), Some(opened.id()));
    fold_all(&mut books, &[&closed]);
    assert_eq!(books.current_shift(till.device), None);
    assert_eq!(books.shifts(till.device).collect::<Vec<_>>(), [opened.id()]);
}

#[test]
fn records_are_listed_newest_first_from_a_cursor() {
    let mut till = Till::new(1, 1);
    let sales: Vec<_> = (0..50_i64)
        .map(|at| {
            till.records(
                u64::try_from(at * 7 % 50).unwrap(),
                sale(&at.to_string(), vec![line("A", 1, at)], TenderKind::Cash),
            )
        })
        .collect();
    let books = books_of(&sales.iter().collect::<Vec<_>>());
    let mut listed = Vec::new();
    let mut cursor = None;
    loop {
        let page: Vec<_> = books.list(Kind::Sale, cursor).take(7).collect();
        let Some(last) = page.last() else { break };
        cursor = Some((last.time, last.id));
        listed.extend(page.iter().map(|record| record.time.wall().0));
    }
    assert_eq!(listed, (0..50).rev().collect::<Vec<u64>>());
    assert_eq!(books.count_of(Kind::Sale), 50);
}

#[test]
fn damaged_or_older_books_are_refused() {
    let mut till = Till::new(1, 1);
    let sold = till.records(1, sale("1", vec![line("BREAD", 1, 100)], TenderKind::Cash));
    let bytes = books_of(&[&sold]).encode();
    for cut in 0..bytes.len() {
        assert!(Books::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(Books::decode(&longer), Err(BooksError::Damaged(_))));
    let mut newer = bytes;
    newer[0] = 9;
    assert_eq!(Books::decode(&newer).unwrap_err(), BooksError::OtherVersion { found: 9 });
}
