//! What a till may do while a shift changes hands, and the words that it says by itself.

use super::{ActError, Operation, Output, Shop};
use crate::books::{Handoff, HandoffPhase};
use crate::document::DocumentId;
use crate::entry::Place;
use crate::ids::{DeviceId, RecordId};
use crate::money::Money;
use crate::record::{Fact, HandoffDecided, HandoffOffered, HandoffTransferred, HandoffWithdrawn, Role};
use crate::time::Timestamp;

/// Why a shift, or what belongs to it, can't be touched in this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The till has an open shift.
    #[error("shift {0} is open on this till: close it or hand it over first")]
    ShiftOpen(RecordId),
    /// The till's shift is offered to another.
    #[error(
        "shift {shift} is frozen by handoff {handoff}: open another shift to go on selling; the frozen one goes on when the other till declines or an owner decides"
    )]
    ShiftFrozen {
        /// The shift.
        shift: RecordId,
        /// The handoff.
        handoff: RecordId,
    },
    /// Another device has the shift.
    #[error("shift {shift} is on device {holder}: do it there")]
    ShiftElsewhere {
        /// The shift.
        shift: RecordId,
        /// Who has it.
        holder: DeviceId,
    },
    /// The shift was closed before.
    #[error("shift {0} was closed before: open a new one")]
    ShiftClosed(RecordId),
    /// There is no such shift.
    #[error("there is no shift {0}: it may not have reached this device yet")]
    NoShift(RecordId),
    /// There is no such handoff.
    #[error("there is no handoff {0}: it may not have reached this device yet")]
    NoHandoff(RecordId),
    /// The device can't take a shift.
    #[error("{0} can't take a shift: name another till of the business")]
    WrongReceiver(DeviceId),
    /// The handoff is between other devices.
    #[error("handoff {handoff} is not this device's to {what}")]
    NotYours {
        /// The handoff.
        handoff: RecordId,
        /// What was asked.
        what: &'static str,
    },
    /// The handoff is over, or past this.
    #[error("handoff {0} is past that: look at its state")]
    Past(RecordId),
    /// The receiver may have accepted already.
    #[error(
        "handoff {0} can't be withdrawn: the other till may have accepted it; wait until they meet, let it decline, or let an owner decide"
    )]
    NotSafe(RecordId),
    /// Not everything has arrived.
    #[error("{missing} operations that come along have not arrived yet: keep both devices connected and try again")]
    Incomplete {
        /// How many.
        missing: u64,
    },
    /// Giver and receiver counted different amounts.
    #[error("counted_minor is {counted}, but the giver counted {offered}: count again together, or decline")]
    CountDiffers {
        /// What the receiver counted, in minor units.
        counted: i64,
        /// What the giver counted.
        offered: i64,
    },
    /// An accepted handoff waits for its giver.
    #[error("handoff {0} is accepted and waits for the other till: sell without a shift until the shift is here")]
    Waiting(RecordId),
    /// Only the owner who enrolled the giver decides.
    #[error("handoff {0} can be decided only by the owner who enrolled its giver")]
    NotTheArbiter(RecordId),
    /// The ticket is offered along with a shift.
    #[error("ticket {ticket} is offered to another till by handoff {handoff}: wait until that is over")]
    TicketOffered {
        /// The ticket.
        ticket: RecordId,
        /// The handoff.
        handoff: RecordId,
    },
}

impl Shop {
    /// Checks what an operation does to shifts and what belongs to them.
    pub(super) fn check_handoffs(&self, operation: &Operation) -> Result<(), HandoffError> {
        self.check_frozen(operation)?;
        operation.facts.iter().try_for_each(|fact| self.check_word(fact))
    }

    fn check_word(&self, fact: &Fact) -> Result<(), HandoffError> {
        if let Fact::ShiftOpened(_) = fact {
            self.check_opening()
        } else if let Fact::ShiftClosed(closed) = fact {
            self.check_holds(closed.shift)
        } else if let Fact::HandoffOffered(offered) = fact {
            self.check_offer(offered)
        } else if let Fact::HandoffAccepted(accepted) = fact {
            self.check_acceptance(accepted.handoff, accepted.counted)
        } else if let Fact::HandoffTransferred(transferred) = fact {
            self.check_transfer(transferred)
        } else if let Fact::HandoffWithdrawn(withdrawn) = fact {
            self.check_withdrawal(withdrawn)
        } else if let Fact::HandoffDecided(decided) = fact {
            self.check_decision(decided)
        } else {
            Ok(())
        }
    }

    /// A frozen till touches neither the drawer nor the tickets that are offered along, unless
    /// another shift is open on it.
    fn check_frozen(&self, operation: &Operation) -> Result<(), HandoffError> {
        let Some(frozen) = self.books.frozen_shift(self.device()) else { return Ok(()) };
        let edited = operation.edits.iter().filter(|(document, _)| matches!(document, DocumentId::Tickets(_)));
        let sold =
            operation.facts.iter().filter_map(|fact| if let Fact::Sale(sale) = fact { sale.ticket } else { None });
        let mut tickets = edited.map(|(_, edit)| edit.record).chain(sold);
        if let Some(ticket) = tickets.find(|ticket| frozen.offer.tickets.contains(ticket)) {
            return Err(HandoffError::TicketOffered { ticket, handoff: frozen.id });
        }
        let drawer = operation
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Sale(_) | Fact::Void(_) | Fact::Refund(_) | Fact::Expense(_)));
        if drawer && self.books.current_shift(self.device()).is_none() {
            return Err(HandoffError::ShiftFrozen { shift: frozen.offer.shift, handoff: frozen.id });
        }
        Ok(())
    }

    fn check_opening(&self) -> Result<(), HandoffError> {
        if let Some(open) = self.books.current_shift(self.device()) {
            return Err(HandoffError::ShiftOpen(open));
        }
        let device = self.device();
        let mut coming = self.books.unsettled_handoffs(device).filter(|handoff| handoff.offer.to == device);
        match coming.find(|handoff| handoff.phase == HandoffPhase::Accepted) {
            Some(handoff) => Err(HandoffError::Waiting(handoff.id)),
            None => Ok(()),
        }
    }

    /// This device has the shift, and may do something with it.
    fn check_holds(&self, shift: RecordId) -> Result<(), HandoffError> {
        let (holder, frozen) = self.books.shift_holder(shift).ok_or(HandoffError::NoShift(shift))?;
        if self.books.is_shift_closed(shift) {
            return Err(HandoffError::ShiftClosed(shift));
        }
        match frozen {
            _ if holder != self.device() => Err(HandoffError::ShiftElsewhere { shift, holder }),
            Some(handoff) => Err(HandoffError::ShiftFrozen { shift, handoff }),
            None => Ok(()),
        }
    }

    fn check_offer(&self, offered: &HandoffOffered) -> Result<(), HandoffError> {
        self.check_holds(offered.shift)?;
        let till = self.members.get(&offered.to).is_some_and(|member| member.role == Role::Till);
        if !till || offered.to == self.device() {
            return Err(HandoffError::WrongReceiver(offered.to));
        }
        if offered.previous != self.books.shift_came_by(offered.shift)
            || offered.arbiter != self.identity.certificate.owner
        {
            return Err(HandoffError::Past(offered.shift));
        }
        Ok(())
    }

    fn check_acceptance(&self, id: RecordId, counted: Money) -> Result<(), HandoffError> {
        let handoff = self.known_handoff(id)?;
        if handoff.offer.to != self.device() {
            return Err(HandoffError::NotYours { handoff: id, what: "accept" });
        }
        if handoff.phase != HandoffPhase::Offered || self.books.is_shift_closed(handoff.offer.shift) {
            return Err(HandoffError::Past(id));
        }
        self.check_opening()?;
        if counted != handoff.counted() {
            let (counted, offered) = (counted.minor, handoff.counted().minor);
            return Err(HandoffError::CountDiffers { counted, offered });
        }
        match self.missing_of(&handoff) {
            0 => Ok(()),
            missing => Err(HandoffError::Incomplete { missing }),
        }
    }

    /// How many entries that come along with a handoff have not been applied here.
    #[must_use]
    pub fn missing_of(&self, handoff: &Handoff) -> u64 {
        let missing = |(journal, seq): &(crate::ids::JournalId, u64)| {
            if self.has_applied(Place { journal: *journal, seq: *seq }) {
                return 0;
            }
            seq.saturating_sub(self.journals.get(journal).map_or(0, |journal| journal.applied)).max(1)
        };
        handoff.seen().iter().map(missing).sum()
    }

    fn check_transfer(&self, transferred: &HandoffTransferred) -> Result<(), HandoffError> {
        let handoff = self.known_handoff(transferred.handoff)?;
        if handoff.giver != self.device() {
            return Err(HandoffError::NotYours { handoff: handoff.id, what: "transfer" });
        }
        if handoff.may_transfer() { Ok(()) } else { Err(HandoffError::Past(handoff.id)) }
    }

    fn check_withdrawal(&self, withdrawn: &HandoffWithdrawn) -> Result<(), HandoffError> {
        let handoff = self.known_handoff(withdrawn.handoff)?;
        let id = handoff.id;
        if handoff.offer.to == self.device() {
            let open = handoff.phase == HandoffPhase::Offered;
            return if open { Ok(()) } else { Err(HandoffError::Past(id)) };
        }
        if handoff.giver != self.device() {
            return Err(HandoffError::NotYours { handoff: id, what: "withdraw" });
        }
        match handoff.phase {
            HandoffPhase::Returning => match self.books.current_shift(self.device()) {
                Some(open) => Err(HandoffError::ShiftOpen(open)),
                None => Ok(()),
            },
            HandoffPhase::Offered if self.is_only_here(handoff.place()) => Ok(()),
            HandoffPhase::Offered | HandoffPhase::Accepted => Err(HandoffError::NotSafe(id)),
            HandoffPhase::Completed | HandoffPhase::Withdrawn => Err(HandoffError::Past(id)),
        }
    }

    fn check_decision(&self, decided: &HandoffDecided) -> Result<(), HandoffError> {
        let handoff = self.known_handoff(decided.handoff)?;
        if decided.owner != handoff.offer.arbiter || !decided.is_signed() {
            return Err(HandoffError::NotTheArbiter(handoff.id));
        }
        if decided.to != handoff.giver && decided.to != handoff.offer.to {
            return Err(HandoffError::WrongReceiver(decided.to));
        }
        let waits = matches!(handoff.phase, HandoffPhase::Offered | HandoffPhase::Accepted);
        if waits && handoff.decision.is_none() { Ok(()) } else { Err(HandoffError::Past(handoff.id)) }
    }

    fn known_handoff(&self, id: RecordId) -> Result<Handoff, HandoffError> {
        self.books.handoff(id).ok_or(HandoffError::NoHandoff(id))
    }

    /// No other device can have seen an entry of ours: it was recorded since the start, and
    /// given to no link.
    fn is_only_here(&self, place: Place) -> bool {
        place.journal == self.own
            && self.first_since_start.is_some_and(|first| place.seq >= first)
            && place.seq > self.given_out
    }

    /// Says the giver's last words, as soon as what they answer is known: the transfer once the
    /// receiver has accepted; that it goes on once the receiver declined, or the owner decided so.
    pub(super) fn settle_handoffs(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let device = self.device();
        if !self.is_loaded() {
            return;
        }
        let given: Vec<Handoff> =
            self.books.unsettled_handoffs(device).filter(|handoff| handoff.giver == device).collect();
        for handoff in given {
            let id = handoff.id;
            let fact = if handoff.may_transfer() {
                Fact::HandoffTransferred(HandoffTransferred { handoff: id })
            } else if handoff.phase == HandoffPhase::Returning && self.books.current_shift(device).is_none() {
                Fact::HandoffWithdrawn(HandoffWithdrawn { handoff: id, reason: None })
            } else {
                continue;
            };
            let operation = Operation { facts: vec![fact], ..Operation::default() };
            if let Err(error) = self.act_and_fold(operation, now, out) {
                tracing::warn!(%error, handoff = %id, "a handoff could not be settled");
            }
        }
    }
}

impl From<HandoffError> for ActError {
    fn from(error: HandoffError) -> Self {
        Self::Handoff(Box::new(error))
    }
}
