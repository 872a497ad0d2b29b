//! The invariant above all: the same set of facts gives the same books, whatever the order of
//! arrival, duplication, splits by snapshots, and delay of recounts.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::test_shop::*;
use super::{Books, Figure, Followup};
use crate::ids::RecordId;
use crate::money::{Currency, Money};
use crate::payment::ReviewReason;
use crate::record::{
    CashTaken, Check, CodeClaim, Custom, Decline, DeliveryOutcome, DeliveryState, DeliveryWish, Evidence, Expense,
    Fact, FinancialRecord, GiveUp, GiveUpAnswer, Instead, IntentAddressed, IntentConfirmed, IntentReleased,
    IntentRetry, IntentReview, Kind, Ledger, LedgerMoved, Outcome, OutcomeState, PaymentFact, Progress, Proposal,
    ReceiptRevoked, Refund, Resolution, Settlement, Stage, Suspense, TenderKind, UpstreamConflict, UpstreamFact,
};
use crate::time::{Day, Hlc, Timestamp};

const KINDS: [Kind; 24] = [
    Kind::Sale,
    Kind::Expense,
    Kind::FinancialRecord,
    Kind::StockMovement,
    Kind::StockCount,
    Kind::Intent,
    Kind::Void,
    Kind::Refund,
    Kind::ShiftOpened,
    Kind::ShiftClosed,
    Kind::Receipt,
    Kind::Decline,
    Kind::Custom,
    Kind::Enrolment,
    Kind::IntentAddressed,
    Kind::IntentConfirmed,
    Kind::Resolution,
    Kind::HandoffOffered,
    Kind::HandoffAccepted,
    Kind::HandoffTransferred,
    Kind::HandoffWithdrawn,
    Kind::HandoffDecided,
    Kind::Payment,
    Kind::Upstream,
];

/// Raw choices, of which a history is made.
type Choice = (u8, u8, u8, u8);

/// Two tills, one of them with a second epoch, a forked one, and two relays, recording facts
/// that refer to each other, share client ids and claim the same receipts.
fn history(choices: &[Choice]) -> Vec<Recorded> {
    let mut tills =
        [Till::new(1, 1), Till::new(2, 2), Till::new(1, 3), Till::new(2, 4), Till::new(9, 5), Till::new(8, 6)];
    tills[3].branch = true;
    let mut clocks = [100_u64; 6];
    let mut facts: Vec<Recorded> = Vec::new();
    for (who, what, a, b) in choices {
        let at = usize::from(*who) % tills.len();
        clocks[at] += u64::from(*b) % 3;
        let seen: Vec<_> = tills
            .iter()
            .filter(|till| (a ^ u8::try_from(till.seq() % 251).unwrap()) % 2 == 0)
            .map(|till| (till.journal, till.seq()))
            .collect();
        let fact = fact(&facts, *what, *a, *b, seen);
        let mut recorded = tills[at].records(clocks[at], fact);
        recorded.day = Day(i32::from(a % 3));
        facts.push(recorded);
        if b.is_multiple_of(4) && facts.len() > 1 {
            // Two facts of one entry.
            let last = facts.len() - 1;
            let (place, time) = (facts[last - 1].place, facts[last - 1].time);
            if place.journal == facts[last].place.journal
                && place.seq + 1 == facts[last].place.seq
                && facts[last - 1].index == 0
            {
                facts[last].index = 1;
                facts[last].place = place;
                facts[last].time = time;
            }
        }
    }
    facts
}

fn fact(before: &[Recorded], what: u8, a: u8, b: u8, seen: Vec<(crate::ids::JournalId, u64)>) -> Fact {
    let sku = ["BREAD", "MILK"][usize::from(a) % 2];
    let quantity = i64::from(b % 5) + 1;
    let key = (a % 6).to_string();
    let earlier = |kind: Kind| {
        let all: Vec<&Recorded> = before.iter().filter(|fact| fact.fact.kind() == kind).collect();
        (!all.is_empty()).then(|| all[usize::from(b) % all.len()])
    };
    let sold = || earlier(Kind::Sale);
    let money = Money::new(i64::from(b) - 100, Currency::KES);
    let ledger = Ledger { relay: if b.is_multiple_of(3) { crate::ids::DeviceId([8; 32]) } else { RELAY }, epoch: 1 };
    let asked =
        || earlier(Kind::Intent).map_or_else(|| RecordId(uuid::Uuid::from_u128(u128::from(a % 2))), Recorded::id);
    let plain = |tender| sale(&key, vec![line(sku, quantity, 100), line(sku, 1, 7)], tender);
    match what % 20 {
        0 => plain(TenderKind::Cash),
        1 | 2 => plain(TenderKind::Mpesa),
        3 => Fact::Expense(Expense {
            source: source(&key),
            occurred: None,
            category: "tea".to_owned(),
            amount: Money::new(i64::from(b), Currency::GBP),
            description: None,
            paid_with: TenderKind::Other,
        }),
        4 => Fact::FinancialRecord(FinancialRecord {
            source: None,
            occurred: None,
            record_type: "loan".to_owned(),
            amount: money,
            description: None,
        }),
        5 => movement(sku, i64::from(b % 20) - 5),
        6 => count(sku, i64::from(b % 9), seen),
        7 | 8 => sold().map_or_else(
            || plain(TenderKind::Mpesa),
            |sold| intent_of(sold, i64::from(b % 2) + 100, (!a.is_multiple_of(3)).then_some(ledger)),
        ),
        9 => sold()
            .map_or_else(|| movement(sku, 3), |sold| void_of(sold, if a.is_multiple_of(2) { "one" } else { "two" })),
        10 => Fact::Refund(Refund {
            source: source(&key),
            occurred: None,
            sale: sold().map(Recorded::id),
            currency: Currency::KES,
            lines: vec![line(sku, 1, 50)],
            tenders: Vec::new(),
            reason: String::new(),
            customer: None,
        }),
        11 => shift_opened(i64::from(b)),
        12 => earlier(Kind::ShiftOpened)
            .map_or_else(|| shift_opened(5), |opened| shift_closed(opened.id(), i64::from(a), seen)),
        13 | 14 => receipt(asked(), ["AAA", "BBB", "CCC"][usize::from(a) % 3], i64::from(b % 2) + 100),
        15 => Fact::Decline(Decline { intent: asked(), attempt: 1, code: "1032".into(), reason: String::new() }),
        16 if a.is_multiple_of(2) => Fact::IntentAddressed(IntentAddressed { intent: asked(), ledger }),
        16 => Fact::IntentConfirmed(IntentConfirmed { intent: asked() }),
        17 if a.is_multiple_of(2) => Fact::Upstream(upstream_fact(before, a, b)),
        18 | 19 => Fact::Payment(payment_fact(before, asked(), a, b)),
        _ if a.is_multiple_of(4) => Fact::Custom(Custom {
            source: source(&key),
            operation_type: "x".into(),
            method: "POST".into(),
            path: "/x".into(),
            body: b.to_string(),
            ..Custom::default()
        }),
        _ => {
            // A decision about some conflict that the facts so far lead to, or about nothing.
            let books = books_of(&before.iter().collect::<Vec<_>>());
            let conflicts: Vec<RecordId> = books.conflicts(false).map(|conflict| conflict.id).collect();
            let conflict = conflicts.get(usize::from(b) % conflicts.len().max(1)).copied();
            let conflict = conflict.unwrap_or(RecordId(uuid::Uuid::from_u128(1)));
            Fact::Resolution(Resolution { conflict, choice: a.to_string(), note: None, fields: None })
        }
    }
}

/// What a carrier says about an operation, or a person wants.
fn upstream_fact(before: &[Recorded], a: u8, b: u8) -> UpstreamFact {
    let operation = before.get(usize::from(b) % before.len().max(1)).map(Recorded::id);
    let operation = operation.unwrap_or(RecordId(uuid::Uuid::from_u128(1)));
    let states = [DeliveryState::Synced, DeliveryState::Failed, DeliveryState::Conflict, DeliveryState::Conflict];
    if a.is_multiple_of(5) {
        return UpstreamFact::Wish(DeliveryWish { operation, after: 1 });
    }
    UpstreamFact::Outcome(DeliveryOutcome {
        operation,
        ordinal: u32::from(a % 3),
        state: states[usize::from(b) % 4],
        attempts: 1,
        server_id: None,
        http_status: Some(409),
        class: None,
        code: None,
        detail: None,
        conflict: Some(UpstreamConflict::VersionMismatch),
        strategy: None,
        server: None,
        server_tag: None,
        disputed: Vec::new(),
        maybe_twice: false,
        decided: None,
    })
}

/// What is said about payments, of every kind.
fn payment_fact(before: &[Recorded], intent: RecordId, a: u8, b: u8) -> PaymentFact {
    let number = ["AAA", "BBB", "CCC"][usize::from(a) % 3];
    let receipt = before.iter().rev().find(|fact| fact.fact.kind() == Kind::Receipt).map_or(intent, Recorded::id);
    let proposal = before.iter().rev().find(|fact| matches!(fact.fact, Fact::Payment(PaymentFact::Proposal(_))));
    let proposal = proposal.map_or(intent, Recorded::id);
    let request = before.iter().rev().find(|fact| matches!(fact.fact, Fact::Payment(PaymentFact::GiveUp(_))));
    let instead = if b.is_multiple_of(2) { Instead::Void } else { Instead::Cash };
    // Moves go between two relays in two epochs each, so that there are chains and rings of them.
    let ledger = |choice: u8| Ledger {
        relay: if choice.is_multiple_of(2) { RELAY } else { crate::ids::DeviceId([8; 32]) },
        epoch: u64::from(choice / 2 % 2) + 1,
    };
    let moved = before.iter().rev().find(|fact| matches!(fact.fact, Fact::Payment(PaymentFact::Moved(_))));
    match a % 15 {
        11 => PaymentFact::Moved(LedgerMoved {
            from: ledger(b),
            to: ledger(b / 4),
            intent: b.is_multiple_of(5).then_some(intent),
            old_is_gone: b.is_multiple_of(3),
            owner: crate::ids::OwnerKey([1; 32]),
            signature: [0; 64],
        }),
        12 | 13 => PaymentFact::Released(IntentReleased {
            intent,
            moved: moved.map_or(intent, Recorded::id),
            attempts: u32::from(b % 3),
            reconciled: b.is_multiple_of(2),
        }),
        14 => PaymentFact::CashTaken(CashTaken {
            intent,
            amount: Money::new(i64::from(b), Currency::KES),
            of_tender: b.is_multiple_of(2),
        }),
        10 => PaymentFact::Progress(Progress {
            intent,
            attempt: u32::from(b % 2),
            stage: if b.is_multiple_of(3) { Stage::Asked } else { Stage::Unknown },
        }),
        0 => PaymentFact::Suspense(Suspense {
            provider: "mpesa".to_owned(),
            number: number.to_owned(),
            amount: Money::new(100, Currency::KES),
            paid_at: Timestamp(7),
            evidence: Evidence::Pull,
            reason: None,
            intent: b.is_multiple_of(2).then_some(intent),
            account: String::new(),
            test: true,
        }),
        1 => PaymentFact::Revoked(ReceiptRevoked { intent, receipt, reason: String::new() }),
        2 => PaymentFact::Review(IntentReview { intent, attempt: 1, reason: ReviewReason::OpenTooLong }),
        3 => PaymentFact::Retry(IntentRetry { intent, after_attempt: u32::from(b % 2) }),
        4 => PaymentFact::GiveUp(GiveUp { intent, instead }),
        5 => PaymentFact::GiveUpAnswer(GiveUpAnswer {
            intent,
            request: request.map_or(intent, Recorded::id),
            granted: !b.is_multiple_of(3),
            instead,
        }),
        6 => PaymentFact::CodeClaim(CodeClaim { intent, provider: "mpesa".to_owned(), code: number.to_owned() }),
        7 => {
            let settlement = [Settlement::AsBooked, Settlement::NotPaid, Settlement::Assign(intent)];
            let settlement = settlement[usize::from(b) % 3];
            PaymentFact::Proposal(Proposal {
                subject: intent,
                settlement,
                note: String::new(),
                ordinal: u32::from(b % 4),
            })
        }
        8 => PaymentFact::Check(Check { proposal, agreed: !b.is_multiple_of(3), note: String::new() }),
        _ => PaymentFact::Outcome(Outcome { proposal, state: OutcomeState::Done, detail: String::new() }),
    }
}

/// Every answer that the books give.
fn answers(books: &Books, facts: &[Recorded]) -> String {
    let mut text = String::new();
    let mut say = |what: &str, answer: &dyn std::fmt::Debug| writeln!(text, "{what}: {answer:?}").unwrap();
    for kind in KINDS {
        say("list", &books.list(kind, None).collect::<Vec<_>>());
        say("count", &books.count_of(kind));
    }
    say("stock", &books.stock_levels(None).collect::<Vec<_>>());
    say("days", &books.days(Day(0)..=Day(9)).collect::<Vec<_>>());
    say("business", books.business());
    say("sums", books.payment_sums());
    say("conflicts", &books.conflicts(false).collect::<Vec<_>>());
    say("open conflicts", &books.conflicts(true).map(|conflict| conflict.id).collect::<Vec<_>>());
    say("open conflicts", &books.open_conflict_count());
    say("pending", &books.pending());
    say("suspense", &books.suspense().collect::<Vec<_>>());
    say("ledger moves", &books.ledger_moves());
    say("proposals", &books.proposals().collect::<Vec<_>>());
    say("claimants", &["AAA", "BBB", "CCC"].map(|code| books.claimant("mpesa", code)));
    for fact in facts {
        say("device", &(fact.device, books.device_day(fact.day, fact.device), books.has_open_intents(fact.device)));
        say("shifts", &(books.current_shift(fact.device), books.shifts(fact.device).collect::<Vec<_>>()));
        say("unaddressed", &books.unaddressed_intents(fact.device).collect::<Vec<_>>());
        for epoch in [1, 2] {
            say("open", &books.open_intents_for(&Ledger { relay: fact.device, epoch }).collect::<Vec<_>>());
        }
        say("cash due", &books.cash_due(fact.device));
        say("record", &(books.record(fact.id()), books.payment(fact.id()), books.z_report(fact.id())));
        say("sale", &books.sale_status(fact.id()));
    }
    say("digest", &books.digest());
    text
}

/// What happens between two facts.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Snapshot,
    OldestRecount,
    NewestRecount,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        6 => Just(Between::Nothing),
        1 => Just(Between::Snapshot),
        2 => Just(Between::OldestRecount),
        2 => Just(Between::NewestRecount),
    ]
}

fn fold_disturbed(facts: &[Recorded], order: &[usize], between: &[Between]) -> Books {
    let stored: Vec<&Recorded> = facts.iter().collect();
    let mut books = Books::default();
    let mut waiting: Vec<Followup> = Vec::new();
    for (step, at) in order.iter().enumerate() {
        waiting.extend(books.fold(&facts[*at].placed()));
        match between[step % between.len()] {
            Between::Nothing => {}
            Between::Snapshot => {
                books = Books::decode(&books.encode()).unwrap();
                waiting = books.pending();
            }
            Between::OldestRecount if waiting.is_empty() => {}
            Between::OldestRecount => {
                let followup = waiting.remove(0);
                follow_up(&mut books, &stored, vec![followup]);
            }
            Between::NewestRecount => {
                let followup = waiting.pop();
                follow_up(&mut books, &stored, followup.into_iter().collect());
            }
        }
    }
    follow_up(&mut books, &stored, waiting);
    books
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_facts_give_the_same_books(
        choices in vec(any::<Choice>(), 1..60),
        shuffle in vec(any::<Index>(), 120),
        again in vec(any::<Index>(), 0..30),
        between in vec(between(), 1..20),
    ) {
        let facts = history(&choices);
        let mut order: Vec<usize> = (0..facts.len()).collect();
        order.extend(again.iter().map(|index| index.index(facts.len())));
        for (at, index) in shuffle.iter().enumerate().take(order.len()) {
            let other = at + index.index(order.len() - at);
            order.swap(at, other);
        }
        let expected = answers(&books_of(&facts.iter().collect::<Vec<_>>()), &facts);
        let found = answers(&fold_disturbed(&facts, &order, &between), &facts);
        for (expected, found) in expected.lines().zip(found.lines()) {
            prop_assert_eq!(expected, found);
        }
    }

    /// Against sums made afresh from the facts: the smallest copy of each record, and stock
    /// as its definition says.
    #[test]
    fn the_books_equal_plain_sums(choices in vec(any::<Choice>(), 1..60)) {
        let facts = history(&choices);
        let books = books_of(&facts.iter().collect::<Vec<_>>());
        let mut counted: BTreeMap<RecordId, &Recorded> = BTreeMap::new();
        for fact in &facts {
            let best = counted.entry(fact.id()).or_insert(fact);
            if fact.placed().key() < best.placed().key() {
                *best = fact;
            }
        }
        let sales = counted.values().filter_map(|recorded| {
            if let Fact::Sale(sale) = &recorded.fact { Some(sale.total_minor().unwrap()) } else { None }
        });
        let gross: i64 = sales.sum();
        prop_assert_eq!(figure(&books, Figure::GrossMinor), i128::from(gross));
        for sku in ["BREAD", "MILK"] {
            prop_assert_eq!(books.stock(sku).and_then(|level| level.on_hand_milli).unwrap_or(0), plain_stock(sku, &counted));
        }
    }
}

fn plain_stock(sku: &str, counted: &BTreeMap<RecordId, &Recorded>) -> i64 {
    let latest = counted
        .values()
        .filter_map(|recorded| {
            if let Fact::StockCount(count) = &recorded.fact { Some((recorded.placed().key(), count)) } else { None }
        })
        .filter(|(_, count)| count.sku == sku)
        .max_by_key(|(key, _)| *key);
    let is_before = |recorded: &Recorded| {
        let key = recorded.placed().key();
        latest.is_some_and(|(at, count)| {
            let seen = count.seen.iter().any(|(journal, seq)| *journal == key.journal && key.seq <= *seq);
            let own = key.journal == at.journal && key.seq < at.seq;
            seen || own || recorded.time < at.time
        })
    };
    let moved = counted.values().filter(|recorded| !is_before(recorded)).map(|recorded| {
        let lines = |lines: &[crate::record::Line]| -> i64 {
            lines.iter().filter(|line| line.sku == sku).map(|line| line.quantity_milli).sum()
        };
        if let Fact::Sale(sale) = &recorded.fact {
            -lines(&sale.lines)
        } else if let Fact::Void(void) = &recorded.fact {
            lines(&void.lines)
        } else if let Fact::Refund(refund) = &recorded.fact {
            lines(&refund.lines)
        } else if let Fact::StockMovement(movement) = &recorded.fact {
            if movement.sku == sku { movement.quantity_milli } else { 0 }
        } else {
            0
        }
    });
    latest.map_or(0, |(_, count)| count.counted_milli) + moved.sum::<i64>()
}

/// A list from a cursor never repeats and never skips, wherever two records share a time.
#[test]
fn equal_times_are_listed_by_id() {
    let (mut one, mut two) = (Till::new(1, 1), Till::new(2, 2));
    let left: Vec<Recorded> =
        (0..5).map(|at| one.records(1, sale(&format!("l{at}"), vec![line("A", 1, 1)], TenderKind::Cash))).collect();
    let right: Vec<Recorded> =
        (0..5).map(|at| two.records(1, sale(&format!("r{at}"), vec![line("A", 1, 1)], TenderKind::Cash))).collect();
    let forward = books_of(&left.iter().chain(&right).collect::<Vec<_>>());
    let backward = books_of(&right.iter().chain(&left).collect::<Vec<_>>());
    let list = |books: &Books, cursor: Option<(Hlc, RecordId)>| books.list(Kind::Sale, cursor).collect::<Vec<_>>();
    let all = list(&forward, None);
    assert_eq!(all, list(&backward, None));
    assert_eq!(list(&forward, Some((all[3].time, all[3].id))), all[4..]);
}

/// A carrier that was restored says again what it has said, in another entry.
#[test]
fn a_conflict_with_the_server_that_was_told_twice_is_one_whatever_comes_first() {
    let operation = RecordId(uuid::Uuid::from_u128(1));
    let told = || {
        let UpstreamFact::Outcome(outcome) = upstream_fact(&[], 1, 2) else { unreachable!("1 is no wish") };
        assert_eq!((outcome.operation, outcome.state), (operation, DeliveryState::Conflict));
        Fact::Upstream(UpstreamFact::Outcome(outcome))
    };
    let mut carrier = Till::new(9, 9);
    let (first, again) = (carrier.records(1, told()), carrier.records(2, told()));
    let one = books_of(&[&first, &again]);
    let other = books_of(&[&again, &first]);
    let open = |books: &Books| books.conflicts(true).collect::<Vec<_>>();
    assert_eq!(open(&one).len(), 1);
    assert_eq!(open(&one), open(&other));
}
