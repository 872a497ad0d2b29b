//! What sending to the shop's own server came to.

use serde_json::Value;

use super::sale::text;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tillmesh analytics --from 2026-03-01 --to 2026-03-31 --json")]
pub(super) struct Args {
    /// The first of the shop's days; six before the last if not given
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last of them; today if not given
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Only operations that this device recorded: its id
    #[arg(long)]
    device: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let fields = [("from", &args.from), ("to", &args.to), ("device", &args.device)];
    let query = session::query(fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
    let path = format!("/api/analytics{query}");
    let said = session::with(context, async |session| session.get(&path).await).await?;
    if context.json {
        return output::line(said);
    }
    output::line(format!("{} to {}", text(&said, "from"), text(&said, "to")))?;
    let mut rows = vec![row("all", said.get("total").unwrap_or(&Value::Null))];
    rows.extend(list(&said, "days").map(|day| row(text(day, "day"), day)));
    rows.extend(list(&said, "devices").map(|device| row(name_of(device), device)));
    output::table(&["", "CALLS", "SUCCESS", "FAILED", "PARTIAL", "RATE", "P50", "P95", "SENT", "RECEIVED"], &rows)?;
    for network in list(said.get("total").unwrap_or(&Value::Null), "networks") {
        let [word, quality] = ["network_type", "quality"].map(|field| text(network, field));
        output::line(format!("network {word}: {quality}, {} calls", cell(network.get("calls"))))?;
    }
    for offline in list(&said, "offline") {
        let seconds = offline.get("offline_ms").and_then(Value::as_u64).unwrap_or_default() / 1_000;
        let longest = offline.get("longest_ms").and_then(Value::as_u64).unwrap_or_default() / 1_000;
        output::line(format!(
            "without {}: {} times, {seconds} s together, {longest} s the longest",
            text(offline, "without"),
            cell(offline.get("stretches"))
        ))?;
    }
    Ok(())
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn name_of(device: &Value) -> &str {
    let name = text(device, "name");
    if name.is_empty() { text(device, "device") } else { name }
}

fn row(name: &str, figures: &Value) -> Vec<String> {
    let counts = ["calls", "success", "failed", "partial", "success_rate"].map(|field| cell(figures.get(field)));
    let took = ["p50_ms", "p95_ms"].map(|field| {
        let ms = figures.get("latency").and_then(|latency| latency.get(field));
        ms.and_then(Value::as_u64).map(|ms| format!("{ms} ms")).unwrap_or_default()
    });
    let bytes = ["bytes_sent", "bytes_received"].map(|field| cell(figures.get(field)));
    std::iter::once(name.to_owned()).chain(counts).chain(took).chain(bytes).collect()
}

fn cell(value: Option<&Value>) -> String {
    value.filter(|value| !value.is_null()).map(ToString::to_string).unwrap_or_default()
}
