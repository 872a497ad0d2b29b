//! The verdict: what every till's books say, against what was sold and what was charged.

use std::collections::BTreeMap;
use std::fmt;

use crdt_model::money::{Currency, Money};
use crdt_model::payment::account_reference;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::DemoConfig;
use super::books::Api;
use super::day::Outcome;
use super::net::Net;
use super::plan::Plan;

/// The end of the day, in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Every till holds the same books, and they are what was sold and charged, to the cent.
    pub balanced: bool,
    /// Why not, if they don't.
    pub faults: Vec<String>,
    /// How many tills took part.
    pub tills: usize,
    /// Sales, or invoices of the file.
    pub sales: usize,
    /// What all of it came to, returns taken off.
    pub total_minor: i64,
    /// In which currency.
    pub currency: String,
    /// From the mended network until every device agreed, in milliseconds.
    pub converge_ms: u64,
    /// Bytes on all wires of the whole day, a sale.
    pub bytes_per_sale: u64,
    /// Edits of different fields of one product, made apart, that every till has.
    pub merged_edits: u64,
    /// Fields that were edited apart; both values are kept for a person to decide.
    pub conflicts: u64,
    /// Sales that the lost till got back from the relay.
    pub restored_sales: u64,
    /// Products with stock movements, and the units that left the shelf.
    pub stock: StockSum,
    /// The payments.
    pub payments: Payments,
    /// What the day was drawn from.
    pub seed: u64,
}

/// What left the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StockSum {
    /// How many products.
    pub products: usize,
    /// Thousandths of units.
    pub sold_milli: i64,
}

/// The day's payments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Payments {
    /// Sales paid by M-PESA.
    pub intents: u64,
    /// Paid, with a receipt.
    pub paid: u64,
    /// Declined by the customer or the provider.
    pub declined: u64,
    /// Neither yet.
    pub open: u64,
    /// Customers whom the provider charged more than once for one sale.
    pub charged_twice: u64,
}

pub(super) async fn judge(config: &DemoConfig, plan: &Plan, net: &Net, outcome: Outcome) -> anyhow::Result<Verdict> {
    let mut faults = Vec::new();
    let mut check = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let relay = net.api(net.relay())?.books().await?;
    for till in 0..config.tills {
        let api = net.api(till)?;
        let books = api.books().await?;
        check(books == relay, format!("till {} and the relay differ: {books:?}, {relay:?}", till + 1));
        check(
            books.total_minor == plan.total_minor,
            format!("till {} has a total of {}, but {} was sold", till + 1, books.total_minor, plan.total_minor),
        );
        let stock = stock(&api).await?;
        let sold: BTreeMap<_, _> = plan
            .sold_milli
            .iter()
            .filter(|(_, milli)| **milli != 0)
            .map(|(sku, milli)| (sku.clone(), -milli))
            .collect();
        check(stock == sold, format!("till {} has another stock than what was sold", till + 1));
    }
    let (charged_twice, charged_minor) = charges(net).await?;
    check(charged_twice == 0, format!("{charged_twice} customers were charged twice"));
    check(
        charged_minor == relay.payments.paid_minor,
        format!("the provider charged {charged_minor}, but receipts say {}", relay.payments.paid_minor),
    );
    check(
        relay.payments.intents == plan.intents,
        format!("{} payments were asked for, but the books have {}", plan.intents, relay.payments.intents),
    );
    check(outcome.merged_edits == 2, "the edits of different fields were not merged".to_owned());
    check(relay.conflicts >= 1, "the edits of one field left no conflict".to_owned());
    Ok(Verdict {
        balanced: faults.is_empty(),
        faults,
        tills: config.tills,
        sales: plan.sales,
        total_minor: relay.total_minor,
        currency: plan.currency().to_string(),
        converge_ms: outcome.converge_ms,
        bytes_per_sale: net.bytes() / u64::try_from(plan.sales.max(1)).unwrap_or(1),
        merged_edits: outcome.merged_edits,
        conflicts: relay.conflicts,
        restored_sales: outcome.restored_sales,
        stock: StockSum { products: plan.sold_milli.len(), sold_milli: plan.sold_milli.values().sum() },
        payments: Payments {
            intents: relay.payments.intents,
            paid: relay.payments.paid,
            declined: relay.payments.declined,
            open: relay.payments.open,
            charged_twice,
        },
        seed: config.seed,
    })
}

/// A till's stock by product, as far as it is not zero.
async fn stock(api: &Api) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut levels = BTreeMap::new();
    for level in api.all("/api/stock").await? {
        let sku = level.get("sku").and_then(Value::as_str);
        let milli = level.get("on_hand_milli").and_then(Value::as_i64);
        if let (Some(sku), Some(milli)) = (sku, milli)
            && milli != 0
        {
            levels.insert(sku.to_owned(), milli);
        }
    }
    Ok(levels)
}

/// How many intents the provider really charged more than once, and the sum of all charges.
async fn charges(net: &Net) -> anyhow::Result<(u64, i64)> {
    const ATTEMPTS_MAX: u32 = 3;
    let mut references: BTreeMap<String, Uuid> = BTreeMap::new();
    for payment in net.api(0)?.all("/api/payments").await? {
        let intent: Uuid = payment.get("id").and_then(Value::as_str).unwrap_or_default().parse()?;
        for attempt in 1..=ATTEMPTS_MAX {
            references.insert(account_reference(intent, attempt).to_string(), intent);
        }
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut sum = 0;
    for line in net.charges().await? {
        let reference = line.get("account_reference").and_then(Value::as_str).unwrap_or_default().to_owned();
        let intent = references.get(&reference).map_or(reference, Uuid::to_string);
        *counts.entry(intent).or_default() += 1;
        sum += line.get("amount_minor").and_then(Value::as_i64).unwrap_or(0);
    }
    Ok((counts.values().filter(|count| **count > 1).count() as u64, sum))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let currency: Currency = self.currency.parse().unwrap_or(Currency::KES);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "  {name:<34} {value}");
        writeln!(f, "The day in figures")?;
        row(f, "sales", self.sales.to_string())?;
        row(f, "total", Money::new(self.total_minor, currency).to_string())?;
        row(f, "products sold", self.stock.products.to_string())?;
        row(f, "units that left the shelf", format!("{}", self.stock.sold_milli / 1000))?;
        row(f, "M-PESA payments", self.payments.intents.to_string())?;
        row(f, "  paid, with receipt", self.payments.paid.to_string())?;
        row(f, "  declined", self.payments.declined.to_string())?;
        row(f, "  open", self.payments.open.to_string())?;
        row(f, "  charged twice", self.payments.charged_twice.to_string())?;
        row(f, "edits merged field by field", self.merged_edits.to_string())?;
        row(f, "conflicts, both values kept", self.conflicts.to_string())?;
        row(f, "sales the lost till got back", self.restored_sales.to_string())?;
        row(f, "time to agree after being apart", format!("{} ms", self.converge_ms))?;
        row(f, "bytes on all wires, a sale", self.bytes_per_sale.to_string())?;
        for fault in &self.faults {
            writeln!(f, "  fault: {fault}")?;
        }
        if self.balanced {
            write!(f, "All {} tills hold the same books, to the cent.", self.tills)
        } else {
            write!(f, "The books do NOT balance.")
        }
    }
}
