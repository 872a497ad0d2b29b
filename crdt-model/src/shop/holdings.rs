//! Signed words for what each device holds: when ours is signed, and how others' are taken,
//! carried on and counted. A till behind another till learns so that the relay has its sales.

use super::{LinkId, Output, Shop};
use crate::frontier::FrontierRow;
use crate::ids::{DeviceId, JournalId};
use crate::record::Role;
use crate::sync::holding::{HOLDINGS_MAX, Holding, HoldingsKnown, holdings_digest};
use crate::sync::message::Message;
use crate::time::Timestamp;

/// A relay signs so long after the first entry that it has not signed for: tills wait for its
/// word, and a busy shop does not pay for one a sale.
const RELAY_SIGNS_AFTER_MS: u64 = 30_000;
/// A till's word matters only when somebody looks, and then it is asked.
const TILL_SIGNS_AFTER_MS: u64 = 15 * 60_000;
/// A peer that asks more often is not heard.
const ASKED_EVERY_MS: u64 = 500;

impl Shop {
    /// How far a device holds a journal, by its own signature.
    #[must_use]
    pub fn signed_for(&self, device: DeviceId, journal: JournalId) -> u64 {
        let row = self.holdings.get(&device).and_then(|holding| holding.frontier.row(journal));
        row.filter(|row| self.fits_ours(row)).map_or(0, |row| row.high)
    }

    /// Another history of a journal than ours does not count for ours; nor does one of our own
    /// journal that is longer than what we remember of it.
    fn fits_ours(&self, row: &FrontierRow) -> bool {
        self.journals.get(&row.journal).is_some_and(|journal| {
            let ours = journal.checkpoints.iter().find(|(seq, _)| *seq == row.high);
            let longer = row.high > journal.high && journal.info.device() == self.device();
            !longer && ours.is_none_or(|(_, hash)| hash.short() == row.hash)
        })
    }

    /// The newest signed words, by device.
    pub fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.holdings.values()
    }

    /// Something of others has become durable: our word for it is due after a while.
    pub(super) fn owe_holding(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.holding_due.is_some() {
            return;
        }
        let after = match self.identity.certificate.role {
            Role::Relay => RELAY_SIGNS_AFTER_MS,
            Role::Till => TILL_SIGNS_AFTER_MS,
        };
        let due = now.plus_ms(after);
        self.holding_due = Some(due);
        out.push(Output::WakeAt(due));
    }

    /// After a start, what was taken in before it may still be unsigned.
    pub(super) fn owe_if_unsigned(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let device = self.device();
        let others = self.journals.values().any(|journal| journal.info.device() != device && journal.high > 0);
        if others && self.holdings.get(&device).is_none_or(|last| last.frontier != self.frontier()) {
            self.owe_holding(now, out);
        }
    }

    /// Signs if it is due.
    pub(super) fn sign_if_due(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.holding_due.is_some_and(|due| due <= now) {
            self.sign_holding(now, out);
        }
    }

    /// Signs what we hold, if that is not signed already. It leaves after the group's commit,
    /// as everything does. Tells whether there was anything new to sign.
    fn sign_holding(&mut self, now: Timestamp, out: &mut Vec<Output>) -> bool {
        self.holding_due = None;
        let (device, frontier) = (self.device(), self.frontier());
        let last = self.holdings.get(&device);
        if last.is_some_and(|last| last.frontier == frontier && last.number >= self.holding_floor) {
            return false;
        }
        let number = now.0.max(self.holding_floor).max(last.map_or(0, |last| last.number.saturating_add(1)));
        let holding = Holding::sign(self.business(), &self.identity.key, number, frontier);
        self.tell_holding(&holding, None, out);
        self.holdings.insert(device, holding);
        true
    }

    /// Gives a holding to every link but the one it came by.
    fn tell_holding(&self, holding: &Holding, from: Option<LinkId>, out: &mut Vec<Output>) {
        let frame = Message::Holding(Box::new(holding.clone())).to_frame();
        for (link, session) in &self.sessions {
            if session.greeted && Some(*link) != from && session.device != holding.device {
                out.push(Output::Send(*link, frame.clone()));
            }
        }
    }

    /// Tells a peer which words we have, by digest at first.
    pub(super) fn compare_holdings(&self, link: LinkId, whole: bool, out: &mut Vec<Output>) {
        let numbers: Vec<(DeviceId, u64)> =
            self.holdings.values().map(|holding| (holding.device, holding.number)).collect();
        let digest = holdings_digest(&numbers);
        let known = HoldingsKnown { digest, numbers: whole.then_some(numbers) };
        out.push(Output::Send(link, Message::HoldingsKnown(known).to_frame()));
    }

    pub(super) fn take_holdings_known(&self, link: LinkId, theirs: &HoldingsKnown, out: &mut Vec<Output>) {
        let Some(numbers) = &theirs.numbers else {
            let numbers: Vec<_> = self.holdings.values().map(|holding| (holding.device, holding.number)).collect();
            if holdings_digest(&numbers) != theirs.digest {
                self.compare_holdings(link, true, out);
            }
            return;
        };
        for holding in self.holdings.values() {
            let known = numbers.iter().find(|(device, _)| *device == holding.device);
            if known.is_none_or(|(_, number)| *number < holding.number) {
                out.push(Output::Send(link, Message::Holding(Box::new(holding.clone())).to_frame()));
            }
        }
    }

    /// Takes a word that is newer than the one we have. Tells what is wrong with it.
    pub(super) fn take_holding(&mut self, link: LinkId, holding: Holding, out: &mut Vec<Output>) -> Option<String> {
        let known = self.holdings.get(&holding.device).map_or(0, |known| known.number);
        if holding.number <= known || !self.members.contains_key(&holding.device) {
            return None;
        }
        if self.holdings.len() >= HOLDINGS_MAX && known == 0 {
            return None;
        }
        if let Err(error) = holding.verify(self.business()) {
            return Some(error.to_string());
        }
        if holding.device == self.device() {
            // Said before this device lost its memory: the next word has to be newer.
            self.holding_floor = self.holding_floor.max(holding.number.saturating_add(1));
            return None;
        }
        self.tell_holding(&holding, Some(link), out);
        self.holdings.insert(holding.device, holding);
        None
    }

    /// A peer asks for our word, now.
    pub(super) fn take_sign_please(&mut self, link: LinkId, now: Timestamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if session.asked.is_some_and(|asked| now < asked.plus_ms(ASKED_EVERY_MS)) {
            return;
        }
        session.asked = Some(now);
        let asker = session.device;
        let told = self.sign_holding(now, out);
        if let Some(holding) = self.holdings.get(&self.device()).filter(|_| !told) {
            out.push(Output::Send(link, Message::Holding(Box::new(holding.clone())).to_frame()));
        }
        if self.is_relay(asker) || self.identity.certificate.role == Role::Relay {
            return;
        }
        // Whoever asks may not reach a relay that we reach.
        for (other, session) in &self.sessions {
            if *other != link && session.greeted && self.is_relay(session.device) {
                out.push(Output::Send(*other, Message::SignPlease.to_frame()));
            }
        }
    }

    /// Asks every peer for its word, now.
    pub(super) fn ask_holdings(&self, out: &mut Vec<Output>) {
        for (link, session) in &self.sessions {
            if session.greeted {
                out.push(Output::Send(*link, Message::SignPlease.to_frame()));
            }
        }
    }

    /// Somebody was met whose word we may have passed over: compares anew.
    pub(super) fn compare_if_met(&mut self, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.holdings_to_compare) {
            let links: Vec<LinkId> =
                self.sessions.iter().filter(|(_, session)| session.greeted).map(|(link, _)| *link).collect();
            for link in links {
                self.compare_holdings(link, true, out);
            }
        }
    }

    pub(super) fn is_relay(&self, device: DeviceId) -> bool {
        self.members.get(&device).is_some_and(|member| member.role == Role::Relay)
    }
}
