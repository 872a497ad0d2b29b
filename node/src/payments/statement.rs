//! The organisation portal's statement, as CSV: of a paybill or a till, with preamble and totals,
//! both ways to write dates, commas in amounts, failed rows and withdrawals.

use std::io::Read as _;
use std::path::PathBuf;

use super::Listed;
use super::mpesa::{read_plain_time, shillings};

/// What a statement says that the shop received, and what else it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Completed payments to the shop.
    pub lines: Vec<Listed>,
    /// Rows that are not completed.
    pub failed: u64,
    /// What left the account, in minor units.
    pub withdrawn_minor: i64,
    /// What the totals row says was paid in, in minor units.
    pub stated_total_minor: Option<i64>,
}

/// Why a statement can't be used. Nothing of it is taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The file.
    #[error("the statement {} can't be read ({source}): check its path", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Larger than any statement.
    #[error("the statement is larger than {STATEMENT_BYTES_MAX} bytes: export a shorter time")]
    TooLarge,
    /// It broke off.
    #[error("the statement can't be read: {0}")]
    Broken(#[from] std::io::Error),
    /// No CSV.
    #[error("the statement is no CSV ({0}): export it as CSV from the organisation portal")]
    Csv(#[from] csv::Error),
    /// Not the portal's headings.
    #[error("no line begins with \"Receipt No.\": export the statement from the organisation portal, as CSV")]
    NoHeadings,
    /// A column is missing.
    #[error("the column {0:?} is missing: export the statement with every column")]
    NoColumn(&'static str),
    /// A cell.
    #[error("line {line}: {column} is {problem}: look at the file")]
    Cell {
        /// From 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The totals row says something else.
    #[error("the rows add up to {read_minor} cents, but the totals row says {stated_minor}: the file is not whole")]
    Totals {
        /// What the rows say.
        read_minor: i64,
        /// What the totals row says.
        stated_minor: i64,
    },
    /// More than 64 bits.
    #[error("the amounts are beyond 64 bits: this is no statement")]
    Overflow,
}

const STATEMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
const RECEIPT: &str = "Receipt No.";
const COMPLETED: &str = "Completed";
const ACCOUNT_CHARS_MAX: usize = 64;
const RECEIPT_CHARS: std::ops::RangeInclusive<usize> = 6..=32;

struct Columns {
    receipt: usize,
    time: usize,
    status: usize,
    paid_in: usize,
    withdrawn: usize,
    account: Option<usize>,
}

/// Reads a statement whole.
///
/// # Errors
/// [`StatementError`].
pub fn read_statement(file: impl std::io::Read) -> Result<Read, StatementError> {
    let mut bytes = Vec::new();
    file.take(STATEMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATEMENT_BYTES_MAX {
        return Err(StatementError::TooLarge);
    }
    // The portal writes Latin letters in payers' names now and then.
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut columns = None;
    let mut read = Read::default();
    let mut sum_minor = 0_i64;
    for row in reader.records() {
        let row = row?;
        let line = row.position().map_or(0, csv::Position::line);
        let Some(columns) = &columns else {
            if row.iter().any(|cell| cell.trim() == RECEIPT) {
                columns = Some(Columns::of(&row)?);
            }
            continue;
        };
        let cell = |at: usize| row.get(at).unwrap_or_default().trim();
        let paid_in = amount(cell(columns.paid_in), line, "Paid In")?;
        let withdrawn = amount(cell(columns.withdrawn), line, "Withdrawn")?;
        if cell(columns.time).is_empty() {
            // Totals have no time; nor have blank lines.
            if let Some(stated) = paid_in {
                read.stated_total_minor = Some(stated);
            }
            continue;
        }
        if cell(columns.status) != COMPLETED {
            read.failed += 1;
            continue;
        }
        if let Some(withdrawn) = withdrawn {
            let out = withdrawn.checked_abs().ok_or(StatementError::Overflow)?;
            read.withdrawn_minor = read.withdrawn_minor.checked_add(out).ok_or(StatementError::Overflow)?;
        }
        let Some(amount_minor) = paid_in.filter(|paid_in| *paid_in > 0) else { continue };
        sum_minor = sum_minor.checked_add(amount_minor).ok_or(StatementError::Overflow)?;
        read.lines.push(columns.line(cell, line, amount_minor)?);
    }
    if columns.is_none() {
        return Err(StatementError::NoHeadings);
    }
    match read.stated_total_minor {
        Some(stated_minor) if stated_minor != sum_minor => {
            Err(StatementError::Totals { read_minor: sum_minor, stated_minor })
        }
        _ => Ok(read),
    }
}

impl Columns {
    fn of(headings: &csv::StringRecord) -> Result<Self, StatementError> {
        let find = |name: &'static str| headings.iter().position(|cell| cell.trim() == name);
        let need = |name: &'static str| find(name).ok_or(StatementError::NoColumn(name));
        Ok(Self {
            receipt: need(RECEIPT)?,
            time: need("Completion Time")?,
            status: need("Transaction Status")?,
            paid_in: need("Paid In")?,
            withdrawn: need("Withdrawn")?,
            account: find("A/C No."),
        })
    }

    fn line<'a>(
        &self,
        cell: impl Fn(usize) -> &'a str,
        line: u64,
        amount_minor: i64,
    ) -> Result<Listed, StatementError> {
        let receipt_number = cell(self.receipt);
        let plain = receipt_number.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain || !RECEIPT_CHARS.contains(&receipt_number.len()) {
            return Err(StatementError::Cell { line, column: RECEIPT, problem: "not a receipt number" });
        }
        let paid_at_ms = read_plain_time(cell(self.time));
        if paid_at_ms.is_none() {
            return Err(StatementError::Cell { line, column: "Completion Time", problem: "not a date and time" });
        }
        let account = self.account.map(&cell).unwrap_or_default();
        Ok(Listed {
            receipt_number: receipt_number.to_owned(),
            amount_minor,
            account: account.chars().take(ACCOUNT_CHARS_MAX).collect(),
            paid_at_ms,
        })
    }
}

fn amount(cell: &str, line: u64, column: &'static str) -> Result<Option<i64>, StatementError> {
    let plain = cell.replace([',', ' '], "");
    if plain.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = plain.strip_prefix('-').map_or((false, plain.as_str()), |rest| (true, rest));
    match shillings(digits) {
        Some(minor) if negative => Ok(Some(-minor)),
        Some(minor) => Ok(Some(minor)),
        None => Err(StatementError::Cell { line, column, problem: "not an amount" }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulator::{LedgerLine, Style, statement};
    use super::*;

    fn charges() -> Vec<LedgerLine> {
        (1..=5)
            .map(|number: i64| LedgerLine {
                account_reference: format!("ACCOUNT{number}"),
                phone: "2547*****149".to_owned(),
                amount_minor: number * 123_456 * 100,
                receipt_number: format!("TESTABCDEF{number}"),
                checkout_request_id: String::new(),
                at_ms: 1_750_000_000_000 + 1_000 * number.unsigned_abs(),
                listed_at_ms: 0,
                reversed: false,
                denied: false,
            })
            .collect()
    }

    #[test]
    fn every_way_the_portal_writes_says_the_same_to_the_cent() {
        for bits in 0..16 {
            let style =
                Style { day_first: bits & 1 > 0, commas: bits & 2 > 0, till: bits & 4 > 0, windows: bits & 8 > 0 };
            let text = statement(&charges(), style);
            let read = read_statement(text.as_bytes()).unwrap_or_else(|error| panic!("{style:?}: {error}\n{text}"));
            assert_eq!(read.lines.len(), 5, "{style:?}");
            for (line, charge) in read.lines.iter().rev().zip(charges()) {
                assert_eq!(line.receipt_number, charge.receipt_number);
                assert_eq!((line.amount_minor, line.paid_at_ms), (charge.amount_minor, Some(charge.at_ms)));
                assert_eq!(line.account, if style.till { "" } else { charge.account_reference.as_str() });
            }
            assert_eq!((read.failed, read.withdrawn_minor), (1, 150_000));
            assert_eq!(read.stated_total_minor, Some(charges().iter().map(|charge| charge.amount_minor).sum()));
        }
    }

    #[test]
    fn a_statement_that_is_not_whole_is_refused_with_its_place() {
        let good = statement(&charges(), Style::default());
        let without_last = good.lines().filter(|line| !line.contains("TESTABCDEF5")).collect::<Vec<_>>().join("\n");
        for (text, expected) in [
            (String::new(), "Receipt No."),
            ("a,b\n1,2\n".to_owned(), "Receipt No."),
            (good.replace("Paid In", "Paid"), "Paid In"),
            (good.replace("TESTABCDEF3", "=cmd()"), "not a receipt number"),
            (without_last, "totals row"),
            (good.replace("123456.00", "12x.00"), "not an amount"),
        ] {
            let error = read_statement(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
