//! What the imported lines say about each product.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thiserror::Error;

use super::pennies::whole_pennies_up;
use super::reader::RetailLine;

/// The products of a file by stock code, fed line by line in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    items: BTreeMap<String, CatalogueItem>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogueItem {
    /// The most recent description of a line with a price; without one, the most recent other.
    /// (Unpriced lines are stock notes: "damaged", "?", "lost".) Empty if no line has any.
    pub description: String,
    /// The most recent price above zero, in pence, a finer one rounded up; 0 if there was none.
    pub unit_price_minor: i64,
    description_is_priced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the file has more than {} stock codes; split it and import the pieces", ITEMS_MAX)]
pub struct TooManyItems;

impl Catalogue {
    /// Takes one line in.
    ///
    /// # Errors
    /// A new stock code when the catalogue is full; nothing has changed then.
    pub fn observe(&mut self, line: &RetailLine) -> Result<(), TooManyItems> {
        let full = self.items.len() >= ITEMS_MAX;
        let item = match self.items.entry(line.stock_code.clone()) {
            Entry::Vacant(_) if full => return Err(TooManyItems),
            Entry::Vacant(vacant) => vacant.insert(CatalogueItem::default()),
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let priced = line.unit_price_micro > 0;
        if !line.description.is_empty() && (priced || !item.description_is_priced) {
            item.description.clone_from(&line.description);
            item.description_is_priced = priced;
        }
        if priced {
            item.unit_price_minor = whole_pennies_up(line.unit_price_micro);
        }
        Ok(())
    }

    /// The products in the order of their stock codes.
    pub fn items(&self) -> impl ExactSizeIterator<Item = (&str, &CatalogueItem)> {
        self.items.iter().map(|(code, item)| (code.as_str(), item))
    }
}

/// Bounds memory; the public file has about 4,000 in a year.
const ITEMS_MAX: usize = 200_000;
