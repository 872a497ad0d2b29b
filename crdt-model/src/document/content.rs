//! What a shared document holds: values of fields, by record.

use crate::ids::{JournalId, RecordId};
use crate::record::TEXT_BYTES_MAX;

use super::{DocumentId, FIELD_BYTES_MAX};

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number; JavaScript reads it exactly up to 2^53.
    Int(i64),
    /// A text of at most [`TEXT_BYTES_MAX`](crate::record::TEXT_BYTES_MAX) bytes.
    Text(String),
}

/// One edit of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldEdit {
    /// Whose field it is.
    pub record: RecordId,
    /// The field's name, 1 to [`FIELD_BYTES_MAX`] bytes without control characters.
    pub field: String,
    /// Its new value; `None` clears it.
    pub value: Option<FieldValue>,
}

/// One of the values that a field has at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Valued {
    /// The value.
    pub value: FieldValue,
    /// The journal that wrote it.
    pub by: JournalId,
}

/// Why an edit can't be made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The record's fields are in another document.
    #[error("record {record} is not in {document}: edit the document that holds it")]
    WrongDocument {
        /// The record.
        record: RecordId,
        /// The document.
        document: DocumentId,
    },
    /// A field's name or value is not allowed.
    #[error("{field} {reason}")]
    Field {
        /// The field.
        field: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The edits are too much for one change.
    #[error("the edits need more than {limit} {what}: make them in several changes")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// Automerge refused it.
    #[error("the edit can't be made: {0}")]
    Failed(String),
}

impl FieldEdit {
    /// Checks the edit by itself.
    ///
    /// # Errors
    /// [`EditError::Field`].
    pub fn check(&self) -> Result<(), EditError> {
        let refused = |reason| EditError::Field { field: self.field.clone(), reason };
        if !field_allowed(&self.field) {
            return Err(refused("is no name of a field: use 1 to 128 bytes without control characters"));
        }
        match &self.value {
            Some(FieldValue::Text(text)) if text.len() > TEXT_BYTES_MAX => {
                Err(refused("is too long: keep it to 2000 bytes"))
            }
            Some(FieldValue::Text(_) | FieldValue::Bool(_) | FieldValue::Int(_)) | None => Ok(()),
        }
    }
}

/// The document's key of a record's field.
#[must_use]
pub fn field_key(record: RecordId, field: &str) -> String {
    format!("{record}/{field}")
}

/// The field that marks a record as deleted; any other value than true means that it is not.
pub const DELETED: &str = "deleted";

/// The record and field of a document's key; `None` for the document's own keys and for
/// anything that [`field_key`] doesn't write.
#[must_use]
pub fn parse_key(key: &str) -> Option<(RecordId, &str)> {
    let (record, field) = key.split_once('/')?;
    let id: RecordId = record.parse().ok()?;
    (id.to_string() == record && field_allowed(field)).then_some((id, field))
}

fn field_allowed(field: &str) -> bool {
    (1..=FIELD_BYTES_MAX).contains(&field.len()) && !field.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_a_record_and_a_field_in_one_way_only() {
        let record: RecordId = "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f".parse().unwrap();
        let key = field_key(record, "line/BREAD");
        assert_eq!(parse_key(&key), Some((record, "line/BREAD")));
        for wrong in [
            "_schema",
            "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f",
            "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f/",
            "6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f/a\nb",
            "6F1C9A52-0f6e-8c1d-9b3e-0a1b2c3d4e5f/name",
            "6f1c9a520f6e8c1d9b3e0a1b2c3d4e5f/name",
        ] {
            assert_eq!(parse_key(wrong), None, "{wrong}");
        }
    }
}
