//! Callbacks that were kept are processed, in the engine's own turn.

use crdt_model::time::Timestamp;
use tracing::Instrument;

use super::super::booking::{self, Word};
use super::super::intake::Case;
use super::super::rows::{self, Arrival};
use super::Engine;
use crate::payments::CallbackReport;
use crate::shop_handle::Stopped;

impl Engine {
    pub(super) async fn process_callbacks(&mut self) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let page = rows::pending(self.shop.reader().as_ref(), after.as_deref());
            let rows::Pending { arrivals, next } = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "callbacks that were kept can't be read");
                    return Ok(());
                }
            };
            for (arrival, body) in arrivals {
                let span = tracing::info_span!("attempt", intent = %arrival.intent, attempt = arrival.number);
                self.process_callback(arrival, &body).instrument(span).await?;
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    async fn process_callback(&mut self, arrival: Arrival, body: &[u8]) -> Result<(), Stopped> {
        let (intent, number) = (arrival.intent, arrival.number);
        let case = Case::ask(&self.shop, intent).await?;
        let provider = case.as_ref().and_then(|case| self.provider(&case.payment.provider));
        let stored = rows::attempts(self.shop.reader().as_ref(), intent);
        let (Some(case), Some(provider), Ok(attempts)) = (case, provider, stored) else {
            if self.unattributed.insert(arrival) {
                tracing::error!(
                    "a callback's payment, its provider or its attempt can't be told: it is kept and tried again"
                );
            }
            return Ok(());
        };
        self.unattributed.remove(&arrival);
        let report = match provider.parse_callback(body) {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%error, "a callback is kept but says nothing");
                return booking::write(&self.shop, arrival.processed(body).into()).await;
            }
        };
        let now = (self.clock)();
        let attempt = attempts.into_iter().find(|attempt| attempt.number() == number).unwrap_or_else(|| {
            // Its token proves that this relay made it.
            tracing::warn!("the attempt's row was lost, as in a restore: it is made again from its callback");
            case.remake(number)
        });
        let (event, said) = (report.event(), said_by_callback(report));
        self.list(intent);
        let rows = arrival.processed(body).into();
        let after = booking::carry(&self.shop, &case.payment, &attempt, &event, &said, rows, now).await?;
        self.watch(&after);
        Ok(())
    }
}

fn said_by_callback(report: CallbackReport) -> Word {
    Word { code: report.result.result_code, reason: report.description, paid_at: report.paid_at_ms.map(Timestamp) }
}
