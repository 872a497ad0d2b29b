//! Records whose fields everyone may edit at once: products, customers, tickets, corrections.

use std::collections::BTreeMap;

use crdt_model::document::{DELETED, DocumentId, FieldEdit, FieldValue, field_key};
use crdt_model::ids::{RecordId, domain_hash, hash_uuid};
use crdt_model::record::{FactError, SOURCE_BYTES_MAX, Source};
use crdt_model::shop::{Operation, Shop};

use super::{PlanError, Planned};
use crate::shop_handle::ShopHandle;

/// The hash of the request that created a record, so that a repeated request is known.
pub(crate) const CREATED_FROM: &str = "created_from";

/// What an edit does to a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// Leaves it as it is.
    #[default]
    Keep,
    /// Takes its value away.
    Clear,
    /// Gives it a value.
    Set(T),
}

/// A record of a shared document, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedRecord {
    /// The fields that have a value; of several at once, the one that counts on every device.
    pub fields: BTreeMap<String, FieldValue>,
    /// The fields with different values at the same time, each with all of them.
    pub conflicts: BTreeMap<String, Vec<FieldValue>>,
}

impl SharedRecord {
    /// Reads a record.
    #[must_use]
    pub fn read(shop: &Shop, document: DocumentId, record: RecordId) -> Self {
        let Some(document) = shop.document(document) else { return Self::default() };
        let fields = document.record(record);
        let conflicts = fields
            .keys()
            .filter(|field| document.conflicted(&field_key(record, field)))
            .map(|field| (field.clone(), document.values(record, field).into_iter().map(|v| v.value).collect()))
            .collect();
        Self { fields, conflicts }
    }

    /// Whether it was created and not deleted since.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.fields.is_empty() && self.fields.get(DELETED) != Some(&FieldValue::Bool(true))
    }

    /// A field's text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        match self.fields.get(field)? {
            FieldValue::Text(text) => Some(text.clone()),
            FieldValue::Int(_) | FieldValue::Bool(_) => None,
        }
    }

    /// A field's number.
    #[must_use]
    pub fn int(&self, field: &str) -> Option<i64> {
        match self.fields.get(field)? {
            FieldValue::Int(number) => Some(*number),
            FieldValue::Text(_) | FieldValue::Bool(_) => None,
        }
    }

    /// A field's yes or no.
    #[must_use]
    pub fn bool(&self, field: &str) -> Option<bool> {
        match self.fields.get(field)? {
            FieldValue::Bool(yes) => Some(*yes),
            FieldValue::Text(_) | FieldValue::Int(_) => None,
        }
    }
}

impl<T> Edit<T> {
    /// The edit of a field, if there is any.
    pub(super) fn of(&self, record: RecordId, field: &str, value: impl FnOnce(&T) -> FieldValue) -> Option<FieldEdit> {
        let value = match self {
            Self::Keep => return None,
            Self::Clear => None,
            Self::Set(set) => Some(value(set)),
        };
        Some(FieldEdit { record, field: field.to_owned(), value })
    }
}

pub(super) async fn read(shop: &ShopHandle, document: DocumentId, record: RecordId) -> Result<SharedRecord, PlanError> {
    Ok(shop.ask(move |shop| SharedRecord::read(shop, document, record)).await?)
}

/// An operation that edits one record.
pub(super) fn edited(document: DocumentId, record: RecordId, edits: Vec<FieldEdit>) -> Planned {
    let edits = edits.into_iter().map(|edit| (document, edit)).collect();
    Planned { operation: Operation { edits, ..Operation::default() }, record: Some(record), ..Planned::default() }
}

/// An operation that creates a record under the name that its client gave, or a fresh one.
pub(super) async fn create(
    shop: &ShopHandle,
    role: &str,
    source: Option<&Source>,
    document_of: fn(RecordId) -> DocumentId,
    fields: impl FnOnce(RecordId) -> Vec<FieldEdit>,
) -> Result<Planned, PlanError> {
    let record = match source {
        Some(source) => {
            check_source(source)?;
            super::named_record(shop, source).await?.derived(role, 0)
        }
        None => fresh_record()?,
    };
    let mut edits = fields(record);
    let from = digest(&edits);
    let now = read(shop, document_of(record), record).await?;
    let repeated = match now.text(CREATED_FROM) {
        Some(before) if before != from => return Err(PlanError::IdReused),
        before => before.is_some(),
    };
    if repeated {
        return Ok(Planned { repeated, record: Some(record), ..Planned::default() });
    }
    edits.push(FieldEdit { record, field: CREATED_FROM.to_owned(), value: Some(FieldValue::Text(from)) });
    Ok(edited(document_of(record), record, edits))
}

/// An operation that clears a record and says that it is deleted.
pub(super) fn deleted(document: DocumentId, record: RecordId, now: &SharedRecord) -> Planned {
    let mut edits: Vec<FieldEdit> = now
        .fields
        .keys()
        .filter(|field| *field != DELETED && *field != CREATED_FROM)
        .map(|field| FieldEdit { record, field: field.clone(), value: None })
        .collect();
    edits.push(FieldEdit { record, field: DELETED.to_owned(), value: Some(FieldValue::Bool(true)) });
    edited(document, record, edits)
}

/// The checks of a fact's source, for records that are no facts.
fn check_source(source: &Source) -> Result<(), PlanError> {
    for (field, text) in [("operation_id", &source.key), ("instance", &source.instance)] {
        if text.is_empty() {
            return Err(FactError::Empty { field: field.to_owned() }.into());
        }
        if text.len() > SOURCE_BYTES_MAX {
            return Err(FactError::TooLong { field: field.to_owned(), limit: SOURCE_BYTES_MAX }.into());
        }
    }
    Ok(())
}

fn fresh_record() -> Result<RecordId, PlanError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|_| PlanError::field("operation_id", "is needed: this device has no randomness at the moment"))?;
    Ok(RecordId(hash_uuid(domain_hash("tillmesh 2026 fresh record", &[&random]))))
}

fn digest(edits: &[FieldEdit]) -> String {
    let text: Vec<String> = edits.iter().map(|edit| format!("{}={:?}", edit.field, edit.value)).collect();
    let parts: Vec<&[u8]> = text.iter().map(String::as_bytes).collect();
    let hash = domain_hash("tillmesh 2026 created from", &parts);
    data_encoding::HEXLOWER.encode(hash.get(..8).unwrap_or_default())
}
