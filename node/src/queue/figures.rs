//! What the calls of the shop's own server came to: folded as they end, by the shop's day and by
//! the device that recorded the operation, in the commit that adds them to the chain. So a question
//! costs the days that it is about, and a restart keeps every number.

use std::collections::{BTreeMap, BTreeSet};

use crdt_model::ids::DeviceId;
use crdt_model::record::ErrorClass;
use crdt_model::time::Day;
use minicbor::{Decode, Encode};

use super::attempts::{Attempt, AttemptResult};
use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows, StorageError};

/// Upper bounds in milliseconds, by which durations are counted; longer ones are counted last.
pub const DURATION_BOUNDS_MS: [u64; 11] = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/// How long something took, many times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Durations {
    /// How often it took at most so long, by [`DURATION_BOUNDS_MS`]; longer last.
    #[n(0)]
    pub counts: [u64; 12],
    /// All of them together.
    #[n(1)]
    pub sum_ms: u64,
    /// The longest.
    #[n(2)]
    pub max_ms: u64,
}

/// What calls over one kind of network came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct NetworkFigures {
    /// Calls.
    #[n(0)]
    pub calls: u64,
    /// Of these, how many brought an answer, whatever it was.
    #[n(1)]
    pub answered: u64,
    /// How long they took.
    #[n(2)]
    pub durations: Durations,
    /// Bytes of bodies, both ways.
    #[n(3)]
    pub bytes: u64,
}

/// What some calls came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Figures {
    /// Calls by [`AttemptResult`].
    #[n(0)]
    pub results: [u64; 4],
    /// Calls that did not do, by [`ErrorClass`].
    #[n(1)]
    pub errors: [u64; 6],
    /// The calls that it took until each operation was done, together.
    #[n(2)]
    pub calls_until_done: u64,
    /// How long calls took; not those that a crash cut off.
    #[n(3)]
    pub durations: Durations,
    /// Bytes of the requests' bodies.
    #[n(4)]
    pub bytes_sent: u64,
    /// Bytes of the answers' bodies.
    #[n(5)]
    pub bytes_received: u64,
    /// The same by kind of network, as far as somebody said which.
    #[n(6)]
    pub networks: BTreeMap<String, NetworkFigures>,
}

/// The most kinds of network that are told apart in one row; what an app makes up beyond is
/// [`OTHER_NETWORK`].
pub const NETWORKS_MAX: usize = 8;
/// Where a kind of network goes that is one too many.
pub const OTHER_NETWORK: &str = "other";
/// Where calls go of which nobody said the network.
pub const UNKNOWN_NETWORK: &str = "unknown";

const BY_DAY: u8 = b'g';
const BY_DEVICE: u8 = b'u';
const DEVICE_BYTES: usize = 32;
/// Rows at hand: a day of many devices; more are read again.
const AT_HAND_MAX: usize = 512;

impl Durations {
    /// Adds one.
    pub fn add(&mut self, ms: u64) {
        let place = DURATION_BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(DURATION_BOUNDS_MS.len());
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.max_ms = self.max_ms.max(ms);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A bound that so many per cent of them keep to; `None` if there are none.
    #[must_use]
    pub fn at_most_ms(&self, per_cent: u64) -> Option<u64> {
        let wanted = self.count().checked_mul(per_cent)?.div_ceil(100).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(DURATION_BOUNDS_MS.get(place).copied().unwrap_or(self.max_ms).min(self.max_ms));
            }
        }
        None
    }

    fn merge(&mut self, other: &Self) {
        add_all(&mut self.counts, &other.counts);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
        self.max_ms = self.max_ms.max(other.max_ms);
    }
}

impl Figures {
    /// Takes in a call that ended.
    pub fn add(&mut self, attempt: &Attempt) {
        bump(&mut self.results, attempt.result as usize);
        if let Some(class) = attempt.class {
            bump(&mut self.errors, class as usize);
        }
        if attempt.result == AttemptResult::Success {
            self.calls_until_done = self.calls_until_done.saturating_add(u64::from(attempt.number));
        }
        self.bytes_sent = self.bytes_sent.saturating_add(attempt.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(attempt.bytes_received);
        // How long a call took that a crash cut off, nobody knows.
        let took = (attempt.result != AttemptResult::CutOff).then_some(attempt.duration_ms);
        if let Some(ms) = took {
            self.durations.add(ms);
        }
        let network = self.network(attempt.network_type.as_deref().unwrap_or(UNKNOWN_NETWORK));
        network.calls += 1;
        network.answered += u64::from(attempt.http_status.is_some());
        network.bytes = network.bytes.saturating_add(attempt.bytes_sent).saturating_add(attempt.bytes_received);
        if let Some(ms) = took {
            network.durations.add(ms);
        }
    }

    /// Takes in others.
    pub fn merge(&mut self, other: &Self) {
        add_all(&mut self.results, &other.results);
        add_all(&mut self.errors, &other.errors);
        self.calls_until_done = self.calls_until_done.saturating_add(other.calls_until_done);
        self.durations.merge(&other.durations);
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        for (word, theirs) in &other.networks {
            let network = self.network(word);
            network.calls += theirs.calls;
            network.answered += theirs.answered;
            network.durations.merge(&theirs.durations);
            network.bytes = network.bytes.saturating_add(theirs.bytes);
        }
    }

    /// All calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.results.iter().sum()
    }

    /// Calls that ended so.
    #[must_use]
    pub fn of(&self, result: AttemptResult) -> u64 {
        self.results.get(result as usize).copied().unwrap_or_default()
    }

    /// Calls that did not do for such a reason.
    #[must_use]
    pub fn errors_of(&self, class: ErrorClass) -> u64 {
        self.errors.get(class as usize).copied().unwrap_or_default()
    }

    fn network(&mut self, word: &str) -> &mut NetworkFigures {
        let known = self.networks.contains_key(word) || self.networks.len() < NETWORKS_MAX;
        self.networks.entry(if known { word } else { OTHER_NETWORK }.to_owned()).or_default()
    }
}

/// The figures that are being written, by the one who writes them.
#[derive(Debug, Default)]
pub(crate) struct FigureBook {
    utc_offset_minutes: i32,
    at_hand: BTreeMap<Vec<u8>, Figures>,
    changed: BTreeSet<Vec<u8>>,
}

impl FigureBook {
    /// Of a shop whose day begins so many minutes before the one of UTC.
    pub(crate) fn new(utc_offset_minutes: i32) -> Self {
        Self { utc_offset_minutes, ..Self::default() }
    }

    /// Takes in a call that ended.
    pub(crate) fn note(&mut self, reader: &dyn Reader, attempt: &Attempt) -> Result<(), StorageError> {
        let day = Day::of(attempt.at, self.utc_offset_minutes);
        for key in [day_key(day, attempt.device), device_key(attempt.device)] {
            if !self.at_hand.contains_key(&key) {
                let stored = reader.row(Rows::AttemptLog, &key)?;
                let stored = stored.and_then(|bytes| minicbor::decode(&bytes).ok());
                self.at_hand.insert(key.clone(), stored.unwrap_or_default());
            }
            if let Some(figures) = self.at_hand.get_mut(&key) {
                figures.add(attempt);
            }
            self.changed.insert(key);
        }
        Ok(())
    }

    /// What has changed since this was last asked, to be written.
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
}

/// The figures of some days, of one device or of all, in their order.
///
/// # Errors
/// [`StorageError`].
pub fn of_days(
    reader: &dyn Reader,
    days: (Day, Day),
    device: Option<DeviceId>,
    each: &mut dyn FnMut(Day, DeviceId, Figures),
) -> Result<(), StorageError> {
    let (first, last) = days;
    let mut after = day_key(Day(first.0.saturating_sub(1)), DeviceId([u8::MAX; DEVICE_BYTES]));
    loop {
        let limits = ReadLimits { entries_max: PAGE, bytes_max: usize::MAX };
        let page = reader.rows(Rows::AttemptLog, Keys { prefix: &[BY_DAY], after: Some(&after) }, limits)?;
        for row in page.rows {
            let Some((day, by)) = day_of_key(&row.key) else { continue };
            if day > last {
                return Ok(());
            }
            if device.is_none_or(|device| device == by)
                && let Ok(figures) = minicbor::decode(&row.value)
            {
                each(day, by, figures);
            }
            after = row.key;
        }
        if !page.more {
            return Ok(());
        }
    }
}

/// The figures of each device since its first call.
///
/// # Errors
/// [`StorageError`].
pub fn of_devices(reader: &dyn Reader, count_max: usize) -> Result<Vec<(DeviceId, Figures)>, StorageError> {
    let limits = ReadLimits { entries_max: count_max, bytes_max: usize::MAX };
    let page = reader.rows(Rows::AttemptLog, Keys { prefix: &[BY_DEVICE], after: None }, limits)?;
    let devices = page.rows.iter().filter_map(|row| {
        let device = DeviceId(row.key.get(1..)?.try_into().ok()?);
        Some((device, minicbor::decode(&row.value).ok()?))
    });
    Ok(devices.collect())
}

const PAGE: usize = 512;

fn day_key(day: Day, device: DeviceId) -> Vec<u8> {
    let mut key = vec![BY_DAY];
    key.extend(day_bytes(day));
    key.extend(device.0);
    key
}

fn day_of_key(key: &[u8]) -> Option<(Day, DeviceId)> {
    let (day, device) = key.get(1..)?.split_at_checked(4)?;
    Some((day_of_bytes(day)?, DeviceId(device.try_into().ok()?)))
}

fn device_key(device: DeviceId) -> Vec<u8> {
    let mut key = vec![BY_DEVICE];
    key.extend(device.0);
    key
}

/// A day so that bytes sort as days do.
pub(super) fn day_bytes(day: Day) -> [u8; 4] {
    (day.0 ^ i32::MIN).to_be_bytes()
}

pub(super) fn day_of_bytes(bytes: &[u8]) -> Option<Day> {
    Some(Day(i32::from_be_bytes(bytes.try_into().ok()?) ^ i32::MIN))
}

fn bump(counts: &mut [u64], place: usize) {
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
}

fn add_all(counts: &mut [u64], others: &[u64]) {
    for (count, other) in counts.iter_mut().zip(others) {
        *count = count.saturating_add(*other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, MemoryDisk, Storage};
    use crdt_model::ids::RecordId;
    use crdt_model::time::Timestamp;

    const NOON: u64 = 1_700_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn call(device: u8, at: u64, number: u32, result: AttemptResult) -> Attempt {
        let failed = result != AttemptResult::Success;
        Attempt {
            operation: RecordId(uuid::Uuid::from_u128(u128::from(at))),
            number,
            at: Timestamp(at),
            duration_ms: 40,
            result,
            http_status: (!failed).then_some(201),
            class: failed.then_some(ErrorClass::Network),
            code: None,
            detail: None,
            bytes_sent: 100,
            bytes_received: 10,
            device: DeviceId([device; 32]),
            network_type: Some("4g".to_owned()),
            endpoint: "POST /api/sales".to_owned(),
            operation_type: None,
        }
    }

    fn days(reader: &dyn Reader, days: (Day, Day), device: Option<u8>) -> Vec<(Day, u8, u64)> {
        let mut found = Vec::new();
        let device = device.map(|device| DeviceId([device; 32]));
        of_days(reader, days, device, &mut |day, by, figures| found.push((day, by.0[0], figures.calls()))).unwrap();
        found
    }

    #[test]
    fn a_restart_goes_on_with_every_number_and_days_and_devices_stay_apart() {
        let mut storage = MemoryDisk::new().open();
        let calls = [
            call(1, NOON, 1, AttemptResult::Failed),
            call(1, NOON + 1, 2, AttemptResult::Success),
            call(2, NOON + 2, 1, AttemptResult::Success),
            call(1, NOON + DAY_MS, 1, AttemptResult::CutOff),
        ];
        for call in &calls {
            // A new book each time, as after a restart.
            let mut book = FigureBook::new(180);
            book.note(storage.reader().as_ref(), call).unwrap();
            storage.commit(&Batch { rows: book.rows(), ..Batch::default() }).unwrap();
            assert!(book.rows().is_empty(), "what was written is not written again");
        }
        let reader = storage.reader();
        let first = Day::of(Timestamp(NOON), 180);
        let second = Day(first.0 + 1);
        assert_eq!(days(reader.as_ref(), (first, second), None), [(first, 1, 2), (first, 2, 1), (second, 1, 1)]);
        assert_eq!(days(reader.as_ref(), (first, first), Some(1)), [(first, 1, 2)]);
        assert_eq!(days(reader.as_ref(), (Day(second.0 + 1), Day(i32::MAX)), None), []);

        let totals = of_devices(reader.as_ref(), 10).unwrap();
        let all: Vec<u64> = totals.iter().map(|(_, figures)| figures.calls()).collect();
        assert_eq!(all, [3, 1]);
        let of_first = &totals[0].1;
        assert_eq!((of_first.of(AttemptResult::Success), of_first.calls_until_done), (1, 2));
        assert_eq!((of_first.errors_of(ErrorClass::Network), of_first.durations.count()), (2, 2));
        assert_eq!((of_first.networks["4g"].calls, of_first.networks["4g"].answered), (3, 1));
    }

    #[test]
    fn one_book_and_many_say_the_same() {
        let calls: Vec<Attempt> = (0..50).map(|n| call(1, NOON + n, 1, AttemptResult::Success)).collect();
        let (mut all, mut parts) = (Figures::default(), Figures::default());
        for some in calls.chunks(7) {
            let mut part = Figures::default();
            for call in some {
                all.add(call);
                part.add(call);
            }
            parts.merge(&part);
        }
        assert_eq!(all, parts);
    }

    #[test]
    fn durations_are_told_by_a_bound_that_holds() {
        let mut durations = Durations::default();
        assert_eq!(durations.at_most_ms(50), None);
        for ms in [1, 2, 3, 30, 40, 200, 200, 200, 200, 70_000] {
            durations.add(ms);
        }
        assert_eq!(durations.at_most_ms(50), Some(50));
        assert_eq!(durations.at_most_ms(90), Some(250));
        assert_eq!(durations.at_most_ms(99), Some(70_000));
        assert_eq!((durations.count(), durations.max_ms), (10, 70_000));
    }

    #[test]
    fn networks_that_an_app_makes_up_are_bounded() {
        let mut figures = Figures::default();
        for number in 0..100 {
            let network_type = Some(format!("made up {number}"));
            figures.add(&Attempt { network_type, ..call(1, NOON, 1, AttemptResult::Success) });
        }
        assert_eq!(figures.networks.len(), NETWORKS_MAX + 1);
        assert_eq!(figures.networks[OTHER_NETWORK].calls, 100 - NETWORKS_MAX as u64);
    }

    #[test]
    fn days_before_1970_sort_before_those_after() {
        assert!(day_bytes(Day(-1)) < day_bytes(Day(0)) && day_bytes(Day(0)) < day_bytes(Day(1)));
        assert_eq!(day_of_bytes(&day_bytes(Day(-400))), Some(Day(-400)));
    }
}
