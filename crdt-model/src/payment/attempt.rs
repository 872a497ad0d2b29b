//! One attempt and what each event does to it.

use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{
    Alert, Answer, AttemptEvent, AttemptState, CallbackResult, Effect, Evidence, HardFail, ProviderIds, Refused,
    ResultClass, ReviewReason, classify,
};

/// One attempt to be paid, as the relay stores it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Attempt {
    #[cbor(n(0), with = "uuid_bytes")]
    intent: Uuid,
    #[n(1)]
    number: u32,
    #[n(2)]
    amount_minor: i64,
    #[n(3)]
    state: AttemptState,
    #[n(4)]
    lease_until_ms: Option<u64>,
    #[n(5)]
    ids: Option<ProviderIds>,
    #[n(6)]
    receipt_number: Option<String>,
    #[n(7)]
    evidence: Option<Evidence>,
    #[n(8)]
    result_code: Option<String>,
    #[n(9)]
    review: Option<ReviewReason>,
    #[n(10)]
    created_at_ms: u64,
    #[n(11)]
    changed_at_ms: u64,
    /// The provider's own list has its receipt number.
    #[cbor(n(12), default)]
    listed: bool,
    /// When it was claimed, which is just before it was called.
    #[n(13)]
    called_at_ms: Option<u64>,
}

impl Attempt {
    /// Attempt `number` (from 1) of an intent over `amount_minor`. It must be durable before
    /// it is claimed. Times are milliseconds since 1970 UTC.
    #[must_use]
    pub fn new(intent: Uuid, number: u32, amount_minor: i64, at_ms: u64) -> Self {
        Self {
            intent,
            number,
            amount_minor,
            state: AttemptState::Ready,
            lease_until_ms: None,
            ids: None,
            receipt_number: None,
            evidence: None,
            result_code: None,
            review: None,
            created_at_ms: at_ms,
            changed_at_ms: at_ms,
            listed: false,
            called_at_ms: None,
        }
    }

    /// The intent it belongs to.
    #[must_use]
    pub fn intent(&self) -> Uuid {
        self.intent
    }

    /// Its place among the intent's attempts, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What is asked of the customer, in minor units.
    #[must_use]
    pub fn amount_minor(&self) -> i64 {
        self.amount_minor
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> AttemptState {
        self.state
    }

    /// When the lease of the one that calls ends, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn lease_until_ms(&self) -> Option<u64> {
        self.lease_until_ms
    }

    /// The provider's ids, once known.
    #[must_use]
    pub fn ids(&self) -> Option<&ProviderIds> {
        self.ids.as_ref()
    }

    /// The provider's receipt number, once paid.
    #[must_use]
    pub fn receipt_number(&self) -> Option<&str> {
        self.receipt_number.as_deref()
    }

    /// What proved the payment.
    #[must_use]
    pub fn evidence(&self) -> Option<Evidence> {
        self.evidence
    }

    /// The last result code that the provider gave.
    #[must_use]
    pub fn result_code(&self) -> Option<&str> {
        self.result_code.as_deref()
    }

    /// Why a person must look at it.
    #[must_use]
    pub fn review(&self) -> Option<ReviewReason> {
        self.review
    }

    /// When it was made, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn created_at_ms(&self) -> u64 {
        self.created_at_ms
    }

    /// When it last changed, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn changed_at_ms(&self) -> u64 {
        self.changed_at_ms
    }

    /// Whether the provider's own list, or its statement, has the receipt number.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// When it was claimed, just before its call, in milliseconds since 1970 UTC; for a row made
    /// again from its callback, when that was.
    #[must_use]
    pub fn called_at_ms(&self) -> u64 {
        self.called_at_ms.unwrap_or(self.created_at_ms)
    }

    /// Applies what happened and says what follows from it. The caller stores the attempt
    /// (unless refused or unchanged) before it acts on the effect, and compares and sets so
    /// that two replicas can't both succeed.
    ///
    /// # Errors
    /// [`Refused`], with the attempt left as it was.
    pub fn apply(&mut self, event: &AttemptEvent, at_ms: u64) -> Result<Effect, Refused> {
        let before = self.clone();
        let effect = match event {
            AttemptEvent::Cancelled => self.cancel(),
            AttemptEvent::Claimed { lease_until_ms } => self.claim(*lease_until_ms, at_ms),
            AttemptEvent::LeaseExpired => self.expire(at_ms),
            AttemptEvent::Answered(answer) => self.answered(answer),
            AttemptEvent::CalledBack(result) => Ok(self.called_back(result)),
            AttemptEvent::Queried { result_code } => self.queried(result_code),
            AttemptEvent::Found { evidence, receipt_number, amount_minor } => {
                self.prove_sent();
                let effect = self.money_seen(*evidence, Some(receipt_number), Some(*amount_minor));
                let own_list = matches!(evidence, Evidence::Pull | Evidence::Statement);
                self.listed |= own_list && self.receipt_number.as_ref() == Some(receipt_number);
                Ok(effect)
            }
            AttemptEvent::Absent => self.absent(),
            AttemptEvent::OpenTooLong => self.open_too_long(),
        }?;
        if *self != before {
            self.changed_at_ms = at_ms;
            return Ok(if effect == Effect::Unchanged { Effect::Moved } else { effect });
        }
        Ok(effect)
    }

    fn cancel(&mut self) -> Result<Effect, Refused> {
        if self.state != AttemptState::Ready {
            return Err(Refused::NotReady(self.state));
        }
        self.state = AttemptState::Failed;
        Ok(Effect::Moved)
    }

    fn claim(&mut self, lease_until_ms: u64, at_ms: u64) -> Result<Effect, Refused> {
        if self.state != AttemptState::Ready {
            return Err(Refused::NotReady(self.state));
        }
        self.state = AttemptState::Calling;
        self.lease_until_ms = Some(lease_until_ms);
        self.called_at_ms = Some(at_ms);
        Ok(Effect::Call)
    }

    fn expire(&mut self, at_ms: u64) -> Result<Effect, Refused> {
        let (AttemptState::Calling, Some(until_ms)) = (self.state, self.lease_until_ms) else {
            return Err(Refused::NoLease(self.state));
        };
        if at_ms < until_ms {
            return Err(Refused::LeaseRunning { until_ms });
        }
        self.state = AttemptState::Unknown;
        Ok(Effect::Moved)
    }

    fn answered(&mut self, answer: &Answer) -> Result<Effect, Refused> {
        if self.state == AttemptState::Ready {
            return Err(Refused::NotCalled);
        }
        let calling = self.state == AttemptState::Calling;
        match answer {
            Answer::Accepted(ids) => {
                if calling {
                    self.state = AttemptState::Accepted;
                }
                Ok(self.learn_answered_ids(ids))
            }
            Answer::Settled { receipt_number } => {
                let amount_minor = self.amount_minor;
                Ok(self.money_seen(Evidence::Answer, Some(receipt_number), Some(amount_minor)))
            }
            Answer::NotSent if calling => {
                self.state = AttemptState::Failed;
                Ok(Effect::Moved)
            }
            // A callback has shown otherwise, or the lease ended and others may have acted.
            Answer::NotSent if self.ids.is_some() => Ok(Effect::Alert(Alert::NotSentAfterCallback)),
            Answer::Ambiguous if calling => {
                self.state = AttemptState::Unknown;
                Ok(Effect::Moved)
            }
            Answer::NotSent | Answer::Ambiguous => Ok(Effect::Unchanged),
        }
    }

    /// The answer's ids win over those of an earlier callback, which then was not about this
    /// push: a person looks, and nothing is pushed again.
    fn learn_answered_ids(&mut self, ids: &ProviderIds) -> Effect {
        match &self.ids {
            Some(known) if known.checkout_id != ids.checkout_id => {
                self.ids = Some(ids.clone());
                self.ask_review(ReviewReason::OtherCheckout)
            }
            Some(_) => Effect::Unchanged,
            None => {
                self.ids = Some(ids.clone());
                Effect::Moved
            }
        }
    }

    fn called_back(&mut self, result: &CallbackResult) -> Effect {
        // Only the provider knows the token, and only from our push. So the push was sent,
        // even if this row (restored from a backup, say) has not heard of it.
        self.prove_sent();
        let other_checkout = self.ids.as_ref().is_some_and(|known| known.checkout_id != result.ids.checkout_id);
        let class = classify(&result.result_code);
        if class == ResultClass::Paid {
            return self.paid_callback(result, other_checkout);
        }
        if other_checkout {
            return Effect::Alert(Alert::OtherCheckout);
        }
        self.ids.get_or_insert_with(|| result.ids.clone());
        let repeated = self.result_code.as_deref() == Some(result.result_code.as_str());
        match (class, self.state) {
            (ResultClass::Pending, _) => return Effect::Unchanged,
            (_, AttemptState::Paid | AttemptState::LatePaid) if repeated => {
                return Effect::Unchanged;
            }
            (_, AttemptState::Paid | AttemptState::LatePaid) => {
                return Effect::Alert(Alert::FailureAfterPaid);
            }
            (_, AttemptState::Failed) => return Effect::Unchanged,
            (ResultClass::HardFail(_), _) => self.state = AttemptState::Failed,
            (ResultClass::SoftFail, _) => self.state = AttemptState::Quarantine,
            (ResultClass::Unknown | ResultClass::Paid, AttemptState::Quarantine) => {}
            (ResultClass::Unknown | ResultClass::Paid, _) => self.state = AttemptState::Unknown,
        }
        self.result_code = Some(result.result_code.clone());
        match class {
            ResultClass::HardFail(HardFail::Configuration) => Effect::Alert(Alert::Configuration),
            ResultClass::HardFail(_)
            | ResultClass::SoftFail
            | ResultClass::Unknown
            | ResultClass::Pending
            | ResultClass::Paid => Effect::Moved,
        }
    }

    fn paid_callback(&mut self, result: &CallbackResult, other_checkout: bool) -> Effect {
        let receipt_number = result.receipt_number.as_deref();
        let known = receipt_number.is_some() && self.receipt_number.as_deref() == receipt_number;
        if known {
            return Effect::Unchanged;
        }
        if other_checkout {
            return self.suspend(ReviewReason::OtherCheckout, receipt_number, result.amount_minor);
        }
        self.ids.get_or_insert_with(|| result.ids.clone());
        if receipt_number.is_none() {
            return self.suspend(ReviewReason::NoReceiptNumber, None, result.amount_minor);
        }
        let effect = self.money_seen(Evidence::Callback, receipt_number, result.amount_minor);
        if self.evidence == Some(Evidence::Callback) {
            self.result_code.get_or_insert_with(|| result.result_code.clone());
        }
        effect
    }

    fn queried(&mut self, result_code: &str) -> Result<Effect, Refused> {
        if self.ids.is_none() {
            return Err(Refused::NotCalled);
        }
        // A query has been seen to call a paid transaction failed, so only "paid" counts.
        match classify(result_code) {
            ResultClass::Paid => {
                let amount_minor = self.amount_minor;
                Ok(self.money_seen(Evidence::Query, None, Some(amount_minor)))
            }
            ResultClass::HardFail(_) | ResultClass::SoftFail | ResultClass::Pending | ResultClass::Unknown => {
                Ok(Effect::Unchanged)
            }
        }
    }

    fn absent(&mut self) -> Result<Effect, Refused> {
        match self.state {
            AttemptState::Ready => Err(Refused::NotCalled),
            AttemptState::Calling => Err(Refused::StillCalling),
            AttemptState::Accepted | AttemptState::Unknown | AttemptState::Quarantine => {
                self.state = AttemptState::Failed;
                Ok(Effect::Moved)
            }
            AttemptState::Failed => Ok(Effect::Unchanged),
            AttemptState::Paid | AttemptState::LatePaid if self.listed => Ok(Effect::Unchanged),
            AttemptState::Paid | AttemptState::LatePaid => Ok(self.ask_review(ReviewReason::ProofDisputed)),
        }
    }

    fn open_too_long(&mut self) -> Result<Effect, Refused> {
        match self.state {
            AttemptState::Ready => Err(Refused::NotCalled),
            AttemptState::Calling => Err(Refused::StillCalling),
            AttemptState::Accepted | AttemptState::Unknown | AttemptState::Quarantine => {
                Ok(self.ask_review(ReviewReason::OpenTooLong))
            }
            // A query said that it is paid, and nothing else has told the receipt number since.
            AttemptState::Paid | AttemptState::LatePaid if self.receipt_number.is_none() => {
                Ok(self.ask_review(ReviewReason::OpenTooLong))
            }
            AttemptState::Paid | AttemptState::Failed | AttemptState::LatePaid => Err(Refused::Settled(self.state)),
        }
    }

    fn money_seen(&mut self, evidence: Evidence, receipt_number: Option<&str>, amount_minor: Option<i64>) -> Effect {
        match (self.receipt_number.as_deref(), receipt_number) {
            (Some(_), None) => return Effect::Unchanged,
            (Some(booked), Some(seen)) if booked == seen => return Effect::Unchanged,
            (Some(_), Some(_)) => {
                return self.suspend(ReviewReason::SecondReceipt, receipt_number, amount_minor);
            }
            (None, _) => {}
        }
        if amount_minor != Some(self.amount_minor) {
            return self.suspend(ReviewReason::WrongAmount, receipt_number, amount_minor);
        }
        let late = matches!(self.state, AttemptState::Failed | AttemptState::LatePaid);
        if late {
            self.state = AttemptState::LatePaid;
            self.review.get_or_insert(ReviewReason::PaidAfterFailure);
        } else {
            self.state = AttemptState::Paid;
        }
        self.evidence = Some(evidence);
        let Some(receipt_number) = receipt_number else {
            return Effect::AwaitReceiptNumber;
        };
        self.receipt_number = Some(receipt_number.to_owned());
        let receipt_number = receipt_number.to_owned();
        if late { Effect::BookLate { receipt_number } } else { Effect::Book { receipt_number } }
    }

    fn suspend(&mut self, reason: ReviewReason, receipt_number: Option<&str>, amount_minor: Option<i64>) -> Effect {
        self.review.get_or_insert(reason);
        Effect::Suspend { reason, receipt_number: receipt_number.map(str::to_owned), amount_minor }
    }

    fn ask_review(&mut self, reason: ReviewReason) -> Effect {
        if self.review.is_some() {
            return Effect::Unchanged;
        }
        self.review = Some(reason);
        Effect::Review(reason)
    }

    fn prove_sent(&mut self) {
        if matches!(self.state, AttemptState::Ready | AttemptState::Calling) {
            self.state = AttemptState::Accepted;
        }
    }
}

mod uuid_bytes {
    use minicbor::decode::Error;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use uuid::Uuid;

    pub(super) fn encode<C, W: Write>(
        id: &Uuid,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(id.as_bytes())?.ok()
    }

    pub(super) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Uuid, Error> {
        Uuid::from_slice(decoder.bytes()?).map_err(|_| Error::message("not a UUID"))
    }
}
