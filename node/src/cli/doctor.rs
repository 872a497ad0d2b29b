//! Looking at the machine, and saying what to do.

use serde_json::json;

use super::failure::Failure;
use super::{Context, output, session};
use crate::config::BluetoothChoice;
use crate::doctor::{Check, DoctorConfig, Verdict, examine};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh doctor
  tillmesh doctor --no-mdns --json

It changes nothing. It sends one question by multicast, unless told not to, and looks at the links
of the node that runs on the data folder, if one does.")]
pub(super) struct Args {
    /// Send nothing by multicast
    #[arg(long)]
    no_mdns: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let config = context.config()?;
    let peers = session::of_running_node(context, "/api/peers").await;
    let checks = examine(DoctorConfig {
        data: context.data()?,
        multicast: !args.no_mdns,
        bluetooth: config.bluetooth != Some(BluetoothChoice::Off),
        peers,
    })
    .await;
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if context.json {
        output::line(json!({ "ok": failed == 0, "checks": checks }))?;
    } else {
        checks.iter().try_for_each(tell)?;
    }
    if failed > 0 {
        return Err(Failure::new("doctor_found_trouble", format!("{failed} of {} checks failed", checks.len())).into());
    }
    Ok(())
}

fn tell(check: &Check) -> anyhow::Result<()> {
    let verdict = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
        Verdict::Unknown => "-   ",
    };
    output::line(format!("{verdict}  {}: {}", check.name, check.found))?;
    match &check.advice {
        Some(advice) => output::line(format!("      {advice}")),
        None => Ok(()),
    }
}
