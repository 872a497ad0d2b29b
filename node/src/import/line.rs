//! One record of the online-retail format, checked field by field.

use std::fmt;

use thiserror::Error;

use super::csv_record::{Broken, Fields, RECORD_BYTES_MAX};
use super::decimal::{self, DecimalError};
use super::moment;
use super::pennies::AMOUNT_MINOR_MAX;
use super::text;

/// A column of the format, named as the public file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    InvoiceNo,
    StockCode,
    Description,
    Quantity,
    InvoiceDate,
    UnitPrice,
    CustomerId,
    Country,
}

/// Why a line was refused; the message names the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    #[error("{0} is missing")]
    Missing(Field),
    #[error("{field} {fault}")]
    Unreadable { field: Field, fault: String },
    #[error("Quantity is zero")]
    ZeroQuantity,
    #[error("UnitPrice is negative")]
    NegativePrice,
    #[error("Quantity × UnitPrice is above {} pounds", AMOUNT_MINOR_MAX / 100)]
    AmountTooLarge,
    #[error("the line has {found} fields where the header names {expected}")]
    FieldCount { found: usize, expected: usize },
    #[error("a quoted field is not closed, or text follows its closing quote")]
    QuoteNotClosed,
    #[error("the record is longer than {} KiB", RECORD_BYTES_MAX / 1024)]
    TooLong,
}

/// Where each field stands in a record.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    positions: Vec<(Field, usize)>,
    pub(super) count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ColumnFault {
    Absent(Field),
    Repeated(Field),
}

/// A line whose every field has been read; quantity × price is not yet looked at.
#[derive(Debug)]
pub(super) struct CheckedLine {
    pub(super) invoice_no: String,
    pub(super) stock_code: String,
    pub(super) description: String,
    pub(super) quantity_milli: i64,
    pub(super) at_ms: i64,
    pub(super) unit_price_micro: i64,
    pub(super) customer: Option<String>,
    pub(super) country: String,
}

impl Field {
    pub(super) const ALL: [Self; 8] = [
        Self::InvoiceNo,
        Self::StockCode,
        Self::Description,
        Self::Quantity,
        Self::InvoiceDate,
        Self::UnitPrice,
        Self::CustomerId,
        Self::Country,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::InvoiceNo => "InvoiceNo",
            Self::StockCode => "StockCode",
            Self::Description => "Description",
            Self::Quantity => "Quantity",
            Self::InvoiceDate => "InvoiceDate",
            Self::UnitPrice => "UnitPrice",
            Self::CustomerId => "CustomerID",
            Self::Country => "Country",
        }
    }

    /// The second public file (UCI, doi 10.24432/C5CG6D) spells three columns differently.
    fn is_named(self, heading: &str) -> bool {
        let letters: String = heading.chars().filter(char::is_ascii_alphanumeric).collect();
        let also = match self {
            Self::InvoiceNo => "invoice",
            Self::UnitPrice => "price",
            Self::StockCode
            | Self::Description
            | Self::Quantity
            | Self::InvoiceDate
            | Self::CustomerId
            | Self::Country => self.name(),
        };
        letters.eq_ignore_ascii_case(self.name()) || letters.eq_ignore_ascii_case(also)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Broken> for RejectReason {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::QuoteNotClosed => Self::QuoteNotClosed,
            Broken::TooLong => Self::TooLong,
            Broken::FieldCount { found, expected } => Self::FieldCount { found, expected },
        }
    }
}

impl Columns {
    /// The columns by name, in whatever order the header has them; others are passed over.
    pub(super) fn of_header(header: &Fields) -> Result<Self, ColumnFault> {
        let headings: Vec<String> = (0..header.len()).map(|index| text::decoded(header.field(index))).collect();
        let mut positions = Vec::new();
        for field in Field::ALL {
            let mut named = headings.iter().enumerate().filter(|(_, heading)| field.is_named(heading));
            let (position, _) = named.next().ok_or(ColumnFault::Absent(field))?;
            if named.next().is_some() {
                return Err(ColumnFault::Repeated(field));
            }
            positions.push((field, position));
        }
        Ok(Self { positions, count: headings.len() })
    }

    fn text(&self, record: &Fields, field: Field) -> String {
        let position = self.positions.iter().find(|(named, _)| *named == field);
        position.map(|(_, position)| text::decoded(record.field(*position))).unwrap_or_default()
    }

    fn required(&self, record: &Fields, field: Field) -> Result<String, RejectReason> {
        let text = self.text(record, field);
        if text.is_empty() {
            return Err(RejectReason::Missing(field));
        }
        Ok(text)
    }

    /// Checks one record. Description and CustomerID may be empty, and so may Country.
    pub(super) fn check(&self, record: &Fields) -> Result<CheckedLine, RejectReason> {
        let code = |field, bytes_max| bounded(field, self.required(record, field)?, bytes_max);
        let invoice_no = code(Field::InvoiceNo, INVOICE_BYTES_MAX)?;
        let stock_code = code(Field::StockCode, STOCK_CODE_BYTES_MAX)?;

        let number = |field, decimals| {
            let text = self.required(record, field)?;
            decimal::scaled(&text, decimals, WHOLE_MAX).map_err(|fault| number_fault(field, decimals, fault))
        };
        let quantity_milli = number(Field::Quantity, QUANTITY_DECIMALS)?;
        if quantity_milli == 0 {
            return Err(RejectReason::ZeroQuantity);
        }
        let at_ms = moment::utc_ms(&self.required(record, Field::InvoiceDate)?)
            .map_err(|fault| unreadable(Field::InvoiceDate, fault))?;
        let unit_price_micro = number(Field::UnitPrice, PRICE_DECIMALS)?;
        if unit_price_micro < 0 {
            return Err(RejectReason::NegativePrice);
        }

        let customer = customer(&self.text(record, Field::CustomerId));
        let customer = match customer {
            Some(customer) => Some(bounded(Field::CustomerId, customer, CUSTOMER_BYTES_MAX)?),
            None => None,
        };
        Ok(CheckedLine {
            invoice_no,
            stock_code,
            description: text::shortened(self.text(record, Field::Description), DESCRIPTION_CHARS_MAX),
            quantity_milli,
            at_ms,
            unit_price_micro,
            customer,
            country: text::shortened(self.text(record, Field::Country), COUNTRY_CHARS_MAX),
        })
    }
}

/// A customer's number; spreadsheets that take it for a float write `17850.0`.
fn customer(text: &str) -> Option<String> {
    let number = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) | None => text,
    };
    (!number.is_empty()).then(|| number.to_owned())
}

fn bounded(field: Field, text: String, bytes_max: usize) -> Result<String, RejectReason> {
    if text.len() > bytes_max {
        return Err(unreadable(field, format_args!("is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

fn number_fault(field: Field, decimals: u32, fault: DecimalError) -> RejectReason {
    match fault {
        DecimalError::TooFine => unreadable(field, format_args!("has more than {decimals} decimals")),
        DecimalError::TooLarge => unreadable(field, format_args!("is beyond {WHOLE_MAX}")),
        DecimalError::NotPlain => unreadable(field, fault),
    }
}

fn unreadable(field: Field, fault: impl fmt::Display) -> RejectReason {
    RejectReason::Unreadable { field, fault: fault.to_string() }
}

const QUANTITY_DECIMALS: u32 = 3;
const PRICE_DECIMALS: u32 = 6;
const WHOLE_MAX: i64 = 1_000_000_000;
const INVOICE_BYTES_MAX: usize = 32;
const STOCK_CODE_BYTES_MAX: usize = 64;
const CUSTOMER_BYTES_MAX: usize = 32;
const DESCRIPTION_CHARS_MAX: usize = 500;
const COUNTRY_CHARS_MAX: usize = 64;
