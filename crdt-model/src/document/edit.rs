//! What an edit needs: which fields it really changes, and whether that fits in one change.

use std::collections::BTreeMap;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT};

use super::content::{EditError, FieldEdit, FieldValue, field_key};
use super::{CHANGE_BYTES_MAX, DEPS_MAX, OPS_MAX, REPLACED_MAX, SharedDocument};

/// One assignment that changes something.
pub(super) struct Assign<'e> {
    pub(super) key: String,
    value: Option<&'e FieldValue>,
    clear_first: bool,
}

/// The edits that change something, once a field, within the limits of a change.
pub(super) fn planned<'e>(doc: &SharedDocument, edits: &'e [FieldEdit]) -> Result<Vec<Assign<'e>>, EditError> {
    let mut latest = BTreeMap::new();
    for edit in edits {
        if !doc.id().holds(edit.record) {
            return Err(EditError::WrongDocument { record: edit.record, document: doc.id() });
        }
        edit.check()?;
        latest.insert(field_key(edit.record, &edit.field), edit.value.as_ref());
    }
    let heads = doc.heads().len();
    let mut needed = Vec::new();
    let (mut operations, mut replaced, mut bytes) = (0, 0, CHANGE_HEAD_BYTES);
    for (key, value) in latest {
        let current = doc.values_of(&key);
        if current.first().map(|first| &first.value) == value && !doc.conflicted(&key) {
            continue;
        }
        let text_bytes = match value {
            Some(FieldValue::Text(text)) => text.len(),
            Some(FieldValue::Bool(_) | FieldValue::Int(_)) | None => 1,
        };
        operations += 2 + text_bytes;
        replaced += current.len();
        bytes += key.len() + ASSIGNMENT_BYTES + 3 * text_bytes + REPLACED_BYTES * current.len();
        needed.push(Assign { key, value, clear_first: current.len() > 1 });
    }
    bytes += HASH_BYTES * heads;
    for (what, count, limit) in [
        ("operations", operations, OPS_MAX),
        ("replaced values", replaced, REPLACED_MAX),
        ("bytes", bytes, CHANGE_BYTES_MAX),
        // The journal's own last change may come on top of the heads.
        ("earlier changes", heads + 1, DEPS_MAX),
    ] {
        if count > limit {
            return Err(EditError::TooLarge { what, limit });
        }
    }
    Ok(needed)
}

// Upper bounds of what parts of a change take in its bytes.
const CHANGE_HEAD_BYTES: usize = 256;
const ASSIGNMENT_BYTES: usize = 64;
/// The journal that wrote a replaced value (17 bytes) and its number.
const REPLACED_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// Makes one assignment.
pub(super) fn assign(change: &mut Transaction<'_>, edit: &Assign<'_>) -> Result<(), AutomergeError> {
    let key = edit.key.as_str();
    if edit.clear_first {
        // Where one of several numbers is chosen, Automerge would keep it and only drop the
        // others; a decision must be a new value, or a concurrent edit could undo it unseen.
        change.delete(ROOT, key)?;
    }
    match edit.value {
        Some(FieldValue::Text(text)) => {
            let object = change.put_object(ROOT, key, ObjType::Text)?;
            change.splice_text(object, 0, 0, text)
        }
        Some(FieldValue::Bool(yes)) => change.put(ROOT, key, *yes),
        Some(FieldValue::Int(number)) => change.put(ROOT, key, *number),
        // Deleting what the line above deleted makes no operation.
        None => change.delete(ROOT, key),
    }
}
