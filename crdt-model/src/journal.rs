//! Journals: one device's chain of entries in one epoch, and the checks that every run of
//! entries passes before it is stored.

use std::borrow::Cow;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::entry::{Entry, EntryError, Mark, PageLabel};
use crate::ids::{BusinessId, DeviceId, EntryHash, JournalId, domain_hash};
use crate::record::{Certificate, CertificateError, Genesis};
use crate::time::Hlc;

/// The author signs at least every so many entries, so that a cut link loses few.
pub const MARK_EVERY_ENTRIES: u64 = 64;
/// The author signs at least every so many bytes of entries, so that a run stays within a frame.
pub const MARK_EVERY_BYTES: usize = 128 * 1024;

/// What begins a journal. Its hash names the journal and precedes its first entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JournalGenesis {
    /// The business.
    #[n(0)]
    pub business: BusinessId,
    /// The device that writes it.
    #[n(1)]
    pub device: DeviceId,
    /// The device's epoch, from 1; a restore or reinstall begins a new one.
    #[n(2)]
    pub epoch: u64,
    /// Randomness: two copies of one folder that both begin an epoch begin different journals.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

impl JournalGenesis {
    /// The hash that precedes the first entry.
    #[must_use]
    pub fn hash(&self) -> EntryHash {
        EntryHash(domain_hash(
            "tillmesh 2026 journal genesis",
            &[self.business.0.as_bytes(), &self.device.0, &self.epoch.to_le_bytes(), &self.nonce],
        ))
    }

    /// The journal's id.
    #[must_use]
    pub fn id(&self) -> JournalId {
        JournalId(self.hash().short().0)
    }
}

/// Where a branch of a forked journal leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    /// The last entry that the branches share.
    #[n(0)]
    pub seq: u64,
    /// Its hash.
    #[n(1)]
    pub hash: EntryHash,
    /// The hash of the branch's first entry; it names the branch.
    #[n(2)]
    pub first: EntryHash,
}

/// All that is needed to verify a journal's entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JournalInfo {
    /// What began it.
    #[n(0)]
    pub genesis: JournalGenesis,
    /// For a branch of a forked journal: where it leaves.
    #[n(1)]
    pub fork: Option<Fork>,
    /// The owner's word that the device belongs to the business.
    #[n(2)]
    pub certificate: Certificate,
}

/// Why a run of entries, or a journal, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The journal is of another business.
    #[error("the journal belongs to another business")]
    OtherBusiness,
    /// Its device is not enrolled.
    #[error("the journal's device is not enrolled: {0}")]
    NotEnrolled(#[from] CertificateError),
    /// The chain does not lead to the signature.
    #[error("the entries do not lead to their author's signature: they are forged, damaged, or of a fork")]
    BrokenChain,
    /// An entry is over a limit or unreadable.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl JournalInfo {
    /// The journal's id: its genesis's, or for a branch one that its first entry names.
    #[must_use]
    pub fn id(&self) -> JournalId {
        match &self.fork {
            None => self.genesis.id(),
            Some(fork) => JournalId(fork.first.short().0),
        }
    }

    /// The sequence number and hash that precede the first entry.
    #[must_use]
    pub fn before_first(&self) -> (u64, EntryHash) {
        match &self.fork {
            None => (0, self.genesis.hash()),
            Some(fork) => (fork.seq, fork.hash),
        }
    }

    /// The device that wrote it.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.genesis.device
    }

    /// Checks that an enrolled device of this business writes it.
    ///
    /// # Errors
    /// A [`JournalError`].
    pub fn verify(&self, business: &Genesis) -> Result<(), JournalError> {
        if self.genesis.business != business.business() {
            return Err(JournalError::OtherBusiness);
        }
        if self.certificate.device != self.genesis.device {
            return Err(JournalError::NotEnrolled(CertificateError::BadSignature));
        }
        Ok(self.certificate.verify(business)?)
    }
}

/// What a replica knows of one journal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Journal {
    /// How to verify it.
    #[n(0)]
    pub info: JournalInfo,
    /// The last sequence number before the held interval; everything in (base, high] is held.
    #[n(1)]
    pub base: u64,
    /// The last entry held.
    #[n(2)]
    pub high: u64,
    /// Its hash.
    #[n(3)]
    pub head: EntryHash,
    /// The last entry that the books and documents contain.
    #[n(4)]
    pub applied: u64,
    /// The time of the last entry held.
    #[n(5)]
    pub last_time: Hlc,
    /// The last signed entry and its hash.
    #[n(6)]
    pub marked: (u64, EntryHash),
    /// Signed entries and their hashes, oldest first: many recent ones, fewer older ones, to
    /// find where a forked journal parts.
    #[n(7)]
    pub checkpoints: Vec<(u64, EntryHash)>,
    /// What the last entry held says of the next.
    #[n(8)]
    pub tail: Tail,
}

/// What one entry says of the next, which mostly resembles it: compact runs leave it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tail {
    /// When it was made.
    #[n(0)]
    pub time: Hlc,
    /// The page it is written on.
    #[n(1)]
    pub page: PageLabel,
    /// Who made it.
    #[n(2)]
    pub user: Option<String>,
}

impl Tail {
    /// What follows from an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self { time: entry.time, page: entry.page, user: entry.user.clone() }
    }
}

/// How many checkpoints are kept before every second of the older half is dropped.
const CHECKPOINTS_KEPT: usize = 48;

impl Journal {
    /// An empty replica of a journal.
    #[must_use]
    pub fn new(info: JournalInfo) -> Self {
        let (base, head) = info.before_first();
        Self {
            info,
            base,
            high: base,
            head,
            applied: base,
            last_time: Hlc::default(),
            marked: (base, head),
            checkpoints: vec![(base, head)],
            tail: Tail::default(),
        }
    }

    /// The id under which it is stored.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.info.id()
    }

    /// The hash that `entry` has as the next of this journal.
    #[must_use]
    pub fn next_hash(&self, entry: &Entry) -> EntryHash {
        entry.hash(self.info.genesis.business, self.info.genesis.id(), self.high.saturating_add(1), &self.head)
    }

    /// Takes an entry that was checked as the next one.
    pub fn advance(&mut self, hash: EntryHash, entry: &Entry) {
        self.high = self.high.saturating_add(1);
        self.head = hash;
        self.last_time = self.last_time.max(entry.time);
        self.tail = Tail::of(entry);
        if entry.mark.is_some() {
            self.note_mark(self.high, hash);
        }
    }

    /// Notes that the entry `seq` is signed.
    pub fn note_mark(&mut self, seq: u64, hash: EntryHash) {
        self.marked = (seq, hash);
        self.checkpoints.push((seq, hash));
        if self.checkpoints.len() > CHECKPOINTS_KEPT {
            let mut index = 0;
            self.checkpoints.retain(|_| {
                index += 1;
                index > CHECKPOINTS_KEPT / 2 || index % 2 == 1
            });
        }
    }

    /// Checks a run that follows the held entries: limits, chain, and the author's signature
    /// over its last entry. Gives each entry's hash.
    ///
    /// # Errors
    /// A [`JournalError`]; nothing has changed.
    pub fn verify_run(&self, entries: &[Entry], signature: &[u8; 64]) -> Result<Vec<EntryHash>, JournalError> {
        for entry in entries {
            entry.check_limits()?;
        }
        self.verify_chain(entries.iter().map(|entry| (entry, Cow::Owned(entry.part_hashes()))), signature)
    }

    /// Checks chain and signature of entries whose limits were checked and whose parts were hashed.
    pub(crate) fn verify_chain<'e>(
        &self,
        entries: impl Iterator<Item = (&'e Entry, Cow<'e, [u8]>)>,
        signature: &[u8; 64],
    ) -> Result<Vec<EntryHash>, JournalError> {
        let business = self.info.genesis.business;
        let author = self.info.genesis.id();
        let mut previous = self.head;
        let mut hashes = Vec::with_capacity(entries.size_hint().0);
        for (seq, (entry, parts)) in (self.high.saturating_add(1)..).zip(entries) {
            previous = entry.hash_with(&parts, business, author, seq, &previous);
            hashes.push(previous);
        }
        verify_mark(self.info.genesis.device, &Mark { hash: previous, signature: *signature })?;
        Ok(hashes)
    }
}

/// The author's signature over an entry's hash.
#[must_use]
pub fn sign_mark(key: &SigningKey, hash: EntryHash) -> Mark {
    Mark { hash, signature: key.sign(&mark_bytes(hash)).to_bytes() }
}

/// Checks the author's signature.
///
/// # Errors
/// [`JournalError::BrokenChain`].
pub fn verify_mark(device: DeviceId, mark: &Mark) -> Result<(), JournalError> {
    VerifyingKey::from_bytes(&device.0)
        .and_then(|key| key.verify_strict(&mark_bytes(mark.hash), &Signature::from_bytes(&mark.signature)))
        .map_err(|_| JournalError::BrokenChain)
}

fn mark_bytes(hash: EntryHash) -> Vec<u8> {
    [b"tillmesh entry ".as_slice(), &hash.0].concat()
}
