//! Which stretch of time the provider's list has been read for without a gap: absence is proven
//! within it alone.

use minicbor::{Decode, Encode};

use crate::storage::{Reader, RowWrite, Rows, StorageError};

const KEY: &[u8] = b"payments/coverage";

/// The provider lists this much of the past.
pub(super) const LISTED_MS: u64 = 48 * 3_600_000;
/// Each list is read this far back again: a payment may appear late.
pub(super) const OVERLAP_MS: u64 = 2 * 3_600_000;
/// A push that the list lacks so long after it was called was not paid: the prompt is long gone,
/// and the list's own delay is allowed for.
pub(super) const ABSENT_AFTER_MS: u64 = OVERLAP_MS + 10 * 60_000;
/// A receipt that the list lacks so long is a suspect.
pub(super) const DISPUTE_AFTER_MS: u64 = 24 * 3_600_000;
/// The provider's clock and ours differ a little.
pub(super) const CLOCK_SLACK_MS: u64 = 5 * 60_000;

/// What has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct Coverage {
    /// When a list was last read whole, in milliseconds since 1970 UTC.
    #[n(0)]
    pub(super) until_ms: u64,
}

impl Coverage {
    pub(super) fn load(reader: &dyn Reader) -> Result<Self, StorageError> {
        let row = reader.row(Rows::Local, KEY)?;
        Ok(row.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default())
    }

    pub(super) fn put(self) -> RowWrite {
        let value = minicbor::to_vec(self).unwrap_or_default();
        RowWrite { rows: Rows::Local, key: KEY.to_vec(), value: Some(value) }
    }

    /// From when the next list is to be read: with overlap, and from before the oldest payment
    /// whose outcome it may prove, but never further back than the provider lists.
    pub(super) fn next_from_ms(self, now_ms: u64, oldest_open_ms: Option<u64>) -> u64 {
        let overlap = self.until_ms.saturating_sub(OVERLAP_MS);
        let oldest = oldest_open_ms.map_or(u64::MAX, |at| at.saturating_sub(CLOCK_SLACK_MS));
        overlap.min(oldest).max(now_ms.saturating_sub(LISTED_MS))
    }
}

/// Whether a list from `from_ms` until `until_ms` must have what was called at `called_ms`.
pub(super) fn proves_absent(from_ms: u64, until_ms: u64, called_ms: u64, after_ms: u64) -> bool {
    called_ms.saturating_sub(CLOCK_SLACK_MS) >= from_ms && called_ms.saturating_add(after_ms) <= until_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reaches_back_over_its_overlap_and_to_the_oldest_open_payment() {
        let covered = Coverage { until_ms: 100 * OVERLAP_MS };
        let now = covered.until_ms + 900_000;
        assert_eq!(covered.next_from_ms(now, None), 99 * OVERLAP_MS);
        assert_eq!(covered.next_from_ms(now, Some(98 * OVERLAP_MS)), 98 * OVERLAP_MS - CLOCK_SLACK_MS);
        assert_eq!(covered.next_from_ms(now, Some(0)), now - LISTED_MS);
        assert_eq!(Coverage::default().next_from_ms(now, None), now - LISTED_MS);
    }

    #[test]
    fn absence_needs_the_whole_stretch() {
        let called = 10 * OVERLAP_MS;
        let until = called + ABSENT_AFTER_MS;
        assert!(proves_absent(called - CLOCK_SLACK_MS, until, called, ABSENT_AFTER_MS));
        assert!(!proves_absent(called - CLOCK_SLACK_MS + 1, until, called, ABSENT_AFTER_MS));
        assert!(!proves_absent(0, until - 1, called, ABSENT_AFTER_MS));
    }
}
