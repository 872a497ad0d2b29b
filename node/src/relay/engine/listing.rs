//! The provider's own list of what it received, payments made by hand, and statements: each line
//! is attributed to its attempt, or goes to suspense. What a complete list lacks is absent.

use std::collections::BTreeMap;

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::money::Money;
use crdt_model::payment::{ATTEMPTS_MAX, Attempt, AttemptEvent, Evidence, account_reference};
use crdt_model::record::{Evidence as ReceiptEvidence, Fact, Kind, PaymentFact, Receipt, Suspense, suspense_id};
use crdt_model::shop::Operation;
use crdt_model::time::Timestamp;
use tokio::time::Instant;

use super::super::booking::{self, Word, is_test};
use super::super::coverage::proves_absent;
use super::super::inbox::{self, Mail};
use super::super::intake::Case;
use super::{Engine, MPESA, Report};
use crate::payments::{Listed, PullOutcome, PullWindow, Report as ProviderReport};
use crate::shop_handle::{RecordError, Stopped};
use crate::storage::RowWrite;

/// Pages of one list; a page that never ends is a broken provider.
const PAGES_MAX: u64 = 1_000;

/// Which attempt an account reference names.
#[derive(Debug, Default)]
pub(super) struct References {
    by_text: BTreeMap<String, (RecordId, u32)>,
}

impl References {
    pub(super) fn add(&mut self, intent: RecordId) {
        for number in (1..).take(ATTEMPTS_MAX) {
            self.by_text.insert(account_reference(intent.0, number).as_str().to_owned(), (intent, number));
        }
    }

    fn find(&self, account: &str) -> Option<(RecordId, u32)> {
        self.by_text.get(account.trim()).copied()
    }
}

/// A whole list.
#[derive(Debug)]
pub(super) struct List {
    from_ms: u64,
    until_ms: u64,
    lines: Result<Vec<Listed>, String>,
}

impl Engine {
    pub(super) async fn learn_references(&mut self) -> Result<(), Stopped> {
        let intents = self.shop.ask(|shop| {
            let all = shop.books().list(Kind::Intent, None);
            all.map(|intent| intent.id).collect::<Vec<_>>()
        });
        for intent in intents.await? {
            self.references.add(intent);
        }
        Ok(())
    }

    /// Asks for the provider's list, if it is time.
    pub(super) fn pull_if_due(&mut self) {
        let now = Instant::now();
        if self.pull_at > now || self.pulling || !self.collects() {
            return;
        }
        self.pull_at = now + self.config.pull_every;
        let Some(provider) = self.mpesa.clone().filter(|provider| provider.lists_references()) else { return };
        self.pulling = true;
        let until_ms = (self.clock)().0;
        let oldest = self.watched.values().map(|watched| watched.called_at_ms).min();
        let from_ms = self.coverage.next_from_ms(until_ms, oldest);
        self.calls.spawn(async move {
            let mut lines: Vec<Listed> = Vec::new();
            for _ in 0..PAGES_MAX {
                let offset = lines.len() as u64;
                match provider.pull(PullWindow { from_ms, until_ms, offset }).await {
                    PullOutcome::Listed(page) if page.is_empty() => {
                        return Report::Pulled(List { from_ms, until_ms, lines: Ok(lines) });
                    }
                    PullOutcome::Listed(page) => lines.extend(page),
                    PullOutcome::Unavailable(detail) => {
                        return Report::Pulled(List { from_ms, until_ms, lines: Err(detail) });
                    }
                }
            }
            Report::Pulled(List { from_ms, until_ms, lines: Err("the list never ends".to_owned()) })
        });
    }

    pub(super) async fn pulled(&mut self, list: List) -> Result<(), Stopped> {
        self.pulling = false;
        let lines = match list.lines {
            Ok(lines) => lines,
            Err(detail) => {
                tracing::warn!(%detail, "the provider's list can't be read: it is tried again");
                self.pull_at = self.pull_at.min(Instant::now() + self.config.check_every);
                return Ok(());
            }
        };
        for line in &lines {
            self.take_line(line, Evidence::Pull, Vec::new()).await?;
        }
        let covered: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| {
                let after = if watched.is_paid() { self.config.dispute_after } else { self.config.absent_after };
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                proves_absent(list.from_ms, list.until_ms, watched.called_at_ms, after_ms)
            })
            .map(|(key, _)| *key)
            .collect();
        for (intent, number) in covered {
            self.absent(intent, number).await?;
        }
        self.coverage = self.coverage.with(list.from_ms, list.until_ms);
        booking::write(&self.shop, vec![self.coverage.put()]).await?;
        self.hand_over().await
    }

    async fn absent(&mut self, intent: RecordId, number: u32) -> Result<(), Stopped> {
        let Some(attempt) = self.stored_attempt(intent, number) else { return Ok(()) };
        let Some(case) = Case::ask(&self.shop, intent).await? else { return Ok(()) };
        let word = Word {
            code: "not_paid".to_owned(),
            reason: "the provider's list lacks it, so nobody paid".to_owned(),
            paid_at: None,
        };
        let now = (self.clock)();
        let after =
            booking::carry(&self.shop, &case.payment, &attempt, &AttemptEvent::Absent, &word, Vec::new(), now).await?;
        self.watch(&after);
        self.list(intent);
        Ok(())
    }

    /// Takes in what waits in the inbox.
    pub(super) async fn take_mail(&mut self) -> Result<(), Stopped> {
        loop {
            let waiting = match inbox::waiting(self.shop.reader().as_ref()) {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::error!(%error, "what the provider reported can't be read");
                    return Ok(());
                }
            };
            if waiting.is_empty() {
                return Ok(());
            }
            for mail in waiting {
                self.take_one(mail).await?;
            }
        }
    }

    async fn take_one(&mut self, mail: Mail) -> Result<(), Stopped> {
        let rows = mail.taken();
        match mail {
            Mail::Line(line) => self.take_line(&line.into(), Evidence::Statement, rows).await,
            Mail::Confirmation(body) => match self.read_report(&body.0) {
                Some(ProviderReport::Paid(line)) => self.take_line(&line, Evidence::Callback, rows).await,
                Some(ProviderReport::Result { .. }) | None => booking::write(&self.shop, rows).await,
            },
            Mail::Result(subject, body) => {
                let report = self.read_report(&body.0);
                self.take_result(subject.record(), report, rows).await
            }
        }
    }

    fn read_report(&self, body: &[u8]) -> Option<ProviderReport> {
        let report = self.mpesa.as_ref()?.parse_report(body);
        report.map_err(|error| tracing::error!(%error, "a report is kept but says nothing")).ok()
    }

    /// Attributes one sum that the provider says it received.
    pub(super) async fn take_line(
        &mut self,
        line: &Listed,
        evidence: Evidence,
        rows: Vec<RowWrite>,
    ) -> Result<(), Stopped> {
        let named = self.references.find(&line.account);
        let number = line.receipt_number.clone();
        let known = self.shop.ask(move |shop| {
            let pays = shop.number_pays(MPESA, &number);
            let suspense = shop.books().suspense_entry(suspense_id(shop.business(), MPESA, &number));
            (pays, suspense, shop.books().claimant(MPESA, &number))
        });
        let (pays, suspense, claimant) = known.await?;
        let suspended = suspense.is_some();
        // What two people have settled is not there to be claimed.
        let settled = suspense.is_some_and(|entry| entry.settled.is_some());
        let claimant = claimant.filter(|_| pays.is_none() && !settled);
        let target = named.or(pays.map(|intent| (intent, 0)));
        if let Some((intent, number)) = target
            && let Some(case) = Case::ask(&self.shop, intent).await?
            && case.is_ours()
            // What an heir put into suspense, before it was one, is for people.
            && (case.is_with_us() || !suspended)
            && let Some(attempt) = self.attempt_for(&case, number, line)
        {
            let event = AttemptEvent::Found {
                evidence,
                receipt_number: line.receipt_number.clone(),
                amount_minor: line.amount_minor,
            };
            let word = Word { paid_at: line.paid_at_ms.map(Timestamp), ..Word::default() };
            let now = (self.clock)();
            let after = booking::carry(&self.shop, &case.payment, &attempt, &event, &word, rows, now).await?;
            self.watch(&after);
            self.list(intent);
            return Ok(());
        }
        if pays.is_some() || suspended {
            return self.claimed(line, claimant, evidence, rows).await;
        }
        match claimant {
            Some(_) => self.claimed(line, claimant, evidence, rows).await,
            None => self.suspend(line, named.map(|(intent, _)| intent), evidence, rows).await,
        }
    }

    /// The attempt that a line names; made again if its row was lost.
    fn attempt_for(&self, case: &Case, number: u32, line: &Listed) -> Option<Attempt> {
        let intent = case.payment.intent;
        if number == 0 {
            let attempts = super::rows::attempts(self.shop.reader().as_ref(), intent).ok()?;
            return attempts.into_iter().find(|one| one.receipt_number() == Some(&line.receipt_number));
        }
        let stored = self.stored_attempt(intent, number);
        stored.or_else(|| {
            tracing::warn!(%intent, attempt = number, "the attempt's row was lost, as in a restore: it is made again from the provider's list");
            Some(case.remake(number))
        })
    }

    /// A customer showed this number at a till: the receipt is written if it fits.
    async fn claimed(
        &mut self,
        line: &Listed,
        claimant: Option<RecordId>,
        evidence: Evidence,
        rows: Vec<RowWrite>,
    ) -> Result<(), Stopped> {
        let Some(intent) = claimant else { return booking::write(&self.shop, rows).await };
        let Some(case) = Case::ask(&self.shop, intent).await? else {
            return self.suspend(line, None, evidence, rows).await;
        };
        let attempts = self.attempts(intent).await?.unwrap_or_default();
        let may_charge = attempts.iter().any(|one| one.state().may_still_charge());
        let waits = matches!(case.payment.state, IntentState::Open | IntentState::Declined);
        let fits = case.is_ours() && waits && line.amount_minor == case.payment.amount.minor && !may_charge;
        if !fits {
            tracing::warn!(%intent, receipt = line.receipt_number, "a number that a customer showed does not fit the payment");
            return self.suspend(line, Some(intent), evidence, rows).await;
        }
        let receipt = Receipt {
            intent,
            provider: MPESA.to_owned(),
            number: line.receipt_number.clone(),
            amount: Money::new(line.amount_minor, case.payment.amount.currency),
            paid_at: line.paid_at_ms.map_or_else(|| (self.clock)(), Timestamp),
            evidence: receipt_evidence(evidence),
            attempt: 0,
            test: is_test(&line.receipt_number),
        };
        self.record(vec![Fact::Receipt(receipt)], rows).await?;
        self.list(intent);
        Ok(())
    }

    /// Books money that fits no payment.
    async fn suspend(
        &mut self,
        line: &Listed,
        intent: Option<RecordId>,
        evidence: Evidence,
        rows: Vec<RowWrite>,
    ) -> Result<(), Stopped> {
        let currency = self.shop.ask(|shop| shop.genesis().currency).await?;
        let suspense = Suspense {
            provider: MPESA.to_owned(),
            number: line.receipt_number.clone(),
            amount: Money::new(line.amount_minor, currency),
            paid_at: line.paid_at_ms.map_or_else(|| (self.clock)(), Timestamp),
            evidence: receipt_evidence(evidence),
            reason: None,
            intent,
            account: line.account.clone(),
            test: is_test(&line.receipt_number),
        };
        let id = suspense.number.clone();
        let known =
            self.shop.ask(move |shop| shop.books().suspense_entry(suspense_id(shop.business(), MPESA, &id)).is_some());
        if known.await? {
            return booking::write(&self.shop, rows).await;
        }
        tracing::warn!(
            receipt = line.receipt_number,
            amount_minor = line.amount_minor,
            "money that fits no payment is in suspense"
        );
        self.record(vec![Fact::Payment(PaymentFact::Suspense(suspense))], rows).await
    }

    /// Records facts of the ledger's own, together with rows.
    pub(super) async fn record(&self, facts: Vec<Fact>, rows: Vec<RowWrite>) -> Result<(), Stopped> {
        match self.shop.record_with(Operation { facts, ..Operation::default() }, rows.clone()).await {
            Ok(acted) if acted.repeated => booking::write(&self.shop, rows).await,
            Ok(_) => Ok(()),
            Err(RecordError::Stopped(stopped)) => Err(stopped),
            Err(RecordError::Refused(error)) => {
                tracing::error!(%error, "what the ledger found out can't be recorded: a person must look");
                booking::write(&self.shop, rows).await
            }
        }
    }
}

fn receipt_evidence(evidence: Evidence) -> ReceiptEvidence {
    match evidence {
        Evidence::Callback => ReceiptEvidence::Callback,
        Evidence::Query => ReceiptEvidence::Query,
        Evidence::Pull => ReceiptEvidence::Pull,
        Evidence::Statement => ReceiptEvidence::Statement,
        Evidence::Answer => ReceiptEvidence::Immediate,
    }
}
