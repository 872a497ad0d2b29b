//! The calls of the shop's own server: to be kept elsewhere, and to be checked.

use std::io::Write;

use serde_json::Value;

use super::failure::Failure;
use super::{Context, output, session};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Checks that nobody has changed the list of calls, as far as another device can prove it
    Verify,
    /// Writes calls to standard output, the first one first
    #[command(after_help = "Example:\n  tillmesh audit export --status failed,cut_off --from 2026-03-01 > failed.csv")]
    Export {
        /// As comma-separated values, or one JSON object a line
        #[arg(long, default_value = "csv")]
        format: Format,
        #[command(flatten)]
        which: Which,
    },
}

/// Which calls; all without.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Which {
    /// How they ended, with commas between: success, failed, partial, cut_off
    #[arg(long)]
    status: Option<String>,
    /// For operations of this type, such as sale
    #[arg(long = "type", value_name = "TYPE")]
    operation_type: Option<String>,
    /// For operations that this device recorded: its id
    #[arg(long)]
    device: Option<String>,
    /// Over this kind of network, such as 4g
    #[arg(long)]
    network: Option<String>,
    /// That began then or later: 2026-03-01T08:00:00Z, or one of the shop's days
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// That began then or earlier; a day to its end
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    Csv,
    Jsonl,
}

const COLUMNS: [&str; 17] = [
    "number",
    "operation",
    "operation_type",
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
        Args::Export { format, which } => export(format, &which, context).await,
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

async fn export(format: Format, which: &Which, context: &Context) -> anyhow::Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    if matches!(format, Format::Csv) {
        csv.write_record(COLUMNS)?;
    }
    let mut lines = Vec::new();
    let path = format!("/api/audit{}", which.query());
    session::with(context, async |session| {
        let keep = |call: Value| {
            match format {
                Format::Jsonl => writeln!(lines, "{call}")?,
                Format::Csv => csv.write_record(COLUMNS.map(|column| cell(call.get(column))))?,
            }
            Ok(())
        };
        session.some_items(&path, which.limit, keep).await
    })
    .await?;
    let bytes = if matches!(format, Format::Csv) { csv.into_inner()? } else { lines };
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

impl Which {
    fn query(&self) -> String {
        let fields = [
            ("status", &self.status),
            ("type", &self.operation_type),
            ("device", &self.device),
            ("network", &self.network),
            ("from", &self.from),
            ("to", &self.to),
        ];
        session::query(fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))))
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
