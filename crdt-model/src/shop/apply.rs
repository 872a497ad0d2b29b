//! Store, then apply: stored entries reach the books and documents once what they build on
//! has, whatever the order of arrival.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::lazy::LazyDocument;
use super::{Change, LOAD_ENTRIES_MAX, Output, Shop};
use crate::books::{BodyDigest, Followup, Placed};
use crate::document::{DocumentId, SharedDocument, Verified};
use crate::entry::{Body, Entry, EntryError, Place};
use crate::ids::{EntryHash, JournalId, RecordId};
use crate::record::{Fact, PaymentFact};
use crate::sync::arrival::ReadBody;
use crate::time::{Day, Timestamp};

/// The keys that changed, by document.
pub(super) type Touched = Vec<(DocumentId, BTreeSet<String>)>;

/// What came of trying to apply an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is in the books, or in quarantine.
    Done,
    /// It builds on an entry that is not applied yet.
    Blocked,
}

impl Shop {
    /// Applies the next unapplied entry of a journal, whole or not at all.
    pub(super) fn apply(
        &mut self,
        place: Place,
        hash: EntryHash,
        entry: &Entry,
        read: ReadBody,
        out: &mut Vec<Output>,
    ) -> Applied {
        if !entry.after.iter().all(|after| self.has_applied(after.place)) {
            self.blocked.insert(place.journal);
            return Applied::Blocked;
        }
        self.blocked.remove(&place.journal);
        if let Some(journal) = self.journals.get_mut(&place.journal) {
            journal.applied = place.seq;
        }
        let ReadBody { body, digests } = read;
        match self.apply_changes(place, hash, entry, body) {
            Ok((body, touched)) => {
                self.fold(place, entry, &body, &digests, out);
                self.note_touched(touched, out);
            }
            Err(reason) => {
                self.note_page(place, entry, 0);
                self.quarantine.insert(place, reason);
                out.push(Output::Changed(Change::Quarantined { place }));
            }
        }
        Applied::Done
    }

    pub(super) fn has_applied(&self, place: Place) -> bool {
        let applied = |id: JournalId| self.journals.get(&id).is_some_and(|journal| journal.applied >= place.seq);
        // Behind a fork, the entry may have moved to a branch.
        applied(place.journal)
            || self.branches_of(place.journal).any(|branch| branch.applied >= place.seq && branch.base < place.seq)
    }

    /// Applies the changes to shared documents, all or none.
    fn apply_changes(
        &mut self,
        place: Place,
        hash: EntryHash,
        entry: &Entry,
        body: Result<Body, EntryError>,
    ) -> Result<(Body, Touched), String> {
        let mut body = body.map_err(|error| error.to_string())?;
        if body.changes.is_empty() {
            return Ok((body, Vec::new()));
        }
        let Some(journal) = self.journals.get(&place.journal) else { return Err("unknown journal".to_owned()) };
        if journal.info.fork.is_some() {
            // Two branches use one Automerge actor, so neither may edit: every replica has to
            // leave out the same changes.
            body.changes.clear();
            return Ok((body, Vec::new()));
        }
        let actor = journal.info.genesis.id();
        let mut verified = Vec::with_capacity(body.changes.len());
        for change in &body.changes {
            let id = change.document;
            id.check().map_err(|error| error.to_string())?;
            let document = self.document_mut(id);
            let first = document.first();
            let checked = document.check(actor, &change.bytes).map_err(|error| error.to_string())?;
            self.check_builds_on(place, entry, id, first, &checked)?;
            verified.push((id, checked));
        }
        let mut touched = Vec::with_capacity(verified.len());
        for (id, change) in verified {
            let keys = self.document_mut(id).apply_verified(change).map_err(|error| error.to_string())?;
            touched.push((id, keys));
        }
        self.note_authors(place, hash, &body);
        Ok((body, touched))
    }

    fn document_mut(&mut self, id: DocumentId) -> &mut SharedDocument {
        self.documents.entry(id).or_insert_with(|| LazyDocument::live(SharedDocument::new(id))).shared_mut()
    }

    /// A change may build only on changes of its own journal and of the entries that its entry
    /// names; otherwise it would depend on the order of arrival whether it can be applied.
    fn check_builds_on(
        &self,
        place: Place,
        entry: &Entry,
        id: DocumentId,
        first: [u8; 32],
        change: &Verified,
    ) -> Result<(), String> {
        let authors = self.authors.get(&id);
        for hash in change.builds_on().filter(|hash| *hash != first) {
            let author = authors.and_then(|authors| authors.get(&hash)).map(|(place, _)| *place);
            let named = author.is_some_and(|author| {
                author.journal == place.journal
                    || entry
                        .after
                        .iter()
                        .any(|after| after.place.journal == author.journal && after.place.seq >= author.seq)
            });
            if !named {
                return Err(format!("it changes {id} after a change that it does not name"));
            }
        }
        Ok(())
    }

    /// Remembers which entry made a document's latest changes, for edits that build on them.
    pub(super) fn note_authors(&mut self, place: Place, hash: EntryHash, body: &Body) {
        for id in body.documents() {
            let Some(document) = self.documents.get(&id).map(LazyDocument::shared) else { continue };
            let first = document.first();
            let authors = self.authors.entry(id).or_default();
            for head in document.heads().into_iter().filter(|head| *head != first) {
                authors.entry(head).or_insert((place, hash));
            }
        }
    }

    /// Folds an entry's facts into the books.
    pub(super) fn fold(
        &mut self,
        place: Place,
        entry: &Entry,
        body: &Body,
        digests: &[BodyDigest],
        out: &mut Vec<Output>,
    ) {
        self.note_page(place, entry, u32::try_from(body.facts.len()).unwrap_or(u32::MAX));
        let mut recounts = Vec::new();
        let facts = self.resettled(place, &body.facts);
        // A fact that has moved to a branch is another one.
        let digests = if matches!(facts, Cow::Borrowed(_)) { digests } else { &[] };
        for mut placed in self.placed(place, entry, &facts) {
            placed.digest = digests.get(placed.index as usize).copied();
            recounts.extend(self.books.fold(&placed));
            out.push(Output::Changed(Change::Fact {
                kind: placed.fact.kind(),
                record: placed.id,
                device: placed.device,
            }));
        }
        for fact in &body.facts {
            if let Fact::Enrolment(certificate) = fact
                && certificate.verify(&self.identity.genesis).is_ok()
            {
                self.members.insert(certificate.device, certificate.clone());
                self.holdings_to_compare = true;
            }
        }
        self.fetch_for(recounts, out);
    }

    /// Asks for the facts that the books need to count records anew.
    pub(super) fn fetch_for(&self, recounts: Vec<Followup>, out: &mut Vec<Output>) {
        let mut wanted: Vec<Place> =
            recounts.into_iter().flat_map(|Followup::Recount { old, new }| [old.0, new.0]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if !wanted.is_empty() {
            out.push(Output::Fetch(wanted));
        }
    }

    /// In a branch of a forked journal a record without a client id has another id than its author
    /// knew, or two sales would have one. What its own entry says of it follows.
    fn resettled<'f>(&self, place: Place, facts: &'f [Fact]) -> Cow<'f, [Fact]> {
        let Some(journal) = self.journals.get(&place.journal).filter(|journal| journal.info.fork.is_some()) else {
            return Cow::Borrowed(facts);
        };
        let (business, author) = (self.business(), journal.info.genesis.id());
        let moved: Vec<(RecordId, RecordId)> = (0..)
            .zip(facts)
            .map(|(index, fact)| {
                let known = fact.record_id(business, author, place.seq, index);
                (known, fact.record_id(business, place.journal, place.seq, index))
            })
            .collect();
        let follow = |mut fact: Fact| {
            if let Fact::Intent(intent) = &mut fact
                && let Some((sale, _)) = &mut intent.sale
                && let Some((_, now)) = moved.iter().find(|(known, _)| known == sale)
            {
                *sale = *now;
            }
            fact
        };
        Cow::Owned(facts.iter().cloned().map(follow).collect())
    }

    /// An entry's facts as the books see them.
    #[must_use]
    pub fn placed<'a>(&self, place: Place, entry: &Entry, facts: &'a [Fact]) -> Vec<Placed<'a>> {
        let Some(journal) = self.journals.get(&place.journal) else { return Vec::new() };
        let offset = self.identity.genesis.utc_offset_minutes;
        (0..)
            .zip(facts)
            // Whoever wrote it, an owner's word counts only with an owner's signature.
            .filter(|(_, fact)| !self.is_unsigned_move(fact))
            .map(|(index, fact)| Placed {
                place,
                index,
                id: fact.record_id(self.business(), place.journal, place.seq, index),
                time: entry.time,
                day: fact.occurred().map_or(entry.page.day, |at| Day::of(at, offset)),
                device: journal.info.device(),
                branch: journal.info.fork.is_some(),
                fact,
                digest: None,
            })
            .collect()
    }

    fn is_unsigned_move(&self, fact: &Fact) -> bool {
        matches!(fact, Fact::Payment(PaymentFact::Moved(moved)) if !moved.is_signed(&self.identity.genesis))
    }

    fn note_page(&mut self, place: Place, entry: &Entry, facts: u32) {
        let span = self.pages.entry((place.journal, entry.page.ordinal)).or_insert(super::PageSpan {
            day: entry.page.day,
            first: place.seq,
            last: place.seq,
            facts: 0,
        });
        span.last = place.seq;
        span.facts = span.facts.saturating_add(facts);
    }

    /// Keeps the list of conflicting fields, and tells who is looking.
    pub(super) fn note_touched(&mut self, touched: Touched, out: &mut Vec<Output>) {
        for (id, keys) in touched {
            self.relist(id, &keys);
            let Some(document) = self.documents.get(&id).map(LazyDocument::shared) else { continue };
            for key in &keys {
                let field = (id, key.clone());
                if document.conflicted(key) {
                    self.field_conflicts.insert(field);
                } else {
                    self.field_conflicts.remove(&field);
                }
            }
            out.push(Output::Changed(Change::Document { document: id, keys: keys.into_iter().collect() }));
        }
    }

    /// Entries of one journal that storage gave: after a start, or because they were blocked.
    pub(super) fn loaded(
        &mut self,
        id: JournalId,
        from: u64,
        entries: Vec<Entry>,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        if self.compare_loaded(id, from, &entries, out) {
            return;
        }
        self.loading.remove(&id);
        let full = entries.len() >= LOAD_ENTRIES_MAX;
        let last = entries.last().filter(|_| !full).cloned();
        let before = self.journals.get(&id).map_or(0, |journal| journal.applied);
        let blocked = self.apply_loaded(id, from, entries, now, out) == Applied::Blocked;
        if let Some(last) = last {
            self.sign_again(id, last, out);
        }
        let Some(journal) = self.journals.get(&id) else { return };
        let progress = journal.applied > before;
        if full && !blocked {
            self.load(id, out);
        }
        if progress {
            self.unblock(out);
        }
    }

    fn apply_loaded(
        &mut self,
        id: JournalId,
        from: u64,
        entries: Vec<Entry>,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Applied {
        for (seq, entry) in (from..).zip(entries) {
            let Some(journal) = self.journals.get_mut(&id) else { break };
            let hash = journal.next_hash(&entry);
            if seq == journal.high.saturating_add(1) {
                journal.advance(hash, &entry);
                self.clock.observe(entry.time, now);
            }
            if self.journals.get(&id).is_none_or(|journal| seq != journal.applied.saturating_add(1)) {
                continue;
            }
            let place = Place { journal: id, seq };
            if self.apply(place, entry.mark.map_or(hash, |mark| mark.hash), &entry, ReadBody::of(&entry), out)
                == Applied::Blocked
            {
                return Applied::Blocked;
            }
        }
        Applied::Done
    }

    /// Asks for the unapplied entries of a journal.
    pub(super) fn load(&mut self, id: JournalId, out: &mut Vec<Output>) {
        if let Some(journal) = self.journals.get(&id)
            && self.loading.insert(id)
        {
            out.push(Output::Load { journal: id, from: journal.applied.saturating_add(1) });
        }
    }

    /// Tries again the journals that waited for others.
    pub(super) fn unblock(&mut self, out: &mut Vec<Output>) {
        for id in std::mem::take(&mut self.blocked) {
            self.load(id, out);
        }
    }

    /// Facts that have to be counted anew, because an earlier copy of a record arrived later.
    pub(super) fn fetched(&mut self, entries: Vec<(Place, Entry)>, out: &mut Vec<Output>) {
        let mut all = Vec::new();
        for (place, entry) in &entries {
            if let Ok(body) = entry.body() {
                let facts = self.resettled(*place, &body.facts).into_owned();
                all.push((*place, entry, facts));
            }
        }
        let placed: Vec<Placed<'_>> =
            all.iter().flat_map(|(place, entry, facts)| self.placed(*place, entry, facts)).collect();
        let again = self.books.recount(&placed);
        self.fetch_for(again, out);
    }
}
