//! The payment attempt machine: pure code, the same for every provider.
//! It rests on one rule: unknown means ask, never charge again. Only a definite "not sent", a
//! hard decline or a proven absence frees an intent for another attempt.

mod attempt;
mod intent;
mod reference;
mod result;
mod shown;

use minicbor::{Decode, Encode};

pub use attempt::Attempt;
pub use intent::{
    ATTEMPTS_MAX, AttemptRefused, FIRST_PUSH_AGE_MAX_MS, IntentState, intent_state, needs_confirmation,
    next_attempt_number,
};
pub use reference::{AccountReference, CallbackToken, account_reference, callback_token};
pub use result::{HardFail, ResultClass, classify};
pub use shown::{ReportCount, Shown, TABLE};

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum AttemptState {
    /// Durable, and no call made yet.
    #[n(0)]
    Ready,
    /// One process holds the lease and may be calling the provider.
    #[n(1)]
    Calling,
    /// The provider took the request; the customer is being asked.
    #[n(2)]
    Accepted,
    /// The money is proven.
    #[n(3)]
    Paid,
    /// It may or may not have been charged.
    #[n(4)]
    Unknown,
    /// Certainly not charged.
    #[n(5)]
    Failed,
    /// Reported as failed in a way that is known to be wrong at times.
    #[n(6)]
    Quarantine,
    /// Reported as failed, and paid all the same.
    #[n(7)]
    LatePaid,
}

impl AttemptState {
    /// Whether the attempt bars every other attempt of its intent.
    #[must_use]
    pub const fn bars_another(self) -> bool {
        match self {
            Self::Ready | Self::Calling | Self::Accepted | Self::Paid | Self::Unknown | Self::Quarantine => true,
            Self::Failed | Self::LatePaid => false,
        }
    }

    /// Whether the customer may still be charged by it.
    #[must_use]
    pub const fn may_still_charge(self) -> bool {
        match self {
            Self::Ready | Self::Calling | Self::Accepted | Self::Unknown | Self::Quarantine => true,
            Self::Paid | Self::Failed | Self::LatePaid => false,
        }
    }
}

/// The provider's names for one push.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ProviderIds {
    /// The provider's id of the request (M-PESA: `MerchantRequestID`).
    #[n(0)]
    pub request_id: String,
    /// The provider's id of the checkout (M-PESA: `CheckoutRequestID`).
    #[n(1)]
    pub checkout_id: String,
}

/// What proves that money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Evidence {
    /// The provider called back, with the attempt's token.
    #[n(0)]
    Callback,
    /// The provider answered a query.
    #[n(1)]
    Query,
    /// It was in the provider's list of recent transactions.
    #[n(2)]
    Pull,
    /// It was in the provider's statement.
    #[n(3)]
    Statement,
    /// The provider settles in its answer, as cash does.
    #[n(4)]
    Answer,
}

/// Why a person must look at an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ReviewReason {
    /// Paid, but not the amount asked for, or with no amount given.
    #[n(0)]
    WrongAmount,
    /// The checkout id is not the one that the provider gave for this push.
    #[n(1)]
    OtherCheckout,
    /// Paid, but without a receipt number.
    #[n(2)]
    NoReceiptNumber,
    /// A second receipt number for one attempt.
    #[n(3)]
    SecondReceipt,
    /// Reported as failed, and paid later.
    #[n(4)]
    PaidAfterFailure,
    /// Booked as paid, but the provider's own list lacks it.
    #[n(5)]
    ProofDisputed,
    /// Open for longer than a person should wait.
    #[n(6)]
    OpenTooLong,
}

/// The provider's answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Taken: the customer is being asked.
    Accepted(ProviderIds),
    /// Paid at once.
    Settled {
        /// The provider's receipt number.
        receipt_number: String,
    },
    /// Definitely never reached the customer.
    NotSent,
    /// It may have reached the customer.
    Ambiguous,
}

/// What a callback says. The caller has checked its token first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackResult {
    /// The provider's ids.
    pub ids: ProviderIds,
    /// The result code, as text.
    pub result_code: String,
    /// The amount that was charged, in minor units.
    pub amount_minor: Option<i64>,
    /// The provider's receipt number.
    pub receipt_number: Option<String>,
}

/// What happened to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEvent {
    /// Given up before any call.
    Cancelled,
    /// One process takes the attempt; it alone calls the provider, once, before the lease ends.
    Claimed {
        /// When the lease ends, in milliseconds since 1970 UTC.
        lease_until_ms: u64,
    },
    /// The lease ended without an answer on record.
    LeaseExpired,
    /// The provider answered the push.
    Answered(Answer),
    /// The provider called back.
    CalledBack(CallbackResult),
    /// The provider answered a query.
    Queried {
        /// The result code, as text.
        result_code: String,
    },
    /// The money was found in the provider's own list.
    Found {
        /// Pull or statement.
        evidence: Evidence,
        /// The provider's receipt number.
        receipt_number: String,
        /// Minor units received.
        amount_minor: i64,
    },
    /// A complete list of the time in question lacks it.
    Absent,
    /// It has been open for longer than the shop's limit.
    OpenTooLong,
}

/// What the caller does once the attempt's new state is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it was known already, or it decides nothing.
    Unchanged,
    /// Nothing beyond storing the attempt.
    Moved,
    /// Call the provider, once.
    Call,
    /// Book the money and write the receipt. A receipt number is booked once, whatever repeats.
    Book {
        /// The provider's receipt number.
        receipt_number: String,
    },
    /// Book the money of an attempt that had been reported as failed; the intent is in review.
    BookLate {
        /// The provider's receipt number.
        receipt_number: String,
    },
    /// Paid, but the receipt number is still to be learnt; the receipt waits for it.
    AwaitReceiptNumber,
    /// Book the money to suspense; the intent is in review. May repeat: the receipt number, or
    /// failing that the checkout id, makes it one booking.
    Suspend {
        /// Why it can't be booked to the intent.
        reason: ReviewReason,
        /// The provider's receipt number.
        receipt_number: Option<String>,
        /// Minor units, when the provider told.
        amount_minor: Option<i64>,
    },
    /// The intent is in review.
    Review(ReviewReason),
    /// Tell the shop's owner; the attempt itself may have moved as well.
    Alert(Alert),
}

/// What the shop's owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The provider refuses the shop's own configuration or credentials.
    Configuration,
    /// A failure was reported for a payment that is proven.
    FailureAfterPaid,
    /// A failure was reported under another push's checkout id, and ignored.
    OtherCheckout,
    /// The provider said "not sent" about a push that it called back for.
    NotSentAfterCallback,
}

/// Why an event can't happen to an attempt as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Only an attempt that was never claimed can be claimed or cancelled.
    #[error("the attempt is {0:?}, not Ready: read it again, and never call twice")]
    NotReady(AttemptState),
    /// No call has been made, so nothing can have come of it.
    #[error("the attempt was never called: claim it first")]
    NotCalled,
    /// A call may be under way.
    #[error("the attempt is being called: wait for its answer or for the lease to end")]
    StillCalling,
    /// The attempt holds no lease.
    #[error("the attempt is {0:?} and holds no lease: read it again")]
    NoLease(AttemptState),
    /// The lease has not ended yet.
    #[error("the lease runs until {until_ms} ms: wait for it")]
    LeaseRunning {
        /// When it ends, in milliseconds since 1970 UTC.
        until_ms: u64,
    },
    /// The attempt is settled.
    #[error("the attempt is {0:?}, which is final: nothing is left to wait for")]
    Settled(AttemptState),
}

#[cfg(test)]
mod tests;
