//! The body of an STK push request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crdt_model::time::{Day, Timestamp};
use serde_json::{Value, json};

use super::super::phone::Phone;
use super::super::{PushRequest, callback_path};
use super::{MINOR_PER_SHILLING, MpesaConfig};

const DESCRIPTION_CHARS_MAX: usize = 13;

/// East Africa Time, fixed: Kenya has no summer time, and the shop's machine may be anywhere.
pub(super) const UTC_OFFSET_MINUTES: i32 = 180;
pub(super) const UTC_OFFSET_MS: u64 = 180 * 60 * 1000;

pub(super) fn push_body(config: &MpesaConfig, request: &PushRequest, phone: &Phone) -> Value {
    let timestamp = timestamp(request.at_ms);
    let path = callback_path(request.intent, request.attempt, &request.callback_token);
    json!({
        "BusinessShortCode": config.shortcode,
        "Password": password(&config.shortcode, &config.passkey, &timestamp),
        "Timestamp": timestamp,
        "TransactionType": config.transaction_type.as_str(),
        "Amount": request.amount_minor / MINOR_PER_SHILLING,
        "PartyA": phone.msisdn(),
        "PartyB": config.till_number.as_ref().unwrap_or(&config.shortcode),
        "PhoneNumber": phone.msisdn(),
        "CallBackURL": config.callback_url(&path),
        "AccountReference": request.account_reference.as_str(),
        "TransactionDesc": description(&request.description),
    })
}

/// `YYYYMMDDHHmmss` in East Africa Time.
pub(in super::super) fn timestamp(at_ms: u64) -> String {
    let (year, month, day) = Day::of(Timestamp(at_ms), UTC_OFFSET_MINUTES).civil();
    let seconds = at_ms.saturating_add(UTC_OFFSET_MS) / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// Reads `YYYYMMDDHHmmss` in East Africa Time.
pub(in super::super) fn read_timestamp(text: &str) -> Option<u64> {
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let piece = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let day = Day::from_civil(i64::from(piece(0, 4)?), piece(4, 6)?, piece(6, 8)?)?;
    let (hour, minute, second) = (piece(8, 10)?, piece(10, 12)?, piece(12, 14)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let of_day_ms = u64::from(hour * 3600 + minute * 60 + second) * 1000;
    let day_ms = u64::try_from(day.0).ok()? * 86_400_000;
    (day_ms + of_day_ms).checked_sub(UTC_OFFSET_MS)
}

pub(in super::super) fn password(shortcode: &str, passkey: &str, timestamp: &str) -> String {
    STANDARD.encode(format!("{shortcode}{passkey}{timestamp}"))
}

/// Letters, digits and spaces only: the provider's gateway refuses more than it documents.
fn description(text: &str) -> String {
    let plain: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').take(DESCRIPTION_CHARS_MAX).collect();
    if plain.trim().is_empty() { "Payment".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timestamp_is_east_africa_time_and_the_password_holds_the_very_same() {
        // 2019-12-19 07:21:15 UTC.
        assert_eq!(timestamp(1_576_740_075_000), "20191219102115");
        // 22:00 UTC is already the next day there.
        assert_eq!(timestamp(1_576_792_800_000), "20191220010000");
        assert_eq!(STANDARD.decode(password("174379", "pass", "20191219102115")).unwrap(), b"174379pass20191219102115");
    }

    #[test]
    fn timestamps_round_trip_and_nonsense_is_refused() {
        for at_ms in [1_576_740_075_000, 1_576_792_800_000, 4_000_000_000_000] {
            assert_eq!(read_timestamp(&timestamp(at_ms)), Some(at_ms));
        }
        for text in ["", "2019", "20191319102115", "20190229102115", "20191219242115", "2019121910211x"] {
            assert_eq!(read_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn a_description_fits_the_provider() {
        assert_eq!(description("Mama Njeri's Duka"), "Mama Njeris D");
        assert_eq!(description("☕"), "Payment");
    }
}
