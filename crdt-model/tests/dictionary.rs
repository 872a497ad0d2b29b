//! The dictionary of compact runs is what this makes: the entries of a made-up shop's day, mostly
//! small sales. `TILLMESH_WRITE_DICTIONARY=1 cargo test -p tillmesh-crdt-model --test dictionary`
//! writes the file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use crdt_model::entry::{Body, Class, Entry, PageLabel, Personal};
use crdt_model::ids::{DeviceId, JournalId, RecordId, hash_uuid};
use crdt_model::money::{Currency, Money};
use crdt_model::record::{
    Decline, Evidence, Expense, Fact, Intent, IntentConfirmed, Ledger, Line, Receipt, Sale, ShiftClosed, ShiftOpened,
    Source, StockCount, StockMovement, Tender, TenderKind,
};
use crdt_model::time::{Day, Hlc, Timestamp};

const ENTRIES: u32 = 180;
const NAMES: [&str; 24] = [
    "BREAD", "MILK", "SUGAR", "TEA", "RICE", "SOAP", "SALT", "FLOUR", "EGGS", "WATER", "SODA", "BEANS", "MAIZE", "OIL",
    "COFFEE", "BUTTER", "JUICE", "ONION", "TOMATO", "BANANA", "CHARCOAL", "MATCHES", "AIRTIME", "BATTERY",
];

#[test]
fn the_dictionary_is_the_day_of_a_made_up_shop() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync/dictionary-1.bin");
    let made = minicbor::to_vec(day()).unwrap();
    if std::env::var_os("TILLMESH_WRITE_DICTIONARY").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let shipped = std::fs::read(&file).unwrap();
    assert_eq!(shipped.len(), made.len());
    assert!(shipped == made, "the shipped dictionary is another one: see the top of this file");
}

/// A small generator, the same everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % u64::from(sides)).unwrap()
    }

    fn id(&mut self) -> RecordId {
        let mut bytes = [0; 32];
        bytes.fill_with(|| u8::try_from(self.roll(256)).unwrap());
        RecordId(hash_uuid(bytes))
    }
}

fn day() -> Vec<Entry> {
    let mut dice = Dice(2026);
    let mut ms = 1_780_000_000_000;
    let mut entries = Vec::new();
    for number in 0..ENTRIES {
        ms += u64::from(500 + dice.roll(90_000));
        let (class, body) = operation(&mut dice, number);
        let user = Some(["cashier-1", "amina", "otieno"][usize::try_from(number / 60).unwrap()].to_owned());
        entries.push(Entry {
            class,
            page: PageLabel { ordinal: 3 + number / 90, day: Day(20_600 + i32::try_from(number / 90).unwrap()) },
            time: Hlc::from_wall(Timestamp(ms)),
            user: if number < 30 { None } else { user },
            after: Vec::new(),
            parts: body.to_parts(|| [0x5a; 16]),
            mark: None,
        });
    }
    entries
}

fn operation(dice: &mut Dice, number: u32) -> (Class, Body) {
    // The last lessons weigh most: plain sales end the day.
    if number >= ENTRIES - 40 {
        return (Class::Normal, facts(vec![Fact::Sale(sale(dice, None, TenderKind::Cash))]));
    }
    match dice.roll(16) {
        0 | 1 => by_mpesa(dice),
        2 => (Class::Payment, facts(vec![paid(dice)])),
        3 => (Class::Normal, till_event(dice)),
        4 => (Class::Normal, stock(dice)),
        5..=7 => {
            let key = format!("order-{}", 1000 + dice.roll(9000));
            (Class::Normal, facts(vec![Fact::Sale(sale(dice, Some(source(&key)), TenderKind::Cash))]))
        }
        _ => (Class::Normal, facts(vec![Fact::Sale(sale(dice, None, TenderKind::Cash))])),
    }
}

fn facts(facts: Vec<Fact>) -> Body {
    Body { facts, ..Body::default() }
}

fn source(key: &str) -> Source {
    Source { instance: "till-1".to_owned(), key: key.to_owned() }
}

fn sale(dice: &mut Dice, source: Option<Source>, kind: TenderKind) -> Sale {
    let count = [1, 1, 1, 2, 2, 3, 4][usize::try_from(dice.roll(7)).unwrap()];
    let lines: Vec<Line> = (0..count).map(|_| line(dice)).collect();
    let mut sale = Sale {
        source,
        occurred: None,
        currency: Currency::KES,
        lines,
        tenders: Vec::new(),
        customer: None,
        note: None,
        ticket: None,
    };
    // As compact runs carry the total.
    sale.tenders = vec![Tender { kind, amount_minor: sale.total_minor().unwrap() }];
    sale
}

fn line(dice: &mut Dice) -> Line {
    let sku = match dice.roll(4) {
        0 => format!("61610{:08}", u64::from(dice.roll(100_000)) * 997 % 100_000_000),
        1 => format!("P-{}", 100 + dice.roll(900)),
        _ => NAMES[usize::try_from(dice.roll(24)).unwrap()].to_owned(),
    };
    let quantity_milli = [1000, 1000, 1000, 2000, 2000, 3000, 4000, 5000, 6000, 10_000, 500, 250];
    let price = [500, 1000, 2000, 2500, 3000, 5000, 6500, 8000, 10_000, 12_000, 15_000, 20_000, 25_000, 35_000, 50_000];
    Line {
        sku,
        quantity_milli: quantity_milli[usize::try_from(dice.roll(12)).unwrap()],
        unit_price_minor: price[usize::try_from(dice.roll(15)).unwrap()],
        discount_minor: if dice.roll(12) == 0 { 100 } else { 0 },
        tax_rate_bp: if dice.roll(4) == 0 { Some(1600) } else { None },
    }
}

fn by_mpesa(dice: &mut Dice) -> (Class, Body) {
    let sold = sale(dice, None, TenderKind::Mpesa);
    let intent = Fact::Intent(Intent {
        source: None,
        sale: Some((dice.id(), 0)),
        amount: Money::new(sold.tenders[0].amount_minor, Currency::KES),
        provider: "mpesa".to_owned(),
        ledger: Some(Ledger { relay: DeviceId([0x5a; 32]), epoch: 1 }),
    });
    let personal = vec![Personal { fact: 1, phone: Some(format!("2547{:08}", dice.roll(100_000_000))) }];
    (Class::Intent, Body { facts: vec![Fact::Sale(sold), intent], personal, changes: Vec::new() })
}

fn paid(dice: &mut Dice) -> Fact {
    let intent = dice.id();
    if dice.roll(5) == 0 {
        let (code, reason) = ("1032".to_owned(), "cancelled by the customer".to_owned());
        return Fact::Decline(Decline { intent, attempt: 1, code, reason });
    }
    Fact::Receipt(Receipt {
        intent,
        provider: "mpesa".to_owned(),
        number: format!("SFF{:07}", dice.roll(9_999_999)),
        amount: Money::new(i64::from(1 + dice.roll(200)) * 500, Currency::KES),
        paid_at: Timestamp(1_780_000_000_000 + u64::from(dice.roll(50_000_000))),
        evidence: Evidence::Callback,
        attempt: 1,
        test: false,
    })
}

fn till_event(dice: &mut Dice) -> Body {
    let money = Money::new(i64::from(1 + dice.roll(200)) * 1000, Currency::KES);
    let fact = match dice.roll(4) {
        0 => Fact::ShiftOpened(ShiftOpened { source: None, opening_float: money }),
        1 => Fact::ShiftClosed(ShiftClosed {
            shift: dice.id(),
            counted: money,
            expected_minor: money.minor,
            seen: vec![(JournalId([0x5a; 16]), 400)],
            note: None,
        }),
        2 => Fact::IntentConfirmed(IntentConfirmed { intent: dice.id() }),
        _ => Fact::Expense(Expense {
            source: None,
            occurred: None,
            category: "transport".to_owned(),
            amount: money,
            description: None,
            paid_with: TenderKind::Cash,
        }),
    };
    facts(vec![fact])
}

fn stock(dice: &mut Dice) -> Body {
    let sku = NAMES[usize::try_from(dice.roll(24)).unwrap()].to_owned();
    let quantity_milli = i64::from(1 + dice.roll(40)) * 1000;
    facts(vec![if dice.roll(2) == 0 {
        Fact::StockMovement(StockMovement {
            source: None,
            occurred: None,
            sku,
            quantity_milli,
            reason: "delivery".to_owned(),
        })
    } else {
        let seen = vec![(JournalId([0x5a; 16]), 400)];
        Fact::StockCount(StockCount {
            source: None,
            sku,
            counted_milli: quantity_milli,
            expected_milli: quantity_milli,
            seen,
        })
    }])
}
