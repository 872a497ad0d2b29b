//! What has to be decided by a person.

use serde_json::Value;

use super::sale::text;
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "Decide one with POST /api/conflicts/ID/resolve.")]
pub(super) struct Args {}

pub(super) async fn run(Args {}: Args, context: &Context) -> anyhow::Result<()> {
    let conflicts = session::with(context, async |session| {
        let mut all = Vec::new();
        let keep = |conflict| {
            all.push(conflict);
            Ok(())
        };
        session.each_item("/api/conflicts", keep).await?;
        Ok(all)
    })
    .await?;
    if context.json {
        return output::line(Value::from(conflicts));
    }
    if conflicts.is_empty() {
        return output::line("Nothing to decide.");
    }
    let rows: Vec<Vec<String>> = conflicts.iter().map(row).collect();
    output::table(&["KIND", "ABOUT", "SIDES", "ID"], &rows)
}

fn row(conflict: &Value) -> Vec<String> {
    let about = ["field", "sku", "record_id"].map(|field| text(conflict, field)).join(" ");
    let sides = conflict.get("sides").and_then(Value::as_array).into_iter().flatten();
    let sides: Vec<String> = sides.filter_map(|side| side.get("value")).map(ToString::to_string).collect();
    vec![text(conflict, "kind").to_owned(), about.trim().to_owned(), sides.join(" | "), text(conflict, "id").to_owned()]
}
