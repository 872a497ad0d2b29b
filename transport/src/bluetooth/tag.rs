//! The six bytes by which devices of one business recognise each other's advertisements. To
//! everybody else they are noise that changes every quarter of an hour.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::PeerKey;

/// How long a tag is shown: as long as a phone keeps a random Bluetooth address.
pub const TAG_PERIOD: Duration = Duration::from_secs(15 * 60);
/// By how many periods two devices' clocks may differ and they still recognise each other: a day.
/// A till whose clock is wrong has to be found all the same, and a check costs a hash a period.
pub const TAG_PERIODS_OFF_MAX: u64 = 96;

/// What a device advertises: two bytes of its own, and four that prove the business's secret. Its
/// order decides which of two devices connects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub [u8; 6]);

/// The secret that the devices of a business share for finding each other. It opens nothing.
#[derive(Clone, Copy)]
pub struct DiscoverySecret(pub [u8; 32]);

/// The number of the quarter of an hour since 1970 that `now` is in.
#[must_use]
pub fn tag_period(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / TAG_PERIOD.as_secs()
}

impl DiscoverySecret {
    /// What the device with this key shows in a period.
    #[must_use]
    pub fn tag(&self, device: PeerKey, period: u64) -> Tag {
        let [a, b, ..] = self.hash(b"device", period, &device.0);
        let [c, d, e, f, ..] = self.hash(b"proof", period, &[a, b]);
        Tag([a, b, c, d, e, f])
    }

    /// Whether a device of this business shows this tag in `period`, or within a day of it.
    #[must_use]
    pub fn recognises(&self, tag: Tag, period: u64) -> bool {
        let [a, b, proof @ ..] = tag.0;
        let proves = |period| self.hash(b"proof", period, &[a, b]).starts_with(&proof);
        let earliest = period.saturating_sub(TAG_PERIODS_OFF_MAX);
        proves(period) || (earliest..=period.saturating_add(TAG_PERIODS_OFF_MAX)).any(proves)
    }

    fn hash(&self, purpose: &[u8], period: u64, of: &[u8]) -> [u8; 32] {
        let key = blake3::derive_key("tillmesh 2026 bluetooth tag", &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(purpose).update(&period.to_le_bytes()).update(of);
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiscoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoverySecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: DiscoverySecret = DiscoverySecret([1; 32]);

    #[test]
    fn members_recognise_each_other_and_nobody_else() {
        let tag = OURS.tag(PeerKey([7; 32]), 1_000);
        assert!(OURS.recognises(tag, 1_000));
        assert!(OURS.recognises(tag, 1_096), "a clock that is a day off");
        assert!(OURS.recognises(tag, 904));
        assert!(!OURS.recognises(tag, 1_097), "an old advertisement, played again");
        assert!(!DiscoverySecret([2; 32]).recognises(tag, 1_000), "another business");
        let mut forged = tag;
        forged.0[5] ^= 1;
        assert!(!OURS.recognises(forged, 1_000));
    }

    #[test]
    fn a_device_looks_like_another_one_in_the_next_period() {
        let shown: Vec<Tag> = (0..50).map(|period| OURS.tag(PeerKey([7; 32]), period)).collect();
        let mut distinct = shown.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), shown.len());
        assert_ne!(OURS.tag(PeerKey([7; 32]), 3), OURS.tag(PeerKey([8; 32]), 3));
    }

    #[test]
    fn a_period_is_a_quarter_of_an_hour() {
        assert_eq!(tag_period(UNIX_EPOCH + Duration::from_secs(899)), 0);
        assert_eq!(tag_period(UNIX_EPOCH + Duration::from_secs(900)), 1);
    }
}
