//! Forked journals: two histories signed by one device, as after an unnoticed copy of its
//! folder. Both are kept: the journal ends where they part, and each goes on as a branch of
//! its own, named by its first entry, so that every replica cuts in the same place.

use std::collections::BTreeMap;

use super::{LinkId, Output, Shop};
use crate::entry::Entry;
use crate::ids::{DeviceId, EntryHash, JournalId, RecordId};
use crate::journal::{Fork, Journal, JournalInfo};
use crate::rules::{Conflict, ConflictState, fork_id, forked};
use crate::sync::codec::Run;
use crate::sync::message::{BranchPoint, Checkpoints, Message};

/// How storage has to cut a forked journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The journal.
    pub journal: JournalId,
    /// Its last entry that the branches share; later ones move to the branch.
    pub keep_through: u64,
    /// The branch that our later entries become.
    pub branch: JournalInfo,
}

/// Our entries are being loaded, to find where a peer's part from them.
#[derive(Debug)]
pub(super) struct Comparison {
    link: Option<LinkId>,
    from: BranchPoint,
    theirs: Option<Run>,
}

impl Shop {
    /// Our copy of a journal and a peer's differ: says what we have, once a session.
    pub(super) fn ask_about_fork(&mut self, link: LinkId, id: JournalId, out: &mut Vec<Output>) {
        let Some(journal) = self.journals.get(&id) else { return };
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if !session.forks_asked.insert(id) {
            return;
        }
        let hashes = journal.checkpoints.iter().rev().map(|(seq, hash)| (*seq, hash.short())).collect();
        out.push(Output::Send(link, Message::Checkpoints(Checkpoints { journal: id, hashes }).to_frame()));
    }

    /// A peer's copy differs from ours: asks for its branch from the last entry that is known
    /// to be shared, and says so in turn.
    pub(super) fn take_checkpoints(&mut self, link: LinkId, theirs: &Checkpoints, out: &mut Vec<Output>) {
        let Some(journal) = self.journals.get(&theirs.journal) else { return };
        let shared =
            journal.checkpoints.iter().rev().copied().find(|(seq, hash)| theirs.hashes.contains(&(*seq, hash.short())));
        let Some((seq, hash)) = shared else { return };
        let point = BranchPoint { journal: theirs.journal, seq, hash };
        out.push(Output::Send(link, Message::SendBranch(point).to_frame()));
        self.ask_about_fork(link, theirs.journal, out);
    }

    /// Sends our entries after a shared one, to be compared.
    pub(super) fn send_branch(&mut self, link: LinkId, point: BranchPoint, out: &mut Vec<Output>) {
        let Some(journal) = self.journals.get(&point.journal) else { return };
        if journal.marked.0 <= point.seq {
            return;
        }
        if point.journal == self.own {
            self.given_out = self.given_out.max(journal.marked.0);
        }
        out.push(Output::SendRange {
            link,
            journal: point.journal,
            info: None,
            from: point.seq.saturating_add(1),
            through: journal.marked.0,
            branch: Some(point),
        });
    }

    /// A peer's entries after a shared one: loads ours, to find where they part.
    pub(super) fn take_branch(&mut self, link: LinkId, point: BranchPoint, run: Run, out: &mut Vec<Output>) {
        let Some(journal) = self.journals.get(&point.journal) else { return };
        let shared = Journal { high: point.seq, head: point.hash, ..journal.clone() };
        if run.journal != point.journal
            || run.start != point.seq.saturating_add(1)
            || shared.verify_run(&run.entries, &run.signature).is_err()
            || journal.high <= point.seq
            || self.is_closed(point.journal)
        {
            return;
        }
        self.comparing.insert(point.journal, Comparison { link: Some(link), from: point, theirs: Some(run) });
        out.push(Output::Load { journal: point.journal, from: point.seq.saturating_add(1) });
    }

    /// A peer told of a branch of a journal that we hold beyond the fork: ours is cut there too.
    pub(super) fn split_known(&mut self, base: JournalId, fork: Fork, out: &mut Vec<Output>) {
        let from = BranchPoint { journal: base, seq: fork.seq, hash: fork.hash };
        self.comparing.insert(base, Comparison { link: None, from, theirs: None });
        out.push(Output::Load { journal: base, from: fork.seq.saturating_add(1) });
    }

    /// Takes loaded entries if they were loaded for a comparison.
    pub(super) fn compare_loaded(&mut self, id: JournalId, from: u64, ours: &[Entry], out: &mut Vec<Output>) -> bool {
        if self.comparing.get(&id).is_none_or(|comparison| comparison.from.seq.saturating_add(1) != from) {
            return false;
        }
        let (Some(comparison), Some(journal)) = (self.comparing.remove(&id), self.journals.get(&id)) else {
            return false;
        };
        let business = journal.info.genesis.business;
        let author = journal.info.genesis.id();
        let mut previous = comparison.from.hash;
        let theirs = comparison.theirs.map(|run| run.entries);
        for (index, (seq, entry)) in (from..).zip(ours).enumerate() {
            let hash = entry.hash(business, author, seq, &previous);
            let parts = match &theirs {
                None => true,
                Some(entries) => match entries.get(index) {
                    Some(theirs) => theirs.hash(business, author, seq, &previous) != hash,
                    // No difference so far: goes on where this run ended.
                    None => {
                        if let Some(link) = comparison.link {
                            let point = BranchPoint { journal: id, seq: seq.saturating_sub(1), hash: previous };
                            out.push(Output::Send(link, Message::SendBranch(point).to_frame()));
                        }
                        return true;
                    }
                },
            };
            if parts {
                let fork = Fork { seq: seq.saturating_sub(1), hash: previous, first: hash };
                self.split(id, fork, out);
                return true;
            }
            previous = hash;
        }
        true
    }

    fn split(&mut self, id: JournalId, fork: Fork, out: &mut Vec<Output>) {
        let Some(journal) = self.journals.get(&id) else { return };
        let branch = JournalInfo { fork: Some(fork), ..journal.info.clone() };
        tracing::warn!(journal = %id, seq = fork.seq, "a journal has forked: both branches are kept");
        out.push(Output::Split(Split { journal: id, keep_through: fork.seq, branch }));
    }

    /// Where journals have forked, in the order of their ids: a person should look at their devices.
    #[must_use]
    pub fn fork_conflicts(&self) -> Vec<Conflict> {
        let mut forks: BTreeMap<RecordId, (DeviceId, Fork, Vec<JournalId>)> = BTreeMap::new();
        for (id, journal) in &self.journals {
            let Some(fork) = &journal.info.fork else { continue };
            let conflict = fork_id(journal.info.genesis.id(), fork);
            let device = journal.info.device();
            forks.entry(conflict).or_insert_with(|| (device, *fork, Vec::new())).2.push(*id);
        }
        let described = forks.into_iter().map(|(id, (device, fork, branches))| {
            let decision = self.books.decision(id).cloned();
            forked(id, device, &fork, &branches, decision.map_or(ConflictState::Open, ConflictState::Resolved))
        });
        described.collect()
    }

    /// The hash that precedes a journal's next entry, for tests of forks.
    #[must_use]
    pub fn head(&self, id: JournalId) -> Option<EntryHash> {
        self.journals.get(&id).map(|journal| journal.head)
    }
}
