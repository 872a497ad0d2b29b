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
    let status = session::with(context, async |session| {
        Ok(json!({
            "running": session.is_running_node().await,
            "business": session.get("/api/business").await?,
            "offline": session.get("/api/offline/status").await?,
            "peers": session.get("/api/peers").await?.get("items").cloned().unwrap_or_default(),
        }))
    })
    .await?;
    if context.json {
        return output::line(status);
    }
    let (business, offline) = (&status["business"], &status["offline"]);
    let node = if status["running"] == true { "running" } else { "not running" };
    output::line(format!(
        "{} ({}), business {}",
        text(business, "name"),
        text(business, "currency"),
        text(business, "id")
    ))?;
    output::line(format!("This device is {}; its node is {node}", text(business, "device")))?;
    let count = |field: &str| offline.get(field).and_then(Value::as_u64).unwrap_or_default();
    output::line(format!(
        "{} operations: {} at the relay, {} to go, {} conflicts, {} failed",
        count("total"),
        count("synced"),
        count("pending") + count("syncing"),
        count("conflicts"),
        count("failed")
    ))?;
    let peers = status["peers"].as_array().map(Vec::len).unwrap_or_default();
    output::line(format!("{peers} other devices; list them with tillmesh peers"))
}

/// The business's currency.
pub(super) async fn currency(session: &Session) -> anyhow::Result<Currency> {
    let business = session.get("/api/business").await?;
    Ok(text(&business, "currency").parse()?)
}
