//! How values look in JSON: times, sums, fields, and what a PATCH leaves out or takes away.

use std::collections::BTreeMap;

use crdt_model::document::FieldValue;
use crdt_model::record::TenderKind;
use crdt_model::time::{Day, Hlc, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::stored::Stored;
use crate::operations::{Edit, SharedRecord};

/// A time as RFC 3339 in UTC, with milliseconds.
pub(super) fn rfc3339(at: Timestamp) -> String {
    const DAY_MS: u64 = 86_400_000;
    let ms = at.0 % DAY_MS;
    let day = Day::of(at, 0);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{day}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000)
}

/// The first and last millisecond of what a text names: a time in UTC as RFC 3339 has it, or one of
/// the shop's days.
pub(super) fn moments(text: &str, utc_offset_minutes: i32) -> Option<(Timestamp, Timestamp)> {
    let (day, of_day_ms, length_ms, offset) = match text.split_once('T') {
        None => (text, 0, DAY_MS, i64::from(utc_offset_minutes)),
        Some((day, time)) => {
            let (ms, length_ms) = time_of_day(time.strip_suffix('Z')?)?;
            (day, ms, length_ms, 0)
        }
    };
    let first = i64::from(Day::parse(day)?.0) * DAY_MS + of_day_ms - offset * 60_000;
    let at = |ms: i64| Timestamp(u64::try_from(ms).unwrap_or_default());
    Some((at(first), at(first + length_ms - 1)))
}

/// Milliseconds since midnight, and how long what was said lasts.
fn time_of_day(text: &str) -> Option<(i64, i64)> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':').map(|part| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<i64>().ok()).flatten()
    });
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let ms = ((hours * 60 + minutes) * 60 + seconds) * 1_000;
    let Some(fraction) = fraction else { return Some((ms, 1_000)) };
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("00".chars()).take(3).collect();
    Some((ms + thousandths.parse::<i64>().ok()?, 1))
}

const DAY_MS: i64 = 86_400_000;

pub(super) fn recorded_at(time: Hlc) -> String {
    rfc3339(time.wall())
}

/// A sum in minor units: a number, or its digits as text where 64 bits don't hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = i64)]
pub(super) struct Sum(pub(super) i128);

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0) {
            Ok(sum) => serializer.serialize_i64(sum),
            Err(_) => serializer.serialize_str(&self.0.to_string()),
        }
    }
}

/// A way to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Coins and notes in the drawer.
    Cash,
    /// M-PESA: the relay asks the customer's phone.
    Mpesa,
    /// Anything else the shop takes on its own account.
    Other,
}

impl From<Way> for TenderKind {
    fn from(way: Way) -> Self {
        match way {
            Way::Cash => Self::Cash,
            Way::Mpesa => Self::Mpesa,
            Way::Other => Self::Other,
        }
    }
}

impl From<TenderKind> for Way {
    fn from(kind: TenderKind) -> Self {
        match kind {
            TenderKind::Cash => Self::Cash,
            TenderKind::Mpesa => Self::Mpesa,
            TenderKind::Other => Self::Other,
        }
    }
}

/// What every record that is a fact tells about itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Head {
    /// The record.
    id: String,
    /// The client's own id, if it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<String>,
    /// The device that recorded it.
    device: String,
    /// Its number in that device's journal.
    seq: u64,
    /// The business day it belongs to.
    day: String,
    /// When it was recorded.
    recorded_at: String,
    /// When it happened, if not when it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
}

impl Head {
    pub(super) fn of(stored: &Stored) -> Self {
        Self {
            id: stored.at.id.to_string(),
            operation_id: stored.fact.source().map(|source| source.key.clone()),
            device: stored.at.device.to_string(),
            seq: stored.at.place.seq,
            day: stored.day.to_string(),
            recorded_at: recorded_at(stored.at.time),
            occurred_at: stored.fact.occurred().map(rfc3339),
        }
    }
}

/// A field's value.
pub(super) fn field_json(value: &FieldValue) -> serde_json::Value {
    match value {
        FieldValue::Bool(yes) => (*yes).into(),
        FieldValue::Int(number) => (*number).into(),
        FieldValue::Text(text) => text.as_str().into(),
    }
}

/// The fields with different values at the same time, each with all of them.
pub(super) fn conflicts_json(record: &SharedRecord) -> BTreeMap<String, Vec<serde_json::Value>> {
    let values = |values: &Vec<FieldValue>| values.iter().map(field_json).collect();
    record.conflicts.iter().map(|(field, all)| (field.clone(), values(all))).collect()
}

/// For fields of a PATCH: absent keeps, `null` clears, a value sets.
pub(super) fn edit<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Edit<T>, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.map_or(Edit::Clear, Edit::Set))
}

/// Where leaving a field out means that there is none.
pub(super) fn given<T>(value: Option<T>) -> Edit<T> {
    value.map_or(Edit::Keep, Edit::Set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_to_the_millisecond() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Timestamp(1_291_190_400_000 + 3_723_004)), "2010-12-01T09:02:03.004Z");
    }

    #[test]
    fn times_and_days_are_read_as_people_write_them() {
        let at = |text| moments(text, 180).map(|(first, last)| (rfc3339(first), rfc3339(last)));
        let both = |first: &str, last: &str| Some((first.to_owned(), last.to_owned()));
        assert_eq!(at("2010-12-01T09:02:03.004Z"), both("2010-12-01T09:02:03.004Z", "2010-12-01T09:02:03.004Z"));
        assert_eq!(at("2010-12-01T09:02:03Z"), both("2010-12-01T09:02:03.000Z", "2010-12-01T09:02:03.999Z"));
        assert_eq!(at("2010-12-01"), both("2010-11-30T21:00:00.000Z", "2010-12-01T20:59:59.999Z"));
        for wrong in ["", "2010-12-01T", "2010-12-01T09:02:03", "2010-12-01T24:00:00Z", "2010-12-01T9:02:03Z", "T1Z"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sums_beyond_64_bits_are_text_rather_than_wrong() {
        let json = |sum| serde_json::to_string(&Sum(sum)).unwrap();
        assert_eq!(json(-5), "-5");
        assert_eq!(json(i128::from(i64::MAX) + 1), "\"9223372036854775808\"");
    }
}
