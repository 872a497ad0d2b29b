//! Where things stand.

use crdt_model::money::Currency;
use serde_json::{Value, json};

use super::sale::text;
use super::session::Session;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tillmesh status --json")]
pub(super) struct Args {}

pub(super) async fn run(Args {}: Args, context: &Context) -> anyhow::Result<()> {
    let (running, business, offline, peers) = session::with(context, async |session| {
        let running = session.is_running_node().await;
        let business = session.get("/api/business").await?;
        let offline = session.get("/api/offline/status").await?;
        let peers = session.get("/api/peers").await?.get("items").cloned().unwrap_or_default();
        Ok((running, business, offline, peers))
    })
    .await?;
    if context.json {
        return output::line(json!({"running": running, "business": business, "offline": offline, "peers": peers}));
    }
    let named = |field| text(&business, field);
    let node = if running { "running" } else { "not running" };
    output::line(format!("{} ({}), business {}", named("name"), named("currency"), named("id")))?;
    output::line(format!("This device is {}, {}; its node is {node}", named("device_name"), named("device")))?;
    let count = |field: &str| offline.get(field).and_then(Value::as_u64).unwrap_or_default();
    output::line(format!(
        "{} operations: {} at the relay, {} to go, {} conflicts, {} failed",
        count("total"),
        count("synced"),
        count("pending") + count("syncing"),
        count("conflicts"),
        count("failed")
    ))?;
    output::line(format!("{} other devices; list them with tillmesh peers", peers.as_array().map_or(0, Vec::len)))
}

/// The business's currency.
pub(super) async fn currency(session: &Session) -> anyhow::Result<Currency> {
    let business = session.get("/api/business").await?;
    Ok(text(&business, "currency").parse()?)
}
