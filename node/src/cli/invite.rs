//! Inviting a device.

use std::io::IsTerminal;

use clap::ValueEnum;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use super::sale::text;
use super::{Context, output, session};
use crate::join::Invitation;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh invite
  tillmesh invite --role relay --address /ip4/203.0.113.5/tcp/7471

Run it on the device where the business was made. Each invitation lets in one device, once,
within a day.")]
pub(super) struct Args {
    /// What the new device is
    #[arg(long, value_enum, default_value = "till")]
    role: InvitedRole,
    /// Further multiaddrs at which this device can be reached
    #[arg(long = "address", value_name = "MULTIADDR")]
    addresses: Vec<String>,
    /// Print the QR code even if this is no terminal
    #[arg(long)]
    qr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InvitedRole {
    Till,
    Relay,
}

impl InvitedRole {
    const fn word(self) -> &'static str {
        match self {
            Self::Till => "till",
            Self::Relay => "relay",
        }
    }
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (made, running) = session::with(context, async |session| {
        let body = json!({"role": args.role.word()});
        let made = session.post("/api/invitations", &body).await?;
        Ok((made, session.is_running_node().await))
    })
    .await?;
    let mut invitation: Invitation = text(&made, "invitation").parse()?;
    invitation.addresses.splice(0..0, args.addresses.iter().cloned());
    let code = invitation.to_string();
    if context.json {
        let addresses: Vec<Value> = invitation.addresses.iter().map(|address| json!(address)).collect();
        return output::line(json!({"invitation": code, "role": args.role.word(), "addresses": addresses}));
    }
    output::line(&code)?;
    if args.qr || std::io::stdout().is_terminal() {
        let picture = QrCode::new(code.as_bytes())?.render::<Dense1x2>().quiet_zone(true).build();
        output::line(picture)?;
    }
    output::line(format!("On the new {}: tillmesh join INVITATION --device-name NAME", args.role.word()))?;
    if !running {
        output::line("Before that, start tillmesh run here: this node has to be running to let the device in.")?;
    }
    if invitation.addresses.is_empty() {
        output::line(
            "The invitation names no address of this device: the new one finds it by multicast in the same \
             network, or takes it with --peer.",
        )?;
    }
    Ok(())
}
