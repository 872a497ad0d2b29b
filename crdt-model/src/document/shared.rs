//! One shared document: reading it, editing it, and taking in the edits of others.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use crate::ids::{JournalId, RecordId};

use super::DocumentId;
use super::content::{EditError, FieldEdit, FieldValue, Valued, field_key, parse_key};
use super::edit::{assign, planned};
use super::verify::{ApplyError, Parsed, Tip, Verified, check_place, check_replaced, journal_of, merged, parse};

/// A shared document. Every replica begins with the same first change, and replicas with the
/// same changes have the same heads and values, in whatever order the changes came.
#[derive(Debug, Clone)]
pub struct SharedDocument {
    id: DocumentId,
    doc: Automerge,
    first: ChangeHash,
    tips: BTreeMap<JournalId, Tip>,
    conflicted: BTreeSet<String>,
}

/// Why a saved document can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no Automerge document, or a damaged one.
    #[error("the saved document {document} can't be read: {reason}; rebuild it from the journals")]
    Unreadable {
        /// The document.
        document: DocumentId,
        /// Why not.
        reason: String,
    },
    /// It is an Automerge document, but not this one.
    #[error("the saved document is not {document}: rebuild it from the journals")]
    Other {
        /// The document that was wanted.
        document: DocumentId,
    },
}

impl SharedDocument {
    /// The document as every replica begins it.
    #[must_use]
    pub fn new(id: DocumentId) -> Self {
        let mut doc = Automerge::new().with_actor(ActorId::from(FIRST_ACTOR.as_slice()));
        let name = id.to_string();
        let begun = doc.transact_with::<_, _, AutomergeError, _>(
            |()| CommitOptions::default().with_time(0),
            |change| {
                let text = change.put_object(ROOT, "_document", ObjType::Text)?;
                change.splice_text(text, 0, 0, &name)?;
                change.put(ROOT, "_schema", SCHEMA)
            },
        );
        let first = begun.ok().and_then(|begun| begun.hash).unwrap_or(ChangeHash([0; 32]));
        Self { id, doc, first, tips: BTreeMap::new(), conflicted: BTreeSet::new() }
    }

    /// Reads a saved document.
    ///
    /// # Errors
    /// [`LoadError`]; the document can then be rebuilt from the journals' changes.
    pub fn load(id: DocumentId, bytes: &[u8]) -> Result<Self, LoadError> {
        let unreadable = |reason: String| LoadError::Unreadable { document: id, reason };
        let doc = std::panic::catch_unwind(|| Automerge::load(bytes))
            .map_err(|_| unreadable("Automerge panicked on it".to_owned()))?
            .map_err(|error| unreadable(error.to_string()))?;
        let mut loaded = Self::new(id);
        let mut first = Vec::new();
        for meta in doc.get_changes_meta(&[]) {
            match journal_of(&meta.actor) {
                Some(journal) => {
                    let tip = Tip { seq: meta.seq, hash: meta.hash };
                    let last = loaded.tips.entry(journal).or_insert(tip);
                    if tip.seq > last.seq {
                        *last = tip;
                    }
                }
                None => first.push(meta.hash),
            }
        }
        if first != [loaded.first] {
            return Err(LoadError::Other { document: id });
        }
        loaded.doc = doc;
        loaded.conflicted = loaded
            .doc
            .map_range(ROOT, ..)
            .filter(|item| item.conflict && loaded.differs(&item.key))
            .map(|item| item.key.into_owned())
            .collect();
        Ok(loaded)
    }

    /// The document as Automerge saves it; any Automerge library opens it.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// Which document this is.
    #[must_use]
    pub fn id(&self) -> DocumentId {
        self.id
    }

    /// The hashes of the changes that no other change builds on, in order.
    #[must_use]
    pub fn heads(&self) -> Vec<[u8; 32]> {
        self.doc.get_heads().into_iter().map(|hash| hash.0).collect()
    }

    /// The hash of the first change, which is the same on every replica and in no journal.
    #[must_use]
    pub fn first(&self) -> [u8; 32] {
        self.first.0
    }

    /// Whether the document holds the change.
    #[must_use]
    pub fn holds(&self, hash: [u8; 32]) -> bool {
        self.doc.get_change_meta_by_hash(&ChangeHash(hash)).is_some()
    }

    /// Makes edits as one change by `actor` and gives its uncompressed bytes; `None` if every
    /// field has its value already. Of two edits of one field the later counts. `time_ms` is
    /// stored in whole seconds since 1970 UTC, Automerge's unit.
    ///
    /// # Errors
    /// [`EditError`]; the document is as it was.
    pub fn edit(&mut self, actor: JournalId, time_ms: u64, edits: &[FieldEdit]) -> Result<Option<Vec<u8>>, EditError> {
        let edits = planned(self, edits)?;
        if edits.is_empty() {
            return Ok(None);
        }
        let seconds = i64::try_from(time_ms / 1000).unwrap_or(i64::MAX);
        self.doc.set_actor(ActorId::from(actor.as_bytes().as_slice()));
        let edited = self.doc.transact_with::<_, _, AutomergeError, _>(
            |()| CommitOptions::default().with_time(seconds),
            |change| edits.iter().try_for_each(|edit| assign(change, edit)),
        );
        let failed = |error: AutomergeError| EditError::Failed(error.to_string());
        let hash = edited.map_err(|failure| failed(failure.error))?.hash;
        let Some(change) = hash.and_then(|hash| self.doc.get_change_by_hash(&hash)) else { return Ok(None) };
        self.tips.insert(actor, Tip::of(&change));
        self.note(&edits.into_iter().map(|edit| edit.key).collect());
        Ok(Some(change.raw_bytes().to_vec()))
    }

    /// Checks edits without making them. What changes several documents is made once all of
    /// them have checked their edits.
    ///
    /// # Errors
    /// As [`SharedDocument::edit`].
    pub fn check_edits(&self, edits: &[FieldEdit]) -> Result<(), EditError> {
        planned(self, edits).map(|_| ())
    }

    /// Whether a change can be applied; [`SharedDocument::check`] without keeping its work.
    ///
    /// # Errors
    /// As [`SharedDocument::check`].
    pub fn can_apply(&self, actor: JournalId, bytes: &[u8]) -> Result<(), ApplyError> {
        self.check(actor, bytes).map(|_| ())
    }

    /// Checks a change that came in the journal `actor`, without applying it. An entry that
    /// changes several documents is applied once all of them have checked its changes.
    ///
    /// # Errors
    /// [`ApplyError`]; [`ApplyError::Missing`] may pass once more changes have come, all others
    /// never do.
    pub fn check(&self, actor: JournalId, bytes: &[u8]) -> Result<Verified, ApplyError> {
        let parsed = parse(self.id, actor, bytes)?;
        if self.holds(parsed.change.hash().0) {
            return Ok(Verified { parsed, known: true });
        }
        check_place(&self.doc, self.tips.get(&actor).copied(), &parsed)?;
        check_replaced(&self.doc, &parsed)?;
        Ok(Verified { parsed, known: false })
    }

    /// Applies a change that this document has checked, and gives the keys that it touched:
    /// none if the document held it already.
    ///
    /// # Errors
    /// [`ApplyError::Failed`], and what [`SharedDocument::check`] says if the document changed
    /// in between; the document is as it was.
    pub fn apply_verified(&mut self, verified: Verified) -> Result<BTreeSet<String>, ApplyError> {
        let Verified { parsed, known } = verified;
        if known || self.holds(parsed.change.hash().0) {
            return Ok(BTreeSet::new());
        }
        check_place(&self.doc, self.tips.get(&parsed.journal).copied(), &parsed)?;
        self.doc = merged(&self.doc, vec![parsed.change.clone()])?;
        self.tips.insert(parsed.journal, Tip::of(&parsed.change));
        self.note(&parsed.touched);
        Ok(parsed.touched)
    }

    /// Checks and applies a change that came in the journal `actor`, and gives the keys that it
    /// touched: none if the document held it already.
    ///
    /// # Errors
    /// As [`SharedDocument::check`]; the document is as it was.
    pub fn apply(&mut self, actor: JournalId, bytes: &[u8]) -> Result<BTreeSet<String>, ApplyError> {
        let verified = self.check(actor, bytes)?;
        self.apply_verified(verified)
    }

    /// Applies many changes at once, each after those it builds on, and gives the keys that
    /// they touched: all or none. Catching up this way costs far less than one by one.
    ///
    /// # Errors
    /// The first change's error, as [`SharedDocument::check`]; the document is as it was.
    pub fn apply_batch(&mut self, changes: &[(JournalId, &[u8])]) -> Result<BTreeSet<String>, ApplyError> {
        let mut fresh: Vec<Parsed> = Vec::new();
        let mut hashes = BTreeSet::new();
        for (journal, bytes) in changes {
            let parsed = parse(self.id, *journal, bytes)?;
            let hash = parsed.change.hash();
            if !self.holds(hash.0) && hashes.insert(hash) {
                fresh.push(parsed);
            }
        }
        let mut tips = self.tips.clone();
        let copy = merged(&self.doc, fresh.iter().map(|parsed| parsed.change.clone()).collect())?;
        for parsed in &fresh {
            check_place(&copy, tips.get(&parsed.journal).copied(), parsed)?;
            check_replaced(&copy, parsed)?;
            tips.insert(parsed.journal, Tip::of(&parsed.change));
        }
        (self.doc, self.tips) = (copy, tips);
        let touched = fresh.into_iter().flat_map(|parsed| parsed.touched).collect();
        self.note(&touched);
        Ok(touched)
    }

    /// The value of a field that counts; of several, the same one on every replica.
    #[must_use]
    pub fn field(&self, record: RecordId, field: &str) -> Option<FieldValue> {
        let (value, id) = self.doc.get(ROOT, field_key(record, field)).ok()??;
        self.value(&value, &id)
    }

    /// All values that a field has at the same time, in order.
    #[must_use]
    pub fn values(&self, record: RecordId, field: &str) -> Vec<Valued> {
        self.values_of(&field_key(record, field))
    }

    /// The fields of a record that have a value.
    #[must_use]
    pub fn record(&self, record: RecordId) -> BTreeMap<String, FieldValue> {
        // '0' is the character after '/'.
        let range = format!("{record}/")..format!("{record}0");
        self.doc
            .map_range(ROOT, range)
            .filter_map(|item| {
                let (_, field) = parse_key(&item.key)?;
                let value = self.value(&item.value.clone().into_value(), &item.id())?;
                Some((field.to_owned(), value))
            })
            .collect()
    }

    /// The records that have a field, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordId> + '_ {
        let found: BTreeSet<RecordId> =
            self.doc.keys(ROOT).filter_map(|key| parse_key(&key).map(|(record, _)| record)).collect();
        found.into_iter()
    }

    /// The fields with different values at the same time, in order.
    #[must_use]
    pub fn conflicts(&self) -> Vec<(RecordId, String)> {
        let fields = self.conflicted.iter().filter_map(|key| parse_key(key));
        fields.map(|(record, field)| (record, field.to_owned())).collect()
    }

    /// How many fields have different values at the same time.
    #[must_use]
    pub fn conflict_count(&self) -> usize {
        self.conflicted.len()
    }

    /// Whether a key has different values at the same time.
    #[must_use]
    pub fn conflicted(&self, key: &str) -> bool {
        self.conflicted.contains(key)
    }

    /// Follows the conflicts as keys change, so that counting them costs nothing.
    fn note(&mut self, touched: &BTreeSet<String>) {
        for key in touched {
            if self.differs(key) {
                self.conflicted.insert(key.clone());
            } else {
                self.conflicted.remove(key);
            }
        }
    }

    fn differs(&self, key: &str) -> bool {
        let values = self.values_of(key);
        values.windows(2).any(|pair| matches!(pair, [a, b] if a.value != b.value))
    }

    pub(super) fn values_of(&self, key: &str) -> Vec<Valued> {
        let mut values: Vec<Valued> = self
            .doc
            .get_all(ROOT, key)
            .unwrap_or_default()
            .iter()
            .filter_map(|(value, id)| Some(Valued { value: self.value(value, id)?, by: author(id)? }))
            .collect();
        values.sort();
        values
    }

    fn value(&self, value: &Value<'_>, id: &ObjId) -> Option<FieldValue> {
        match value {
            Value::Object(ObjType::Text) => self.doc.text(id).ok().map(FieldValue::Text),
            Value::Object(ObjType::Map | ObjType::List | ObjType::Table) => None,
            Value::Scalar(scalar) => match scalar.as_ref() {
                ScalarValue::Int(number) => Some(FieldValue::Int(*number)),
                ScalarValue::Boolean(yes) => Some(FieldValue::Bool(*yes)),
                ScalarValue::Bytes(_)
                | ScalarValue::Str(_)
                | ScalarValue::Uint(_)
                | ScalarValue::F64(_)
                | ScalarValue::Counter(_)
                | ScalarValue::Timestamp(_)
                | ScalarValue::Unknown { .. }
                | ScalarValue::Null => None,
            },
        }
    }
}

/// Not 16 bytes, so that it can be no journal.
const FIRST_ACTOR: &[u8; 8] = b"tillmesh";
const SCHEMA: i64 = 1;

fn author(id: &ObjId) -> Option<JournalId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(_, actor, _) => journal_of(actor),
    }
}
