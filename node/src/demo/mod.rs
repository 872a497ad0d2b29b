//! A shop's day in one command: real processes on loopback, real files, a relay and the
//! payment provider's simulator, and at the end the proof that every till holds the same books.

mod books;
mod day;
mod net;
mod plan;
mod report;

use std::path::PathBuf;

use anyhow::Context;

pub use report::{Payments, Verdict};

/// What the demo is asked.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// How many tills, from 2.
    pub tills: usize,
    /// How many sales the day has; with a file, at most so many invoices.
    pub sales: Option<usize>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Sell this file's invoices, in a GBP business, every sale paid in cash.
    pub csv: Option<PathBuf>,
    /// Leave the tills running at the end.
    pub keep: bool,
    /// Tell what happens, a line at a time; `None` to be silent.
    pub tell: Option<fn(&str)>,
}

/// The default day: long enough to see everything happen, short enough to watch.
pub const SALES: usize = 300;
/// Fewer tills could not be apart.
pub const TILLS_MIN: usize = 2;
/// More would only slow one machine down.
pub const TILLS_MAX: usize = 16;

impl Default for DemoConfig {
    fn default() -> Self {
        Self { tills: 3, sales: None, seed: 1, csv: None, keep: false, tell: None }
    }
}

impl DemoConfig {
    fn say(&self, text: &str) {
        if let Some(tell) = self.tell {
            tell(text);
        }
    }
}

/// Runs the day and shows the verdict. With `keep`, never ends by itself then: the caller drops
/// it, and the processes end.
///
/// # Errors
/// Whatever keeps the day from being played to its end. Books that don't balance are no error
/// but a verdict.
pub async fn run(config: &DemoConfig, show: impl Fn(&Verdict) -> anyhow::Result<()>) -> anyhow::Result<Verdict> {
    anyhow::ensure!((TILLS_MIN..=TILLS_MAX).contains(&config.tills), "--tills must be {TILLS_MIN} to {TILLS_MAX}");
    let plan = plan::Plan::draw(config)?;
    let folder = tempfile::Builder::new().prefix("tillmesh-demo-").tempdir().context("no temporary folder")?;
    let mut shop = net::Net::build(config, folder.path(), plan.currency()).await?;
    let outcome = day::play(config, &plan, &mut shop).await?;
    let verdict = report::judge(config, &plan, &shop, outcome).await?;
    show(&verdict)?;
    if config.keep {
        config.say("The tills are still running; press Ctrl-C to end them:");
        for (number, api) in shop.apis().iter().enumerate() {
            config.say(&format!("  till {} http://{api}  data {}", number + 1, shop.folder(number).display()));
        }
        std::future::pending::<()>().await;
    }
    shop.stop().await?;
    Ok(verdict)
}
