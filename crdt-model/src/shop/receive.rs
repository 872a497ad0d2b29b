//! What other devices say.

use std::borrow::Cow;

use super::{Arrival, Change, LinkId, LinkKind, Output, Shop, StoredEntry};
use crate::entry::Place;
use crate::frontier::FrontierRow;
use crate::ids::{DeviceId, EntryHash, JournalId};
use crate::journal::{Journal, JournalError};
use crate::shop::apply::Applied;
use crate::sync::arrival::{Prepared, prepare_run};
use crate::sync::codec::Run;
use crate::sync::compact::{Compact, JournalRef};
use crate::sync::message::{Asking, Bye, ByeCode, FRONTIER_ROWS_AT_ONCE, Hello, Message, PROTOCOL_VERSION};
use crate::sync::packed::PackedRun;
use crate::sync::session::Session;
use crate::time::Timestamp;

/// What came with a run.
struct Brought {
    prepared: Vec<Prepared>,
    /// The run as it came, if it is to be stored in one piece.
    block: Option<Vec<u8>>,
}

impl Shop {
    pub(super) fn link_up(
        &mut self,
        link: LinkId,
        device: DeviceId,
        kind: LinkKind,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        self.sessions.insert(link, Session::new(device, kind, now));
        let hello = Hello {
            version: PROTOCOL_VERSION,
            business: self.business(),
            certificate: self.identity.certificate.clone(),
        };
        out.push(Output::Send(link, Message::Hello(hello).to_frame()));
    }

    pub(super) fn link_down(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.remove(&link) else { return };
        if session.greeted {
            out.push(Output::Changed(Change::Peer { device: session.device, up: false }));
        }
        self.bringing.retain(|_, (bringer, _)| *bringer != link);
        self.ask_spared(out);
    }

    pub(super) fn received(&mut self, link: LinkId, frame: &[u8], now: Timestamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&link) else { return };
        if !session.greeted && !Message::is_greeting(frame) {
            return self.part(link, ByeCode::Protocol, "the first message must be a hello", out);
        }
        self.arrived(link, Arrival::read(frame), now, out);
    }

    pub(super) fn arrived(&mut self, link: LinkId, mut arrival: Arrival, now: Timestamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&link) else { return };
        let message = match arrival.message {
            Ok(message) => message,
            Err(error) => return self.part(link, ByeCode::Protocol, &error.to_string(), out),
        };
        if let Message::Hello(hello) = message {
            return self.greet(link, &hello, now, out);
        }
        if let Message::Bye(bye) = message {
            out.push(Output::Refuse(link, bye.reason));
            return;
        }
        if !session.greeted {
            return self.part(link, ByeCode::Protocol, "the first message must be a hello", out);
        }
        let device = session.device;
        self.known.entry(device).or_default().heard = now;
        match message {
            Message::Frontier(asking) => self.take_frontier(link, device, asking, out),
            Message::Have(rows) => self.take_have(link, device, &rows, out),
            Message::Entries(runs) => {
                for (run, prepared) in runs.into_iter().zip(arrival.prepared) {
                    self.take_run(link, run, Brought { prepared, block: arrival.block.take() }, now, out);
                }
            }
            Message::Compact(compact) => self.take_compact(link, device, &compact, now, out),
            Message::Checkpoints(checkpoints) => self.take_checkpoints(link, &checkpoints, out),
            Message::SendBranch(point) => self.send_branch(link, point, out),
            Message::Branch(point, run) => self.take_branch(link, point, *run, out),
            Message::Holding(holding) => {
                if let Some(reason) = self.take_holding(link, *holding, out) {
                    self.part(link, ByeCode::Protocol, &reason, out);
                }
            }
            Message::HoldingsKnown(known) => self.take_holdings_known(link, &known, out),
            Message::SignPlease => self.take_sign_please(link, now, out),
            Message::Hello(_) | Message::Bye(_) => {}
        }
    }

    fn part(&mut self, link: LinkId, code: ByeCode, reason: &str, out: &mut Vec<Output>) {
        let bye = Bye { code, reason: reason.to_owned() };
        out.push(Output::Send(link, Message::Bye(bye).to_frame()));
        out.push(Output::Refuse(link, reason.to_owned()));
    }

    /// Checks who is there. Nothing of the business is said before that.
    fn greet(&mut self, link: LinkId, hello: &Hello, now: Timestamp, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if hello.version != PROTOCOL_VERSION {
            let reason = format!(
                "this device speaks protocol version {PROTOCOL_VERSION}, the other {}: update the older one",
                hello.version
            );
            return self.part(link, ByeCode::Version, &reason, out);
        }
        if hello.certificate.device != session.device {
            return self.part(link, ByeCode::NotEnrolled, "the certificate is another device's", out);
        }
        if let Err(error) = hello.certificate.verify(&self.identity.genesis) {
            return self.part(link, ByeCode::NotEnrolled, &error.to_string(), out);
        }
        session.greeted = true;
        let device = session.device;
        self.members.entry(device).or_insert_with(|| hello.certificate.clone());
        self.known.entry(device).or_default().heard = now;
        out.push(Output::Greeted(link));
        out.push(Output::Changed(Change::Peer { device, up: true }));
        self.send_frontier(link, false, out);
        if !self.holdings.is_empty() {
            self.compare_holdings(link, false, out);
        }
        self.owe_if_unsigned(now, out);
    }

    /// Tells a peer what we hold, so that it sends what we lack.
    pub(super) fn send_frontier(&mut self, link: LinkId, whole: bool, out: &mut Vec<Output>) {
        let frontier = self.frontier();
        let skip: Vec<JournalId> =
            self.bringing.iter().filter(|(_, (bringer, _))| *bringer != link).map(|(id, _)| *id).collect();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.spared = skip.iter().copied().collect();
        let digest = frontier.digest();
        let rows = (whole || frontier.0.len() <= FRONTIER_ROWS_AT_ONCE).then_some(frontier);
        session.frontier_sent |= rows.is_some();
        out.push(Output::Send(link, Message::Frontier(Asking { digest, frontier: rows, skip }).to_frame()));
    }

    fn take_frontier(&mut self, link: LinkId, device: DeviceId, asking: Asking, out: &mut Vec<Output>) {
        let ours = self.frontier();
        let frontier = match asking.frontier {
            Some(frontier) => frontier,
            None if asking.digest == ours.digest() => ours,
            None => return self.send_frontier(link, true, out),
        };
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.inform(&frontier.0, asking.skip);
        if !session.frontier_sent {
            self.send_frontier(link, true, out);
        }
        for row in &frontier.0 {
            self.known.entry(device).or_default().holds.insert(row.journal, row.high);
            self.compare_row(link, row, out);
        }
        self.roll_if_outrun(out);
        self.pump(link, out);
    }

    /// Notes who brings what we lack, and asks about a fork where equal lengths differ.
    fn compare_row(&mut self, link: LinkId, theirs: &FrontierRow, out: &mut Vec<Output>) {
        let ours = self.journals.get(&theirs.journal);
        let high = ours.map_or(0, |journal| journal.high);
        let spared = self.sessions.get(&link).is_some_and(|session| session.spared.contains(&theirs.journal));
        if theirs.high > high && !spared {
            self.bringing.entry(theirs.journal).or_insert((link, theirs.high));
        }
        if ours.is_some_and(|journal| journal.marked.0 == theirs.high && journal.marked.1.short() != theirs.hash) {
            self.ask_about_fork(link, theirs.journal, out);
        }
    }

    /// A peer holds more of our own journal than we do: this device was restored from an older
    /// state. We take the entries back like anybody's, and write on in a new epoch.
    fn roll_if_outrun(&mut self, out: &mut Vec<Output>) {
        let own = self.own;
        let high = self.journals.get(&own).map_or(0, |journal| journal.high);
        let outrun = self
            .sessions
            .values()
            .filter(|session| session.greeted)
            .any(|session| session.sent.get(&own).is_some_and(|theirs| *theirs > high));
        if outrun {
            drop(self.stage_signed(out));
            self.begin_epoch(out);
        }
    }

    fn take_have(&mut self, link: LinkId, device: DeviceId, rows: &[(JournalRef, u64)], out: &mut Vec<Output>) {
        for (named, high) in rows {
            // What is not known here can't be sent either.
            let Some(journal) = self.journal_meant(*named, self.device()) else { continue };
            let holds = self.known.entry(device).or_default().holds.entry(journal).or_insert(0);
            *holds = (*holds).max(*high);
            if let Some(session) = self.sessions.get_mut(&link) {
                session.holds(Place { journal, seq: *high });
            }
        }
        self.pump(link, out);
    }

    /// Reads a compact run if it follows what is held.
    fn take_compact(
        &mut self,
        link: LinkId,
        device: DeviceId,
        compact: &Compact,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        let meant = self.journal_meant(compact.journal, device).and_then(|id| self.journals.get(&id));
        let Some(journal) = meant else { return self.send_frontier(link, true, out) };
        let (id, last) = (journal.id(), compact.last_after(journal.high));
        if last <= journal.high {
            if let Some(session) = self.sessions.get_mut(&link) {
                session.holds(Place { journal: id, seq: last });
            }
            return;
        }
        let entries = match compact.unpack(&journal.tail) {
            Ok(entries) => entries,
            // Read after another entry than it was written after, anything may come out.
            Err(error) => {
                tracing::debug!(%error, "a compact run does not follow what is held");
                return self.send_frontier(link, true, out);
            }
        };
        let start = last.saturating_sub(entries.len() as u64).saturating_add(1);
        if start != journal.high.saturating_add(1) {
            return self.send_frontier(link, true, out);
        }
        let run = Run { journal: id, info: None, start, entries, signature: compact.signature };
        let prepared = prepare_run(&run);
        self.take_run(link, run, Brought { prepared, block: None }, now, out);
    }

    /// Verifies a run, stores it, and applies what can be applied.
    fn take_run(&mut self, link: LinkId, run: Run, brought: Brought, now: Timestamp, out: &mut Vec<Output>) {
        let id = run.journal;
        if let Some(reason) = self.meet_journal(&run, out) {
            return self.part(link, ByeCode::Protocol, &reason, out);
        }
        let Some(journal) = self.journals.get(&id) else {
            // It knows a journal that it didn't introduce: start over.
            return self.send_frontier(link, true, out);
        };
        let last = run.start.saturating_add(run.entries.len() as u64).saturating_sub(1);
        // What a peer still holds above a known fork comes by the branch, once the peer has cut.
        let beyond_fork = self.forked_at(id).is_some_and(|seq| last > seq);
        if last <= journal.high || beyond_fork {
            if let Some(session) = self.sessions.get_mut(&link) {
                session.holds(Place { journal: id, seq: last });
            }
            return;
        }
        if run.start != journal.high.saturating_add(1) {
            return self.send_frontier(link, true, out);
        }
        if let Some(error) = run.entries.iter().find_map(|entry| entry.check_limits().err()) {
            return self.part(link, ByeCode::Protocol, &error.to_string(), out);
        }
        let parts = brought.prepared.iter().map(|prepared| Cow::Borrowed(prepared.part_hashes.as_slice()));
        let hashes = match journal.verify_chain(run.entries.iter().zip(parts), &run.signature) {
            Ok(hashes) => hashes,
            Err(JournalError::BrokenChain) => return self.ask_about_fork(link, id, out),
            Err(error) => return self.part(link, ByeCode::Protocol, &error.to_string(), out),
        };
        self.store_run(link, run, brought, &hashes, now, out);
        self.unblock(out);
    }

    fn store_run(
        &mut self,
        link: LinkId,
        run: Run,
        brought: Brought,
        hashes: &[EntryHash],
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        let id = run.journal;
        let count = run.entries.len();
        let (first, last) = (run.start, run.start.saturating_add(count as u64).saturating_sub(1));
        let block = brought.block.zip(hashes.last()).map(|(block, head)| (block, *head));
        let mut blocked = self.journals.get(&id).is_some_and(|journal| journal.applied < journal.high);
        let entries = run.entries.into_iter().zip(brought.prepared).zip(hashes);
        for (index, ((mut entry, prepared), hash)) in entries.enumerate() {
            if index + 1 == count {
                entry.mark = Some(crate::entry::Mark { hash: *hash, signature: run.signature });
            }
            let Some(journal) = self.journals.get_mut(&id) else { return };
            journal.advance(*hash, &entry);
            let place = Place { journal: id, seq: journal.high };
            self.clock.observe(entry.time, now);
            if !blocked {
                blocked = self.apply(place, *hash, &entry, prepared.read, out) == Applied::Blocked;
            }
            if block.is_none() {
                self.staged.push(StoredEntry { place, bytes: entry.to_bytes() });
            }
        }
        if let Some((block, head)) = block {
            self.staged_runs.push(PackedRun { journal: id, first, last, head, block });
        }
        if blocked {
            self.blocked.insert(id);
        }
        self.staged_from_peers = true;
        self.advanced.insert(id, Some(link));
        let high = self.journals.get(&id).map_or(0, |journal| journal.high);
        if let Some(session) = self.sessions.get_mut(&link) {
            session.received += count as u64;
            session.holds(Place { journal: id, seq: high });
            self.known.entry(session.device).or_default().holds.insert(id, high);
        }
        if self.bringing.get(&id).is_some_and(|(_, wanted)| high >= *wanted) {
            self.bringing.remove(&id);
            self.ask_spared(out);
        }
    }

    /// Learns a journal from the run that introduces it.
    fn meet_journal(&mut self, run: &Run, out: &mut Vec<Output>) -> Option<String> {
        let Some(info) = &run.info else { return None };
        if self.journals.contains_key(&run.journal) {
            return None;
        }
        if info.id() != run.journal {
            return Some("a journal is introduced under another's id".to_owned());
        }
        if let Err(error) = info.verify(&self.identity.genesis) {
            return Some(error.to_string());
        }
        if let Some(fork) = info.fork {
            let base = info.genesis.id();
            if self.journals.get(&base).is_some_and(|journal| journal.high > fork.seq) {
                self.split_known(base, fork, out);
            }
        }
        self.members.entry(info.device()).or_insert_with(|| info.certificate.clone());
        self.holdings_to_compare = true;
        self.journals.insert(run.journal, Journal::new(info.clone()));
        out.push(Output::Begun(info.clone()));
        None
    }

    /// Asks for journals that were to come by a link that is gone or done.
    pub(super) fn ask_spared(&mut self, out: &mut Vec<Output>) {
        let links: Vec<LinkId> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                session.greeted && session.spared.iter().any(|journal| !self.bringing.contains_key(journal))
            })
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.send_frontier(link, true, out);
        }
    }
}
