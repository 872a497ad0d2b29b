//! Which shared document a record's fields are in.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use uuid::Uuid;

use crate::ids::RecordId;

/// How many documents hold corrections of recorded facts.
pub const ANNOTATIONS_SHARDS: u8 = 64;
/// How many documents hold products.
pub const CATALOGUE_SHARDS: u8 = 64;
/// How many documents hold customers.
pub const CUSTOMERS_SHARDS: u8 = 64;
/// How many documents hold open tickets.
pub const TICKETS_SHARDS: u8 = 16;

/// A shared document. All but the settings are split into shards of a few hundred keys,
/// because applying a remote change costs time in proportion to the keys of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum DocumentId {
    /// Corrections of recorded facts: a sale's note and customer, an expense's category.
    #[n(0)]
    Annotations(#[n(0)] u8),
    /// Products.
    #[n(1)]
    Catalogue(#[n(0)] u8),
    /// Customers.
    #[n(2)]
    Customers(#[n(0)] u8),
    /// The business's settings.
    #[n(3)]
    Settings,
    /// Open tickets.
    #[n(4)]
    Tickets(#[n(0)] u8),
}

/// A text or number that names no shared document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentIdError {
    /// The text is not of the form of a document's name.
    #[error("not a document id: write settings, or a name and a shard such as catalogue-17")]
    Unreadable,
    /// There are fewer shards than that.
    #[error("{name} has {shards} shards: write {name}-0 to {name}-{}", shards - 1)]
    NoSuchShard {
        /// The documents' common name.
        name: &'static str,
        /// How many there are.
        shards: u8,
    },
}

impl DocumentId {
    /// The document with the corrections of a recorded fact.
    #[must_use]
    pub fn annotations(record: RecordId) -> Self {
        Self::Annotations(shard(record, ANNOTATIONS_SHARDS))
    }

    /// The document with a product.
    #[must_use]
    pub fn catalogue(record: RecordId) -> Self {
        Self::Catalogue(shard(record, CATALOGUE_SHARDS))
    }

    /// The document with a customer.
    #[must_use]
    pub fn customers(record: RecordId) -> Self {
        Self::Customers(shard(record, CUSTOMERS_SHARDS))
    }

    /// The document with an open ticket.
    #[must_use]
    pub fn tickets(record: RecordId) -> Self {
        Self::Tickets(shard(record, TICKETS_SHARDS))
    }

    /// The one record of [`DocumentId::Settings`].
    #[must_use]
    pub const fn settings_record() -> RecordId {
        RecordId(Uuid::nil())
    }

    /// Checks that there is such a shard; an id from a peer may name any.
    ///
    /// # Errors
    /// [`DocumentIdError::NoSuchShard`].
    pub fn check(self) -> Result<(), DocumentIdError> {
        let (name, shard, shards) = self.parts();
        match shard {
            Some(shard) if shard >= shards => Err(DocumentIdError::NoSuchShard { name, shards }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the fields of `record` belong in this document.
    #[must_use]
    pub fn holds(self, record: RecordId) -> bool {
        match self {
            Self::Annotations(_) => self == Self::annotations(record),
            Self::Catalogue(_) => self == Self::catalogue(record),
            Self::Customers(_) => self == Self::customers(record),
            Self::Settings => record == Self::settings_record(),
            Self::Tickets(_) => self == Self::tickets(record),
        }
    }

    const fn parts(self) -> (&'static str, Option<u8>, u8) {
        match self {
            Self::Annotations(shard) => ("annotations", Some(shard), ANNOTATIONS_SHARDS),
            Self::Catalogue(shard) => ("catalogue", Some(shard), CATALOGUE_SHARDS),
            Self::Customers(shard) => ("customers", Some(shard), CUSTOMERS_SHARDS),
            Self::Settings => ("settings", None, 1),
            Self::Tickets(shard) => ("tickets", Some(shard), TICKETS_SHARDS),
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (name, Some(shard), _) => write!(f, "{name}-{shard}"),
            (name, None, _) => f.write_str(name),
        }
    }
}

impl FromStr for DocumentId {
    type Err = DocumentIdError;

    fn from_str(text: &str) -> Result<Self, DocumentIdError> {
        if text == "settings" {
            return Ok(Self::Settings);
        }
        let (name, number) = text.split_once('-').ok_or(DocumentIdError::Unreadable)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DocumentIdError::Unreadable);
        }
        // A number beyond 255 is a shard that doesn't exist either.
        let shard = number.parse().unwrap_or(u8::MAX);
        let id = match name {
            "annotations" => Self::Annotations(shard),
            "catalogue" => Self::Catalogue(shard),
            "customers" => Self::Customers(shard),
            "tickets" => Self::Tickets(shard),
            _ => return Err(DocumentIdError::Unreadable),
        };
        id.check()?;
        if id.to_string() != text {
            return Err(DocumentIdError::Unreadable);
        }
        Ok(id)
    }
}

/// The last byte of a record id is a byte of a hash, so shards fill evenly.
fn shard(record: RecordId, shards: u8) -> u8 {
    let [.., last] = *record.0.as_bytes();
    last % shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_ids_round_trip_through_text_and_refuse_what_names_no_document() {
        for text in ["annotations-63", "catalogue-17", "customers-0", "settings", "tickets-15"] {
            assert_eq!(text.parse::<DocumentId>().unwrap().to_string(), text);
        }
        for wrong in ["", "settings-0", "catalogue", "catalogue-", "catalogue-07", "catalogue-+7", "sales-1"] {
            assert_eq!(wrong.parse::<DocumentId>(), Err(DocumentIdError::Unreadable), "{wrong}");
        }
        let error = "tickets-16".parse::<DocumentId>().unwrap_err();
        assert_eq!(error.to_string(), "tickets has 16 shards: write tickets-0 to tickets-15");
        assert!("catalogue-999".parse::<DocumentId>().is_err());
        assert!(DocumentId::Catalogue(64).check().is_err());
    }

    #[test]
    fn a_record_belongs_to_exactly_one_shard_of_each_kind() {
        let record = RecordId(Uuid::from_bytes([0xff; 16]));
        assert_eq!(DocumentId::catalogue(record), DocumentId::Catalogue(63));
        assert_eq!(DocumentId::tickets(record), DocumentId::Tickets(15));
        assert!(DocumentId::Catalogue(63).holds(record));
        assert!(!DocumentId::Catalogue(62).holds(record));
        assert!(DocumentId::Settings.holds(DocumentId::settings_record()));
    }
}
