//! The derived figures of a shop: pure folds over its facts. The same set of facts gives the
//! same books, whatever the order of their arrival, how often they come and by which route.
//!
//! The books keep no facts, only what the figures need: see [`Books::fold`] for what that asks
//! of the caller. Figures follow what is new: folding a fact costs O(log n).

mod handoffs;
mod id_table;
mod ledgers;
mod names;
mod open_intents;
mod ordered;
mod payment;
mod payment_notes;
mod payments;
mod placed;
mod questions;
mod receipts;
mod records;
mod shifts;
mod slips;
mod snapshot;
mod stock;
mod tally;
mod totals;
mod track;

#[cfg(test)]
mod ledger_stories;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod test_shop;

use std::collections::BTreeMap;

pub use handoffs::{Handoff, HandoffDecision, HandoffPhase};
pub use payment::{Declined, IntentState, Moving, Payment, PaymentSum, ReceiptClaim};
pub use payment_notes::{GivenUp, ProposalState, Reviewed, SuspenseEntry};

pub use placed::{Followup, Key, Placed};
pub use questions::SaleStatus;
pub(crate) use records::CopyOf;
pub(crate) use records::fact_digests;
pub use records::{BodyDigest, RecordAt, body_digest};
pub use shifts::{Closing, ZReport};
pub use snapshot::BooksError;
pub use stock::{LastCount, QUANTITY_MILLI_MAX, StockLevel};
pub use tally::{Figure, Sheet, Tally, Tax};
pub use totals::DayTotals;

use crate::ids::{DeviceId, RecordId};
use crate::record::{DeliveryState, Fact, Kind, UpstreamFact};
use crate::rules::{self, Conflict, Decision, Docket, Subject};
use handoffs::Handoffs;
use names::Journals;
use payments::Payments;
use records::{Added, Records};
use shifts::Shifts;
use stock::{Oversold, Stock};
use tally::{Sign, tally_of};
use totals::Totals;

/// A shop's books.
#[derive(Debug, Clone, Default)]
pub struct Books {
    journals: Journals,
    records: Records,
    stock: Stock,
    totals: Totals,
    payments: Payments,
    shifts: Shifts,
    handoffs: Handoffs,
    docket: Docket,
    /// The conflict of each oversold product.
    oversold: BTreeMap<String, Subject>,
    /// Where each conflict with the shop's own server was told, and by which device.
    upstream: BTreeMap<RecordId, BTreeMap<Key, DeviceId>>,
}

impl Books {
    /// Counts a fact. Folding it again changes nothing.
    ///
    /// Of several copies of a record the smallest [`Key`] counts. The books can't take back a
    /// copy that they no longer hold, so when a smaller one arrives the answer asks the
    /// caller to load both and to call [`Books::recount`].
    pub fn fold(&mut self, placed: &Placed<'_>) -> Vec<Followup> {
        let copy = CopyOf::of(placed);
        if let Fact::Receipt(receipt) = placed.fact {
            self.payments.receipt(placed, receipt, &mut self.journals);
            self.judge_payment(receipt.intent);
        }
        match self.records.add(placed.id, copy, &mut self.journals, placed.device) {
            Added::First => {
                self.count(placed, Sign::Count);
                return Vec::new();
            }
            Added::Same => return Vec::new(),
            Added::Other => {}
        }
        self.docket.set(Subject::Contested(placed.id), self.records.is_contested(placed.id));
        let Some((counted, best)) = self.records.recount(placed.id, &self.journals) else {
            return Vec::new();
        };
        if is_only_listed(counted.kind) && is_only_listed(best.kind) {
            self.records.recounted(placed.id, &mut self.journals);
        }
        self.records.followup(placed.id, &self.journals).into_iter().collect()
    }

    /// Takes back counted copies and counts the smaller ones instead, for every record of
    /// which `placed` holds both. Gives what is still to be done because what was loaded had
    /// been overtaken.
    pub fn recount(&mut self, placed: &[Placed<'_>]) -> Vec<Followup> {
        let mut left = Vec::new();
        for old in placed {
            let Some((counted, best)) = self.records.recount(old.id, &self.journals) else {
                continue;
            };
            if old.key() != counted.key {
                continue;
            }
            let mut others = placed.iter().filter(|other| other.id == old.id && other.key() != old.key());
            let Some(new) = others.clone().find(|new| new.key() == best.key) else {
                if others.next().is_some() {
                    left.extend(self.records.followup(old.id, &self.journals));
                }
                continue;
            };
            self.count(old, Sign::TakeBack);
            self.records.recounted(old.id, &mut self.journals);
            self.count(new, Sign::Count);
        }
        left
    }

    /// Recounts that were asked for and not done yet, such as after a restart.
    #[must_use]
    pub fn pending(&self) -> Vec<Followup> {
        self.records.pending(&self.journals)
    }

    /// Counts a fact everywhere, or takes it back. Receipts are kept apart, with every copy.
    fn count(&mut self, placed: &Placed<'_>, sign: Sign) {
        if let Some((currency, tally)) = tally_of(placed.fact) {
            self.totals.add(placed.day, placed.device, currency, &tally, sign);
            self.shifts.slip(placed.place, currency, &tally, sign);
        }
        self.shifts.fold(placed, sign);
        for (sku, oversold) in self.stock.fold(placed, sign, &mut self.journals) {
            self.judge_stock(sku, oversold);
        }
        if let Some(handoff) = self.handoffs.fold(placed, sign) {
            self.judge_handoff(handoff);
        }
        match placed.fact {
            Fact::Intent(intent) => {
                let records = &self.records;
                let voided = |sale| is_voided(records, sale);
                self.payments.intent(placed, intent, sign, voided, &mut self.journals);
                self.judge_payment(placed.id);
            }
            Fact::Void(void) => {
                for intent in self.payments.sale_voided(void.sale, &self.journals) {
                    self.judge_payment(intent);
                }
            }
            Fact::Decline(decline) => self.payments.decline(placed, decline, sign, &self.journals),
            Fact::IntentAddressed(addressed) => {
                self.payments.addressed(placed, addressed, sign, &self.journals);
                self.judge_payment(addressed.intent);
            }
            Fact::IntentConfirmed(confirmed) => {
                self.payments.confirmed(placed, confirmed.intent, sign, &self.journals);
            }
            Fact::Payment(fact) => {
                for intent in self.payments.note(placed, fact, sign, &self.journals) {
                    self.judge_payment(intent);
                }
            }
            Fact::Resolution(resolution) => {
                let (choice, note) = (resolution.choice.clone(), resolution.note.clone());
                let fields = resolution.fields.clone();
                let decision = Decision { choice, note, device: placed.device, time: placed.time, fields };
                match sign {
                    Sign::Count => self.docket.decide(resolution.conflict, placed.key(), decision),
                    Sign::TakeBack => self.docket.undecide(resolution.conflict, placed.key()),
                }
            }
            Fact::Sale(_)
            | Fact::Expense(_)
            | Fact::FinancialRecord(_)
            | Fact::StockMovement(_)
            | Fact::StockCount(_)
            | Fact::Refund(_)
            | Fact::ShiftOpened(_)
            | Fact::ShiftClosed(_)
            | Fact::Receipt(_)
            | Fact::Custom(_)
            | Fact::Enrolment(_)
            | Fact::HandoffOffered(_)
            | Fact::HandoffAccepted(_)
            | Fact::HandoffTransferred(_)
            | Fact::HandoffWithdrawn(_)
            | Fact::HandoffDecided(_) => {}
            Fact::Upstream(fact) => self.judge_upstream(placed, fact, sign),
        }
    }

    /// An outcome that is a conflict, with where it is; other outcomes are no business of the books.
    fn judge_upstream(&mut self, placed: &Placed<'_>, fact: &UpstreamFact, sign: Sign) {
        let UpstreamFact::Outcome(outcome) = fact else { return };
        if outcome.state != DeliveryState::Conflict {
            return;
        }
        let subject = Subject::Upstream(outcome.operation, outcome.ordinal);
        // A carrier that was restored, or two of them, may say the same again.
        let told = self.upstream.entry(subject.id()).or_default();
        match sign {
            Sign::Count => drop(told.insert(placed.key(), placed.device)),
            Sign::TakeBack => drop(told.remove(&placed.key())),
        }
        let present = !told.is_empty();
        if !present {
            self.upstream.remove(&subject.id());
        }
        self.docket.set(subject, present);
    }

    /// A decision is a conflict that is decided already; one that came too late is not.
    fn judge_handoff(&mut self, id: RecordId) {
        let Some(handoff) = self.handoffs.handoff(id) else { return };
        let subject = Subject::HandoffDecided(id);
        if let Some(decision) = &handoff.decision {
            let choice = if decision.to == handoff.giver { rules::GIVER } else { rules::RECEIVER };
            let (device, time) = (decision.device, decision.key.time);
            let decided =
                Decision { choice: choice.to_owned(), note: decision.note.clone(), device, time, fields: None };
            self.docket.decide(subject.id(), decision.key, decided);
        }
        self.docket.set(subject, handoff.decision.is_some());
        self.docket.set(Subject::HandoffTorn(id), handoff.torn);
    }

    fn is_voided(&self, sale: RecordId) -> bool {
        is_voided(&self.records, sale)
    }

    /// Finds the conflicts of an intent, and of those that claim the same receipts.
    fn judge_payment(&mut self, intent: RecordId) {
        for id in self.payments.entangled(intent) {
            self.docket.set(Subject::PaidTwice(id), self.payments.is_paid_twice(id));
            self.docket.set(Subject::VoidedAndPaid(id), self.payments.is_voided_and_paid(id));
        }
    }

    fn judge_stock(&mut self, sku: &str, oversold: Oversold) {
        if oversold.is_none() && self.oversold.is_empty() {
            return;
        }
        let now = oversold.map(|count| Subject::Oversold(sku.to_owned(), count));
        if self.oversold.get(sku) == now.as_ref() {
            return;
        }
        if let Some(before) = self.oversold.remove(sku) {
            self.docket.set(before, false);
        }
        if let Some(subject) = now {
            self.docket.set(subject.clone(), true);
            self.oversold.insert(sku.to_owned(), subject);
        }
    }

    fn describe(&self, id: RecordId, subject: &Subject) -> Option<Conflict> {
        let state = self.docket.state(id);
        match subject {
            Subject::Contested(record) => self.describe_contest(id, *record),
            Subject::VoidedAndPaid(intent) => {
                let payment = self.payment(*intent)?;
                let void = payment.sale.and_then(|(sale, _)| self.record(void_of(sale)));
                Some(rules::voided_and_paid(id, &payment, void, state))
            }
            Subject::PaidTwice(intent) => Some(rules::paid_twice(id, &self.payment(*intent)?, state)),
            Subject::HandoffDecided(handoff) => Some(rules::handoff_decided(id, &self.handoff(*handoff)?, state)),
            Subject::HandoffTorn(handoff) => Some(rules::handoff_torn(id, &self.handoff(*handoff)?, state)),
            Subject::Oversold(sku, count) => Some(rules::oversold(id, sku, *count, state)),
            Subject::Upstream(operation, _) => {
                let (key, device) = self.upstream.get(&id)?.first_key_value()?;
                Some(rules::upstream(id, *operation, self.record(*operation), (*key, *device), state))
            }
        }
    }

    fn describe_contest(&self, id: RecordId, record: RecordId) -> Option<Conflict> {
        let contest = self.records.contest(record)?;
        let counted = self.records.counted(record, &self.journals).map(|copy| copy.key);
        let copies: Vec<_> = contest
            .sides
            .values()
            .filter_map(|copy| Some((*copy, self.journals.device_of(copy.key.journal)?)))
            .collect();
        let conflict = rules::same_id(id, record, counted, &copies, self.docket.state(id));
        let claimed_for = self.payments.claimed_for(record);
        if claimed_for.len() > 1 {
            let payments: Vec<_> = claimed_for.into_iter().filter_map(|intent| self.payment(intent)).collect();
            return Some(rules::double_claim(conflict, &payments));
        }
        if contest.sides.values().any(|copy| copy.ticket) {
            return Some(rules::ticket_closed_twice(conflict));
        }
        Some(conflict)
    }
}

fn is_voided(records: &Records, sale: RecordId) -> bool {
    records.has(void_of(sale), Kind::Void)
}

fn void_of(sale: RecordId) -> RecordId {
    sale.derived("void", 0)
}

/// Kinds of which the figures hold nothing, or every copy.
fn is_only_listed(kind: Kind) -> bool {
    match kind {
        Kind::Receipt | Kind::Custom | Kind::Enrolment => true,
        Kind::Sale
        | Kind::Expense
        | Kind::FinancialRecord
        | Kind::StockMovement
        | Kind::StockCount
        | Kind::Intent
        | Kind::Void
        | Kind::Refund
        | Kind::ShiftOpened
        | Kind::ShiftClosed
        | Kind::Decline
        | Kind::IntentAddressed
        | Kind::IntentConfirmed
        | Kind::Payment
        | Kind::Resolution
        | Kind::HandoffOffered
        | Kind::HandoffAccepted
        | Kind::HandoffTransferred
        | Kind::HandoffWithdrawn
        | Kind::HandoffDecided
        | Kind::Upstream => false,
    }
}
