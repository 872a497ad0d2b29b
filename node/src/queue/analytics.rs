//! The figures of some days put together: of all, by day and by device.

use std::collections::BTreeMap;

use crdt_model::ids::DeviceId;
use crdt_model::time::Day;

use super::figures::{Figures, of_days};
use crate::storage::{Reader, StorageError};

/// What the calls of some days came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Analytics {
    /// All of them.
    pub total: Figures,
    /// By day; days without a call are left out.
    pub by_day: BTreeMap<Day, Figures>,
    /// By the device that recorded the operation.
    pub by_device: BTreeMap<DeviceId, Figures>,
}

/// Puts the figures of some days together, of one device or of all.
///
/// # Errors
/// [`StorageError`].
pub fn analytics(reader: &dyn Reader, days: (Day, Day), device: Option<DeviceId>) -> Result<Analytics, StorageError> {
    let mut found = Analytics::default();
    of_days(reader, days, device, &mut |day, by, figures| {
        found.total.merge(&figures);
        found.by_day.entry(day).or_default().merge(&figures);
        found.by_device.entry(by).or_default().merge(&figures);
    })?;
    Ok(found)
}
