//! A sale: lines, and the tenders that pay for them.

use std::fmt;

use minicbor::{Decode, Encode};

use super::{
    FactError, LINES_MAX, NAME_BYTES_MAX, Source, TENDERS_MAX, TEXT_BYTES_MAX, check_count, check_name,
    check_not_negative, check_text,
};
use crate::ids::RecordId;
use crate::money::{Currency, line_amount_minor};
use crate::time::Timestamp;

/// Goods sold at one moment to one customer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Sale {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// When it happened, if not when it was recorded.
    #[n(1)]
    pub occurred: Option<Timestamp>,
    /// The currency of every amount in it.
    #[n(2)]
    pub currency: Currency,
    /// What was sold; at least one line.
    #[n(3)]
    pub lines: Vec<Line>,
    /// How it is paid: nothing (on account), or exactly the total.
    #[n(4)]
    pub tenders: Vec<Tender>,
    /// Who bought, as recorded at the till; correctable in the annotations.
    #[n(5)]
    pub customer: Option<RecordId>,
    /// A note, as recorded at the till; correctable in the annotations.
    #[n(6)]
    pub note: Option<String>,
    /// The ticket it closed.
    #[n(7)]
    pub ticket: Option<RecordId>,
}

/// One line of a sale, refund or void.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Line {
    /// The product's stock-keeping unit.
    #[n(0)]
    pub sku: String,
    /// Thousandths of a unit; more than zero.
    #[n(1)]
    pub quantity_milli: i64,
    /// The price of one unit, in minor units; not negative.
    #[n(2)]
    pub unit_price_minor: i64,
    /// What is taken off the whole line, in minor units; at most the line's amount.
    #[n(3)]
    pub discount_minor: i64,
    /// The tax that the price includes, in hundredths of a per cent.
    #[n(4)]
    pub tax_rate_bp: Option<u32>,
}

/// A way to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TenderKind {
    /// Coins and notes in the drawer.
    #[n(0)]
    Cash,
    /// M-PESA: the relay asks the customer's phone.
    #[n(1)]
    Mpesa,
    /// Anything else the shop takes on its own account.
    #[n(2)]
    Other,
}

/// A part of what is paid.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tender {
    /// The way.
    #[n(0)]
    pub kind: TenderKind,
    /// How much, in minor units; more than zero unless the sale is free.
    #[n(1)]
    pub amount_minor: i64,
}

impl Line {
    /// What the line costs, in minor units, discount taken off.
    ///
    /// # Errors
    /// [`crate::money::MoneyError::TooLarge`].
    pub fn amount_minor(&self) -> Result<i64, crate::money::MoneyError> {
        line_amount_minor(self.unit_price_minor, self.quantity_milli)?
            .checked_sub(self.discount_minor)
            .ok_or(crate::money::MoneyError::TooLarge)
    }
}

/// A field of one item of a list, spelt out only where it is wrong.
#[derive(Debug, Clone, Copy)]
struct At<'a>(&'a str, usize, &'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(list, index, name) = self;
        write!(f, "{list}[{index}].{name}")
    }
}

/// Sums lines, each checked; `field` is the list's name in errors.
pub(super) fn checked_total(field: &str, lines: &[Line]) -> Result<i64, FactError> {
    if lines.is_empty() {
        return Err(FactError::Empty { field: field.to_owned() });
    }
    check_count(field, lines.len(), LINES_MAX)?;
    let mut total: i64 = 0;
    for (index, line) in lines.iter().enumerate() {
        let at = |name| At(field, index, name);
        check_name(at("sku"), &line.sku, NAME_BYTES_MAX)?;
        check_not_negative(at("quantity_milli"), line.quantity_milli)?;
        if line.quantity_milli == 0 {
            return Err(FactError::Zero { field: at("quantity_milli").to_string() });
        }
        check_not_negative(at("unit_price_minor"), line.unit_price_minor)?;
        check_not_negative(at("discount_minor"), line.discount_minor)?;
        if line.tax_rate_bp.is_some_and(|rate| rate > 10_000) {
            let field = at("tax_rate_bp").to_string();
            return Err(FactError::Invalid { field, reason: "must be at most 10000 (100 %)" });
        }
        let too_large = |source| FactError::Money { field: at("unit_price_minor").to_string(), source };
        let amount = line.amount_minor().map_err(too_large)?;
        if amount < 0 {
            let field = at("discount_minor").to_string();
            return Err(FactError::Invalid { field, reason: "is more than the line's amount" });
        }
        total = total.checked_add(amount).ok_or_else(|| too_large(crate::money::MoneyError::TooLarge))?;
    }
    Ok(total)
}

/// Checks that tenders pay `total_minor` exactly, or that there are none.
pub(super) fn check_tenders(tenders: &[Tender], total_minor: i64) -> Result<(), FactError> {
    check_count("tenders", tenders.len(), TENDERS_MAX)?;
    let mut tendered_minor: i64 = 0;
    for (index, tender) in tenders.iter().enumerate() {
        let field = At("tenders", index, "amount_minor");
        check_not_negative(field, tender.amount_minor)?;
        if tender.amount_minor == 0 && (total_minor != 0 || tender.kind == TenderKind::Mpesa) {
            return Err(FactError::Zero { field: field.to_string() });
        }
        tendered_minor = tendered_minor
            .checked_add(tender.amount_minor)
            .ok_or_else(|| FactError::Money { field: field.to_string(), source: crate::money::MoneyError::TooLarge })?;
    }
    if tenders.is_empty() || tendered_minor == total_minor {
        return Ok(());
    }
    Err(FactError::Unbalanced { tendered_minor, total_minor })
}

impl Sale {
    /// The sum of the lines, in minor units.
    ///
    /// # Errors
    /// A [`FactError`] that names the line that is wrong.
    pub fn total_minor(&self) -> Result<i64, FactError> {
        checked_total("lines", &self.lines)
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        check_tenders(&self.tenders, self.total_minor()?)?;
        check_text("note", self.note.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}
