//! What would be lost with this device.

use serde_json::Value;

use super::sale::text;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh safe-to-wipe --json

Only what other devices have signed for counts as held by them. The answer is signed by this
device; with --json it can be kept and shown.")]
pub(super) struct Args {
    /// How long to wait for the others' word, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(0..=30_000))]
    wait: u64,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let path = format!("/api/safe-to-wipe?wait={}", args.wait);
    let verdict = session::with(context, async |session| session.get(&path).await).await?;
    if context.json {
        return output::line(verdict);
    }
    let safe = verdict.get("safe") == Some(&Value::Bool(true));
    output::line(if safe { "Safe to wipe: a relay has signed for everything." } else { "NOT safe to wipe." })?;
    let count = |field: &str| verdict.get(field).and_then(Value::as_u64).unwrap_or_default();
    for reason in verdict.get("reasons").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        output::line(match reason {
            "only_here" => format!("{} entries are only on this device.", count("only_here")),
            "not_at_relay" => format!("{} entries are at no relay.", count("not_at_relay")),
            "owner_key" => "The owner's key is on this device, and nowhere else.".to_owned(),
            "relay" => "This is a relay: what it asked customers for is nowhere else.".to_owned(),
            "shift_open" => {
                format!("Shift {} is on this device: close it or hand it over.", text(&verdict, "shift_id"))
            }
            other => other.to_owned(),
        })?;
    }
    let journals = verdict.get("journals").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Vec<String>> = journals.map(row).collect();
    output::table(&["WRITTEN BY", "ENTRIES", "ONLY HERE", "NOT AT A RELAY", "ALSO HELD BY"], &rows)
}

fn row(held: &Value) -> Vec<String> {
    let count = |field: &str| held.get(field).and_then(Value::as_u64).unwrap_or_default().to_string();
    let named = |party: &Value| {
        let name = text(party, "name");
        if name.is_empty() { text(party, "device").to_owned() } else { name.to_owned() }
    };
    let holders: Vec<String> = held.get("holders").and_then(Value::as_array).into_iter().flatten().map(named).collect();
    let author = held.get("author").map(named).unwrap_or_default();
    vec![author, count("entries"), count("only_here"), count("not_at_relay"), holders.join(", ")]
}
