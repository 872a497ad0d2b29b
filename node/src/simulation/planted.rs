//! Faults that the simulation must notice: one that finds nothing wrong proves nothing.

use std::sync::Arc;

use crdt_model::payment::ProviderIds;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Outcome, SimulationError, world};
use crate::payments::{
    CallbackError, CallbackReport, NotReady, NotSentReason, PaymentProvider, PullOutcome, PullWindow, PushOutcome,
    PushRequest, QueryOutcome, Report, Unsupported,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Takes every error for a certain one.
    Hasty,
    /// Takes the provider's list for empty.
    Blind,
    /// Believes that a soft failure is final.
    Gullible,
}

#[derive(Debug)]
struct Faulty {
    provider: Arc<dyn PaymentProvider>,
    fault: Fault,
}

impl PaymentProvider for Faulty {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn supports(&self, currency: &str, amount_minor: i64) -> Result<(), Unsupported> {
        self.provider.supports(currency, amount_minor)
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), NotReady>> {
        self.provider.prepare()
    }

    fn push<'a>(&'a self, request: &'a PushRequest) -> BoxFuture<'a, PushOutcome> {
        async move {
            match self.provider.push(request).await {
                PushOutcome::Ambiguous { detail } if self.fault == Fault::Hasty => {
                    PushOutcome::NotSent { reason: NotSentReason::Rejected, detail, retry_after_ms: None }
                }
                outcome @ (PushOutcome::Accepted(_)
                | PushOutcome::Settled { .. }
                | PushOutcome::NotSent { .. }
                | PushOutcome::Ambiguous { .. }) => outcome,
            }
        }
        .boxed()
    }

    fn parse_callback(&self, body: &[u8]) -> Result<CallbackReport, CallbackError> {
        let mut report = self.provider.parse_callback(body)?;
        if self.fault == Fault::Gullible && !matches!(report.result.result_code.as_str(), "0" | "4999") {
            report.result.result_code = "1032".to_owned();
        }
        Ok(report)
    }

    fn query<'a>(&'a self, ids: &'a ProviderIds, at_ms: u64) -> BoxFuture<'a, QueryOutcome> {
        self.provider.query(ids, at_ms)
    }

    fn lists_references(&self) -> bool {
        self.provider.lists_references()
    }

    fn pull(&self, window: PullWindow) -> BoxFuture<'_, PullOutcome> {
        async move {
            match self.provider.pull(window).await {
                PullOutcome::Listed(_) if self.fault == Fault::Blind => PullOutcome::Listed(Vec::new()),
                outcome @ (PullOutcome::Listed(_) | PullOutcome::Unavailable(_)) => outcome,
            }
        }
        .boxed()
    }

    fn register<'a>(&'a self, confirmations: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.provider.register(confirmations)
    }

    fn parse_report(&self, body: &[u8]) -> Result<Report, CallbackError> {
        self.provider.parse_report(body)
    }
}

/// Shops are tried until one breaks a rule, up to this many.
const WORLDS_MAX: u64 = 40;

fn run(fault: Fault, worlds: u64) -> Result<Outcome, SimulationError> {
    let mut total = Outcome::default();
    for number in 0..worlds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let between = move |provider| Arc::new(Faulty { provider, fault }) as Arc<dyn PaymentProvider>;
        total.add(number, &runtime.block_on(world::run(11, number, 120, &between))?);
        if !total.is_sound() {
            break;
        }
    }
    eprintln!("{fault:?}: {total:?}");
    Ok(total)
}

#[test]
fn a_sound_provider_in_between_breaks_nothing() {
    assert!(run(Fault::None, 6).unwrap().is_sound());
}

#[test]
fn taking_a_5xx_for_certain_is_noticed() {
    assert!(run(Fault::Hasty, WORLDS_MAX).unwrap().charged_twice > 0);
}

#[test]
fn a_list_that_is_never_read_loses_money_and_is_noticed() {
    let outcome = run(Fault::Blind, WORLDS_MAX).unwrap();
    assert!(outcome.lost_minor > 0 || outcome.charged_twice > 0);
}

#[test]
fn believing_a_soft_failure_is_noticed() {
    assert!(run(Fault::Gullible, WORLDS_MAX).unwrap().charged_twice > 0);
}
