//! Totals of each day, device and currency, and of the whole business.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use minicbor::{Decode, Encode};

use super::tally::{Sheet, Sign, Tally};
use crate::ids::DeviceId;
use crate::money::Currency;
use crate::time::Day;

/// One device's day in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub struct DayTotals {
    /// The business day.
    #[n(0)]
    pub day: Day,
    /// The device that recorded.
    #[n(1)]
    pub device: DeviceId,
    /// The currency of every amount.
    #[n(2)]
    pub currency: Currency,
    /// The figures.
    #[n(3)]
    pub tally: Tally,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Totals {
    #[n(0)]
    days: BTreeMap<(Day, DeviceId), Sheet>,
    #[n(1)]
    business: Sheet,
}

impl Totals {
    pub(super) fn add(&mut self, day: Day, device: DeviceId, currency: Currency, tally: &Tally, sign: Sign) {
        self.business.add(currency, tally, sign);
        let sheet = self.days.entry((day, device)).or_default();
        sheet.add(currency, tally, sign);
        if sheet.is_empty() {
            self.days.remove(&(day, device));
        }
    }

    pub(super) fn business(&self) -> &Sheet {
        &self.business
    }

    pub(super) fn days(&self, days: RangeInclusive<Day>) -> impl Iterator<Item = DayTotals> + '_ {
        let (first, last) = days.into_inner();
        let rows = self.days.range((first, DeviceId([0; 32]))..).take_while(move |((day, _), _)| *day <= last);
        rows.flat_map(|((day, device), sheet)| {
            sheet.iter().map(|(currency, tally)| DayTotals {
                day: *day,
                device: *device,
                currency,
                tally: tally.clone(),
            })
        })
    }

    pub(super) fn of_device(&self, day: Day, device: DeviceId) -> Sheet {
        self.days.get(&(day, device)).cloned().unwrap_or_default()
    }
}
