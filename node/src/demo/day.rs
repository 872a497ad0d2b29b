//! The course of the day: together, apart, without the relay, without a till, together again.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::DemoConfig;
use super::books::Books;
use super::net::Net;
use super::plan::{Plan, Step, products};

/// How long the devices may take to agree.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long customers may take to answer at the end of the day.
const PAYMENT_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);

/// The product that two tills edit at once.
const EDITED: &str = "BREAD";

/// What happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// From the moment the wires were mended until every device agreed.
    pub(super) converge_ms: u64,
    /// Sales that the lost till got back.
    pub(super) restored_sales: u64,
    /// Fields edited apart that every till then had.
    pub(super) merged_edits: u64,
}

/// Sales so far, and whose turn it is.
struct Course<'d> {
    config: &'d DemoConfig,
    plan: &'d Plan,
    done: usize,
}

impl Course<'_> {
    /// Sells until `part` hundredths of the day are done; the tills of `open` take turns.
    async fn sell(&mut self, net: &Net, part: usize, open: usize) -> anyhow::Result<()> {
        let until = self.plan.steps.len() * part / 100;
        while self.done < until {
            let till = net.api(self.done % open)?;
            match self.plan.steps.get(self.done) {
                Some(Step::Sale(body)) => drop(till.post("/api/sales", body).await?),
                Some(Step::Invoices(batch)) => drop(till.post("/api/imports", batch).await?),
                None => return Ok(()),
            }
            self.done += 1;
            if self.done.is_multiple_of(20) || self.done == self.plan.steps.len() {
                self.config.say(&format!("  {} of {} sold", self.done, self.plan.steps.len()));
            }
        }
        Ok(())
    }
}

pub(super) async fn play(config: &DemoConfig, plan: &Plan, net: &mut Net) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut course = Course { config, plan, done: 0 };
    let last = config.tills - 1;

    config.say(&format!("{} tills and a relay are up and linked.", config.tills));
    net.mend_all()?;
    for product in products() {
        net.api(0)?.post("/api/products", &product).await?;
    }
    if plan.intents > 0 {
        payments_ready(net, config.tills).await?;
    }
    agree(net).await?;
    course.sell(net, 20, config.tills).await?;

    config.say("The tills lose each other and the relay; they go on selling.");
    agree(net).await?;
    net.cut_all();
    edit_apart(net).await?;
    course.sell(net, 45, config.tills).await?;
    config.say("The network is back.");
    let mended = Instant::now();
    net.mend_all()?;
    agree(net).await?;
    outcome.converge_ms = u64::try_from(mended.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome.merged_edits = merged_edits(net, config.tills).await?;

    // What the provider calls back while nobody listens is lost to a relay that can't query yet;
    // such a payment would stay open, and be settled by a person.
    settle(net).await?;
    config.say("The relay is gone; the tills still share with each other.");
    net.kill(net.relay()).await?;
    course.sell(net, 65, config.tills).await?;
    agree(net).await?;
    config.say("The relay is back.");
    net.start(net.relay()).await?;
    agree(net).await?;

    config.say(&format!("Till {} is lost, with its data; the others sell on.", last + 1));
    net.kill(last).await?;
    std::fs::remove_dir_all(net.folder(last))?;
    course.sell(net, 80, last).await?;
    config.say("A new till takes its place, and gets everything back from the relay.");
    outcome.restored_sales = restore(net, last).await?;

    course.sell(net, 100, config.tills).await?;
    config.say("Closing time: the last customers pay.");
    settle(net).await?;
    Ok(outcome)
}

/// Waits until every till knows the relay that asks customers to pay.
async fn payments_ready(net: &Net, tills: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    for till in 0..tills {
        while net.api(till)?.get("/api/settings").await?.get("paying_relay").is_none_or(Value::is_null) {
            anyhow::ensure!(started.elapsed() < PATIENCE, "no relay offered to ask customers to pay");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// While they are apart, two tills edit different fields of one product, and the same field.
async fn edit_apart(net: &Net) -> anyhow::Result<()> {
    let path = format!("/api/products/{EDITED}");
    for (till, body) in [
        (0, json!({ "category": "bakery" })),
        (1, json!({ "price_minor": 7_000 })),
        (0, json!({ "name": "White bread 400 g" })),
        (1, json!({ "name": "Brown bread 400 g" })),
    ] {
        net.api(till)?.patch(&path, &body).await?;
    }
    Ok(())
}

/// How many of the edits of different fields every till has.
async fn merged_edits(net: &Net, tills: usize) -> anyhow::Result<u64> {
    let mut merged = u64::MAX;
    for till in 0..tills {
        let product = net.api(till)?.get(&format!("/api/products/{EDITED}")).await?;
        let has = |field: &str, value: Value| u64::from(product.get(field) == Some(&value));
        merged = merged.min(has("category", json!("bakery")) + has("price_minor", json!(7_000)));
    }
    Ok(merged)
}

/// A till joins with nothing, linked to the relay alone, and waits until it has everything.
async fn restore(net: &mut Net, till: usize) -> anyhow::Result<u64> {
    let relay = net.relay();
    net.join(till).await?;
    for other in 0..relay {
        if other != till {
            net.cut(other, till)?;
        }
    }
    net.start(till).await?;
    net.mend(till, relay)?;
    let wanted = net.api(relay)?.books().await?.sales;
    let started = Instant::now();
    let restored = loop {
        let books = net.api(till)?.books().await?;
        if books.sales >= wanted {
            break books.sales;
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the new till got only {} of {wanted} sales", books.sales);
        tokio::time::sleep(POLL).await;
    };
    net.mend_all()?;
    Ok(restored)
}

/// Waits until every device that is on holds the same entries, documents and figures.
async fn agree(net: &Net) -> anyhow::Result<Books> {
    let started = Instant::now();
    loop {
        let mut all = Vec::new();
        for index in 0..=net.relay() {
            if let Ok(api) = net.api(index) {
                all.push(api.books().await?);
            }
        }
        let first = all.first().context("no device is on")?;
        if all.iter().all(|books| books == first) {
            return Ok(first.clone());
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the devices did not agree: {all:#?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until no payment is open, or the customers' patience is over, and the devices agree.
async fn settle(net: &Net) -> anyhow::Result<()> {
    let started = Instant::now();
    while agree(net).await?.payments.open > 0 && started.elapsed() < PAYMENT_PATIENCE {
        tokio::time::sleep(POLL).await;
    }
    agree(net).await?;
    Ok(())
}
