//! Handing a shift to another till: offer, acceptance, and the giver's transfer, which is the
//! commit point; withdrawal, and the owner's decision where contact broke in between.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use super::{FactError, Source, TEXT_BYTES_MAX, check_count, check_not_negative, check_text};
use crate::ids::{DeviceId, JournalId, OwnerKey, RecordId, domain_hash};
use crate::money::Money;

/// The most open tickets that one handoff hands over.
pub const HANDOFF_TICKETS_MAX: usize = 256;

/// The till that has a shift offers it to another one. From here on the shift is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HandoffOffered {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// The shift: the record id of its opening.
    #[n(1)]
    pub shift: RecordId,
    /// The handoff by which the giver got it, if it did not open it itself.
    #[n(2)]
    pub previous: Option<RecordId>,
    /// Who may accept.
    #[n(3)]
    pub to: DeviceId,
    /// What the giver counted in the drawer.
    #[n(4)]
    pub counted: Money,
    /// What the books say should be there.
    #[n(5)]
    pub expected_minor: i64,
    /// The open tickets that go along.
    #[n(6)]
    pub tickets: Vec<RecordId>,
    /// What no relay has yet: whoever accepts holds it all.
    #[n(7)]
    pub seen: Vec<(JournalId, u64)>,
    /// The owner who may decide if contact breaks: the one who enrolled the giver.
    #[n(8)]
    pub arbiter: OwnerKey,
    /// A note.
    #[n(9)]
    pub note: Option<String>,
}

/// The till that a shift is offered to takes it. It has it once the giver has transferred it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HandoffAccepted {
    /// The handoff: the record id of its offer.
    #[n(0)]
    pub handoff: RecordId,
    /// What the receiver counted in the drawer: the same as the giver.
    #[n(1)]
    pub counted: Money,
}

/// The giver's last word: the shift is the receiver's. Nothing before it gives the shift away.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HandoffTransferred {
    /// The handoff.
    #[n(0)]
    pub handoff: RecordId,
}

/// By the receiver: it declines. By the giver: it goes on with the shift.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HandoffWithdrawn {
    /// The handoff.
    #[n(0)]
    pub handoff: RecordId,
    /// Why.
    #[n(1)]
    pub reason: Option<String>,
}

/// An owner decides whose the shift is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HandoffDecided {
    /// The handoff.
    #[n(0)]
    pub handoff: RecordId,
    /// Its giver or its receiver.
    #[n(1)]
    pub to: DeviceId,
    /// Why.
    #[n(2)]
    pub note: Option<String>,
    /// Which owner signed: the offer's arbiter.
    #[n(3)]
    pub owner: OwnerKey,
    /// Ed25519 over the hash of handoff and device.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl HandoffOffered {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_not_negative("counted_minor", self.counted.minor)?;
        check_count("tickets", self.tickets.len(), HANDOFF_TICKETS_MAX)?;
        check_text("note", self.note.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}

impl HandoffAccepted {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_not_negative("counted_minor", self.counted.minor)
    }
}

impl HandoffWithdrawn {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_text("reason", self.reason.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}

impl HandoffDecided {
    /// An owner's decision.
    #[must_use]
    pub fn sign(handoff: RecordId, to: DeviceId, note: Option<String>, owner: &SigningKey) -> Self {
        let key = OwnerKey(owner.verifying_key().to_bytes());
        let signature = owner.sign(&decision_digest(handoff, to)).to_bytes();
        Self { handoff, to, note, owner: key, signature }
    }

    /// Whether the owner that it names signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        VerifyingKey::from_bytes(&self.owner.0)
            .and_then(|key| {
                let signature = Signature::from_bytes(&self.signature);
                key.verify_strict(&decision_digest(self.handoff, self.to), &signature)
            })
            .is_ok()
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        check_text("note", self.note.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}

/// A handoff's id is the only one of its kind anywhere, so it names the business as well.
fn decision_digest(handoff: RecordId, to: DeviceId) -> [u8; 32] {
    domain_hash("tillmesh 2026 handoff decision", &[handoff.0.as_bytes(), &to.0])
}
