//! Recording a sale.

use crdt_model::money::Currency;
use serde_json::{Value, json};

use super::till_roll::{Rung, TypedLine, TypedTender, ring_up};
use super::{Context, output, session, status};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillmesh sale --line BREAD:2:65.00
  tillmesh sale --line BREAD:2:65.00 --pay mpesa:254708374149
  tillmesh sale --line BREAD:2:65.00:5 --line MILK:0.5:120 --pay mpesa:0708374149:100 --pay cash")]
pub(super) struct Args {
    /// What is sold: its SKU, how much, the price of one, and what is taken off the line
    #[arg(long = "line", required = true, value_name = "SKU:QTY:PRICE[:DISCOUNT]")]
    lines: Vec<TypedLine>,
    /// How it is paid: cash[:AMOUNT], other[:AMOUNT] or mpesa:PHONE[:AMOUNT]; cash if not given
    #[arg(long = "pay", value_name = "WAY")]
    tenders: Vec<TypedTender>,
    /// A note
    #[arg(long)]
    note: Option<String>,
    /// The customer's id
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// Your own id for it: recorded once, however often you ask
    #[arg(long, value_name = "ID")]
    operation_id: Option<String>,
    /// How long to wait for the relay, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    wait: u64,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (currency, mut answer, total_minor) = session::with(context, async |session| {
        let currency: Currency = status::currency(session).await?;
        let Rung { lines, tenders, total_minor } = ring_up(currency, &args.lines, &args.tenders)?;
        let body = json!({
            "operation_id": args.operation_id.clone().map_or_else(fresh_id, Ok)?,
            "lines": lines,
            "tenders": tenders,
            "currency": currency.code(),
            "note": args.note,
            "customer_id": args.customer,
        });
        let answer = session.post(&format!("/api/sales?wait={}", args.wait), &body).await?;
        Ok((currency, answer, total_minor))
    })
    .await?;
    if context.json {
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("total_minor".to_owned(), total_minor.into());
            answer.insert("currency".to_owned(), currency.code().into());
        }
        return output::line(answer);
    }
    output::line(format!("Sale {} of {currency} {}", text(&answer, "id"), currency.format_minor(total_minor)))?;
    tell(&answer)
}

/// An id with which a request can be repeated safely.
pub(super) fn fresh_id() -> anyhow::Result<String> {
    let bytes: [u8; 16] = crate::folder::random()?;
    Ok(format!("cli-{}", data_encoding::HEXLOWER.encode(&bytes)))
}

/// What an answer tells people beside the record itself.
pub(super) fn tell(answer: &Value) -> anyhow::Result<()> {
    for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        output::line(format!("Note: {}", text(warning, "detail")))?;
    }
    output::line(format!("It is {}.", text(answer, "message")))
}

/// A field's text, or nothing.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
