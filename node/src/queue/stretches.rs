//! How long this node was without its relay, or its carrier without the shop's own server: stretches,
//! by the shop's day. Looked at every few seconds; time in which nobody looked is not counted.

use std::collections::{BTreeMap, BTreeSet};

use crdt_model::time::{Day, Timestamp};
use minicbor::{Decode, Encode};

use super::figures::{day_bytes, day_of_bytes};
use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows, StorageError};

/// What is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lacking {
    /// A link to a relay.
    Relay,
    /// The shop's own server.
    Server,
}

/// Stretches of one day, or since the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stretches {
    /// How many began.
    #[n(0)]
    pub count: u64,
    /// How long they took together.
    #[n(1)]
    pub sum_ms: u64,
    /// The longest, with what it took on the days before.
    #[n(2)]
    pub longest_ms: u64,
}

/// Stretches by day and by what was lacking.
pub type DayStretches = BTreeMap<(Day, Lacking), Stretches>;

/// The stretches that are being written, by the one who looks.
#[derive(Debug, Default)]
pub(crate) struct StretchLog {
    /// By [`Lacking`]: when it was last looked, and the present stretch.
    looks: [Look; 2],
    at_hand: BTreeMap<Vec<u8>, Stretches>,
    changed: BTreeSet<Vec<u8>>,
    written_at: Timestamp,
}

#[derive(Debug, Clone, Copy, Default)]
struct Look {
    at: Option<Timestamp>,
    /// How long the present stretch has taken; `None` if nothing is lacking.
    stretch_ms: Option<u64>,
}

const BY_DAY: u8 = b'v';
const EVER: u8 = b'x';
/// More than between two looks; a machine that slept for longer was not offline for want of a network.
const STEP_MS_MAX: u64 = 60_000;
/// How often a stretch that goes on is written.
const WRITE_EVERY_MS: u64 = 5 * 60_000;
/// Two days of two kinds, and since ever.
const AT_HAND_MAX: usize = 16;

impl Lacking {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Relay, Self::Server];

    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Server => "upstream",
        }
    }
}

impl Stretches {
    /// Takes in another day's.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

impl StretchLog {
    /// Somebody looked. Gives what is to be written, if it is time.
    pub(crate) fn look(
        &mut self,
        reader: &dyn Reader,
        lacking: Lacking,
        is_lacking: bool,
        now: Timestamp,
        utc_offset_minutes: i32,
    ) -> Result<(), StorageError> {
        let Some(look) = self.looks.get_mut(lacking as usize) else { return Ok(()) };
        let step_ms = look.at.map_or(0, |at| now.0.saturating_sub(at.0).min(STEP_MS_MAX));
        look.at = Some(now);
        let (begins, stretch_ms) = match (look.stretch_ms, is_lacking) {
            (None, false) => return Ok(()),
            (None, true) => (1, 0),
            (Some(before), _) => (0, before.saturating_add(step_ms)),
        };
        look.stretch_ms = is_lacking.then_some(stretch_ms);
        let step_ms = if begins == 1 { 0 } else { step_ms };
        for key in [day_key(Day::of(now, utc_offset_minutes), lacking), vec![EVER, lacking as u8]] {
            if !self.at_hand.contains_key(&key) {
                let stored = reader.row(Rows::AttemptLog, &key)?;
                let stored = stored.and_then(|bytes| minicbor::decode(&bytes).ok());
                self.at_hand.insert(key.clone(), stored.unwrap_or_default());
            }
            if let Some(stretches) = self.at_hand.get_mut(&key) {
                stretches.merge(&Stretches { count: begins, sum_ms: step_ms, longest_ms: stretch_ms });
            }
            self.changed.insert(key);
        }
        let turned = begins == 1 || !is_lacking;
        if turned {
            self.written_at = Timestamp(0);
        }
        Ok(())
    }

    /// What is to be written, if it is time to.
    pub(crate) fn due_rows(&mut self, now: Timestamp) -> Vec<RowWrite> {
        if now.0 < self.written_at.0.saturating_add(WRITE_EVERY_MS) {
            return Vec::new();
        }
        self.written_at = now;
        self.rows()
    }

    /// What has not been written.
    pub(crate) fn rows(&mut self) -> Vec<RowWrite> {
        let changed = std::mem::take(&mut self.changed);
        let rows = changed.into_iter().filter_map(|key| {
            let value = Some(minicbor::to_vec(self.at_hand.get(&key)?).unwrap_or_default());
            Some(RowWrite { rows: Rows::AttemptLog, key, value })
        });
        let rows = rows.collect();
        if self.at_hand.len() > AT_HAND_MAX {
            self.at_hand.clear();
        }
        rows
    }

    /// The stretches of some days, those that are not written yet too.
    pub(crate) fn of_days(&self, reader: &dyn Reader, days: (Day, Day)) -> Result<DayStretches, StorageError> {
        let mut found = DayStretches::new();
        let mut after = day_key(Day(days.0.0.saturating_sub(1)), Lacking::Server);
        let mut more = true;
        while more {
            let limits = ReadLimits { entries_max: 512, bytes_max: usize::MAX };
            let page = reader.rows(Rows::AttemptLog, Keys { prefix: &[BY_DAY], after: Some(&after) }, limits)?;
            more = page.more;
            for row in page.rows {
                let Some(at) = of_key(&row.key) else { continue };
                if at.0 > days.1 {
                    more = false;
                    break;
                }
                found.extend(minicbor::decode(&row.value).ok().map(|stretches| (at, stretches)));
                after = row.key;
            }
        }
        let at_hand = self.at_hand.iter().filter_map(|(key, stretches)| Some((of_key(key)?, *stretches)));
        found.extend(at_hand.filter(|((day, _), _)| (days.0..=days.1).contains(day)));
        Ok(found)
    }

    /// The stretches since the first, those that are not written yet too.
    pub(crate) fn ever(&self, reader: &dyn Reader, lacking: Lacking) -> Result<Stretches, StorageError> {
        let key = vec![EVER, lacking as u8];
        if let Some(stretches) = self.at_hand.get(&key) {
            return Ok(*stretches);
        }
        let row = reader.row(Rows::AttemptLog, &key)?;
        Ok(row.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default())
    }

    /// Whether something is lacking now, as far as somebody looked.
    pub(crate) fn is_lacking(&self, lacking: Lacking) -> bool {
        self.looks.get(lacking as usize).is_some_and(|look| look.stretch_ms.is_some())
    }
}

fn day_key(day: Day, lacking: Lacking) -> Vec<u8> {
    let mut key = vec![BY_DAY];
    key.extend(day_bytes(day));
    key.push(lacking as u8);
    key
}

fn of_key(key: &[u8]) -> Option<(Day, Lacking)> {
    let (day, lacking) = key.strip_prefix(&[BY_DAY])?.split_at_checked(4)?;
    let lacking = Lacking::ALL.into_iter().find(|one| [*one as u8] == lacking)?;
    Some((day_of_bytes(day)?, lacking))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, MemoryDisk, Storage};

    const MIDNIGHT: u64 = 1_700_006_400_000;
    const MINUTE: u64 = 60_000;

    #[test]
    fn stretches_are_counted_by_day_and_kept_by_a_restart() {
        let mut storage = MemoryDisk::new().open();
        let mut log = StretchLog::default();
        // Ten minutes before midnight the relay goes, and comes back ten minutes after it.
        for minute in 0..=20 {
            let now = Timestamp(MIDNIGHT - 10 * MINUTE + minute * MINUTE);
            log.look(storage.reader().as_ref(), Lacking::Relay, minute < 20, now, 0).unwrap();
            log.look(storage.reader().as_ref(), Lacking::Server, false, now, 0).unwrap();
            let rows = log.due_rows(now);
            assert_eq!(!rows.is_empty(), minute % 5 == 0, "minute {minute}");
            storage.commit(&Batch { rows, ..Batch::default() }).unwrap();
        }
        let mut log = StretchLog::default();
        let later = Timestamp(MIDNIGHT + 60 * MINUTE);
        log.look(storage.reader().as_ref(), Lacking::Relay, true, later, 0).unwrap();
        // Nobody looked for an hour: of that a minute counts.
        log.look(storage.reader().as_ref(), Lacking::Relay, true, Timestamp(later.0 + 60 * MINUTE), 0).unwrap();
        assert!(log.is_lacking(Lacking::Relay) && !log.is_lacking(Lacking::Server));

        let today = Day::of(Timestamp(MIDNIGHT), 0);
        let yesterday = Day(today.0 - 1);
        let told =
            |count, minutes, longest| Stretches { count, sum_ms: minutes * MINUTE, longest_ms: longest * MINUTE };
        let expected = DayStretches::from([
            ((yesterday, Lacking::Relay), told(1, 9, 9)),
            ((today, Lacking::Relay), told(1, 12, 20)),
        ]);
        assert_eq!(log.of_days(storage.reader().as_ref(), (yesterday, today)).unwrap(), expected);
        storage.commit(&Batch { rows: log.rows(), ..Batch::default() }).unwrap();
        let (log, reader) = (StretchLog::default(), storage.reader());
        assert_eq!(log.of_days(reader.as_ref(), (yesterday, today)).unwrap(), expected);
        assert_eq!(log.of_days(reader.as_ref(), (today, today)).unwrap().len(), 1);
        assert_eq!(log.ever(reader.as_ref(), Lacking::Relay).unwrap(), told(2, 21, 20));
        assert_eq!(log.ever(reader.as_ref(), Lacking::Server).unwrap(), Stretches::default());
    }
}
