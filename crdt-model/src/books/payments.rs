//! Payments: what became of each intent, as a pure function of the facts about it.
//!
//! Every claim that a receipt makes is kept, whoever wrote it; it is *accepted* only from the
//! intent's ledger, and of the accepted claims of one receipt number the smallest counts.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::names::{Journals, Numbered};
use super::payment_notes::{GivenUp, Notes, Reviewed};
use super::placed::{Key, Placed};
use super::tally::{Sign, sum};
use crate::entry::Place;
use crate::ids::{DeviceId, RecordId};
use crate::money::{Currency, Money};
use crate::payment::Shown;
use crate::record::{
    Decline, Evidence, Instead, Intent, IntentAddressed, Ledger, PaymentFact, Receipt, Settlement, Stage, TENDERS_MAX,
};
use crate::time::{Hlc, Timestamp};

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IntentState {
    /// Neither paid nor refused.
    #[n(0)]
    Open,
    /// Its ledger wrote a receipt for the exact amount.
    #[n(1)]
    Paid,
    /// The latest word is its ledger's decline.
    #[n(2)]
    Declined,
    /// Its sale was voided, and nothing was paid.
    #[n(3)]
    Void,
    /// A person must decide: another amount arrived, or it was made above a fork.
    #[n(4)]
    Review,
}

/// Everything that is known of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The intent.
    pub intent: RecordId,
    /// The sale and the index of its tender that this pays.
    pub sale: Option<(RecordId, u32)>,
    /// How much.
    pub amount: Money,
    /// The provider, such as `mpesa`.
    pub provider: String,
    /// Who pushes it, once known.
    pub ledger: Option<Ledger>,
    /// The device that promised.
    pub device: DeviceId,
    /// Its entry.
    pub place: Place,
    /// When it was made.
    pub time: Hlc,
    /// Made above a fork: must not be pushed.
    pub branch: bool,
    /// When a cashier last said that the customer is there.
    pub confirmed: Option<Hlc>,
    /// What became of it.
    pub state: IntentState,
    /// Its sale was voided.
    pub voided: bool,
    /// What receipts claim, in the order of their ids, each number's earliest claim first.
    pub receipts: Vec<ReceiptClaim>,
    /// Its ledger's declines, the earliest first.
    pub declines: Vec<Declined>,
    /// Why people must, or had to, look at it.
    pub reviews: Vec<Reviewed>,
    /// How often another attempt was asked for: after which attempt, and when.
    pub retries: Vec<(u32, Hlc)>,
    /// Whether it was to be given up.
    pub given_up: Option<GivenUp>,
    /// Receipt numbers that customers showed for it.
    pub codes: Vec<String>,
    /// How far its latest attempt has come, as its ledger said.
    pub progress: Option<(u32, Stage)>,
}

impl Payment {
    /// How it stands, as a till shows it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let declined = self.declines.iter().map(|decline| decline.attempt).max().unwrap_or(0);
        let stage = self.progress.filter(|(attempt, _)| *attempt > declined).map(|(_, stage)| stage);
        match (self.state, stage) {
            (IntentState::Paid, _) => Shown::Paid,
            (IntentState::Declined, _) => Shown::Failed,
            (IntentState::Void, _) => Shown::GivenUp,
            (IntentState::Review, _) => Shown::InReview,
            (IntentState::Open, None) => Shown::Pending,
            (IntentState::Open, Some(Stage::Asked)) => Shown::Asked,
            (IntentState::Open, Some(Stage::Unknown)) => Shown::Unknown,
        }
    }
}

/// A receipt's claim that an intent was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptClaim {
    /// The receipt's record.
    pub record: RecordId,
    /// The provider's receipt number.
    pub number: String,
    /// How much arrived.
    pub amount: Money,
    /// When.
    pub paid_at: Timestamp,
    /// How its author knows.
    pub evidence: Evidence,
    /// No real money: the simulator's.
    pub test: bool,
    /// Who wrote it.
    pub device: DeviceId,
    /// Its entry.
    pub place: Place,
    /// The index of the fact in it.
    pub index: u32,
    /// When that entry was made.
    pub time: Hlc,
    /// Its author is the intent's ledger, and the number pays no other intent.
    pub accepted: bool,
    /// Its ledger took it back.
    pub revoked: bool,
}

/// A ledger's word that an attempt was not paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The provider's code.
    pub code: String,
    /// When it was recorded.
    pub time: Hlc,
}

/// How many intents there are in a state, and how much they ask for in a currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct PaymentSum {
    /// How many.
    #[n(0)]
    pub intents: u64,
    /// How much, in minor units.
    #[cbor(n(1), with = "sum")]
    pub amount_minor: i128,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Payments {
    #[n(0)]
    ledgers: Numbered<Ledger>,
    #[n(1)]
    providers: Numbered<String>,
    #[n(2)]
    devices: Numbered<DeviceId>,
    #[n(3)]
    intents: BTreeMap<RecordId, Row>,
    /// By receipt, intent and author.
    #[n(4)]
    claims: BTreeMap<(RecordId, RecordId, u32), Claim>,
    /// By intent: its receipts.
    #[n(5)]
    receipts: BTreeSet<(RecordId, RecordId)>,
    #[n(6)]
    addressed: BTreeMap<(RecordId, Key), (DeviceId, Ledger)>,
    #[n(7)]
    confirmed: BTreeSet<(RecordId, Key)>,
    #[n(8)]
    declines: BTreeMap<(RecordId, Key), (DeviceId, u32, String)>,
    /// Open intents of each ledger, the oldest first.
    #[n(9)]
    open: BTreeMap<Ledger, BTreeSet<(Hlc, RecordId)>>,
    /// Open intents of each device that have no ledger yet.
    #[n(10)]
    unaddressed: BTreeMap<DeviceId, BTreeSet<(Hlc, RecordId)>>,
    #[n(11)]
    open_by_device: BTreeMap<DeviceId, u64>,
    #[n(12)]
    sums: BTreeMap<(IntentState, Currency), PaymentSum>,
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

#[derive(Debug, Clone, Encode, Decode)]
struct Claim {
    #[n(0)]
    number: Box<str>,
    #[n(1)]
    time: Hlc,
    #[n(2)]
    seq: u64,
    #[n(3)]
    amount_minor: i64,
    #[n(4)]
    paid_at: Timestamp,
    #[n(5)]
    journal: u32,
    #[n(6)]
    index: u32,
    #[n(7)]
    currency: Currency,
    #[n(8)]
    evidence: Evidence,
    #[n(9)]
    test: bool,
}

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
        let claim = Claim {
            number: receipt.number.as_str().into(),
            time: placed.time,
            seq: placed.place.seq,
            amount_minor: receipt.amount.minor,
            paid_at: receipt.paid_at,
            journal: journals.number(placed.place.journal, placed.device),
            index: placed.index,
            currency: receipt.amount.currency,
            evidence: receipt.evidence,
            test: receipt.test,
        };
        let key = claim.key(journals);
        let at = (placed.id, receipt.intent, self.devices.number(&placed.device));
        if self.claims.get(&at).is_some_and(|known| known.key(journals) <= key) {
            return;
        }
        self.claims.insert(at, claim);
        self.receipts.insert((receipt.intent, placed.id));
        self.refresh(receipt.intent, journals);
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
        let at = (addressed.intent, placed.key());
        self.unlist(addressed.intent, journals);
        match sign {
            Sign::Count => drop(self.addressed.insert(at, (placed.device, addressed.ledger))),
            Sign::TakeBack => drop(self.addressed.remove(&at)),
        }
        self.enlist(addressed.intent, journals);
        self.refresh(addressed.intent, journals);
    }

    pub(super) fn confirmed(&mut self, placed: &Placed<'_>, intent: RecordId, sign: Sign, journals: &Journals) {
        match sign {
            Sign::Count => self.confirmed.insert((intent, placed.key())),
            Sign::TakeBack => self.confirmed.remove(&(intent, placed.key())),
        };
        self.refresh(intent, journals);
    }

    /// Counts what else is said about payments, or takes it back. Gives the intent it bears on.
    pub(super) fn note(
        &mut self,
        placed: &Placed<'_>,
        fact: &PaymentFact,
        sign: Sign,
        journals: &Journals,
    ) -> Option<RecordId> {
        let subject = self.notes.fold(placed, fact, sign)?;
        self.refresh(subject, journals);
        Some(subject)
    }

    /// Whether its customer pays in cash instead.
    pub(super) fn is_paid_in_cash(&self, intent: RecordId, journals: &Journals) -> bool {
        let Some(row) = self.intents.get(&intent) else { return false };
        let ledger = self.ledger(intent, row, journals).map(|ledger| ledger.relay);
        let given_up = self.notes.given_up(intent, ledger);
        row.state == IntentState::Void
            && given_up.is_some_and(|wish| wish.granted == Some(true) && wish.instead == Instead::Cash)
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
        let mut intents = BTreeSet::from([intent]);
        for receipt in self.receipts_of(intent) {
            intents.extend(self.claimed_for(receipt));
        }
        intents
    }

    /// The intents that a receipt is claimed for.
    pub(super) fn claimed_for(&self, receipt: RecordId) -> Vec<RecordId> {
        let mut intents: Vec<RecordId> = self.claims_of(receipt).map(|((_, intent, _), _)| *intent).collect();
        intents.dedup();
        intents
    }

    pub(super) fn open_for(&self, ledger: &Ledger) -> impl Iterator<Item = RecordId> + '_ {
        self.open.get(ledger).into_iter().flatten().map(|(_, id)| *id)
    }

    pub(super) fn unaddressed(&self, device: DeviceId) -> impl Iterator<Item = RecordId> + '_ {
        self.unaddressed.get(&device).into_iter().flatten().map(|(_, id)| *id)
    }

    pub(super) fn has_open(&self, device: DeviceId) -> bool {
        self.open_by_device.contains_key(&device)
    }

    pub(super) fn sums(&self) -> &BTreeMap<(IntentState, Currency), PaymentSum> {
        &self.sums
    }

    pub(super) fn all(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.intents.keys().copied()
    }

    pub(super) fn payment(&self, intent: RecordId, journals: &Journals) -> Option<Payment> {
        let row = self.intents.get(&intent)?;
        let ledger = self.ledger(intent, row, journals);
        let receipts = self.receipts_of(intent).flat_map(|receipt| {
            let winner = self.winner(receipt, journals);
            let claims = self.claims.range((receipt, intent, 0)..=(receipt, intent, u32::MAX));
            claims.filter_map(move |((_, _, device), claim)| {
                let revoked = self.notes.is_revoked(intent, receipt, ledger.map(|ledger| ledger.relay));
                let accepted = winner == Some((claim.key(journals)?, intent)) && !revoked;
                claim.describe(receipt, *self.devices.value(*device)?, accepted, revoked, journals)
            })
        });
        let mut receipts: Vec<ReceiptClaim> = receipts.collect();
        receipts.sort_by_key(|claim| (claim.record, claim.time, claim.place, claim.index));
        let declines = range(&self.declines, intent).filter(|(_, (device, _, _))| by_ledger(ledger, *device));
        Some(Payment {
            intent,
            sale: (row.tender != NO_TENDER).then_some((row.sale, u32::from(row.tender))),
            amount: Money::new(row.amount_minor, row.currency),
            provider: self.providers.value(row.provider)?.clone(),
            ledger,
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
            reviews: self.notes.reviews(intent, ledger.map(|ledger| ledger.relay)),
            retries: self.notes.retries(intent),
            given_up: self.notes.given_up(intent, ledger.map(|ledger| ledger.relay)),
            codes: self.notes.codes(intent),
            progress: self.notes.progress(intent, ledger.map(|ledger| ledger.relay)),
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
            return;
        };
        let accepted: Vec<&Claim> = self.accepted(id, journals).collect();
        let (receipts, voided) = (accepted.len(), row.voided);
        let exact =
            accepted.iter().any(|claim| (claim.amount_minor, claim.currency) == (row.amount_minor, row.currency));
        let ledger = self.ledger(id, row, journals).map(|ledger| ledger.relay);
        let agreed = self.notes.agreed(id).map(|(_, settlement)| settlement);
        let given_up = self.notes.given_up(id, ledger).is_some_and(|wish| wish.granted == Some(true));
        let state = match (receipts, exact) {
            _ if self.notes.in_review(id, ledger) => IntentState::Review,
            (_, true) => IntentState::Paid,
            (1.., false) if agreed == Some(Settlement::AsBooked) => IntentState::Paid,
            (1.., false) => IntentState::Review,
            (0, false) if agreed == Some(Settlement::NotPaid) || given_up => IntentState::Void,
            (0, false) if voided => IntentState::Void,
            (0, false) if row.branch => IntentState::Review,
            (0, false) if self.is_declined(id, row, journals) => IntentState::Declined,
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
    }

    /// One claim for each receipt that pays this intent.
    fn accepted<'a>(&'a self, intent: RecordId, journals: &'a Journals) -> impl Iterator<Item = &'a Claim> + 'a {
        self.receipts_of(intent).filter_map(move |receipt| {
            let (key, winner) = self.winner(receipt, journals)?;
            let claims = self.claims.range((receipt, intent, 0)..=(receipt, intent, u32::MAX));
            let mut claims = claims.filter(|(_, claim)| claim.key(journals) == Some(key));
            let row = self.intents.get(&intent)?;
            let ledger = self.ledger(intent, row, journals).map(|ledger| ledger.relay);
            let counts = winner == intent && !self.notes.is_revoked(intent, receipt, ledger);
            claims.next().map(|(_, claim)| claim).filter(|_| counts)
        })
    }

    /// The smallest claim of a receipt that comes from its intent's ledger.
    fn winner(&self, receipt: RecordId, journals: &Journals) -> Option<(Key, RecordId)> {
        let claims = self.claims_of(receipt).filter_map(|((_, intent, device), claim)| {
            let row = self.intents.get(intent)?;
            let author = *self.devices.value(*device)?;
            by_ledger(self.ledger(*intent, row, journals), author).then_some((claim.key(journals)?, *intent))
        });
        claims.min()
    }

    fn claims_of(&self, receipt: RecordId) -> impl Iterator<Item = (&(RecordId, RecordId, u32), &Claim)> {
        self.claims.range((receipt, LOWEST, 0)..).take_while(move |((other, _, _), _)| *other == receipt)
    }

    fn receipts_of(&self, intent: RecordId) -> impl Iterator<Item = RecordId> + '_ {
        let all = self.receipts.range((intent, LOWEST)..).take_while(move |(other, _)| *other == intent);
        all.map(|(_, receipt)| *receipt)
    }

    /// Declined, and no cashier asked again since.
    fn is_declined(&self, id: RecordId, row: &Row, journals: &Journals) -> bool {
        let ledger = self.ledger(id, row, journals);
        let declined = range(&self.declines, id).filter(|(_, (device, _, _))| by_ledger(ledger, *device));
        let last = declined.map(|((_, key), _)| *key).last();
        last.is_some() && last > self.last_confirmed(id).max(self.notes.last_retry(id))
    }

    fn last_confirmed(&self, intent: RecordId) -> Option<Key> {
        let all = self.confirmed.range((intent, KEY_LOWEST)..).take_while(|(other, _)| *other == intent);
        all.last().map(|(_, key)| *key)
    }

    /// The ledger that the intent names, or else the first one its own device named later.
    fn ledger(&self, id: RecordId, row: &Row, journals: &Journals) -> Option<Ledger> {
        if let Some(number) = row.ledger {
            return self.ledgers.value(number).copied();
        }
        let author = journals.device(row.journal);
        range(&self.addressed, id).find(|(_, (device, _))| Some(*device) == author).map(|(_, (_, ledger))| *ledger)
    }

    fn enlist(&mut self, id: RecordId, journals: &Journals) {
        let Some(row) = self.intents.get(&id) else {
            return;
        };
        let (time, state, currency, amount) = (row.time, row.state, row.currency, row.amount_minor);
        let ledger = self.ledger(id, row, journals);
        let device = journals.device(row.journal);
        let sum = self.sums.entry((state, currency)).or_default();
        sum.intents += 1;
        sum.amount_minor += i128::from(amount);
        let (Some(device), IntentState::Open) = (device, state) else {
            return;
        };
        *self.open_by_device.entry(device).or_default() += 1;
        match ledger {
            Some(ledger) => self.open.entry(ledger).or_default().insert((time, id)),
            None => self.unaddressed.entry(device).or_default().insert((time, id)),
        };
    }

    fn unlist(&mut self, id: RecordId, journals: &Journals) {
        let Some(row) = self.intents.get(&id) else {
            return;
        };
        let (time, state, currency, amount) = (row.time, row.state, row.currency, row.amount_minor);
        let ledger = self.ledger(id, row, journals);
        let device = journals.device(row.journal);
        if let Some(sum) = self.sums.get_mut(&(state, currency)) {
            sum.intents -= 1;
            sum.amount_minor -= i128::from(amount);
            if sum.intents == 0 {
                self.sums.remove(&(state, currency));
            }
        }
        let (Some(device), IntentState::Open) = (device, state) else {
            return;
        };
        if let Some(open) = self.open_by_device.get_mut(&device) {
            *open -= 1;
            if *open == 0 {
                self.open_by_device.remove(&device);
            }
        }
        match ledger {
            Some(ledger) => remove(&mut self.open, ledger, (time, id)),
            None => remove(&mut self.unaddressed, device, (time, id)),
        }
    }
}

impl Claim {
    fn key(&self, journals: &Journals) -> Option<Key> {
        Some(Key { time: self.time, journal: journals.id(self.journal)?, seq: self.seq, index: self.index })
    }

    fn describe(
        &self,
        record: RecordId,
        device: DeviceId,
        accepted: bool,
        revoked: bool,
        journals: &Journals,
    ) -> Option<ReceiptClaim> {
        Some(ReceiptClaim {
            record,
            number: self.number.to_string(),
            amount: Money::new(self.amount_minor, self.currency),
            paid_at: self.paid_at,
            evidence: self.evidence,
            test: self.test,
            device,
            place: self.key(journals)?.place(),
            index: self.index,
            time: self.time,
            accepted,
            revoked,
        })
    }
}

const LOWEST: RecordId = RecordId(uuid::Uuid::nil());
const KEY_LOWEST: Key = Key { time: Hlc(0), journal: crate::ids::JournalId([0; 16]), seq: 0, index: 0 };

fn by_ledger(ledger: Option<Ledger>, device: DeviceId) -> bool {
    ledger.is_some_and(|ledger| ledger.relay == device)
}

fn range<T>(map: &BTreeMap<(RecordId, Key), T>, intent: RecordId) -> impl Iterator<Item = (&(RecordId, Key), &T)> {
    map.range((intent, KEY_LOWEST)..).take_while(move |((other, _), _)| *other == intent)
}

fn set(ids: &mut BTreeSet<RecordId>, id: RecordId, present: bool) {
    if present {
        ids.insert(id);
    } else {
        ids.remove(&id);
    }
}

fn remove<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: K, item: T) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&item);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}
