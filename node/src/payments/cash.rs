//! Cash: settles at once, over the counter, with no network.

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{CallbackError, CallbackReport, NotReady, PaymentProvider, PushOutcome, PushRequest, Unsupported};

const NAME: &str = "cash";

/// The largest cash payment, in minor units; more is a typing mistake, and sums stay far from
/// overflow.
const AMOUNT_MAX_MINOR: i64 = 1_000_000_000_000;

/// Cash over the counter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cash;

impl PaymentProvider for Cash {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, _currency: &str, amount_minor: i64) -> Result<(), Unsupported> {
        if (1..=AMOUNT_MAX_MINOR).contains(&amount_minor) {
            return Ok(());
        }
        Err(Unsupported::OutOfRange { provider: NAME, min_minor: 1, max_minor: AMOUNT_MAX_MINOR, given: amount_minor })
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), NotReady>> {
        ready(Ok(())).boxed()
    }

    /// The receipt number derives from the attempt, so settling twice is one receipt.
    fn push<'a>(&'a self, request: &'a PushRequest) -> BoxFuture<'a, PushOutcome> {
        let receipt_number = format!("CASH{}", request.account_reference);
        ready(PushOutcome::Settled { receipt_number }).boxed()
    }

    fn parse_callback(&self, _body: &[u8]) -> Result<CallbackReport, CallbackError> {
        Err(CallbackError::NotExpected(NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cash_takes_any_currency_but_no_absurd_amount() {
        assert_eq!(Cash.supports("GBP", 1), Ok(()));
        for amount_minor in [0, -5, i64::MAX] {
            assert!(Cash.supports("KES", amount_minor).is_err());
        }
    }
}
