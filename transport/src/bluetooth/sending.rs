//! The outgoing half of an exchange: pieces under way, when one counts as lost, and how many may
//! be under way at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    exchange::ExchangeError,
    fragment::{Ack, Piece},
};

/// Bytes that wait to be cut into pieces. 32 KiB: a second of the fastest radio.
pub(super) const UNSENT_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Sending {
    unsent: BytesMut,
    finishing: bool,
    finished: bool,
    next: u64,
    /// The first piece that the peer has not granted.
    limit: u64,
    /// The first piece that the peer may still lack.
    base: u64,
    under_way: BTreeMap<u64, UnderWay>,
    window: usize,
    window_max: usize,
    /// What the peer's opening said.
    credit: u8,
    grown_by: usize,
    timing: Timing,
    /// When the newest piece that has arrived had been sent.
    newest_arrived: Option<Instant>,
    cut_at: Option<Instant>,
    progress: Instant,
    payload_bytes_max: usize,
    pub(super) retransmitted: u64,
}

#[derive(Debug)]
struct UnderWay {
    payload: Bytes,
    last: bool,
    sent: Instant,
    tries: u32,
}

/// What is to be sent next.
pub(super) struct Outgoing {
    pub(super) seq: u64,
    pub(super) last: bool,
    pub(super) payload: Bytes,
}

impl Outgoing {
    pub(super) fn piece(&self) -> Piece<'_> {
        Piece { seq: wire(self.seq), last: self.last, payload: &self.payload }
    }
}

impl Sending {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            unsent: BytesMut::new(),
            finishing: false,
            finished: false,
            next: 0,
            limit: 0,
            base: 0,
            under_way: BTreeMap::new(),
            window: WINDOW_FIRST,
            window_max: WINDOW_FIRST,
            credit: 0,
            grown_by: 0,
            timing: Timing::default(),
            newest_arrived: None,
            cut_at: None,
            progress: now,
            payload_bytes_max: 1,
            retransmitted: 0,
        }
    }

    pub(super) fn begin(&mut self, credit: u8, payload_bytes_max: usize, now: Instant) {
        self.limit = self.limit.max(u64::from(credit));
        self.credit = credit;
        self.window_max = usize::from(credit).max(1);
        self.payload_bytes_max = payload_bytes_max.max(1);
        self.progress = now;
    }

    pub(super) fn room(&self) -> usize {
        if self.finishing { 0 } else { UNSENT_BYTES_MAX.saturating_sub(self.unsent.len()) }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Everything, the last piece included, has arrived.
    pub(super) fn is_finished(&self) -> bool {
        self.finished && self.under_way.is_empty()
    }

    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || (self.finishing && !self.finished)
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.unsent.len() + self.under_way.values().map(|piece| piece.payload.len()).sum::<usize>()
    }

    /// Something waits and the peer has granted nothing.
    pub(super) fn starves(&self) -> bool {
        self.has_unsent() && self.next >= self.limit && self.under_way.is_empty()
    }

    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.sends_new() || self.lost(now).is_some()
    }

    pub(super) fn ask_interval(&self) -> Duration {
        self.timing.patience(1)
    }

    /// The next piece to send, counted as sent.
    pub(super) fn send(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(seq) = self.lost(now) {
            return self.send_again(seq, now);
        }
        if !self.sends_new() {
            return None;
        }
        if self.under_way.is_empty() {
            self.progress = now;
        }
        let bytes = self.unsent.len().min(self.payload_bytes_max);
        let payload = self.unsent.split_to(bytes).freeze();
        let last = self.finishing && self.unsent.is_empty();
        self.finished |= last;
        let seq = self.next;
        self.next += 1;
        self.under_way.insert(seq, UnderWay { payload: payload.clone(), last, sent: now, tries: 1 });
        Some(Outgoing { seq, last, payload })
    }

    fn sends_new(&self) -> bool {
        self.has_unsent() && self.next < self.limit && self.under_way.len() < self.window
    }

    fn send_again(&mut self, seq: u64, now: Instant) -> Option<Outgoing> {
        let recently = self.cut_at.is_some_and(|at| now.saturating_duration_since(at) < self.timing.patience(1));
        if !recently {
            self.window = (self.window / 2).max(WINDOW_LEAST);
            self.cut_at = Some(now);
        }
        self.retransmitted += 1;
        let piece = self.under_way.get_mut(&seq)?;
        piece.sent = now;
        piece.tries = piece.tries.saturating_add(1);
        Some(Outgoing { seq, last: piece.last, payload: piece.payload.clone() })
    }

    fn lost(&self, now: Instant) -> Option<u64> {
        self.under_way.iter().find(|(_, piece)| self.lost_at(piece) <= now).map(|(seq, _)| *seq)
    }

    /// A piece is lost when its time is up, or when one that left clearly later has arrived.
    fn lost_at(&self, piece: &UnderWay) -> Instant {
        let times_out = piece.sent + self.timing.patience(piece.tries);
        let overtaken = self.newest_arrived.filter(|newest| *newest > piece.sent + self.timing.disorder());
        match overtaken {
            Some(newest) => times_out.min(newest + self.timing.disorder()),
            None => times_out,
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.under_way.values().map(|piece| self.lost_at(piece)).min()
    }

    /// Since when nothing that was sent has arrived.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        (!self.under_way.is_empty() || self.starves()).then_some(self.progress)
    }

    pub(super) fn acknowledged(&mut self, ack: Ack, now: Instant) -> Result<(), ExchangeError> {
        let next = unwrapped(ack.next, self.base);
        if next > self.next {
            return Err(ExchangeError::NeverSent);
        }
        if next < self.base {
            // An older acknowledgement, overtaken on the way.
            return Ok(());
        }
        let limit = next + u64::from(ack.credit.unwrap_or(self.credit));
        if limit > self.limit {
            if self.starves() {
                self.progress = now;
            }
            self.limit = limit;
        }
        self.base = next;
        let rest = self.under_way.split_off(&next);
        let arrived = std::mem::replace(&mut self.under_way, rest);
        let mut count = arrived.len();
        arrived.values().for_each(|piece| self.note_arrival(piece, now));
        for bit in 0..u64::from(u64::BITS) {
            if ack.selective >> bit & 1 == 1
                && let Some(piece) = self.under_way.remove(&(next + 1 + bit))
            {
                self.note_arrival(&piece, now);
                count += 1;
            }
        }
        if count > 0 {
            self.progress = now;
            self.grow(count);
        }
        Ok(())
    }

    fn note_arrival(&mut self, piece: &UnderWay, now: Instant) {
        if piece.tries == 1 {
            self.timing.measured(now.saturating_duration_since(piece.sent));
            self.newest_arrived = self.newest_arrived.max(Some(piece.sent));
        }
    }

    /// By one piece for each window that has arrived.
    fn grow(&mut self, arrived: usize) {
        self.grown_by += arrived;
        if self.window < WINDOW_FIRST {
            self.window = self.window.saturating_add(arrived);
        } else if self.grown_by >= self.window {
            self.grown_by = 0;
            self.window += 1;
        }
        self.window = self.window.min(self.window_max);
    }
}

/// Round trips, as RFC 6298 measures them.
#[derive(Debug)]
struct Timing {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { smoothed: None, variation: Duration::ZERO }
    }
}

impl Timing {
    fn measured(&mut self, round_trip: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(round_trip);
                self.variation = round_trip / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(round_trip)) / 4;
                self.smoothed = Some((smoothed * 7 + round_trip) / 8);
            }
        }
    }

    /// How long the arrival of a piece that was sent `tries` times is waited for.
    fn patience(&self, tries: u32) -> Duration {
        let once = match self.smoothed {
            None => PATIENCE_FIRST,
            Some(smoothed) => (smoothed + self.variation * 4 + super::exchange::ACK_DELAY).max(PATIENCE_LEAST),
        };
        once.saturating_mul(1 << tries.saturating_sub(1).min(5)).min(PATIENCE_MOST)
    }

    /// By how much a piece may be overtaken by later ones and still be on its way: several ATT
    /// bearers run at different speeds.
    fn disorder(&self) -> Duration {
        self.smoothed.unwrap_or(PATIENCE_FIRST).max(DISORDER_LEAST)
    }
}

/// The low half of a piece's number.
#[allow(clippy::cast_possible_truncation)] // This is the modulus.
pub(super) const fn wire(seq: u64) -> u16 {
    seq as u16
}

/// The number closest to `near` whose low half is `wire`.
pub(super) fn unwrapped(wire: u16, near: u64) -> u64 {
    const HALF: u64 = 1 << 15;
    let candidate = (near & !0xFFFF) | u64::from(wire);
    if candidate + HALF < near {
        candidate + 2 * HALF
    } else if candidate > near + HALF && candidate >= 2 * HALF {
        candidate - 2 * HALF
    } else {
        candidate
    }
}

/// Pieces under way at the beginning: all that a peer grants, as nobody else shares the link.
const WINDOW_FIRST: usize = 128;
const WINDOW_LEAST: usize = 4;
/// Before anything is known of the other side.
const PATIENCE_FIRST: Duration = Duration::from_millis(1_500);
const PATIENCE_LEAST: Duration = Duration::from_millis(400);
/// Nobody else is on this link, so waiting longer would spare nobody.
const PATIENCE_MOST: Duration = Duration::from_secs(2);
const DISORDER_LEAST: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_around_the_wrap() {
        for (near, seq) in [
            (0, 0),
            (0, 5),
            (65_530, 65_540),
            (65_540, 65_530),
            (131_072, 131_071),
            (10, 0),
            (1 << 20, (1 << 20) + 300),
        ] {
            assert_eq!(unwrapped(wire(seq), near), seq, "{seq} near {near}");
        }
    }
}
