//! Line amounts in whole pennies whose sum is the exact sum, to the penny.

/// Turns quantity × price into pennies. What a line's rounding leaves over goes into the next
/// line, so no number of sub-penny prices (0.001 exists in the public data) can push the total
/// away from the plain sum; each line stays within a penny of its exact amount.
#[derive(Debug, Clone, Default)]
pub(super) struct PennyCarry {
    left: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pennies {
    pub(super) amount_minor: i64,
    pub(super) unit_price_minor: i64,
}

impl PennyCarry {
    /// `None` if the amount is beyond [`AMOUNT_MINOR_MAX`]; the carry is then as before.
    pub(super) fn take(&mut self, quantity_milli: i64, unit_price_micro: i64) -> Option<Pennies> {
        let exact = i128::from(quantity_milli) * i128::from(unit_price_micro);
        let owed = self.left + exact;
        let amount = (owed + PENNY / 2).div_euclid(PENNY);
        let amount_minor = i64::try_from(amount).ok()?;
        if amount_minor.abs() > AMOUNT_MINOR_MAX {
            return None;
        }
        let unit_price_minor = unit_price_covering(amount_minor, quantity_milli, unit_price_micro)?;
        self.left = owed - amount * PENNY;
        Some(Pennies { amount_minor, unit_price_minor })
    }
}

/// The price in whole pennies, rounded up, and high enough that quantity × price covers the
/// amount: what is too much can be a discount, what is too little could be nothing.
fn unit_price_covering(amount_minor: i64, quantity_milli: i64, unit_price_micro: i64) -> Option<i64> {
    let listed = whole_pennies_up(unit_price_micro);
    let amount_milli = amount_minor.abs().checked_mul(1_000)?;
    let quantity_milli = quantity_milli.abs().max(1);
    let covering = amount_milli / quantity_milli + i64::from(amount_milli % quantity_milli != 0);
    Some(listed.max(covering))
}

/// A price that is not negative, in millionths of a pound, as whole pennies, rounded up.
pub(super) fn whole_pennies_up(unit_price_micro: i64) -> i64 {
    unit_price_micro / 10_000 + i64::from(unit_price_micro % 10_000 != 0)
}

/// Thousandths of a piece × millionths of a pound in a penny.
const PENNY: i128 = 10_000_000;

/// A thousand million pounds: no shop's line, and far from overflow in any sum of lines.
pub(super) const AMOUNT_MINOR_MAX: i64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_lines_at_a_tenth_of_a_penny_make_a_pound() {
        let mut carry = PennyCarry::default();
        let mut total_minor = 0;
        for _ in 0..1_000 {
            let pennies = carry.take(1_000, 1_000).unwrap();
            assert!((0..=1).contains(&pennies.amount_minor));
            assert_eq!(pennies.unit_price_minor, 1);
            total_minor += pennies.amount_minor;
        }
        assert_eq!(total_minor, 100);
    }

    #[test]
    fn whole_pennies_stay_as_they_are() {
        let mut carry = PennyCarry::default();
        for (quantity_milli, amount_minor) in [(6_000, 1_530), (-6_000, -1_530), (1_000, 255)] {
            let expected = Pennies { amount_minor, unit_price_minor: 255 };
            assert_eq!(carry.take(quantity_milli, 2_550_000), Some(expected));
            assert_eq!(carry.left, 0);
        }
    }

    #[test]
    fn an_absurd_amount_is_refused_and_leaves_nothing_behind() {
        let mut carry = PennyCarry::default();
        assert_eq!(carry.take(1_000_000_000_000, 1_000_000_000_000_000), None);
        assert_eq!(carry.left, 0);
    }
}
