//! Decimal numbers read exactly from text: digits and one point, never a float.

use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum DecimalError {
    #[error("is not a plain decimal number (digits and a point, no exponent, no thousands comma)")]
    NotPlain,
    #[error("has more decimals than can be kept exactly")]
    TooFine,
    #[error("is larger than any shop could mean")]
    TooLarge,
}

/// `text` in units of 10^-`decimals`. Zeros behind the last significant decimal are no precision,
/// so `2.5500` fits two decimals.
///
/// # Errors
/// Anything but `[-]digits[.digits]`, a finer number, or one beyond ±`whole_max`.
pub(super) fn scaled(text: &str, decimals: u32, whole_max: i64) -> Result<i64, DecimalError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(DecimalError::NotPlain);
    }

    let fraction = fraction.trim_end_matches('0');
    let decimals = usize::try_from(decimals).map_err(|_| DecimalError::TooFine)?;
    if fraction.len() > decimals {
        return Err(DecimalError::TooFine);
    }

    let padding = std::iter::repeat_n('0', decimals - fraction.len());
    let mut value = 0_i64;
    for digit in whole.chars().chain(fraction.chars()).chain(padding) {
        let digit = i64::from(digit.to_digit(10).ok_or(DecimalError::NotPlain)?);
        value = value.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or(DecimalError::TooLarge)?;
    }
    let units = u32::try_from(decimals).map_err(|_| DecimalError::TooFine)?;
    let limit = 10_i64.checked_pow(units).and_then(|one| one.checked_mul(whole_max)).ok_or(DecimalError::TooLarge)?;
    if value > limit {
        return Err(DecimalError::TooLarge);
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_exactly_or_refused() {
        let table = [
            ("2.55", Ok(2_550_000)),
            ("2.5500000000", Ok(2_550_000)),
            ("0.001", Ok(1_000)),
            ("11062.06", Ok(11_062_060_000)),
            ("-11062.06", Ok(-11_062_060_000)),
            (".5", Ok(500_000)),
            ("5.", Ok(5_000_000)),
            ("007", Ok(7_000_000)),
            ("-0.00", Ok(0)),
            ("1000000000", Ok(1_000_000_000_000_000)),
            ("1000000000.000001", Err(DecimalError::TooLarge)),
            ("99999999999999999999999999", Err(DecimalError::TooLarge)),
            ("0.0000001", Err(DecimalError::TooFine)),
            ("", Err(DecimalError::NotPlain)),
            (".", Err(DecimalError::NotPlain)),
            ("-", Err(DecimalError::NotPlain)),
            ("--1", Err(DecimalError::NotPlain)),
            ("+1", Err(DecimalError::NotPlain)),
            ("1e3", Err(DecimalError::NotPlain)),
            ("1,000", Err(DecimalError::NotPlain)),
            ("1.2.3", Err(DecimalError::NotPlain)),
            ("£2.55", Err(DecimalError::NotPlain)),
            ("٣", Err(DecimalError::NotPlain)),
            ("NaN", Err(DecimalError::NotPlain)),
        ];
        for (text, expected) in table {
            assert_eq!(scaled(text, 6, 1_000_000_000), expected, "{text:?}");
        }
    }
}
