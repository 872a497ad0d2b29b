//! Handing a shift over, and taking one.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::sale::{fresh_id, tell, text};
use super::session::Session;
use super::till_roll::amount;
use super::{Context, output, session, status};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh handoff offer --to \"till 2\" --counted 1250.00
  tillmesh handoff list
  tillmesh handoff accept HANDOFF
  tillmesh handoff decide HANDOFF --to receiver --note \"her phone is lost\"

From the offer on, the shift is frozen on this till: open another to go on selling. It is the
other till's once that one has accepted and this one has heard of it.")]
pub(super) struct Args {
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Offer this till's open shift, with its float, cash and open tickets
    Offer(OfferArgs),
    /// Take a shift that was offered to this till
    Accept(AcceptArgs),
    /// List handoffs, the newest first
    List(ListArgs),
    /// Decline a shift; or go on with one's own where that is safe
    Withdraw(WithdrawArgs),
    /// Decide as the owner whose the shift is, because contact broke
    Decide(DecideArgs),
}

#[derive(Debug, clap::Args)]
struct OfferArgs {
    /// The till that is to have it: its name, or its device id
    #[arg(long, value_name = "TILL")]
    to: String,
    /// What is in the drawer, such as 1250.00
    #[arg(long, value_name = "AMOUNT")]
    counted: String,
    /// The shift; the open one if not given
    #[arg(long, value_name = "ID")]
    shift: Option<String>,
    /// An open ticket that goes along; all of this till's if none is given
    #[arg(long = "ticket", value_name = "ID", conflicts_with = "no_tickets")]
    tickets: Vec<String>,
    /// No ticket goes along
    #[arg(long)]
    no_tickets: bool,
    /// A note
    #[arg(long)]
    note: Option<String>,
    /// Your own id for it: offered once, however often you ask
    #[arg(long, value_name = "ID")]
    operation_id: Option<String>,
}

#[derive(Debug, clap::Args)]
struct AcceptArgs {
    /// The handoff; the one that is offered to this till if not given
    #[arg(value_name = "HANDOFF")]
    id: Option<String>,
    /// What you counted in the drawer; if not given, you agree with the giver
    #[arg(long, value_name = "AMOUNT")]
    counted: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those that are not over
    #[arg(long)]
    open: bool,
}

#[derive(Debug, clap::Args)]
struct WithdrawArgs {
    /// The handoff
    #[arg(value_name = "HANDOFF")]
    id: String,
    /// Why
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
struct DecideArgs {
    /// The handoff
    #[arg(value_name = "HANDOFF")]
    id: String,
    /// Whose the shift is to be
    #[arg(long, value_enum)]
    to: Side,
    /// Why
    #[arg(long)]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    Giver,
    Receiver,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if let Word::List(ListArgs { open }) = args.word {
        let handoffs = session::with(context, async |session| listed(session, open).await).await?;
        return show(handoffs, context);
    }
    let handoff = session::with(context, async |session| {
        let answer = say(session, args.word).await?;
        let handoff = session.get(&format!("/api/handoffs/{}", text(&answer, "id"))).await?;
        Ok((answer, handoff))
    });
    let (answer, handoff) = handoff.await?;
    if context.json {
        return output::line(handoff);
    }
    let (giver, receiver) = (party(&handoff, "giver"), party(&handoff, "receiver"));
    output::line(format!("Handoff {} from {giver} to {receiver}: {}", text(&handoff, "id"), text(&handoff, "status")))?;
    tell(&answer)
}

async fn say(session: &Session, word: Word) -> anyhow::Result<Value> {
    match word {
        Word::Offer(offer) => {
            let currency = status::currency(session).await?;
            let tickets =
                if offer.tickets.is_empty() && !offer.no_tickets { Value::Null } else { json!(offer.tickets) };
            let body = json!({
                "operation_id": offer.operation_id.map_or_else(fresh_id, Ok)?,
                "to": offer.to,
                "counted_minor": amount(currency, "counted_minor", &offer.counted)?,
                "shift_id": offer.shift,
                "tickets": tickets,
                "note": offer.note,
            });
            session.post("/api/handoffs", &body).await
        }
        Word::Accept(accept) => {
            let id = match accept.id {
                Some(id) => id,
                None => the_offered(session).await?,
            };
            let currency = status::currency(session).await?;
            let counted = accept.counted.map(|text| amount(currency, "counted_minor", &text)).transpose()?;
            let body = json!({ "counted_minor": counted });
            session.post(&format!("/api/handoffs/{id}/accept"), &body).await
        }
        Word::Withdraw(WithdrawArgs { id, reason }) => {
            session.post(&format!("/api/handoffs/{id}/withdraw"), &json!({ "reason": reason })).await
        }
        Word::Decide(DecideArgs { id, to, note }) => {
            let to = match to {
                Side::Giver => "giver",
                Side::Receiver => "receiver",
            };
            session.post(&format!("/api/handoffs/{id}/decide"), &json!({ "to": to, "note": note })).await
        }
        Word::List(_) => Ok(Value::Null),
    }
}

/// The only handoff that this till may accept.
async fn the_offered(session: &Session) -> anyhow::Result<String> {
    let open = listed(session, true).await?;
    let mut mine = open.iter().filter(|handoff| {
        text(handoff, "role") == "receiver" && matches!(text(handoff, "status"), "offered" | "accepted")
    });
    match (mine.next(), mine.next()) {
        (Some(handoff), None) => Ok(text(handoff, "id").to_owned()),
        (None, _) => Err(super::failure::Failure::new("not_found", "no shift is offered to this till").into()),
        (Some(_), Some(_)) => {
            let message = "several shifts are offered to this till: name one, see tillmesh handoff list";
            Err(super::failure::Failure::usage(message).into())
        }
    }
}

async fn listed(session: &Session, open: bool) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let keep = |handoff: Value| {
        if !open || matches!(text(&handoff, "status"), "offered" | "accepted" | "returning") {
            all.push(handoff);
        }
        Ok(())
    };
    session.each_item("/api/handoffs", keep).await?;
    Ok(all)
}

fn show(handoffs: Vec<Value>, context: &Context) -> anyhow::Result<()> {
    if context.json {
        return output::line(Value::from(handoffs));
    }
    if handoffs.is_empty() {
        return output::line("No handoffs.");
    }
    let row = |handoff: &Value| {
        let parties = [party(handoff, "giver"), party(handoff, "receiver")];
        let [giver, receiver] = parties.map(str::to_owned);
        vec![text(handoff, "status").to_owned(), giver, receiver, text(handoff, "id").to_owned()]
    };
    let rows: Vec<Vec<String>> = handoffs.iter().map(row).collect();
    output::table(&["STATUS", "FROM", "TO", "ID"], &rows)
}

fn party<'v>(handoff: &'v Value, which: &str) -> &'v str {
    let party = handoff.get(which);
    let name = party.map(|party| text(party, "name")).unwrap_or_default();
    if name.is_empty() { party.map(|party| text(party, "device")).unwrap_or_default() } else { name }
}
