//! Invoice dates without a zone, read as UTC.

use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum MomentError {
    #[error("is not YYYY-MM-DD HH:MM[:SS] or M/D/YYYY H:MM[:SS]")]
    Unreadable,
    #[error("names a day or time that does not exist, or a year before 1970")]
    Impossible,
}

/// Milliseconds since 1970 of `2010-12-01 08:26:00` or `12/1/2010 8:26` (month first, as the
/// public file writes it; a year of two digits is of this century), seconds optional.
///
/// # Errors
/// Another shape, or a day that the calendar does not have.
pub(super) fn utc_ms(text: &str) -> Result<i64, MomentError> {
    let (date, time) = text.split_once([' ', 'T']).ok_or(MomentError::Unreadable)?;
    let (year, month, day) = match parts(date, '-')?.as_slice() {
        [Some(year @ 1000..), Some(month), Some(day)] => (*year, *month, *day),
        _ => us_date(date)?,
    };
    let (hour, minute, second) = match parts(time.trim_start(), ':')?.as_slice() {
        [Some(hour), Some(minute)] => (*hour, *minute, 0),
        [Some(hour), Some(minute), Some(second)] => (*hour, *minute, *second),
        _ => return Err(MomentError::Unreadable),
    };
    let exists = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !exists {
        return Err(MomentError::Impossible);
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(seconds * 1_000)
}

fn us_date(date: &str) -> Result<(i64, i64, i64), MomentError> {
    match parts(date, '/')?.as_slice() {
        [Some(month), Some(day), Some(year @ 0..100)] => Ok((2000 + *year, *month, *day)),
        [Some(month), Some(day), Some(year)] => Ok((*year, *month, *day)),
        _ => Err(MomentError::Unreadable),
    }
}

/// The numbers between `separator`s; `None` for one that is not 1–4 digits.
fn parts(text: &str, separator: char) -> Result<Vec<Option<i64>>, MomentError> {
    if text.len() > "2010-12-01".len() {
        return Err(MomentError::Unreadable);
    }
    let number = |part: &str| {
        let digits = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    Ok(text.split(separator).map(number).collect())
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counted in years that start in March, so that the leap day comes last. Proleptic Gregorian
/// (ISO 8601); needs a year above 0.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let year_days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400;
    let month_offset_days = (153 * months_since_march + 2) / 5;
    year_days + month_offset_days + day - 1 - DAYS_BEFORE_1970
}

// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_moment_are_read() {
        let table = [
            ("1970-01-01 00:00:00", Ok(0)),
            ("2010-12-01 08:26:00", Ok(1_291_191_960_000)),
            ("2010-12-01T08:26", Ok(1_291_191_960_000)),
            ("12/1/2010 8:26", Ok(1_291_191_960_000)),
            ("12/01/10 08:26:00", Ok(1_291_191_960_000)),
            ("2011-12-09 12:50:00", Ok(1_323_435_000_000)),
            ("2000-02-29 00:00:00", Ok(951_782_400_000)),
            ("2011-02-29 10:00:00", Err(MomentError::Impossible)),
            ("2100-02-29 10:00:00", Err(MomentError::Impossible)),
            ("2010-13-01 10:00:00", Err(MomentError::Impossible)),
            ("13/12/2010 10:00", Err(MomentError::Impossible)),
            ("2010-12-00 10:00:00", Err(MomentError::Impossible)),
            ("2010-12-01 24:00:00", Err(MomentError::Impossible)),
            ("1969-12-31 23:59:59", Err(MomentError::Impossible)),
            ("2010-12-01", Err(MomentError::Unreadable)),
            ("2010-12-01 ", Err(MomentError::Unreadable)),
            ("2010-12-01 8", Err(MomentError::Unreadable)),
            ("2010-12-01 08:26:00Z", Err(MomentError::Unreadable)),
            ("2010-12--1 08:26:00", Err(MomentError::Unreadable)),
            ("yesterday noon", Err(MomentError::Unreadable)),
            ("", Err(MomentError::Unreadable)),
        ];
        for (text, expected) in table {
            assert_eq!(utc_ms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = 0;
        for year in 1970..2420 {
            for month in 1..=12 {
                for day in 1..=month_days(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(expected - days_since_1970(2020, 1, 1), 146_097);
    }
}
