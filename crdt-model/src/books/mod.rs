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
use std::ops::RangeInclusive;

pub use handoffs::{Handoff, HandoffDecision, HandoffPhase};
pub use payment::{Declined, IntentState, Moving, Payment, PaymentSum, ReceiptClaim};
pub use payment_notes::{GivenUp, ProposalState, Reviewed, SuspenseEntry};

pub use placed::{Followup, Key, Placed};
pub(crate) use records::CopyOf;
pub(crate) use records::fact_digests;
pub use records::{BodyDigest, RecordAt, body_digest};
pub use shifts::{Closing, ZReport};
pub use snapshot::BooksError;
pub use stock::{LastCount, QUANTITY_MILLI_MAX, StockLevel};
pub use tally::{Figure, Sheet, Tally, Tax};
pub use totals::DayTotals;

use crate::ids::{DeviceId, RecordId};
use crate::money::Currency;
use crate::record::{DeliveryState, Fact, Kind, Ledger, LedgerMoved, TENDERS_MAX, UpstreamFact};
use crate::rules::{self, Conflict, Decision, Docket, Subject};
use crate::time::{Day, Hlc};
use handoffs::Handoffs;
use names::Journals;
use payments::{Payments, tender_intent};
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

/// What became of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleStatus {
    /// The sale is in the books (its void may come first).
    pub recorded: bool,
    /// It was taken back.
    pub voided: bool,
    /// Each of its tenders is settled: cash and others at once, M-PESA when paid.
    pub completed: bool,
    /// Its M-PESA tenders: tender index, intent, and what became of it (`None` while the
    /// intent is not in the books).
    pub payments: Vec<(u32, RecordId, Option<IntentState>)>,
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

    /// Where a record is.
    #[must_use]
    pub fn record(&self, id: RecordId) -> Option<RecordAt> {
        self.records.at(id, &self.journals)
    }

    /// How many records of a kind there are.
    #[must_use]
    pub fn count_of(&self, kind: Kind) -> usize {
        self.records.count(kind)
    }

    /// Records of a kind, the newest first, from before a cursor (time and id of the last one
    /// that was listed).
    pub fn list(&self, kind: Kind, before: Option<(Hlc, RecordId)>) -> impl Iterator<Item = RecordAt> + '_ {
        self.records.list(kind, before, &self.journals)
    }

    /// What there is of a product; `None` if nothing is recorded about it.
    #[must_use]
    pub fn stock(&self, sku: &str) -> Option<StockLevel> {
        self.stock.level(sku, &self.journals)
    }

    /// What there is of each product, in the order of their SKUs, from behind `after`.
    pub fn stock_levels(&self, after: Option<&str>) -> impl Iterator<Item = StockLevel> + '_ {
        self.stock.levels(after, &self.journals)
    }

    /// The totals of one day over all devices.
    #[must_use]
    pub fn day(&self, day: Day) -> Sheet {
        let mut sheet = Sheet::default();
        for totals in self.totals.days(day..=day) {
            sheet.add(totals.currency, &totals.tally, Sign::Count);
        }
        sheet
    }

    /// The totals of each day, device and currency that has any.
    pub fn days(&self, days: RangeInclusive<Day>) -> impl Iterator<Item = DayTotals> + '_ {
        self.totals.days(days)
    }

    /// The totals of one device's day.
    #[must_use]
    pub fn device_day(&self, day: Day, device: DeviceId) -> Sheet {
        self.totals.of_device(day, device)
    }

    /// The totals of everything.
    #[must_use]
    pub fn business(&self) -> &Sheet {
        self.totals.business()
    }

    /// Everything about an intent.
    #[must_use]
    pub fn payment(&self, intent: RecordId) -> Option<Payment> {
        self.payments.payment(intent, &self.journals)
    }

    /// What became of an intent.
    #[must_use]
    pub fn intent_state(&self, intent: RecordId) -> Option<IntentState> {
        self.payments.state(intent)
    }

    /// The open intents that a ledger may push, the oldest first.
    pub fn open_intents_for(&self, ledger: &Ledger) -> impl Iterator<Item = RecordId> + '_ {
        self.payments.open().of_ledger(ledger)
    }

    /// A device's open intents that name no ledger yet, the oldest first.
    pub fn unaddressed_intents(&self, device: DeviceId) -> impl Iterator<Item = RecordId> + '_ {
        self.payments.open().unaddressed(device)
    }

    /// Whether a device has promised to ask for money and not got it yet.
    #[must_use]
    pub fn has_open_intents(&self, device: DeviceId) -> bool {
        self.payments.open().has(device)
    }

    /// How many intents there are in each state and currency, and how much they ask for.
    #[must_use]
    pub fn payment_sums(&self) -> &BTreeMap<(IntentState, Currency), PaymentSum> {
        self.payments.sums()
    }

    /// How many intents are in a state.
    #[must_use]
    pub fn intent_count(&self, state: IntentState) -> u64 {
        self.payments.sums().iter().filter(|((other, _), _)| *other == state).map(|(_, sum)| sum.intents).sum()
    }

    /// What owners said about which ledger's intents are another's: each record, when it was
    /// said, and how many intents have followed.
    #[must_use]
    pub fn ledger_moves(&self) -> Vec<(RecordId, Hlc, LedgerMoved, usize)> {
        let moves = self.payments.moves().into_iter();
        moves.map(|(id, key, moved)| (id, key.time, moved, self.payments.moved_by(id))).collect()
    }

    /// Intents whose customers pay in cash at a device instead, which has not recorded yet that
    /// it has the cash.
    #[must_use]
    pub fn cash_due(&self, device: DeviceId) -> Vec<RecordId> {
        self.payments.cash_due(device, &self.journals)
    }

    /// Whether a till has recorded that it took cash instead of a payment.
    #[must_use]
    pub fn is_cash_taken(&self, intent: RecordId) -> bool {
        self.payments.is_cash_taken(intent)
    }

    /// Money in suspense, settled or not.
    pub fn suspense(&self) -> impl Iterator<Item = SuspenseEntry> + '_ {
        self.payments.notes.all_suspense()
    }

    /// One sum of money in suspense.
    #[must_use]
    pub fn suspense_entry(&self, record: RecordId) -> Option<SuspenseEntry> {
        self.payments.notes.suspense(record)
    }

    /// What was proposed about an intent, a suspense or a receipt, the earliest first.
    #[must_use]
    pub fn proposals_about(&self, subject: RecordId) -> Vec<ProposalState> {
        self.payments.notes.proposals(subject)
    }

    /// One proposal.
    #[must_use]
    pub fn proposal(&self, proposal: RecordId) -> Option<ProposalState> {
        self.payments.notes.proposal(proposal)
    }

    /// Every proposal.
    pub fn proposals(&self) -> impl Iterator<Item = ProposalState> + '_ {
        self.payments.notes.all_proposals()
    }

    /// Intents with a wish to give them up that no ledger has answered.
    pub fn unanswered_wishes(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.payments.notes.unanswered()
    }

    /// Open intents that somebody wants to be asked for again.
    pub fn retried(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.payments.notes.retried().filter(|intent| self.payments.state(*intent) == Some(IntentState::Open))
    }

    /// Receipt numbers that customers showed, with the intents that they are to pay.
    pub fn claims(&self) -> impl Iterator<Item = (RecordId, String)> + '_ {
        self.payments.notes.all_codes()
    }

    /// The intent for which a provider's receipt number was shown.
    #[must_use]
    pub fn claimant(&self, provider: &str, code: &str) -> Option<RecordId> {
        self.payments.notes.claimant(provider, code)
    }

    /// The intent that a provider's receipt number pays, if it was booked.
    #[must_use]
    pub fn receipt_pays(&self, receipt: RecordId) -> Option<RecordId> {
        self.payments.claimed_for(receipt).into_iter().find(|intent| {
            let payment = self.payment(*intent);
            payment
                .is_some_and(|payment| payment.receipts.iter().any(|claim| claim.record == receipt && claim.accepted))
        })
    }

    /// What became of a sale.
    #[must_use]
    pub fn sale_status(&self, sale: RecordId) -> SaleStatus {
        let counted = self.records.counted(sale, &self.journals).filter(|copy| copy.kind == Kind::Sale);
        let tenders = counted.map_or(0, |copy| copy.mpesa_tenders);
        let payments: Vec<_> = (0..u32::try_from(TENDERS_MAX).unwrap_or_default())
            .filter(|tender| tenders.checked_shr(*tender).is_some_and(|bits| bits & 1 == 1))
            .map(|tender| {
                let intent = tender_intent(sale, tender);
                (tender, intent, self.payments.state(intent))
            })
            .collect();
        let paid = payments.iter().all(|(_, intent, state)| {
            *state == Some(IntentState::Paid) || self.payments.is_paid_in_cash(*intent, &self.journals)
        });
        let voided = self.is_voided(sale);
        SaleStatus { recorded: counted.is_some(), voided, completed: counted.is_some() && paid, payments }
    }

    /// What refunds took back of a sale so far, by the amounts of their lines.
    #[must_use]
    pub fn refunded_minor(&self, sale: RecordId) -> i128 {
        self.shifts.taken_back(sale).map(|(_, tally)| tally.of(Figure::RefundsMinor)).sum()
    }

    /// A sale's void and refunds, in no order that means anything.
    #[must_use]
    pub fn amendments_of(&self, sale: RecordId) -> Vec<RecordId> {
        self.shifts.amendments_of(sale).collect()
    }

    /// The shift that is open on a device and not frozen.
    #[must_use]
    pub fn current_shift(&self, device: DeviceId) -> Option<RecordId> {
        self.shifts.current(device, &self.handoffs)
    }

    /// The device that has a shift, and the handoff by which it is frozen there.
    #[must_use]
    pub fn shift_holder(&self, shift: RecordId) -> Option<(DeviceId, Option<RecordId>)> {
        let way = self.shifts.way(shift, &self.handoffs)?;
        Some((way.holder, way.frozen_by))
    }

    /// The handoff by which a shift last came to the device that has it.
    #[must_use]
    pub fn shift_came_by(&self, shift: RecordId) -> Option<RecordId> {
        self.shifts.way(shift, &self.handoffs)?.completed.last().copied()
    }

    /// Whether a shift was closed.
    #[must_use]
    pub fn is_shift_closed(&self, shift: RecordId) -> bool {
        self.shifts.is_closed(shift)
    }

    /// A shift that a device has offered and not got rid of.
    #[must_use]
    pub fn frozen_shift(&self, device: DeviceId) -> Option<Handoff> {
        let mut given = self.handoffs.unsettled(device).filter(|handoff| handoff.giver == device);
        given.find(|handoff| handoff.phase.is_open() && !self.shifts.is_closed(handoff.offer.shift))
    }

    /// A handoff and what was said about it.
    #[must_use]
    pub fn handoff(&self, id: RecordId) -> Option<Handoff> {
        self.handoffs.handoff(id)
    }

    /// Handoffs that a device gives or is to receive, and whose giver has not had its last word.
    pub fn unsettled_handoffs(&self, device: DeviceId) -> impl Iterator<Item = Handoff> + '_ {
        self.handoffs.unsettled(device)
    }

    /// The till that a ticket was last handed to, if it ever was.
    #[must_use]
    pub fn ticket_holder(&self, ticket: RecordId) -> Option<DeviceId> {
        self.handoffs.ticket_holder(ticket)
    }

    /// A device's shifts, the latest first.
    pub fn shifts(&self, device: DeviceId) -> impl Iterator<Item = RecordId> + '_ {
        self.shifts.of_device(device)
    }

    /// The report of a shift. Costs a look at every void and refund once it is closed.
    #[must_use]
    pub fn z_report(&self, shift: RecordId) -> Option<ZReport> {
        self.shifts.report(shift, &self.records, &self.journals, &self.handoffs)
    }

    /// How many conflicts between facts wait for a person.
    #[must_use]
    pub fn open_conflict_count(&self) -> u64 {
        self.docket.open_count() as u64
    }

    /// Conflicts between facts in the order of their ids: the open ones, or all of them.
    pub fn conflicts(&self, open_only: bool) -> impl Iterator<Item = Conflict> + '_ {
        let open = open_only.then(|| self.docket.open()).into_iter().flatten();
        let all = (!open_only).then(|| self.docket.present()).into_iter().flatten();
        open.chain(all).filter_map(|(id, subject)| self.describe(id, subject))
    }

    /// One conflict between facts.
    #[must_use]
    pub fn conflict(&self, id: RecordId) -> Option<Conflict> {
        self.describe(id, self.docket.subject(id)?)
    }

    /// The latest decision about a conflict of any kind.
    #[must_use]
    pub fn decision(&self, conflict: RecordId) -> Option<&Decision> {
        self.docket.decision(conflict)
    }

    /// Every decision about a conflict, the earliest first.
    pub fn decisions(&self, conflict: RecordId) -> impl Iterator<Item = (Key, &Decision)> {
        self.docket.decisions(conflict)
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
