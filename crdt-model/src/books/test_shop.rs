//! A shop for tests: tills that record facts in their journals, and books that fold them.

use uuid::Uuid;

use super::{Books, Figure, Followup, Placed};
use crate::entry::Place;
use crate::ids::{BusinessId, DeviceId, JournalId, RecordId};
use crate::money::{Currency, Money};
use crate::record::{
    Evidence, Fact, Intent, Ledger, Line, Receipt, Sale, ShiftClosed, ShiftOpened, Source, StockCount, StockMovement,
    Tender, TenderKind, Void,
};
use crate::time::{Day, Hlc, Timestamp};

pub(super) const BUSINESS: BusinessId = BusinessId(Uuid::from_u128(7));
pub(super) const RELAY: DeviceId = DeviceId([9; 32]);
pub(super) const LEDGER: Ledger = Ledger { relay: RELAY, epoch: 1 };

/// A fact that was recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) place: Place,
    pub(super) index: u32,
    pub(super) time: Hlc,
    pub(super) day: Day,
    pub(super) device: DeviceId,
    pub(super) branch: bool,
    pub(super) fact: Fact,
}

impl Recorded {
    pub(super) fn id(&self) -> RecordId {
        self.fact.record_id(BUSINESS, self.place.journal, self.place.seq, self.index)
    }

    pub(super) fn placed(&self) -> Placed<'_> {
        Placed {
            place: self.place,
            index: self.index,
            id: self.id(),
            time: self.time,
            day: self.day,
            device: self.device,
            branch: self.branch,
            fact: &self.fact,
            digest: None,
        }
    }
}

/// One device and its journal. Its facts are at the given milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Till {
    pub(super) device: DeviceId,
    pub(super) journal: JournalId,
    pub(super) branch: bool,
    seq: u64,
}

impl Till {
    pub(super) fn new(device: u8, journal: u8) -> Self {
        Self { device: DeviceId([device; 32]), journal: JournalId([journal; 16]), branch: false, seq: 0 }
    }

    pub(super) fn records(&mut self, ms: u64, fact: Fact) -> Recorded {
        self.seq += 1;
        Recorded {
            place: Place { journal: self.journal, seq: self.seq },
            index: 0,
            time: Hlc::from_wall(Timestamp(ms)),
            day: Day(1),
            device: self.device,
            branch: self.branch,
            fact,
        }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }
}

/// Folds `facts` in this order and does every recount that is asked for.
pub(super) fn books_of(facts: &[&Recorded]) -> Books {
    let mut books = Books::default();
    fold_all(&mut books, facts);
    books
}

pub(super) fn fold_all(books: &mut Books, facts: &[&Recorded]) {
    for fact in facts {
        let followups = books.fold(&fact.placed());
        follow_up(books, facts, followups);
    }
}

pub(super) fn follow_up(books: &mut Books, stored: &[&Recorded], followups: Vec<Followup>) {
    for Followup::Recount { old, new } in followups {
        let wanted: Vec<Placed<'_>> = [old, new]
            .iter()
            .map(|at| stored.iter().find(|fact| (fact.place, fact.index) == *at).unwrap().placed())
            .collect();
        let again = books.recount(&wanted);
        follow_up(books, stored, again);
    }
}

pub(super) fn line(sku: &str, quantity: i64, price_minor: i64) -> Line {
    Line {
        sku: sku.to_owned(),
        quantity_milli: quantity * 1000,
        unit_price_minor: price_minor,
        discount_minor: 0,
        tax_rate_bp: Some(1_600),
    }
}

pub(super) fn source(key: &str) -> Option<Source> {
    Some(Source { instance: "app".to_owned(), key: key.to_owned() })
}

pub(super) fn sale(key: &str, lines: Vec<Line>, kind: TenderKind) -> Fact {
    let amount_minor = lines.iter().map(|line| line.amount_minor().unwrap()).sum();
    Fact::Sale(Sale {
        source: source(key),
        occurred: None,
        currency: Currency::KES,
        lines,
        tenders: vec![Tender { kind, amount_minor }],
        customer: None,
        note: None,
        ticket: None,
    })
}

pub(super) fn void_of(sale: &Recorded, reason: &str) -> Fact {
    let Fact::Sale(fact) = &sale.fact else { panic!("only sales are voided") };
    Fact::Void(Void {
        sale: sale.id(),
        currency: fact.currency,
        lines: fact.lines.clone(),
        tenders: fact.tenders.clone(),
        reason: reason.to_owned(),
    })
}

pub(super) fn intent_of(sale: &Recorded, amount_minor: i64, ledger: Option<Ledger>) -> Fact {
    Fact::Intent(Intent {
        source: None,
        sale: Some((sale.id(), 0)),
        amount: Money::new(amount_minor, Currency::KES),
        provider: "mpesa".to_owned(),
        ledger,
    })
}

pub(super) fn receipt(intent: RecordId, number: &str, amount_minor: i64) -> Fact {
    Fact::Receipt(Receipt {
        intent,
        provider: "mpesa".to_owned(),
        number: number.to_owned(),
        amount: Money::new(amount_minor, Currency::KES),
        paid_at: Timestamp(5),
        evidence: Evidence::Callback,
        attempt: 1,
        test: true,
    })
}

pub(super) fn movement(sku: &str, quantity: i64) -> Fact {
    Fact::StockMovement(StockMovement {
        source: None,
        occurred: None,
        sku: sku.to_owned(),
        quantity_milli: quantity * 1000,
        reason: "delivery".to_owned(),
    })
}

pub(super) fn count(sku: &str, found: i64, seen: Vec<(JournalId, u64)>) -> Fact {
    Fact::StockCount(StockCount {
        source: None,
        sku: sku.to_owned(),
        counted_milli: found * 1000,
        expected_milli: 0,
        seen,
    })
}

pub(super) fn shift_opened(float_minor: i64) -> Fact {
    Fact::ShiftOpened(ShiftOpened { source: None, opening_float: Money::new(float_minor, Currency::KES) })
}

pub(super) fn shift_closed(shift: RecordId, counted_minor: i64, seen: Vec<(JournalId, u64)>) -> Fact {
    let counted = Money::new(counted_minor, Currency::KES);
    Fact::ShiftClosed(ShiftClosed { shift, counted, expected_minor: 0, seen, note: None })
}

pub(super) fn on_hand(books: &Books, sku: &str) -> Option<i64> {
    books.stock(sku).and_then(|level| level.on_hand_milli).map(|milli| milli / 1000)
}

pub(super) fn figure(books: &Books, figure: Figure) -> i128 {
    books.business().currency(Currency::KES).of(figure)
}
