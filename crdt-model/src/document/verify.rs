//! Whether a change from a peer is one that an honest device could have made: plain assignments
//! of fields, on top of what it names. Anything else is refused before the document sees it,
//! because Automerge trusts operation numbers and what they say they replace.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};

use crate::ids::JournalId;
use crate::record::TEXT_BYTES_MAX;

use super::chunk::{Malformed, claims};
use super::{CHANGE_BYTES_MAX, DEPS_MAX, DocumentId, OPS_MAX, REPLACED_MAX, parse_key};

/// Why a change can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It names changes that this document doesn't hold yet.
    #[error("the change builds on {} changes that are not here yet: apply them first", missing.len())]
    Missing {
        /// Their hashes.
        missing: Vec<[u8; 32]>,
    },
    /// It was made by another journal than the one it came in.
    #[error("the change was made by another journal than {journal}: quarantine it")]
    WrongJournal {
        /// The journal that it came in.
        journal: JournalId,
    },
    /// It is larger than any change may be, or has too many of something.
    #[error("the change is over its limit of {limit} {what}: quarantine it")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// Its bytes are not an uncompressed change in Automerge's own encoding.
    #[error("the change can't be read: {0}; quarantine it")]
    Unreadable(String),
    /// It does what no honest device does.
    #[error("the change is not an edit of fields: {0}; quarantine it")]
    NotAllowed(String),
    /// The journal has another change with this number.
    #[error("the journal's change {found} is not its next one, {expected}: the journal forked, quarantine it")]
    WrongSequence {
        /// The number that it should have.
        expected: u64,
        /// The number that it has.
        found: u64,
    },
    /// Automerge itself failed on it.
    #[error("the change can't be merged: {0}; quarantine it")]
    Failed(String),
}

/// A change that was checked and can be applied to the document that checked it.
#[derive(Debug, Clone)]
pub struct Verified {
    pub(super) parsed: Parsed,
    pub(super) known: bool,
}

impl Verified {
    /// The keys that it assigns, in order.
    #[must_use]
    pub fn touched(&self) -> &BTreeSet<String> {
        &self.parsed.touched
    }

    /// The hashes of the changes that it builds on.
    pub fn builds_on(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.parsed.change.deps().iter().map(|hash| hash.0)
    }

    /// The change's hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.parsed.change.hash().0
    }
}

/// A change whose operations by themselves are edits of fields.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub(super) journal: JournalId,
    pub(super) change: Change,
    pub(super) touched: BTreeSet<String>,
    assignments: Vec<Assignment>,
}

#[derive(Debug, Clone)]
struct Assignment {
    key: String,
    id: OpId,
    replaces: Vec<OpId>,
    removes: bool,
}

/// The last change of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) seq: u64,
    pub(super) hash: ChangeHash,
}

impl Tip {
    pub(super) fn of(change: &Change) -> Self {
        Self { seq: change.seq(), hash: change.hash() }
    }
}

/// Reads a change and checks what can be checked without the document.
pub(super) fn parse(document: DocumentId, journal: JournalId, bytes: &[u8]) -> Result<Parsed, ApplyError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(ApplyError::OverLimit { what: "bytes", limit: CHANGE_BYTES_MAX });
    }
    let claims = claims(bytes).map_err(|Malformed(reason)| ApplyError::Unreadable(reason.to_owned()))?;
    for (what, count, limit) in [
        ("earlier changes", claims.deps, DEPS_MAX),
        ("operations", claims.operations, OPS_MAX),
        ("replaced values", claims.replaced, REPLACED_MAX),
    ] {
        if count > limit {
            return Err(ApplyError::OverLimit { what, limit });
        }
    }
    if claims.actor != journal.as_bytes() {
        return Err(ApplyError::WrongJournal { journal });
    }
    if claims.operations == 0 {
        return Err(ApplyError::NotAllowed("it is empty".to_owned()));
    }
    let (change, operations) = decode(bytes)?;
    let assignments = assignments(document, &change, &operations)?;
    let touched = assignments.iter().map(|assignment| assignment.key.clone()).collect();
    Ok(Parsed { journal, change, assignments, touched })
}

/// Decodes and encodes again. A saved document keeps operations, not bytes, so a change in any
/// other encoding than Automerge's own would come back from disk with another hash.
fn decode(bytes: &[u8]) -> Result<(Change, Vec<Op>), ApplyError> {
    let decoded = catch_unwind(|| {
        let change = Change::try_from(bytes).map_err(|error| error.to_string())?;
        let expanded = change.decode();
        let operations = expanded.operations.clone();
        if Change::from(expanded).raw_bytes() != bytes {
            return Err("it is not in Automerge's own encoding".to_owned());
        }
        Ok((change, operations))
    });
    decoded.unwrap_or_else(|_| Err("Automerge panicked on it".to_owned())).map_err(ApplyError::Unreadable)
}

fn assignments(document: DocumentId, change: &Change, operations: &[Op]) -> Result<Vec<Assignment>, ApplyError> {
    let refused = |reason: &str| ApplyError::NotAllowed(reason.to_owned());
    let actor = change.actor_id();
    let mut found = Vec::new();
    let mut text: Option<TextBeingWritten> = None;
    for (id, operation) in (change.start_op().get()..).zip(operations) {
        let id = OpId::new(id, actor);
        if let ObjectId::Id(_) = operation.obj {
            let text = text.as_mut().ok_or_else(|| refused("it edits inside a value"))?;
            text.write(&id, operation).map_err(refused)?;
            continue;
        }
        let Key::Map(key) = &operation.key else { return Err(refused("a field has a number for a key")) };
        if !parse_key(key).is_some_and(|(record, _)| document.holds(record)) {
            return Err(ApplyError::NotAllowed(format!("{key:?} is no field of {document}")));
        }
        text = None;
        match &operation.action {
            OpType::Put(ScalarValue::Int(_) | ScalarValue::Boolean(_)) | OpType::Delete => {}
            OpType::Make(ObjType::Text) => text = Some(TextBeingWritten::new(id.clone())),
            OpType::Put(_) | OpType::Make(_) | OpType::Increment(_) | OpType::MarkBegin(_) | OpType::MarkEnd(_) => {
                return Err(refused("a field is neither text, whole number nor yes or no"));
            }
        }
        let removes = operation.action == OpType::Delete;
        if operation.insert || (removes && operation.pred.is_empty()) {
            return Err(refused("it inserts into the record or deletes nothing"));
        }
        found.push(Assignment {
            key: key.to_string(),
            id,
            replaces: operation.pred.iter().cloned().collect(),
            removes,
        });
    }
    Ok(found)
}

/// A text is written whole, character after character, right after it is made.
struct TextBeingWritten {
    object: ObjectId,
    last: ElementId,
    bytes: usize,
}

impl TextBeingWritten {
    fn new(object: OpId) -> Self {
        Self { object: ObjectId::Id(object), last: ElementId::Head, bytes: 0 }
    }

    fn write(&mut self, id: &OpId, operation: &Op) -> Result<(), &'static str> {
        let in_place = operation.obj == self.object && operation.key == Key::Seq(self.last.clone());
        if !in_place || !operation.insert || !operation.pred.is_empty() {
            return Err("a text is not written from its start to its end");
        }
        let OpType::Put(ScalarValue::Str(character)) = &operation.action else {
            return Err("a text holds something else than characters");
        };
        if character.chars().count() != 1 {
            return Err("a text holds something else than single characters");
        }
        self.bytes += character.len();
        if self.bytes > TEXT_BYTES_MAX {
            return Err("a text is too long");
        }
        self.last = ElementId::Id(id.clone());
        Ok(())
    }
}

/// Checks that the change is its journal's next, on top of everything it names. `doc` may hold
/// the change itself and later ones already.
pub(super) fn check_place(doc: &Automerge, tip: Option<Tip>, parsed: &Parsed) -> Result<(), ApplyError> {
    let change = &parsed.change;
    let deps = change.deps();
    if deps.is_empty() || deps.windows(2).any(|pair| matches!(pair, [a, b] if a >= b)) {
        return Err(ApplyError::NotAllowed("the changes it builds on are none, or not in order".to_owned()));
    }
    let mut missing = Vec::new();
    let mut last_operation = 0;
    for dep in deps {
        match doc.get_change_meta_by_hash(dep) {
            Some(meta) => last_operation = last_operation.max(meta.max_op),
            None => missing.push(dep.0),
        }
    }
    if !missing.is_empty() {
        return Err(ApplyError::Missing { missing });
    }
    let expected = tip.map_or(0, |tip| tip.seq) + 1;
    if change.seq() != expected {
        return Err(ApplyError::WrongSequence { expected, found: change.seq() });
    }
    if change.start_op().get() != last_operation + 1 {
        return Err(ApplyError::NotAllowed("its operations are not numbered after those it builds on".to_owned()));
    }
    // Automerge names it even where a later change does; without it, two changes of one journal
    // could stand side by side.
    if tip.is_some_and(|tip| !deps.contains(&tip.hash)) {
        return Err(ApplyError::NotAllowed("it doesn't build on the journal's change before it".to_owned()));
    }
    Ok(())
}

/// Checks that the change replaces only values that its author saw in the field that it assigns.
pub(super) fn check_replaced(doc: &Automerge, parsed: &Parsed) -> Result<(), ApplyError> {
    let deps = parsed.change.deps();
    let latest = doc.get_heads() == deps;
    let mut seen: BTreeMap<&str, BTreeSet<OpId>> = BTreeMap::new();
    for assignment in &parsed.assignments {
        if !seen.contains_key(assignment.key.as_str()) {
            let values = if latest {
                doc.get_all(ROOT, assignment.key.as_str())
            } else {
                doc.get_all_at(ROOT, assignment.key.as_str(), deps)
            };
            let values = values.map_err(|error| ApplyError::Failed(error.to_string()))?;
            seen.insert(&assignment.key, values.iter().filter_map(|(_, id)| op_id(id)).collect());
        }
        let Some(current) = seen.get_mut(assignment.key.as_str()) else { continue };
        for replaced in &assignment.replaces {
            if !current.remove(replaced) {
                return Err(ApplyError::NotAllowed(format!("it replaces what {:?} did not hold", assignment.key)));
            }
        }
        if !assignment.removes {
            current.insert(assignment.id.clone());
        }
    }
    Ok(())
}

fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some(OpId::new(*counter, actor)),
    }
}

/// Merges checked changes into a copy, so that a document never sees half of anything.
pub(super) fn merged(doc: &Automerge, changes: Vec<Change>) -> Result<Automerge, ApplyError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut copy = doc.clone();
        copy.apply_changes(changes)?;
        Ok::<_, automerge::AutomergeError>(copy)
    }));
    match outcome {
        Ok(Ok(copy)) => Ok(copy),
        Ok(Err(error)) => Err(ApplyError::Failed(error.to_string())),
        Err(_) => Err(ApplyError::Failed("Automerge panicked on it".to_owned())),
    }
}

pub(super) fn journal_of(actor: &ActorId) -> Option<JournalId> {
    JournalId::from_slice(actor.to_bytes())
}
