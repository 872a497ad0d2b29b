//! Shared documents: correctable fields that several devices edit at once, merged by Automerge.
//! Flat keys `<record>/<field>` at the root, so that no two devices ever create one container.

mod chunk;
mod content;
mod edit;
mod id;
mod shared;
mod verify;

#[cfg(test)]
mod tests;

use minicbor::{Decode, Encode};

pub use content::{DELETED, EditError, FieldEdit, FieldValue, Valued, field_key, parse_key};
pub use id::{ANNOTATIONS_SHARDS, CATALOGUE_SHARDS, CUSTOMERS_SHARDS, DocumentId, DocumentIdError, TICKETS_SHARDS};
pub use shared::{LoadError, SharedDocument};
pub use verify::{ApplyError, Verified};

/// The largest change, in bytes.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// The most operations of a change; each character of a text is one.
pub const OPS_MAX: usize = 8 * 1024;
/// The most earlier changes that a change names; more than that many devices would have to
/// write to one shard without hearing of each other.
pub const DEPS_MAX: usize = 512;
/// The most values that one change replaces.
pub const REPLACED_MAX: usize = 8 * 1024;
/// The longest name of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 128;

/// One Automerge change to a shared document, as the raw bytes of an uncompressed change chunk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DocumentChange {
    /// The document.
    #[n(0)]
    pub document: DocumentId,
    /// The change.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}
