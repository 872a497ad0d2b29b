//! What follows from what happened to an attempt: its row, and the receipt or decline that
//! belongs to it, in one commit.

use crdt_model::books::Payment;
use crdt_model::ids::RecordId;
use crdt_model::money::Money;
use crdt_model::payment::{self, Alert, Attempt, AttemptEvent, AttemptState, Effect, ReviewReason};
use crdt_model::record::{
    Decline, Evidence, Fact, IntentReview, NAME_BYTES_MAX, PaymentFact, Progress, Receipt, Stage, Suspense,
    TEXT_BYTES_MAX, suspense_id,
};
use crdt_model::shop::Operation;
use crdt_model::time::Timestamp;

use super::rows::put_attempt;
use crate::shop_handle::{RecordError, ShopHandle, Stopped};
use crate::storage::RowWrite;

/// The provider's words about an attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Word {
    /// Its code, should it be a decline.
    pub(super) code: String,
    /// For a person.
    pub(super) reason: String,
    /// When it was paid, by the provider's clock.
    pub(super) paid_at: Option<Timestamp>,
}

/// Applies `event` to an attempt, and makes everything that follows durable together with
/// `rows`. Gives the attempt as it is stored then.
///
/// # Errors
/// [`Stopped`]; then nothing of it is durable.
pub(super) async fn carry(
    shop: &ShopHandle,
    payment: &Payment,
    before: &Attempt,
    event: &AttemptEvent,
    word: &Word,
    rows: Vec<RowWrite>,
    now: Timestamp,
) -> Result<Attempt, Stopped> {
    let mut after = before.clone();
    let effect = match after.apply(event, now.0) {
        Ok(effect) => effect,
        Err(refused) => {
            tracing::error!(%refused, "an attempt can't take what is said to have happened to it");
            write(shop, rows).await?;
            return Ok(before.clone());
        }
    };
    tell(&effect, payment);
    let mut all = rows.clone();
    all.push(put_attempt(&after));
    let facts = facts(payment, before, &after, &effect, word, now);
    if facts.is_empty() {
        write(shop, all).await?;
        return Ok(after);
    }
    let facts = without_known(shop, facts).await?;
    let operation = Operation { facts, ..Operation::default() };
    match shop.record_with(operation, all.clone()).await {
        Ok(_) => {
            tracing::info!(state = ?after.state(), receipt = after.receipt_number(), "settled");
            Ok(after)
        }
        Err(RecordError::Stopped(stopped)) => Err(stopped),
        Err(RecordError::Refused(error)) => {
            if is_booked(shop, payment, &after).await? {
                write(shop, all).await?;
                return Ok(after);
            }
            tracing::error!(%error, receipt = after.receipt_number(), "an outcome can't be booked: a person must settle this payment");
            set_aside(shop, payment, before, event, word, rows, now).await
        }
    }
}

/// Money in suspense is booked once, whatever repeats: by callback first, by the list later.
async fn without_known(shop: &ShopHandle, facts: Vec<Fact>) -> Result<Vec<Fact>, Stopped> {
    shop.ask(move |shop| {
        let known = |fact: &Fact| {
            let Fact::Payment(PaymentFact::Suspense(suspense)) = fact else { return false };
            let id = suspense_id(shop.business(), &suspense.provider, &suspense.number);
            shop.books().suspense_entry(id).is_some()
        };
        facts.into_iter().filter(|fact| !known(fact)).collect()
    })
    .await
}

/// Records that an intent is not asked for, without an attempt.
pub(super) async fn decline(shop: &ShopHandle, payment: &Payment, number: u32, word: &Word) -> Result<(), Stopped> {
    let fact = decline_fact(payment, number, word);
    match shop.record(Operation { facts: vec![fact], ..Operation::default() }).await {
        Ok(_) => tracing::info!(intent = %payment.intent, code = word.code, "declined without asking"),
        Err(RecordError::Stopped(stopped)) => return Err(stopped),
        Err(RecordError::Refused(error)) => tracing::error!(%error, "a decline can't be recorded"),
    }
    Ok(())
}

pub(super) async fn write(shop: &ShopHandle, rows: Vec<RowWrite>) -> Result<(), Stopped> {
    if rows.is_empty() { Ok(()) } else { shop.write_rows(rows).await }
}

/// A receipt number that already pays something else is none of this attempt's: what came is kept
/// as it is, and people must look.
async fn set_aside(
    shop: &ShopHandle,
    payment: &Payment,
    before: &Attempt,
    event: &AttemptEvent,
    word: &Word,
    mut rows: Vec<RowWrite>,
    now: Timestamp,
) -> Result<Attempt, Stopped> {
    let mut attempt = before.clone();
    if let AttemptEvent::CalledBack(result) = event {
        let mut result = result.clone();
        result.receipt_number = None;
        if attempt.apply(&AttemptEvent::CalledBack(result), now.0).is_ok() {
            rows.push(put_attempt(&attempt));
        }
    }
    let reason = attempt.review().unwrap_or(ReviewReason::SecondReceipt);
    tracing::debug!(code = word.code, ?reason, "set aside");
    let operation = Operation { facts: vec![review_fact(payment, &attempt, reason)], ..Operation::default() };
    match shop.record_with(operation, rows.clone()).await {
        Ok(_) => Ok(attempt),
        Err(RecordError::Stopped(stopped)) => Err(stopped),
        Err(RecordError::Refused(error)) => {
            tracing::error!(%error, "a review can't be recorded");
            write(shop, rows).await?;
            Ok(attempt)
        }
    }
}

/// The receipt is in the journal already, as when the attempt's row came from a backup.
async fn is_booked(shop: &ShopHandle, payment: &Payment, attempt: &Attempt) -> Result<bool, Stopped> {
    let Some(number) = attempt.receipt_number().map(str::to_owned) else { return Ok(false) };
    let intent = payment.intent;
    shop.ask(move |shop| {
        let known = shop.books().payment(intent);
        known.is_some_and(|known| known.receipts.iter().any(|claim| claim.accepted && claim.number == number))
    })
    .await
}

fn facts(
    payment: &Payment,
    before: &Attempt,
    after: &Attempt,
    effect: &Effect,
    word: &Word,
    now: Timestamp,
) -> Vec<Fact> {
    let receipt = |number: &String| {
        Fact::Receipt(Receipt {
            intent: payment.intent,
            provider: payment.provider.clone(),
            number: number.clone(),
            amount: Money::new(after.amount_minor(), payment.amount.currency),
            paid_at: word.paid_at.unwrap_or(now),
            evidence: evidence(after),
            attempt: after.number(),
            test: is_test(number),
        })
    };
    match effect {
        Effect::Book { receipt_number } => vec![receipt(receipt_number)],
        Effect::BookLate { receipt_number } => {
            vec![receipt(receipt_number), review_fact(payment, after, ReviewReason::PaidAfterFailure)]
        }
        Effect::Suspend { reason, receipt_number, amount_minor } => {
            let number = receipt_number.clone().or_else(|| after.ids().map(|ids| ids.checkout_id.clone()));
            let number = number.unwrap_or_else(|| format!("{}/{}", payment.intent, after.number()));
            let suspense = Suspense {
                provider: payment.provider.clone(),
                test: is_test(&number),
                number,
                amount: Money::new(amount_minor.unwrap_or_default(), payment.amount.currency),
                paid_at: word.paid_at.unwrap_or(now),
                evidence: Evidence::Callback,
                reason: Some(*reason),
                intent: Some(payment.intent),
                account: String::new(),
            };
            vec![review_fact(payment, after, *reason), Fact::Payment(PaymentFact::Suspense(suspense))]
        }
        Effect::Review(reason) => vec![review_fact(payment, after, *reason)],
        Effect::Unchanged | Effect::Moved | Effect::Call | Effect::AwaitReceiptNumber | Effect::Alert(_) => {
            if before.state() == after.state() {
                return Vec::new();
            }
            match after.state() {
                AttemptState::Failed => vec![decline_fact(payment, after.number(), word)],
                AttemptState::Accepted => vec![progress_fact(after, Stage::Asked)],
                AttemptState::Unknown | AttemptState::Quarantine => vec![progress_fact(after, Stage::Unknown)],
                AttemptState::Ready | AttemptState::Calling | AttemptState::Paid | AttemptState::LatePaid => Vec::new(),
            }
        }
    }
}

fn review_fact(payment: &Payment, attempt: &Attempt, reason: ReviewReason) -> Fact {
    Fact::Payment(PaymentFact::Review(IntentReview { intent: payment.intent, attempt: attempt.number(), reason }))
}

/// What a till shows meanwhile.
pub(super) fn progress_fact(attempt: &Attempt, stage: Stage) -> Fact {
    let (intent, attempt) = (RecordId(attempt.intent()), attempt.number());
    Fact::Payment(PaymentFact::Progress(Progress { intent, attempt, stage }))
}

fn decline_fact(payment: &Payment, attempt: u32, word: &Word) -> Fact {
    Fact::Decline(Decline {
        intent: payment.intent,
        attempt,
        code: cut(&word.code, NAME_BYTES_MAX),
        reason: cut(&word.reason, TEXT_BYTES_MAX),
    })
}

/// The longest start of `text` that fits.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn evidence(attempt: &Attempt) -> Evidence {
    match attempt.evidence() {
        Some(payment::Evidence::Callback) | None => Evidence::Callback,
        Some(payment::Evidence::Query) => Evidence::Query,
        Some(payment::Evidence::Pull) => Evidence::Pull,
        Some(payment::Evidence::Statement) => Evidence::Statement,
        Some(payment::Evidence::Answer) => Evidence::Immediate,
    }
}

/// The simulator's numbers: TEST and twelve characters. The provider's own have ten in all.
pub(super) fn is_test(receipt_number: &str) -> bool {
    receipt_number.strip_prefix("TEST").is_some_and(|rest| rest.len() == 12)
}

fn tell(effect: &Effect, payment: &Payment) {
    let intent = payment.intent;
    match effect {
        Effect::Suspend { reason, receipt_number, amount_minor } => tracing::error!(
            %intent, ?reason, receipt = receipt_number, amount_minor, asked_minor = payment.amount.minor,
            "money that does not fit its payment: it is in suspense, people must look"
        ),
        Effect::Review(reason) => tracing::error!(%intent, ?reason, "a person must look at this payment"),
        Effect::BookLate { receipt_number } => tracing::error!(
            %intent, receipt = receipt_number,
            "paid after it was reported as failed: it is booked, a person must look whether it was paid twice"
        ),
        Effect::Alert(Alert::Configuration) => {
            tracing::error!(%intent, "the provider refuses the shop's configuration: mend the credentials file");
        }
        Effect::Alert(Alert::FailureAfterPaid) => {
            tracing::error!(%intent, "a failure was reported for a payment that is proven: the provider's statement decides");
        }
        Effect::Alert(alert @ (Alert::OtherCheckout | Alert::NotSentAfterCallback)) => {
            tracing::warn!(%intent, ?alert, "the provider contradicts itself; what is proven stays");
        }
        Effect::AwaitReceiptNumber => tracing::info!(%intent, "paid; its receipt number is still to come"),
        Effect::Book { .. } | Effect::Unchanged | Effect::Moved | Effect::Call => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_simulators_receipts_are_tests() {
        assert!(is_test("TESTABCDEFGH2345"));
        for real in ["TESTA1B2C3", "SFF6XYZ123", "CASHABCDEFGH2345", "TEST", ""] {
            assert!(!is_test(real), "{real}");
        }
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(cut("malipo", 10), "malipo");
        assert_eq!(cut("aé", 2), "a");
    }
}
