//! Whatever a carrier does to fragments, the bytes come out as they went in, once and in order.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::opening;
use crate::bluetooth::{
    ExchangeTimes,
    exchange::{Exchange, ExchangeError},
    fragment::Fragment,
};

/// What happens to fragments on the way, in percent.
#[derive(Debug, Clone, Copy)]
struct Weather {
    loses: u64,
    repeats: u64,
    delays_ms_max: u64,
    fragment_bytes_max: u16,
    seed: u64,
}

/// Two exchanges, the fragments between them, and virtual time.
struct Air {
    weather: Weather,
    state: u64,
    now: Instant,
    ends: [Exchange; 2],
    /// By time of arrival, and a number to tell apart what arrives at once.
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    carried_bytes: u64,
    written: [usize; 2],
    read: [Vec<u8>; 2],
    reads_slowly: bool,
}

impl Air {
    fn new(weather: Weather) -> Self {
        let now = Instant::now();
        let ours = opening(7, weather.fragment_bytes_max);
        let a = Exchange::open(ours, ExchangeTimes::default(), now);
        let b = Exchange::accept(ours, opening(0, 508), ExchangeTimes::default(), now).unwrap();
        Self {
            weather,
            state: weather.seed | 1,
            now,
            ends: [a, b],
            under_way: BTreeMap::new(),
            sent: 0,
            carried_bytes: 0,
            written: [0; 2],
            read: [Vec::new(), Vec::new()],
            reads_slowly: false,
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % of.max(1)
    }

    fn put(&mut self, to: usize, fragment: Vec<u8>) {
        self.carried_bytes += fragment.len() as u64;
        let copies = 1 + usize::from(self.chance(100) < self.weather.repeats);
        for _ in 0..copies {
            if self.chance(100) < self.weather.loses {
                continue;
            }
            let delay = 1 + self.chance(self.weather.delays_ms_max);
            self.sent += 1;
            self.under_way.insert((self.now + Duration::from_millis(delay), self.sent), (to, fragment.clone()));
        }
    }

    /// Everything that can happen now, then on to the next moment at which something will.
    fn step(&mut self, to_write: &[Vec<u8>; 2]) -> Result<(), ExchangeError> {
        for (end, bytes) in to_write.iter().enumerate() {
            self.write(end, bytes);
            let quota = if self.reads_slowly { 1 } else { usize::MAX };
            for _ in 0..quota {
                let Some(ready) = self.ends[end].ready() else { break };
                let taken = ready.len();
                self.read[end].extend_from_slice(ready);
                self.ends[end].consume(taken, self.now);
            }
            // What a carrier takes in a millisecond.
            for _ in 0..4 {
                let Some(fragment) = self.ends[end].transmit(self.now) else { break };
                self.put(1 - end, fragment);
            }
        }
        let mut next = self.now + Duration::from_millis(if self.reads_slowly { 1 } else { 50 });
        for exchange in &self.ends {
            let due = if exchange.has_something_to_say(self.now) { self.now } else { exchange.next_due() };
            next = next.min(due);
        }
        if let Some(((at, _), _)) = self.under_way.first_key_value() {
            next = next.min(*at);
        }
        self.now = next.max(self.now + Duration::from_millis(1));
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= self.now) {
            let (to, fragment) = first.remove();
            self.ends[to].receive(&fragment, self.now)?;
        }
        self.ends.iter().try_for_each(|end| end.check(self.now))
    }

    fn write(&mut self, end: usize, bytes: &[u8]) {
        let rest = &bytes[self.written[end]..];
        let taken = rest.len().min(self.ends[end].room());
        self.ends[end].write(&rest[..taken]);
        self.written[end] += taken;
        if self.written[end] == bytes.len() {
            self.ends[end].finish();
        }
    }

    fn run(&mut self, to_write: &[Vec<u8>; 2]) -> Result<Duration, ExchangeError> {
        let began = self.now;
        // An end that is over is put away, as its driver does; the carrier goes with it.
        while !self.ends.iter().any(Exchange::is_over) {
            self.step(to_write)?;
            assert!(self.now - began < Duration::from_secs(3_600), "it never ends");
        }
        while !self.ends.iter().all(Exchange::is_read_to_the_end) {
            self.step(to_write)?;
        }
        assert_eq!(self.read[1], to_write[0], "from the side that connected");
        assert_eq!(self.read[0], to_write[1], "from the other side");
        Ok(self.now - began)
    }
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|n| (n as u8).wrapping_mul(31).wrapping_add((n >> 8) as u8) ^ seed).collect()
}

fn weather() -> impl Strategy<Value = Weather> {
    let sizes = prop_oneof![Just(20_u16), Just(100), Just(508), Just(672)];
    (0..15_u64, 0..25_u64, 1..120_u64, sizes, any::<u64>()).prop_map(
        |(loses, repeats, delays_ms_max, fragment_bytes_max, seed)| Weather {
            loses,
            repeats,
            delays_ms_max,
            fragment_bytes_max,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_read_what_the_other_wrote(weather in weather(), up in 0..60_000_usize, down in 0..60_000_usize) {
        let mut air = Air::new(weather);
        air.run(&[pattern(up, 1), pattern(down, 2)]).unwrap();
    }

    #[test]
    fn a_slow_reader_slows_the_writer_and_loses_nothing(weather in weather(), up in 0..60_000_usize) {
        let mut air = Air::new(weather);
        air.reads_slowly = true;
        air.run(&[pattern(up, 1), Vec::new()]).unwrap();
    }
}

#[test]
fn the_sequence_numbers_wrap() {
    let mut air = Air::new(Weather { loses: 2, repeats: 2, delays_ms_max: 20, fragment_bytes_max: 20, seed: 5 });
    // 20 bytes hold 14 of payload: more than 2^16 pieces.
    air.run(&[pattern(1_000_000, 3), Vec::new()]).unwrap();
}

#[test]
fn several_bearers_that_reorder_cost_next_to_nothing() {
    let calm = Weather { loses: 0, repeats: 0, delays_ms_max: 1, fragment_bytes_max: 508, seed: 1 };
    let disorder = Weather { delays_ms_max: 40, ..calm };
    let bytes = pattern(200_000, 4);
    let mut in_order = Air::new(calm);
    in_order.run(&[bytes.clone(), Vec::new()]).unwrap();
    let mut reordered = Air::new(disorder);
    reordered.run(&[bytes, Vec::new()]).unwrap();
    assert_eq!(reordered.ends[0].retransmitted(), 0, "what is late is not lost");
    assert!(in_order.carried_bytes < 206_000, "{}", in_order.carried_bytes);
    assert!(reordered.carried_bytes < 208_000, "{}", reordered.carried_bytes);
}

#[test]
fn a_lost_acceptance_is_sent_again() {
    let mut air = Air::new(Weather { loses: 0, repeats: 0, delays_ms_max: 5, fragment_bytes_max: 508, seed: 1 });
    assert!(matches!(Fragment::parse(&air.ends[1].transmit(air.now).unwrap()), Ok(Fragment::Accept(_))));
    air.run(&[pattern(10, 1), pattern(10, 2)]).unwrap();
}

#[test]
fn a_sale_and_its_answer_cost_eleven_bytes() {
    let calm = Weather { loses: 0, repeats: 0, delays_ms_max: 1, fragment_bytes_max: 508, seed: 1 };
    let mut air = Air::new(calm);
    let quiet = |air: &mut Air| {
        for _ in 0..400 {
            for end in 0..2 {
                while let Some(fragment) = air.ends[end].transmit(air.now) {
                    air.put(1 - end, fragment);
                }
            }
            air.now += Duration::from_millis(1);
            while let Some(first) = air.under_way.first_entry().filter(|first| first.key().0 <= air.now) {
                let (to, fragment) = first.remove();
                air.ends[to].receive(&fragment, air.now).unwrap();
                if let Some(ready) = air.ends[to].ready() {
                    let bytes = ready.len();
                    air.ends[to].consume(bytes, air.now);
                    if to == 1 {
                        air.ends[1].write(&[0; 20]);
                    }
                }
            }
        }
    };
    quiet(&mut air);
    let before = air.carried_bytes;
    air.ends[0].write(&[0; 60]);
    quiet(&mut air);
    assert_eq!(air.carried_bytes - before, 80 + 11);
}

#[test]
fn a_peer_that_leaves_is_noticed_and_an_idle_one_is_not() {
    let calm = Weather { loses: 0, repeats: 0, delays_ms_max: 1, fragment_bytes_max: 508, seed: 1 };
    let mut air = Air::new(calm);
    let idle = |air: &mut Air, seconds: u64| {
        let until = air.now + Duration::from_secs(seconds);
        while air.now < until {
            for end in 0..2 {
                while let Some(fragment) = air.ends[end].transmit(air.now) {
                    air.put(1 - end, fragment);
                }
            }
            air.now += Duration::from_millis(10);
            while let Some(first) = air.under_way.first_entry().filter(|first| first.key().0 <= air.now) {
                let (to, fragment) = first.remove();
                air.ends[to].receive(&fragment, air.now).unwrap();
            }
            air.ends.iter().try_for_each(|end| end.check(air.now))?;
        }
        Ok(())
    };
    idle(&mut air, 600).unwrap();
    assert!(air.carried_bytes < 2_000, "signs of life cost {} bytes in ten minutes", air.carried_bytes);
    air.weather.loses = 100;
    assert!(matches!(idle(&mut air, 20), Err(ExchangeError::Silent(_))));
}
