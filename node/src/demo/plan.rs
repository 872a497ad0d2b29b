//! What is sold on the demo's day, drawn from its seed before the day begins.

use std::collections::{BTreeMap, BTreeSet};

use crdt_model::money::Currency;
use serde_json::{Value, json};

use super::{DemoConfig, SALES};
use crate::import::{self, Batch, BatchInvoice, convert};

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
    /// Some invoices of the file, as the API takes imports.
    Invoices(Value),
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
                // A customer buys once a day: a phone is asked at most once a minute, and this day
                // takes seconds.
                json!({ "kind": "mpesa", "amount_minor": total, "phone": format!("2547{:08}", 10_000_000 + number) })
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

    /// Cuts the file into batches of a few invoices, so that the tills take turns.
    fn from_file(path: &std::path::Path, limit: Option<usize>) -> anyhow::Result<Self> {
        let mut plan = Self::empty(Currency::GBP);
        let (reader, _) = import::open(path)?;
        let mut numbers = BTreeSet::new();
        let mut waiting: Vec<BatchInvoice> = Vec::new();
        for item in reader {
            let import::Item::Invoice(invoice) = item? else { continue };
            if !numbers.contains(&invoice.number) && numbers.len() >= limit.unwrap_or(usize::MAX) {
                continue;
            }
            numbers.insert(invoice.number.clone());
            for line in &invoice.lines {
                plan.total_minor += line.amount_minor;
                *plan.sold_milli.entry(line.stock_code.clone()).or_default() += line.quantity_milli;
            }
            for piece in convert::invoices(&invoice) {
                waiting.push(piece);
                if waiting.len() >= BATCH_INVOICES || batch_bytes(&waiting)? >= BATCH_BYTES {
                    plan.steps.push(Step::Invoices(batch(std::mem::take(&mut waiting))?));
                }
            }
        }
        plan.steps.push(Step::Invoices(batch(waiting)?));
        plan.sales = numbers.len();
        Ok(plan)
    }
}

/// Few enough that the tills take many turns.
const BATCH_INVOICES: usize = 10;
/// With the largest piece on top, a batch stays below what the API takes.
const BATCH_BYTES: usize = 64 * 1024;

fn batch_bytes(invoices: &[BatchInvoice]) -> anyhow::Result<usize> {
    invoices.last().map_or(Ok(0), |last| Ok(serde_json::to_vec(last)?.len() * invoices.len()))
}

fn batch(invoices: Vec<BatchInvoice>) -> anyhow::Result<Value> {
    let batch = Batch {
        instance: convert::ONLINE_RETAIL.to_owned(),
        currency: Currency::GBP.to_string(),
        products: Vec::new(),
        customers: Vec::new(),
        invoices,
    };
    Ok(serde_json::to_value(batch)?)
}
