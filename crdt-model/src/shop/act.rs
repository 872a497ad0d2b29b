//! What the till's own app does: one operation becomes one entry of our journal.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::Touched;
use super::handoff::HandoffError;
use super::lazy::LazyDocument;
use super::{Output, Shop, StoredEntry};
use crate::books::fact_digests;
use crate::document::{DocumentChange, DocumentId, EditError, FieldEdit, SharedDocument, field_key};
use crate::entry::{After, Body, Class, ENTRY_BYTES_MAX, Entry, EntryError, Part, PartKind, Personal, Place};
use crate::ids::{EntryHash, JournalId, RecordId, domain_hash};
use crate::journal::{MARK_EVERY_BYTES, MARK_EVERY_ENTRIES, sign_mark};
use crate::money::Currency;
use crate::record::{Fact, FactError, Intent, PaymentFact, TenderKind, UpstreamFact};
use crate::time::{Hlc, Timestamp};

/// One business operation: facts and edits, applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// What is recorded. Intents of M-PESA tenders are added by the shop.
    pub facts: Vec<Fact>,
    /// The phone numbers of payers.
    pub phones: Vec<Phone>,
    /// Edits of shared documents.
    pub edits: Vec<(DocumentId, FieldEdit)>,
    /// Which member of staff does it.
    pub user: Option<String>,
}

/// A payer's phone number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phone {
    /// The index of the sale or intent among the operation's facts.
    pub fact: usize,
    /// The index of the sale's tender; 0 for an intent.
    pub tender: u32,
    /// Digits with country code.
    pub number: String,
}

/// An entry of ours that is recorded and may be stored, and that the books don't have yet.
#[derive(Debug)]
pub(super) struct Unfolded {
    seq: u64,
    entry: Entry,
    body: Body,
    touched: Touched,
}

/// An operation that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// Its entry; `None` if nothing needed to be recorded.
    pub place: Option<Place>,
    /// The record of each fact, intents of tenders included.
    pub records: Vec<RecordId>,
    /// The client had recorded it before: nothing was added.
    pub repeated: bool,
    /// When it was recorded.
    pub time: Hlc,
}

/// Why an operation is refused. Nothing of it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// A fact is wrong by itself.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// Amounts are not in the business's currency.
    #[error("currency must be {expected}, the business's own")]
    WrongCurrency {
        /// The business's currency.
        expected: Currency,
    },
    /// The client's id was used for something else.
    #[error("operation_id was used before for another body: use a new one, or send the same body")]
    IdReused {
        /// The record that has this id.
        record: RecordId,
    },
    /// Too large for one entry.
    #[error("the operation is too large: {0}; split it")]
    TooLarge(#[from] EntryError),
    /// An edit of a shared document is refused.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A shift is changing hands, or this is not the till that has it.
    #[error(transparent)]
    Handoff(Box<HandoffError>),
    /// A payer's phone number is missing.
    #[error("tenders[{tender}].phone is missing: M-PESA needs the payer's phone number")]
    PhoneMissing {
        /// The tender's index.
        tender: u32,
    },
}

impl Shop {
    pub(super) fn act(&mut self, operation: Operation, now: Timestamp) -> Result<Acted, ActError> {
        for fact in &operation.facts {
            fact.check()?;
            self.check_currency(fact)?;
        }
        let place = self.next_place();
        if let Some(before) = self.recorded_before(&operation, place)? {
            return Ok(before);
        }
        self.check_handoffs(&operation)?;
        let mut body = Body { facts: operation.facts, ..Body::default() };
        self.add_intents(&mut body, &operation.phones, place)?;
        let recorded = body.facts.len();
        if self.identity.carries_own && body.facts.iter().any(Fact::is_for_upstream) {
            body.facts.push(Fact::Upstream(UpstreamFact::Carried));
        }
        let mut parts = body.to_parts(|| self.salt(place));
        check_size(&body, &parts)?;

        let time = self.clock.tick(now);
        let (changes, after) = self.edit(&operation.edits, time)?;
        if body.facts.is_empty() && changes.is_empty() {
            return Ok(Acted { place: None, records: Vec::new(), repeated: false, time });
        }
        parts.extend(Part::of(PartKind::Changes, None, &changes));
        body.changes = changes;
        let records = (0..recorded).filter_map(|index| body.record_id(self.business(), place, index)).collect();
        let entry = Entry {
            class: class_of(&body),
            page: self.next_page(now, u32::try_from(body.facts.len()).unwrap_or(u32::MAX)),
            time,
            user: operation.user,
            after,
            parts,
            mark: None,
        };
        let touched = touched_keys(&operation.edits, &body);
        self.unfolded = Some(Unfolded { seq: place.seq, entry, body, touched });
        Ok(Acted { place: Some(place), records, repeated: false, time })
    }

    /// The shop does something by itself.
    pub(super) fn act_and_fold(
        &mut self,
        operation: Operation,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Acted, ActError> {
        let acted = self.act(operation, now)?;
        self.fold_own(out);
        Ok(acted)
    }

    fn next_place(&self) -> Place {
        let high = self.journals.get(&self.own).map_or(0, |journal| journal.high);
        Place { journal: self.own, seq: high.saturating_add(1) }
    }

    fn check_currency(&self, fact: &Fact) -> Result<(), ActError> {
        let expected = self.identity.genesis.currency;
        let used = match fact {
            Fact::Sale(sale) => sale.currency,
            Fact::Refund(refund) => refund.currency,
            Fact::Void(void) => void.currency,
            Fact::Expense(expense) => expense.amount.currency,
            Fact::FinancialRecord(record) => record.amount.currency,
            Fact::Intent(intent) => intent.amount.currency,
            Fact::ShiftOpened(opened) => opened.opening_float.currency,
            Fact::ShiftClosed(closed) => closed.counted.currency,
            Fact::Receipt(receipt) => receipt.amount.currency,
            Fact::HandoffOffered(offered) => offered.counted.currency,
            Fact::HandoffAccepted(accepted) => accepted.counted.currency,
            Fact::Payment(PaymentFact::Suspense(suspense)) => suspense.amount.currency,
            Fact::Payment(PaymentFact::CashTaken(taken)) => taken.amount.currency,
            Fact::StockMovement(_)
            | Fact::StockCount(_)
            | Fact::Decline(_)
            | Fact::Custom(_)
            | Fact::Enrolment(_)
            | Fact::IntentAddressed(_)
            | Fact::IntentConfirmed(_)
            | Fact::Payment(_)
            | Fact::Resolution(_)
            | Fact::HandoffTransferred(_)
            | Fact::HandoffWithdrawn(_)
            | Fact::HandoffDecided(_)
            | Fact::Upstream(_) => expected,
        };
        if used == expected { Ok(()) } else { Err(ActError::WrongCurrency { expected }) }
    }

    /// The answer for an operation that its client had recorded before.
    fn recorded_before(&self, operation: &Operation, place: Place) -> Result<Option<Acted>, ActError> {
        let Some(first) = operation.facts.first() else { return Ok(None) };
        let record = first.record_id(self.business(), place.journal, place.seq, 0);
        let Some(known) = self.books.record(record) else { return Ok(None) };
        if known.digest != crate::books::body_digest(first) {
            return Err(ActError::IdReused { record });
        }
        let mut records = vec![record];
        if let Fact::Sale(sale) = first {
            records.extend(mpesa_tenders(&sale.tenders).map(|(index, _)| record.derived("intent", index)));
        }
        Ok(Some(Acted { place: Some(known.place), records, repeated: true, time: known.time }))
    }

    /// Adds an intent for each M-PESA tender, and the payers' phone numbers.
    fn add_intents(&self, body: &mut Body, phones: &[Phone], place: Place) -> Result<(), ActError> {
        for index in 0..body.facts.len() {
            let at = u32::try_from(index).unwrap_or(u32::MAX);
            let Some(record) = body.record_id(self.business(), place, index) else { continue };
            let find = |tender: u32| {
                phones
                    .iter()
                    .find(|phone| phone.fact == index && phone.tender == tender)
                    .map(|phone| phone.number.clone())
                    .ok_or(ActError::PhoneMissing { tender })
            };
            match body.facts.get(index) {
                Some(Fact::Sale(sale)) => {
                    let currency = sale.currency;
                    let tenders: Vec<_> = mpesa_tenders(&sale.tenders).collect();
                    for (tender, amount_minor) in tenders {
                        let number = find(tender)?;
                        let fact = u32::try_from(body.facts.len()).unwrap_or(u32::MAX);
                        body.personal.push(Personal { fact, phone: Some(number) });
                        body.facts.push(Fact::Intent(Intent {
                            source: None,
                            sale: Some((record, tender)),
                            amount: crate::money::Money::new(amount_minor, currency),
                            provider: "mpesa".to_owned(),
                            ledger: self.settings().paying_ledger,
                        }));
                    }
                }
                Some(Fact::Intent(intent)) => {
                    // Other providers may reach their customers otherwise.
                    let needs_phone = intent.provider == "mpesa";
                    match find(0) {
                        Ok(number) => body.personal.push(Personal { fact: at, phone: Some(number) }),
                        Err(missing) if needs_phone => return Err(missing),
                        Err(_) => {}
                    }
                    let ledger = self.settings().paying_ledger;
                    if let Some(Fact::Intent(intent)) = body.facts.get_mut(index) {
                        intent.ledger = ledger;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Edits shared documents, and names the entries that the edits build on.
    fn edit(
        &mut self,
        edits: &[(DocumentId, FieldEdit)],
        time: Hlc,
    ) -> Result<(Vec<DocumentChange>, Vec<After>), ActError> {
        let mut grouped: BTreeMap<DocumentId, Vec<FieldEdit>> = BTreeMap::new();
        for (document, edit) in edits {
            grouped.entry(*document).or_default().push(edit.clone());
        }
        let mut changes = Vec::new();
        let mut edited = Vec::new();
        let mut after = BTreeMap::new();
        for (id, edits) in grouped {
            let mut document = self.document(id).cloned().unwrap_or_else(|| SharedDocument::new(id));
            let heads = document.heads();
            let Some(bytes) = document.edit(self.own, time.wall().0, &edits)? else { continue };
            edited.push((id, LazyDocument::live(document)));
            let authors = self.authors.get(&id);
            for (place, hash) in heads.iter().filter_map(|head| authors?.get(head)) {
                if place.journal != self.own {
                    let reference = After { place: *place, hash: hash.short() };
                    let latest = after.entry(place.journal).or_insert(reference);
                    if latest.place.seq < place.seq {
                        *latest = reference;
                    }
                }
            }
            changes.push(DocumentChange { document: id, bytes });
        }
        self.documents.extend(edited);
        Ok((changes, after.into_values().collect()))
    }

    /// Appends the entry that was recorded last to our journal, and applies it.
    pub(super) fn fold_own(&mut self, out: &mut Vec<Output>) {
        let Some(Unfolded { seq, entry, body, touched }) = self.unfolded.take() else { return };
        let Some(journal) = self.journals.get_mut(&self.own) else { return };
        if self.unsealed.is_empty() {
            self.sealed_tail = journal.tail.clone();
        }
        let hash = journal.next_hash(&entry);
        journal.advance(hash, &entry);
        let place = Place { journal: self.own, seq };
        journal.applied = journal.high;
        self.note_authors(place, hash, &body);
        self.fold(place, &entry, &body, &fact_digests(&entry), out);
        self.note_touched(touched, out);
        self.unmarked_bytes += entry.parts.len() * 64 + body_bytes(&entry);
        self.unsealed.push((place.seq, hash, entry));
        // Once it is stored, the seal signs it.
        let stored = self.unsealed.len() <= self.stored_unsealed;
        self.first_since_start.get_or_insert(place.seq);
        let since_mark = place.seq.saturating_sub(self.journals.get(&self.own).map_or(0, |own| own.marked.0));
        if !stored && (since_mark >= MARK_EVERY_ENTRIES || self.unmarked_bytes >= MARK_EVERY_BYTES) {
            self.mark_own();
        }
        self.advanced.insert(self.own, None);
    }

    /// Signs our last entry, if it is not signed yet.
    pub(super) fn mark_own(&mut self) {
        let Some((seq, hash, entry)) = self.unsealed.last_mut() else { return };
        if entry.mark.is_none() {
            entry.mark = Some(sign_mark(&self.identity.key, *hash));
            if let Some(own) = self.journals.get_mut(&self.own) {
                own.note_mark(*seq, *hash);
            }
        }
        self.unmarked_bytes = 0;
    }

    /// Gives out what is to be stored so far; our last entry is signed only when the group is
    /// sealed.
    pub(super) fn stage(&mut self, out: &mut Vec<Output>) {
        let fresh = self.unsealed.iter().skip(self.stored_unsealed);
        self.staged.extend(fresh.map(|(seq, _, entry)| stored(self.own, *seq, entry)));
        self.staged.extend(self.unfolded.iter().map(|last| stored(self.own, last.seq, &last.entry)));
        self.stored_unsealed = self.unsealed.len() + usize::from(self.unfolded.is_some());
        if !(self.staged.is_empty() && self.staged_runs.is_empty()) {
            let (entries, runs) = (std::mem::take(&mut self.staged), std::mem::take(&mut self.staged_runs));
            out.push(Output::Journal { entries, runs, ours: !std::mem::take(&mut self.staged_from_peers) });
        }
    }

    /// Signs our last entry, and gives out what is to be stored; gives our entries since the last
    /// seal.
    pub(super) fn stage_signed(&mut self, out: &mut Vec<Output>) -> Vec<(u64, EntryHash, Entry)> {
        let unsigned = self.unsealed.last().is_some_and(|(_, _, entry)| entry.mark.is_none());
        let stored_before = unsigned && self.stored_unsealed == self.unsealed.len();
        self.mark_own();
        self.stage(out);
        self.stored_unsealed = 0;
        let unsealed = std::mem::take(&mut self.unsealed);
        if let Some((seq, _, entry)) = unsealed.last().filter(|_| stored_before) {
            out.push(Output::Signed(stored(self.own, *seq, entry)));
        }
        unsealed
    }

    /// A crash came between storing the last entry of one of our journals and signing it.
    pub(super) fn sign_again(&mut self, id: JournalId, mut last: Entry, out: &mut Vec<Output>) {
        let (device, own) = (self.device(), self.own);
        let Some(journal) = self.journals.get_mut(&id) else { return };
        if journal.info.device() != device || journal.marked.0 >= journal.high {
            return;
        }
        if id == own && !self.unsealed.is_empty() {
            // It is being written on already: the next seal signs that.
            return;
        }
        last.mark = Some(sign_mark(&self.identity.key, journal.head));
        journal.note_mark(journal.high, journal.head);
        out.push(Output::Signed(stored(id, journal.high, &last)));
    }

    /// Hides what an erased personal part held; only this device can derive it.
    fn salt(&self, place: Place) -> [u8; 16] {
        let secret = self.identity.key.to_bytes();
        let hash = domain_hash("tillmesh 2026 part salt", &[&secret, &place.journal.0, &place.seq.to_le_bytes()]);
        EntryHash(hash).short().0
    }
}

fn stored(journal: JournalId, seq: u64, entry: &Entry) -> StoredEntry {
    StoredEntry { place: Place { journal, seq }, bytes: entry.to_bytes() }
}

fn mpesa_tenders(tenders: &[crate::record::Tender]) -> impl Iterator<Item = (u32, i64)> {
    (0..)
        .zip(tenders)
        .filter(|(_, tender)| tender.kind == TenderKind::Mpesa)
        .map(|(i, tender)| (i, tender.amount_minor))
}

/// The keys that own edits of the changed documents touched.
fn touched_keys(edits: &[(DocumentId, FieldEdit)], body: &Body) -> Vec<(DocumentId, BTreeSet<String>)> {
    body.documents()
        .map(|id| {
            let keys = edits.iter().filter(|(document, _)| *document == id);
            (id, keys.map(|(_, edit)| field_key(edit.record, &edit.field)).collect())
        })
        .collect()
}

fn class_of(body: &Body) -> Class {
    let has = |wanted: fn(&Fact) -> bool| body.facts.iter().any(wanted);
    let ledgers = |fact: &Fact| matches!(fact, Fact::Payment(fact) if fact.is_ledgers());
    let asks = |fact: &Fact| matches!(fact, Fact::Payment(_));
    if has(|fact| matches!(fact, Fact::Receipt(_) | Fact::Decline(_))) || has(ledgers) {
        Class::Payment
    } else if has(|fact| matches!(fact, Fact::Enrolment(_))) {
        Class::Membership
    } else if has(|fact| matches!(fact, Fact::Intent(_) | Fact::IntentAddressed(_) | Fact::IntentConfirmed(_)))
        || has(asks)
    {
        Class::Intent
    } else {
        Class::Normal
    }
}

fn check_size(body: &Body, parts: &[Part]) -> Result<(), EntryError> {
    let limit = crate::entry::FACTS_MAX;
    if body.facts.len() > limit {
        return Err(EntryError::OverLimit { what: "facts", limit });
    }
    let bytes: usize = parts.iter().map(Part::size_bytes).sum();
    // The rest is left for the changes to shared documents, which are bounded on their own.
    if bytes > ENTRY_BYTES_MAX * 3 / 4 {
        return Err(EntryError::OverLimit { what: "bytes", limit: ENTRY_BYTES_MAX * 3 / 4 });
    }
    Ok(())
}

fn body_bytes(entry: &Entry) -> usize {
    entry.parts.iter().map(Part::size_bytes).sum()
}
