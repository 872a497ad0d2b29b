//! Lines into invoices: whole ones in file order, refused lines beside them.

use std::collections::HashMap;
use std::io::{self, Read};

use crdt_model::record;
use thiserror::Error;

use super::csv_record::{Fields, Framed, Records};
use super::line::{CheckedLine, ColumnFault, Columns, Field, RejectReason};
use super::pennies::PennyCarry;

/// An accepted line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetailLine {
    /// The physical line of the file at which the record starts, the header being 1.
    pub line_number: u64,
    pub stock_code: String,
    /// At most 500 characters, longer ones cut; may be empty.
    pub description: String,
    /// Negative for goods that came back; never zero.
    pub quantity_milli: i64,
    /// The price as the file has it, exact, in millionths of a pound; never negative.
    pub unit_price_micro: i64,
    /// The price in pence, rounded up if it is finer than a penny.
    pub unit_price_minor: i64,
    /// Quantity × price in pence, with the quantity's sign. Whole pennies are exact; of finer
    /// amounts the remainder is carried to the next line of the file, so the sum over all lines
    /// is the exact sum, rounded once.
    pub amount_minor: i64,
}

/// A leading C in the number marks a cancellation. A sale may still hold negative quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceKind {
    Sale,
    Cancellation,
}

/// Consecutive lines of one invoice number, as many as [`Invoice::LINES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub number: String,
    /// 0 for the first group of this number in the file, then 1, 2, …: lines of one invoice that
    /// do not stand together. (number, part) is unique in a file and the same at every reading.
    pub part: u32,
    pub kind: InvoiceKind,
    /// The first that any of the lines names.
    pub customer: Option<String>,
    /// The first line's; may be empty.
    pub country: String,
    /// The first line's time, in ms since 1970. The file names no zone; it is read as UTC.
    pub at_ms: i64,
    /// Never empty.
    pub lines: Vec<RetailLine>,
}

/// A refused line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub line_number: u64,
    pub reason: RejectReason,
    /// The line as it is in the file, at most 500 characters.
    pub raw: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Invoice(Invoice),
    Reject(Reject),
}

/// What has been read so far. Every data line is counted once: a record with a newline inside a
/// quoted field is one line, a blank line is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub lines_accepted: u64,
    pub lines_rejected: u64,
    /// The sum of the accepted lines' `amount_minor`, in pence.
    pub total_minor: i64,
}

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    #[error("the first line cannot be read; check that the file is whole: {0}")]
    Input(#[from] io::Error),
    #[error("the file is empty; it needs a header line that names the columns")]
    Empty,
    #[error("the file is UTF-16; save it as CSV in UTF-8")]
    Utf16,
    #[error("the first line is not a CSV header; export the file again as CSV")]
    NotCsv,
    #[error("the header has no column {0}; the first line must name all eight columns")]
    ColumnAbsent(Field),
    #[error("the header names {0} twice; remove or rename one of the two columns")]
    ColumnRepeated(Field),
}

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("the file cannot be read beyond line {line_number}; check that it is whole and import it again: {source}")]
    Input { line_number: u64, source: io::Error },
    #[error("the file has more than {} invoices; split it and import the pieces in order", INVOICES_MAX)]
    TooManyInvoices,
}

/// Reads a file from front to back with bounded memory. After an error there is nothing more;
/// the invoice that was being read is not handed out, for lines of it may be missing.
#[derive(Debug)]
pub struct Reader<R> {
    records: Records<R>,
    columns: Columns,
    fields: Fields,
    carry: PennyCarry,
    tally: Tally,
    parts_by_number: HashMap<String, u32>,
    open: Option<Invoice>,
    finished: bool,
}

impl Invoice {
    /// A longer group of lines goes on in the next part, for no sale can hold more.
    pub const LINES_MAX: usize = record::LINES_MAX;
}

impl RetailLine {
    /// Quantity and price without a sign, in pence, half a penny away from zero.
    pub fn gross_minor(&self) -> i64 {
        let milli_pence = i128::from(self.quantity_milli.abs()) * i128::from(self.unit_price_minor);
        i64::try_from((milli_pence + 500) / 1_000).unwrap_or(i64::MAX)
    }

    /// What [`gross_minor`](Self::gross_minor) is above the amount: 0 unless the price or the
    /// amount is finer than a penny; never negative.
    pub fn discount_minor(&self) -> i64 {
        self.gross_minor() - self.amount_minor.abs()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// A header that does not name the format's columns, each once.
    pub fn new(input: R) -> Result<Self, HeaderError> {
        let mut records = Records::new(input);
        if records.skip_mark(b"\xff\xfe")? || records.skip_mark(b"\xfe\xff")? {
            return Err(HeaderError::Utf16);
        }
        records.skip_mark("\u{feff}".as_bytes())?;
        let mut fields = Fields::default();
        let header = records.next(&mut fields)?.ok_or(HeaderError::Empty)?;
        if header.broken.is_some() {
            return Err(HeaderError::NotCsv);
        }
        let columns = Columns::of_header(&fields).map_err(|fault| match fault {
            ColumnFault::Absent(field) => HeaderError::ColumnAbsent(field),
            ColumnFault::Repeated(field) => HeaderError::ColumnRepeated(field),
        })?;
        records.expect_columns(columns.count);
        Ok(Self {
            records,
            columns,
            fields,
            carry: PennyCarry::default(),
            tally: Tally::default(),
            parts_by_number: HashMap::new(),
            open: None,
            finished: false,
        })
    }

    /// What has been read so far, lines of an invoice not yet handed out included.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn advance(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            let framed = self
                .records
                .next(&mut self.fields)
                .map_err(|source| ReadError::Input { line_number: self.records.line_number(), source })?;
            let Some(framed) = framed else {
                self.finished = true;
                return Ok(self.open.take().map(Item::Invoice));
            };
            match self.accepted(&framed) {
                Ok((head, line)) => {
                    if let Some(invoice) = self.gather(head, line)? {
                        return Ok(Some(Item::Invoice(invoice)));
                    }
                }
                Err(reason) => {
                    self.tally.lines_rejected += 1;
                    return Ok(Some(Item::Reject(Reject {
                        line_number: framed.line_number,
                        reason,
                        raw: framed.raw(),
                    })));
                }
            }
        }
    }

    fn accepted(&mut self, framed: &Framed) -> Result<(LineHead, RetailLine), RejectReason> {
        if let Some(broken) = framed.broken {
            return Err(broken.into());
        }
        let checked = self.columns.check(&self.fields)?;
        let priced = self.priced(framed.line_number, checked)?;
        self.tally.lines_accepted += 1;
        Ok(priced)
    }

    fn priced(&mut self, line_number: u64, checked: CheckedLine) -> Result<(LineHead, RetailLine), RejectReason> {
        let CheckedLine {
            invoice_no,
            stock_code,
            description,
            quantity_milli,
            at_ms,
            unit_price_micro,
            customer,
            country,
        } = checked;
        let mut carry = self.carry.clone();
        let pennies = carry.take(quantity_milli, unit_price_micro).ok_or(RejectReason::AmountTooLarge)?;
        self.tally.total_minor =
            self.tally.total_minor.checked_add(pennies.amount_minor).ok_or(RejectReason::AmountTooLarge)?;
        self.carry = carry;
        let line = RetailLine {
            line_number,
            stock_code,
            description,
            quantity_milli,
            unit_price_micro,
            unit_price_minor: pennies.unit_price_minor,
            amount_minor: pennies.amount_minor,
        };
        let head = LineHead { invoice_no, at_ms, customer, country };
        Ok((head, line))
    }

    /// Adds a line to the invoice it belongs to; hands out the one before when a new one begins.
    fn gather(&mut self, head: LineHead, line: RetailLine) -> Result<Option<Invoice>, ReadError> {
        if let Some(open) = &mut self.open
            && open.number == head.invoice_no
            && open.lines.len() < Invoice::LINES_MAX
        {
            open.customer = open.customer.take().or(head.customer);
            open.lines.push(line);
            return Ok(None);
        }

        let part = self.next_part(&head.invoice_no)?;
        let kind = if head.invoice_no.starts_with(['C', 'c']) { InvoiceKind::Cancellation } else { InvoiceKind::Sale };
        Ok(self.open.replace(Invoice {
            number: head.invoice_no,
            part,
            kind,
            customer: head.customer,
            country: head.country,
            at_ms: head.at_ms,
            lines: vec![line],
        }))
    }

    fn next_part(&mut self, invoice_no: &str) -> Result<u32, ReadError> {
        if let Some(part) = self.parts_by_number.get_mut(invoice_no) {
            *part = part.checked_add(1).ok_or(ReadError::TooManyInvoices)?;
            return Ok(*part);
        }
        if self.parts_by_number.len() >= INVOICES_MAX {
            return Err(ReadError::TooManyInvoices);
        }
        self.parts_by_number.insert(invoice_no.to_owned(), 0);
        Ok(0)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let item = self.advance();
        if item.is_err() {
            self.finished = true;
            self.open = None;
        }
        item.transpose()
    }
}

/// What a line says about its invoice.
#[derive(Debug)]
struct LineHead {
    invoice_no: String,
    at_ms: i64,
    customer: Option<String>,
    country: String,
}

/// Bounds the memory for numbers already seen; the public file has 25,900 in a year.
const INVOICES_MAX: usize = 1_000_000;
