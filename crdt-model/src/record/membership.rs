//! Who belongs to a business: its genesis, and the certificates that owners sign.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::ids::{BusinessId, DeviceId, OwnerKey, domain_hash, hash_uuid};
use crate::money::Currency;
use crate::time::Timestamp;

/// What makes a business. Its hash is the business id, so it can't change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    /// The name that the founder gave.
    #[n(0)]
    pub name: String,
    /// The currency of its prices.
    #[n(1)]
    pub currency: Currency,
    /// When it was made.
    #[n(2)]
    pub founded: Timestamp,
    /// Keys that may enrol devices.
    #[n(3)]
    pub owners: Vec<OwnerKey>,
    /// A key whose only power is to enrol an owner.
    #[n(4)]
    pub recovery: OwnerKey,
    /// How far ahead of UTC the shop's clocks are; it decides which day a moment belongs to.
    #[n(6)]
    pub utc_offset_minutes: i32,
    /// Randomness, so that two businesses of one name differ.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

impl Genesis {
    /// The business's id.
    #[must_use]
    pub fn business(&self) -> BusinessId {
        let bytes = minicbor::to_vec(self).unwrap_or_default();
        BusinessId(hash_uuid(domain_hash("tillmesh 2026 business genesis", &[&bytes])))
    }
}

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Sells.
    #[n(0)]
    Till,
    /// Stores everything and commits payments.
    #[n(1)]
    Relay,
}

/// An owner's word that a device belongs to the business.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// The business.
    #[n(0)]
    pub business: BusinessId,
    /// The device.
    #[n(1)]
    pub device: DeviceId,
    /// The device's name among people, such as `till 2`; at most 64 bytes.
    #[n(2)]
    pub name: String,
    /// What it may do.
    #[n(3)]
    pub role: Role,
    /// When it was enrolled.
    #[n(4)]
    pub issued: Timestamp,
    /// Which owner signed.
    #[n(5)]
    pub owner: OwnerKey,
    /// Ed25519 over the hash of the fields above.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// The longest name of a device.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

/// Why a device is not taken for a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Of another business.
    #[error("the device belongs to another business")]
    OtherBusiness,
    /// Signed by a key that is no owner's.
    #[error("the device was enrolled by a key that is no owner of this business")]
    NotAnOwner,
    /// The signature is wrong.
    #[error("the device's certificate is forged or damaged")]
    BadSignature,
}

impl Certificate {
    /// An owner enrols a device.
    #[must_use]
    pub fn sign(
        business: BusinessId,
        device: DeviceId,
        name: String,
        role: Role,
        issued: Timestamp,
        owner: &SigningKey,
    ) -> Self {
        let key = OwnerKey(owner.verifying_key().to_bytes());
        let mut certificate = Self { business, device, name, role, issued, owner: key, signature: [0; 64] };
        certificate.signature = owner.sign(&certificate.digest()).to_bytes();
        certificate
    }

    /// Checks that an owner in `genesis` signed it.
    ///
    /// # Errors
    /// A [`CertificateError`].
    pub fn verify(&self, genesis: &Genesis) -> Result<(), CertificateError> {
        if self.business != genesis.business() {
            return Err(CertificateError::OtherBusiness);
        }
        if !genesis.owners.contains(&self.owner) || self.name.len() > DEVICE_NAME_BYTES_MAX {
            return Err(CertificateError::NotAnOwner);
        }
        VerifyingKey::from_bytes(&self.owner.0)
            .and_then(|key| key.verify_strict(&self.digest(), &Signature::from_bytes(&self.signature)))
            .map_err(|_| CertificateError::BadSignature)
    }

    fn digest(&self) -> [u8; 32] {
        let role = [u8::from(self.role == Role::Relay)];
        domain_hash(
            "tillmesh 2026 device certificate",
            &[
                self.business.0.as_bytes(),
                &self.device.0,
                self.name.as_bytes(),
                &role,
                &self.issued.0.to_le_bytes(),
                &self.owner.0,
            ],
        )
    }
}
