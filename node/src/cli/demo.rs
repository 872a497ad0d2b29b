//! A shop's day with real processes.

use std::path::PathBuf;

use super::failure::Failure;
use super::{Context, network, output};
use crate::demo::{self, DemoConfig};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts tills, a relay and the M-PESA simulator as processes of their own on loopback, with files
in a temporary folder, and sells a day: the network breaks, the relay fails, a till is lost. At
the end it checks that every till holds the same books. Exit code 0 only if they balance.

Examples:
  tillmesh demo
  tillmesh demo --tills 5 --sales 1000 --seed 7
  tillmesh demo --csv online-retail.csv.gz --json")]
pub(super) struct Args {
    /// How many tills, 2 to 16
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    tills: u8,
    /// How many sales; with --csv, at most so many invoices of the file
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    sales: Option<u32>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sell this file's invoices instead, in a GBP business, every sale paid in cash
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Leave the tills running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let config = DemoConfig {
        tills: usize::from(args.tills),
        sales: args.sales.map(usize::try_from).transpose()?,
        seed: args.seed,
        csv: args.csv,
        keep: args.keep,
        tell: (!context.json).then_some(tell as fn(&str)),
    };
    let json = context.json;
    let show = move |verdict: &demo::Verdict| {
        if json { output::line(serde_json::to_string(verdict)?) } else { output::line(format!("\n{verdict}")) }
    };
    // Whatever has started ends with this process, also on Ctrl-C.
    let verdict = tokio::select! {
        verdict = demo::run(&config, show) => verdict?,
        interrupted = network::told_to_stop() => {
            interrupted?;
            if config.keep {
                return Ok(());
            }
            return Err(Failure::new("interrupted", "interrupted: every process has ended").into());
        }
    };
    if verdict.balanced { Ok(()) } else { Err(Failure::new("unbalanced", "the books do not balance").into()) }
}

/// Tells the course of the day; without a reader, the day goes on.
fn tell(text: &str) {
    drop(output::line(text));
}
