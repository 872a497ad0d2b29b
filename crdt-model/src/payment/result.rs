//! M-PESA's result codes, by what may be done about each.
//! Source: the provider's Daraja 3.0 pages; an unlisted code decides nothing.

/// What a result code means for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultClass {
    /// The customer has paid.
    Paid,
    /// Certainly not charged.
    HardFail(HardFail),
    /// Said to have failed, which is known to be wrong at times.
    SoftFail,
    /// Still being processed.
    Pending,
    /// Not a code we know: it may have been charged.
    Unknown,
}

/// Why the customer was certainly not charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardFail {
    /// The balance is too low, or a limit forbids it.
    Funds,
    /// The same amount and customer within two minutes.
    TooSoon,
    /// The customer cancelled or mistyped the PIN.
    Customer,
    /// The shop's configuration or credentials.
    Configuration,
}

impl HardFail {
    /// How long to wait before a person may try again, in milliseconds.
    #[must_use]
    pub const fn wait_ms(self) -> u64 {
        match self {
            Self::TooSoon => 2 * 60 * 1000,
            Self::Funds | Self::Customer | Self::Configuration => 0,
        }
    }
}

/// Classifies a result code, given as text since the provider sends it as a number or a string.
#[must_use]
pub fn classify(result_code: &str) -> ResultClass {
    match result_code.trim() {
        "0" => ResultClass::Paid,
        "1" | "2" | "3" | "4" | "8" => ResultClass::HardFail(HardFail::Funds),
        "17" => ResultClass::HardFail(HardFail::TooSoon),
        "1032" | "2001" => ResultClass::HardFail(HardFail::Customer),
        "2028" | "8006" | "SFC_IC0003" => ResultClass::HardFail(HardFail::Configuration),
        "1019" | "1025" | "1037" | "9999" | "26" | "1001" => ResultClass::SoftFail,
        "4999" => ResultClass::Pending,
        _ => ResultClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_code_has_its_class_and_any_other_is_unknown() {
        let table = [
            (ResultClass::Paid, &["0", " 0 "][..]),
            (ResultClass::HardFail(HardFail::Funds), &["1", "2", "3", "4", "8"]),
            (ResultClass::HardFail(HardFail::TooSoon), &["17"]),
            (ResultClass::HardFail(HardFail::Customer), &["1032", "2001"]),
            (ResultClass::HardFail(HardFail::Configuration), &["2028", "8006", "SFC_IC0003"]),
            (ResultClass::SoftFail, &["1019", "1025", "1037", "9999", "26", "1001"]),
            (ResultClass::Pending, &["4999"]),
            (ResultClass::Unknown, &["", "00", "-1", "5", "1033", "sfc_ic0003", "0.0", "null"]),
        ];
        for (class, codes) in table {
            for code in codes {
                assert_eq!(classify(code), class, "{code:?}");
            }
        }
        assert_eq!(HardFail::TooSoon.wait_ms(), 120_000);
    }
}
