//! Which products the catalogue lists. Every line of every sale asks, and a shared document
//! answers slowly, so it is kept beside the documents as they change.

use std::collections::BTreeSet;

use super::Shop;
use crate::document::{DELETED, DocumentId, FieldValue, SharedDocument, parse_key};
use crate::ids::RecordId;

/// A product's own field.
const SKU: &str = "sku";

impl Shop {
    /// Whether the catalogue has a product.
    #[must_use]
    pub fn lists(&self, product: RecordId) -> bool {
        self.listed.contains(&product)
    }

    /// Follows a change of a document.
    pub(super) fn relist(&mut self, id: DocumentId, keys: &BTreeSet<String>) {
        if !matches!(id, DocumentId::Catalogue(_)) {
            return;
        }
        let Some(document) = self.documents.get(&id).map(super::lazy::LazyDocument::shared) else { return };
        for (product, field) in keys.iter().filter_map(|key| parse_key(key)) {
            if field != SKU && field != DELETED {
                continue;
            }
            if is_listed(document, product) {
                self.listed.insert(product);
            } else {
                self.listed.remove(&product);
            }
        }
    }
}

fn is_listed(document: &SharedDocument, product: RecordId) -> bool {
    document.field(product, SKU).is_some() && document.field(product, DELETED) != Some(FieldValue::Bool(true))
}
