//! What this device records by itself about payments that it promised: who is to collect them,
//! and cash that it took instead.

use super::{Output, Shop};
use crate::record::{CashTaken, Fact, IntentAddressed, PaymentFact};
use crate::time::Timestamp;

impl Shop {
    /// Names the paying relay for our intents that were made before we knew one.
    pub(super) fn address_intents(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let Some(ledger) = self.settings().paying_ledger else { return };
        let device = self.device();
        let waiting: Vec<_> = self.books.unaddressed_intents(device).take(crate::entry::FACTS_MAX).collect();
        if waiting.is_empty() {
            return;
        }
        let facts =
            waiting.into_iter().map(|intent| Fact::IntentAddressed(IntentAddressed { intent, ledger })).collect();
        let operation = super::Operation { facts, ..super::Operation::default() };
        if let Err(error) = self.act_and_fold(operation, now, out) {
            tracing::warn!(%error, "intents could not be addressed to the paying relay");
        }
    }

    /// Records the cash of payments that somebody asked here to be paid in cash instead, once
    /// the ledger has agreed: from then on it is in this till's drawer.
    pub(super) fn take_cash(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if !self.is_loaded() {
            return;
        }
        for intent in self.books.cash_due(self.device()) {
            let Some(payment) = self.books.payment(intent).filter(|payment| !payment.voided) else { continue };
            let of_tender = match payment.sale {
                Some((sale, tender)) => {
                    let status = self.books.sale_status(sale);
                    if !status.recorded {
                        continue;
                    }
                    status.payments.iter().any(|(index, ..)| *index == tender)
                }
                None => false,
            };
            let taken = CashTaken { intent, amount: payment.amount, of_tender };
            let facts = vec![Fact::Payment(PaymentFact::CashTaken(taken))];
            let operation = super::Operation { facts, ..super::Operation::default() };
            if let Err(error) = self.act_and_fold(operation, now, out) {
                tracing::warn!(%error, %intent, "cash that was paid instead could not be recorded");
            }
        }
    }
}
