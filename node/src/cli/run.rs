//! Running a till's node until it is told to stop.

use serde_json::json;

use super::network::{NetworkArgs, told_to_stop};
use super::{Context, output};
use crate::config::Config;
use crate::folder::{self, OpenFolder};
use crate::node::{Node, NodeConfig};
use crate::upstream::UpstreamConfig;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh run
  tillmesh run --data d --api 127.0.0.1:7470
  tillmesh run --listen /ip4/192.168.1.5/tcp/7471 --peer /ip4/192.168.1.6/tcp/7471 --no-mdns
  tillmesh run --no-lan --bluetooth hci1

Every setting can also be in config.toml in the data folder, or in the environment, such as
TILLMESH_API. A flag goes over the environment, which goes over the file.")]
pub(super) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let config = args.network.over(context.config()?);
    let opened = folder::open(&context.data()?, config.marker.as_deref())?;
    let named = Named::of(&opened);
    let node = Node::start_opened(node_config(context, &config)?, opened).await?;
    named.tell_ready(&node, context.json)?;
    until_told(node, async {}).await
}

/// How the node of a command is run.
pub(super) fn node_config(context: &Context, config: &Config) -> anyhow::Result<NodeConfig> {
    Ok(NodeConfig {
        data: context.data()?,
        marker: config.marker.clone(),
        api: Some(config.api),
        listen: config.listen.clone(),
        peers: config.peers.clone(),
        mdns: config.finds_by_multicast(),
        bluetooth: config.bluetooth_choice(),
        bluetooth_l2cap: config.bluetooth_l2cap,
        bluetooth_budget: config.bluetooth_budget(),
        upstream: config.upstream.as_deref().map(UpstreamConfig::load).transpose()?,
    })
}

/// Runs until someone says stop or the disk fails; `before_stop` ends what needs the node.
pub(super) async fn until_told(node: Node, before_stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let failed = tokio::select! {
        told = told_to_stop() => {
            told?;
            None
        }
        reason = node.ended() => Some(reason.unwrap_or_else(|| "the node ended by itself: see its log".to_owned())),
    };
    before_stop.await;
    let stopped = node.stop().await;
    match failed {
        Some(reason) => anyhow::bail!("the node stopped: {reason}"),
        None => stopped.map_err(anyhow::Error::msg),
    }
}

/// Who runs.
#[derive(Debug)]
pub(super) struct Named {
    business: String,
    business_name: String,
    device_name: String,
}

impl Named {
    pub(super) fn of(opened: &OpenFolder) -> Self {
        Self {
            business: opened.identity.genesis.business().to_string(),
            business_name: opened.identity.genesis.name.clone(),
            device_name: opened.identity.certificate.name.clone(),
        }
    }

    /// The one line that says that the node is ready.
    pub(super) fn tell_ready(&self, node: &Node, as_json: bool) -> anyhow::Result<()> {
        let (api, addresses) = (node.api().map(|api| api.to_string()), node.addresses());
        if as_json {
            return output::line(json!({
                "api": api,
                "addresses": addresses,
                "device": node.device().to_string(),
                "business": self.business,
            }));
        }
        let links = if addresses.is_empty() { "none".to_owned() } else { addresses.join(" ") };
        let api = api.unwrap_or_default();
        output::line(format!("{} of {}: API http://{api}, links {links}", self.device_name, self.business_name))
    }
}
