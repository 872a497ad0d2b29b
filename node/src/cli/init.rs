//! Making a business.

use crdt_model::money::Currency;
use serde_json::json;

use super::{Context, output};
use crate::folder;
use crate::shop_loop::now;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tillmesh init --data d --name \"Duka\" --currency KES")]
pub(super) struct Args {
    /// The business's name
    #[arg(long)]
    name: String,
    /// The currency of its books: an ISO 4217 code such as KES
    #[arg(long)]
    currency: Currency,
    /// How far its clocks are ahead of UTC; its business day begins at their midnight
    #[arg(long, default_value = "+03:00", allow_hyphen_values = true, value_parser = offset_minutes, value_name = "+HH:MM")]
    utc_offset: i32,
    /// This device's name among people
    #[arg(long, default_value = "Till 1")]
    device_name: String,
}

pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let data = context.data()?;
    let made = folder::found(&data, &args.name, args.currency, args.utc_offset, &args.device_name, now())?;
    let business = made.genesis.business();
    if context.json {
        return output::line(json!({
            "business": business.to_string(),
            "name": args.name,
            "currency": args.currency.code(),
            "device": made.device.to_string(),
            "device_name": args.device_name,
            "data": data,
            "recovery_phrase": made.recovery_phrase,
        }));
    }
    output::line(format!("Made {} ({}), business {business}", args.name, args.currency))?;
    output::line(format!("This device is {}, {}", args.device_name, made.device))?;
    output::line(format!("Its data is in {}", data.display()))?;
    output::line("\nThe recovery phrase, shown this once and kept nowhere. Write it down on paper:")?;
    output::line("whoever has these words can make themselves an owner of this business.\n")?;
    let words: Vec<&str> = made.recovery_phrase.split(' ').collect();
    for row in words.chunks(6) {
        output::line(format!("  {}", row.join(" ")))?;
    }
    output::line("\nNext: tillmesh run, then tillmesh invite for each further device.")
}

fn offset_minutes(text: &str) -> Result<i32, &'static str> {
    const WRONG: &str = "write it like +03:00 or -05:30, at most 14 hours";
    let (sign, clock) = match text.split_at_checked(1) {
        Some(("+", clock)) => (1, clock),
        Some(("-", clock)) => (-1, clock),
        _ => return Err(WRONG),
    };
    let (hours, minutes) = clock.split_once(':').ok_or(WRONG)?;
    let two_digits = |text: &str| match text.len() {
        2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<i32>().map_err(|_| WRONG),
        _ => Err(WRONG),
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let total = hours * 60 + minutes;
    if minutes > 59 || total > OFFSET_MINUTES_MAX {
        return Err(WRONG);
    }
    Ok(sign * total)
}

/// The Line Islands.
const OFFSET_MINUTES_MAX: i32 = 14 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_ahead_and_behind_are_read() {
        assert_eq!(offset_minutes("+03:00"), Ok(180));
        assert_eq!(offset_minutes("-05:30"), Ok(-330));
        for wrong in ["", "3", "03:00", "+3:00", "+03:60", "+14:01", "+03:0x", "é03:00"] {
            assert!(offset_minutes(wrong).is_err(), "{wrong}");
        }
    }
}
