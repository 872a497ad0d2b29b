//! The other devices.

use serde_json::Value;

use super::sale::text;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(Args {}: Args, context: &Context) -> anyhow::Result<()> {
    let peers = session::with(context, async |session| session.get("/api/peers").await).await?;
    if context.json {
        return output::line(peers);
    }
    let rows: Vec<Vec<String>> = peers.get("items").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return output::line("No other devices yet. Let one in with tillmesh invite.");
    }
    output::table(&["NAME", "ROLE", "LINK", "LACKS", "LAST HEARD", "DEVICE"], &rows)
}

fn row(peer: &Value) -> Vec<String> {
    let link = if peer.get("connected") == Some(&Value::Bool(true)) { "up" } else { "down" };
    let lacks = peer.get("lacks").and_then(Value::as_u64).unwrap_or_default().to_string();
    let word = |field| text(peer, field).to_owned();
    vec![word("name"), word("role"), link.to_owned(), lacks, word("last_heard"), word("device")]
}
