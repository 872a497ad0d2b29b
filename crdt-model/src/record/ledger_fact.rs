//! Which ledger collects an intent when that changes, and cash that was taken instead of a
//! payment: facts about who has the money, or may ask for it.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use super::{Genesis, Ledger};
use crate::ids::{BusinessId, OwnerKey, RecordId, domain_hash, hash_uuid};
use crate::money::Money;

/// An owner's word that what `from` was asked for is for `to` to collect. Each intent follows
/// once `from` has let it go, or once `to` has reconciled it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LedgerMoved {
    /// Whose intents.
    #[n(0)]
    pub from: Ledger,
    /// Whose they become.
    #[n(1)]
    pub to: Ledger,
    /// Only this one; every open one if there is none.
    #[n(2)]
    pub intent: Option<RecordId>,
    /// The owner vouches that `from` is lost for good and asks nobody any more. Only then may
    /// another relay reconcile in its place.
    #[n(3)]
    pub old_is_gone: bool,
    /// Which owner signed.
    #[n(4)]
    pub owner: OwnerKey,
    /// Ed25519 over the hash of all of this and the business.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A ledger's word that an intent is another's. Whoever lets go never asks for it again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IntentReleased {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// The owner's word that allows it.
    #[n(1)]
    pub moved: RecordId,
    /// How many attempts were made of it so far, as far as one can tell: the next one counts on.
    #[n(2)]
    pub attempts: u32,
    /// `false`: the old ledger itself, which knows that nothing of it can charge any more.
    /// `true`: it can't know, so the provider's own list was read whole over the gap, and lacks it.
    #[n(3)]
    pub reconciled: bool,
}

/// What a customer paid in cash instead is in the drawer of the till that asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CashTaken {
    /// The payment that was given up for it.
    #[n(0)]
    pub intent: RecordId,
    /// How much.
    #[n(1)]
    pub amount: Money,
    /// A sale's own M-PESA tender, which the totals hold as such until now.
    #[n(2)]
    pub of_tender: bool,
}

impl LedgerMoved {
    /// An owner's word.
    #[must_use]
    pub fn sign(
        business: BusinessId,
        from: Ledger,
        to: Ledger,
        intent: Option<RecordId>,
        old_is_gone: bool,
        owner: &SigningKey,
    ) -> Self {
        let key = OwnerKey(owner.verifying_key().to_bytes());
        let mut moved = Self { from, to, intent, old_is_gone, owner: key, signature: [0; 64] };
        moved.signature = owner.sign(&moved.digest(business)).to_bytes();
        moved
    }

    /// Whether an owner of the business signed it. Otherwise it counts for nothing.
    #[must_use]
    pub fn is_signed(&self, genesis: &Genesis) -> bool {
        let digest = self.digest(genesis.business());
        genesis.owners.contains(&self.owner)
            && VerifyingKey::from_bytes(&self.owner.0)
                .and_then(|key| key.verify_strict(&digest, &Signature::from_bytes(&self.signature)))
                .is_ok()
    }

    /// Whether it is about an intent that `ledger` has.
    #[must_use]
    pub fn covers(&self, ledger: Ledger, intent: RecordId) -> bool {
        self.from == ledger && self.intent.is_none_or(|only| only == intent)
    }

    pub(super) fn record_id(&self, business: BusinessId) -> RecordId {
        RecordId(hash_uuid(domain_hash("tillmesh 2026 ledger moved record", &[&self.digest(business)])))
    }

    fn digest(&self, business: BusinessId) -> [u8; 32] {
        let intent = self.intent.map(|intent| *intent.0.as_bytes());
        domain_hash(
            "tillmesh 2026 ledger moved",
            &[
                business.0.as_bytes(),
                &self.from.relay.0,
                &self.from.epoch.to_le_bytes(),
                &self.to.relay.0,
                &self.to.epoch.to_le_bytes(),
                intent.as_ref().map_or(&[][..], |intent| &intent[..]),
                &[u8::from(self.old_is_gone)],
                &self.owner.0,
            ],
        )
    }
}

impl IntentReleased {
    pub(super) fn record_id(&self) -> RecordId {
        let role = if self.reconciled { "reconciled" } else { "released" };
        let parts = [self.intent.0.as_bytes(), self.moved.0.as_bytes(), role.as_bytes()];
        RecordId(hash_uuid(domain_hash("tillmesh 2026 intent released", &parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;
    use crate::money::Currency;
    use crate::time::Timestamp;

    #[test]
    fn only_an_owner_of_this_business_moves_intents() {
        let (owner, stranger) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let genesis = |nonce: u8| Genesis {
            name: "Duka".to_owned(),
            currency: Currency::KES,
            founded: Timestamp(1),
            owners: vec![OwnerKey(owner.verifying_key().to_bytes())],
            recovery: OwnerKey([9; 32]),
            utc_offset_minutes: 180,
            nonce: [nonce; 16],
        };
        let ours = genesis(1);
        let ledger = |epoch| Ledger { relay: DeviceId([3; 32]), epoch };
        let sign = |key: &SigningKey| LedgerMoved::sign(ours.business(), ledger(1), ledger(2), None, false, key);
        assert!(sign(&owner).is_signed(&ours));
        assert!(!sign(&owner).is_signed(&genesis(2)), "another business of the same owner");
        assert!(!sign(&stranger).is_signed(&ours));
        for forged in [
            LedgerMoved { owner: ours.owners[0], ..sign(&stranger) },
            LedgerMoved { to: ledger(3), ..sign(&owner) },
            LedgerMoved { old_is_gone: true, ..sign(&owner) },
            LedgerMoved { intent: Some(RecordId(uuid::Uuid::nil())), ..sign(&owner) },
        ] {
            assert!(!forged.is_signed(&ours), "{forged:?}");
        }
    }
}
