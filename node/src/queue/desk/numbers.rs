//! Numbers that a desk keeps beside the queue itself: alerts, and how long something was lacking.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crdt_model::time::Day;
use tokio::sync::broadcast;

use super::super::alerts::{Alert, AlertCounts};
use super::super::stretches::{DayStretches, Lacking, Stretches};
use super::{Desk, DeskError, Known, counters_row};

impl Desk {
    /// Tells whoever listens of something that a person should look at, and counts it.
    pub fn raise(&self, alert: Alert) {
        alert.kind.count(&mut self.raised.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.ring(alert);
    }

    /// What people should look at, from now on.
    #[must_use]
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.bell.listen()
    }

    /// How often each alert was raised on this node.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn alert_counts(&self) -> Result<AlertCounts, DeskError> {
        let mut turn = self.turn.lock().await;
        let mut counts = self.known(&mut turn)?.counters.alerts;
        let raised = *self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter_mut().zip(raised).for_each(|(count, more)| *count += more);
        Ok(counts)
    }

    /// The carrier says whether it leaves the shop's own server alone.
    pub(crate) fn server_is(&self, away: bool) {
        self.server_away.store(away, Ordering::Relaxed);
    }

    pub(crate) fn server_is_away(&self) -> bool {
        self.server_away.load(Ordering::Relaxed)
    }

    /// Notes whether something is lacking.
    pub(crate) async fn look_for(&self, lacking: Lacking, is_lacking: bool) -> Result<(), DeskError> {
        let offset = self.shop.ask(|shop| shop.genesis().utc_offset_minutes).await?;
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stretches.look(self.shop.reader().as_ref(), lacking, is_lacking, crate::clock::now(), offset)?)
    }

    /// Whether something is lacking now, as far as somebody looked.
    #[must_use]
    pub fn is_lacking(&self, lacking: Lacking) -> bool {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).is_lacking(lacking)
    }

    /// Writes the numbers that are only in memory: those that are due, or all.
    pub(crate) async fn keep_numbers(&self, all: bool) -> Result<(), DeskError> {
        let mut turn = self.turn.lock().await;
        let mut rows = {
            let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
            if all { stretches.rows() } else { stretches.due_rows(crate::clock::now()) }
        };
        let raised = std::mem::take(&mut *self.raised.lock().unwrap_or_else(PoisonError::into_inner));
        let known = self.known(&mut turn)?;
        if raised != AlertCounts::default() {
            known.counters.alerts.iter_mut().zip(raised).for_each(|(count, more)| *count += more);
            rows.push(counters_row(&known.counters));
        }
        if !rows.is_empty() {
            self.shop.write_rows(rows).await?;
        }
        Ok(())
    }

    /// The stretches of some days, up to now.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn stretches_of(&self, days: (Day, Day)) -> Result<DayStretches, DeskError> {
        let stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stretches.of_days(self.shop.reader().as_ref(), days)?)
    }

    /// The stretches since the first, up to now.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn stretches_ever(&self, lacking: Lacking) -> Result<Stretches, DeskError> {
        let stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stretches.ever(self.shop.reader().as_ref(), lacking)?)
    }

    /// What is stored of the queue, without reading what is new.
    pub(super) fn known<'a>(&self, turn: &'a mut Option<Known>) -> Result<&'a mut Known, DeskError> {
        if turn.is_none() {
            *turn = Some(self.load()?);
        }
        Ok(turn.get_or_insert_default())
    }
}
