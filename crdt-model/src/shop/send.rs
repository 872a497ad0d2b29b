//! What goes out: the group's entries to storage, new entries to every link that lacks them,
//! and stored ones to those that are further behind.

use std::collections::BTreeMap;

use super::{LinkId, Output, Shop};
use crate::entry::{Entry, Part, Place};
use crate::ids::{DeviceId, EntryHash, JournalId, domain_hash};
use crate::journal::Journal;
use crate::sync::codec::{RUN_BYTES_SOFT, RUN_ENTRIES_MAX, Run};
use crate::sync::compact::{Compact, JournalRef};
use crate::sync::message::Message;
use crate::time::Timestamp;

/// Forwarders wait so long at least, so that the author's own link can be first…
const FORWARD_MS_MIN: u64 = 15;
/// …and a different while longer each, so that not all carry on at once.
const FORWARD_MS_SPREAD: u64 = 30;

impl Shop {
    /// Ends a group.
    pub(super) fn seal(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.settle_handoffs(now, out);
        self.take_cash(now, out);
        let own = self.stage_signed(out);
        let advanced = std::mem::take(&mut self.advanced);
        self.acknowledge(&advanced, out);
        self.push_own(&own, out);
        let from_peers = advanced.values().any(Option::is_some);
        if from_peers {
            self.owe_holding(now, out);
        }
        self.compare_if_met(out);
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            if from_peers {
                self.carry_on_later(link, now, out);
            }
        }
    }

    /// Tells every peer what has become durable here.
    fn acknowledge(&mut self, advanced: &BTreeMap<JournalId, Option<LinkId>>, out: &mut Vec<Output>) {
        let rows: Vec<(&Journal, u64)> = advanced
            .iter()
            .filter(|(_, link)| link.is_some())
            .filter_map(|(id, _)| self.journals.get(id).map(|journal| (journal, journal.marked.0)))
            .collect();
        if rows.is_empty() {
            return;
        }
        for (link, session) in &self.sessions {
            if session.greeted && session.informed {
                let named = match rows.as_slice() {
                    [(journal, high)] => vec![(self.journal_ref(journal, session.device), *high)],
                    _ => rows.iter().map(|(journal, high)| (JournalRef::any(journal.id()), *high)).collect(),
                };
                out.push(Output::Send(*link, Message::Have(named).to_frame()));
            }
        }
    }

    /// The shortest name of a journal on a link one end of which is `device`.
    fn journal_ref(&self, journal: &Journal, device: DeviceId) -> JournalRef {
        let short = JournalRef::of_end(journal.id());
        let theirs = journal.info.device() == device && self.journal_meant(short, device) == Some(journal.id());
        if theirs { short } else { JournalRef::any(journal.id()) }
    }

    /// The one journal that a short message means; `device` is the end whose journals a short
    /// name chooses from.
    pub(super) fn journal_meant(&self, named: JournalRef, device: DeviceId) -> Option<JournalId> {
        let mut fitting = self.journals.values().filter(|journal| {
            named.fits(journal.id()) && (matches!(named, JournalRef::Any(_)) || journal.info.device() == device)
        });
        let found = fitting.next()?.id();
        fitting.next().is_none().then_some(found)
    }

    /// Sends our group from memory to every link that holds all before it, and lets storage
    /// serve the others.
    fn push_own(&mut self, own: &[(u64, EntryHash, Entry)], out: &mut Vec<Output>) {
        let Some((first, _, _)) = own.first() else { return };
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        let before_first = self.journals.get(&self.own).map_or(0, |journal| journal.info.before_first().0);
        let bytes: usize = own.iter().flat_map(|(_, _, entry)| &entry.parts).map(Part::size_bytes).sum();
        let small = own.len() <= RUN_ENTRIES_MAX && bytes <= RUN_BYTES_SOFT;
        let mut frames: BTreeMap<bool, Vec<u8>> = BTreeMap::new();
        for link in links {
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            let ready = session.takes(self.own)
                && session.sending != Some(self.own)
                && session.sent(self.own, before_first) + 1 == *first;
            if !ready || !small {
                self.pump(link, out);
                continue;
            }
            let introduce = !session.told.contains(&self.own);
            if let Some((last, _, _)) = own.last() {
                session.holds(Place { journal: self.own, seq: *last });
                self.given_out = self.given_out.max(*last);
            }
            let frame = match frames.get(&introduce) {
                Some(frame) => frame.clone(),
                None => match self.run_of(own, introduce) {
                    Some(run) => self.live_frame(run),
                    None => continue,
                },
            };
            frames.insert(introduce, frame.clone());
            out.push(Output::Send(link, frame));
        }
    }

    /// A group as a compact run if it is small, else as a block.
    fn live_frame(&self, run: Run) -> Vec<u8> {
        let named = JournalRef::of_end(run.journal);
        let short = (self.journal_meant(named, self.device()) == Some(run.journal))
            .then(|| Compact::of(&run, &self.sealed_tail, named))
            .flatten();
        match short {
            Some(compact) => Message::Compact(compact).to_frame(),
            None => Message::Entries(vec![run]).to_frame(),
        }
    }

    fn run_of(&self, own: &[(u64, EntryHash, Entry)], introduce: bool) -> Option<Run> {
        let (start, _, _) = own.first()?;
        let signature = own.last()?.2.mark?.signature;
        let info = self.journals.get(&self.own)?.info.clone();
        let entries = own.iter().map(|(_, _, entry)| Entry { mark: None, ..entry.clone() }).collect();
        Some(Run { journal: self.own, info: introduce.then_some(info), start: *start, entries, signature })
    }

    /// Sends the most urgent stored entries that a peer lacks, one range at a time.
    pub(super) fn pump(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&link) else { return };
        if session.sending.is_some() {
            return;
        }
        let next = self
            .journals
            .iter()
            .filter(|(id, _)| session.takes(**id))
            .filter_map(|(id, journal)| {
                let sent = session.sent(*id, journal.info.before_first().0);
                // A peer that lacks what we don't hold ourselves has to ask another.
                (sent < journal.marked.0 && sent >= journal.base).then_some((self.urgency(*id), *id, sent))
            })
            .min();
        let Some((_, id, sent)) = next else { return };
        let Some(journal) = self.journals.get(&id) else { return };
        let through = journal.marked.0;
        let info = (!session.told.contains(&id)).then(|| journal.info.clone());
        if let Some(session) = self.sessions.get_mut(&link) {
            session.sending = Some(id);
        }
        if id == self.own {
            self.given_out = self.given_out.max(through);
        }
        out.push(Output::SendRange { link, journal: id, info, from: sent.saturating_add(1), through, branch: None });
    }

    /// Receipts and revocations first, then journals with open intents, then the rest.
    fn urgency(&self, journal: JournalId) -> u8 {
        let Some(device) = self.journals.get(&journal).map(|journal| journal.info.device()) else { return 3 };
        let is_relay = self.members.get(&device).is_some_and(|member| member.role == crate::record::Role::Relay);
        match (is_relay, self.books.has_open_intents(device)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    pub(super) fn range_sent(&mut self, link: LinkId, journal: JournalId, through: u64, out: &mut Vec<Output>) {
        if let Some(session) = self.sessions.get_mut(&link) {
            if session.sending == Some(journal) {
                session.sending = None;
            }
            session.holds(Place { journal, seq: through });
        }
        self.pump(link, out);
    }

    /// Entries from elsewhere are carried on after a short wait, unless the peer says in the
    /// meantime that it has them.
    fn carry_on_later(&mut self, link: LinkId, now: Timestamp, out: &mut Vec<Output>) {
        let device = self.device();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if !session.greeted || session.forward_at.is_some() {
            return;
        }
        let hash = domain_hash("tillmesh 2026 forward jitter", &[&device.0, &session.device.0, &now.0.to_le_bytes()]);
        let spread = u64::from(hash.first().copied().unwrap_or(0)) * FORWARD_MS_SPREAD / 256;
        let at = now.plus_ms(FORWARD_MS_MIN + spread);
        session.forward_at = Some(at);
        out.push(Output::WakeAt(at));
    }

    pub(super) fn tick(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let due: Vec<LinkId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.forward_at.is_some_and(|at| at <= now))
            .map(|(link, _)| *link)
            .collect();
        for link in due {
            if let Some(session) = self.sessions.get_mut(&link) {
                session.forward_at = None;
            }
            self.pump(link, out);
        }
        self.sign_if_due(now, out);
        self.address_intents(now, out);
    }
}
