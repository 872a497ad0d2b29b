//! Payments: what became of each intent, as a pure function of the facts about it.
//!
//! Every claim that a receipt makes is kept, whoever wrote it; it is *accepted* only from the
//! intent's ledger, and of the accepted claims of one receipt number the smallest counts.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::ledgers::{Ledgers, Way};
use super::names::{Journals, Numbered};
use super::open_intents::{Listing, OpenIntents};
use super::payment::{Declined, IntentState, Payment, PaymentSum, ReceiptClaim};
use super::payment_notes::{GivenUp, Notes, by};
use super::placed::{Key, Placed};
use super::receipts::Claims;
use super::tally::Sign;
use crate::entry::Place;
use crate::ids::{DeviceId, RecordId};
use crate::money::{Currency, Money};
use crate::record::{
    CashTaken, Decline, Instead, Intent, IntentAddressed, Ledger, LedgerMoved, PaymentFact, Receipt, Settlement,
    TENDERS_MAX,
};
use crate::time::Hlc;

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Payments {
    #[n(0)]
    ledgers: Numbered<Ledger>,
    #[n(1)]
    providers: Numbered<String>,
    #[n(3)]
    intents: BTreeMap<RecordId, Row>,
    #[n(4)]
    receipts: Claims,
    #[n(6)]
    ways: Ledgers,
    #[n(7)]
    confirmed: BTreeSet<(RecordId, Key)>,
    #[n(8)]
    declines: BTreeMap<(RecordId, Key), (DeviceId, u32, String)>,
    #[n(9)]
    open: OpenIntents,
    /// Intents that are paid in cash instead, and no till has said yet that it has the cash.
    #[n(10)]
    cash_due: BTreeSet<RecordId>,
    #[n(11)]
    cash_taken: BTreeSet<(RecordId, Key)>,
    #[n(13)]
    paid_twice: BTreeSet<RecordId>,
    #[n(14)]
    voided_and_paid: BTreeSet<RecordId>,
    #[n(15)]
    pub(super) notes: Notes,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Row {
    #[n(0)]
    sale: RecordId,
    #[n(1)]
    amount_minor: i64,
    #[n(2)]
    time: Hlc,
    #[n(3)]
    seq: u64,
    #[n(4)]
    journal: u32,
    #[n(5)]
    index: u32,
    #[n(6)]
    provider: u32,
    /// As the intent names it.
    #[n(7)]
    ledger: Option<u32>,
    #[n(8)]
    currency: Currency,
    /// Which tender of the sale; [`NO_TENDER`] if it belongs to none.
    #[n(9)]
    tender: u8,
    #[n(10)]
    branch: bool,
    #[n(11)]
    voided: bool,
    #[n(12)]
    state: IntentState,
}

const NO_TENDER: u8 = u8::MAX;

/// The intent that pays tender `tender` of `sale`.
pub(super) fn tender_intent(sale: RecordId, tender: u32) -> RecordId {
    sale.derived("intent", tender)
}

impl Payments {
    /// Counts an intent, or takes it back. `voided` tells whether its sale is voided.
    pub(super) fn intent(
        &mut self,
        placed: &Placed<'_>,
        intent: &Intent,
        sign: Sign,
        voided: impl Fn(RecordId) -> bool,
        journals: &mut Journals,
    ) {
        self.unlist(placed.id, journals);
        if sign == Sign::TakeBack {
            self.intents.remove(&placed.id);
            return self.refresh(placed.id, journals);
        }
        // Only the intent that its sale's tender names belongs to it.
        let tender = intent.sale.filter(|(sale, tender)| {
            usize::try_from(*tender).is_ok_and(|tender| tender < TENDERS_MAX)
                && tender_intent(*sale, *tender) == placed.id
        });
        let row = Row {
            sale: tender.map_or(placed.id, |(sale, _)| sale),
            amount_minor: intent.amount.minor,
            time: placed.time,
            seq: placed.place.seq,
            journal: journals.number(placed.place.journal, placed.device),
            index: placed.index,
            provider: self.providers.number(&intent.provider),
            ledger: intent.ledger.map(|ledger| self.ledgers.number(&ledger)),
            currency: intent.amount.currency,
            tender: tender.and_then(|(_, tender)| u8::try_from(tender).ok()).unwrap_or(NO_TENDER),
            branch: placed.branch,
            voided: tender.is_some_and(|(sale, _)| voided(sale)),
            state: IntentState::Open,
        };
        self.intents.insert(placed.id, row);
        self.enlist(placed.id, journals);
        self.refresh(placed.id, journals);
    }

    /// Keeps a receipt's claim; nothing ever takes it back.
    pub(super) fn receipt(&mut self, placed: &Placed<'_>, receipt: &Receipt, journals: &mut Journals) {
        if self.receipts.keep(placed, receipt, journals) {
            self.refresh(receipt.intent, journals);
        }
    }

    pub(super) fn decline(&mut self, placed: &Placed<'_>, decline: &Decline, sign: Sign, journals: &Journals) {
        let at = (decline.intent, placed.key());
        match sign {
            Sign::Count => drop(self.declines.insert(at, (placed.device, decline.attempt, decline.code.clone()))),
            Sign::TakeBack => drop(self.declines.remove(&at)),
        }
        self.refresh(decline.intent, journals);
    }

    pub(super) fn addressed(
        &mut self,
        placed: &Placed<'_>,
        addressed: &IntentAddressed,
        sign: Sign,
        journals: &Journals,
    ) {
        self.unlist(addressed.intent, journals);
        self.ways.address(placed, addressed, sign);
        self.enlist(addressed.intent, journals);
        self.refresh(addressed.intent, journals);
    }

    /// An owner gives intents to another ledger. Gives those that thereby follow.
    fn moved(&mut self, placed: &Placed<'_>, moved: &LedgerMoved, sign: Sign, journals: &Journals) -> Vec<RecordId> {
        // The words of a lost ledger's heir count at once, so every intent of it may change.
        let touched = |(id, row): (&RecordId, &Row)| {
            let named = moved.intent.is_none_or(|only| only == *id);
            (named && self.way(*id, row, journals).has_been_at(moved.from)).then_some(*id)
        };
        let follow: Vec<RecordId> = self.intents.iter().filter_map(touched).collect();
        for id in &follow {
            self.unlist(*id, journals);
        }
        self.ways.moved(placed, moved, sign);
        for id in &follow {
            self.enlist(*id, journals);
        }
        // Only now: what claims one receipt is worked out together, and listed anew where it changes.
        for id in &follow {
            self.refresh(*id, journals);
        }
        follow
    }

    pub(super) fn confirmed(&mut self, placed: &Placed<'_>, intent: RecordId, sign: Sign, journals: &Journals) {
        match sign {
            Sign::Count => self.confirmed.insert((intent, placed.key())),
            Sign::TakeBack => self.confirmed.remove(&(intent, placed.key())),
        };
        self.refresh(intent, journals);
    }

    /// Counts what else is said about payments, or takes it back. Gives the intents it bears on.
    pub(super) fn note(
        &mut self,
        placed: &Placed<'_>,
        fact: &PaymentFact,
        sign: Sign,
        journals: &Journals,
    ) -> Vec<RecordId> {
        match fact {
            PaymentFact::Moved(moved) => return self.moved(placed, moved, sign, journals),
            PaymentFact::Released(released) => {
                self.unlist(released.intent, journals);
                self.ways.release(placed, released, sign);
                self.enlist(released.intent, journals);
            }
            PaymentFact::CashTaken(CashTaken { intent, .. }) => {
                match sign {
                    Sign::Count => self.cash_taken.insert((*intent, placed.key())),
                    Sign::TakeBack => self.cash_taken.remove(&(*intent, placed.key())),
                };
            }
            PaymentFact::Suspense(_)
            | PaymentFact::Revoked(_)
            | PaymentFact::Review(_)
            | PaymentFact::Retry(_)
            | PaymentFact::GiveUp(_)
            | PaymentFact::GiveUpAnswer(_)
            | PaymentFact::CodeClaim(_)
            | PaymentFact::Proposal(_)
            | PaymentFact::Check(_)
            | PaymentFact::Outcome(_)
            | PaymentFact::Progress(_) => {}
        }
        let subject = self.notes.fold(placed, fact, sign);
        if let Some(subject) = subject {
            self.refresh(subject, journals);
        }
        subject.into_iter().collect()
    }

    /// Whether its customer pays in cash instead.
    pub(super) fn is_paid_in_cash(&self, intent: RecordId, journals: &Journals) -> bool {
        self.paid_in_cash(intent, journals).is_some()
    }

    /// The wish by which its customer pays in cash instead.
    fn paid_in_cash(&self, intent: RecordId, journals: &Journals) -> Option<GivenUp> {
        let row = self.intents.get(&intent).filter(|row| row.state == IntentState::Void)?;
        let wish = self.notes.given_up(intent, &self.way(intent, row, journals))?;
        (wish.granted == Some(true) && wish.instead == Instead::Cash).then_some(wish)
    }

    /// Intents that are paid in cash at a device, which has not said yet that it has the cash.
    pub(super) fn cash_due(&self, device: DeviceId, journals: &Journals) -> Vec<RecordId> {
        let here = |intent: &RecordId| {
            self.paid_in_cash(*intent, journals)
                .is_some_and(|wish| self.notes.asked_by(*intent, wish.request) == Some(device))
        };
        self.cash_due.iter().copied().filter(here).collect()
    }

    pub(super) fn is_cash_taken(&self, intent: RecordId) -> bool {
        self.cash_taken.range((intent, Key::FIRST)..).next().is_some_and(|(of, _)| *of == intent)
    }

    /// What owners said about whose intents are, the earliest first.
    pub(super) fn moves(&self) -> Vec<(RecordId, Key, LedgerMoved)> {
        let mut moves: Vec<_> = self.ways.moves().map(|(id, key, moved)| (id, key, moved.clone())).collect();
        moves.sort_by_key(|(_, key, _)| *key);
        moves
    }

    /// How many intents went over by an owner's word.
    pub(super) fn moved_by(&self, moved: RecordId) -> usize {
        self.ways.released_for(moved).len()
    }

    /// A sale was voided, for good: gives its intents.
    pub(super) fn sale_voided(&mut self, sale: RecordId, journals: &Journals) -> Vec<RecordId> {
        let mut intents = Vec::new();
        for tender in 0..u32::try_from(TENDERS_MAX).unwrap_or_default() {
            let id = tender_intent(sale, tender);
            if let Some(row) = self.intents.get_mut(&id).filter(|row| row.tender != NO_TENDER) {
                row.voided = true;
                intents.push(id);
            }
        }
        for id in &intents {
            self.refresh(*id, journals);
        }
        intents
    }

    pub(super) fn state(&self, intent: RecordId) -> Option<IntentState> {
        self.intents.get(&intent).map(|row| row.state)
    }

    pub(super) fn is_paid_twice(&self, intent: RecordId) -> bool {
        self.paid_twice.contains(&intent)
    }

    pub(super) fn is_voided_and_paid(&self, intent: RecordId) -> bool {
        self.voided_and_paid.contains(&intent)
    }

    /// The intent and those that claim the same receipts.
    pub(super) fn entangled(&self, intent: RecordId) -> BTreeSet<RecordId> {
        self.receipts.entangled(intent)
    }

    /// The intents that a receipt is claimed for.
    pub(super) fn claimed_for(&self, receipt: RecordId) -> Vec<RecordId> {
        self.receipts.claimed_for(receipt)
    }

    pub(super) fn open(&self) -> &OpenIntents {
        &self.open
    }

    pub(super) fn sums(&self) -> &BTreeMap<(IntentState, Currency), PaymentSum> {
        self.open.sums()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.intents.keys().copied()
    }

    pub(super) fn payment(&self, intent: RecordId, journals: &Journals) -> Option<Payment> {
        let row = self.intents.get(&intent)?;
        let way = self.way(intent, row, journals);
        let receipts = self.receipts.of(intent).flat_map(|receipt| {
            let winner = self.winner(receipt, journals).filter(|(_, pays)| *pays == intent).map(|(key, _)| key);
            let revoked = self.notes.is_revoked(intent, receipt, &way);
            self.receipts.described(receipt, intent, winner, revoked, journals)
        });
        let mut receipts: Vec<ReceiptClaim> = receipts.collect();
        receipts.sort_by_key(|claim| (claim.record, claim.time, claim.place, claim.index));
        let declines = by(&self.declines, intent).filter(|(_, (device, _, _))| way.hears(*device));
        Some(Payment {
            intent,
            sale: (row.tender != NO_TENDER).then_some((row.sale, u32::from(row.tender))),
            amount: Money::new(row.amount_minor, row.currency),
            provider: self.providers.value(row.provider)?.clone(),
            ledger: way.last(),
            device: journals.device(row.journal)?,
            place: Place { journal: journals.id(row.journal)?, seq: row.seq },
            time: row.time,
            branch: row.branch,
            confirmed: self.last_confirmed(intent).map(|key| key.time),
            state: row.state,
            voided: row.voided,
            receipts,
            declines: declines
                .map(|((_, key), (_, attempt, code))| Declined {
                    attempt: *attempt,
                    code: code.clone(),
                    time: key.time,
                })
                .collect(),
            reviews: self.notes.reviews(intent, &way),
            retries: self.notes.retries(intent),
            given_up: self.notes.given_up(intent, &way),
            codes: self.notes.codes(intent),
            progress: self.notes.progress(intent, &way),
            earlier_attempts: way.attempts,
            moving: way.moving,
            voices: way.voices(),
        })
    }

    /// Works out an intent's state again, and that of intents which claim the same receipts.
    fn refresh(&mut self, intent: RecordId, journals: &Journals) {
        for id in self.entangled(intent) {
            self.refresh_one(id, journals);
        }
    }

    fn refresh_one(&mut self, id: RecordId, journals: &Journals) {
        let Some(row) = self.intents.get(&id) else {
            self.paid_twice.remove(&id);
            self.voided_and_paid.remove(&id);
            self.cash_due.remove(&id);
            return;
        };
        let way = self.way(id, row, journals);
        let accepted: Vec<Money> = self.accepted(id, &way, journals).collect();
        let (receipts, voided) = (accepted.len(), row.voided);
        let exact = accepted.contains(&Money::new(row.amount_minor, row.currency));
        let agreed = self.notes.agreed(id).map(|(_, settlement)| settlement);
        let given_up = self.notes.given_up(id, &way).is_some_and(|wish| wish.granted == Some(true));
        // A customer who got the money back is not asked for it again.
        let taken_back = self.receipts.of(id).any(|receipt| self.notes.is_revoked(id, receipt, &way));
        let state = match (receipts, exact) {
            _ if self.notes.in_review(id, &way) => IntentState::Review,
            (_, true) => IntentState::Paid,
            (1.., false) if agreed == Some(Settlement::AsBooked) => IntentState::Paid,
            (1.., false) => IntentState::Review,
            (0, false) if agreed == Some(Settlement::NotPaid) || given_up || taken_back => IntentState::Void,
            (0, false) if voided => IntentState::Void,
            (0, false) if row.branch => IntentState::Review,
            (0, false) if self.is_declined(id, &way) => IntentState::Declined,
            (0, false) => IntentState::Open,
        };
        set(&mut self.paid_twice, id, receipts > 1);
        set(&mut self.voided_and_paid, id, receipts > 0 && voided);
        if state != row.state {
            self.unlist(id, journals);
            if let Some(row) = self.intents.get_mut(&id) {
                row.state = state;
            }
            self.enlist(id, journals);
        }
        let due = !self.is_cash_taken(id) && given_up && self.is_paid_in_cash(id, journals);
        set(&mut self.cash_due, id, due);
    }

    /// What each receipt that pays this intent is over.
    fn accepted<'a>(
        &'a self,
        intent: RecordId,
        way: &'a Way,
        journals: &'a Journals,
    ) -> impl Iterator<Item = Money> + 'a {
        self.receipts.of(intent).filter_map(move |receipt| {
            let (key, _) = self.winner(receipt, journals).filter(|(_, pays)| *pays == intent)?;
            let amount = self.receipts.amount_of(receipt, intent, key, journals);
            amount.filter(|_| !self.notes.is_revoked(intent, receipt, way))
        })
    }

    /// The smallest claim of a receipt that comes from a ledger of its intent.
    fn winner(&self, receipt: RecordId, journals: &Journals) -> Option<(Key, RecordId)> {
        self.receipts.smallest(receipt, journals, |intent, author| {
            self.intents.get(&intent).is_some_and(|row| self.way(intent, row, journals).hears(author))
        })
    }

    /// Declined, and no cashier asked again since.
    fn is_declined(&self, id: RecordId, way: &Way) -> bool {
        let declined = by(&self.declines, id).filter(|(_, (device, _, _))| way.hears(*device));
        let last = declined.map(|((_, key), _)| *key).next_back();
        last.is_some() && last > self.last_confirmed(id).max(self.notes.last_retry(id))
    }

    fn last_confirmed(&self, intent: RecordId) -> Option<Key> {
        let all = self.confirmed.range((intent, Key::FIRST)..).take_while(|(other, _)| *other == intent);
        all.last().map(|(_, key)| *key)
    }

    /// From the ledger that the intent names, or else the first one its own device named later.
    fn way(&self, id: RecordId, row: &Row, journals: &Journals) -> Way {
        let first = match row.ledger {
            Some(number) => self.ledgers.value(number).copied(),
            None => self.ways.addressed(id, journals.device(row.journal)),
        };
        self.ways.way(id, first)
    }

    fn enlist(&mut self, id: RecordId, journals: &Journals) {
        if let Some(listing) = self.listing(id, journals) {
            self.open.enlist(&listing);
        }
    }

    fn unlist(&mut self, id: RecordId, journals: &Journals) {
        if let Some(listing) = self.listing(id, journals) {
            self.open.unlist(&listing);
        }
    }

    fn listing(&self, id: RecordId, journals: &Journals) -> Option<Listing> {
        let row = self.intents.get(&id)?;
        Some(Listing {
            id,
            time: row.time,
            state: row.state,
            amount: Money::new(row.amount_minor, row.currency),
            ledger: self.way(id, row, journals).last(),
            device: journals.device(row.journal),
        })
    }
}

fn set(ids: &mut BTreeSet<RecordId>, id: RecordId, present: bool) {
    if present {
        ids.insert(id);
    } else {
        ids.remove(&id);
    }
}
