//! What the tests of shared documents have in common: three tills' journals, one product shard.

mod convergence;
mod hostile;
mod stories;

use super::*;
use crate::ids::{JournalId, RecordId};

const MONDAY_MS: u64 = 1_291_000_000_000;

fn journal(number: u8) -> JournalId {
    JournalId([number; 16])
}

fn product(number: u8) -> RecordId {
    let mut bytes = [number; 16];
    bytes[15] = 0;
    RecordId(uuid::Uuid::from_bytes(bytes))
}

fn shard() -> SharedDocument {
    SharedDocument::new(DocumentId::Catalogue(0))
}

fn text(text: &str) -> Option<FieldValue> {
    Some(FieldValue::Text(text.to_owned()))
}

fn int(number: i64) -> Option<FieldValue> {
    Some(FieldValue::Int(number))
}

fn edit(number: u8, field: &str, value: Option<FieldValue>) -> FieldEdit {
    FieldEdit { record: product(number), field: field.to_owned(), value }
}

fn write(doc: &mut SharedDocument, by: u8, field: &str, value: Option<FieldValue>) -> Vec<u8> {
    doc.edit(journal(by), MONDAY_MS, &[edit(1, field, value)]).unwrap().unwrap()
}
