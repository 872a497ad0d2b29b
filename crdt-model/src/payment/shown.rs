//! The one table of how a payment is shown: for each state of the machine the API's word, what a
//! cashier says to the customer, and what it counts as in reports.

use super::AttemptState;

/// How a payment stands, as a till shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shown {
    /// Promised; nobody has been asked yet.
    Pending,
    /// The customer is being asked.
    Asked,
    /// Proven.
    Paid,
    /// Certainly not charged.
    Failed,
    /// It may have been charged.
    Unknown,
    /// People must look.
    InReview,
    /// Given up, or paid in cash instead.
    GivenUp,
}

/// What a payment counts as in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportCount {
    /// Still to come.
    Outstanding,
    /// Received.
    Received,
    /// Not received, and not coming by itself.
    NotReceived,
    /// To be settled by two people; what arrived is in the receipts and in suspense.
    InReview,
}

/// Each state of an attempt, and how its intent is shown while it is the latest. An intent without
/// an attempt is pending; one that was given up, or that people must look at, is shown as that.
pub const TABLE: [(AttemptState, Shown); 8] = [
    (AttemptState::Ready, Shown::Pending),
    (AttemptState::Calling, Shown::Pending),
    (AttemptState::Accepted, Shown::Asked),
    (AttemptState::Unknown, Shown::Unknown),
    (AttemptState::Quarantine, Shown::Unknown),
    (AttemptState::Paid, Shown::Paid),
    (AttemptState::Failed, Shown::Failed),
    (AttemptState::LatePaid, Shown::InReview),
];

impl Shown {
    /// Every way to be shown.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Asked, Self::Paid, Self::Failed, Self::Unknown, Self::InReview, Self::GivenUp];

    /// The API's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Asked => "asked",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::InReview => "in_review",
            Self::GivenUp => "given_up",
        }
    }

    /// What a cashier can say to the customer.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Pending => "We will ask your phone for the payment as soon as we are online.",
            Self::Asked => "Please look at your phone and enter your PIN.",
            Self::Paid => "Your payment has arrived, thank you.",
            Self::Failed => "The payment did not go through and you were not charged; shall we try again?",
            Self::Unknown => "We don't know yet whether you were charged; please don't pay again, we are finding out.",
            Self::InReview => {
                "We are checking this payment and will contact you; please keep your message from M-PESA."
            }
            Self::GivenUp => "This payment was cancelled; nothing will be taken from your phone.",
        }
    }

    /// What it counts as in reports.
    #[must_use]
    pub const fn counts_as(self) -> ReportCount {
        match self {
            Self::Pending | Self::Asked | Self::Unknown => ReportCount::Outstanding,
            Self::Paid => ReportCount::Received,
            Self::Failed | Self::GivenUp => ReportCount::NotReceived,
            Self::InReview => ReportCount::InReview,
        }
    }
}

impl ReportCount {
    /// The API's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Received => "received",
            Self::NotReceived => "not_received",
            Self::InReview => "in_review",
        }
    }
}
