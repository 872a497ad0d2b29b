//! What the books answer.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::payments::tender_intent;
use super::tally::Sign;
use super::{
    Books, DayTotals, Figure, Handoff, IntentState, Key, Payment, PaymentSum, ProposalState, RecordAt, Sheet,
    StockLevel, SuspenseEntry, ZReport,
};
use crate::ids::{DeviceId, RecordId};
use crate::money::Currency;
use crate::record::{Kind, Ledger, LedgerMoved, TENDERS_MAX};
use crate::rules::{Conflict, Decision};
use crate::time::{Day, Hlc};

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
}
