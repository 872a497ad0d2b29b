//! From an open intent to a call of its provider, and what the call comes back with.

use crdt_model::ids::RecordId;
use crdt_model::payment::{Attempt, AttemptEvent, AttemptState};
use crdt_model::shop::PromiseLimits;
use crdt_model::time::{Day, Timestamp};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::Instrument;

use super::super::Waiting;
use super::super::booking::{self, Word};
use super::super::intake::{Case, Verdict, word};
use super::super::rows;
use super::super::standing::Standing;
use super::{AWAY_PAUSE, Engine, LEASE_MS, MPESA, Report};
use crate::operations::promises::{self, Promise};
use crate::payments::{NotReady, NotSentReason, PushOutcome};
use crate::shop_handle::Stopped;

impl Engine {
    /// What is to be done with an intent now, and its attempts; `None` if it is not to be pushed.
    async fn look(&mut self, intent: RecordId) -> Result<Option<(Case, Vec<Attempt>, Verdict)>, Stopped> {
        self.waiting.remove(&intent);
        let Some(case) = Case::ask(&self.shop, intent).await? else { return Ok(None) };
        if let Some(moving) = case.payment.moving {
            self.hand_over_one(&case.payment, moving).await?;
            return Ok(None);
        }
        if self.standing_in(&case.view) != Standing::Paying {
            if self.standing == Some(Standing::Paying) {
                self.check_at = Instant::now();
            }
            return Ok(None);
        }
        if case.payment.given_up.as_ref().is_some_and(|wish| wish.granted.is_none()) && self.knows_all(&case.payment) {
            // Nobody is asked for what is not wanted any more, also right after it was handed over.
            self.answer_wish(intent).await?;
            return Ok(None);
        }
        let mut attempts = match self.attempts(intent).await? {
            Ok(attempts) => attempts,
            Err(error) => {
                tracing::error!(%intent, %error, "a payment is not pushed");
                self.waiting.insert(intent, Waiting::Person);
                return Ok(None);
            }
        };
        let earlier = case.earlier(&attempts);
        if !earlier.is_empty() && case.is_ours_and_open() {
            booking::write(&self.shop, earlier.iter().map(rows::put_attempt).collect()).await?;
            attempts.extend(earlier);
            attempts.sort_by_key(Attempt::number);
        }
        let provider = self.provider(&case.payment.provider);
        let stale_ms = u64::try_from(self.config.stale_intent.as_millis()).unwrap_or(u64::MAX);
        let verdict = case.judge(&attempts, provider.as_deref(), (self.clock)(), stale_ms);
        Ok(Some((case, attempts, verdict)))
    }

    /// Makes an intent's attempt ready, if it may be pushed now.
    pub(super) async fn consider(&mut self, intent: RecordId) -> Result<(), Stopped> {
        if self.asking.contains_key(&intent) {
            return Ok(());
        }
        let Some((case, attempts, verdict)) = self.look(intent).await? else { return Ok(()) };
        let name = case.payment.provider.as_str();
        match verdict {
            Verdict::Leave => Ok(()),
            Verdict::Wait(waiting) => {
                self.waiting.insert(intent, waiting);
                Ok(())
            }
            Verdict::Decline { number, code, reason } => {
                booking::decline(&self.shop, &case.payment, number, &word(code, reason)).await
            }
            Verdict::Push(attempt) => {
                match case.request(&self.shop, &attempt, &self.token_key, (self.clock)()) {
                    Ok(request) if request.phone.is_none() && name == MPESA => {
                        let reason = "phone: the customer's number is missing or was erased: record the payment again";
                        let word = word("phone_missing", reason.to_owned());
                        return booking::decline(&self.shop, &case.payment, attempt.number(), &word).await;
                    }
                    Ok(_) if attempts.is_empty() && self.is_over_limit(&case).await? => {
                        let reason = "more was promised than the shop's settings allow: take another tender";
                        let word = word("over_limit", reason.to_owned());
                        return booking::decline(&self.shop, &case.payment, attempt.number(), &word).await;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%intent, %error, "a payment is not pushed");
                        self.waiting.insert(intent, Waiting::Person);
                        return Ok(());
                    }
                }
                if !attempts.contains(&attempt) {
                    self.shop.write_rows(vec![rows::put_attempt(&attempt)]).await?;
                }
                self.prepare(intent, name);
                Ok(())
            }
        }
    }

    /// Whether a promise broke a limit of the shop's when it was made, as far as one can tell here.
    async fn is_over_limit(&self, case: &Case) -> Result<bool, Stopped> {
        let limits = case.limits();
        if limits == PromiseLimits::default() {
            return Ok(false);
        }
        let payment = &case.payment;
        let earlier = promises::open_promises(&self.shop, None, Some(payment.intent)).await;
        let offset = self.shop.ask(|shop| shop.genesis().utc_offset_minutes).await?;
        let day = |at: Timestamp| Day::of(at, offset);
        let phone = case.request(
            &self.shop,
            &Attempt::new(payment.intent.0, 1, payment.amount.minor, 0),
            &self.token_key,
            payment.time.wall(),
        );
        let promise = Promise {
            device: payment.device,
            amount_minor: payment.amount.minor,
            phone: phone.ok().and_then(|request| request.phone).map(|phone| phone.msisdn().to_owned()),
            day: day(payment.time.wall()),
        };
        Ok(earlier.is_ok_and(|earlier| promises::broken(&limits, &promise, &earlier).is_some()))
    }

    fn prepare(&mut self, intent: RecordId, name: &str) {
        if let Some((_, why)) = self.away.as_ref().filter(|_| name == MPESA) {
            self.waiting.insert(intent, Waiting::Provider(why.clone()));
            return;
        }
        let Some(provider) = self.provider(name) else { return };
        let task = self.calls.spawn(async move { Report::Prepared { intent, result: provider.prepare().await } });
        self.asking.insert(intent, task.id());
    }

    /// Claims a ready attempt and calls the provider, once. Everything is looked at again: it
    /// took a while to get here.
    async fn call(&mut self, intent: RecordId) -> Result<(), Stopped> {
        let Some((case, attempts, verdict)) = self.look(intent).await? else { return Ok(()) };
        let ready = attempts.into_iter().find(|attempt| attempt.state() == AttemptState::Ready);
        let (Verdict::Push(_), Some(mut attempt)) = (&verdict, ready.clone()) else {
            if let (Verdict::Leave, Some(attempt)) = (&verdict, ready) {
                return self.cancel(attempt).await;
            }
            self.list(intent);
            return Ok(());
        };
        let now = (self.clock)();
        let request = match case.request(&self.shop, &attempt, &self.token_key, now) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%intent, %error, "a payment is not pushed");
                self.waiting.insert(intent, Waiting::Person);
                return Ok(());
            }
        };
        let asked = request.phone.as_ref().filter(|_| case.payment.provider == MPESA);
        if let Some(wait) = self.pauses.wait(asked, attempt.amount_minor(), now) {
            self.waiting.insert(intent, Waiting::Pause);
            self.check_at = self.check_at.min(Instant::now() + wait);
            return Ok(());
        }
        self.pauses.note(asked, attempt.amount_minor(), now);
        let Some(provider) = self.provider(&case.payment.provider) else { return Ok(()) };
        let claim = AttemptEvent::Claimed { lease_until_ms: now.plus_ms(LEASE_MS).0 };
        if let Err(refused) = attempt.apply(&claim, now.0) {
            tracing::error!(%intent, %refused, "an attempt can't be claimed");
            return Ok(());
        }
        self.shop.write_rows(vec![rows::put_attempt(&attempt)]).await?;
        let number = attempt.number();
        let phone = request.phone.as_ref().map(ToString::to_string);
        let span = tracing::info_span!("attempt", %intent, attempt = number, provider = provider.name(), phone);
        let push = async move { Report::Answered { intent, number, outcome: provider.push(&request).await } };
        let task = self.calls.spawn(push.instrument(span));
        self.asking.insert(intent, task.id());
        Ok(())
    }

    /// The intent was voided before its attempt was called.
    async fn cancel(&self, mut attempt: Attempt) -> Result<(), Stopped> {
        match attempt.apply(&AttemptEvent::Cancelled, (self.clock)().0) {
            Ok(_) => self.shop.write_rows(vec![rows::put_attempt(&attempt)]).await,
            Err(refused) => {
                tracing::error!(intent = %attempt.intent(), %refused, "an attempt can't be cancelled");
                Ok(())
            }
        }
    }

    pub(super) async fn reported(&mut self, report: Result<Report, JoinError>) -> Result<(), Stopped> {
        match report {
            Ok(Report::Prepared { intent, result: Ok(()) }) => {
                self.asking.remove(&intent);
                self.call(intent).await
            }
            Ok(Report::Prepared { intent, result: Err(why) }) => {
                self.asking.remove(&intent);
                self.leave_alone(intent, &why);
                Ok(())
            }
            Ok(Report::Queried { intent, number, outcome }) => self.queried(intent, number, outcome).await,
            Ok(Report::Pulled(list)) => self.pulled(list).await,
            Ok(Report::Reversed { proposal, outcome }) => self.reversal_asked(proposal, outcome).await,
            Ok(Report::StatusAsked(outcome)) => {
                self.status_asked(&outcome);
                Ok(())
            }
            Ok(Report::Registered(result)) => {
                self.registered(result);
                Ok(())
            }
            Ok(Report::Answered { intent, number, outcome }) => {
                let span = tracing::info_span!("attempt", %intent, attempt = number);
                self.answered(intent, number, &outcome).instrument(span).await
            }
            Err(broken) => {
                tracing::error!(%broken, "a call to the provider broke off");
                let intent = self.asking.iter().find(|(_, task)| **task == broken.id()).map(|(intent, _)| *intent);
                if let Some(intent) = intent {
                    self.asking.remove(&intent);
                    self.list(intent);
                }
                (self.queries, self.pulling, self.asking_status) = (0, false, false);
                Ok(())
            }
        }
    }

    /// The provider can't be reached: attempts wait, and it is tried again in a while.
    fn leave_alone(&mut self, intent: RecordId, why: &NotReady) {
        if self.away.is_none() {
            match why {
                NotReady::Credentials(_) => tracing::error!(%why, "payments wait"),
                NotReady::Unreachable(_) | NotReady::RateLimited(_) => tracing::warn!(%why, "payments wait"),
            }
            self.away = Some((Instant::now() + AWAY_PAUSE, why.to_string()));
        }
        self.waiting.insert(intent, Waiting::Provider(why.to_string()));
    }

    async fn answered(&mut self, intent: RecordId, number: u32, outcome: &PushOutcome) -> Result<(), Stopped> {
        let stored = rows::attempts(self.shop.reader().as_ref(), intent);
        let case = Case::ask(&self.shop, intent).await?;
        self.asking.remove(&intent);
        self.list(intent);
        let attempt = match stored {
            Ok(attempts) => attempts.into_iter().find(|attempt| attempt.number() == number),
            Err(error) => {
                tracing::error!(%error, "an answer can't be recorded: the payment stays unknown");
                return Ok(());
            }
        };
        let (Some(attempt), Some(case)) = (attempt, case) else {
            tracing::error!("an answer came for an attempt that is gone: look for it in the provider's statement");
            return Ok(());
        };
        let event = outcome.event();
        let said = said_by_answer(outcome);
        let now = (self.clock)();
        let after = booking::carry(&self.shop, &case.payment, &attempt, &event, &said, Vec::new(), now).await?;
        self.watch(&after);
        if case.payment.given_up.is_some_and(|wish| wish.granted.is_none()) {
            self.hear_people().await?;
        }
        Ok(())
    }
}

fn said_by_answer(outcome: &PushOutcome) -> Word {
    let PushOutcome::NotSent { reason, detail, .. } = outcome else { return Word::default() };
    let code = match reason {
        NotSentReason::Unreachable => "not_sent_unreachable",
        NotSentReason::RateLimited => "not_sent_rate_limited",
        NotSentReason::Credentials => "not_sent_credentials",
        NotSentReason::Rejected => "not_sent_rejected",
    };
    word(code, detail.clone())
}
