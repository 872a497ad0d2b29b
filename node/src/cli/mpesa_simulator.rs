//! The stand-in for M-PESA, as a server.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::value_parser;
use serde_json::json;
use tokio::net::TcpListener;

use super::network::told_to_stop;
use super::{Context, output};
use crate::payments::MpesaConfig;
use crate::payments::simulator::{Mix, SimulatorConfig, fixed_phones, serve};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh mpesa-simulator --credentials-out mpesa.toml
  tillmesh relay --mpesa mpesa.toml

Receipts of the simulator start with TEST. Some phone numbers always do the same, such as
254700000001, who cancels; --phones lists them.")]
pub(super) struct Args {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:7480", value_name = "ADDR")]
    listen: SocketAddr,
    /// Write the credentials file that a relay needs to speak to it
    #[arg(long, value_name = "FILE")]
    credentials_out: Option<PathBuf>,
    /// Where the relay's callback listener is, for the credentials file; port 0 stands for
    /// whichever port a relay on this machine listens on
    #[arg(long, default_value = "http://127.0.0.1:0", value_name = "URL")]
    callback_base_url: String,
    /// The shop's number
    #[arg(long, default_value = "174379")]
    shortcode: String,
    /// Decides, with each payment, who declines and what goes wrong
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many customers in a hundred decline
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    decline_percent: u16,
    /// How many callbacks in a hundred come twice
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    repeat_percent: u16,
    /// How many callbacks in a hundred come before the answer
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    callback_first_percent: u16,
    /// How many pushes in a hundred are never answered, and not charged
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    timeout_percent: u16,
    /// How many pushes in a hundred are never answered, but charged
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    timeout_charged_percent: u16,
    /// How many payments in a hundred are charged, but never called back
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(0..=100))]
    silent_percent: u16,
    /// How many pushes a minute are taken; more are refused, uncharged
    #[arg(long, value_name = "N")]
    pushes_a_minute: Option<u32>,
    /// How many queries a minute are answered
    #[arg(long, value_name = "N")]
    queries_a_minute: Option<u32>,
    /// List the phone numbers that always do the same, and end
    #[arg(long)]
    phones: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if args.phones {
        return list_phones(context);
    }
    let config = SimulatorConfig {
        shortcode: args.shortcode.clone(),
        seed: args.seed,
        mix: Some(args.mix()),
        pushes_a_minute: args.pushes_a_minute,
        queries_a_minute: args.queries_a_minute,
        ..SimulatorConfig::default()
    };
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("the simulator can't listen on {}: choose another with --listen", args.listen))?;
    let base_url = format!("http://{}", listener.local_addr()?);
    if let Some(path) = &args.credentials_out {
        let text = config.credentials_toml(&base_url, &args.callback_base_url);
        MpesaConfig::from_toml(&text)?;
        write_private(path, &text)
            .with_context(|| format!("{} can't be written: choose another file", path.display()))?;
    }
    if context.json {
        output::line(json!({"base_url": base_url, "credentials": args.credentials_out}))?;
    } else {
        output::line(format!("The M-PESA simulator is at {base_url}; it moves no money"))?;
    }
    let stop = async {
        if let Err(error) = told_to_stop().await {
            tracing::error!(%error, "signals can't be heard: stopping");
        }
    };
    Ok(serve(config, listener, stop).await?)
}

impl Args {
    fn mix(&self) -> Mix {
        Mix {
            decline_permille: self.decline_percent * 10,
            repeat_permille: self.repeat_percent * 10,
            callback_first_permille: self.callback_first_percent * 10,
            timeout_charged_permille: self.timeout_charged_percent * 10,
            timeout_permille: self.timeout_percent * 10,
            silent_permille: self.silent_percent * 10,
        }
    }
}

fn list_phones(context: &Context) -> anyhow::Result<()> {
    let phones = fixed_phones();
    if context.json {
        let rows: Vec<_> = phones.iter().map(|(phone, does, _)| json!({"phone": phone, "does": does})).collect();
        return output::line(json!(rows));
    }
    let rows: Vec<_> = phones.iter().map(|(phone, does, _)| vec![phone.to_string(), does.to_string()]).collect();
    output::table(&["PHONE", "WHAT HAPPENS"], &rows)
}

/// Writes a whole file that only its user may read, or none.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // A named temporary file is private from its first byte.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
