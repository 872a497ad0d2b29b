//! Giving payments to another relay, or to a restored relay's new epoch.

use serde_json::{Value, json};

use super::failure::Failure;
use super::sale::{tell, text};
use super::{Context, output, session};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh payments move --to relay               # a relay was restored: its new epoch goes on
  tillmesh payments move --to relay2              # another relay takes over; the old one lets go
  tillmesh payments move --to relay2 --old-is-gone

Run it on the device with the owner's key. A payment goes over once its old relay says that it can't
charge any more; where that relay was restored or is lost, once M-PESA's own list was read whole over
the gap. Until then nobody asks for it. Say --old-is-gone only of a relay that will never run again.")]
pub(super) struct Move {
    /// The relay that is to have them: its name, or its device id
    #[arg(long, value_name = "RELAY")]
    to: String,
    /// Its epoch; the latest that this device knows if not given
    #[arg(long, value_name = "N")]
    to_epoch: Option<u64>,
    /// Whose payments, as DEVICE:EPOCH; the paying relay's if not given
    #[arg(long, value_name = "LEDGER")]
    from: Option<String>,
    /// Only this payment
    #[arg(long, value_name = "ID")]
    payment: Option<String>,
    /// The old relay is lost for good, and asks nobody any more
    #[arg(long)]
    old_is_gone: bool,
}

pub(super) async fn run(args: Move, context: &Context) -> anyhow::Result<()> {
    let from = match &args.from {
        None => Value::Null,
        Some(from) => {
            let (device, epoch) = from
                .split_once(':')
                .and_then(|(device, epoch)| Some((device, epoch.parse::<u64>().ok()?)))
                .ok_or_else(|| Failure::usage("--from is a device id, a colon and an epoch"))?;
            json!({ "device": device, "epoch": epoch })
        }
    };
    let body = json!({
        "from": from,
        "to": args.to,
        "to_epoch": args.to_epoch,
        "payment_id": args.payment,
        "old_is_gone": args.old_is_gone,
    });
    let answer = session::with(context, async |session| session.post("/api/payments/moves", &body).await).await?;
    if context.json {
        return output::line(answer);
    }
    output::line("Payments go over as soon as that is safe: tillmesh payments moves shows how far it has come.")?;
    tell(&answer)
}

pub(super) async fn list(context: &Context) -> anyhow::Result<()> {
    let moves = session::with(context, async |session| session.get("/api/payments/moves").await).await?;
    if context.json {
        return output::line(moves);
    }
    let items = moves.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let ledger = |of: &Value| format!("{}:{}", text(of, "device"), of.get("epoch").unwrap_or(&Value::Null));
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|one| {
            let number = |field: &str| one.get(field).map(ToString::to_string).unwrap_or_default();
            let from = ledger(one.get("from").unwrap_or(&Value::Null));
            let to = ledger(one.get("to").unwrap_or(&Value::Null));
            vec![text(one, "at").to_owned(), from, to, number("gone_over"), number("waiting")]
        })
        .collect();
    output::table(&["SAID", "FROM", "TO", "GONE OVER", "WAITING"], &rows)
}
