//! What is sold on the demo's day, drawn from its seed before the day begins.

use std::collections::BTreeMap;

use anyhow::Context;
use crdt_model::money::Currency;
use crdt_model::time::Day;
use serde_json::{Value, json};

use super::{DemoConfig, SALES};
use crate::import;

/// Customers' M-PESA numbers are drawn from so many; the simulator decides by them and its seed.
const CUSTOMERS: u64 = 40;
const PRODUCTS: [(&str, &str, i64); 12] = [
    ("BREAD", "Bread 400 g", 6_500),
    ("MILK", "Milk 500 ml", 6_000),
    ("SUGAR", "Sugar 1 kg", 16_500),
    ("UNGA", "Maize flour 2 kg", 19_000),
    ("OIL", "Cooking oil 1 l", 32_000),
    ("RICE", "Rice 1 kg", 18_000),
    ("TEA", "Tea leaves 250 g", 12_000),
    ("SOAP", "Bar soap", 15_000),
    ("SALT", "Salt 500 g", 3_000),
    ("EGGS", "Eggs, tray of 30", 42_000),
    ("CHARGE", "Phone charger", 50_000),
    ("AIRTIME", "Airtime 100", 10_000),
];

/// One step of the day.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A sale, as the API takes it.
    Sale(Value),
    /// Some invoices of the file, as the file has them.
    Invoices(String),
}

/// The whole day.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Sales, or invoices of the file.
    pub(super) sales: usize,
    /// What all of it comes to, returns taken off.
    pub(super) total_minor: i64,
    /// Thousandths of units that leave the shelf, by product.
    pub(super) sold_milli: BTreeMap<String, i64>,
    /// How many sales are paid by M-PESA.
    pub(super) intents: u64,
    currency: Currency,
}

/// A small generator, so that a seed draws the same day everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// The catalogue, as the API takes products.
pub(super) fn products() -> impl Iterator<Item = Value> {
    PRODUCTS.iter().map(|(sku, name, price)| json!({ "sku": sku, "name": name, "price_minor": price }))
}

impl Plan {
    pub(super) fn draw(config: &DemoConfig) -> anyhow::Result<Self> {
        match &config.csv {
            Some(path) => Self::from_file(path, config.sales),
            None => Ok(Self::from_seed(config.seed, config.sales.unwrap_or(SALES))),
        }
    }

    pub(super) fn currency(&self) -> Currency {
        self.currency
    }

    fn empty(currency: Currency) -> Self {
        Self { steps: Vec::new(), sales: 0, total_minor: 0, sold_milli: BTreeMap::new(), intents: 0, currency }
    }

    fn from_seed(seed: u64, sales: usize) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut plan = Self::empty(Currency::KES);
        for number in 0..sales {
            let mut total = 0;
            let lines: Vec<Value> = (0..=dice.roll(3))
                .filter_map(|_| {
                    let (sku, _, price) = PRODUCTS.get(usize::try_from(dice.roll(PRODUCTS.len() as u64)).ok()?)?;
                    let quantity = i64::try_from(dice.roll(4)).ok()? + 1;
                    total += price * quantity;
                    *plan.sold_milli.entry((*sku).to_owned()).or_default() += quantity * 1000;
                    Some(json!({ "sku": sku, "quantity_milli": quantity * 1000, "unit_price_minor": price }))
                })
                .collect();
            let tender = if dice.roll(10) < 3 {
                plan.intents += 1;
                json!({ "kind": "mpesa", "amount_minor": total, "phone": format!("2547{:08}", 10_000_000 + dice.roll(CUSTOMERS)) })
            } else {
                json!({ "kind": "cash", "amount_minor": total })
            };
            plan.total_minor += total;
            plan.steps.push(Step::Sale(json!({
                "operation_id": format!("demo-{seed}-{number}"),
                "currency": "KES",
                "lines": lines,
                "tenders": [tender],
            })));
        }
        plan.sales = sales;
        plan
    }

    /// Cuts the file into pieces of a few invoices, so that the tills take turns.
    fn from_file(path: &std::path::Path, limit: Option<usize>) -> anyhow::Result<Self> {
        const PIECES: usize = 60;
        let mut plan = Self::empty(Currency::GBP);
        let (reader, _) = import::open(path)?;
        // All lines of an invoice go to one till, however they are spread over the file.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut invoices: Vec<Vec<import::Invoice>> = Vec::new();
        for item in reader {
            let import::Item::Invoice(invoice) = item? else { continue };
            if let Some(parts) = places.get(&invoice.number).and_then(|place| invoices.get_mut(*place)) {
                parts.push(invoice);
            } else if invoices.len() < limit.unwrap_or(usize::MAX) {
                places.insert(invoice.number.clone(), invoices.len());
                invoices.push(vec![invoice]);
            }
        }
        plan.sales = invoices.len();
        for piece in invoices.chunks(invoices.len().div_ceil(PIECES).max(1)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(COLUMNS)?;
            for invoice in piece.iter().flatten() {
                for line in &invoice.lines {
                    writer.write_record(fields(invoice, line))?;
                }
            }
            let text = writer.into_inner().context("the piece was not written")?;
            plan.expect(&text)?;
            plan.steps.push(Step::Invoices(String::from_utf8(text)?));
        }
        Ok(plan)
    }

    /// Adds what a piece comes to, read as a till will read it.
    fn expect(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        for item in import::Reader::new(piece)? {
            let import::Item::Invoice(invoice) = item? else { continue };
            for line in &invoice.lines {
                self.total_minor += line.amount_minor;
                *self.sold_milli.entry(line.stock_code.clone()).or_default() += line.quantity_milli;
            }
        }
        Ok(())
    }
}

/// The columns of the file's format.
const COLUMNS: [&str; 8] =
    ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"];

/// One line as the file has it.
fn fields(invoice: &import::Invoice, line: &import::RetailLine) -> [String; 8] {
    const DAY_S: i64 = 86_400;
    let seconds = invoice.at_ms.div_euclid(1000);
    let day = Day(i32::try_from(seconds.div_euclid(DAY_S)).unwrap_or_default());
    let of_day = seconds.rem_euclid(DAY_S);
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    [
        invoice.number.clone(),
        line.stock_code.clone(),
        line.description.clone(),
        decimal(line.quantity_milli, 1_000, 3),
        format!("{day} {hours:02}:{minutes:02}:{seconds:02}"),
        decimal(line.unit_price_micro, 1_000_000, 6),
        invoice.customer.clone().unwrap_or_default(),
        invoice.country.clone(),
    ]
}

/// A scaled whole number as a decimal.
fn decimal(value: i64, scale: u64, decimals: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let size = value.unsigned_abs();
    let text = format!("{sign}{}.{:0decimals$}", size / scale, size % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
