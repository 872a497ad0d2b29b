//! What is recorded about payments beside intents, receipts and declines: money that fits
//! nothing, reviews, and what people ask of the ledger and decide in pairs.

use minicbor::{Decode, Encode};

use super::{
    CashTaken, Evidence, FactError, IntentReleased, LedgerMoved, NAME_BYTES_MAX, TEXT_BYTES_MAX, check_name,
    check_not_negative, check_text,
};
use crate::ids::{BusinessId, RecordId, domain_hash, hash_uuid};
use crate::money::Money;
use crate::payment::ReviewReason;
use crate::time::Timestamp;

/// One fact about payments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PaymentFact {
    /// The ledger: money that fits no payment.
    #[n(0)]
    Suspense(#[n(0)] Suspense),
    /// The ledger: a receipt of its own no longer counts.
    #[n(1)]
    Revoked(#[n(0)] ReceiptRevoked),
    /// The ledger: people must look at an intent.
    #[n(2)]
    Review(#[n(0)] IntentReview),
    /// A cashier: ask the customer once more.
    #[n(3)]
    Retry(#[n(0)] IntentRetry),
    /// A cashier: give the intent up.
    #[n(4)]
    GiveUp(#[n(0)] GiveUp),
    /// The ledger: what became of that.
    #[n(5)]
    GiveUpAnswer(#[n(0)] GiveUpAnswer),
    /// A cashier: the customer shows a provider's receipt number.
    #[n(6)]
    CodeClaim(#[n(0)] CodeClaim),
    /// The first of two people: how to settle something.
    #[n(7)]
    Proposal(#[n(0)] Proposal),
    /// The second of two people: yes or no.
    #[n(8)]
    Check(#[n(0)] Check),
    /// The ledger: what became of what both agreed on.
    #[n(9)]
    Outcome(#[n(0)] Outcome),
    /// The ledger: how far an attempt has come.
    #[n(10)]
    Progress(#[n(0)] Progress),
    /// An owner: what one ledger was asked for is another's to collect.
    #[n(11)]
    Moved(#[n(0)] LedgerMoved),
    /// A ledger: an intent is let go, by an owner's word.
    #[n(12)]
    Released(#[n(0)] IntentReleased),
    /// A till: the cash that was paid instead is in its drawer.
    #[n(13)]
    CashTaken(#[n(0)] CashTaken),
}

/// Money that arrived and fits no payment. It is in the books, and waits for two people.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Suspense {
    /// The provider, such as `mpesa`.
    #[n(0)]
    pub provider: String,
    /// The provider's receipt number, or failing that its checkout id.
    #[n(1)]
    pub number: String,
    /// How much arrived; zero while the provider has not told.
    #[n(2)]
    pub amount: Money,
    /// When, by the provider's clock or else the ledger's.
    #[n(3)]
    pub paid_at: Timestamp,
    /// How the ledger knows.
    #[n(4)]
    pub evidence: Evidence,
    /// Why it fits nothing; `None` for money that a customer paid unasked.
    #[n(5)]
    pub reason: Option<ReviewReason>,
    /// The intent that it came for, as far as one can tell.
    #[n(6)]
    pub intent: Option<RecordId>,
    /// What the customer wrote as the account.
    #[n(7)]
    pub account: String,
    /// No real money: the simulator's.
    #[n(8)]
    pub test: bool,
}

/// A receipt that its ledger takes back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReceiptRevoked {
    /// What it was for.
    #[n(0)]
    pub intent: RecordId,
    /// The receipt.
    #[n(1)]
    pub receipt: RecordId,
    /// Why.
    #[n(2)]
    pub reason: String,
}

/// An intent that people must look at.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IntentReview {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// Which attempt, from 1.
    #[n(1)]
    pub attempt: u32,
    /// Why.
    #[n(2)]
    pub reason: ReviewReason,
}

/// A cashier or owner asks for another attempt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IntentRetry {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// How many attempts had failed when it was asked: the word is good for the next one alone.
    #[n(1)]
    pub after_attempt: u32,
}

/// How an intent is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Instead {
    /// Nobody pays.
    #[n(0)]
    Void,
    /// The customer pays in cash.
    #[n(1)]
    Cash,
}

/// A cashier asks to give an intent up.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GiveUp {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// What happens instead.
    #[n(1)]
    pub instead: Instead,
}

/// The ledger's answer: refused while an attempt may still charge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GiveUpAnswer {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// What was asked.
    #[n(1)]
    pub request: RecordId,
    /// Nothing can charge any more, and nothing will.
    #[n(2)]
    pub granted: bool,
    /// What happens instead.
    #[n(3)]
    pub instead: Instead,
}

/// A customer who paid by hand shows the provider's receipt number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CodeClaim {
    /// What it pays.
    #[n(0)]
    pub intent: RecordId,
    /// The provider, such as `mpesa`.
    #[n(1)]
    pub provider: String,
    /// The number, in capitals.
    #[n(2)]
    pub code: String,
}

/// What two people agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Settlement {
    /// What the books say of the intent is right; the review ends.
    #[n(0)]
    AsBooked,
    /// The intent was not paid: its receipts are revoked, and no attempt counts.
    #[n(1)]
    NotPaid,
    /// Money of suspense pays this intent.
    #[n(2)]
    Assign(#[n(0)] RecordId),
    /// Money of suspense is the shop's, for no sale.
    #[n(3)]
    Keep,
    /// The money goes back to whoever paid.
    #[n(4)]
    Reverse,
}

/// The maker's part.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The intent, the suspense, or the receipt to be reversed.
    #[n(0)]
    pub subject: RecordId,
    /// What to do.
    #[n(1)]
    pub settlement: Settlement,
    /// Why.
    #[n(2)]
    pub note: String,
    /// The client's own number of the proposal about this subject, so that repeating it is one.
    #[n(3)]
    pub ordinal: u32,
}

/// The checker's part; it counts from another device than the maker's alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Check {
    /// The proposal.
    #[n(0)]
    pub proposal: RecordId,
    /// Yes or no.
    #[n(1)]
    pub agreed: bool,
    /// Why.
    #[n(2)]
    pub note: String,
}

/// How far the ledger came with what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum OutcomeState {
    /// The provider was asked; its answer is to come.
    #[n(0)]
    Asked,
    /// Done.
    #[n(1)]
    Done,
    /// It can't be done.
    #[n(2)]
    Failed,
    /// Whether it was done is not known: the provider's statement decides.
    #[n(3)]
    Unknown,
}

/// The ledger's word about what was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Outcome {
    /// The proposal.
    #[n(0)]
    pub proposal: RecordId,
    /// How far it came.
    #[n(1)]
    pub state: OutcomeState,
    /// The provider's code and words.
    #[n(2)]
    pub detail: String,
}

/// How far an attempt has come, as a till shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// The customer is being asked.
    #[n(0)]
    Asked,
    /// Whether the customer was charged is not known yet.
    #[n(1)]
    Unknown,
}

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// The intent.
    #[n(0)]
    pub intent: RecordId,
    /// Which attempt, from 1.
    #[n(1)]
    pub attempt: u32,
    /// How far.
    #[n(2)]
    pub stage: Stage,
}

impl PaymentFact {
    /// The record's id, where the fact itself says what it is about.
    #[must_use]
    pub fn record_id(&self, business: BusinessId) -> Option<RecordId> {
        match self {
            Self::Suspense(fact) => Some(suspense_id(business, &fact.provider, &fact.number)),
            Self::Revoked(fact) => Some(fact.receipt.derived("revoked", 0)),
            Self::Review(fact) => {
                Some(fact.intent.derived("review", fact.attempt.wrapping_mul(16).wrapping_add(fact.reason as u32)))
            }
            Self::Retry(fact) => Some(fact.intent.derived("retry", fact.after_attempt)),
            Self::GiveUpAnswer(fact) => Some(fact.request.derived("answer", 0)),
            Self::CodeClaim(fact) => Some(claim_id(business, &fact.provider, &fact.code)),
            Self::Proposal(fact) => Some(fact.subject.derived("proposal", fact.ordinal)),
            Self::Outcome(fact) => Some(fact.proposal.derived("outcome", fact.state as u32)),
            Self::Progress(fact) => {
                Some(fact.intent.derived("progress", fact.attempt.wrapping_mul(2).wrapping_add(fact.stage as u32)))
            }
            Self::Moved(fact) => Some(fact.record_id(business)),
            Self::Released(fact) => Some(fact.record_id()),
            Self::CashTaken(fact) => Some(fact.intent.derived("cash taken", 0)),
            Self::GiveUp(_) | Self::Check(_) => None,
        }
    }

    /// The intent that it says something about by itself.
    #[must_use]
    pub fn intent(&self) -> Option<RecordId> {
        match self {
            Self::Suspense(fact) => fact.intent,
            Self::Revoked(fact) => Some(fact.intent),
            Self::Review(fact) => Some(fact.intent),
            Self::Retry(fact) => Some(fact.intent),
            Self::GiveUp(fact) => Some(fact.intent),
            Self::GiveUpAnswer(fact) => Some(fact.intent),
            Self::CodeClaim(fact) => Some(fact.intent),
            Self::Progress(fact) => Some(fact.intent),
            Self::Released(fact) => Some(fact.intent),
            Self::CashTaken(fact) => Some(fact.intent),
            Self::Moved(fact) => fact.intent,
            Self::Proposal(_) | Self::Check(_) | Self::Outcome(_) => None,
        }
    }

    /// Whether only a ledger's word makes it.
    #[must_use]
    pub fn is_ledgers(&self) -> bool {
        match self {
            Self::Suspense(_)
            | Self::Revoked(_)
            | Self::Review(_)
            | Self::GiveUpAnswer(_)
            | Self::Outcome(_)
            | Self::Progress(_)
            | Self::Released(_) => true,
            Self::Retry(_)
            | Self::GiveUp(_)
            | Self::CodeClaim(_)
            | Self::Proposal(_)
            | Self::Check(_)
            | Self::Moved(_)
            | Self::CashTaken(_) => false,
        }
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        match self {
            Self::Suspense(fact) => {
                check_name("provider", &fact.provider, NAME_BYTES_MAX)?;
                check_name("number", &fact.number, NAME_BYTES_MAX)?;
                check_text("account", &fact.account, NAME_BYTES_MAX)?;
                check_not_negative("amount_minor", fact.amount.minor)
            }
            Self::Revoked(fact) => check_text("reason", &fact.reason, TEXT_BYTES_MAX),
            Self::CodeClaim(fact) => {
                check_name("provider", &fact.provider, NAME_BYTES_MAX)?;
                check_name("code", &fact.code, NAME_BYTES_MAX)
            }
            Self::Proposal(fact) => check_text("note", &fact.note, TEXT_BYTES_MAX),
            Self::Check(fact) => check_text("note", &fact.note, TEXT_BYTES_MAX),
            Self::Outcome(fact) => check_text("detail", &fact.detail, TEXT_BYTES_MAX),
            Self::CashTaken(fact) => check_not_negative("amount_minor", fact.amount.minor),
            Self::Review(_)
            | Self::Retry(_)
            | Self::GiveUp(_)
            | Self::GiveUpAnswer(_)
            | Self::Progress(_)
            | Self::Moved(_)
            | Self::Released(_) => Ok(()),
        }
    }
}

/// The record of money in suspense: from the provider's number, so that it is booked once.
#[must_use]
pub fn suspense_id(business: BusinessId, provider: &str, number: &str) -> RecordId {
    let parts = [business.0.as_bytes(), provider.as_bytes(), number.as_bytes()];
    RecordId(hash_uuid(domain_hash("tillmesh 2026 suspense", &parts)))
}

/// The record of a claim of a receipt number: one number is claimed once in the whole business.
#[must_use]
pub fn claim_id(business: BusinessId, provider: &str, code: &str) -> RecordId {
    let parts = [business.0.as_bytes(), provider.as_bytes(), code.as_bytes()];
    RecordId(hash_uuid(domain_hash("tillmesh 2026 code claim", &parts)))
}
