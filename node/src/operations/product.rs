//! Products of the catalogue, by SKU.

use crdt_model::document::{DELETED, DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::{BusinessId, RecordId};
use crdt_model::record::NAME_BYTES_MAX;
use crdt_model::shop::Shop;

use super::shared_record::{self, Edit, SharedRecord};
use super::{PlanError, Planned, State};
use crate::shop_handle::ShopHandle;

/// A product's correctable fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductFields {
    /// Its name.
    pub name: Edit<String>,
    /// The price of one unit, in minor units of the business's currency; not negative.
    pub price_minor: Edit<i64>,
    /// The tax that the price includes, in hundredths of a per cent.
    pub tax_rate_bp: Edit<u32>,
    /// Its category.
    pub category: Edit<String>,
    /// Whether it is sold at the moment.
    pub active: Edit<bool>,
}

/// The record of a product: its SKU names it, wherever it is entered.
#[must_use]
pub fn product_record(business: BusinessId, sku: &str) -> RecordId {
    RecordId::from_client(business, "product", sku)
}

/// Whether a product is in the catalogue.
#[must_use]
pub fn product_is_listed(shop: &Shop, sku: &str) -> bool {
    shop.lists(product_record(shop.business(), sku))
}

/// Adds a product. Asked again with the same fields, it is the same product.
///
/// # Errors
/// [`PlanError`]; [`State::ProductExists`] if it is there with other fields.
pub async fn create_product(shop: &ShopHandle, sku: &str, fields: &ProductFields) -> Result<Planned, PlanError> {
    check(sku, fields)?;
    let (record, now) = find(shop, sku).await?;
    if now.exists() {
        let same = fields.edits(record).iter().all(|edit| now.fields.get(&edit.field) == edit.value.as_ref());
        if same {
            return Ok(Planned { repeated: true, record: Some(record), ..Planned::default() });
        }
        let reason = format!("product {sku} is in the catalogue with other fields: correct it with PATCH");
        return Err(PlanError::State { state: State::ProductExists, reason });
    }
    Ok(shared_record::edited(DocumentId::catalogue(record), record, written(record, sku, fields, &now)))
}

/// Gives a product exactly these fields, whether or not it is there.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn replace_product(shop: &ShopHandle, sku: &str, fields: &ProductFields) -> Result<Planned, PlanError> {
    check(sku, fields)?;
    let (record, now) = find(shop, sku).await?;
    let mut edits = written(record, sku, fields, &now);
    let stale = now.fields.keys().filter(|field| *field != DELETED && !edits.iter().any(|edit| edit.field == **field));
    let stale: Vec<FieldEdit> = stale.map(|field| FieldEdit { record, field: field.clone(), value: None }).collect();
    edits.extend(stale);
    Ok(shared_record::edited(DocumentId::catalogue(record), record, edits))
}

/// Corrects fields of a product.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn edit_product(shop: &ShopHandle, sku: &str, fields: &ProductFields) -> Result<Planned, PlanError> {
    check(sku, fields)?;
    let (record, now) = find(shop, sku).await?;
    if !now.exists() {
        return Err(unknown(sku));
    }
    Ok(shared_record::edited(DocumentId::catalogue(record), record, fields.edits(record)))
}

/// Takes a product out of the catalogue. What was sold of it stays sold.
///
/// # Errors
/// [`PlanError`].
pub async fn delete_product(shop: &ShopHandle, sku: &str) -> Result<Planned, PlanError> {
    let (record, now) = find(shop, sku).await?;
    if !now.exists() {
        return Err(unknown(sku));
    }
    Ok(shared_record::deleted(DocumentId::catalogue(record), record, &now))
}

fn unknown(sku: &str) -> PlanError {
    PlanError::NotFound { what: "product", id: sku.to_owned() }
}

async fn find(shop: &ShopHandle, sku: &str) -> Result<(RecordId, SharedRecord), PlanError> {
    let business = shop.ask(|shop| shop.business()).await?;
    let record = product_record(business, sku);
    let now = shared_record::read(shop, DocumentId::catalogue(record), record).await?;
    Ok((record, now))
}

/// What makes a product be there with these fields.
fn written(record: RecordId, sku: &str, fields: &ProductFields, now: &SharedRecord) -> Vec<FieldEdit> {
    let mut edits = fields.edits(record);
    let text = FieldValue::Text(sku.to_owned());
    edits.push(FieldEdit { record, field: "sku".to_owned(), value: Some(text) });
    if now.fields.contains_key(DELETED) {
        edits.push(FieldEdit { record, field: DELETED.to_owned(), value: None });
    }
    edits
}

fn check(sku: &str, fields: &ProductFields) -> Result<(), PlanError> {
    let text = |field: &str, text: &str| {
        if text.is_empty() {
            return Err(PlanError::field(field, "is empty: give it a value"));
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(PlanError::field(field, format!("is too long: keep it to {NAME_BYTES_MAX} bytes")));
        }
        Ok(())
    };
    text("sku", sku)?;
    if let Edit::Set(name) = &fields.name {
        text("name", name)?;
    }
    if let Edit::Set(category) = &fields.category {
        text("category", category)?;
    }
    if matches!(fields.price_minor, Edit::Set(price) if price < 0) {
        return Err(PlanError::field("price_minor", "must not be negative"));
    }
    if matches!(fields.tax_rate_bp, Edit::Set(rate) if rate > 10_000) {
        return Err(PlanError::field("tax_rate_bp", "must be at most 10000 (100 %)"));
    }
    Ok(())
}

impl ProductFields {
    fn edits(&self, record: RecordId) -> Vec<FieldEdit> {
        [
            self.name.of(record, "name", |name| FieldValue::Text(name.clone())),
            self.price_minor.of(record, "price_minor", |price| FieldValue::Int(*price)),
            self.tax_rate_bp.of(record, "tax_rate_bp", |rate| FieldValue::Int(i64::from(*rate))),
            self.category.of(record, "category", |category| FieldValue::Text(category.clone())),
            self.active.of(record, "active", |active| FieldValue::Bool(*active)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
