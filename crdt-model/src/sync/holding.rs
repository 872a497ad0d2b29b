//! Holdings: what a device durably holds, over its signature, so that others can carry the word
//! on. Of each device only the newest counts: one that lost something says so with the next.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::frontier::{FRONTIER_ROWS_MAX, Frontier};
use crate::ids::{BusinessId, DeviceId, EntryHash, ShortHash, domain_hash};
use crate::time::Timestamp;

/// The most devices whose holdings are kept and compared.
pub const HOLDINGS_MAX: usize = 1_024;

/// A device's word for what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Holding {
    /// Who holds it, and signed.
    #[n(0)]
    pub device: DeviceId,
    /// Grows with each; the ms since 1970 UTC at which it was signed, or one more than the last.
    #[n(1)]
    pub number: u64,
    /// What is held.
    #[n(2)]
    pub frontier: Frontier,
    /// Ed25519 by the device's key.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Which holdings a device has, to be compared: the digest first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HoldingsKnown {
    /// The digest of all of them.
    #[n(0)]
    pub digest: ShortHash,
    /// Device and number of each, once the digests differ.
    #[n(1)]
    pub numbers: Option<Vec<(DeviceId, u64)>>,
}

/// Why a holding is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldingError {
    /// Rows are missing their order, or too many.
    #[error("a holding lists its journals twice, out of order, or more than {FRONTIER_ROWS_MAX}")]
    Malformed,
    /// The signature is wrong.
    #[error("a holding is forged, damaged, or of another business")]
    BadSignature,
}

impl Holding {
    /// What the owner of `key` holds.
    #[must_use]
    pub fn sign(business: BusinessId, key: &SigningKey, number: u64, frontier: Frontier) -> Self {
        let device = DeviceId(key.verifying_key().to_bytes());
        let signature = key.sign(&digest(business, device, number, &frontier)).to_bytes();
        Self { device, number, frontier, signature }
    }

    /// Checks its form and its signature.
    ///
    /// # Errors
    /// A [`HoldingError`].
    pub fn verify(&self, business: BusinessId) -> Result<(), HoldingError> {
        let rows = &self.frontier.0;
        let ordered = rows.iter().zip(rows.iter().skip(1)).all(|(row, next)| row.journal < next.journal);
        if !ordered || rows.len() > FRONTIER_ROWS_MAX {
            return Err(HoldingError::Malformed);
        }
        let digest = digest(business, self.device, self.number, &self.frontier);
        VerifyingKey::from_bytes(&self.device.0)
            .and_then(|key| key.verify_strict(&digest, &Signature::from_bytes(&self.signature)))
            .map_err(|_| HoldingError::BadSignature)
    }

    /// About when it was signed.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp(self.number)
    }
}

/// The digest of the devices and numbers of all holdings, in the order of devices.
#[must_use]
pub fn holdings_digest(numbers: &[(DeviceId, u64)]) -> ShortHash {
    let bytes = minicbor::to_vec(numbers).unwrap_or_default();
    EntryHash(domain_hash("tillmesh 2026 holdings", &[&bytes])).short()
}

fn digest(business: BusinessId, device: DeviceId, number: u64, frontier: &Frontier) -> [u8; 32] {
    let rows = minicbor::to_vec(frontier).unwrap_or_default();
    domain_hash("tillmesh 2026 holding", &[business.0.as_bytes(), &device.0, &number.to_le_bytes(), &rows])
}
