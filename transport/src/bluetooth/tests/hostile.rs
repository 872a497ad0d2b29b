//! A peer that breaks the rules is cut off, and never makes us hold more than the window.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::opening;
use crate::bluetooth::{
    ExchangeTimes,
    exchange::{Exchange, ExchangeError},
    fragment::{Ack, Flow, Fragment, FragmentError, Piece},
};

fn accepted(now: Instant) -> Exchange {
    let mut exchange = Exchange::accept(opening(7, 508), opening(0, 508), ExchangeTimes::default(), now).unwrap();
    assert!(exchange.transmit(now).is_some());
    exchange
}

fn piece(seq: u16, payload: &[u8]) -> Vec<u8> {
    let piece = Some(Piece { seq, last: false, payload });
    Fragment::Flow(Flow { piece, ..Flow::default() }).to_bytes()
}

fn ack(next: u16, credit: u8, selective: u64) -> Vec<u8> {
    Fragment::Flow(Flow { ack: Some(Ack { next, credit: Some(credit), selective }), ..Flow::default() }).to_bytes()
}

#[test]
fn wrong_lengths_end_the_exchange() {
    let now = Instant::now();
    assert_eq!(accepted(now).receive(&piece(0, &[1; 600]), now), Err(ExchangeError::TooLong));
    assert_eq!(accepted(now).receive(&[], now), Err(FragmentError::Short.into()));
    assert_eq!(accepted(now).receive(&piece(0, &[]), now), Err(FragmentError::Empty.into()));
    let tiny = Exchange::accept(opening(7, 14), opening(0, 508), ExchangeTimes::default(), now);
    assert_eq!(tiny.err(), Some(ExchangeError::FragmentSize));
}

#[test]
fn endless_fragments_hold_no_more_than_the_window() {
    let now = Instant::now();
    // In order and never read: 64 are held, the next one is beyond the credit.
    let mut exchange = accepted(now);
    for seq in 0..64 {
        exchange.receive(&piece(seq, &[1; 500]), now).unwrap();
    }
    assert_eq!(exchange.receive(&piece(64, &[1; 500]), now), Err(ExchangeError::BeyondCredit));
    // With the first one missing, the same.
    let mut exchange = accepted(now);
    for seq in 1..64 {
        exchange.receive(&piece(seq, &[1; 500]), now).unwrap();
    }
    assert_eq!(exchange.receive(&piece(64, &[1; 500]), now), Err(ExchangeError::BeyondCredit));
    // The same one again and again costs one acknowledgement at a time.
    let mut exchange = accepted(now);
    for _ in 0..10_000 {
        exchange.receive(&piece(0, &[1; 500]), now).unwrap();
    }
    assert!(exchange.transmit(now).is_some());
    assert!(exchange.transmit(now).is_none());
}

#[test]
fn what_comes_after_the_last_piece_ends_the_exchange() {
    let now = Instant::now();
    let mut exchange = accepted(now);
    let last = Some(Piece { seq: 0, last: true, payload: b"bye" });
    exchange.receive(&Fragment::Flow(Flow { piece: last, ..Flow::default() }).to_bytes(), now).unwrap();
    assert_eq!(exchange.receive(&piece(1, b"more"), now), Err(ExchangeError::AfterTheEnd));
}

#[test]
fn acknowledging_what_was_never_sent_ends_the_exchange() {
    let now = Instant::now();
    let mut exchange = accepted(now);
    assert_eq!(exchange.receive(&ack(1, 64, 0), now), Err(ExchangeError::NeverSent));
    exchange = accepted(now);
    exchange.receive(&ack(0, 64, u64::MAX), now).unwrap();
}

#[test]
fn a_peer_that_never_acknowledges_is_given_up() {
    let mut now = Instant::now();
    let mut exchange = accepted(now);
    let began = now;
    let mut sent = 0;
    loop {
        let room = exchange.room();
        exchange.write(&vec![0; room]);
        while let Some(fragment) = exchange.transmit(now) {
            sent += fragment.len();
        }
        // It talks all the time, so it is not silent.
        exchange.receive(&Fragment::Flow(Flow { ask: true, ..Flow::default() }).to_bytes(), now).unwrap();
        if let Err(error) = exchange.check(now) {
            assert!(matches!(error, ExchangeError::Stalled(_)), "{error}");
            break;
        }
        now += Duration::from_millis(100);
    }
    assert!(now - began <= Duration::from_secs(21), "{:?}", now - began);
    assert!(sent < 400_000, "{sent} bytes were wasted on it");
}

#[test]
fn a_peer_that_never_grants_anything_is_given_up() {
    let mut now = Instant::now();
    let theirs = crate::bluetooth::fragment::Opening { credit: 0, ..opening(7, 508) };
    let mut exchange = Exchange::accept(theirs, opening(0, 508), ExchangeTimes::default(), now).unwrap();
    exchange.write(b"hello");
    let began = now;
    let mut fragments = 0;
    while exchange.check(now).is_ok() {
        while exchange.transmit(now).is_some() {
            fragments += 1;
        }
        exchange.receive(&ack(0, 0, 0), now).unwrap();
        now += Duration::from_millis(100);
    }
    assert!(now - began <= Duration::from_secs(21));
    assert!(fragments < 60, "it was asked {fragments} times");
}

#[test]
fn a_peer_that_begins_anew_ends_the_old_exchange() {
    let now = Instant::now();
    let mut exchange = accepted(now);
    exchange.receive(&Fragment::Open(opening(7, 508)).to_bytes(), now).unwrap();
    let anew = Fragment::Open(opening(8, 508)).to_bytes();
    assert_eq!(exchange.receive(&anew, now), Err(ExchangeError::Replaced));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_fragments_are_taken_or_refused(fragments: Vec<Vec<u8>>, kinds: Vec<u8>) {
        let mut now = Instant::now();
        let mut exchange = accepted(now);
        exchange.write(&[7; 3_000]);
        for (n, mut fragment) in fragments.into_iter().enumerate() {
            if let (Some(kind), Some(first)) = (kinds.get(n), fragment.first_mut()) {
                // Most bytes are of no kind; these are of some.
                *first = if kind & 0x80 == 0 { 0x80 | kind & 0x1F } else { kind & 0x07 };
            }
            if exchange.receive(&fragment, now).is_err() {
                break;
            }
            while exchange.transmit(now).is_some() {}
            now += Duration::from_millis(50);
            prop_assert!(exchange.next_due() > now - Duration::from_secs(30));
        }
    }
}
