//! Between pushes to one phone: the provider refuses the same amount within two minutes, and
//! locks a subscriber who is being asked.

use std::collections::BTreeMap;
use std::time::Duration;

use crdt_model::time::Timestamp;

use crate::payments::Phone;

const SAME_PHONE_MS: u64 = 60_000;
const SAME_AMOUNT_MS: u64 = 120_000;
/// Phones remembered at once.
const PHONES_MAX: usize = 10_000;

/// When each phone was last asked, and for how much.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: BTreeMap<Phone, (Timestamp, i64)>,
}

impl Pauses {
    /// How long a phone is to be left alone.
    pub(super) fn wait(&self, phone: Option<&Phone>, amount_minor: i64, now: Timestamp) -> Option<Duration> {
        let (at, amount) = self.last.get(phone?)?;
        let pause_ms = if *amount == amount_minor { SAME_AMOUNT_MS } else { SAME_PHONE_MS };
        let left_ms = at.0.saturating_add(pause_ms).saturating_sub(now.0);
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }

    pub(super) fn note(&mut self, phone: Option<&Phone>, amount_minor: i64, now: Timestamp) {
        let Some(phone) = phone else { return };
        if self.last.len() >= PHONES_MAX {
            self.last.retain(|_, (at, _)| now.0.saturating_sub(at.0) < SAME_AMOUNT_MS);
        }
        if self.last.len() < PHONES_MAX || self.last.contains_key(phone) {
            self.last.insert(phone.clone(), (now, amount_minor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_left_alone_for_a_minute_and_longer_for_the_same_amount() {
        let phone: Phone = "0712345678".parse().unwrap();
        let mut pauses = Pauses::default();
        assert_eq!(pauses.wait(Some(&phone), 100, Timestamp(0)), None);
        pauses.note(Some(&phone), 100, Timestamp(1_000));
        assert_eq!(pauses.wait(Some(&phone), 200, Timestamp(60_999)), Some(Duration::from_millis(1)));
        assert_eq!(pauses.wait(Some(&phone), 200, Timestamp(61_000)), None);
        assert_eq!(pauses.wait(Some(&phone), 100, Timestamp(61_000)), Some(Duration::from_secs(60)));
        assert_eq!(pauses.wait(Some(&phone), 100, Timestamp(121_000)), None);
        assert_eq!(pauses.wait(None, 100, Timestamp(1_000)), None);
    }
}
