//! The organisation portal's statement, with the oddities that it is known for.

use std::fmt::Write;

use super::super::mpesa::plain_time;
use super::ledger::LedgerLine;

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Days first, as DD-MM-YYYY.
    pub day_first: bool,
    /// Amounts in quotes with commas between thousands.
    pub commas: bool,
    /// A till's: without accounts.
    pub till: bool,
    /// A byte order mark, and lines that end in CR LF.
    pub windows: bool,
}

/// The charges as the portal exports them: preamble, headings, a failed row, a withdrawal and a
/// row of totals among them. The newest comes first.
#[must_use]
pub fn statement(charges: &[LedgerLine], style: Style) -> String {
    let mut lines = vec![
        "Short Code,174379,,,".to_owned(),
        "Organization Name,\"Simulated, Limited\",,,".to_owned(),
        "Time Period,all,,,".to_owned(),
        String::new(),
        "Receipt No.,Completion Time,Initiation Time,Details,Transaction Status,Paid In,Withdrawn,Balance,\
         Balance Confirmed,Reason Type,Other Party Info,Linked Transaction ID,A/C No."
            .to_owned(),
    ];
    let mut sum = 0;
    let mut balance = 0;
    let mut rows = Vec::new();
    for charge in charges {
        sum += charge.amount_minor;
        balance += charge.amount_minor;
        let account = if style.till { "" } else { charge.account_reference.as_str() };
        rows.push(format!(
            "{},{at},{at},\"Pay Bill from {phone} Acc. {account}\",Completed,{},,{},true,Pay Utility,\"{phone} - TEST\",,{account}",
            charge.receipt_number,
            amount(charge.amount_minor, style),
            amount(balance, style),
            at = time(charge.at_ms, style),
            phone = charge.phone,
        ));
    }
    let at = time(charges.last().map_or(1_700_000_000_000, |charge| charge.at_ms), style);
    rows.push(format!(
        "TESTFAILED000001,{at},{at},\"Pay Bill\",Failed,{},,,,Pay Utility,x,,ZZZ",
        amount(99_900, style)
    ));
    rows.push(format!(
        "TESTWITHDRAW0001,{at},{at},\"Pay merchant charge\",Completed,,{},{},true,Charge,x,,",
        amount(-150_000, style),
        amount(balance - 150_000, style)
    ));
    rows.reverse();
    lines.extend(rows);
    lines.push(format!("Total,,,,,{},{},,,,,,", amount(sum, style), amount(-150_000, style)));
    let end = if style.windows { "\r\n" } else { "\n" };
    let mut text = String::from(if style.windows { "\u{feff}" } else { "" });
    for line in lines {
        // Writing to memory can't fail.
        write!(text, "{line}{end}").unwrap_or_default();
    }
    text
}

fn time(at_ms: u64, style: Style) -> String {
    let plain = plain_time(at_ms);
    if !style.day_first {
        return plain;
    }
    let (date, clock) = plain.split_once(' ').unwrap_or((&plain, ""));
    let parts: Vec<&str> = date.split('-').rev().collect();
    format!("{} {clock}", parts.join("-"))
}

fn amount(minor: i64, style: Style) -> String {
    let (whole, cents) = (minor.abs() / 100, minor.abs() % 100);
    let sign = if minor < 0 { "-" } else { "" };
    if !style.commas {
        return format!("{sign}{whole}.{cents:02}");
    }
    let digits = whole.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("\"{sign}{grouped}.{cents:02}\"")
}
