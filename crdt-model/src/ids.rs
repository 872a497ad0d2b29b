//! A newtype for each identifier, so that no two kinds can be confused.
//! Times and randomness come in from the edge; everything here is derived.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use data_encoding::HEXLOWER;
use minicbor::{Decode, Decoder, Encode, Encoder};
use uuid::Uuid;

/// A text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("not a {kind}: write {expected}")]
pub struct IdError {
    kind: &'static str,
    expected: &'static str,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Reads exactly the right number of bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or(IdError { kind: $kind, expected: $expected })
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(decoder.bytes()?)
                    .ok_or_else(|| minicbor::decode::Error::message(concat!("wrong length of a ", $kind)))
            }
        }
    };
}

byte_id!(
    /// A device: its Ed25519 public key, which is also its libp2p identity.
    DeviceId, 32, "device id", "64 lowercase hexadecimal digits"
);
byte_id!(
    /// The public half of an owner's or the recovery key (Ed25519).
    OwnerKey, 32, "owner key", "64 lowercase hexadecimal digits"
);
byte_id!(
    /// One device's journal in one epoch: a hash of its genesis.
    JournalId, 16, "journal id", "32 lowercase hexadecimal digits"
);
byte_id!(
    /// BLAKE3 over an entry's header and parts; it names everything before it in its journal.
    EntryHash, 32, "entry hash", "64 lowercase hexadecimal digits"
);
byte_id!(
    /// The first 16 bytes of an [`EntryHash`], as references and frontiers carry it.
    ShortHash, 16, "short hash", "32 lowercase hexadecimal digits"
);

impl EntryHash {
    /// The form that travels in frontiers and references.
    #[must_use]
    pub fn short(&self) -> ShortHash {
        let [head, _] = split_halves(self.0);
        ShortHash(head)
    }
}

fn split_halves(bytes: [u8; 32]) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    for (half, source) in halves.iter_mut().zip(bytes.chunks_exact(16)) {
        half.copy_from_slice(source);
    }
    halves
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError {
                    kind: $kind,
                    expected: "a UUID such as 6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f",
                })
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(self.0.as_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Uuid::from_slice(decoder.bytes()?)
                    .map(Self)
                    .map_err(|_| minicbor::decode::Error::message(concat!("wrong length of a ", $kind)))
            }
        }
    };
}

uuid_id!(
    /// A business: the hash of its genesis, written as a UUID.
    BusinessId, "business id"
);
uuid_id!(
    /// Anything a shop records or edits: a sale, an expense, a product, a ticket, an intent.
    RecordId, "record id"
);

/// Hashes `parts` under a domain so that no two kinds of hash can collide. Each part is
/// preceded by its length.
#[must_use]
pub fn domain_hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    hash_parts(blake3::Hasher::new_derive_key(domain), parts)
}

/// A domain under which much is hashed: its key is worked out once, half of the work for what is
/// short.
#[derive(Debug)]
pub(crate) struct Domain {
    name: &'static str,
    key: OnceLock<ContextKey>,
}

impl Domain {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, key: OnceLock::new() }
    }

    /// As [`domain_hash`].
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = self.key.get_or_init(|| hash_derive_key_context(self.name));
        hash_parts(blake3::Hasher::new_from_context_key(key), parts)
    }
}

fn hash_parts(mut hasher: blake3::Hasher, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The UUID (version 8, RFC 9562) of the first 16 bytes of a hash.
#[must_use]
pub fn hash_uuid(hash: [u8; 32]) -> Uuid {
    let [head, _] = split_halves(hash);
    Uuid::new_v8(head)
}

static FROM_CLIENT: Domain = Domain::new("tillmesh 2026 record from client id");
static FROM_PLACE: Domain = Domain::new("tillmesh 2026 record from place");
static OF_A_RECORD: Domain = Domain::new("tillmesh 2026 record of a record");

impl RecordId {
    /// The record that a client named itself: same business, client instance and client id
    /// give the same record, wherever it was entered.
    #[must_use]
    pub fn from_client(business: BusinessId, instance: &str, key: &str) -> Self {
        Self(hash_uuid(FROM_CLIENT.hash(&[business.0.as_bytes(), instance.as_bytes(), key.as_bytes()])))
    }

    /// The record that only its place in a journal names.
    #[must_use]
    pub fn from_place(journal: JournalId, seq: u64, index: u32) -> Self {
        Self(hash_uuid(FROM_PLACE.hash(&[&journal.0, &seq.to_le_bytes(), &index.to_le_bytes()])))
    }

    /// A record that belongs to another one, such as the payment intent of a sale's tender.
    #[must_use]
    pub fn derived(self, role: &str, index: u32) -> Self {
        Self(hash_uuid(OF_A_RECORD.hash(&[self.0.as_bytes(), role.as_bytes(), &index.to_le_bytes()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text_and_name_what_is_wrong() {
        let device = DeviceId([7; 32]);
        assert_eq!(device.to_string().parse::<DeviceId>(), Ok(device));
        let wrong = "abc".parse::<DeviceId>().unwrap_err();
        assert_eq!(wrong.to_string(), "not a device id: write 64 lowercase hexadecimal digits");
        assert!("not-a-uuid".parse::<RecordId>().is_err());
    }

    #[test]
    fn a_kept_key_changes_no_hash() {
        let name = "tillmesh 2026 a test's own";
        let kept = Domain::new(name);
        for parts in [&[][..], &[b"a".as_slice(), b""], &[&[7; 3000]]] {
            assert_eq!(kept.hash(parts), domain_hash(name, parts));
        }
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_are_version_8() {
        let business = BusinessId(Uuid::new_v8([1; 16]));
        let id = RecordId::from_client(business, "till-1", "42");
        assert_eq!(id, RecordId::from_client(business, "till-1", "42"));
        assert_ne!(id, RecordId::from_client(business, "till-14", "2"));
        assert_eq!(id.0.get_version_num(), 8);
        assert_ne!(id.derived("intent", 0), id.derived("intent", 1));
    }
}
