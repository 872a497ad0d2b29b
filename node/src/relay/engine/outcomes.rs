//! Attempts whose outcome is still to be learnt: the provider is queried on a schedule, and after
//! two days a person must look.

use std::time::Duration;

use crdt_model::ids::RecordId;
use crdt_model::payment::{Attempt, AttemptEvent, AttemptState};
use tokio::time::Instant;
use tracing::Instrument;

use super::super::booking::{self, Word};
use super::super::intake::Case;
use super::super::rows;
use super::{Engine, Report};
use crate::payments::QueryOutcome;
use crate::shop_handle::Stopped;

/// How long after the call each query is made.
const QUERY_AFTER_S: [u64; 7] = [15, 30, 60, 120, 300, 900, 3_600];
/// A refused query pauses all of them.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(60);
/// How many queries may be under way at once.
const QUERIES_MAX: usize = 2;

/// An attempt whose outcome is to be learnt.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) called_at_ms: u64,
    /// Which query of the schedule is next.
    query: usize,
    /// It is paid, and only its receipt number or the provider's list is missing.
    paid: bool,
    has_ids: bool,
}

/// Queries are rationed for the whole relay.
#[derive(Debug)]
pub(super) struct Ration {
    every: Duration,
    next: Instant,
}

impl Ration {
    pub(super) fn a_minute(count: u32) -> Self {
        Self { every: Duration::from_secs(60) / count.max(1), next: Instant::now() }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        true
    }

    pub(super) fn pause(&mut self) {
        self.next = Instant::now() + RATE_LIMIT_PAUSE;
    }
}

impl Watched {
    fn due_ms(&self) -> Option<u64> {
        let after_s = QUERY_AFTER_S.get(self.query).filter(|_| self.has_ids && !self.paid)?;
        Some(self.called_at_ms.saturating_add(after_s * 1_000))
    }

    /// Whether only the provider's own list is still to confirm it.
    pub(super) fn is_paid(&self) -> bool {
        self.paid
    }
}

impl Engine {
    /// Notes how an attempt stands: it is watched until nothing is left to learn.
    pub(super) fn watch(&mut self, attempt: &Attempt) {
        let key = (RecordId(attempt.intent()), attempt.number());
        let open = match attempt.state() {
            AttemptState::Accepted | AttemptState::Unknown | AttemptState::Quarantine => attempt.review().is_none(),
            AttemptState::Paid | AttemptState::LatePaid => {
                !attempt.is_listed() && attempt.review().is_none() && attempt.result_code().is_some()
                    || attempt.receipt_number().is_none() && attempt.review().is_none()
            }
            AttemptState::Ready | AttemptState::Calling | AttemptState::Failed => false,
        };
        if !open {
            self.watched.remove(&key);
            return;
        }
        let query = self.watched.get(&key).map_or(0, |known| known.query);
        let paid = matches!(attempt.state(), AttemptState::Paid | AttemptState::LatePaid);
        let watched = Watched { called_at_ms: attempt.called_at_ms(), query, paid, has_ids: attempt.ids().is_some() };
        self.watched.insert(key, watched);
    }

    /// When the next query is due, if any.
    pub(super) fn query_at(&self) -> Option<Instant> {
        if self.queries >= QUERIES_MAX {
            return None;
        }
        let now_ms = (self.clock)().0;
        let due_ms = self.watched.values().filter_map(Watched::due_ms).min()?;
        Some((Instant::now() + Duration::from_millis(due_ms.saturating_sub(now_ms))).max(self.ration.next))
    }

    /// Makes one query that is due, if the ration allows it.
    pub(super) async fn query_due(&mut self) -> Result<(), Stopped> {
        let now_ms = (self.clock)().0;
        let due = self.watched.iter().filter_map(|(key, watched)| Some((watched.due_ms()?, *key)));
        let Some((due_ms, key)) = due.min() else { return Ok(()) };
        if due_ms > now_ms || self.queries >= QUERIES_MAX || !self.ration.take() {
            return Ok(());
        }
        if let Some(watched) = self.watched.get_mut(&key) {
            // One that could not be made in time is not made up for.
            watched.query += 1;
            while watched.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                watched.query += 1;
            }
        }
        let (intent, number) = key;
        let Some(attempt) = self.stored_attempt(intent, number) else { return Ok(()) };
        let Some(case) = Case::ask(&self.shop, intent).await? else { return Ok(()) };
        let Some(provider) = self.provider(&case.payment.provider) else { return Ok(()) };
        let Some(ids) = attempt.ids().cloned() else { return Ok(()) };
        self.queries += 1;
        let span = tracing::info_span!("query", %intent, attempt = number);
        let ask = async move { Report::Queried { intent, number, outcome: provider.query(&ids, now_ms).await } };
        self.calls.spawn(ask.instrument(span));
        Ok(())
    }

    pub(super) async fn queried(
        &mut self,
        intent: RecordId,
        number: u32,
        outcome: QueryOutcome,
    ) -> Result<(), Stopped> {
        self.queries = self.queries.saturating_sub(1);
        match outcome {
            QueryOutcome::Result { code, detail } => {
                let Some(attempt) = self.stored_attempt(intent, number) else { return Ok(()) };
                let Some(case) = Case::ask(&self.shop, intent).await? else { return Ok(()) };
                let event = AttemptEvent::Queried { result_code: code.clone() };
                let word = Word { code, reason: detail, paid_at: None };
                let now = (self.clock)();
                let after = booking::carry(&self.shop, &case.payment, &attempt, &event, &word, Vec::new(), now).await?;
                self.watch(&after);
                Ok(())
            }
            QueryOutcome::Pending => Ok(()),
            QueryOutcome::Unavailable { detail, rate_limited } => {
                tracing::debug!(%intent, %detail, "a query told nothing");
                if rate_limited {
                    self.ration.pause();
                }
                Ok(())
            }
        }
    }

    /// What has been open for two days goes to a person.
    pub(super) async fn review_old(&mut self) -> Result<(), Stopped> {
        let now = (self.clock)();
        let open_max_ms = u64::try_from(self.config.open_max.as_millis()).unwrap_or(u64::MAX);
        let old: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| now.0.saturating_sub(watched.called_at_ms) >= open_max_ms)
            .map(|(key, _)| *key)
            .collect();
        for (intent, number) in old {
            self.watched.remove(&(intent, number));
            let Some(attempt) = self.stored_attempt(intent, number) else { continue };
            if attempt.receipt_number().is_some() {
                continue;
            }
            let Some(case) = Case::ask(&self.shop, intent).await? else { continue };
            let event = AttemptEvent::OpenTooLong;
            let word = Word::default();
            booking::carry(&self.shop, &case.payment, &attempt, &event, &word, Vec::new(), now).await?;
            self.list(intent);
        }
        Ok(())
    }

    pub(super) fn stored_attempt(&self, intent: RecordId, number: u32) -> Option<Attempt> {
        match rows::attempts(self.shop.reader().as_ref(), intent) {
            Ok(attempts) => attempts.into_iter().find(|attempt| attempt.number() == number),
            Err(error) => {
                tracing::error!(%intent, %error, "a payment's attempts can't be told");
                None
            }
        }
    }
}
