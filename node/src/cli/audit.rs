//! The calls of the shop's own server: to be kept elsewhere, and to be checked.

use std::io::Write;

use serde_json::Value;

use super::failure::Failure;
use super::{Context, output, session};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Checks that nobody has changed the list of calls, as far as another device can prove it
    Verify,
    /// Writes every call to standard output
    Export {
        /// As comma-separated values, or one JSON object a line
        #[arg(long, default_value = "csv")]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    Csv,
    Jsonl,
}

const COLUMNS: [&str; 16] = [
    "number",
    "operation",
    "attempt",
    "at",
    "durationMs",
    "status",
    "http_status",
    "error_class",
    "error_code",
    "error",
    "endpoint",
    "bytes_sent",
    "bytes_received",
    "device",
    "network_type",
    "hash",
];

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args {
        Args::Verify => verify(context).await,
        Args::Export { format } => export(format, context).await,
    }
}

async fn verify(context: &Context) -> anyhow::Result<()> {
    let said = session::with(context, async |session| session.get("/api/audit/verify").await).await?;
    let message = said.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
    if said.get("ok") != Some(&Value::Bool(true)) {
        return Err(Failure::new("audit_broken", message).into());
    }
    output::line(if context.json { said.to_string() } else { message })
}

async fn export(format: Format, context: &Context) -> anyhow::Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    if matches!(format, Format::Csv) {
        csv.write_record(COLUMNS)?;
    }
    let mut lines = Vec::new();
    session::with(context, async |session| {
        let keep = |call: Value| {
            match format {
                Format::Jsonl => writeln!(lines, "{call}")?,
                Format::Csv => csv.write_record(COLUMNS.map(|column| cell(call.get(column))))?,
            }
            Ok(())
        };
        session.each_item("/api/audit", keep).await
    })
    .await?;
    let bytes = if matches!(format, Format::Csv) { csv.into_inner()? } else { lines };
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
