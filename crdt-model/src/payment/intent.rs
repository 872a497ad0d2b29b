//! An intent's standing, and whether it may have another attempt.

use super::{Attempt, AttemptState};

/// How many attempts one intent may have.
pub const ATTEMPTS_MAX: usize = 3;

/// A first push older than this waits for a cashier's word that the customer is still there.
pub const FIRST_PUSH_AGE_MAX_MS: u64 = 30 * 60 * 1000;

/// Where an intent stands, derived from its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentState {
    /// Not paid, and not given up.
    Open,
    /// Paid once, with proof.
    Paid,
    /// Given up, with nothing that could still charge.
    Void,
    /// A person must look at it.
    Review,
}

/// Where an intent stands. `void_asked` is the shop's wish to give it up, which holds only
/// once nothing can charge any more.
#[must_use]
pub fn intent_state(attempts: &[Attempt], void_asked: bool) -> IntentState {
    let paid = attempts.iter().filter(|attempt| attempt.state() == AttemptState::Paid).count();
    let late = attempts.iter().any(|attempt| attempt.state() == AttemptState::LatePaid);
    if late || paid > 1 || attempts.iter().any(|attempt| attempt.review().is_some()) {
        return IntentState::Review;
    }
    if paid == 1 {
        return IntentState::Paid;
    }
    if void_asked && !attempts.iter().any(|attempt| attempt.state().may_still_charge()) {
        return IntentState::Void;
    }
    IntentState::Open
}

/// Why an intent can't have another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptRefused {
    /// An attempt is open or has paid.
    #[error("attempt {number} is {state:?}: wait until it is certain that it charged nothing")]
    Barred {
        /// The attempt that bars it.
        number: u32,
        /// Where that attempt stands.
        state: AttemptState,
    },
    /// A person is to look at it first.
    #[error("the intent is in review: settle that first")]
    InReview,
    /// The limit is reached.
    #[error("{ATTEMPTS_MAX} attempts were made: record a new sale or take another tender")]
    TooMany,
}

/// The number of the next attempt of an intent, given all its attempts so far: at most one
/// attempt is outside `Failed` and `LatePaid`.
///
/// # Errors
/// [`AttemptRefused`].
pub fn next_attempt_number(attempts: &[Attempt]) -> Result<u32, AttemptRefused> {
    if let Some(barring) = attempts.iter().find(|attempt| attempt.state().bars_another()) {
        return Err(AttemptRefused::Barred { number: barring.number(), state: barring.state() });
    }
    if intent_state(attempts, false) == IntentState::Review {
        return Err(AttemptRefused::InReview);
    }
    if attempts.len() >= ATTEMPTS_MAX {
        return Err(AttemptRefused::TooMany);
    }
    let last = attempts.iter().map(|attempt| attempt.number()).max().unwrap_or(0);
    last.checked_add(1).ok_or(AttemptRefused::TooMany)
}

/// Whether a first push must wait for a cashier's word that the customer is still there.
#[must_use]
pub fn needs_confirmation(intent_at_ms: u64, now_ms: u64, age_max_ms: u64) -> bool {
    now_ms.saturating_sub(intent_at_ms) > age_max_ms
}
