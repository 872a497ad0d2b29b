//! The incoming half of an exchange: puts pieces in order, drops what came twice, and grants room
//! for no more than it can hold.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::{Buf, Bytes};

use super::{
    exchange::{ACK_DELAY, ExchangeError},
    fragment::{Ack, Piece},
    sending::{unwrapped, wire},
};

#[derive(Debug)]
pub(super) struct Receiving {
    /// The first piece that is missing.
    next: u64,
    /// Pieces after it.
    early: BTreeMap<u64, (Bytes, bool)>,
    /// In order, and not yet taken.
    ready: VecDeque<Bytes>,
    /// Pieces that it holds at most, early and ready together.
    window: u8,
    /// The credit of the last acknowledgement.
    told: u8,
    last: Option<u64>,
    ack_due: Option<Instant>,
    unacknowledged: u32,
}

impl Receiving {
    pub(super) fn new(window: u8) -> Self {
        Self {
            next: 0,
            early: BTreeMap::new(),
            ready: VecDeque::new(),
            window,
            told: window,
            last: None,
            ack_due: None,
            unacknowledged: 0,
        }
    }

    pub(super) fn arrived(&mut self, piece: Piece<'_>, now: Instant) -> Result<(), ExchangeError> {
        let seq = unwrapped(piece.seq, self.next);
        if seq < self.next || self.early.contains_key(&seq) {
            // Sent again, because our acknowledgement was lost or late.
            self.ack_due = Some(now);
            return Ok(());
        }
        if seq >= self.next + u64::from(self.credit()) {
            return Err(ExchangeError::BeyondCredit);
        }
        if self.last.is_some_and(|last| seq > last || piece.last) {
            return Err(ExchangeError::AfterTheEnd);
        }
        if piece.last {
            self.last = Some(seq);
        }
        self.early.insert(seq, (Bytes::copy_from_slice(piece.payload), piece.last));
        while let Some((payload, _)) = self.early.remove(&self.next) {
            self.next += 1;
            if !payload.is_empty() {
                self.ready.push_back(payload);
            }
        }
        self.unacknowledged += 1;
        let at_once = self.unacknowledged >= u32::from(self.window / 4).max(1) || piece.last;
        let due = if at_once { now } else { now + ACK_DELAY };
        self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
        Ok(())
    }

    pub(super) fn ready(&self) -> Option<&[u8]> {
        self.ready.front().map(Bytes::as_ref)
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let early = self.early.values().map(|(payload, _)| payload.len());
        early.chain(self.ready.iter().map(Bytes::len)).sum()
    }

    pub(super) fn consume(&mut self, bytes: usize, now: Instant) {
        let Some(front) = self.ready.front_mut() else { return };
        front.advance(bytes.min(front.len()));
        if front.is_empty() {
            self.ready.pop_front();
        }
        // The peer is told when it had been kept waiting.
        if self.told < self.window / 4 && self.credit() >= self.window / 2 {
            self.ack_due = Some(now);
        }
    }

    /// Everything that the peer ever sends has been taken.
    pub(super) fn is_over(&self) -> bool {
        self.ready.is_empty() && self.last.is_some_and(|last| self.next > last)
    }

    pub(super) fn owe_at_once(&mut self, now: Instant) {
        self.ack_due = Some(now);
    }

    pub(super) fn ack_due(&self) -> Option<Instant> {
        self.ack_due
    }

    /// Whether an acknowledgement may ride along with data.
    pub(super) fn owes(&self) -> bool {
        self.ack_due.is_some()
    }

    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    pub(super) fn acknowledge(&mut self) -> Ack {
        self.ack_due = None;
        self.unacknowledged = 0;
        self.told = self.credit();
        let early = self.early.keys().map(|seq| seq - self.next - 1).filter(|bit| *bit < u64::from(u64::BITS));
        let credit = Some(self.told).filter(|told| *told != self.window);
        Ack { next: wire(self.next), credit, selective: early.fold(0, |bits, bit| bits | 1 << bit) }
    }

    /// Never takes back what was granted: `next` moves on when pieces become ready, and by as much.
    fn credit(&self) -> u8 {
        let held = u8::try_from(self.ready.len()).unwrap_or(u8::MAX);
        self.window.saturating_sub(held)
    }
}
