//! What a ledger writes: receipts and declines. Only a ledger's signature makes them.

use minicbor::{Decode, Encode};

use super::{FactError, NAME_BYTES_MAX, TEXT_BYTES_MAX, check_name, check_text};
use crate::ids::{BusinessId, RecordId, domain_hash, hash_uuid};
use crate::money::Money;
use crate::time::Timestamp;

/// How the ledger knows that the money arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Evidence {
    /// The provider called back.
    #[n(0)]
    Callback,
    /// The provider answered a query.
    #[n(1)]
    Query,
    /// The provider's list of transactions has it.
    #[n(2)]
    Pull,
    /// The provider's statement has it.
    #[n(3)]
    Statement,
    /// The provider settles at once (cash).
    #[n(4)]
    Immediate,
}

/// Proof that an intent was paid.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Receipt {
    /// What was paid.
    #[n(0)]
    pub intent: RecordId,
    /// The provider, such as `mpesa`.
    #[n(1)]
    pub provider: String,
    /// The provider's own receipt number, booked once.
    #[n(2)]
    pub number: String,
    /// How much arrived.
    #[n(3)]
    pub amount: Money,
    /// When, by the provider's clock or else the ledger's.
    #[n(4)]
    pub paid_at: Timestamp,
    /// How the ledger knows.
    #[n(5)]
    pub evidence: Evidence,
    /// Which attempt, from 1.
    #[n(6)]
    pub attempt: u32,
    /// No real money: the simulator's.
    #[n(7)]
    pub test: bool,
}

impl Receipt {
    /// The receipt's record id: from the provider's receipt number, so that it is booked once.
    #[must_use]
    pub fn id(&self, business: BusinessId) -> RecordId {
        Self::id_of(business, &self.provider, &self.number)
    }

    /// The record id of a provider's receipt number.
    #[must_use]
    pub fn id_of(business: BusinessId, provider: &str, number: &str) -> RecordId {
        let parts = [business.0.as_bytes(), provider.as_bytes(), number.as_bytes()];
        RecordId(hash_uuid(domain_hash("tillmesh 2026 receipt", &parts)))
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("provider", &self.provider, NAME_BYTES_MAX)?;
        check_name("number", &self.number, NAME_BYTES_MAX)
    }
}

/// The ledger's word that an attempt was not paid.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decline {
    /// What was asked for.
    #[n(0)]
    pub intent: RecordId,
    /// Which attempt, from 1.
    #[n(1)]
    pub attempt: u32,
    /// The provider's code, such as `1032`.
    #[n(2)]
    pub code: String,
    /// The provider's words.
    #[n(3)]
    pub reason: String,
}

impl Decline {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("code", &self.code, NAME_BYTES_MAX)?;
        check_text("reason", &self.reason, TEXT_BYTES_MAX)
    }
}
