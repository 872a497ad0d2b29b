//! What is known of a payment, as the books answer it.

use minicbor::{Decode, Encode};

use super::payment_notes::{GivenUp, Reviewed};
use super::tally::sum;
use crate::entry::Place;
use crate::ids::{DeviceId, RecordId};
use crate::money::Money;
use crate::payment::Shown;
use crate::record::{Evidence, Ledger, Stage};
use crate::time::{Hlc, Timestamp};

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IntentState {
    /// Neither paid nor refused.
    #[n(0)]
    Open,
    /// Its ledger wrote a receipt for the exact amount.
    #[n(1)]
    Paid,
    /// The latest word is its ledger's decline.
    #[n(2)]
    Declined,
    /// Its sale was voided, and nothing was paid.
    #[n(3)]
    Void,
    /// A person must decide: another amount arrived, or it was made above a fork.
    #[n(4)]
    Review,
}

/// Everything that is known of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The intent.
    pub intent: RecordId,
    /// The sale and the index of its tender that this pays.
    pub sale: Option<(RecordId, u32)>,
    /// How much.
    pub amount: Money,
    /// The provider, such as `mpesa`.
    pub provider: String,
    /// Who pushes it, once known.
    pub ledger: Option<Ledger>,
    /// The device that promised.
    pub device: DeviceId,
    /// Its entry.
    pub place: Place,
    /// When it was made.
    pub time: Hlc,
    /// Made above a fork: must not be pushed.
    pub branch: bool,
    /// When a cashier last said that the customer is there.
    pub confirmed: Option<Hlc>,
    /// What became of it.
    pub state: IntentState,
    /// Its sale was voided.
    pub voided: bool,
    /// What receipts claim, in the order of their ids, each number's earliest claim first.
    pub receipts: Vec<ReceiptClaim>,
    /// Its ledger's declines, the earliest first.
    pub declines: Vec<Declined>,
    /// Why people must, or had to, look at it.
    pub reviews: Vec<Reviewed>,
    /// How often another attempt was asked for: after which attempt, and when.
    pub retries: Vec<(u32, Hlc)>,
    /// Whether it was to be given up.
    pub given_up: Option<GivenUp>,
    /// Receipt numbers that customers showed for it.
    pub codes: Vec<String>,
    /// How far its latest attempt has come, as its ledger said.
    pub progress: Option<(u32, Stage)>,
    /// How many attempts ledgers made that it was with before.
    pub earlier_attempts: u32,
    /// An owner gave it to another ledger, and it waits to be let go: nobody asks for it meanwhile.
    pub moving: Option<Moving>,
    /// Relays whose word about it counts: those it was with, and the heir of a lost one.
    pub voices: Vec<DeviceId>,
}

/// An owner's word about an intent that was not carried out yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moving {
    /// The owner's word.
    pub moved: RecordId,
    /// Whose it is to be.
    pub to: Ledger,
    /// The old ledger is lost for good, as the owner vouches.
    pub old_is_gone: bool,
    /// When the owner said so.
    pub time: Hlc,
}

impl Payment {
    /// How it stands, as a till shows it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let declined = self.declines.iter().map(|decline| decline.attempt).max().unwrap_or(0);
        let stage = self.progress.filter(|(attempt, _)| *attempt > declined).map(|(_, stage)| stage);
        match (self.state, stage) {
            (IntentState::Paid, _) => Shown::Paid,
            (IntentState::Declined, _) => Shown::Failed,
            (IntentState::Void, _) => Shown::GivenUp,
            (IntentState::Review, _) => Shown::InReview,
            (IntentState::Open, None) => Shown::Pending,
            (IntentState::Open, Some(Stage::Asked)) => Shown::Asked,
            (IntentState::Open, Some(Stage::Unknown)) => Shown::Unknown,
        }
    }
}

/// A receipt's claim that an intent was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptClaim {
    /// The receipt's record.
    pub record: RecordId,
    /// The provider's receipt number.
    pub number: String,
    /// How much arrived.
    pub amount: Money,
    /// When.
    pub paid_at: Timestamp,
    /// How its author knows.
    pub evidence: Evidence,
    /// No real money: the simulator's.
    pub test: bool,
    /// Who wrote it.
    pub device: DeviceId,
    /// Its entry.
    pub place: Place,
    /// The index of the fact in it.
    pub index: u32,
    /// When that entry was made.
    pub time: Hlc,
    /// Its author is the intent's ledger, and the number pays no other intent.
    pub accepted: bool,
    /// Its ledger took it back.
    pub revoked: bool,
}

/// A ledger's word that an attempt was not paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The provider's code.
    pub code: String,
    /// When it was recorded.
    pub time: Hlc,
}

/// How many intents there are in a state, and how much they ask for in a currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct PaymentSum {
    /// How many.
    #[n(0)]
    pub intents: u64,
    /// How much, in minor units.
    #[cbor(n(1), with = "sum")]
    pub amount_minor: i128,
}
