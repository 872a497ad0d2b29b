//! Hybrid logical time: wall-clock milliseconds, and a counter that keeps causes before
//! effects when clocks disagree. Source: Kulkarni et al., "Logical Physical Clocks", 2014.

use std::fmt;

use minicbor::{Decode, Encode};

/// Wall-clock time in milliseconds since 1970-01-01 UTC, as the edge read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// This time and `ms` milliseconds more.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A day of the shop, counted from 1970-01-01 in the shop's own time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Day(#[n(0)] pub i32);

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

impl Day {
    /// The day on which `at` falls where clocks are `utc_offset_minutes` ahead of UTC.
    #[must_use]
    pub fn of(at: Timestamp, utc_offset_minutes: i32) -> Self {
        let local =
            i64::try_from(at.0).unwrap_or(i64::MAX / 2).saturating_add(i64::from(utc_offset_minutes) * MINUTE_MS);
        Self(i32::try_from(local.div_euclid(DAY_MS)).unwrap_or(i32::MAX))
    }

    /// Year, month and day of the proleptic Gregorian calendar.
    /// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    #[must_use]
    pub fn civil(self) -> (i64, u32, u32) {
        let shifted = i64::from(self.0) + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
    }

    /// The day of a calendar date; `None` if there is no such date.
    #[must_use]
    pub fn from_civil(year: i64, month: u32, day: u32) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let (y, m, d) = (year - i64::from(month <= 2), i64::from(month), i64::from(day));
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let of_year = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let found = Self(i32::try_from(era * 146_097 + of_era - 719_468).ok()?);
        (found.civil() == (year, month, day)).then_some(found)
    }

    /// Reads `2026-03-01`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = text.splitn(3, '-');
        let (year, month, day) = (pieces.next()?, pieces.next()?, pieces.next()?);
        let plain = |piece: &str, digits: usize| {
            (piece.len() == digits && piece.bytes().all(|byte| byte.is_ascii_digit())).then(|| piece.parse().ok())?
        };
        Self::from_civil(i64::from(plain(year, 4)?), plain(month, 2)?, plain(day, 2)?)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A hybrid logical time: 48 bits of milliseconds, 16 bits of counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Hlc(#[n(0)] pub u64);

const COUNTER_BITS: u32 = 16;

impl Hlc {
    /// The wall-clock part, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn wall(self) -> Timestamp {
        Timestamp(self.0 >> COUNTER_BITS)
    }

    /// The first hybrid time of a millisecond.
    #[must_use]
    pub fn from_wall(at: Timestamp) -> Self {
        Self(at.0.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS)
    }
}

/// A device's hybrid logical clock.
#[derive(Debug, Clone, Copy, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Clock(#[n(0)] Hlc);

/// How far a remote clock may pull ours ahead of our own wall clock. Five minutes covers
/// devices set by hand; beyond that the remote clock is simply wrong, and its entries are
/// still taken, with their own times.
pub const CLOCK_ADVANCE_MAX_MS: u64 = 5 * 60 * 1000;

impl Clock {
    /// A time later than every time this clock has given or accepted.
    #[must_use]
    pub fn tick(&mut self, now: Timestamp) -> Hlc {
        self.0 = Hlc::from_wall(now).max(Hlc(self.0.0.saturating_add(1)));
        self.0
    }

    /// Learns a remote time, as far as the cap allows.
    pub fn observe(&mut self, remote: Hlc, now: Timestamp) {
        let cap = Hlc::from_wall(now.plus_ms(CLOCK_ADVANCE_MAX_MS));
        self.0 = self.0.max(remote.min(cap));
    }

    /// The last time given or accepted.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back_and_is_pulled_ahead_only_within_the_cap() {
        let mut clock = Clock::default();
        let first = clock.tick(Timestamp(1_000));
        let second = clock.tick(Timestamp(500));
        assert!(second > first);
        clock.observe(Hlc::from_wall(Timestamp(1_000_000_000)), Timestamp(1_000));
        assert_eq!(clock.last().wall(), Timestamp(1_000 + CLOCK_ADVANCE_MAX_MS));
        assert!(clock.tick(Timestamp(2_000)).wall() >= Timestamp(1_000 + CLOCK_ADVANCE_MAX_MS));
    }

    #[test]
    fn days_follow_the_shops_own_time_zone() {
        let late_evening_utc = Timestamp(1_291_240_800_000 - 1); // 2010-12-01 21:59:59.999 UTC
        assert_eq!(Day::of(late_evening_utc, 0).to_string(), "2010-12-01");
        assert_eq!(Day::of(late_evening_utc, 180).to_string(), "2010-12-02");
        assert_eq!(Day::parse("2010-12-02").unwrap().to_string(), "2010-12-02");
        for wrong in ["2010-02-29", "2010-13-01", "10-1-1", "2010-12-1x", "2010-12", "", "2010-+1-01"] {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_day_of_400_years_round_trips() {
        for number in -73_000..73_000 {
            let (year, month, day) = Day(number).civil();
            assert_eq!(Day::from_civil(year, month, day), Some(Day(number)));
        }
    }
}
