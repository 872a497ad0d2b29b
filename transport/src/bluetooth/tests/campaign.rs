//! A campaign against an exchange: a conversation whose fragments are spoilt in every way, and
//! others made up to do harm. Whatever comes, it takes it or ends, holds no more than its window,
//! answers no more than it is asked, and leaves the processor alone when it has nothing to do.
//!
//! `TILLMESH_FUZZ_ROUNDS` makes it longer, `TILLMESH_FUZZ_SEED` another one.

#![allow(clippy::print_stdout, reason = "a failed round is run again by its seed")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::opening;
use crate::bluetooth::{
    ExchangeTimes,
    exchange::{Exchange, ExchangeError},
    fragment::{Ack, Flow, Fragment, Opening, Piece, Refusal},
    sending::UNSENT_BYTES_MAX,
};

const FRAGMENT_BYTES_MAX: u16 = 508;
const WINDOW: u8 = 128;
/// Pieces under way and pieces held, all as long as they may be, and what waits to be cut.
const HELD_BYTES_MAX: usize = 2 * WINDOW as usize * FRAGMENT_BYTES_MAX as usize + UNSENT_BYTES_MAX;
/// A window at once, and what is said about it.
const SAID_AT_ONCE_MAX: usize = WINDOW as usize + 2;

#[test]
fn whatever_comes_an_exchange_stays_small_and_calm() {
    let rounds = from_environment("TILLMESH_FUZZ_ROUNDS").unwrap_or(2_000);
    let seed = from_environment("TILLMESH_FUZZ_SEED").unwrap_or(0x7111);
    println!("{rounds} rounds from seed {seed}");
    let mut ends = BTreeMap::<&'static str, u64>::new();
    for round in 0..rounds {
        let end = Attack::new(seed.wrapping_add(round)).run();
        *ends.entry(end).or_default() += 1;
    }
    println!("{ends:?}");
    // An attack that reaches none of these shows nothing.
    for kind in
        ["fragment", "too long", "beyond credit", "never sent", "after the end", "replaced", "reset", "time", "lived"]
    {
        assert!(ends.contains_key(kind), "no round ended with {kind:?}: {ends:?}");
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is to be a number")))
}

fn kind_of(error: &ExchangeError) -> &'static str {
    match error {
        ExchangeError::Fragment(_) => "fragment",
        ExchangeError::TooLong => "too long",
        ExchangeError::BeyondCredit => "beyond credit",
        ExchangeError::NeverSent => "never sent",
        ExchangeError::AfterTheEnd => "after the end",
        ExchangeError::FragmentSize => "fragment size",
        ExchangeError::Refused(_) => "refused",
        ExchangeError::Replaced => "replaced",
        ExchangeError::Reset => "reset",
        ExchangeError::NotAccepted(_) | ExchangeError::Silent(_) | ExchangeError::Stalled(_) => "time",
        ExchangeError::Carrier(_) => "carrier",
    }
}

struct Attack {
    state: u64,
    now: Instant,
    victim: Exchange,
    /// An honest peer, whose fragments are what the attacker knows.
    peer: Exchange,
    heard: Vec<Vec<u8>>,
    nonce: u32,
    /// In percent: how often a step is the attacker's, and how often what arrived is read.
    malice: u64,
    reads: u64,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let theirs = Opening { credit: WINDOW, ..opening(7, FRAGMENT_BYTES_MAX) };
        let ours = Opening { credit: WINDOW, ..opening(0, FRAGMENT_BYTES_MAX) };
        let times = ExchangeTimes::default();
        let dialling = Exchange::open(theirs, times.clone(), now);
        let answering = Exchange::accept(theirs, ours, times, now).unwrap();
        let (victim, peer) = if seed.is_multiple_of(2) { (dialling, answering) } else { (answering, dialling) };
        let mut attack =
            Self { state: seed, now, victim, peer, heard: Vec::new(), nonce: theirs.nonce, malice: 0, reads: 0 };
        attack.malice = attack.chance(60);
        attack.reads = attack.chance(120);
        attack
    }

    fn chance(&mut self, of: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % of.max(1)
    }

    fn bytes(&mut self, at_most: u64) -> Vec<u8> {
        let length = self.chance(at_most + 1);
        (0..length).map(|_| self.chance(256) as u8).collect()
    }

    /// Gives how it ended.
    fn run(mut self) -> &'static str {
        for _ in 0..300 {
            if let Err(error) = self.step() {
                return kind_of(&error);
            }
        }
        "lived"
    }

    fn step(&mut self) -> Result<(), ExchangeError> {
        self.talk()?;
        if self.chance(100) < self.malice {
            let fragment = self.harm();
            self.victim.receive(&fragment, self.now)?;
        }
        if self.chance(100) < self.reads {
            while let Some(bytes) = self.victim.ready().map(<[u8]>::len) {
                self.victim.consume(bytes, self.now);
            }
        }
        self.answer();
        assert!(self.victim.held_bytes() <= HELD_BYTES_MAX, "{} bytes are held", self.victim.held_bytes());
        self.victim.check(self.now)?;
        assert!(self.victim.next_due() > self.now, "it would turn in circles");
        let pause = Duration::from_millis(self.chance(400));
        self.now += pause;
        Ok(())
    }

    /// Both sides have something to say, and the peer says it.
    fn talk(&mut self) -> Result<(), ExchangeError> {
        for to_victim in [false, true] {
            let written = self.bytes(3_000);
            let exchange = if to_victim { &mut self.peer } else { &mut self.victim };
            let room = exchange.room().min(written.len());
            exchange.write(&written[..room]);
        }
        while let Some(bytes) = self.peer.ready().map(<[u8]>::len) {
            self.peer.consume(bytes, self.now);
        }
        for _ in 0..4 {
            let Some(fragment) = self.peer.transmit(self.now) else { break };
            if self.chance(100) >= 10 {
                self.victim.receive(&fragment, self.now)?;
            }
            self.heard.push(fragment);
        }
        Ok(())
    }

    /// Everything that the victim has to say, of which most arrives.
    fn answer(&mut self) {
        let mut said = 0;
        while let Some(fragment) = self.victim.transmit(self.now) {
            said += 1;
            assert!(said <= SAID_AT_ONCE_MAX, "it does not stop talking");
            // A peer that was spoken to in somebody else's name gives up; the attack goes on.
            if self.chance(100) >= 10 && self.peer.receive(&fragment, self.now).is_err() {
                self.heard.push(fragment);
            }
        }
    }

    fn harm(&mut self) -> Vec<u8> {
        let known = self.chance(self.heard.len() as u64) as usize;
        let mut fragment = self.heard.get(known).cloned().unwrap_or_default();
        match self.chance(40) {
            0 => return self.bytes(FRAGMENT_BYTES_MAX.into()),
            1 => fragment.extend(self.bytes(600)),
            2 => {
                let kept = self.chance(fragment.len() as u64) as usize;
                fragment.truncate(kept);
            }
            3..6 => {
                let at = self.chance(fragment.len() as u64) as usize;
                let bit = self.chance(8);
                if let Some(byte) = fragment.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            6 => return self.made_up(),
            // Known ones again, as they were: the most that a repeating carrier does.
            _ => {}
        }
        fragment
    }

    /// Of the right form, and with a meaning that it should not have.
    fn made_up(&mut self) -> Vec<u8> {
        let payload = self.bytes(480);
        let (number, next) = (self.chance(400) as u16, self.chance(400) as u16);
        let last = self.chance(4) == 0;
        let credit = (self.chance(2) == 0).then(|| self.chance(256) as u8);
        let selective = self.chance(u64::MAX);
        let piece = (!payload.is_empty() || last).then_some(Piece { seq: number, last, payload: &payload });
        let ack = Some(Ack { next, credit, selective });
        let nonce = if self.chance(3) == 0 { self.nonce } else { self.chance(1 << 32) as u32 };
        let fragment = match self.chance(8) {
            0 => Fragment::Open(Opening { nonce, ..opening(0, number) }),
            1 => Fragment::Accept(Opening { nonce, ..opening(0, number) }),
            2 => Fragment::Reset { nonce },
            3 => Fragment::Refuse { nonce, reason: Refusal::Busy },
            4 => Fragment::Flow(Flow { piece: None, ack, ask: true }),
            5 | 6 => Fragment::Flow(Flow { piece, ack: None, ask: true }),
            _ => Fragment::Flow(Flow { piece, ack, ask: last }),
        };
        fragment.to_bytes()
    }
}
