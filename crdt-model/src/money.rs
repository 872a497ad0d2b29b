//! Money: whole minor units with their currency, and arithmetic that is checked.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// Why an amount can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// The figure is beyond what 64 bits hold.
    #[error("the amount is too large: keep it below {} minor units", i64::MAX)]
    TooLarge,
    /// Amounts of two currencies can't be added.
    #[error("{left} and {right} can't be added: record them apart")]
    CurrencyMismatch {
        /// The currency of the first amount.
        left: Currency,
        /// The currency of the second amount.
        right: Currency,
    },
    /// Not three capital letters.
    #[error("not a currency: write an ISO 4217 code such as KES")]
    NotACurrency,
    /// Not a decimal amount with at most the currency's decimals.
    #[error("not an amount: write it with at most {decimals} decimals, such as 65 or 65.00")]
    NotAnAmount {
        /// How many decimals the currency has.
        decimals: u32,
    },
}

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The Kenyan shilling.
    pub const KES: Self = Self(*b"KES");
    /// The pound sterling.
    pub const GBP: Self = Self(*b"GBP");

    /// The code, such as `KES`.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// How many decimals its minor unit has. Source: ISO 4217 (exponents other than 2 that are
    /// in use today).
    #[must_use]
    pub fn decimals(&self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// Reads a decimal amount such as `65`, `65.5` or `-0.05` exactly.
    ///
    /// # Errors
    /// [`MoneyError::NotAnAmount`] for anything else, [`MoneyError::TooLarge`] beyond 64 bits.
    pub fn parse_minor(&self, text: &str) -> Result<i64, MoneyError> {
        parse_decimal(text, self.decimals())
    }

    /// Writes minor units as a decimal amount without the code, such as `65.00`.
    #[must_use]
    pub fn format_minor(&self, minor: i64) -> String {
        let decimals = self.decimals();
        let scale = 10_u64.pow(decimals);
        let sign = if minor < 0 { "-" } else { "" };
        let whole = minor.unsigned_abs() / scale;
        let part = minor.unsigned_abs() % scale;
        match decimals {
            0 => format!("{sign}{whole}"),
            _ => format!("{sign}{whole}.{part:0width$}", width = decimals as usize),
        }
    }
}

/// Reads a decimal number exactly, scaled by ten to the power of `decimals`.
///
/// # Errors
/// [`MoneyError::NotAnAmount`] for anything else, [`MoneyError::TooLarge`] beyond 64 bits.
pub fn parse_decimal(text: &str, decimals: u32) -> Result<i64, MoneyError> {
    let wrong = MoneyError::NotAnAmount { decimals };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let kept = part.trim_end_matches('0');
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || digits.ends_with('.') {
        return Err(wrong);
    }
    let kept_len = u32::try_from(kept.len()).map_err(|_| wrong)?;
    let missing = decimals.checked_sub(kept_len).ok_or(wrong)?;
    let mut minor: i64 = 0;
    for digit in whole.bytes().chain(kept.bytes()) {
        minor = minor
            .checked_mul(10)
            .and_then(|minor| minor.checked_add(i64::from(digit - b'0')))
            .ok_or(MoneyError::TooLarge)?;
    }
    minor = minor.checked_mul(10_i64.pow(missing)).ok_or(MoneyError::TooLarge)?;
    Ok(if negative { -minor } else { minor })
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes().try_into() {
            Ok(code) if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(Self(code)),
            _ => Err(MoneyError::NotACurrency),
        }
    }
}

impl<C> Encode<C> for Currency {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(self.code())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Currency {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decoder.str()?.parse().map_err(|_| minicbor::decode::Error::message("not a currency"))
    }
}

/// An amount of money. `minor` counts the currency's smallest unit (cents for KES).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Money {
    /// Minor units; negative for money that goes back.
    #[n(0)]
    pub minor: i64,
    /// The currency of `minor`.
    #[n(1)]
    pub currency: Currency,
}

impl Money {
    /// An amount of `minor` units.
    #[must_use]
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] and [`MoneyError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency });
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.currency, self.currency.format_minor(self.minor))
    }
}

/// `unit_price_minor` times `quantity_milli` thousandths, rounded half away from zero.
///
/// # Errors
/// [`MoneyError::TooLarge`].
pub fn line_amount_minor(unit_price_minor: i64, quantity_milli: i64) -> Result<i64, MoneyError> {
    let product = i128::from(unit_price_minor) * i128::from(quantity_milli);
    let half = if product < 0 { -500 } else { 500 };
    i64::try_from((product + half) / 1000).map_err(|_| MoneyError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, minor) in [("65", 6500), ("65.5", 6550), ("0.05", 5), ("-0.05", -5), ("2.550", 255)] {
            assert_eq!(Currency::KES.parse_minor(text), Ok(minor), "{text}");
        }
        for text in ["", ".", "5.", ".5", "1e3", "1,000", "2.555", "--1", "+1", "NaN"] {
            assert_eq!(Currency::KES.parse_minor(text), Err(MoneyError::NotAnAmount { decimals: 2 }), "{text}");
        }
        assert_eq!(Currency::KES.parse_minor("92233720368547758.08"), Err(MoneyError::TooLarge));
        assert_eq!(Money::new(-5, Currency::KES).to_string(), "KES -0.05");
        assert_eq!("UGX".parse::<Currency>().unwrap().format_minor(1500), "1500");
    }

    #[test]
    fn sums_are_checked() {
        let kes = Money::new(i64::MAX, Currency::KES);
        assert_eq!(kes.plus(Money::new(1, Currency::KES)), Err(MoneyError::TooLarge));
        assert!(matches!(kes.plus(Money::new(1, Currency::GBP)), Err(MoneyError::CurrencyMismatch { .. })));
    }

    #[test]
    fn line_amounts_round_half_away_from_zero() {
        assert_eq!(line_amount_minor(255, 6000), Ok(1530));
        assert_eq!(line_amount_minor(1, 500), Ok(1));
        assert_eq!(line_amount_minor(-1, 500), Ok(-1));
        assert_eq!(line_amount_minor(1, 499), Ok(0));
        assert_eq!(line_amount_minor(i64::MAX, 2000), Err(MoneyError::TooLarge));
    }
}
