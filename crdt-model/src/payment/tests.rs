//! Every event in every state, and the rules between attempts.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const INTENT: Uuid = Uuid::from_u128(42);
const AMOUNT_MINOR: i64 = 6500;
const LEASE_UNTIL_MS: u64 = 1_000;

fn ids() -> ProviderIds {
    ProviderIds { request_id: "r-1".into(), checkout_id: "ws_CO_1".into() }
}

fn called_back(code: &str) -> AttemptEvent {
    let paid = code == "0";
    AttemptEvent::CalledBack(CallbackResult {
        ids: ids(),
        result_code: code.into(),
        amount_minor: paid.then_some(AMOUNT_MINOR),
        receipt_number: paid.then(|| "TESTAAAAAA".into()),
    })
}

fn paid_with(change: impl FnOnce(&mut CallbackResult)) -> AttemptEvent {
    let AttemptEvent::CalledBack(mut result) = called_back("0") else { unreachable!() };
    change(&mut result);
    AttemptEvent::CalledBack(result)
}

fn claimed() -> AttemptEvent {
    AttemptEvent::Claimed { lease_until_ms: LEASE_UNTIL_MS }
}

fn accepted() -> AttemptEvent {
    AttemptEvent::Answered(Answer::Accepted(ids()))
}

fn found(receipt_number: &str) -> AttemptEvent {
    AttemptEvent::Found { evidence: Evidence::Pull, receipt_number: receipt_number.into(), amount_minor: AMOUNT_MINOR }
}

/// An attempt brought to `state` by the shortest legal way.
fn attempt_in(state: AttemptState) -> Attempt {
    let way = match state {
        AttemptState::Ready => vec![],
        AttemptState::Calling => vec![claimed()],
        AttemptState::Accepted => vec![claimed(), accepted()],
        AttemptState::Paid => vec![claimed(), accepted(), called_back("0")],
        AttemptState::Unknown => vec![claimed(), AttemptEvent::Answered(Answer::Ambiguous)],
        AttemptState::Failed => vec![claimed(), accepted(), called_back("1032")],
        AttemptState::Quarantine => vec![claimed(), accepted(), called_back("1037")],
        AttemptState::LatePaid => {
            vec![claimed(), accepted(), called_back("1032"), called_back("0")]
        }
    };
    let mut attempt = Attempt::new(INTENT, 1, AMOUNT_MINOR, 0);
    for event in way {
        attempt.apply(&event, 1).unwrap();
    }
    assert_eq!(attempt.state(), state);
    attempt
}

use AttemptState::{Accepted, Calling, Failed, LatePaid, Paid, Quarantine, Ready, Unknown};

const STATES: [AttemptState; 8] = [Ready, Calling, Accepted, Paid, Unknown, Failed, Quarantine, LatePaid];

/// Every event in every state of [`STATES`]: the first letter of the state it leads to, or a
/// dot where it is refused.
#[test]
fn every_event_leads_where_the_design_says() {
    let table = [
        (AttemptEvent::Cancelled, "F......."),
        (claimed(), "C......."),
        (AttemptEvent::LeaseExpired, ".U......"),
        (accepted(), ".AAPUFQL"),
        (AttemptEvent::Answered(Answer::NotSent), ".FAPUFQL"),
        (AttemptEvent::Answered(Answer::Ambiguous), ".UAPUFQL"),
        (called_back("0"), "PPPPPLPL"),
        (called_back("2001"), "FFFPFFFL"),
        (called_back("1037"), "QQQPQFQL"),
        (called_back("77777"), "UUUPUFQL"),
        (called_back("4999"), "AAAPUFQL"),
        (AttemptEvent::Absent, "..FPFFFL"),
        (found("TESTAAAAAA"), "PPPPPLPL"),
        (AttemptEvent::OpenTooLong, "..A.U.Q."),
    ];
    for (event, expected) in table {
        let mut reached = String::new();
        for state in STATES {
            let mut attempt = attempt_in(state);
            let before = attempt.clone();
            match attempt.apply(&event, LEASE_UNTIL_MS) {
                Ok(_) => reached.extend(format!("{:?}", attempt.state()).chars().next()),
                Err(_) => {
                    assert_eq!(attempt, before, "{event:?} in {state:?}");
                    reached.push('.');
                }
            }
        }
        assert_eq!(reached, expected, "{event:?}");
    }
}

#[test]
fn a_sale_is_paid_and_its_repeated_callback_books_nothing_more() {
    let mut attempt = attempt_in(Ready);
    assert_eq!(attempt.apply(&claimed(), 5), Ok(Effect::Call));
    assert_eq!(attempt.apply(&accepted(), 6), Ok(Effect::Moved));
    let booked = Effect::Book { receipt_number: "TESTAAAAAA".into() };
    assert_eq!(attempt.apply(&called_back("0"), 7), Ok(booked));
    assert_eq!(attempt.changed_at_ms(), 7);
    assert_eq!(attempt.evidence(), Some(Evidence::Callback));
    assert_eq!(attempt.apply(&called_back("0"), 8), Ok(Effect::Unchanged));
    assert_eq!(attempt.changed_at_ms(), 7);
    assert_eq!(attempt.apply(&found("TESTAAAAAA"), 9), Ok(Effect::Moved));
    assert!(attempt.is_listed());
    assert_eq!(attempt.apply(&AttemptEvent::Absent, 10), Ok(Effect::Unchanged));
    assert_eq!(intent_state(&[attempt], true), IntentState::Paid);
}

#[test]
fn a_callback_before_the_response_books_and_the_response_only_fills_ids() {
    let mut attempt = attempt_in(Calling);
    let booked = Effect::Book { receipt_number: "TESTAAAAAA".into() };
    assert_eq!(attempt.apply(&called_back("0"), 7), Ok(booked));
    assert_eq!(attempt.apply(&accepted(), 8), Ok(Effect::Unchanged));
    assert_eq!(attempt.state(), Paid);
}

#[test]
fn a_lease_holds_until_it_ends() {
    let mut attempt = attempt_in(Calling);
    let running = Refused::LeaseRunning { until_ms: LEASE_UNTIL_MS };
    assert_eq!(attempt.apply(&AttemptEvent::LeaseExpired, LEASE_UNTIL_MS - 1), Err(running));
    assert_eq!(attempt.apply(&AttemptEvent::LeaseExpired, LEASE_UNTIL_MS), Ok(Effect::Moved));
    assert_eq!(attempt.state(), Unknown);
    assert!(matches!(attempt.apply(&claimed(), 2_000), Err(Refused::NotReady(Unknown))));
}

#[test]
fn money_that_does_not_fit_goes_to_suspense_and_bars_another_push() {
    let cases = [
        (ReviewReason::WrongAmount, paid_with(|r| r.amount_minor = Some(1))),
        (ReviewReason::WrongAmount, paid_with(|r| r.amount_minor = None)),
        (ReviewReason::NoReceiptNumber, paid_with(|r| r.receipt_number = None)),
        (ReviewReason::OtherCheckout, paid_with(|r| r.ids.checkout_id = "ws_CO_2".into())),
    ];
    for (expected, event) in cases {
        for state in [Accepted, Unknown, Quarantine, Failed] {
            let mut attempt = attempt_in(state);
            if attempt.ids().is_none() {
                attempt.apply(&accepted(), 2).unwrap();
            }
            let effect = attempt.apply(&event, 3).unwrap();
            assert!(matches!(effect, Effect::Suspend { reason, .. } if reason == expected), "{effect:?}");
            assert_eq!(attempt.state(), state);
            let attempts = [attempt];
            assert_eq!(intent_state(&attempts, true), IntentState::Review);
            assert!(next_attempt_number(&attempts).is_err());
        }
    }
    let mut paid = attempt_in(Paid);
    let second = paid_with(|r| r.receipt_number = Some("TESTBBBBBB".into()));
    let effect = paid.apply(&second, 3).unwrap();
    assert!(matches!(effect, Effect::Suspend { reason: ReviewReason::SecondReceipt, .. }));
    assert_eq!(paid.receipt_number(), Some("TESTAAAAAA"));
}

#[test]
fn a_misfit_callback_to_a_row_never_called_still_stops_the_call() {
    let mut attempt = attempt_in(Ready);
    attempt.apply(&paid_with(|r| r.amount_minor = Some(1)), 3).unwrap();
    assert!(matches!(attempt.apply(&claimed(), 4), Err(Refused::NotReady(Accepted))));
}

#[test]
fn a_failure_under_another_checkout_id_frees_nothing() {
    let mut attempt = attempt_in(Accepted);
    let AttemptEvent::CalledBack(mut result) = called_back("1032") else { unreachable!() };
    result.ids.checkout_id = "ws_CO_2".into();
    let effect = attempt.apply(&AttemptEvent::CalledBack(result), 3);
    assert_eq!(effect, Ok(Effect::Alert(Alert::OtherCheckout)));
    assert_eq!(attempt.state(), Accepted);
}

#[test]
fn an_answer_that_names_another_checkout_than_the_callback_needs_a_person() {
    let mut attempt = attempt_in(Calling);
    attempt.apply(&called_back("1032"), 3).unwrap();
    let other = ProviderIds { checkout_id: "ws_CO_2".into(), ..ids() };
    let effect = attempt.apply(&AttemptEvent::Answered(Answer::Accepted(other)), 4);
    assert_eq!(effect, Ok(Effect::Review(ReviewReason::OtherCheckout)));
    assert_eq!(next_attempt_number(&[attempt]), Err(AttemptRefused::InReview));
}

#[test]
fn a_negative_query_is_never_final_and_a_positive_one_waits_for_the_receipt_number() {
    let mut attempt = attempt_in(Accepted);
    for code in ["1032", "1037", "4999", "77777"] {
        let query = AttemptEvent::Queried { result_code: code.into() };
        assert_eq!(attempt.apply(&query, 3), Ok(Effect::Unchanged));
        assert_eq!(attempt.state(), Accepted);
    }
    let query = AttemptEvent::Queried { result_code: "0".into() };
    assert_eq!(attempt.apply(&query, 4), Ok(Effect::AwaitReceiptNumber));
    let booked = Effect::Book { receipt_number: "TESTAAAAAA".into() };
    assert_eq!(attempt.apply(&called_back("0"), 5), Ok(booked));
    assert_eq!(attempt_in(Calling).apply(&query, 4), Err(Refused::NotCalled));
}

#[test]
fn success_after_failure_is_booked_and_reviewed() {
    let mut first = attempt_in(Failed);
    let second = Attempt::new(INTENT, 2, AMOUNT_MINOR, 9);
    assert_eq!(next_attempt_number(std::slice::from_ref(&first)), Ok(2));
    let late = Effect::BookLate { receipt_number: "TESTAAAAAA".into() };
    assert_eq!(first.apply(&called_back("0"), 10), Ok(late));
    assert_eq!(intent_state(&[first, second], false), IntentState::Review);
}

#[test]
fn proof_that_the_provider_disowns_is_reviewed() {
    let mut attempt = attempt_in(Paid);
    let disputed = Effect::Review(ReviewReason::ProofDisputed);
    assert_eq!(attempt.apply(&AttemptEvent::Absent, 9), Ok(disputed));
    assert_eq!(attempt.apply(&AttemptEvent::Absent, 9), Ok(Effect::Unchanged));
}

#[test]
fn cash_settles_in_its_answer() {
    let mut attempt = attempt_in(Calling);
    let settled = AttemptEvent::Answered(Answer::Settled { receipt_number: "CASH1".into() });
    let booked = Effect::Book { receipt_number: "CASH1".into() };
    assert_eq!(attempt.apply(&settled, 2), Ok(booked));
    assert_eq!(attempt.evidence(), Some(Evidence::Answer));
}

#[test]
fn a_contradiction_is_told_but_changes_nothing() {
    let mut paid = attempt_in(Paid);
    let alert = Effect::Alert(Alert::FailureAfterPaid);
    assert_eq!(paid.apply(&called_back("1032"), 3), Ok(alert));
    assert_eq!(paid.state(), Paid);
    let mut accepted = attempt_in(Accepted);
    let not_sent = AttemptEvent::Answered(Answer::NotSent);
    let alert = Effect::Alert(Alert::NotSentAfterCallback);
    assert_eq!(accepted.apply(&not_sent, 3), Ok(alert));
    let mut misconfigured = attempt_in(Accepted);
    let alert = Effect::Alert(Alert::Configuration);
    assert_eq!(misconfigured.apply(&called_back("8006"), 3), Ok(alert));
    assert_eq!(misconfigured.state(), Failed);
}

#[test]
fn an_intent_is_void_only_when_nothing_can_charge_any_more() {
    for state in STATES {
        let expected = match state {
            Ready | Calling | Accepted | Unknown | Quarantine => IntentState::Open,
            Failed => IntentState::Void,
            Paid => IntentState::Paid,
            LatePaid => IntentState::Review,
        };
        assert_eq!(intent_state(&[attempt_in(state)], true), expected, "{state:?}");
    }
    assert_eq!(intent_state(&[], true), IntentState::Void);
    assert_eq!(intent_state(&[], false), IntentState::Open);
}

#[test]
fn at_most_three_attempts_one_at_a_time() {
    assert_eq!(next_attempt_number(&[]), Ok(1));
    for state in [Ready, Calling, Accepted, Unknown, Quarantine, Paid] {
        let barred = AttemptRefused::Barred { number: 1, state };
        assert_eq!(next_attempt_number(&[attempt_in(state)]), Err(barred));
    }
    let three = [attempt_in(Failed), attempt_in(Failed), attempt_in(Failed)];
    assert_eq!(next_attempt_number(&three), Err(AttemptRefused::TooMany));
}

#[test]
fn an_old_intent_waits_for_the_cashier() {
    assert!(!needs_confirmation(0, FIRST_PUSH_AGE_MAX_MS, FIRST_PUSH_AGE_MAX_MS));
    assert!(needs_confirmation(0, FIRST_PUSH_AGE_MAX_MS + 1, FIRST_PUSH_AGE_MAX_MS));
    assert!(!needs_confirmation(10, 5, FIRST_PUSH_AGE_MAX_MS));
}

#[test]
fn a_stored_attempt_reads_back_the_same() {
    for state in STATES {
        let attempt = attempt_in(state);
        let bytes = minicbor::to_vec(&attempt).unwrap();
        assert_eq!(minicbor::decode::<Attempt>(&bytes).unwrap(), attempt);
    }
}

#[test]
fn every_state_is_shown_and_none_that_may_charge_invites_to_pay_again() {
    for state in STATES {
        let (_, shown) = TABLE.iter().find(|(listed, _)| *listed == state).unwrap();
        let outstanding = shown.counts_as() == ReportCount::Outstanding;
        assert_eq!(outstanding, state.may_still_charge(), "{state:?}");
        assert_eq!(shown.counts_as() == ReportCount::Received, state == Paid, "{state:?}");
        assert!(!state.may_still_charge() || !shown.sentence().contains("try again"), "{state:?}");
    }
    let words: std::collections::BTreeSet<_> = Shown::ALL.iter().map(|shown| shown.word()).collect();
    assert_eq!(words.len(), Shown::ALL.len());
}

fn any_event() -> impl Strategy<Value = AttemptEvent> {
    let code = prop::sample::select(vec!["0", "1", "1032", "1037", "8006", "4999", "77777"]);
    prop_oneof![
        Just(AttemptEvent::Cancelled),
        Just(claimed()),
        Just(AttemptEvent::LeaseExpired),
        Just(accepted()),
        Just(AttemptEvent::Answered(Answer::NotSent)),
        Just(AttemptEvent::Answered(Answer::Ambiguous)),
        code.clone().prop_map(called_back),
        code.prop_map(|code| AttemptEvent::Queried { result_code: code.into() }),
        (any::<bool>(), any::<bool>()).prop_map(|(amount, checkout)| paid_with(|r| {
            if amount {
                r.amount_minor = Some(1);
            }
            if checkout {
                r.ids.checkout_id = "ws_CO_2".into();
            }
        })),
        Just(found("TESTAAAAAA")),
        Just(found("TESTBBBBBB")),
        Just(AttemptEvent::Absent),
        Just(AttemptEvent::OpenTooLong),
    ]
}

proptest! {
    /// Whatever comes in whatever order: the provider is called at most once, a receipt number
    /// is booked at most once, proven money is never forgotten, nothing goes back to READY,
    /// and only what the design lists frees an intent for another push.
    #[test]
    fn any_order_of_events_keeps_the_rules(events in prop::collection::vec(any_event(), 0..24)) {
        let mut attempt = Attempt::new(INTENT, 1, AMOUNT_MINOR, 0);
        let (mut calls, mut booked) = (0, Vec::new());
        for event in events {
            let before = attempt.clone();
            let outcome = attempt.apply(&event, LEASE_UNTIL_MS);
            let (from, to) = (before.state(), attempt.state());
            if outcome.is_err() {
                prop_assert_eq!(&before, &attempt);
            }
            prop_assert!(from == Ready || to != Ready);
            prop_assert!(from != Paid || to == Paid);
            prop_assert!(from != LatePaid || to == LatePaid);
            prop_assert!(before.review().is_none() || attempt.review().is_some());
            if to == Failed && from != Failed {
                let freed = match &event {
                    AttemptEvent::Cancelled => from == Ready,
                    AttemptEvent::Answered(Answer::NotSent) => from == Calling,
                    AttemptEvent::CalledBack(result) => {
                        matches!(classify(&result.result_code), ResultClass::HardFail(_))
                    }
                    AttemptEvent::Absent => {
                        matches!(from, Accepted | Unknown | Quarantine)
                    }
                    AttemptEvent::Claimed { .. }
                    | AttemptEvent::LeaseExpired
                    | AttemptEvent::Answered(_)
                    | AttemptEvent::Queried { .. }
                    | AttemptEvent::Found { .. }
                    | AttemptEvent::OpenTooLong => false,
                };
                prop_assert!(freed, "{:?} freed {:?}", event, from);
            }
            match outcome {
                Ok(Effect::Call) => calls += 1,
                Ok(Effect::Book { receipt_number } | Effect::BookLate { receipt_number }) => {
                    prop_assert!(matches!(to, Paid | LatePaid));
                    booked.push(receipt_number);
                }
                _ => {}
            }
        }
        prop_assert!(calls <= 1);
        prop_assert!(booked.len() <= 1);
    }
}
