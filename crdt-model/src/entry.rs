//! Entries: one business operation each, applied whole or not at all, chained by hash.

use minicbor::{Decode, Encode};

use crate::document::{DocumentChange, DocumentId};
use crate::ids::{BusinessId, Domain, EntryHash, JournalId, RecordId, ShortHash};
use crate::record::Fact;
use crate::time::{Day, Hlc};

/// The version of the entry format, part of every hash.
pub const ENTRY_VERSION: u8 = 1;
/// The largest stored entry.
pub const ENTRY_BYTES_MAX: usize = 128 * 1024;
/// The most parts of an entry.
pub const PARTS_MAX: usize = 8;
/// The most facts of an entry.
pub const FACTS_MAX: usize = 64;
/// The most shared-document changes of an entry.
pub const CHANGES_MAX: usize = 256;
/// The most references of an entry to other journals.
pub const AFTER_MAX: usize = 256;
/// The most facts that a page holds before its till begins another.
pub const PAGE_FACTS_MAX: u32 = 256;

/// An entry's place: journal and sequence number (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Place {
    /// The journal.
    #[n(0)]
    pub journal: JournalId,
    /// The sequence number, from 1.
    #[n(1)]
    pub seq: u64,
}

/// Another journal's entry that this one builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct After {
    /// Where it is.
    #[n(0)]
    pub place: Place,
    /// Which entry is meant there, should that journal have forked.
    #[n(1)]
    pub hash: ShortHash,
}

/// What links carry first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Class {
    /// Receipts and declines.
    #[n(0)]
    Payment,
    /// Revocations and other membership facts.
    #[n(1)]
    Membership,
    /// An entry with a payment intent.
    #[n(2)]
    Intent,
    /// Everything else.
    #[n(3)]
    Normal,
}

/// The daybook page that an entry is written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct PageLabel {
    /// The page's number in its journal, from 0.
    #[n(0)]
    pub ordinal: u32,
    /// The till's business day when the page was begun.
    #[n(1)]
    pub day: Day,
}

/// Who may read a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Audience {
    /// Every member of the business.
    #[n(0)]
    Members,
    /// The relay alone.
    #[n(1)]
    Relay,
}

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum PartKind {
    /// A CBOR array of [`Fact`].
    #[n(0)]
    Facts,
    /// A CBOR array of [`Personal`]; may be erased later.
    #[n(1)]
    Personal,
    /// A CBOR array of [`DocumentChange`].
    #[n(2)]
    Changes,
}

/// Personal data of one fact of the same entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Personal {
    /// The index of the fact in its entry.
    #[n(0)]
    pub fact: u32,
    /// The payer's phone number, digits with country code.
    #[n(1)]
    pub phone: Option<String>,
}

/// A part of an entry's body. Its hash, not its bytes, is in the chain, so that it can be
/// erased without breaking the chain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// Who may read it.
    #[n(0)]
    pub audience: Audience,
    /// What it holds.
    #[n(1)]
    pub kind: PartKind,
    /// For personal parts: hides what an erased part's hash was made from.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub salt: Option<[u8; 16]>,
    /// The bytes, or what is left of them.
    #[n(3)]
    pub content: PartContent,
}

/// A part's bytes, or only their hash once they were erased.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PartContent {
    /// The plaintext.
    #[n(0)]
    Present(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The hash of a part that was erased.
    #[n(1)]
    Erased(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
}

/// The author's signature over an entry's hash, which vouches for every entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// The entry's hash.
    #[n(0)]
    pub hash: EntryHash,
    /// Ed25519 by the device's key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// One entry without what its place implies (business, journal, sequence, previous hash).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// What links carry first.
    #[n(0)]
    pub class: Class,
    /// The daybook page it is written on.
    #[n(1)]
    pub page: PageLabel,
    /// When it was made.
    #[n(2)]
    pub time: Hlc,
    /// Which member of staff made it.
    #[n(3)]
    pub user: Option<String>,
    /// The entries of other journals that it builds on.
    #[n(4)]
    pub after: Vec<After>,
    /// Its body.
    #[n(5)]
    pub parts: Vec<Part>,
    /// The author's signature, where one is kept.
    #[n(6)]
    pub mark: Option<Mark>,
}

/// Why an entry can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It is larger than any entry may be, or has too many of something.
    #[error("the entry is over its limit of {limit} {what}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// Its bytes are not an entry of this version.
    #[error("the entry can't be read by this version: {0}")]
    Unreadable(String),
}

/// A decoded body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// Facts, in order; a fact's index is its place here.
    pub facts: Vec<Fact>,
    /// Personal data of those facts, where it was not erased.
    pub personal: Vec<Personal>,
    /// Changes to shared documents.
    pub changes: Vec<DocumentChange>,
}

/// Room for most parts, so that encoding one seldom moves it.
const PART_BYTES_USUAL: usize = 512;

static PART: Domain = Domain::new("tillmesh 2026 part");
static ENTRY: Domain = Domain::new("tillmesh 2026 entry");

impl Part {
    /// The hash that stands in the chain for this part.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        match &self.content {
            PartContent::Erased(hash) => *hash,
            PartContent::Present(bytes) => {
                let tag = [self.audience as u8, self.kind as u8];
                let salt = self.salt.as_ref().map_or(&[][..], |salt| &salt[..]);
                PART.hash(&[&tag, salt, bytes])
            }
        }
    }

    /// A part for all members, unless there is nothing to put into it.
    pub(crate) fn of<T: Encode<()>>(kind: PartKind, salt: Option<[u8; 16]>, items: &[T]) -> Option<Self> {
        if items.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(PART_BYTES_USUAL);
        // Writing to memory can't fail.
        drop(minicbor::encode(items, &mut bytes));
        Some(Self { audience: Audience::Members, kind, salt, content: PartContent::Present(bytes) })
    }

    /// How many bytes of content it holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes().len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.content {
            PartContent::Present(bytes) => bytes,
            PartContent::Erased(_) => &[],
        }
    }
}

impl Body {
    /// Encodes the body as parts. `salt` is asked for if there is a personal part.
    #[must_use]
    pub fn to_parts(&self, salt: impl FnOnce() -> [u8; 16]) -> Vec<Part> {
        let facts = Part::of(PartKind::Facts, None, &self.facts);
        let salt = if self.personal.is_empty() { None } else { Some(salt()) };
        let personal = Part::of(PartKind::Personal, salt, &self.personal);
        let changes = Part::of(PartKind::Changes, None, &self.changes);
        [facts, personal, changes].into_iter().flatten().collect()
    }

    /// The record id of the fact at `index`.
    #[must_use]
    pub fn record_id(&self, business: BusinessId, place: Place, index: usize) -> Option<RecordId> {
        let fact = self.facts.get(index)?;
        Some(fact.record_id(business, place.journal, place.seq, u32::try_from(index).ok()?))
    }

    /// The documents that the body changes.
    pub fn documents(&self) -> impl Iterator<Item = DocumentId> + '_ {
        self.changes.iter().map(|change| change.document)
    }
}

impl Entry {
    /// The entry's hash at `seq` of `journal`, after the entry with hash `previous`.
    #[must_use]
    pub fn hash(&self, business: BusinessId, journal: JournalId, seq: u64, previous: &EntryHash) -> EntryHash {
        self.hash_with(&self.part_hashes(), business, journal, seq, previous)
    }

    /// The hashes of its parts, one after another.
    pub(crate) fn part_hashes(&self) -> Vec<u8> {
        let mut hashes = Vec::with_capacity(32 * self.parts.len());
        for part in &self.parts {
            hashes.extend_from_slice(&part.hash());
        }
        hashes
    }

    /// The same with the part hashes at hand.
    pub(crate) fn hash_with(
        &self,
        part_hashes: &[u8],
        business: BusinessId,
        journal: JournalId,
        seq: u64,
        previous: &EntryHash,
    ) -> EntryHash {
        let mut header = Vec::with_capacity(160);
        header.push(ENTRY_VERSION);
        header.push(self.class as u8);
        header.extend_from_slice(business.0.as_bytes());
        header.extend_from_slice(&journal.0);
        header.extend_from_slice(&seq.to_le_bytes());
        header.extend_from_slice(&previous.0);
        header.extend_from_slice(&self.page.ordinal.to_le_bytes());
        header.extend_from_slice(&self.page.day.0.to_le_bytes());
        header.extend_from_slice(&self.time.0.to_le_bytes());
        let user = self.user.as_deref().unwrap_or_default();
        header.extend_from_slice(&(user.len() as u64).to_le_bytes());
        header.extend_from_slice(user.as_bytes());
        for after in &self.after {
            header.extend_from_slice(&after.place.journal.0);
            header.extend_from_slice(&after.place.seq.to_le_bytes());
            header.extend_from_slice(&after.hash.0);
        }
        EntryHash(ENTRY.hash(&[&header, part_hashes]))
    }

    /// Checks the protocol's limits, which are constants: time and configuration never decide.
    ///
    /// # Errors
    /// [`EntryError::OverLimit`].
    pub fn check_limits(&self) -> Result<(), EntryError> {
        let bytes: usize = self.parts.iter().map(|part| part.bytes().len()).sum();
        let user = self.user.as_deref().unwrap_or_default().len();
        for (what, count, limit) in [
            ("bytes", bytes + user, ENTRY_BYTES_MAX),
            ("parts", self.parts.len(), PARTS_MAX),
            ("references", self.after.len(), AFTER_MAX),
        ] {
            if count > limit {
                return Err(EntryError::OverLimit { what, limit });
            }
        }
        Ok(())
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// [`EntryError::Unreadable`] for a schema this version doesn't know, and
    /// [`EntryError::OverLimit`].
    pub fn body(&self) -> Result<Body, EntryError> {
        let mut body = Body::default();
        for part in &self.parts {
            if matches!(part.content, PartContent::Erased(_)) {
                continue;
            }
            match part.kind {
                PartKind::Facts => body.facts.extend(decode_list::<Fact>(part.bytes(), "facts", FACTS_MAX)?),
                PartKind::Personal => {
                    body.personal.extend(decode_list::<Personal>(part.bytes(), "personal data", FACTS_MAX)?)
                }
                PartKind::Changes => {
                    body.changes.extend(decode_list::<DocumentChange>(part.bytes(), "changes", CHANGES_MAX)?)
                }
            }
        }
        Ok(body)
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts: usize = self.parts.iter().map(|part| part.size_bytes() + 40).sum();
        let mut bytes = Vec::with_capacity(parts + 44 * self.after.len() + 160);
        // Writing to memory can't fail.
        drop(minicbor::encode(self, &mut bytes));
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`EntryError::Unreadable`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        minicbor::decode(bytes).map_err(|error| EntryError::Unreadable(error.to_string()))
    }
}

fn decode_list<'b, T: Decode<'b, ()>>(bytes: &'b [u8], what: &'static str, limit: usize) -> Result<Vec<T>, EntryError> {
    let unreadable = |error: minicbor::decode::Error| EntryError::Unreadable(error.to_string());
    let mut decoder = minicbor::Decoder::new(bytes);
    let count = decoder
        .array()
        .map_err(unreadable)?
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| EntryError::Unreadable(format!("{what} without a length")))?;
    if count > limit {
        return Err(EntryError::OverLimit { what, limit });
    }
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(decoder.decode().map_err(unreadable)?);
    }
    if decoder.position() != bytes.len() {
        return Err(EntryError::Unreadable(format!("{what} with bytes behind them")));
    }
    Ok(list)
}
