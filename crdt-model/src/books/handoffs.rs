//! Handoffs: whose a shift is, as a pure function of what giver, receiver and owner said.
//!
//! The giver's *transfer* is the commit point, so a shift leaves its till only by an entry of
//! that till's own journal, or, if that till is lost, by the decision of the one owner whom the
//! offer names. Of each of the three only the first word counts. The receiver's acceptance or
//! refusal, the giver's transfer or withdrawal, and the decision are each in one journal, so
//! every device sees the same first word, and [`phase`] can't give a shift to two.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::placed::{Key, Placed};
use super::tally::Sign;
use crate::entry::Place;
use crate::ids::{DeviceId, JournalId, OwnerKey, RecordId};
use crate::money::Money;
use crate::record::{Fact, HandoffOffered};

/// How far a handoff has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum HandoffPhase {
    /// The giver waits for the receiver. The shift is frozen.
    #[n(0)]
    Offered,
    /// The receiver waits for the giver. The shift is frozen.
    #[n(1)]
    Accepted,
    /// The shift is the receiver's.
    #[n(2)]
    Completed,
    /// Declined, or decided for the giver, who has not gone on yet. The shift is frozen.
    #[n(3)]
    Returning,
    /// The giver goes on with the shift.
    #[n(4)]
    Withdrawn,
}

impl HandoffPhase {
    /// Whether the shift is frozen at the giver.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Offered | Self::Accepted | Self::Returning)
    }
}

/// A handoff and what was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The record id of its offer.
    pub id: RecordId,
    /// Where the offer stands.
    pub offered: Key,
    /// Who offers.
    pub giver: DeviceId,
    /// What was offered.
    pub offer: HandoffOffered,
    /// How far it has come.
    pub phase: HandoffPhase,
    /// The receiver's acceptance.
    pub accepted: Option<Key>,
    /// The receiver's refusal, if that came first.
    pub declined: Option<Key>,
    /// The giver's transfer.
    pub transferred: Option<Key>,
    /// The giver's withdrawal, if that came first.
    pub withdrawn: Option<Key>,
    /// The owner's decision.
    pub decision: Option<HandoffDecision>,
    /// Something was said that does not go together; a person has to look.
    pub torn: bool,
}

/// An owner's decision about a handoff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffDecision {
    /// Whose the shift is to be.
    pub to: DeviceId,
    /// Why.
    pub note: Option<String>,
    /// Where it stands.
    pub key: Key,
    /// The device on which it was made.
    pub device: DeviceId,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Handoffs {
    #[n(0)]
    offers: BTreeMap<RecordId, Offer>,
    /// By handoff, in the order of facts.
    #[n(1)]
    words: BTreeMap<(RecordId, Key), Word>,
    #[n(2)]
    of_shift: BTreeSet<(RecordId, RecordId)>,
    #[n(3)]
    of_ticket: BTreeSet<(RecordId, RecordId)>,
    /// Handoffs by giver and by receiver, until the giver has had its last word.
    #[n(4)]
    unsettled: BTreeSet<(DeviceId, RecordId)>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Offer {
    #[n(0)]
    key: Key,
    #[n(1)]
    giver: DeviceId,
    #[n(2)]
    offered: HandoffOffered,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Word {
    #[n(0)]
    device: DeviceId,
    #[n(1)]
    said: Said,
}

#[derive(Debug, Clone, Encode, Decode)]
enum Said {
    #[n(0)]
    Accepted,
    #[n(1)]
    Transferred,
    #[n(2)]
    Withdrawn,
    #[n(3)]
    Decided {
        #[n(0)]
        to: DeviceId,
        #[n(1)]
        owner: OwnerKey,
        #[n(2)]
        note: Option<String>,
    },
}

/// A stretch of a shift at one till, by the entries that begin and end it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) device: DeviceId,
    pub(super) begun: Key,
    pub(super) ended: Option<Key>,
}

impl Handoffs {
    /// Folds a fact, and tells which handoff it is about.
    pub(super) fn fold(&mut self, placed: &Placed<'_>, sign: Sign) -> Option<RecordId> {
        if let Fact::HandoffOffered(offered) = placed.fact {
            self.offer(placed, offered, sign);
            return Some(placed.id);
        }
        let (handoff, said) = word(placed.fact)?;
        let at = (handoff, placed.key());
        match sign {
            Sign::Count => drop(self.words.insert(at, Word { device: placed.device, said })),
            Sign::TakeBack => drop(self.words.remove(&at)),
        }
        self.settle(handoff);
        Some(handoff)
    }

    fn offer(&mut self, placed: &Placed<'_>, offered: &HandoffOffered, sign: Sign) {
        let id = placed.id;
        self.unsettled.remove(&(placed.device, id));
        self.unsettled.remove(&(offered.to, id));
        let tickets = offered.tickets.iter().map(|ticket| (*ticket, id));
        match sign {
            Sign::Count => {
                self.of_shift.insert((offered.shift, id));
                self.of_ticket.extend(tickets);
                let offer = Offer { key: placed.key(), giver: placed.device, offered: offered.clone() };
                self.offers.insert(id, offer);
            }
            Sign::TakeBack => {
                self.of_shift.remove(&(offered.shift, id));
                for ticket in tickets {
                    self.of_ticket.remove(&ticket);
                }
                self.offers.remove(&id);
            }
        }
        self.settle(id);
    }

    fn settle(&mut self, id: RecordId) {
        let Some(handoff) = self.handoff(id) else { return };
        let settled = handoff.transferred.is_some() || handoff.withdrawn.is_some();
        for device in [handoff.giver, handoff.offer.to] {
            if settled {
                self.unsettled.remove(&(device, id));
            } else {
                self.unsettled.insert((device, id));
            }
        }
    }

    pub(super) fn handoff(&self, id: RecordId) -> Option<Handoff> {
        let Offer { key, giver, offered } = self.offers.get(&id)?;
        let words = || self.words.range((id, Key::FIRST)..).take_while(|((of, _), _)| *of == id);
        let first = |device: DeviceId, wanted: fn(&Said) -> bool| {
            words().find(|(_, word)| word.device == device && wanted(&word.said)).map(|((_, key), word)| (*key, word))
        };
        let answer = first(offered.to, |said| matches!(said, Said::Accepted | Said::Withdrawn));
        let last_word = first(*giver, |said| matches!(said, Said::Transferred | Said::Withdrawn));
        let of = |word: Option<(Key, &Word)>, wanted: fn(&Said) -> bool| {
            word.filter(|(_, word)| wanted(&word.said)).map(|(key, _)| key)
        };
        let mut decisions = words().filter_map(|((_, key), word)| match &word.said {
            Said::Decided { to, owner, note } if *owner == offered.arbiter && (to == giver || *to == offered.to) => {
                Some(HandoffDecision { to: *to, note: note.clone(), key: *key, device: word.device })
            }
            Said::Decided { .. } | Said::Accepted | Said::Transferred | Said::Withdrawn => None,
        });
        let decision = decisions.next();
        let contradicted = decisions.any(|other| decision.as_ref().is_some_and(|first| first.to != other.to));
        let mut handoff = Handoff {
            id,
            offered: *key,
            giver: *giver,
            offer: offered.clone(),
            phase: HandoffPhase::Offered,
            accepted: of(answer, |said| matches!(said, Said::Accepted)),
            declined: of(answer, |said| matches!(said, Said::Withdrawn)),
            transferred: of(last_word, |said| matches!(said, Said::Transferred)),
            withdrawn: of(last_word, |said| matches!(said, Said::Withdrawn)),
            decision,
            torn: contradicted,
        };
        handoff.phase = phase(&handoff);
        let overruled = handoff.decided_for(handoff.giver) && handoff.phase == HandoffPhase::Completed;
        let ignored = handoff.phase == HandoffPhase::Completed && handoff.withdrawn.is_some();
        handoff.torn |= overruled || ignored;
        Some(handoff)
    }

    /// Every handoff, in the order of ids, with its phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (RecordId, HandoffPhase)> + '_ {
        self.offers.keys().filter_map(|id| Some((*id, self.handoff(*id)?.phase)))
    }

    /// Handoffs that a device gives or is to receive and whose giver has not had its last word.
    pub(super) fn unsettled(&self, device: DeviceId) -> impl Iterator<Item = Handoff> + '_ {
        let of_device = self.unsettled.range((device, RecordId(uuid::Uuid::nil()))..);
        of_device.take_while(move |(of, _)| *of == device).filter_map(|(_, id)| self.handoff(*id))
    }

    pub(super) fn of_shift(&self, shift: RecordId) -> impl Iterator<Item = Handoff> + '_ {
        let of_shift = self.of_shift.range((shift, RecordId(uuid::Uuid::nil()))..);
        of_shift.take_while(move |(of, _)| *of == shift).filter_map(|(_, id)| self.handoff(*id))
    }

    /// The till that a ticket was last handed to.
    pub(super) fn ticket_holder(&self, ticket: RecordId) -> Option<DeviceId> {
        let of_ticket = self.of_ticket.range((ticket, RecordId(uuid::Uuid::nil()))..);
        let given = of_ticket.take_while(|(of, _)| *of == ticket).filter_map(|(_, id)| self.handoff(*id));
        let given = given.filter(|handoff| handoff.phase == HandoffPhase::Completed);
        given.max_by_key(|handoff| handoff.accepted).map(|handoff| handoff.offer.to)
    }

    /// A shift's way from till to till: the turns of each, the completed handoffs, and the open
    /// one by which it is frozen.
    pub(super) fn way(&self, shift: RecordId, opener: DeviceId, opened: Key) -> Way {
        let mut all: Vec<Handoff> = self.of_shift(shift).collect();
        all.sort_by_key(|handoff| handoff.offered);
        let mut way = Way { holder: opener, turns: Vec::new(), completed: Vec::new(), frozen_by: None };
        let mut begun = Some(opened);
        // Each round follows another handoff, since each names the one before it.
        for _ in 0..=all.len() {
            let (previous, giver) = (way.completed.last().copied(), way.holder);
            let mut offers = all.iter().filter(|handoff| handoff.offer.previous == previous && handoff.giver == giver);
            let mut given = None;
            for handoff in offers.by_ref() {
                if let Some(start) = begun.take() {
                    way.turns.push(Turn { device: giver, begun: start, ended: Some(handoff.offered) });
                }
                match handoff.phase {
                    HandoffPhase::Completed => {
                        given = Some(handoff);
                        break;
                    }
                    HandoffPhase::Withdrawn => begun = handoff.withdrawn,
                    HandoffPhase::Offered | HandoffPhase::Accepted | HandoffPhase::Returning => {
                        way.frozen_by = way.frozen_by.or(Some(handoff.id));
                    }
                }
            }
            let Some(given) = given else { break };
            way.completed.push(given.id);
            way.holder = given.offer.to;
            way.frozen_by = None;
            begun = given.accepted;
        }
        if let Some(begun) = begun {
            way.turns.push(Turn { device: way.holder, begun, ended: None });
        }
        way
    }
}

/// See [`Handoffs::way`].
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) holder: DeviceId,
    pub(super) turns: Vec<Turn>,
    pub(super) completed: Vec<RecordId>,
    pub(super) frozen_by: Option<RecordId>,
}

impl Handoff {
    /// Whether an owner decided that the shift is to be this device's.
    #[must_use]
    pub fn decided_for(&self, device: DeviceId) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.to == device)
    }

    /// The giver may give its last word: the receiver has the shift.
    #[must_use]
    pub fn may_transfer(&self) -> bool {
        let settled = self.transferred.is_some() || self.withdrawn.is_some();
        self.accepted.is_some() && !self.decided_for(self.giver) && !settled
    }

    /// What the receiver has to hold before it may accept.
    #[must_use]
    pub fn seen(&self) -> &[(JournalId, u64)] {
        &self.offer.seen
    }

    /// What the giver counted.
    #[must_use]
    pub fn counted(&self) -> Money {
        self.offer.counted
    }

    /// Where the offer is recorded.
    #[must_use]
    pub fn place(&self) -> Place {
        self.offered.place()
    }
}

/// Which handoff a fact speaks about, and what it says.
fn word(fact: &Fact) -> Option<(RecordId, Said)> {
    if let Fact::HandoffAccepted(accepted) = fact {
        return Some((accepted.handoff, Said::Accepted));
    }
    if let Fact::HandoffTransferred(transferred) = fact {
        return Some((transferred.handoff, Said::Transferred));
    }
    if let Fact::HandoffWithdrawn(withdrawn) = fact {
        return Some((withdrawn.handoff, Said::Withdrawn));
    }
    let Fact::HandoffDecided(decided) = fact else { return None };
    let (to, owner, note) = (decided.to, decided.owner, decided.note.clone());
    decided.is_signed().then_some((decided.handoff, Said::Decided { to, owner, note }))
}

/// What the words amount to.
fn phase(handoff: &Handoff) -> HandoffPhase {
    let accepted = handoff.accepted.is_some();
    let decided_for_receiver = handoff.decided_for(handoff.offer.to);
    if handoff.giver == handoff.offer.to {
        HandoffPhase::Withdrawn
    } else if accepted && (handoff.transferred.is_some() || decided_for_receiver) {
        HandoffPhase::Completed
    } else if handoff.withdrawn.is_some() {
        HandoffPhase::Withdrawn
    } else if handoff.declined.is_some() || handoff.decided_for(handoff.giver) {
        HandoffPhase::Returning
    } else if accepted {
        HandoffPhase::Accepted
    } else {
        HandoffPhase::Offered
    }
}
