//! The log on stderr.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `TILLMESH_LOG` says what is logged, such as `debug` or `tillmesh_node=trace`;
/// without it, a node that serves tells what happens in the shop, and other commands only what
/// went wrong.
pub(super) fn start(verbose: u8, serving: bool, format: LogFormat) -> anyhow::Result<()> {
    let filter = match (std::env::var("TILLMESH_LOG"), verbose, serving) {
        (Ok(directives), _, _) => EnvFilter::try_new(&directives)
            .map_err(|error| Failure::usage(format!("TILLMESH_LOG can't be used ({error}): write it like info")))?,
        (Err(_), 0, false) => EnvFilter::new("warn"),
        (Err(_), 0, true) => EnvFilter::new("info,libp2p=warn,tillmesh_node::api=warn"),
        (Err(_), 1, _) => EnvFilter::new("info,tillmesh_node=debug,transport=debug"),
        (Err(_), _, _) => EnvFilter::new("trace"),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more must not end the node.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log can't be started ({error})"))
}
