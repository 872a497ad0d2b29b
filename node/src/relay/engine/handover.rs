//! Intents that an owner gave to another ledger. The old one lets go of what can't charge any
//! more. Where it can't know, as after a restore or its loss, the provider's own list has to be
//! read whole over the gap first, and lack them.

use crdt_model::books::{IntentState, Moving, Payment};
use crdt_model::ids::RecordId;
use crdt_model::payment::{AttemptEvent, AttemptState, ReviewReason};
use crdt_model::record::{Fact, IntentReleased, IntentReview, PaymentFact};

use super::super::Waiting;
use super::super::rows;
use super::super::standing::Standing;
use super::{CASH, Engine, MPESA};
use crate::shop_handle::Stopped;
use crate::storage::RowWrite;

/// How an intent may be let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// By its ledger, which knows every attempt.
    Known,
    /// By whoever reads the provider's list: an attempt was last made before this, in milliseconds
    /// since 1970 UTC.
    Reconciled { last_call_ms: u64 },
}

impl Engine {
    /// Lets go, or takes over, whatever an owner's word allows by now.
    pub(super) async fn hand_over(&mut self) -> Result<(), Stopped> {
        let me = self.ledger.relay;
        let moving = self.shop.ask(move |shop| {
            let books = shop.books();
            let moves = books.ledger_moves().into_iter().map(|(_, _, moved, _)| moved);
            let mut open: Vec<RecordId> = moves
                .filter(|moved| moved.from.relay == me || moved.to.relay == me)
                .flat_map(|moved| books.open_intents_for(&moved.from).collect::<Vec<_>>())
                .collect();
            open.sort_unstable();
            open.dedup();
            open.into_iter().filter_map(|intent| books.payment(intent)).collect::<Vec<_>>()
        });
        for payment in moving.await? {
            if let Some(moving) = payment.moving {
                self.hand_over_one(&payment, moving).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn hand_over_one(&mut self, payment: &Payment, moving: Moving) -> Result<(), Stopped> {
        let intent = payment.intent;
        if payment.state != IntentState::Open {
            return Ok(());
        }
        let Some(release) = self.release_of(payment, moving) else { return Ok(()) };
        self.waiting.insert(intent, Waiting::Handover);
        if self.asking.contains_key(&intent) {
            return Ok(());
        }
        let Ok(attempts) = self.attempts(intent).await? else { return Ok(()) };
        let reconciled = match release {
            Release::Known => false,
            Release::Reconciled { last_call_ms } => {
                if !self.is_reconciled(payment, last_call_ms).await? {
                    return self.review_if_old(payment).await;
                }
                true
            }
        };
        let stays = moving.to.relay == self.ledger.relay;
        let mut rows: Vec<RowWrite> = Vec::new();
        let mut made = payment.earlier_attempts.max(known_attempts(payment));
        for mut attempt in attempts {
            if attempt.state() != AttemptState::Ready {
                made = made.max(attempt.number());
            } else if !stays && attempt.apply(&AttemptEvent::Cancelled, (self.clock)().0).is_ok() {
                rows.push(rows::put_attempt(&attempt));
            }
            if attempt.state().may_still_charge() && !(stays && attempt.state() == AttemptState::Ready) {
                return Ok(());
            }
        }
        let released = IntentReleased { intent, moved: moving.moved, attempts: made, reconciled };
        tracing::info!(%intent, reconciled, to = %moving.to.relay, epoch = moving.to.epoch, "a payment is another ledger's from now on");
        self.record(vec![Fact::Payment(PaymentFact::Released(released))], rows).await?;
        self.waiting.remove(&intent);
        self.list(intent);
        Ok(())
    }

    /// Whether it is for this relay to let an intent go, and how.
    fn release_of(&self, payment: &Payment, moving: Moving) -> Option<Release> {
        let (me, from) = (self.ledger.relay, payment.ledger?);
        let said_ms = moving.time.wall().0;
        if from == self.ledger {
            return Some(Release::Known);
        }
        if from.relay == me {
            return Some(Release::Reconciled { last_call_ms: self.began_ms.max(said_ms) });
        }
        let heir = moving.to == self.ledger && moving.old_is_gone && self.standing == Some(Standing::Paying);
        heir.then_some(Release::Reconciled { last_call_ms: said_ms })
    }

    /// Whether nothing of an intent can come of whatever was asked before.
    async fn is_reconciled(&self, payment: &Payment, last_call_ms: u64) -> Result<bool, Stopped> {
        if payment.provider == CASH {
            return Ok(true);
        }
        let intent = payment.intent;
        let suspended = self.shop.ask(move |shop| {
            let mut suspense = shop.books().suspense();
            suspense.any(|entry| entry.intent == Some(intent) && entry.settled.is_none())
        });
        Ok(!suspended.await? && self.list_spans(payment, last_call_ms))
    }

    /// Whether the provider's list would have an intent by now, had anybody paid it.
    pub(super) fn list_spans(&self, payment: &Payment, last_call_ms: u64) -> bool {
        let lists = self.mpesa.as_ref().is_some_and(|provider| provider.lists_references());
        let after_ms = u64::try_from(self.config.absent_after.as_millis()).unwrap_or(u64::MAX);
        payment.provider == MPESA && lists && self.coverage.spans(payment.time.wall().0, last_call_ms, after_ms)
    }

    /// Whether this relay knows every attempt that was made of an intent of its own: in an older
    /// epoch, whose last rows may be lost, only once the list was read over the gap.
    pub(super) fn knows_all(&self, payment: &Payment) -> bool {
        payment.ledger == Some(self.ledger) || payment.provider == CASH || self.list_spans(payment, self.began_ms)
    }

    /// What no list can clear is for people, as everything that stays open for two days.
    async fn review_if_old(&self, payment: &Payment) -> Result<(), Stopped> {
        let open_max_ms = u64::try_from(self.config.open_max.as_millis()).unwrap_or(u64::MAX);
        let old = (self.clock)().0.saturating_sub(payment.time.wall().0) >= open_max_ms;
        if !old {
            return Ok(());
        }
        let review = IntentReview {
            intent: payment.intent,
            attempt: known_attempts(payment),
            reason: ReviewReason::OpenTooLong,
        };
        self.record(vec![Fact::Payment(PaymentFact::Review(review))], Vec::new()).await
    }
}

/// How many attempts were made, as far as the books tell.
fn known_attempts(payment: &Payment) -> u32 {
    let declined = payment.declines.iter().map(|decline| decline.attempt);
    let reviewed = payment.reviews.iter().map(|review| review.attempt);
    declined.chain(reviewed).chain(payment.progress.map(|(attempt, _)| attempt)).max().unwrap_or(0)
}
