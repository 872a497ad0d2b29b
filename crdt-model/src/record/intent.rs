//! Payment intents: promises to ask a customer for money.

use minicbor::{Decode, Encode};

use super::{FactError, NAME_BYTES_MAX, Source, check_name};
use crate::ids::{DeviceId, RecordId};
use crate::money::Money;

/// The ledger that alone may push an intent: a relay, in one of its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Ledger {
    /// The relay.
    #[n(0)]
    pub relay: DeviceId,
    /// Its epoch; a restore or failover begins a new one.
    #[n(1)]
    pub epoch: u64,
}

/// A promise to ask. The payer's phone number is in a personal part of the same entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    /// The client's own id, for a payment that belongs to no sale.
    #[n(0)]
    pub source: Option<Source>,
    /// The sale and the index of its tender that this pays.
    #[n(1)]
    pub sale: Option<(RecordId, u32)>,
    /// How much; more than zero.
    #[n(2)]
    pub amount: Money,
    /// The provider, such as `mpesa`.
    #[n(3)]
    pub provider: String,
    /// Who pushes it; `None` while the till knows no paying relay.
    #[n(4)]
    pub ledger: Option<Ledger>,
}

impl Intent {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("provider", &self.provider, NAME_BYTES_MAX)?;
        if self.amount.minor <= 0 {
            return Err(FactError::Invalid { field: "amount_minor".to_owned(), reason: "must be more than zero" });
        }
        Ok(())
    }
}

/// Names the ledger of an intent that was made before the till knew one.
/// Only the intent's own device may write it, once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IntentAddressed {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// Who pushes it.
    #[n(1)]
    pub ledger: Ledger,
}

/// A cashier says that the customer of an old intent is there, so it may be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IntentConfirmed {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
}
