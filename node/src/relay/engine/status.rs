//! Receipt numbers about which the provider is asked: those that customers show, and those of
//! reversals whose outcome is in doubt. The answer is reported later. It may prove, never deny.

use std::time::Duration;

use crdt_model::books::ProposalState;
use crdt_model::ids::RecordId;
use crdt_model::payment::Evidence;
use crdt_model::record::{OutcomeState, Settlement, claim_id};
use tokio::time::Instant;
use tracing::Instrument;

use super::super::booking;
use super::super::callbacks::result_path;
use super::{Engine, MPESA, Report};
use crate::payments::{Listed, NotSentReason, PushOutcome, Report as ProviderReport};
use crate::shop_handle::Stopped;
use crate::storage::RowWrite;

/// How long after it came up each question is put. The provider's list and statement, and its
/// confirmation, tell all of it sooner or later.
const ASK_AFTER_S: [u64; 5] = [0, 60, 300, 1_800, 7_200];

/// A receipt number about which the provider is to be asked.
#[derive(Debug, Clone)]
pub(super) struct StatusAsk {
    receipt_number: String,
    since_ms: u64,
    /// How often it was asked.
    asked: usize,
    /// The reversal whose outcome is in doubt.
    reversal: Option<RecordId>,
}

/// What the result of a request is about.
enum About {
    /// A reversal that was asked for.
    Reversal(RecordId),
    /// The receipt number that a customer showed.
    Claim(String),
    /// Whether a reversal was made after all.
    Doubt(RecordId),
}

impl StatusAsk {
    fn due_ms(&self) -> Option<u64> {
        Some(self.since_ms.saturating_add(ASK_AFTER_S.get(self.asked)? * 1_000))
    }
}

impl Engine {
    /// A customer showed a number of which nothing is known here.
    pub(super) async fn ask_about_claim(&mut self, code: &str) -> Result<(), Stopped> {
        let number = code.to_owned();
        let subject = self.shop.ask(move |shop| claim_id(shop.business(), MPESA, &number)).await?;
        self.ask_about(subject, code.to_owned(), None);
        Ok(())
    }

    /// Whether a payment was taken back is not known.
    pub(super) fn ask_about_reversal(&mut self, proposal: RecordId, receipt_number: String) {
        self.ask_about(doubt(proposal), receipt_number, Some(proposal));
    }

    fn ask_about(&mut self, subject: RecordId, receipt_number: String, reversal: Option<RecordId>) {
        let since_ms = (self.clock)().0;
        self.statuses.entry(subject).or_insert(StatusAsk { receipt_number, since_ms, asked: 0, reversal });
    }

    /// When the next question is due, if any.
    pub(super) fn status_at(&self) -> Option<Instant> {
        if self.asking_status || self.tells_no_status {
            return None;
        }
        let due_ms = self.statuses.values().filter_map(StatusAsk::due_ms).min()?;
        let wait_ms = due_ms.saturating_sub((self.clock)().0);
        Some((Instant::now() + Duration::from_millis(wait_ms)).max(self.ration.next()))
    }

    /// Puts one question that is due, if the ration allows it.
    pub(super) async fn ask_status_due(&mut self) -> Result<(), Stopped> {
        let Some(provider) = self.mpesa.clone().filter(|_| !self.asking_status && !self.tells_no_status) else {
            return Ok(());
        };
        let due = self.statuses.iter().filter_map(|(subject, ask)| Some((ask.due_ms()?, *subject)));
        let Some((due_ms, subject)) = due.min() else { return Ok(()) };
        if due_ms > (self.clock)().0 || !self.ration.take() {
            return Ok(());
        }
        let Some(ask) = self.statuses.get_mut(&subject) else { return Ok(()) };
        ask.asked += 1;
        let (number, is_last) = (ask.receipt_number.clone(), ask.due_ms().is_none());
        if self.is_answered(&number, ask_reversal(&self.statuses, subject)).await? {
            self.statuses.remove(&subject);
            return Ok(());
        }
        if let (true, Some(reversal)) = (is_last, ask_reversal(&self.statuses, subject)) {
            let detail = "the provider did not say whether it was taken back: its statement tells";
            self.outcome(reversal, OutcomeState::Unknown, detail, Vec::new()).await?;
        }
        self.asking_status = true;
        let results = result_path(subject, &self.token_key);
        let ask = async move { Report::StatusAsked(provider.ask_status(&number, &results).await) };
        self.calls.spawn(ask.instrument(tracing::info_span!("status", %subject)));
        Ok(())
    }

    /// Whether a question needs no answer any more.
    async fn is_answered(&self, number: &str, reversal: Option<RecordId>) -> Result<bool, Stopped> {
        let number = number.to_owned();
        let answered = self.shop.ask(move |shop| {
            let (books, business) = (shop.books(), shop.business());
            match reversal {
                Some(proposal) => books.proposal(proposal).is_none_or(|state| is_over(&state)),
                None => {
                    let suspense = crdt_model::record::suspense_id(business, MPESA, &number);
                    shop.number_pays(MPESA, &number).is_some() || books.suspense_entry(suspense).is_some()
                }
            }
        });
        answered.await
    }

    /// The provider took the question, or did not. It is put again in a while.
    pub(super) fn status_asked(&mut self, outcome: &PushOutcome) {
        self.asking_status = false;
        match outcome {
            PushOutcome::NotSent { reason: NotSentReason::RateLimited, .. } => self.ration.pause(),
            PushOutcome::NotSent { reason: NotSentReason::Rejected, detail, .. } => {
                tracing::info!(%detail, "the provider is not asked about receipt numbers: its list and statement tell");
                self.tells_no_status = true;
            }
            PushOutcome::NotSent { detail, .. } | PushOutcome::Ambiguous { detail } => {
                tracing::debug!(%detail, "a status query told nothing");
            }
            PushOutcome::Accepted(_) | PushOutcome::Settled { .. } => {}
        }
    }

    /// Takes in the result of a request that the provider carried out later.
    pub(super) async fn take_result(
        &mut self,
        subject: RecordId,
        report: Option<ProviderReport>,
        rows: Vec<RowWrite>,
    ) -> Result<(), Stopped> {
        let Some(ProviderReport::Result {
            code, detail, receipt_number, amount_minor, status, credited, at_ms, ..
        }) = report
        else {
            return booking::write(&self.shop, rows).await;
        };
        let status = status.unwrap_or_default().to_ascii_lowercase();
        let found = code == "0";
        match self.about(subject).await? {
            Some(About::Reversal(proposal)) => self.reversed(proposal, &code, &detail, rows).await,
            Some(About::Doubt(proposal)) if found && status.starts_with("reversed") => {
                self.reversed(proposal, "0", "found to be taken back", rows).await
            }
            Some(About::Claim(number))
                if found && status == "completed" && receipt_number.as_ref() == Some(&number) =>
            {
                let own = credited.is_some_and(|account| {
                    self.mpesa.as_ref().is_some_and(|provider| provider.is_own_account(&account))
                });
                let Some(amount_minor) = amount_minor.filter(|_| own) else {
                    tracing::warn!(
                        receipt = number,
                        "a customer showed a receipt number of money that the shop did not get"
                    );
                    return booking::write(&self.shop, rows).await;
                };
                let line = Listed { receipt_number: number, amount_minor, account: String::new(), paid_at_ms: at_ms };
                self.take_line(&line, Evidence::Query, rows).await
            }
            Some(About::Doubt(_) | About::Claim(_)) | None => booking::write(&self.shop, rows).await,
        }
    }

    async fn about(&self, subject: RecordId) -> Result<Option<About>, Stopped> {
        let about = self.shop.ask(move |shop| {
            let (books, business) = (shop.books(), shop.business());
            if books.proposal(subject).is_some() {
                return Some(About::Reversal(subject));
            }
            let mut claims = books.claims();
            if let Some((_, code)) = claims.find(|(_, code)| claim_id(business, MPESA, code) == subject) {
                return Some(About::Claim(code));
            }
            let mut proposals = books.proposals().filter(|one| one.settlement == Settlement::Reverse);
            proposals.find(|one| doubt(one.proposal) == subject).map(|one| About::Doubt(one.proposal))
        });
        about.await
    }
}

fn ask_reversal(statuses: &std::collections::BTreeMap<RecordId, StatusAsk>, subject: RecordId) -> Option<RecordId> {
    statuses.get(&subject).and_then(|ask| ask.reversal)
}

/// What a question about a reversal is filed under.
fn doubt(proposal: RecordId) -> RecordId {
    proposal.derived("doubt", 0)
}

pub(super) fn is_over(state: &ProposalState) -> bool {
    state.outcomes.iter().any(|(state, ..)| matches!(state, OutcomeState::Done | OutcomeState::Failed))
}
