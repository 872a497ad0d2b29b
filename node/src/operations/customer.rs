//! Customers.

use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::RecordId;
use crdt_model::record::{NAME_BYTES_MAX, Source};

use super::shared_record::{self, Edit};
use super::{PlanError, Planned};
use crate::shop_handle::ShopHandle;

/// A customer's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomerFields {
    /// The name.
    pub name: Edit<String>,
    /// The phone number, as the customer gave it.
    pub phone: Edit<String>,
    /// A note.
    pub note: Edit<String>,
}

/// Adds a customer.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn create_customer(
    shop: &ShopHandle,
    source: Option<&Source>,
    fields: &CustomerFields,
) -> Result<Planned, PlanError> {
    if !matches!(fields.name, Edit::Set(_)) {
        return Err(PlanError::field("name", "is missing: give it a value"));
    }
    fields.check()?;
    shared_record::create(shop, "customer", source, DocumentId::customers, |record| fields.edits(record)).await
}

/// Corrects fields of a customer.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn edit_customer(shop: &ShopHandle, record: RecordId, fields: &CustomerFields) -> Result<Planned, PlanError> {
    fields.check()?;
    if fields.name == Edit::Clear {
        return Err(PlanError::field("name", "can't be taken away: give it a value, or delete the customer"));
    }
    if !shared_record::read(shop, DocumentId::customers(record), record).await?.exists() {
        return Err(unknown(record));
    }
    Ok(shared_record::edited(DocumentId::customers(record), record, fields.edits(record)))
}

/// Deletes a customer's fields. Sales keep the id.
///
/// # Errors
/// [`PlanError`].
pub async fn delete_customer(shop: &ShopHandle, record: RecordId) -> Result<Planned, PlanError> {
    let now = shared_record::read(shop, DocumentId::customers(record), record).await?;
    if !now.exists() {
        return Err(unknown(record));
    }
    Ok(shared_record::deleted(DocumentId::customers(record), record, &now))
}

fn unknown(record: RecordId) -> PlanError {
    PlanError::NotFound { what: "customer", id: record.to_string() }
}

impl CustomerFields {
    fn check(&self) -> Result<(), PlanError> {
        for (field, edit) in [("name", &self.name), ("phone", &self.phone)] {
            match edit {
                Edit::Set(text) if text.is_empty() => {
                    return Err(PlanError::field(field, "is empty: give it a value"));
                }
                Edit::Set(text) if text.len() > NAME_BYTES_MAX => {
                    return Err(PlanError::field(field, format!("is too long: keep it to {NAME_BYTES_MAX} bytes")));
                }
                Edit::Set(_) | Edit::Keep | Edit::Clear => {}
            }
        }
        Ok(())
    }

    fn edits(&self, record: RecordId) -> Vec<FieldEdit> {
        [("name", &self.name), ("phone", &self.phone), ("note", &self.note)]
            .into_iter()
            .filter_map(|(field, edit)| edit.of(record, field, |text| FieldValue::Text(text.clone())))
            .collect()
    }
}
