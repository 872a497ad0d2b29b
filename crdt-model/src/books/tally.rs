//! Sums of money and counts of facts. Sums have 128 bits: no number of 64-bit amounts that
//! a shop can record overflows them, so the order of adding never shows.

use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::money::Currency;
use crate::record::{Fact, Line, PaymentFact, Tender, TenderKind};

/// What a tally counts or sums. Amounts are in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// How many sales.
    Sales,
    /// Price times quantity over all lines sold.
    GrossMinor,
    /// What was taken off lines sold.
    DiscountsMinor,
    /// How many voids.
    Voids,
    /// What was voided, discounts taken off.
    VoidsMinor,
    /// How many refunds.
    Refunds,
    /// What was refunded.
    RefundsMinor,
    /// How many expenses.
    Expenses,
    /// What was spent.
    ExpensesMinor,
    /// Other records' money that came in.
    RecordsInMinor,
    /// Other records' money that went out (positive).
    RecordsOutMinor,
    /// Cash taken for sales.
    CashInMinor,
    /// Cash given back for voids and refunds, or spent.
    CashOutMinor,
    /// M-PESA tendered for sales; whether it arrived is in the payments.
    MpesaInMinor,
    /// M-PESA tenders voided, refunded or spent.
    MpesaOutMinor,
    /// Other tenders for sales.
    OtherInMinor,
    /// Other tenders voided, refunded or spent.
    OtherOutMinor,
    /// Lines left out because their amount is beyond 64 bits or their tax above 100 %.
    /// Never recorded by a till that checks its facts.
    Unusable,
}

const FIGURES: usize = Figure::Unusable as usize + 1;

/// The tax that prices included, at one rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tax {
    /// What was sold at this rate less what was voided and refunded, tax included.
    pub amount_minor: i128,
    /// The tax in it.
    pub tax_minor: i128,
}

/// Counts and sums in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    figures: [i128; FIGURES],
    taxes: BTreeMap<u32, Tax>,
}

/// Tallies by currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Sheet(#[n(0)] Vec<(Currency, Tally)>);

impl Tally {
    /// One figure.
    #[must_use]
    pub fn of(&self, figure: Figure) -> i128 {
        self.figures.get(figure as usize).copied().unwrap_or_default()
    }

    /// The tax in what was sold less what was voided and refunded, by rate in hundredths of
    /// a per cent. Prices include tax, so the tax of a line is
    /// `amount × rate / (10000 + rate)`, rounded half away from zero, a line at a time.
    #[must_use]
    pub fn taxes(&self) -> &BTreeMap<u32, Tax> {
        &self.taxes
    }

    /// Sales less discounts, voids and refunds.
    #[must_use]
    pub fn net_minor(&self) -> i128 {
        self.of(Figure::GrossMinor)
            - self.of(Figure::DiscountsMinor)
            - self.of(Figure::VoidsMinor)
            - self.of(Figure::RefundsMinor)
    }

    /// What the facts put into the drawer, without its float. Other records name no tender
    /// and are not in it.
    #[must_use]
    pub fn cash_expected_minor(&self) -> i128 {
        self.of(Figure::CashInMinor) - self.of(Figure::CashOutMinor)
    }

    /// Whether every figure is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.figures.iter().all(|figure| *figure == 0) && self.taxes.is_empty()
    }

    /// Adds `other`, or takes it away.
    pub(super) fn add(&mut self, other: &Self, sign: Sign) {
        for (figure, more) in self.figures.iter_mut().zip(&other.figures) {
            *figure += sign.of(*more);
        }
        for (rate, more) in &other.taxes {
            self.add_tax(*rate, sign.of(more.amount_minor), sign.of(more.tax_minor));
        }
    }

    fn raise(&mut self, figure: Figure, by: i128) {
        if let Some(figure) = self.figures.get_mut(figure as usize) {
            *figure += by;
        }
    }

    fn add_tax(&mut self, rate: u32, amount_minor: i128, tax_minor: i128) {
        let tax = self.taxes.entry(rate).or_default();
        tax.amount_minor += amount_minor;
        tax.tax_minor += tax_minor;
        if *tax == Tax::default() {
            self.taxes.remove(&rate);
        }
    }

    fn tender(&mut self, kind: TenderKind, amount_minor: i64, into_the_shop: bool) {
        let figure = match (kind, into_the_shop) {
            (TenderKind::Cash, true) => Figure::CashInMinor,
            (TenderKind::Cash, false) => Figure::CashOutMinor,
            (TenderKind::Mpesa, true) => Figure::MpesaInMinor,
            (TenderKind::Mpesa, false) => Figure::MpesaOutMinor,
            (TenderKind::Other, true) => Figure::OtherInMinor,
            (TenderKind::Other, false) => Figure::OtherOutMinor,
        };
        self.raise(figure, i128::from(amount_minor));
    }

    fn tenders(&mut self, tenders: &[Tender], into_the_shop: bool) {
        for tender in tenders {
            self.tender(tender.kind, tender.amount_minor, into_the_shop);
        }
    }

    fn sold(&mut self, line: &Line) {
        let Some((amount, tax)) = line_figures(line) else {
            return self.raise(Figure::Unusable, 1);
        };
        self.raise(Figure::GrossMinor, amount + i128::from(line.discount_minor));
        self.raise(Figure::DiscountsMinor, i128::from(line.discount_minor));
        if let Some(rate) = line.tax_rate_bp {
            self.add_tax(rate, amount, tax);
        }
    }

    fn taken_back(&mut self, line: &Line, amounts: Figure) {
        let Some((amount, tax)) = line_figures(line) else {
            return self.raise(Figure::Unusable, 1);
        };
        self.raise(amounts, amount);
        if let Some(rate) = line.tax_rate_bp {
            self.add_tax(rate, -amount, -tax);
        }
    }
}

/// What a fact adds to the totals, if anything.
pub(super) fn tally_of(fact: &Fact) -> Option<(Currency, Tally)> {
    let mut tally = Tally::default();
    let currency = match fact {
        Fact::Sale(sale) => {
            tally.raise(Figure::Sales, 1);
            sale.lines.iter().for_each(|line| tally.sold(line));
            tally.tenders(&sale.tenders, true);
            sale.currency
        }
        Fact::Void(void) => {
            tally.raise(Figure::Voids, 1);
            void.lines.iter().for_each(|line| tally.taken_back(line, Figure::VoidsMinor));
            tally.tenders(&void.tenders, false);
            void.currency
        }
        Fact::Refund(refund) => {
            tally.raise(Figure::Refunds, 1);
            refund.lines.iter().for_each(|line| tally.taken_back(line, Figure::RefundsMinor));
            tally.tenders(&refund.tenders, false);
            refund.currency
        }
        Fact::Expense(expense) => {
            tally.raise(Figure::Expenses, 1);
            tally.raise(Figure::ExpensesMinor, i128::from(expense.amount.minor));
            tally.tender(expense.paid_with, expense.amount.minor, false);
            expense.amount.currency
        }
        Fact::FinancialRecord(record) => {
            let minor = i128::from(record.amount.minor);
            tally.raise(if minor < 0 { Figure::RecordsOutMinor } else { Figure::RecordsInMinor }, minor.abs());
            record.amount.currency
        }
        // In the drawer of the till that says so, and no longer a promise of the sale's.
        Fact::Payment(PaymentFact::CashTaken(taken)) => {
            tally.tender(TenderKind::Cash, taken.amount.minor, true);
            if taken.of_tender {
                tally.tender(TenderKind::Mpesa, taken.amount.minor.saturating_neg(), true);
            }
            taken.amount.currency
        }
        Fact::StockMovement(_)
        | Fact::StockCount(_)
        | Fact::Intent(_)
        | Fact::ShiftOpened(_)
        | Fact::ShiftClosed(_)
        | Fact::Receipt(_)
        | Fact::Decline(_)
        | Fact::Custom(_)
        | Fact::Enrolment(_)
        | Fact::IntentAddressed(_)
        | Fact::IntentConfirmed(_)
        | Fact::Payment(_)
        | Fact::Resolution(_)
        | Fact::HandoffOffered(_)
        | Fact::HandoffAccepted(_)
        | Fact::HandoffTransferred(_)
        | Fact::HandoffWithdrawn(_)
        | Fact::HandoffDecided(_)
        | Fact::Upstream(_) => return None,
    };
    Some((currency, tally))
}

/// A line's amount and the tax in it.
fn line_figures(line: &Line) -> Option<(i128, i128)> {
    let amount = i128::from(line.amount_minor().ok()?);
    let rate = line.tax_rate_bp.unwrap_or_default();
    if rate > 10_000 {
        return None;
    }
    Some((amount, tax_minor(amount, rate)))
}

fn tax_minor(amount_minor: i128, rate_bp: u32) -> i128 {
    let divisor = i128::from(10_000 + rate_bp);
    let doubled = 2 * amount_minor * i128::from(rate_bp);
    let half = if doubled < 0 { -divisor } else { divisor };
    (doubled + half) / (2 * divisor)
}

impl Sheet {
    /// The tally of one currency.
    #[must_use]
    pub fn currency(&self, currency: Currency) -> Tally {
        self.0.iter().find(|(other, _)| *other == currency).map(|(_, tally)| tally.clone()).unwrap_or_default()
    }

    /// Every currency that has a tally, in the order of their codes.
    pub fn iter(&self) -> impl Iterator<Item = (Currency, &Tally)> {
        self.0.iter().map(|(currency, tally)| (*currency, tally))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, currency: Currency, tally: &Tally, sign: Sign) {
        let at = self.0.partition_point(|(other, _)| *other < currency);
        if self.0.get(at).is_none_or(|(other, _)| *other != currency) {
            self.0.reserve_exact(1);
            self.0.insert(at, (currency, Tally::default()));
        }
        if let Some((_, sum)) = self.0.get_mut(at) {
            sum.add(tally, sign);
            if sum.is_zero() {
                self.0.remove(at);
            }
        }
    }

    pub(super) fn add_sheet(&mut self, other: &Self, sign: Sign) {
        for (currency, tally) in &other.0 {
            self.add(*currency, tally, sign);
        }
    }
}

/// Whether a fact is counted or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Count,
    TakeBack,
}

impl Sign {
    pub(super) fn of(self, amount: i128) -> i128 {
        match self {
            Self::Count => amount,
            Self::TakeBack => -amount,
        }
    }
}

// Only figures that are not zero are written: a sale's slip takes about 30 bytes.
impl<C> Encode<C> for Tally {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let figures = self.figures.iter().filter(|figure| **figure != 0).count();
        encoder.map(figures as u64)?;
        for (index, figure) in self.figures.iter().enumerate().filter(|(_, figure)| **figure != 0) {
            encoder.u64(index as u64)?;
            encode_sum(encoder, *figure)?;
        }
        encoder.map(self.taxes.len() as u64)?;
        for (rate, tax) in &self.taxes {
            encoder.u32(*rate)?;
            encode_sum(encoder, tax.amount_minor)?;
            encode_sum(encoder, tax.tax_minor)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Tally {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let endless = || minicbor::decode::Error::message("a tally without a length");
        let mut tally = Self::default();
        for _ in 0..decoder.map()?.ok_or_else(endless)? {
            let index = usize::try_from(decoder.u64()?).unwrap_or(usize::MAX);
            let sum = decode_sum(decoder)?;
            let figure = tally.figures.get_mut(index);
            *figure.ok_or_else(|| minicbor::decode::Error::message("an unknown figure"))? = sum;
        }
        for _ in 0..decoder.map()?.ok_or_else(endless)? {
            let rate = decoder.u32()?;
            let tax = Tax { amount_minor: decode_sum(decoder)?, tax_minor: decode_sum(decoder)? };
            tally.taxes.insert(rate, tax);
        }
        Ok(tally)
    }
}

/// An integer where 64 bits hold it, else 16 bytes, big-endian.
pub(super) fn encode_sum<W: minicbor::encode::Write>(
    encoder: &mut Encoder<W>,
    sum: i128,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    match i64::try_from(sum) {
        Ok(small) => encoder.i64(small)?.ok(),
        Err(_) => encoder.bytes(&sum.to_be_bytes())?.ok(),
    }
}

pub(super) fn decode_sum(decoder: &mut Decoder<'_>) -> Result<i128, minicbor::decode::Error> {
    if decoder.datatype()? != minicbor::data::Type::Bytes {
        return decoder.i64().map(i128::from);
    }
    let bytes = decoder.bytes()?.try_into();
    bytes.map(i128::from_be_bytes).map_err(|_| minicbor::decode::Error::message("a sum of a wrong length"))
}

/// For `#[cbor(with = …)]` on a sum.
pub(super) mod sum {
    use minicbor::{Decoder, Encoder};

    pub(in crate::books) fn encode<C, W: minicbor::encode::Write>(
        sum: &i128,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        super::encode_sum(encoder, *sum)
    }

    pub(in crate::books) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<i128, minicbor::decode::Error> {
        super::decode_sum(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tax_in_a_price_is_rounded_half_away_from_zero() {
        assert_eq!(tax_minor(11_600, 1_600), 1_600);
        assert_eq!(tax_minor(100, 1_600), 14);
        assert_eq!(tax_minor(-100, 1_600), -14);
        assert_eq!(tax_minor(3, 10_000), 2);
        assert_eq!(tax_minor(-3, 10_000), -2);
        assert_eq!(tax_minor(500, 0), 0);
    }

    #[test]
    fn sums_beyond_64_bits_are_exact_and_stored() {
        let mut tally = Tally::default();
        tally.raise(Figure::GrossMinor, i128::from(i64::MAX));
        let mut sum = Tally::default();
        for _ in 0..5 {
            sum.add(&tally, Sign::Count);
        }
        assert_eq!(sum.of(Figure::GrossMinor), 5 * i128::from(i64::MAX));
        let bytes = minicbor::to_vec(&sum).unwrap();
        assert_eq!(minicbor::decode::<Tally>(&bytes).unwrap(), sum);
        for _ in 0..5 {
            sum.add(&tally, Sign::TakeBack);
        }
        assert!(sum.is_zero());
    }
}
