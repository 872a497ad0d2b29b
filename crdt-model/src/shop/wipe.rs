//! Safe to wipe: what would be lost with this device, by the signed words of those who hold
//! the rest. The verdict is signed too, so that it can be shown to others.

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use minicbor::{Decode, Encode};

use super::Shop;
use crate::ids::{BusinessId, DeviceId, JournalId, RecordId, domain_hash};
use crate::record::Role;
use crate::time::Timestamp;

/// What would be lost with a device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Verdict {
    /// The business.
    #[n(0)]
    pub business: BusinessId,
    /// The device that speaks of itself.
    #[n(1)]
    pub device: DeviceId,
    /// When.
    #[n(2)]
    pub at: Timestamp,
    /// Nothing would be lost: a relay has signed for every entry, and no reason stands against it.
    #[n(3)]
    pub safe: bool,
    /// Every journal that is held here, in the order of ids.
    #[n(4)]
    pub journals: Vec<HeldJournal>,
    /// The owner's key is on this device, and nowhere else that anyone knows.
    #[n(5)]
    pub owner_key: bool,
    /// This device is a relay: its attempts to collect payments are nowhere else.
    #[n(6)]
    pub relay: bool,
    /// A shift that this device has and nobody has closed or taken over.
    #[n(7)]
    pub shift: Option<RecordId>,
}

/// Who holds a journal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeldJournal {
    /// The journal.
    #[n(0)]
    pub journal: JournalId,
    /// The device that wrote it.
    #[n(1)]
    pub author: DeviceId,
    /// The last entry held here.
    #[n(2)]
    pub high: u64,
    /// How many entries nobody else has signed for.
    #[n(3)]
    pub only_here: u64,
    /// How many entries no relay has signed for.
    #[n(4)]
    pub not_at_relay: u64,
    /// Who else has signed for it.
    #[n(5)]
    pub holders: Vec<Holder>,
}

/// A device that has signed for entries of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Holder {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Up to which entry.
    #[n(1)]
    pub high: u64,
    /// When it signed.
    #[n(2)]
    pub at: Timestamp,
}

/// A verdict and the device's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVerdict {
    /// The verdict.
    pub verdict: Verdict,
    /// Its CBOR: what is signed.
    pub bytes: Vec<u8>,
    /// Ed25519 by the device's key, over the hash of the bytes.
    pub signature: [u8; 64],
}

/// Why a verdict that is shown can't be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// Not a verdict.
    #[error("the verdict can't be read: {0}")]
    Unreadable(String),
    /// Its signature is wrong.
    #[error("the verdict is not signed by the device that it speaks of")]
    BadSignature,
}

impl Verdict {
    /// How many entries nobody else has signed for.
    #[must_use]
    pub fn only_here(&self) -> u64 {
        self.journals.iter().map(|journal| journal.only_here).sum()
    }

    /// How many entries no relay has signed for.
    #[must_use]
    pub fn not_at_relay(&self) -> u64 {
        self.journals.iter().map(|journal| journal.not_at_relay).sum()
    }
}

impl SignedVerdict {
    /// Reads a verdict that somebody shows.
    ///
    /// # Errors
    /// A [`VerdictError`].
    pub fn read(bytes: &[u8], signature: &[u8; 64]) -> Result<Self, VerdictError> {
        let verdict: Verdict = minicbor::decode(bytes).map_err(|error| VerdictError::Unreadable(error.to_string()))?;
        VerifyingKey::from_bytes(&verdict.device.0)
            .and_then(|key| key.verify_strict(&digest(bytes), &Signature::from_bytes(signature)))
            .map_err(|_| VerdictError::BadSignature)?;
        Ok(Self { verdict, bytes: bytes.to_vec(), signature: *signature })
    }
}

impl Shop {
    /// What would be lost with this device. `owner_key` tells whether the owner's key is on it.
    #[must_use]
    pub fn safe_to_wipe(&self, now: Timestamp, owner_key: bool) -> SignedVerdict {
        let device = self.device();
        let journals: Vec<HeldJournal> = self
            .journals
            .iter()
            .filter(|(_, journal)| journal.high > journal.info.before_first().0)
            .map(|(id, journal)| self.held(*id, journal.info.device(), journal.high, journal.info.before_first().0))
            .collect();
        let relay = self.identity.certificate.role == Role::Relay;
        let frozen = || self.books.frozen_shift(device).map(|handoff| handoff.offer.shift);
        let shift = self.books.current_shift(device).or_else(frozen);
        let at_relay = journals.iter().all(|journal| journal.not_at_relay == 0);
        let safe = at_relay && !owner_key && !relay && shift.is_none();
        let verdict = Verdict { business: self.business(), device, at: now, safe, journals, owner_key, relay, shift };
        let bytes = minicbor::to_vec(&verdict).unwrap_or_default();
        let signature = self.identity.key.sign(&digest(&bytes)).to_bytes();
        SignedVerdict { verdict, bytes, signature }
    }

    fn held(&self, journal: JournalId, author: DeviceId, high: u64, before_first: u64) -> HeldJournal {
        let signed = |holding: &crate::sync::holding::Holding| Holder {
            device: holding.device,
            high: self.signed_for(holding.device, journal),
            at: holding.at(),
        };
        let others = self.holdings.values().filter(|holding| holding.device != self.device());
        let holders: Vec<Holder> = others.map(signed).filter(|holder| holder.high > 0).collect();
        let lacks = |relays: bool| {
            let counted = holders.iter().filter(|holder| !relays || self.is_relay(holder.device));
            high - counted.map(|holder| holder.high.min(high)).max().unwrap_or(0).max(before_first)
        };
        HeldJournal { journal, author, high, only_here: lacks(false), not_at_relay: lacks(true), holders }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    domain_hash("tillmesh 2026 safe to wipe", &[bytes])
}
