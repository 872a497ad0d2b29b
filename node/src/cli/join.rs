//! Joining a business.

use crdt_model::record::Role;
use serde_json::json;

use super::failure::Failure;
use super::{Context, output};
use crate::config::is_loopback;
use crate::join::{self, Invitation, JoinConfig};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tillmesh join TILLMESH1... --device-name \"Till 2\"

The device that made the invitation has to be running. If it can't be found, give its address
with --peer; tillmesh run prints it.")]
pub(super) struct Args {
    /// The whole text that tillmesh invite printed
    invitation: Invitation,
    /// This device's name among people
    #[arg(long)]
    device_name: String,
    /// Multiaddrs of the inviting device
    #[arg(long = "peer", value_name = "MULTIADDR")]
    peers: Vec<String>,
    /// Don't look for the inviting device by multicast
    #[arg(long)]
    no_mdns: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let data = context.data()?;
    // Devices on one machine need no multicast to find each other.
    let mut known = args.peers.iter().chain(&args.invitation.addresses).peekable();
    let all_here = known.peek().is_some() && known.all(|address| is_loopback(address));
    let config =
        JoinConfig { name: args.device_name.clone(), peers: args.peers.clone(), mdns: !args.no_mdns && !all_here };
    let certificate = tokio::select! {
        joined = join::join(&data, &args.invitation, config) => joined?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failure::new("interrupted", "interrupted: run the same command again to join").into());
        }
    };
    let (role, next) = match certificate.role {
        Role::Till => ("till", "tillmesh run"),
        Role::Relay => ("relay", "tillmesh relay"),
    };
    let business = args.invitation.business;
    if context.json {
        return output::line(json!({
            "business": business.to_string(),
            "device": certificate.device.to_string(),
            "device_name": certificate.name,
            "role": role,
            "data": data,
        }));
    }
    output::line(format!("{} joined business {business} as a {role}. Next: {next}", certificate.name))
}
