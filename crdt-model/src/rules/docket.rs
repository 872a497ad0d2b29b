//! Which conflicts there are, and what people decided. A decision may arrive before its
//! conflict, and a conflict may go away and come back.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::{ConflictState, Decision, Subject};
use crate::books::Key;
use crate::ids::RecordId;

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct Docket {
    #[n(0)]
    present: BTreeMap<RecordId, Subject>,
    #[n(1)]
    decisions: BTreeMap<RecordId, BTreeMap<Key, Decision>>,
    /// Present and not decided.
    #[n(2)]
    open: BTreeSet<RecordId>,
}

impl Docket {
    /// Says whether there is a conflict about `subject`.
    pub(crate) fn set(&mut self, subject: Subject, present: bool) {
        let id = subject.id();
        if present {
            self.present.insert(id, subject);
        } else {
            self.present.remove(&id);
        }
        self.reopen(id);
    }

    pub(crate) fn decide(&mut self, conflict: RecordId, key: Key, decision: Decision) {
        self.decisions.entry(conflict).or_default().insert(key, decision);
        self.reopen(conflict);
    }

    pub(crate) fn undecide(&mut self, conflict: RecordId, key: Key) {
        if let Some(decisions) = self.decisions.get_mut(&conflict) {
            decisions.remove(&key);
            if decisions.is_empty() {
                self.decisions.remove(&conflict);
            }
        }
        self.reopen(conflict);
    }

    /// The latest decision about a conflict, whether or not it is known here.
    pub(crate) fn decision(&self, conflict: RecordId) -> Option<&Decision> {
        self.decisions.get(&conflict)?.last_key_value().map(|(_, decision)| decision)
    }

    /// Every decision about a conflict, the earliest first.
    pub(crate) fn decisions(&self, conflict: RecordId) -> impl Iterator<Item = (Key, &Decision)> {
        self.decisions.get(&conflict).into_iter().flatten().map(|(key, decision)| (*key, decision))
    }

    pub(crate) fn state(&self, conflict: RecordId) -> ConflictState {
        self.decision(conflict).cloned().map_or(ConflictState::Open, ConflictState::Resolved)
    }

    pub(crate) fn subject(&self, conflict: RecordId) -> Option<&Subject> {
        self.present.get(&conflict)
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = (RecordId, &Subject)> {
        self.present.iter().map(|(id, subject)| (*id, subject))
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = (RecordId, &Subject)> {
        self.open.iter().filter_map(|id| Some((*id, self.present.get(id)?)))
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    fn reopen(&mut self, id: RecordId) {
        if self.present.contains_key(&id) && !self.decisions.contains_key(&id) {
            self.open.insert(id);
        } else {
            self.open.remove(&id);
        }
    }
}
