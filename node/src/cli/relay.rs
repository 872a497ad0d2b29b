//! Running a relay: a node that keeps everything and asks for payments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crdt_model::record::Role;

use super::Context;
use super::failure::Failure;
use super::network::NetworkArgs;
use super::run::{Named, node_config, until_told};
use crate::config::Config;
use crate::folder;
use crate::node::Node;
use crate::payments::{MpesaConfig, WebhookConfig};
use crate::relay::{Relay, RelayConfig};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh relay --mpesa mpesa.toml --callbacks 0.0.0.0:7472 --callback-base-url https://pay.example
  tillmesh relay --data r --api 127.0.0.1:7480

The device has to be enrolled as a relay: tillmesh invite --role relay. Without --mpesa it keeps
everything, and asks nobody for payments.")]
pub(super) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// The M-PESA credentials file
    #[arg(long, env = "TILLMESH_MPESA", value_name = "FILE")]
    mpesa: Option<PathBuf>,
    /// Another payment provider's file; may be given several times
    #[arg(long, value_name = "FILE")]
    webhook: Vec<PathBuf>,
    /// Where payment callbacks are taken, apart from the API; 127.0.0.1:7472 if not given
    #[arg(long, env = "TILLMESH_CALLBACKS", value_name = "ADDR")]
    callbacks: Option<SocketAddr>,
    /// Where the provider finds that listener; the credentials file's if not given
    #[arg(long, env = "TILLMESH_CALLBACK_BASE_URL", value_name = "URL")]
    callback_base_url: Option<String>,
    /// After how many minutes a payment that was never asked for waits for the till's word; 30 if
    /// not given
    #[arg(long, env = "TILLMESH_STALE_INTENT_MINUTES", value_name = "MINUTES")]
    stale_intent_minutes: Option<u64>,
    /// For trials with the simulator: how often its list of transactions is read
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    trial_pull_seconds: Option<u64>,
    /// For trials with the simulator: after how long what the list lacks was not paid
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    trial_absent_seconds: Option<u64>,
    /// For trials with the simulator: after how long a receipt that the list lacks is a suspect
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    trial_dispute_seconds: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let config = args.over(context.config()?);
    let mut relay_config = args.trial(relay_config(&config)?)?;
    for file in &args.webhook {
        relay_config.webhooks.push(WebhookConfig::load(file)?);
        relay_config.callbacks = Some(config.callbacks);
    }
    let opened = folder::open(&context.data()?, config.marker.as_deref())?;
    if opened.identity.certificate.role != Role::Relay {
        let message = "this device is enrolled as a till: use tillmesh run, or join in another folder with an \
                       invitation from tillmesh invite --role relay";
        return Err(Failure::new("not_a_relay", message).into());
    }
    let (named, identity) = (Named::of(&opened), opened.identity.clone());
    let node = Node::start_opened(node_config(context, &config)?, opened).await?;
    let relay = match Relay::start(node.shop().clone(), &identity, relay_config).await {
        Ok(relay) => relay,
        Err(error) => {
            node.stop().await.map_err(anyhow::Error::msg)?;
            return Err(error.into());
        }
    };
    if let Some(callbacks) = relay.callbacks() {
        tracing::info!(%callbacks, "payment callbacks are taken");
    }
    named.tell_ready(&node, context.json)?;
    until_told(node, relay.stop()).await
}

impl Args {
    /// Real money must never wait for less than its provider needs.
    fn trial(&self, config: RelayConfig) -> anyhow::Result<RelayConfig> {
        let seconds = [self.trial_pull_seconds, self.trial_absent_seconds, self.trial_dispute_seconds];
        if seconds.iter().all(Option::is_none) {
            return Ok(config);
        }
        if config.mpesa.as_ref().is_none_or(|mpesa| mpesa.base_url.scheme() != "http") {
            let message = "the --trial options are for the simulator on this machine: leave them out";
            return Err(Failure::usage(message).into());
        }
        let [pull, absent, dispute] = seconds.map(|seconds| seconds.map(Duration::from_secs));
        Ok(RelayConfig {
            pull_every: pull.unwrap_or(config.pull_every),
            check_every: pull.unwrap_or(config.check_every).min(config.check_every),
            absent_after: absent.unwrap_or(config.absent_after),
            dispute_after: dispute.unwrap_or(config.dispute_after),
            ..config
        })
    }

    fn over(&self, config: Config) -> Config {
        let config = self.network.over(config);
        Config {
            mpesa: self.mpesa.clone().or(config.mpesa),
            callbacks: self.callbacks.unwrap_or(config.callbacks),
            callback_base_url: self.callback_base_url.clone().or(config.callback_base_url),
            stale_intent_minutes: self.stale_intent_minutes.unwrap_or(config.stale_intent_minutes),
            ..config
        }
    }
}

fn relay_config(config: &Config) -> anyhow::Result<RelayConfig> {
    let stale_s = config
        .stale_intent_minutes
        .checked_mul(60)
        .ok_or_else(|| Failure::usage("stale_intent_minutes is beyond any clock: choose a smaller number"))?;
    let defaults = RelayConfig { stale_intent: Duration::from_secs(stale_s), ..RelayConfig::default() };
    let Some(file) = &config.mpesa else { return Ok(defaults) };
    let mut mpesa = MpesaConfig::load(file)?;
    if let Some(url) = &config.callback_base_url {
        let wrong = |_| Failure::usage("callback_base_url is no address: write it like https://pay.example");
        mpesa.callback_base_url = url.parse().map_err(wrong)?;
        mpesa.check()?;
    }
    Ok(RelayConfig { mpesa: Some(mpesa), callbacks: Some(config.callbacks), ..defaults })
}
