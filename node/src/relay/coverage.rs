//! Which stretch of time the provider's list has been read for without a gap: absence is proven
//! within it alone.

use minicbor::{Decode, Encode};

use crate::storage::{Reader, RowWrite, Rows, StorageError};

const KEY: &[u8] = b"payments/coverage";
const EPOCH_KEY: &[u8] = b"payments/epoch";

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
    /// From when on there is no gap, likewise.
    #[cbor(n(1), default)]
    pub(super) since_ms: u64,
}

/// When this relay's epoch began to be used: an older one asked nobody any more after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct EpochBegan {
    #[n(0)]
    epoch: u64,
    #[n(1)]
    pub(super) at_ms: u64,
}

impl EpochBegan {
    /// As it is stored; a row to be written if this is its first start.
    pub(super) fn load(reader: &dyn Reader, epoch: u64, now_ms: u64) -> Result<(Self, Option<RowWrite>), StorageError> {
        let stored = reader.row(Rows::Local, EPOCH_KEY)?.and_then(|bytes| minicbor::decode::<Self>(&bytes).ok());
        if let Some(known) = stored.filter(|known| known.epoch == epoch) {
            return Ok((known, None));
        }
        let began = Self { epoch, at_ms: now_ms };
        let value = minicbor::to_vec(began).unwrap_or_default();
        Ok((began, Some(RowWrite { rows: Rows::Local, key: EPOCH_KEY.to_vec(), value: Some(value) })))
    }
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

    /// What has been read once a list from `from_ms` until `until_ms` was, whole.
    pub(super) fn with(self, from_ms: u64, until_ms: u64) -> Self {
        let since_ms = if from_ms <= self.until_ms && self.until_ms > 0 { self.since_ms.min(from_ms) } else { from_ms };
        Self { until_ms, since_ms }
    }

    /// Whether everything that was asked for between two times would have shown by now, had it
    /// been paid.
    pub(super) fn spans(self, from_ms: u64, last_call_ms: u64, after_ms: u64) -> bool {
        self.until_ms > 0
            && proves_absent(self.since_ms, u64::MAX, from_ms, 0)
            && proves_absent(0, self.until_ms, last_call_ms, after_ms)
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
    use crate::storage::{Batch, Storage};

    #[test]
    fn a_list_reaches_back_over_its_overlap_and_to_the_oldest_open_payment() {
        let covered = Coverage { until_ms: 100 * OVERLAP_MS, since_ms: 0 };
        let now = covered.until_ms + 900_000;
        assert_eq!(covered.next_from_ms(now, None), 99 * OVERLAP_MS);
        assert_eq!(covered.next_from_ms(now, Some(98 * OVERLAP_MS)), 98 * OVERLAP_MS - CLOCK_SLACK_MS);
        assert_eq!(covered.next_from_ms(now, Some(0)), now - LISTED_MS);
        assert_eq!(Coverage::default().next_from_ms(now, None), now - LISTED_MS);
    }

    #[test]
    fn lists_join_up_unless_there_is_a_gap_between_them() {
        let first = Coverage::default().with(1_000_000, 2_000_000);
        assert_eq!(first, Coverage { since_ms: 1_000_000, until_ms: 2_000_000 });
        let joined = first.with(1_500_000, 3_000_000);
        assert_eq!(joined.since_ms, 1_000_000);
        assert_eq!(joined.with(500_000, 4_000_000).since_ms, 500_000);
        let gap = joined.with(3_000_001, 4_000_000);
        assert_eq!(gap.since_ms, 3_000_001);
        let asked = 1_000_000 + CLOCK_SLACK_MS;
        assert!(joined.spans(asked, 2_900_000, 100_000));
        assert!(!joined.spans(asked - 1, 2_900_000, 100_000), "from before the first list");
        assert!(!joined.spans(asked, 2_900_001, 100_000), "asked too lately");
        assert!(!gap.spans(asked, 2_900_000, 100_000));
        assert!(!Coverage::default().spans(asked, 0, 0), "nothing was read");
    }

    #[test]
    fn an_epoch_begins_once() {
        let disk = crate::storage::MemoryDisk::new();
        let mut storage = disk.open();
        let (first, row) = EpochBegan::load(storage.reader().as_ref(), 1, 5).unwrap();
        storage.commit(&Batch { rows: row.into_iter().collect(), ..Batch::default() }).unwrap();
        assert_eq!(EpochBegan::load(storage.reader().as_ref(), 1, 9).unwrap(), (first, None));
        let (second, row) = EpochBegan::load(storage.reader().as_ref(), 2, 9).unwrap();
        assert_eq!((second.at_ms, row.is_some()), (9, true));
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
