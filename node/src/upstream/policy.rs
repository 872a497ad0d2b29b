//! Whether now is a time to send, as the business configured it. Pure.

use crdt_model::shop::QueueConfig;
use crdt_model::time::Timestamp;

/// Why nothing is sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNow {
    /// In one word.
    pub reason: &'static str,
    /// Until when, if that can be told.
    pub until_ms: Option<u64>,
    /// For people.
    pub detail: String,
}

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// Whether a network costs by the byte. One that nobody named does not.
#[must_use]
pub fn is_metered(network_type: Option<&str>) -> bool {
    network_type.is_some_and(|named| {
        let named = named.to_ascii_lowercase();
        !["wifi", "wi-fi", "ethernet", "wired", "unknown", "none"].contains(&named.as_str())
    })
}

/// Whether now is a time to send.
///
/// # Errors
/// [`NotNow`].
pub fn now_is_a_time(
    config: &QueueConfig,
    network_type: Option<&str>,
    now: Timestamp,
    utc_offset_minutes: i32,
    metered_bytes_today: u64,
) -> Result<(), NotNow> {
    let metered = is_metered(network_type);
    if config.wifi_only && metered {
        let named = network_type.unwrap_or_default();
        return Err(NotNow {
            reason: "no_wifi",
            until_ms: None,
            detail: format!("it is on {named}, and sends over Wi-Fi only"),
        });
    }
    let minute = minute_of_day(now, utc_offset_minutes);
    let (start, end) = (config.off_peak_start_minute % DAY_MINUTES, config.off_peak_end_minute % DAY_MINUTES);
    let inside = if start <= end { (start..end).contains(&minute) } else { minute >= start || minute < end };
    if start != end && !inside {
        let wait = (start + DAY_MINUTES - minute) % DAY_MINUTES;
        let until = now.0 - now.0 % MINUTE_MS + wait * MINUTE_MS;
        return Err(NotNow {
            reason: "off_peak",
            until_ms: Some(until),
            detail: format!("it sends from {:02}:{:02} on", start / 60, start % 60),
        });
    }
    let budget = config.data_budget_mb_per_day.saturating_mul(1_000_000);
    if metered && budget > 0 && metered_bytes_today >= budget {
        let until = now.0 - now.0 % MINUTE_MS + (DAY_MINUTES - minute) * MINUTE_MS;
        return Err(NotNow {
            reason: "data_budget",
            until_ms: Some(until),
            detail: format!("today's {} MB are used up", config.data_budget_mb_per_day),
        });
    }
    Ok(())
}

fn minute_of_day(now: Timestamp, utc_offset_minutes: i32) -> u64 {
    let minutes = i64::try_from(now.0 / MINUTE_MS).unwrap_or_default() + i64::from(utc_offset_minutes);
    u64::try_from(minutes.rem_euclid(24 * 60)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u64, minute: u64) -> Timestamp {
        Timestamp((20_000 * DAY_MINUTES + hour * 60 + minute) * MINUTE_MS + 17)
    }

    #[test]
    fn wi_fi_only_and_the_budget_ask_what_the_network_costs() {
        let config = QueueConfig { wifi_only: true, ..QueueConfig::default() };
        for (network, sends) in [(Some("wifi"), true), (None, true), (Some("4g"), false), (Some("3g"), false)] {
            assert_eq!(now_is_a_time(&config, network, at(12, 0), 0, 0).is_ok(), sends, "{network:?}");
        }
        let config = QueueConfig { data_budget_mb_per_day: 2, ..QueueConfig::default() };
        assert!(now_is_a_time(&config, Some("4g"), at(12, 0), 0, 1_999_999).is_ok());
        assert!(now_is_a_time(&config, Some("wifi"), at(12, 0), 0, 9_000_000).is_ok());
        let waits = now_is_a_time(&config, Some("4g"), at(23, 0), 0, 2_000_000).unwrap_err();
        assert_eq!((waits.reason, waits.until_ms), ("data_budget", Some(at(24, 0).0 - 17)));
    }

    #[test]
    fn the_window_is_in_the_shops_own_time_and_may_cross_midnight() {
        let night =
            QueueConfig { off_peak_start_minute: 22 * 60, off_peak_end_minute: 6 * 60, ..QueueConfig::default() };
        let waits = now_is_a_time(&night, None, at(12, 0), 180, 0).unwrap_err();
        assert_eq!(waits.until_ms, Some(at(19, 0).0 - 17), "22:00 in Nairobi");
        assert!(now_is_a_time(&night, None, at(20, 0), 180, 0).is_ok());
        assert!(now_is_a_time(&night, None, at(2, 59), 180, 0).is_ok());
        assert!(now_is_a_time(&night, None, at(3, 0), 180, 0).is_err());
    }
}
