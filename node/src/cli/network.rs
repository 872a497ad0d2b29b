//! The flags of commands that serve, over the environment, over the config file.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal;

use crate::config::{BluetoothChoice, Config};

/// Where the API and the links are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct NetworkArgs {
    /// Where the HTTP API listens; 127.0.0.1:7470 if not given
    #[arg(long, env = "TILLMESH_API", value_name = "ADDR")]
    api: Option<SocketAddr>,
    /// Multiaddrs that links listen on; port 7471 everywhere if not given
    #[arg(long, env = "TILLMESH_LISTEN", value_delimiter = ',', value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Multiaddrs of other devices
    #[arg(long = "peer", env = "TILLMESH_PEERS", value_delimiter = ',', value_name = "MULTIADDR")]
    peers: Vec<String>,
    /// Whether to find devices by multicast; yes if not given, unless only loopback is listened on
    #[arg(long, env = "TILLMESH_MDNS", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    mdns: Option<bool>,
    /// Don't look for devices by multicast
    #[arg(long)]
    no_mdns: bool,
    /// The Bluetooth adapter, by name (hci0) or address; auto: any there is; off: none. If not
    /// given, auto, unless only loopback is listened on
    #[arg(long, env = "TILLMESH_BLUETOOTH", value_name = "ADAPTER|auto|off")]
    bluetooth: Option<BluetoothChoice>,
    /// The upstream file: how to reach the shop's own server. A relay sends it what it heard from the
    /// tills, a till what it records from now on
    #[arg(long, env = "TILLMESH_UPSTREAM", value_name = "FILE")]
    upstream: Option<PathBuf>,
    /// No links over the local network: Bluetooth alone
    #[arg(long, conflicts_with_all = ["listen", "peers"])]
    no_lan: bool,
    /// No links at all: only the API
    #[arg(long)]
    no_network: bool,
}

impl NetworkArgs {
    /// Puts what was given over a config.
    pub(super) fn over(&self, mut config: Config) -> Config {
        config.api = self.api.unwrap_or(config.api);
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        if !self.peers.is_empty() {
            config.peers.clone_from(&self.peers);
        }
        config.mdns = if self.no_mdns { Some(false) } else { self.mdns.or(config.mdns) };
        config.bluetooth = self.bluetooth.clone().or(config.bluetooth);
        config.upstream = self.upstream.clone().or(config.upstream);
        if self.no_lan || self.no_network {
            config.listen.clear();
            config.peers.clear();
            config.mdns = Some(false);
        }
        if self.no_network {
            config.bluetooth = Some(BluetoothChoice::Off);
        }
        config
    }
}

/// Waits for Ctrl-C, or for the word to end that service managers send.
pub(super) async fn told_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    signal::ctrl_c().await
}
