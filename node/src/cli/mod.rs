//! The command line: one command a file.

mod analytics;
mod audit;
mod bench;
mod completions;
mod conflicts;
mod demo;
mod doctor;
mod expense;
mod export;
mod failure;
mod handoff;
mod import;
mod init;
mod invite;
mod join;
mod logs;
mod mpesa_simulator;
mod network;
mod output;
mod payments;
mod payments_move;
mod peers;
mod relay;
mod run;
mod safe_to_wipe;
mod sale;
mod session;
mod status;
mod till_roll;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{CONFIG_FILE, Config};
use failure::Failure;
use logs::LogFormat;

/// The node on every till, phone and server of a shop where internet comes and goes.
#[derive(Debug, Parser)]
#[command(name = "tillmesh", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tillmesh demo
  tillmesh init --name \"Duka\" --currency KES
  tillmesh run
  tillmesh sale --line BREAD:2:65.00 --pay cash

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
With --json, an error is one line on stderr: {\"error\":{\"code\",\"message\",\"field\"}}.";

#[derive(Debug, clap::Args)]
struct Global {
    /// The data folder; if not given, tillmesh in the user's own data folder
    #[arg(long, global = true, env = "TILLMESH_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The config file; if not given, config.toml in the data folder
    #[arg(long, global = true, env = "TILLMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the restore marker is, if not in the data folder
    #[arg(long, global = true, env = "TILLMESH_MARKER", value_name = "FILE", hide_short_help = true)]
    marker: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How the log on stderr is written
    #[arg(long, global = true, env = "TILLMESH_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a business, with this device as its first
    Init(init::Args),
    /// Let another device into the business
    Invite(invite::Args),
    /// Join a business with an invitation
    Join(join::Args),
    /// Run the node of a till
    Run(run::Args),
    /// Run the node of a relay: it keeps everything and asks for payments
    Relay(relay::Args),
    /// Run a stand-in for M-PESA, which moves no money
    MpesaSimulator(mpesa_simulator::Args),
    /// Show the business, what waits for the relay, and the other devices
    Status(status::Args),
    /// Record a sale
    Sale(sale::Args),
    /// Record an expense
    Expense(expense::Args),
    /// Take in another system's sales
    Import(import::Args),
    /// Write the books out
    Export(export::Args),
    /// Hand a shift to another till, or take one
    Handoff(handoff::Args),
    /// Reconcile payments with the provider's statement, or try them by the thousand
    Payments(payments::Args),
    /// List the other devices
    Peers(peers::Args),
    /// Say what would be lost with this device
    SafeToWipe(safe_to_wipe::Args),
    /// List what has to be decided by a person
    Conflicts(conflicts::Args),
    /// Check or write out the calls of the shop's own server
    #[command(subcommand)]
    Audit(audit::Args),
    /// Show what sending to the shop's own server came to, by day and by device
    Analytics(analytics::Args),
    /// Look at this machine, and say what to do
    Doctor(doctor::Args),
    /// Sell a day with several tills, a relay and payments, and check the books
    Demo(demo::Args),
    /// Measure, each figure beside its floor
    Bench(bench::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// What every command is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    data: Option<PathBuf>,
    config: Option<PathBuf>,
    marker: Option<PathBuf>,
    /// Whether to answer in JSON.
    pub(crate) json: bool,
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let serving = matches!(cli.command, Command::Run(_) | Command::Relay(_) | Command::MpesaSimulator(_));
    let json = cli.global.json;
    let outcome = logs::start(cli.global.verbose, serving, cli.global.log_format).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(carry_out(cli));
        // A question to the terminal or a name server may never be answered.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::of(error).report(json),
    }
}

async fn carry_out(cli: Cli) -> anyhow::Result<()> {
    let Global { data, config, marker, json, .. } = cli.global;
    let context = Context { data, config, marker, json };
    match cli.command {
        Command::Init(args) => init::run(args, &context),
        Command::Invite(args) => invite::run(args, &context).await,
        Command::Join(args) => join::run(args, &context).await,
        Command::Run(args) => run::run(args, &context).await,
        Command::Relay(args) => relay::run(args, &context).await,
        Command::MpesaSimulator(args) => mpesa_simulator::run(args, &context).await,
        Command::Status(args) => status::run(args, &context).await,
        Command::Sale(args) => sale::run(args, &context).await,
        Command::Expense(args) => expense::run(args, &context).await,
        Command::Import(args) => import::run(args, &context).await,
        Command::Export(args) => export::run(args, &context).await,
        Command::Handoff(args) => handoff::run(args, &context).await,
        Command::Payments(args) => payments::run(args, &context).await,
        Command::Peers(args) => peers::run(args, &context).await,
        Command::Analytics(args) => analytics::run(args, &context).await,
        Command::Audit(args) => audit::run(args, &context).await,
        Command::SafeToWipe(args) => safe_to_wipe::run(args, &context).await,
        Command::Conflicts(args) => conflicts::run(args, &context).await,
        Command::Doctor(args) => doctor::run(args, &context).await,
        Command::Demo(args) => demo::run(args, &context).await,
        Command::Bench(args) => bench::run(args, &context).await,
        Command::Completions(args) => completions::run(args),
    }
}

impl Context {
    /// The data folder.
    pub(crate) fn data(&self) -> anyhow::Result<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let users = users_data_folder().ok_or_else(|| Failure::usage("there is no home folder: give --data DIR"))?;
        Ok(users.join("tillmesh"))
    }

    /// The config file over the defaults, and the marker's flag over both.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(file) => Config::load(file),
            None => {
                let file = self.data()?.join(CONFIG_FILE);
                if file.exists() { Config::load(&file) } else { Ok(Config::default()) }
            }
        }
        .map_err(|error| Failure::usage(error.to_string()))?;
        config.marker = self.marker.clone().or(config.marker);
        Ok(config)
    }
}

fn users_data_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    if cfg!(windows) {
        return set("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return Some(home?.join("Library/Application Support"));
    }
    set("XDG_DATA_HOME").or_else(|| Some(home?.join(".local/share")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_that_people_are_told_to_type_are_understood() {
        for line in [
            "init --data d --name Duka --currency KES",
            "run --data d --api 127.0.0.1:7470",
            "sale --data d --line BREAD:2:65.00 --pay mpesa:254708374149",
            "sale --line BREAD:2:65.00:5 --pay mpesa:0708374149:100 --pay cash",
            "relay --mpesa mpesa.toml --listen /ip4/127.0.0.1/tcp/0 --callbacks 127.0.0.1:0",
            "mpesa-simulator --listen 127.0.0.1:0 --credentials-out c.toml --decline-percent 20 --seed 7",
            "import --format online-retail file.csv.gz --rejects rejects.csv --json",
            "export --format jsonl --out - --documents saves",
            "invite --role relay --qr",
            "payments simulate --intents 10000 --seed 7 --json",
            "payments reconcile --statement statement.csv",
            "status --json",
            "handoff offer --to till-2 --counted 1250.00 --ticket 6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f",
            "handoff accept --counted 1250 --json",
            "handoff decide 6f1c9a52-0f6e-8c1d-9b3e-0a1b2c3d4e5f --to receiver",
            "handoff list --open",
            "safe-to-wipe --wait 0 --json",
            "analytics --from 2026-03-01 --to 2026-03-31 --json",
            "audit export --status failed --type sale --network 4g --from 2026-03-01 --limit 10 --format jsonl",
            "doctor --no-mdns --json",
            "run --no-lan --bluetooth hci1",
            "completions bash",
        ] {
            let words = std::iter::once("tillmesh").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "sale",
            "sale --line BREAD",
            "sale --line BREAD:2:65 --pay gold",
            "init --name Duka --currency kes",
            "join hello --device-name till-2",
            "run --api here",
            "run --no-lan --listen /ip4/127.0.0.1/tcp/0",
            "mpesa-simulator --decline-percent 101",
        ] {
            let words = std::iter::once("tillmesh").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
