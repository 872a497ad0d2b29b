//! What people do about a payment: ask again, give it up, show a receipt number, and settle in
//! pairs what only people can settle.

use crdt_model::books::{IntentState, Payment};
use crdt_model::ids::RecordId;
use crdt_model::payment::ATTEMPTS_MAX;
use crdt_model::record::{Check, CodeClaim, Fact, GiveUp, Instead, IntentRetry, PaymentFact, Proposal, Settlement};
use crdt_model::shop::Shop;

use super::{PlanError, Planned, State};
use crate::shop_handle::ShopHandle;

/// The provider's receipt numbers have this many letters and digits; the simulator's have more.
const CODE_CHARS: std::ops::RangeInclusive<usize> = 8..=20;

/// Asks the customer once more. Whether two minutes have passed, the relay judges.
///
/// # Errors
/// [`PlanError`]; [`State::PaymentNotDeclined`] unless every attempt so far has failed,
/// [`State::TooManyAttempts`] after the last.
pub async fn retry_payment(shop: &ShopHandle, intent: RecordId) -> Result<Planned, PlanError> {
    let payment = payment_of(shop, intent).await?;
    let last = payment.declines.iter().map(|decline| decline.attempt).max().unwrap_or(0);
    if payment.state != IntentState::Declined || last == 0 {
        let reason = format!(
            "payment {intent} is {}: only a declined one is asked for again, so that nobody pays twice",
            payment.shown().word()
        );
        return Err(PlanError::State { state: State::PaymentNotDeclined, reason });
    }
    if usize::try_from(last).is_ok_and(|last| last >= ATTEMPTS_MAX) {
        let reason = format!("payment {intent} was tried {ATTEMPTS_MAX} times: take another tender");
        return Err(PlanError::State { state: State::TooManyAttempts, reason });
    }
    about(intent, PaymentFact::Retry(IntentRetry { intent, after_attempt: last }))
}

/// Asks the relay to give a payment up. It refuses while the customer may still be charged.
///
/// # Errors
/// [`PlanError`]; [`State::PaymentNotOpen`] if nothing is left to give up.
pub async fn give_up_payment(shop: &ShopHandle, intent: RecordId, instead: Instead) -> Result<Planned, PlanError> {
    let payment = payment_of(shop, intent).await?;
    match payment.state {
        IntentState::Open | IntentState::Declined => {}
        IntentState::Paid | IntentState::Void | IntentState::Review => {
            let reason = format!("payment {intent} is {}: there is nothing to give up", payment.shown().word());
            return Err(PlanError::State { state: State::PaymentNotOpen, reason });
        }
    }
    if let Some(wish) = payment.given_up.filter(|wish| wish.granted.is_none()) {
        let mut planned = Planned { record: Some(wish.request), repeated: true, ..Planned::default() };
        planned.operation.facts.clear();
        return Ok(planned);
    }
    Planned::fact(Fact::Payment(PaymentFact::GiveUp(GiveUp { intent, instead })))
}

/// A customer who paid by hand shows the provider's receipt number. One number is claimed once.
///
/// # Errors
/// [`PlanError`]; [`State::CodeClaimed`] if it pays something else.
pub async fn claim_code(shop: &ShopHandle, intent: RecordId, code: &str) -> Result<Planned, PlanError> {
    let payment = payment_of(shop, intent).await?;
    let code = code.trim().to_ascii_uppercase();
    if !CODE_CHARS.contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let reason = "is not a receipt number: copy it from the customer's message, like SFF6XYZ123".to_owned();
        return Err(PlanError::Field { field: "code".to_owned(), reason });
    }
    if !matches!(payment.state, IntentState::Open | IntentState::Declined) {
        let reason = format!("payment {intent} is {}: it needs no receipt number", payment.shown().word());
        return Err(PlanError::State { state: State::PaymentNotOpen, reason });
    }
    let (provider, number) = (payment.provider.clone(), code.clone());
    let taken = shop.ask(move |shop| taken_by(shop, &provider, &number)).await?;
    if let Some(other) = taken.filter(|other| *other != intent) {
        let reason = format!("the receipt number was claimed for payment {other}: it pays once");
        return Err(PlanError::State { state: State::CodeClaimed, reason });
    }
    about(intent, PaymentFact::CodeClaim(CodeClaim { intent, provider: payment.provider, code }))
}

fn taken_by(shop: &Shop, provider: &str, number: &str) -> Option<RecordId> {
    shop.number_pays(provider, number).or_else(|| shop.books().claimant(provider, number))
}

/// The first of two people says how to settle a review, money in suspense, or a receipt.
///
/// # Errors
/// [`PlanError`]; [`State::NothingToSettle`] if the subject is not one of these.
pub async fn propose(
    shop: &ShopHandle,
    subject: RecordId,
    settlement: Settlement,
    note: String,
) -> Result<Planned, PlanError> {
    let (fits, ordinal) = shop.ask(move |shop| (fits(shop, subject, settlement), next_ordinal(shop, subject))).await?;
    if !fits {
        let reason = "there is nothing to settle like this: look at the payment, the receipt or the suspense first";
        return Err(PlanError::State { state: State::NothingToSettle, reason: reason.to_owned() });
    }
    Planned::fact(Fact::Payment(PaymentFact::Proposal(Proposal { subject, settlement, note, ordinal })))
}

fn next_ordinal(shop: &Shop, subject: RecordId) -> u32 {
    u32::try_from(shop.books().proposals_about(subject).len()).unwrap_or(u32::MAX)
}

fn fits(shop: &Shop, subject: RecordId, settlement: Settlement) -> bool {
    let books = shop.books();
    let review = books.intent_state(subject) == Some(IntentState::Review);
    let suspense = books.suspense_entry(subject);
    let unsettled = suspense
        .as_ref()
        .is_some_and(|entry| entry.settled.is_none() && shop.number_pays(&entry.provider, &entry.number).is_none());
    match settlement {
        Settlement::AsBooked | Settlement::NotPaid => review,
        Settlement::Keep => unsettled,
        Settlement::Assign(intent) => {
            let payment = books.payment(intent);
            unsettled
                && payment.is_some_and(|payment| {
                    payment.state != IntentState::Paid
                        && suspense.as_ref().is_some_and(|entry| entry.amount == payment.amount)
                })
        }
        Settlement::Reverse => unsettled || books.receipt_pays(subject).is_some(),
    }
}

/// The second of two people agrees, or does not. It has to be another device than the maker's.
///
/// # Errors
/// [`PlanError`]; [`State::SamePerson`], [`State::ProposalDecided`].
pub async fn check_proposal(
    shop: &ShopHandle,
    proposal: RecordId,
    agreed: bool,
    note: String,
) -> Result<Planned, PlanError> {
    let (known, me) = shop.ask(move |shop| (shop.books().proposal(proposal), shop.device())).await?;
    let Some(known) = known else { return Err(PlanError::NotFound { what: "proposal", id: proposal.to_string() }) };
    if known.maker == me {
        let reason = "this device made the proposal: another person decides it, on a device of their own".to_owned();
        return Err(PlanError::State { state: State::SamePerson, reason });
    }
    if known.checked.is_some() {
        let reason = format!("proposal {proposal} was decided before: make a new one");
        return Err(PlanError::State { state: State::ProposalDecided, reason });
    }
    Planned::fact(Fact::Payment(PaymentFact::Check(Check { proposal, agreed, note })))
}

fn about(intent: RecordId, fact: PaymentFact) -> Result<Planned, PlanError> {
    let mut planned = Planned::fact(Fact::Payment(fact))?;
    planned.record = Some(intent);
    Ok(planned)
}

async fn payment_of(shop: &ShopHandle, intent: RecordId) -> Result<Payment, PlanError> {
    let found = shop.ask(move |shop| shop.books().payment(intent)).await?;
    found.ok_or_else(|| PlanError::NotFound { what: "payment", id: intent.to_string() })
}
