//! A Kenyan mobile number, in the one form that M-PESA takes. Logs only ever see it masked.

use std::fmt;
use std::str::FromStr;

/// A number like `254708374149`: 254, then 7 or 1, then eight digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(String);

/// Not a Kenyan mobile number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("phone: not a Kenyan mobile number: write it as 07XXXXXXXX, 01XXXXXXXX, +2547XXXXXXXX or 2547XXXXXXXX")]
pub struct PhoneError;

/// Digits after the country code.
const SUBSCRIBER_DIGITS: usize = 9;

/// With separators; anything longer is not a phone number.
const INPUT_BYTES_MAX: usize = 32;

impl Phone {
    /// All twelve digits, for the provider only.
    #[must_use]
    pub fn msisdn(&self) -> &str {
        &self.0
    }

    /// The number with its middle hidden, for logs and reports.
    #[must_use]
    pub fn masked(&self) -> String {
        let head: String = self.0.chars().take(4).collect();
        let tail: String = self.0.chars().skip(9).collect();
        format!("{head}*****{tail}")
    }
}

impl FromStr for Phone {
    type Err = PhoneError;

    /// Takes spaces and hyphens between digits, and the usual ways to write the country code.
    fn from_str(text: &str) -> Result<Self, PhoneError> {
        if text.len() > INPUT_BYTES_MAX {
            return Err(PhoneError);
        }
        let digits: String = text.trim().chars().filter(|&c| !matches!(c, ' ' | '-')).collect();
        let subscriber = digits
            .strip_prefix("+254")
            .or_else(|| digits.strip_prefix("254"))
            .or_else(|| digits.strip_prefix('0'))
            .ok_or(PhoneError)?;
        let mobile = subscriber.starts_with(['7', '1']);
        let plain = subscriber.bytes().all(|byte| byte.is_ascii_digit());
        if !mobile || !plain || subscriber.len() != SUBSCRIBER_DIGITS {
            return Err(PhoneError);
        }
        Ok(Self(format!("254{subscriber}")))
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({})", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_one_number() {
        for text in ["0708374149", "254708374149", "+254708374149", "+254 708 374 149", "0708-374-149"] {
            assert_eq!(text.parse::<Phone>().unwrap().msisdn(), "254708374149", "{text}");
        }
        assert_eq!("0112345678".parse::<Phone>().unwrap().msisdn(), "254112345678");
    }

    #[test]
    fn other_numbers_are_refused() {
        for text in [
            "",
            "0",
            "070837414",
            "07083741490",
            "0808374149",
            "+255708374149",
            "708374149",
            "07o8374149",
            "2540708374149",
            "++254708374149",
            "٠٧٠٨٣٧٤١٤٩",
        ] {
            assert_eq!(text.parse::<Phone>(), Err(PhoneError), "{text}");
        }
        assert_eq!("0".repeat(1_000).parse::<Phone>(), Err(PhoneError));
    }

    #[test]
    fn a_number_is_masked_wherever_it_is_shown() {
        let phone: Phone = "0708374149".parse().unwrap();
        assert_eq!(phone.to_string(), "2547*****149");
        assert_eq!(format!("{phone:?}"), "Phone(2547*****149)");
    }
}
