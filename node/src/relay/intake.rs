//! Whether an intent may be pushed now, and all that is needed to push it.

use crdt_model::books::{IntentState, Payment};
use crdt_model::ids::{BusinessId, RecordId};
use crdt_model::payment::{
    Attempt, AttemptEvent, AttemptRefused, AttemptState, account_reference, callback_token, needs_confirmation,
    next_attempt_number,
};
use crdt_model::record::Fact;
use crdt_model::shop::PromiseLimits;
use crdt_model::time::Timestamp;

use super::Waiting;
use super::booking::Word;
use super::standing::View;
use crate::payments::{PaymentProvider, Phone, PushRequest};
use crate::shop_handle::{ReadError, ShopHandle, Stopped};

/// Between two attempts of one intent: the provider refuses the same amount and customer within
/// two minutes.
pub(super) const RETRY_PAUSE_MS: u64 = 2 * 60 * 1000;

/// A retry is for a customer who is there: of an intent younger than this, or asked for within it.
pub(super) const RETRY_AGE_MAX_MS: u64 = 15 * 60 * 1000;

/// An intent as the shop has it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) view: View,
    pub(super) payment: Payment,
    business: BusinessId,
    business_name: String,
    business_currency: String,
}

/// What to do with an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is not ours to push, or not open any more.
    Leave,
    Wait(Waiting),
    /// It can't be asked for at all.
    Decline {
        number: u32,
        code: &'static str,
        reason: String,
    },
    /// This attempt of it may be called.
    Push(Attempt),
}

impl Case {
    pub(super) async fn ask(shop: &ShopHandle, intent: RecordId) -> Result<Option<Self>, Stopped> {
        shop.ask(move |shop| {
            let payment = shop.books().payment(intent)?;
            let genesis = shop.genesis();
            Some(Self {
                view: View::of(shop),
                payment,
                business: shop.business(),
                business_name: genesis.name.clone(),
                business_currency: genesis.currency.code().to_owned(),
            })
        })
        .await
    }

    /// Whether the intent is this ledger's, and still to be paid.
    pub(super) fn is_ours_and_open(&self) -> bool {
        let payment = &self.payment;
        payment.state == IntentState::Open
            && !payment.branch
            && !payment.voided
            && payment.moving.is_none()
            && payment.ledger == Some(self.view.ledger)
    }

    /// Whether this relay's word about the intent counts, in whatever epoch and state it is.
    pub(super) fn is_ours(&self) -> bool {
        self.payment.voices.contains(&self.view.ledger.relay)
    }

    /// Whether the intent is with this relay now, in whatever epoch and state it is.
    pub(super) fn is_with_us(&self) -> bool {
        self.payment.ledger.is_some_and(|ledger| ledger.relay == self.view.ledger.relay)
    }

    /// An attempt whose row was lost, with the little that is certain: it was called after the
    /// intent was made, and it is over if a former ledger made it.
    pub(super) fn remake(&self, number: u32) -> Attempt {
        let payment = &self.payment;
        let mut attempt = Attempt::new(payment.intent.0, number, payment.amount.minor, payment.time.wall().0);
        if number <= payment.earlier_attempts
            && let Err(refused) = attempt.apply(&AttemptEvent::Cancelled, payment.time.wall().0)
        {
            tracing::error!(intent = %payment.intent, %refused, "a former ledger's attempt can't be noted");
        }
        attempt
    }

    /// The attempts of former ledgers that are not among `attempts`. They are over, and count.
    pub(super) fn earlier(&self, attempts: &[Attempt]) -> Vec<Attempt> {
        let known = |number: u32| attempts.iter().any(|attempt| attempt.number() == number);
        (1..=self.payment.earlier_attempts).filter(|number| !known(*number)).map(|number| self.remake(number)).collect()
    }

    /// Judges an intent of this ledger, given every attempt made so far.
    pub(super) fn judge(
        &self,
        attempts: &[Attempt],
        provider: Option<&dyn PaymentProvider>,
        now: Timestamp,
        stale_ms: u64,
    ) -> Verdict {
        if !self.is_ours_and_open() {
            return Verdict::Leave;
        }
        let (payment, ready) = (&self.payment, attempts.iter().find(|one| one.state() == AttemptState::Ready));
        let number = match (ready, next_attempt_number(attempts)) {
            (Some(ready), _) => ready.number(),
            (None, Ok(number)) => number,
            (None, Err(AttemptRefused::Barred { .. })) => return Verdict::Wait(Waiting::Outcome),
            (None, Err(_)) => return Verdict::Wait(Waiting::Person),
        };
        let Some(provider) = provider else { return Verdict::Wait(Waiting::Credentials) };
        let decline = |code, reason| Verdict::Decline { number, code, reason };
        if payment.amount.currency.code() != self.business_currency {
            return decline("unsupported_currency", "the payment is not in the business's currency".to_owned());
        }
        if let Err(unsupported) = provider.supports(payment.amount.currency.code(), payment.amount.minor) {
            return decline(code_of(&unsupported), unsupported.to_string());
        }
        let confirmed = payment.confirmed.map(|at| at.wall());
        let last = attempts.iter().filter(|one| one.state() == AttemptState::Failed).map(Attempt::changed_at_ms).max();
        let retried = payment.retries.iter().find(|(after, _)| *after + 1 == number).map(|(_, at)| at.wall());
        if let Some(last) = last {
            // Never again by itself: somebody asked for it after the last attempt had failed.
            let asked = retried.or(confirmed.filter(|confirmed| confirmed.0 >= last));
            let Some(asked) = asked else { return Verdict::Wait(Waiting::Confirmation) };
            let fresh = payment.time.wall().max(confirmed.unwrap_or_default()).max(asked);
            if now.0.saturating_sub(fresh.0) > RETRY_AGE_MAX_MS && ready.is_none() {
                return Verdict::Wait(Waiting::Confirmation);
            }
            if now.0.saturating_sub(last) < RETRY_PAUSE_MS {
                return Verdict::Wait(Waiting::Pause);
            }
        }
        let asked = payment.time.wall().max(confirmed.unwrap_or_default()).max(retried.unwrap_or_default());
        if needs_confirmation(asked.0, now.0, stale_ms) {
            return Verdict::Wait(Waiting::Confirmation);
        }
        Verdict::Push(
            ready.cloned().unwrap_or_else(|| Attempt::new(payment.intent.0, number, payment.amount.minor, now.0)),
        )
    }

    /// The limits on what may be promised.
    pub(super) fn limits(&self) -> PromiseLimits {
        self.view.limits()
    }

    /// What the provider is told. The phone number comes from the personal part of the intent's
    /// entry, which may have been erased.
    pub(super) fn request(
        &self,
        shop: &ShopHandle,
        attempt: &Attempt,
        token_key: &[u8; 32],
        now: Timestamp,
    ) -> Result<PushRequest, ReadError> {
        let payment = &self.payment;
        Ok(PushRequest {
            intent: payment.intent.0,
            attempt: attempt.number(),
            currency: payment.amount.currency.code().to_owned(),
            amount_minor: attempt.amount_minor(),
            phone: self.phone(shop)?,
            account_reference: account_reference(payment.intent.0, attempt.number()),
            callback_token: callback_token(token_key, payment.intent.0, attempt.number()),
            description: self.business_name.clone(),
            at_ms: now.0,
        })
    }

    fn phone(&self, shop: &ShopHandle) -> Result<Option<Phone>, ReadError> {
        let Some(entry) = shop.entry(self.payment.place)? else { return Ok(None) };
        let body = entry.body()?;
        let ours = body.facts.iter().enumerate().find(|(index, fact)| {
            matches!(fact, Fact::Intent(_))
                && body.record_id(self.business, self.payment.place, *index) == Some(self.payment.intent)
        });
        let Some(index) = ours.and_then(|(index, _)| u32::try_from(index).ok()) else { return Ok(None) };
        let personal = body.personal.iter().find(|personal| personal.fact == index);
        Ok(personal.and_then(|personal| personal.phone.as_deref()?.parse().ok()))
    }
}

pub(super) fn word(code: &str, reason: String) -> Word {
    Word { code: code.to_owned(), reason, paid_at: None }
}

fn code_of(unsupported: &crate::payments::Unsupported) -> &'static str {
    use crate::payments::Unsupported;
    match unsupported {
        Unsupported::Currency { .. } => "unsupported_currency",
        Unsupported::PartShillings(_) => "part_shilling",
        Unsupported::OutOfRange { .. } => "amount_out_of_range",
    }
}
