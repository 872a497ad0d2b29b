//! Payments: reconciling with the provider's statement, and the simulation.

use std::path::PathBuf;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::failure::Failure;
use super::{Context, output, payments_move, session};
use crate::payments::statement::{Read, StatementError, read_statement};
use crate::simulation;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take in the provider's statement: what it has is booked, what nothing explains is listed
    Reconcile(Reconcile),
    /// Give payments to another relay, or to a restored relay's new epoch
    Move(payments_move::Move),
    /// List what was given to whom, and how far it has come
    Moves,
    /// Run the relay's own code against a provider that misbehaves, killing it at every step
    Simulate(Simulate),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh payments reconcile --statement M-PESA_174379.csv

The file is the organisation portal's CSV, of a paybill or a till, whichever way it writes dates and
amounts. Run it in the relay's folder, with the relay running. Taking it in again adds nothing.")]
struct Reconcile {
    /// The statement, a CSV file
    #[arg(long, value_name = "FILE")]
    statement: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh payments simulate --intents 10000 --seed 7 --json

Virtual time, the real relay and storage engine. Ends with exit code 1 if a customer was charged twice,
money is missing from the books, a receipt is unproven, or a payment was neither settled nor in review
after 48 hours. The same seed repeats a run.")]
struct Simulate {
    /// How many payments
    #[arg(long, default_value_t = 10_000)]
    intents: u64,
    /// Decides everything that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this one of the simulated shops, as a broken run names it
    #[arg(long, value_name = "N", hide_short_help = true)]
    world: Option<u64>,
}

/// Lines that are posted at once.
const BATCH_LINES: usize = 200;

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.command {
        Command::Reconcile(args) => reconcile(args, context).await,
        Command::Move(args) => payments_move::run(args, context).await,
        Command::Moves => payments_move::list(context).await,
        Command::Simulate(args) => simulate(args, context).await,
    }
}

async fn simulate(args: Simulate, context: &Context) -> anyhow::Result<()> {
    let bar = if context.json { ProgressBar::hidden() } else { ProgressBar::new(args.intents) };
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} payments, {elapsed}")?);
    let shown = bar.clone();
    let (all, hundredth) = (args.intents, (args.intents / 100).max(1));
    let told = move |done: u64| {
        // A shop at a time, so that a hundredth may be passed over.
        if done / hundredth > shown.position() / hundredth {
            tracing::info!(done, of = all, "payments simulated");
        }
        shown.set_position(done);
    };
    let outcome = tokio::task::spawn_blocking(move || match args.world {
        Some(world) => simulation::run_world(args.seed, world, args.intents),
        None => simulation::run(args.intents, args.seed, &told),
    })
    .await??;
    bar.finish_and_clear();
    if context.json {
        output::line(serde_json::to_string(&outcome)?)?;
    } else {
        output::table(
            &["WHAT", "COUNT"],
            &[
                vec!["payments promised".to_owned(), outcome.intents.to_string()],
                vec!["charged twice".to_owned(), outcome.charged_twice.to_string()],
                vec!["lost, in cents".to_owned(), outcome.lost_minor.to_string()],
                vec!["receipts without proof".to_owned(), outcome.unproven_receipts.to_string()],
                vec!["unsettled after 48 hours".to_owned(), outcome.unsettled.to_string()],
                vec!["paid".to_owned(), outcome.paid.to_string()],
                vec!["declined".to_owned(), outcome.declined.to_string()],
                vec!["given up".to_owned(), outcome.void.to_string()],
                vec!["in review".to_owned(), outcome.in_review.to_string()],
                vec!["relay killed".to_owned(), outcome.crashes.to_string()],
                vec!["seed".to_owned(), outcome.seed.to_string()],
            ],
        )?;
    }
    if outcome.is_sound() {
        return Ok(());
    }
    for detail in &outcome.details {
        tracing::error!(%detail, "a rule is broken");
    }
    let message = format!("seed {} broke a rule in shop {:?}: see the log", outcome.seed, outcome.broken_world);
    Err(Failure::new("unsound", message).into())
}

async fn reconcile(args: Reconcile, context: &Context) -> anyhow::Result<()> {
    let file = std::fs::File::open(&args.statement)
        .map_err(|source| StatementError::Unreadable { path: args.statement.clone(), source })?;
    let read = read_statement(file)?;
    let totals = session::with(context, async |session| {
        if !session.is_running_node().await {
            let message = "no relay runs on this folder: start tillmesh relay first, since it alone books payments";
            return Err(Failure::new("relay_not_running", message).into());
        }
        let mut totals = Totals::default();
        for lines in read.lines.chunks(BATCH_LINES) {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| {
                    json!({
                        "receipt_number": line.receipt_number,
                        "amount_minor": line.amount_minor,
                        "account": line.account,
                        "paid_at_ms": line.paid_at_ms,
                    })
                })
                .collect();
            let answer = session.post("/api/payments/statement", &json!({ "lines": lines })).await?;
            totals.add(&answer);
        }
        Ok(totals)
    })
    .await?;
    tell(context, &read, &totals)
}

/// What became of a statement's lines.
#[derive(Debug, Default)]
struct Totals {
    paid: (u64, i64),
    suspense: (u64, i64),
    unknown: (u64, i64),
}

impl Totals {
    fn add(&mut self, answer: &serde_json::Value) {
        for (name, sum) in [("paid", &mut self.paid), ("suspense", &mut self.suspense), ("unknown", &mut self.unknown)]
        {
            let field = |what: &str| answer.get(name).and_then(|of| of.get(what)).and_then(serde_json::Value::as_i64);
            sum.0 += u64::try_from(field("lines").unwrap_or_default()).unwrap_or_default();
            sum.1 += field("amount_minor").unwrap_or_default();
        }
    }
}

fn tell(context: &Context, read: &Read, totals: &Totals) -> anyhow::Result<()> {
    let in_minor: i64 = read.lines.iter().map(|line| line.amount_minor).sum();
    let accounted = totals.paid.1 + totals.suspense.1;
    if context.json {
        output::line(json!({
            "lines": read.lines.len(),
            "received_minor": in_minor,
            "paid": { "lines": totals.paid.0, "amount_minor": totals.paid.1 },
            "suspense": { "lines": totals.suspense.0, "amount_minor": totals.suspense.1 },
            "not_taken_in": { "lines": totals.unknown.0, "amount_minor": totals.unknown.1 },
            "difference_minor": in_minor - accounted,
            "failed_lines": read.failed,
            "withdrawn_minor": read.withdrawn_minor,
            "stated_total_minor": read.stated_total_minor,
        }))?;
    } else {
        let row = |what: &str, sum: (u64, i64)| vec![what.to_owned(), sum.0.to_string(), money(sum.1)];
        output::table(
            &["WHAT", "LINES", "AMOUNT"],
            &[
                row("received, as the statement says", (read.lines.len() as u64, in_minor)),
                row("receipts of payments", totals.paid),
                row("in suspense", totals.suspense),
                row("not taken in yet", totals.unknown),
                row("difference", (0, in_minor - accounted)),
            ],
        )?;
    }
    if in_minor == accounted {
        return Ok(());
    }
    let message =
        "the statement and the books differ: run it again once the relay has caught up, then look at the difference";
    Err(Failure::new("not_reconciled", message).into())
}

fn money(minor: i64) -> String {
    format!("{}.{:02}", minor / 100, (minor % 100).abs())
}
