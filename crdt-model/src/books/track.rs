//! One product's movements in one journal, by sequence number, in chunks that know their sums.

use minicbor::{Decode, Encode};

use super::tally::sum;
use crate::time::Hlc;

const CHUNK_MOVES_MAX: usize = 128;

/// What one entry moved.
#[derive(Debug, Clone, Copy, Encode, Decode)]
struct Move {
    #[n(0)]
    seq: u64,
    #[n(1)]
    time: Hlc,
    #[n(2)]
    quantity_milli: i64,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Chunk {
    #[cbor(n(0), with = "sum")]
    sum_milli: i128,
    #[n(1)]
    first_time: Hlc,
    #[n(2)]
    last_time: Hlc,
    #[n(3)]
    moves: Vec<Move>,
}

/// Movements, never two of one entry, none that is zero.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Track(#[n(0)] Vec<Chunk>);

/// The part of a track that lies before a count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) sum_milli: i128,
    /// How many entries are before it by their time alone.
    pub(super) late: u32,
}

impl Track {
    /// Adds to what the entry `seq` moved.
    pub(super) fn add(&mut self, seq: u64, time: Hlc, quantity_milli: i64) {
        let at = self.0.partition_point(|chunk| chunk.last_seq() < seq);
        let full = self.0.last().is_none_or(|chunk| chunk.moves.len() >= CHUNK_MOVES_MAX);
        let at = match (at == self.0.len(), full) {
            (true, true) => {
                self.0.reserve_exact(1 + self.0.len() / 4);
                self.0.push(Chunk { sum_milli: 0, first_time: time, last_time: time, moves: Vec::new() });
                at
            }
            (true, false) => at - 1,
            (false, _) => at,
        };
        let Some(chunk) = self.0.get_mut(at) else {
            return;
        };
        chunk.add(Move { seq, time, quantity_milli });
        if chunk.moves.is_empty() {
            self.0.remove(at);
        } else if chunk.moves.len() > CHUNK_MOVES_MAX {
            let upper = chunk.moves.split_off(CHUNK_MOVES_MAX / 2);
            chunk.measure();
            let mut upper = Chunk { sum_milli: 0, first_time: time, last_time: time, moves: upper };
            upper.measure();
            self.0.insert(at + 1, upper);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What lies before a count that had seen the journal up to `seen` and was made at `time`.
    pub(super) fn before(&self, seen: u64, time: Hlc) -> Before {
        let mut before = Before::default();
        for chunk in &self.0 {
            if chunk.last_seq() <= seen {
                before.sum_milli += chunk.sum_milli;
                continue;
            }
            if chunk.first_seq() > seen && chunk.first_time >= time {
                continue;
            }
            if chunk.first_seq() > seen && chunk.last_time < time {
                before.sum_milli += chunk.sum_milli;
                before.late = before.late.saturating_add(u32::try_from(chunk.moves.len()).unwrap_or(u32::MAX));
                continue;
            }
            for moved in &chunk.moves {
                if moved.seq <= seen || moved.time < time {
                    before.sum_milli += i128::from(moved.quantity_milli);
                }
                if moved.seq > seen && moved.time < time {
                    before.late = before.late.saturating_add(1);
                }
            }
        }
        before
    }
}

impl Chunk {
    fn first_seq(&self) -> u64 {
        self.moves.first().map_or(0, |moved| moved.seq)
    }

    fn last_seq(&self) -> u64 {
        self.moves.last().map_or(0, |moved| moved.seq)
    }

    fn add(&mut self, moved: Move) {
        let at = match self.moves.binary_search_by_key(&moved.seq, |other| other.seq) {
            Ok(at) => at,
            Err(at) => {
                // A quarter of room: there are many short tracks.
                if self.moves.len() == self.moves.capacity() {
                    self.moves.reserve_exact(2 + self.moves.len() / 4);
                }
                self.moves.insert(at, Move { quantity_milli: 0, ..moved });
                at
            }
        };
        if let Some(there) = self.moves.get_mut(at) {
            // An entry's quantities are bounded so that this never wraps; if it did, taking
            // the same quantities back would still undo it.
            there.quantity_milli = there.quantity_milli.wrapping_add(moved.quantity_milli);
            if there.quantity_milli == 0 {
                self.moves.remove(at);
                return self.measure();
            }
        }
        self.sum_milli += i128::from(moved.quantity_milli);
        self.first_time = self.first_time.min(moved.time);
        self.last_time = self.last_time.max(moved.time);
    }

    fn measure(&mut self) {
        self.sum_milli = self.moves.iter().map(|moved| i128::from(moved.quantity_milli)).sum();
        let times = || self.moves.iter().map(|moved| moved.time);
        self.first_time = times().min().unwrap_or_default();
        self.last_time = times().max().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_before_a_count_equals_a_plain_sum_whatever_the_order_of_arrival() {
        let moves: Vec<(u64, Hlc, i64)> =
            (1..=1_000).map(|seq| (seq, Hlc(seq * 10 + seq % 7), i64::try_from(seq % 13).unwrap() - 6)).collect();
        let mut forward = Track::default();
        let mut scattered = Track::default();
        for step in 0..moves.len() {
            let (seq, time, quantity) = moves[step];
            forward.add(seq, time, quantity);
            let (seq, time, quantity) = moves[step * 387 % 1_000];
            scattered.add(seq, time, quantity);
        }
        scattered.add(500, Hlc(1), 77);
        scattered.add(500, Hlc(1), -77);
        for (seen, time) in [(0, 0), (500, 0), (500, 8_000), (0, 8_000), (2_000, 0), (999, 20_000)] {
            let mut expected = Before::default();
            for (seq, at, quantity) in moves.iter().filter(|(_, _, quantity)| *quantity != 0) {
                if *seq <= seen || *at < Hlc(time) {
                    expected.sum_milli += i128::from(*quantity);
                }
                expected.late += u32::from(*seq > seen && *at < Hlc(time));
            }
            assert_eq!(forward.before(seen, Hlc(time)), expected);
            assert_eq!(scattered.before(seen, Hlc(time)), expected);
        }
    }
}
