//! One exchange of fragments as a pure state machine: it opens, carries a byte stream both ways
//! over a carrier that may lose, repeat and reorder fragments, and notices when the peer is gone.

use std::time::{Duration, Instant};

use super::{
    fragment::{FRAGMENT_OVERHEAD_BYTES, Flow, Fragment, FragmentError, Opening, Refusal},
    receiving::Receiving,
    sending::Sending,
};

/// How long an acknowledgement waits for data to ride along with. 60 ms: two connection events of
/// a phone, and about what a till takes to answer a sale.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(60);

/// The deadlines of an exchange.
#[derive(Debug, Clone)]
pub struct ExchangeTimes {
    /// How long the other side may take to accept. 8 s.
    pub open_max: Duration,
    /// An idle side says so often that it is there. 5 s: three chances before it counts as gone.
    pub keep_alive: Duration,
    /// How long the peer may say nothing. 16 s: a phone in a pocket is noticed when it has left.
    pub silence_max: Duration,
    /// How long the peer may acknowledge nothing of what is under way. 20 s.
    pub stall_max: Duration,
}

impl Default for ExchangeTimes {
    fn default() -> Self {
        Self {
            open_max: Duration::from_secs(8),
            keep_alive: Duration::from_secs(5),
            silence_max: Duration::from_secs(16),
            stall_max: Duration::from_secs(20),
        }
    }
}

/// Why an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    #[error("the peer sent what is no fragment ({0}): it runs another version, or is hostile")]
    Fragment(#[from] FragmentError),
    #[error("the peer sent a fragment longer than it was told to: it is faulty or hostile")]
    TooLong,
    #[error("the peer sent more than it was granted: it is faulty or hostile")]
    BeyondCredit,
    #[error("the peer acknowledged what was never sent: it is faulty or hostile")]
    NeverSent,
    #[error("the peer went on after its last piece: it is faulty or hostile")]
    AfterTheEnd,
    #[error("the peer takes no fragments of a useful size: it is faulty or hostile")]
    FragmentSize,
    #[error("the peer refused: {}", match .0 {
        Refusal::Version => "update the older of the two devices",
        Refusal::Busy => "it has as many links as it keeps; it is tried again later",
    })]
    Refused(Refusal),
    #[error("the peer did not accept within {0:?}: it is tried again later")]
    NotAccepted(Duration),
    #[error("the peer has been silent for {0:?}: it is out of range or off")]
    Silent(Duration),
    #[error("the peer has acknowledged nothing for {0:?}: it is out of range, or overloaded")]
    Stalled(Duration),
    #[error("the peer began anew: wait for the next link")]
    Replaced,
    #[error("the peer gave the link up: wait for the next one")]
    Reset,
    #[error("the carrier ended ({0}): the peer is out of range or off")]
    Carrier(String),
}

/// See the file's head. Times come in with every call.
#[derive(Debug)]
pub(super) struct Exchange {
    ours: Opening,
    stage: Stage,
    times: ExchangeTimes,
    sending: Sending,
    receiving: Receiving,
    heard: Instant,
    spoke: Instant,
    asked: Instant,
    accept_owed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening { since: Instant, sent: Option<Instant> },
    Up,
}

impl Exchange {
    /// The side that connected.
    pub(super) fn open(ours: Opening, times: ExchangeTimes, now: Instant) -> Self {
        Self::new(ours, Stage::Opening { since: now, sent: None }, times, now)
    }

    /// The other side, once `theirs` has arrived.
    ///
    /// # Errors
    /// If the peer takes no fragments of a useful size.
    pub(super) fn accept(
        theirs: Opening,
        ours: Opening,
        times: ExchangeTimes,
        now: Instant,
    ) -> Result<Self, ExchangeError> {
        let ours = Opening { nonce: theirs.nonce, ..ours };
        let mut exchange = Self::new(ours, Stage::Up, times, now);
        exchange.begin(theirs, now)?;
        exchange.accept_owed = true;
        Ok(exchange)
    }

    fn new(ours: Opening, stage: Stage, times: ExchangeTimes, now: Instant) -> Self {
        Self {
            ours,
            stage,
            times,
            sending: Sending::new(now),
            receiving: Receiving::new(ours.credit),
            heard: now,
            spoke: now,
            asked: now,
            accept_owed: false,
        }
    }

    fn begin(&mut self, theirs: Opening, now: Instant) -> Result<(), ExchangeError> {
        let fragment_bytes = usize::from(theirs.fragment_bytes_max.min(self.ours.fragment_bytes_max));
        if fragment_bytes <= FRAGMENT_OVERHEAD_BYTES {
            return Err(ExchangeError::FragmentSize);
        }
        let payload_bytes_max = fragment_bytes - PIECE_HEAD_BYTES;
        self.sending.begin(theirs.credit, payload_bytes_max, now);
        self.stage = Stage::Up;
        Ok(())
    }

    /// Pieces that were sent more than once.
    pub(super) fn retransmitted(&self) -> u64 {
        self.sending.retransmitted
    }

    /// Bytes that it holds, both ways.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.sending.held_bytes() + self.receiving.held_bytes()
    }

    /// Takes a fragment that has arrived.
    ///
    /// # Errors
    /// What ends the exchange.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), ExchangeError> {
        if bytes.len() > usize::from(self.ours.fragment_bytes_max) {
            return Err(ExchangeError::TooLong);
        }
        match Fragment::parse(bytes)? {
            Fragment::Open(theirs) => self.opened(theirs, now),
            Fragment::Accept(theirs) => self.accepted(theirs, now),
            Fragment::Refuse { nonce, reason } if nonce == self.ours.nonce => Err(ExchangeError::Refused(reason)),
            Fragment::Reset { nonce } if nonce == self.ours.nonce => Err(ExchangeError::Reset),
            // Left over from an earlier exchange on the same carrier.
            Fragment::Refuse { .. } | Fragment::Reset { .. } => Ok(()),
            Fragment::Flow(flow) => self.flowed(&flow, now),
        }
    }

    fn opened(&mut self, theirs: Opening, now: Instant) -> Result<(), ExchangeError> {
        if theirs.nonce != self.ours.nonce {
            return Err(ExchangeError::Replaced);
        }
        self.heard = now;
        // Our acceptance was lost.
        self.accept_owed = matches!(self.stage, Stage::Up);
        Ok(())
    }

    fn accepted(&mut self, theirs: Opening, now: Instant) -> Result<(), ExchangeError> {
        if theirs.nonce == self.ours.nonce && matches!(self.stage, Stage::Opening { .. }) {
            self.heard = now;
            self.begin(theirs, now)?;
        }
        Ok(())
    }

    fn flowed(&mut self, flow: &Flow<'_>, now: Instant) -> Result<(), ExchangeError> {
        // Before the acceptance it is left over from an earlier exchange, or has overtaken it.
        if matches!(self.stage, Stage::Opening { .. }) {
            return Ok(());
        }
        self.heard = now;
        if let Some(ack) = flow.ack {
            self.sending.acknowledged(ack, now)?;
        }
        if let Some(piece) = flow.piece {
            self.receiving.arrived(piece, now)?;
        }
        if flow.ask {
            self.receiving.owe_at_once(now);
        }
        Ok(())
    }

    /// Whether [`Self::transmit`] has something.
    pub(super) fn has_something_to_say(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Opening { sent, .. } => sent.is_none_or(|sent| sent + OPEN_AGAIN <= now),
            Stage::Up => {
                self.accept_owed
                    || self.sending.may_send(now)
                    || self.receiving.ack_due().is_some_and(|due| due <= now)
                    || self.asks_at().is_some_and(|at| at <= now)
                    || self.spoke + self.times.keep_alive <= now
            }
        }
    }

    /// The next fragment for the carrier, counted as sent.
    pub(super) fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.has_something_to_say(now) {
            return None;
        }
        self.spoke = now;
        if let Stage::Opening { sent, .. } = &mut self.stage {
            *sent = Some(now);
            return Some(Fragment::Open(self.ours).to_bytes());
        }
        if std::mem::take(&mut self.accept_owed) {
            return Some(Fragment::Accept(self.ours).to_bytes());
        }
        if let Some(outgoing) = self.sending.send(now) {
            // A selective part has no room in a full fragment: it goes by itself when it is due.
            let rides = self.receiving.owes() && !self.receiving.has_early();
            let ack = rides.then(|| self.receiving.acknowledge());
            let flow = Flow { piece: Some(outgoing.piece()), ack, ask: false };
            return Some(Fragment::Flow(flow).to_bytes());
        }
        let ask = self.asks_at().is_some_and(|at| at <= now);
        if ask {
            self.asked = now;
        }
        let flow = Flow { piece: None, ack: Some(self.receiving.acknowledge()), ask };
        Some(Fragment::Flow(flow).to_bytes())
    }

    /// When to call again if nothing happens before.
    pub(super) fn next_due(&self) -> Instant {
        let (earliest, others) = match self.stage {
            Stage::Opening { since, sent } => {
                let again = sent.map_or(since, |sent| sent + OPEN_AGAIN);
                (since + self.times.open_max, [Some(again), None, None, None, None])
            }
            Stage::Up => (
                self.heard + self.times.silence_max,
                [
                    Some(self.spoke + self.times.keep_alive),
                    self.sending.next_due(),
                    self.receiving.ack_due(),
                    self.asks_at(),
                    self.sending.stuck_since().map(|since| since + self.times.stall_max),
                ],
            ),
        };
        others.into_iter().flatten().fold(earliest, Instant::min)
    }

    /// Whether a deadline has passed.
    ///
    /// # Errors
    /// What ends the exchange.
    pub(super) fn check(&self, now: Instant) -> Result<(), ExchangeError> {
        match self.stage {
            Stage::Opening { since, .. } if since + self.times.open_max <= now => {
                Err(ExchangeError::NotAccepted(self.times.open_max))
            }
            Stage::Opening { .. } => Ok(()),
            Stage::Up if self.heard + self.times.silence_max <= now => {
                Err(ExchangeError::Silent(self.times.silence_max))
            }
            Stage::Up => match self.sending.stuck_since() {
                Some(since) if since + self.times.stall_max <= now => Err(ExchangeError::Stalled(self.times.stall_max)),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// What tells the peer that this side has given up.
    pub(super) fn reset(&self) -> Vec<u8> {
        Fragment::Reset { nonce: self.ours.nonce }.to_bytes()
    }

    /// How many bytes [`Self::write`] takes at the moment.
    pub(super) fn room(&self) -> usize {
        self.sending.room()
    }

    /// Takes bytes for the peer, no more than [`Self::room`].
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.sending.write(bytes);
    }

    /// Nothing more will be written.
    pub(super) fn finish(&mut self) {
        self.sending.finish();
    }

    /// The next bytes from the peer, in order.
    pub(super) fn ready(&self) -> Option<&[u8]> {
        self.receiving.ready()
    }

    /// So many of the ready bytes have been taken.
    pub(super) fn consume(&mut self, bytes: usize, now: Instant) {
        self.receiving.consume(bytes, now);
    }

    /// The peer has said all it ever says, and it has been taken.
    pub(super) fn is_read_to_the_end(&self) -> bool {
        self.receiving.is_over()
    }

    /// Both sides have said everything, and know it.
    pub(super) fn is_over(&self) -> bool {
        self.sending.is_finished() && self.receiving.is_over() && !self.receiving.owes()
    }

    /// While the peer grants nothing it is asked now and then, as its grant may have been lost.
    fn asks_at(&self) -> Option<Instant> {
        self.sending.starves().then(|| self.asked.max(self.heard) + self.sending.ask_interval())
    }
}

/// A piece's own head, and the acknowledgement that may ride along.
const PIECE_HEAD_BYTES: usize = 1 + 3 + 2;
const OPEN_AGAIN: Duration = Duration::from_millis(500);
