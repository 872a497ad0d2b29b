//! Stock: the latest count of a product, and the movements that are not before it.
//!
//! A movement is *before* a count if the counting device had applied it (it is in the count's
//! frontier, or earlier in the count's own journal), or else if its time is earlier; such
//! movements are reported as late, because whoever counted did not know of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use minicbor::{Decode, Encode};

use super::names::Journals;
use super::placed::{Key, Placed};
use super::tally::{Sign, sum};
use super::track::{Before, Track};
use crate::entry::Place;
use crate::ids::{JournalId, RecordId};
use crate::record::{Fact, StockCount};
use crate::time::Hlc;

/// The largest quantity that one line or movement may have to be counted: 10^12 units. What
/// is beyond is a mistake, and makes the product's stock unknown rather than wrong.
pub const QUANTITY_MILLI_MAX: u64 = 1_000_000_000_000_000;

/// What there is of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// The product.
    pub sku: String,
    /// Thousandths of a unit; negative if more was sold than was known to be there. `None`
    /// while quantities beyond [`QUANTITY_MILLI_MAX`] are recorded.
    pub on_hand_milli: Option<i64>,
    /// The count that it starts from.
    pub last_count: Option<LastCount>,
    /// How many entries with movements the counting device did not know of, although they
    /// were made before the count.
    pub late_movements: u32,
    /// Whether more went out than ever came in or was counted.
    pub oversold: bool,
}

/// A product's latest count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCount {
    /// The count's record.
    pub record: RecordId,
    /// Its entry.
    pub place: Place,
    /// When it was made.
    pub time: Hlc,
    /// Thousandths of a unit found.
    pub counted_milli: i64,
    /// Thousandths of a unit that the counting device expected.
    pub expected_milli: i64,
}

/// The latest count of an oversold product, if it has one; `None` if it is not oversold.
pub(super) type Oversold = Option<Option<RecordId>>;

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Stock {
    #[n(0)]
    products: BTreeMap<String, Product>,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
struct Product {
    #[cbor(n(0), with = "sum")]
    moved_milli: i128,
    /// The part of it before the latest count.
    #[cbor(n(1), with = "sum")]
    before_milli: i128,
    /// How many movements brought stock in.
    #[n(2)]
    received: i64,
    /// How many quantities were beyond belief.
    #[n(3)]
    unusable: i64,
    #[n(4)]
    tracks: Vec<(u32, Track)>,
    #[n(5)]
    counts: BTreeMap<Key, Count>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Count {
    #[n(0)]
    record: RecordId,
    #[n(1)]
    counted_milli: i64,
    #[n(2)]
    expected_milli: i64,
    /// By journal, each once.
    #[n(3)]
    seen: Vec<(JournalId, u64)>,
}

impl Stock {
    /// Counts a fact, or takes it back; gives the products that it touched, and whether they are
    /// oversold now.
    pub(super) fn fold<'a>(
        &mut self,
        placed: &Placed<'a>,
        sign: Sign,
        journals: &mut Journals,
    ) -> Vec<(&'a str, Oversold)> {
        let mut touched = Vec::new();
        let mut moved = |sku: &'a str, quantity_milli: i64, received: bool| {
            touched.push((sku, self.moved(placed, sign, journals, sku, quantity_milli, received)));
        };
        match placed.fact {
            Fact::Sale(sale) => {
                sale.lines.iter().for_each(|line| moved(&line.sku, line.quantity_milli.saturating_neg(), false));
            }
            Fact::Void(void) => {
                void.lines.iter().for_each(|line| moved(&line.sku, line.quantity_milli, false));
            }
            Fact::Refund(refund) => {
                refund.lines.iter().for_each(|line| moved(&line.sku, line.quantity_milli, false));
            }
            Fact::StockMovement(movement) => {
                moved(&movement.sku, movement.quantity_milli, movement.quantity_milli > 0);
            }
            Fact::StockCount(count) => {
                touched.push((&count.sku, self.counted(placed, sign, journals, count)));
            }
            Fact::Expense(_)
            | Fact::FinancialRecord(_)
            | Fact::Intent(_)
            | Fact::ShiftOpened(_)
            | Fact::ShiftClosed(_)
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
        touched
    }

    pub(super) fn level(&self, sku: &str, journals: &Journals) -> Option<StockLevel> {
        let product = self.products.get(sku).filter(|product| !product.is_unused())?;
        Some(StockLevel { sku: sku.to_owned(), ..product.level(journals) })
    }

    pub(super) fn levels<'a>(
        &'a self,
        after: Option<&str>,
        journals: &'a Journals,
    ) -> impl Iterator<Item = StockLevel> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let used = self.products.range::<str, _>((from, Bound::Unbounded)).filter(|(_, product)| !product.is_unused());
        used.map(|(sku, product)| StockLevel { sku: sku.clone(), ..product.level(journals) })
    }

    fn moved(
        &mut self,
        placed: &Placed<'_>,
        sign: Sign,
        journals: &mut Journals,
        sku: &str,
        quantity_milli: i64,
        received: bool,
    ) -> Oversold {
        let journal = journals.number(placed.place.journal, placed.device);
        let one = if sign == Sign::Count { 1 } else { -1 };
        self.change(sku, |product| {
            if quantity_milli.unsigned_abs() > QUANTITY_MILLI_MAX {
                product.unusable += one;
                return;
            }
            let quantity_milli = quantity_milli * one;
            product.received += if received { one } else { 0 };
            product.moved_milli += i128::from(quantity_milli);
            if let Some((key, count)) = product.counts.last_key_value()
                && (placed.place.seq <= count.seen_of(key, placed.place.journal) || placed.time < key.time)
            {
                product.before_milli += i128::from(quantity_milli);
            }
            product.track(journal, |track| track.add(placed.place.seq, placed.time, quantity_milli));
        })
    }

    fn counted(&mut self, placed: &Placed<'_>, sign: Sign, journals: &Journals, fact: &StockCount) -> Oversold {
        let latest = |product: &Product| product.counts.last_key_value().map(|(key, _)| *key);
        self.change(&fact.sku, |product| {
            let before = latest(product);
            match sign {
                Sign::Count => drop(product.counts.insert(placed.key(), Count::of(placed.id, fact))),
                Sign::TakeBack => drop(product.counts.remove(&placed.key())),
            }
            if latest(product) != before {
                product.before_milli = product.before(journals).sum_milli;
            }
        })
    }

    fn change(&mut self, sku: &str, change: impl FnOnce(&mut Product)) -> Oversold {
        let product = match self.products.get_mut(sku) {
            Some(product) => product,
            None => self.products.entry(sku.to_owned()).or_default(),
        };
        change(product);
        product.oversold()
    }
}

impl Product {
    fn on_hand_milli(&self) -> Option<i64> {
        let counted_milli = self.counts.last_key_value().map_or(0, |(_, count)| count.counted_milli);
        let on_hand_milli = i128::from(counted_milli) + self.moved_milli - self.before_milli;
        i64::try_from(on_hand_milli).ok().filter(|_| self.unusable == 0)
    }

    fn oversold(&self) -> Oversold {
        self.is_oversold().then(|| self.counts.last_key_value().map(|(_, count)| count.record))
    }

    fn is_oversold(&self) -> bool {
        // A shop that never records what comes in does not keep stock of this product.
        (self.received > 0 || !self.counts.is_empty()) && self.on_hand_milli().is_some_and(|milli| milli < 0)
    }

    /// Everything about it was taken back.
    fn is_unused(&self) -> bool {
        self.unusable == 0 && self.counts.is_empty() && self.tracks.iter().all(|(_, track)| track.is_empty())
    }

    fn level(&self, journals: &Journals) -> StockLevel {
        let last_count = self.counts.last_key_value().map(|(key, count)| LastCount {
            record: count.record,
            place: key.place(),
            time: key.time,
            counted_milli: count.counted_milli,
            expected_milli: count.expected_milli,
        });
        StockLevel {
            sku: String::new(),
            on_hand_milli: self.on_hand_milli(),
            last_count,
            late_movements: self.before(journals).late,
            oversold: self.is_oversold(),
        }
    }

    /// What lies before the latest count.
    fn before(&self, journals: &Journals) -> Before {
        let Some((key, count)) = self.counts.last_key_value() else {
            return Before::default();
        };
        let mut before = Before::default();
        for (journal, track) in &self.tracks {
            let seen = journals.id(*journal).map_or(0, |journal| count.seen_of(key, journal));
            let part = track.before(seen, key.time);
            before.sum_milli += part.sum_milli;
            before.late = before.late.saturating_add(part.late);
        }
        before
    }

    fn track(&mut self, journal: u32, change: impl FnOnce(&mut Track)) {
        let at = match self.tracks.iter().position(|(other, _)| *other == journal) {
            Some(at) => at,
            None => {
                self.tracks.reserve_exact(1);
                self.tracks.push((journal, Track::default()));
                self.tracks.len() - 1
            }
        };
        if let Some((_, track)) = self.tracks.get_mut(at) {
            change(track);
        }
    }
}

impl Count {
    fn of(record: RecordId, fact: &StockCount) -> Self {
        let mut seen = fact.seen.clone();
        // The largest number of a journal that is named twice.
        seen.sort_unstable_by(|left, right| right.cmp(left));
        seen.dedup_by_key(|(journal, _)| *journal);
        seen.reverse();
        seen.shrink_to_fit();
        Self { record, counted_milli: fact.counted_milli, expected_milli: fact.expected_milli, seen }
    }

    /// How far the counting device, which made the count at `key`, had applied `journal`.
    fn seen_of(&self, key: &Key, journal: JournalId) -> u64 {
        let named = self.seen.binary_search_by_key(&journal, |(journal, _)| *journal);
        let named = named.ok().and_then(|at| self.seen.get(at)).map_or(0, |(_, seq)| *seq);
        if journal == key.journal { named.max(key.seq.saturating_sub(1)) } else { named }
    }
}
