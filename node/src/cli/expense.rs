//! Recording an expense.

use serde_json::json;

use super::sale::{fresh_id, tell, text};
use super::till_roll::amount;
use super::{Context, output, session, status};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tillmesh expense --category rent --amount 15000 --description \"March\"")]
pub(super) struct Args {
    /// What for
    #[arg(long)]
    category: String,
    /// How much, such as 250 or 250.50
    #[arg(long)]
    amount: String,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// Your own id for it: recorded once, however often you ask
    #[arg(long, value_name = "ID")]
    operation_id: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (told, answer) = session::with(context, async |session| {
        let currency = status::currency(session).await?;
        let amount_minor = amount(currency, "amount_minor", &args.amount)?;
        let body = json!({
            "operation_id": args.operation_id.clone().map_or_else(fresh_id, Ok)?,
            "category": args.category,
            "amount_minor": amount_minor,
            "currency": currency.code(),
            "description": args.description,
        });
        let answer = session.post("/api/expenses", &body).await?;
        Ok((format!("{currency} {}", currency.format_minor(amount_minor)), answer))
    })
    .await?;
    if context.json {
        return output::line(answer);
    }
    output::line(format!("Expense {} of {told} for {}", text(&answer, "id"), args.category))?;
    tell(&answer)
}
