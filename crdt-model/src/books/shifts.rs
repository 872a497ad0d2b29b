//! Shifts and their Z reports.
//!
//! A shift's report covers what its till recorded from the opening to the close: the entries
//! of the opening's journal from the opening on, up to the close, or else to the journal's
//! next opening, or else all; if the same till closed it in a later journal (a new epoch),
//! also that journal's entries up to the close. A shift that is handed over has such a stretch
//! at each till: from the opening, or the till's own acceptance or withdrawal, to its offer. The close comes after all of these in its own
//! journal, so they are in the frontier that it names. The *addendum* of a closed shift holds
//! the voids and refunds of its sales that are recorded elsewhere and are not in that
//! frontier: they change what the report said of those sales, but not the drawer of this till.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::handoffs::{Handoffs, Turn, Way};
use super::names::Journals;
use super::placed::{Key, Placed};
use super::records::Records;
use super::slips::Slips;
use super::tally::{Sheet, Sign, Tally, tally_of};
use crate::entry::Place;
use crate::ids::{DeviceId, JournalId, RecordId};
use crate::money::{Currency, Money};
use crate::record::{Fact, Kind};
use crate::time::Hlc;

/// What a till did in one shift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZReport {
    /// The shift: the record id of its opening.
    pub shift: RecordId,
    /// The till.
    pub device: DeviceId,
    /// When it was opened.
    pub opened: Hlc,
    /// The entry that opened it.
    pub opened_at: Place,
    /// What was in the drawer.
    pub opening_float: Money,
    /// How it was closed.
    pub closing: Option<Closing>,
    /// The till's own facts of the shift.
    pub totals: Sheet,
    /// What should be in the drawer, in the float's currency: the float and the cash taken,
    /// less the cash given out.
    pub cash_expected_minor: i128,
    /// What was counted less what should be there; negative if money is missing. `None`
    /// until the shift is closed, or if it was counted in another currency.
    pub difference_minor: Option<i128>,
    /// Voids and refunds of the shift's sales that the close did not know of.
    pub addendum: Sheet,
    /// The till that has it, or closed it.
    pub holder: DeviceId,
    /// The handoff by which it is frozen there.
    pub frozen_by: Option<RecordId>,
    /// The handoffs by which it came there, the first one first.
    pub handoffs: Vec<RecordId>,
}

/// How a shift was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// The close's record.
    pub record: RecordId,
    /// Its entry.
    pub place: Place,
    /// When.
    pub time: Hlc,
    /// What was in the drawer.
    pub counted: Money,
    /// What the till expected there.
    pub expected_minor: i64,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Shifts {
    #[n(0)]
    opened: BTreeMap<RecordId, Opened>,
    #[n(1)]
    closed: BTreeMap<RecordId, Closed>,
    #[n(2)]
    by_device: BTreeMap<DeviceId, BTreeSet<(Key, RecordId)>>,
    #[n(3)]
    openings: BTreeMap<JournalId, BTreeSet<(u64, RecordId)>>,
    #[n(4)]
    slips: BTreeMap<JournalId, Slips>,
    /// Voids, and refunds that name their sale.
    #[n(5)]
    amendments: BTreeMap<RecordId, Amendment>,
    /// Shifts that nobody has closed.
    #[n(6)]
    unclosed: BTreeSet<RecordId>,
    /// By sale: its voids and refunds.
    #[n(7)]
    amended: BTreeSet<(RecordId, RecordId)>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Opened {
    #[n(0)]
    key: Key,
    #[n(1)]
    device: DeviceId,
    #[n(2)]
    opening_float: Money,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Closed {
    #[n(0)]
    record: RecordId,
    #[n(1)]
    key: Key,
    #[n(2)]
    device: DeviceId,
    #[n(3)]
    counted: Money,
    #[n(4)]
    expected_minor: i64,
    #[n(5)]
    seen: Vec<(JournalId, u64)>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Amendment {
    #[n(0)]
    sale: RecordId,
    #[n(1)]
    place: Place,
    #[n(2)]
    currency: Currency,
    /// The tally as CBOR, a tenth of its size in memory.
    #[cbor(n(3), with = "minicbor::bytes")]
    tally: Vec<u8>,
}

/// Entries of one journal, both ends included.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    journal: JournalId,
    first: u64,
    last: u64,
}

impl Shifts {
    /// Adds what a fact brought to its journal's totals.
    pub(super) fn slip(&mut self, place: Place, currency: Currency, tally: &Tally, sign: Sign) {
        self.slips.entry(place.journal).or_default().add(place.seq, currency, tally, sign);
    }

    pub(super) fn fold(&mut self, placed: &Placed<'_>, sign: Sign) {
        match placed.fact {
            Fact::ShiftOpened(opened) => {
                let (key, device) = (placed.key(), placed.device);
                let by_device = self.by_device.entry(device).or_default();
                let openings = self.openings.entry(key.journal).or_default();
                match sign {
                    Sign::Count => {
                        by_device.insert((key, placed.id));
                        openings.insert((key.seq, placed.id));
                        let opening_float = opened.opening_float;
                        self.opened.insert(placed.id, Opened { key, device, opening_float });
                        if !self.closed.contains_key(&placed.id) {
                            self.unclosed.insert(placed.id);
                        }
                    }
                    Sign::TakeBack => {
                        by_device.remove(&(key, placed.id));
                        openings.remove(&(key.seq, placed.id));
                        self.opened.remove(&placed.id);
                        self.unclosed.remove(&placed.id);
                    }
                }
            }
            Fact::ShiftClosed(closed) => {
                if sign == Sign::TakeBack {
                    self.closed.remove(&closed.shift);
                    if self.opened.contains_key(&closed.shift) {
                        self.unclosed.insert(closed.shift);
                    }
                    return;
                }
                let row = Closed {
                    record: placed.id,
                    key: placed.key(),
                    device: placed.device,
                    counted: closed.counted,
                    expected_minor: closed.expected_minor,
                    seen: closed.seen.clone(),
                };
                self.closed.insert(closed.shift, row);
                self.unclosed.remove(&closed.shift);
            }
            Fact::Void(void) => self.amend(placed, void.sale, sign),
            Fact::Refund(refund) => {
                if let Some(sale) = refund.sale {
                    self.amend(placed, sale, sign);
                }
            }
            Fact::Sale(_)
            | Fact::Expense(_)
            | Fact::FinancialRecord(_)
            | Fact::StockMovement(_)
            | Fact::StockCount(_)
            | Fact::Intent(_)
            | Fact::Receipt(_)
            | Fact::Decline(_)
            | Fact::Custom(_)
            | Fact::Enrolment(_)
            | Fact::IntentAddressed(_)
            | Fact::IntentConfirmed(_)
            | Fact::Payment(_)
            | Fact::Resolution(_)
            | Fact::HandoffOffered(_)
            | Fact::HandoffAccepted(_)
            | Fact::HandoffTransferred(_)
            | Fact::HandoffWithdrawn(_)
            | Fact::HandoffDecided(_)
            | Fact::Upstream(_) => {}
        }
    }

    /// The shift that a till came to last, of those that it has and that are neither closed
    /// nor frozen.
    pub(super) fn current(&self, device: DeviceId, handoffs: &Handoffs) -> Option<RecordId> {
        let held = self.unclosed.iter().filter_map(|shift| {
            let way = self.way(*shift, handoffs)?;
            let turn = way.turns.last().filter(|turn| turn.ended.is_none() && turn.device == device)?;
            Some((turn.begun, *shift))
        });
        held.max().map(|(_, shift)| shift)
    }

    pub(super) fn is_closed(&self, shift: RecordId) -> bool {
        self.closed.contains_key(&shift)
    }

    pub(super) fn way(&self, shift: RecordId, handoffs: &Handoffs) -> Option<Way> {
        let opened = self.opened.get(&shift)?;
        Some(handoffs.way(shift, opened.device, opened.key))
    }

    /// What voids and refunds took back of a sale.
    pub(super) fn taken_back(&self, sale: RecordId) -> impl Iterator<Item = (Currency, Tally)> + '_ {
        self.amendments_of(sale).filter_map(|id| {
            let amendment = self.amendments.get(&id)?;
            Some((amendment.currency, minicbor::decode(&amendment.tally).ok()?))
        })
    }

    pub(super) fn amendments_of(&self, sale: RecordId) -> impl Iterator<Item = RecordId> + '_ {
        let of_sale = self.amended.range((sale, RecordId(uuid::Uuid::nil()))..);
        of_sale.take_while(move |(of, _)| *of == sale).map(|(_, id)| *id)
    }

    /// The till's shifts, the latest first.
    pub(super) fn of_device(&self, device: DeviceId) -> impl Iterator<Item = RecordId> + '_ {
        self.by_device.get(&device).into_iter().flatten().rev().map(|(_, shift)| *shift)
    }

    pub(super) fn report(
        &self,
        shift: RecordId,
        records: &Records,
        journals: &Journals,
        handoffs: &Handoffs,
    ) -> Option<ZReport> {
        let opened = self.opened.get(&shift)?;
        let closed = self.closed.get(&shift);
        let way = self.way(shift, handoffs)?;
        let stretches: Vec<Stretch> = way.turns.iter().flat_map(|turn| self.stretches(turn, closed)).collect();
        let mut totals = Sheet::default();
        for stretch in stretches.iter().filter(|stretch| stretch.first <= stretch.last) {
            if let Some(slips) = self.slips.get(&stretch.journal) {
                totals.add_sheet(&slips.through(stretch.last), Sign::Count);
                totals.add_sheet(&slips.through(stretch.first.saturating_sub(1)), Sign::TakeBack);
            }
        }
        let float = opened.opening_float;
        let cash_expected_minor = i128::from(float.minor) + totals.currency(float.currency).cash_expected_minor();
        let counted = closed.map(|closed| closed.counted).filter(|money| money.currency == float.currency);
        Some(ZReport {
            shift,
            device: opened.device,
            opened: opened.key.time,
            opened_at: opened.key.place(),
            opening_float: float,
            closing: closed.map(Closed::closing),
            totals,
            cash_expected_minor,
            difference_minor: counted.map(|money| i128::from(money.minor) - cash_expected_minor),
            addendum: closed.map(|closed| self.addendum(closed, &stretches, records, journals)).unwrap_or_default(),
            holder: way.holder,
            frozen_by: way.frozen_by,
            handoffs: way.completed,
        })
    }

    fn amend(&mut self, placed: &Placed<'_>, sale: RecordId, sign: Sign) {
        if sign == Sign::TakeBack {
            self.amendments.remove(&placed.id);
            self.amended.remove(&(sale, placed.id));
            return;
        }
        self.amended.insert((sale, placed.id));
        if let Some((currency, tally)) = tally_of(placed.fact) {
            let tally = minicbor::to_vec(&tally).unwrap_or_default();
            self.amendments.insert(placed.id, Amendment { sale, place: placed.place, currency, tally });
        }
    }

    /// One till's turn: entries of one journal, or of two if it ended in a later epoch.
    fn stretches(&self, turn: &Turn, closed: Option<&Closed>) -> Vec<Stretch> {
        let (journal, first) = (turn.begun.journal, turn.begun.seq);
        let next = self.openings.get(&journal).and_then(|openings| {
            let later = openings.range((first.saturating_add(1), RecordId(uuid::Uuid::nil()))..).next();
            later.map(|(seq, _)| seq.saturating_sub(1))
        });
        let close = closed.filter(|closed| closed.key.journal == journal || closed.device == turn.device);
        let ended = turn.ended.or(close.map(|closed| closed.key));
        let last = ended.filter(|key| key.journal == journal).map(|key| key.seq).or(next).unwrap_or(u64::MAX);
        let mut stretches = vec![Stretch { journal, first, last }];
        if let Some(key) = ended.filter(|key| key.journal != journal) {
            stretches.push(Stretch { journal: key.journal, first: 0, last: key.seq });
        }
        stretches
    }

    fn addendum(&self, closed: &Closed, stretches: &[Stretch], records: &Records, journals: &Journals) -> Sheet {
        let covers = |place: Place| stretches.iter().any(|stretch| stretch.covers(place));
        let seen =
            |place: Place| closed.seen.iter().any(|(journal, seq)| *journal == place.journal && place.seq <= *seq);
        let mut sheet = Sheet::default();
        for amendment in self.amendments.values().filter(|late| !covers(late.place) && !seen(late.place)) {
            let sale = records.counted(amendment.sale, journals).filter(|sale| sale.kind == Kind::Sale);
            if sale.is_some_and(|sale| covers(sale.key.place()))
                && let Ok(tally) = minicbor::decode::<Tally>(&amendment.tally)
            {
                sheet.add(amendment.currency, &tally, Sign::Count);
            }
        }
        sheet
    }
}

impl Stretch {
    fn covers(&self, place: Place) -> bool {
        place.journal == self.journal && (self.first..=self.last).contains(&place.seq)
    }
}

impl Closed {
    fn closing(&self) -> Closing {
        Closing {
            record: self.record,
            place: self.key.place(),
            time: self.key.time,
            counted: self.counted,
            expected_minor: self.expected_minor,
        }
    }
}
