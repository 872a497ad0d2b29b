//! What people ask of the ledger: giving an intent up, receipt numbers that customers show, and
//! what two people have agreed on, reversals among it.

use crdt_model::books::{IntentState, ProposalState};
use crdt_model::ids::RecordId;
use crdt_model::payment::{AttemptEvent, AttemptState};
use crdt_model::record::{
    Fact, GiveUpAnswer, Outcome, OutcomeState, PaymentFact, Receipt, ReceiptRevoked, Settlement, TEXT_BYTES_MAX,
};
use tracing::Instrument;

use super::super::booking::{self, cut};
use super::super::callbacks::result_path;
use super::super::intake::Case;
use super::super::rows;
use super::{Engine, MPESA, Report};
use crate::payments::{PushOutcome, ReversalRequest};
use crate::shop_handle::Stopped;
use crate::storage::RowWrite;

/// Codes by which the provider says that a reversal is done: just now, or before.
const REVERSED: [&str; 2] = ["0", "R000001"];

impl Engine {
    /// Looks at everything that people asked for and the ledger has not answered.
    pub(super) async fn hear_people(&mut self) -> Result<(), Stopped> {
        let me = self.ledger.relay;
        let asked = self.shop.ask(move |shop| {
            let books = shop.books();
            let ours = |intent: &RecordId| {
                books.payment(*intent).is_some_and(|payment| payment.ledger.is_some_and(|ledger| ledger.relay == me))
            };
            let heard = |intent: &RecordId| books.payment(*intent).is_some_and(|payment| payment.voices.contains(&me));
            let wishes: Vec<RecordId> = books.unanswered_wishes().filter(ours).collect();
            let shown: Vec<(RecordId, String)> = books.claims().filter(|(intent, _)| heard(intent)).collect();
            let agreed = books.proposals().filter(|one| {
                let decided = one.checked.as_ref().is_some_and(|(_, agreed, ..)| *agreed);
                let open = |state| matches!(state, OutcomeState::Asked | OutcomeState::Unknown);
                decided && one.outcomes.iter().all(|(state, ..)| open(*state))
            });
            let retried: Vec<RecordId> = books.retried().filter(ours).collect();
            let moves = !books.ledger_moves().is_empty();
            (wishes, shown, agreed.collect::<Vec<_>>(), retried, moves)
        });
        let (wishes, shown, agreed, retried, moves) = asked.await?;
        for intent in retried {
            self.list(intent);
        }
        for intent in wishes {
            self.answer_wish(intent).await?;
        }
        for (intent, code) in shown {
            self.look_for(intent, &code).await?;
        }
        for proposal in agreed {
            self.settle(proposal).await?;
        }
        if moves { self.hand_over().await } else { Ok(()) }
    }

    /// Grants that an intent is given up, unless an attempt may still charge.
    pub(super) async fn answer_wish(&mut self, intent: RecordId) -> Result<(), Stopped> {
        let Some(case) = Case::ask(&self.shop, intent).await? else { return Ok(()) };
        let Some(wish) = case.payment.given_up.filter(|wish| wish.granted.is_none()) else { return Ok(()) };
        if !self.knows_all(&case.payment) {
            return Ok(());
        }
        if self.asking.contains_key(&intent) {
            // It is looked at again once the provider has answered.
            return Ok(());
        }
        let Ok(attempts) = self.attempts(intent).await? else { return Ok(()) };
        let mut rows: Vec<RowWrite> = Vec::new();
        let mut may_charge = false;
        for mut attempt in attempts {
            if attempt.state() == AttemptState::Ready
                && attempt.apply(&AttemptEvent::Cancelled, (self.clock)().0).is_ok()
            {
                rows.push(rows::put_attempt(&attempt));
            }
            may_charge |= attempt.state().may_still_charge();
        }
        let free = matches!(case.payment.state, IntentState::Open | IntentState::Declined);
        let granted = free && !may_charge;
        let answer = GiveUpAnswer { intent, request: wish.request, granted, instead: wish.instead };
        tracing::info!(%intent, granted, "a wish to give a payment up was answered");
        self.record(vec![Fact::Payment(PaymentFact::GiveUpAnswer(answer))], rows).await
    }

    /// A customer showed a receipt number: perhaps its money is in suspense already.
    async fn look_for(&mut self, intent: RecordId, code: &str) -> Result<(), Stopped> {
        let number = code.to_owned();
        let found = self.shop.ask(move |shop| {
            let id = crdt_model::record::suspense_id(shop.business(), MPESA, &number);
            let state = shop.books().intent_state(intent);
            let open = matches!(state, Some(IntentState::Open | IntentState::Declined));
            let free = shop.number_pays(MPESA, &number).is_none();
            (open && free).then(|| shop.books().suspense_entry(id))
        });
        let entry = match found.await? {
            Some(Some(entry)) if entry.settled.is_none() => entry,
            Some(None) => return self.ask_about_claim(code).await,
            Some(Some(_)) | None => return Ok(()),
        };
        let case = Case::ask(&self.shop, intent).await?;
        let attempts = self.attempts(intent).await?.unwrap_or_default();
        let may_charge = attempts.iter().any(|one| one.state().may_still_charge());
        if may_charge || case.is_none_or(|case| case.payment.amount != entry.amount) {
            return Ok(());
        }
        let receipt = receipt_of(&entry, intent);
        self.record(vec![Fact::Receipt(receipt)], Vec::new()).await
    }

    /// Does what two people agreed on.
    async fn settle(&mut self, proposal: ProposalState) -> Result<(), Stopped> {
        let me = self.ledger.relay;
        let (subject, id) = (proposal.subject, proposal.proposal);
        let about = self.shop.ask(move |shop| {
            let books = shop.books();
            let done = |other: &ProposalState| other.proposal != id && other.may_be_done();
            let done = books.proposals_about(subject).iter().any(done);
            (books.payment(subject), books.suspense_entry(subject), books.receipt_pays(subject), done)
        });
        let (payment, suspense, pays, done_otherwise) = about.await?;
        let is_ours = payment.as_ref().is_some_and(|payment| payment.voices.contains(&me))
            || suspense.as_ref().is_some_and(|entry| entry.device == me)
            || pays.is_some();
        if !is_ours {
            return Ok(());
        }
        // Two pairs of people may have agreed on different things, apart. Reviews come again, money goes once.
        if done_otherwise && payment.is_none() {
            return self.outcome(id, OutcomeState::Failed, "it was settled otherwise before", Vec::new()).await;
        }
        match proposal.settlement {
            Settlement::AsBooked | Settlement::Keep => self.outcome(id, OutcomeState::Done, "", Vec::new()).await,
            Settlement::NotPaid => {
                let receipts = payment.map(|payment| payment.receipts).unwrap_or_default();
                let revoked = receipts.iter().filter(|receipt| receipt.accepted).map(|receipt| {
                    Fact::Payment(PaymentFact::Revoked(ReceiptRevoked {
                        intent: subject,
                        receipt: receipt.record,
                        reason: "two people found that it was not paid".to_owned(),
                    }))
                });
                self.outcome(id, OutcomeState::Done, "", revoked.collect()).await
            }
            Settlement::Assign(intent) => match suspense {
                Some(entry) => {
                    let receipt = Fact::Receipt(receipt_of(&entry, intent));
                    self.outcome(id, OutcomeState::Done, "", vec![receipt]).await
                }
                None => self.outcome(id, OutcomeState::Failed, "there is no such money in suspense", Vec::new()).await,
            },
            Settlement::Reverse => self.reverse(&proposal).await,
        }
    }

    /// Asks the provider to take a payment back, once. The word that it was asked is durable first.
    async fn reverse(&mut self, proposal: &ProposalState) -> Result<(), Stopped> {
        let id = proposal.proposal;
        if self.reversing.contains(&id) {
            return Ok(());
        }
        let money = self.money_of(proposal.subject).await?;
        if !proposal.outcomes.is_empty() {
            // Asked before this start, and nothing was heard since. The result may still come.
            self.reversing.insert(id);
            if let Some((receipt_number, _)) = money {
                self.ask_about_reversal(id, receipt_number);
            }
            return Ok(());
        }
        let Some((receipt_number, amount_minor)) = money else {
            let detail = "there is no such receipt, or it pays a payment by now: take that one back";
            return self.outcome(id, OutcomeState::Failed, detail, Vec::new()).await;
        };
        let Some(provider) = self.mpesa.clone() else { return Ok(()) };
        self.outcome(id, OutcomeState::Asked, "", Vec::new()).await?;
        self.reversing.insert(id);
        let results = result_path(id, &self.token_key);
        let request = ReversalRequest { receipt_number, amount_minor, reason: proposal.note.clone(), results };
        let span = tracing::info_span!("reversal", proposal = %id);
        let ask = async move { Report::Reversed { proposal: id, outcome: provider.reverse(&request).await } };
        self.calls.spawn(ask.instrument(span));
        Ok(())
    }

    /// The receipt number and amount of a receipt or of money in suspense.
    async fn money_of(&self, subject: RecordId) -> Result<Option<(String, i64)>, Stopped> {
        let found = self.shop.ask(move |shop| {
            let books = shop.books();
            if let Some(entry) = books.suspense_entry(subject) {
                let pays = shop.number_pays(&entry.provider, &entry.number);
                return pays.is_none().then_some((entry.number, entry.amount.minor));
            }
            let payment = books.payment(books.receipt_pays(subject)?)?;
            let receipt = payment.receipts.into_iter().find(|one| one.record == subject && one.accepted)?;
            Some((receipt.number, receipt.amount.minor))
        });
        found.await
    }

    /// The provider took the wish to reverse, or did not.
    pub(super) async fn reversal_asked(&mut self, proposal: RecordId, outcome: PushOutcome) -> Result<(), Stopped> {
        match outcome {
            PushOutcome::Accepted(_) => Ok(()),
            PushOutcome::Settled { .. } => self.reversed(proposal, "0", "", Vec::new()).await,
            PushOutcome::NotSent { detail, .. } => {
                self.outcome(proposal, OutcomeState::Failed, &detail, Vec::new()).await
            }
            // Its result may still come; a status query or the statement decides otherwise.
            PushOutcome::Ambiguous { detail } => {
                tracing::error!(%proposal, %detail, "whether a payment was reversed is not known yet");
                let subject = self.shop.ask(move |shop| shop.books().proposal(proposal).map(|one| one.subject));
                if let Some(subject) = subject.await?
                    && let Some((receipt_number, _)) = self.money_of(subject).await?
                {
                    self.ask_about_reversal(proposal, receipt_number);
                }
                Ok(())
            }
        }
    }

    /// The result of a reversal. What was taken back no longer pays anything.
    pub(super) async fn reversed(
        &mut self,
        proposal: RecordId,
        code: &str,
        detail: &str,
        rows: Vec<RowWrite>,
    ) -> Result<(), Stopped> {
        let known = self.shop.ask(move |shop| {
            let state = shop.books().proposal(proposal)?;
            let pays = shop.books().receipt_pays(state.subject);
            Some((state, pays))
        });
        let Some((state, pays)) = known.await? else { return booking::write(&self.shop, rows).await };
        if state.outcomes.iter().any(|(state, ..)| *state == OutcomeState::Done) {
            return booking::write(&self.shop, rows).await;
        }
        let done = REVERSED.contains(&code);
        let mut facts = Vec::new();
        if let Some(intent) = pays.filter(|_| done) {
            let reason = format!("the provider took it back ({code})");
            let revoked = ReceiptRevoked { intent, receipt: state.subject, reason };
            facts.push(Fact::Payment(PaymentFact::Revoked(revoked)));
        }
        let outcome = if done { OutcomeState::Done } else { OutcomeState::Failed };
        let detail = format!("{code} {detail}");
        let outcome = Outcome { proposal, state: outcome, detail: cut(&detail, TEXT_BYTES_MAX) };
        facts.insert(0, Fact::Payment(PaymentFact::Outcome(outcome)));
        self.record(facts, rows).await
    }

    pub(super) async fn outcome(
        &mut self,
        proposal: RecordId,
        state: OutcomeState,
        detail: &str,
        facts: Vec<Fact>,
    ) -> Result<(), Stopped> {
        let outcome = Outcome { proposal, state, detail: cut(detail, TEXT_BYTES_MAX) };
        let mut all = vec![Fact::Payment(PaymentFact::Outcome(outcome))];
        all.extend(facts);
        self.record(all, Vec::new()).await
    }
}

fn receipt_of(entry: &crdt_model::books::SuspenseEntry, intent: RecordId) -> Receipt {
    Receipt {
        intent,
        provider: entry.provider.clone(),
        number: entry.number.clone(),
        amount: entry.amount,
        paid_at: entry.paid_at,
        evidence: entry.evidence,
        attempt: 0,
        test: entry.test,
    }
}
