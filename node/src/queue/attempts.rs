//! Calls of the shop's own server: those under way, and the chain of those that ended, each
//! holding the hash of the one before.

use crdt_model::ids::{DeviceId, RecordId, domain_hash};
use crdt_model::record::ErrorClass;
use crdt_model::time::Timestamp;
use minicbor::{Decode, Encode};

use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows, StorageError};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum AttemptResult {
    /// The operation is done.
    #[n(0)]
    Success,
    /// It is not.
    #[n(1)]
    Failed,
    /// A part of it: the server answered with something that calls for one more step.
    #[n(2)]
    Partial,
    /// A crash cut it off: whether the server took it is not known.
    #[n(3)]
    CutOff,
}

impl AttemptResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failed, Self::Partial, Self::CutOff];

    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::CutOff => "cut_off",
        }
    }

    /// From the API's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.word() == word)
    }
}

/// One call that ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// The operation.
    #[n(0)]
    pub operation: RecordId,
    /// Which call for it, from 1.
    #[n(1)]
    pub number: u32,
    /// When it began.
    #[n(2)]
    pub at: Timestamp,
    /// How long it took.
    #[n(3)]
    pub duration_ms: u64,
    /// How it ended.
    #[n(4)]
    pub result: AttemptResult,
    /// The answer's status.
    #[n(5)]
    pub http_status: Option<u16>,
    /// Why it did not do.
    #[n(6)]
    pub class: Option<ErrorClass>,
    /// The same in one word.
    #[n(7)]
    pub code: Option<String>,
    /// The same for people.
    #[n(8)]
    pub detail: Option<String>,
    /// Bytes of the request's body.
    #[n(9)]
    pub bytes_sent: u64,
    /// Bytes of the answer's body.
    #[n(10)]
    pub bytes_received: u64,
    /// The device that recorded the operation.
    #[n(11)]
    pub device: DeviceId,
    /// The network that the carrier was on, as far as somebody said.
    #[n(12)]
    pub network_type: Option<String>,
    /// METHOD and path.
    #[n(13)]
    pub endpoint: String,
    /// The operation's type.
    #[n(14)]
    pub operation_type: Option<String>,
}

/// A link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Linked {
    /// Its number, from 1.
    #[n(0)]
    pub number: u64,
    /// The hash of the one before.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// The call.
    #[n(2)]
    pub attempt: Attempt,
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainEnd {
    /// The number of the last link; 0 if there is none.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A call under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnderWay {
    /// Which call for the operation, from 1.
    #[n(0)]
    pub number: u32,
    /// When it began.
    #[n(1)]
    pub at: Timestamp,
    /// METHOD and path.
    #[n(2)]
    pub endpoint: String,
}

/// Which calls are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// That ended so; any if empty.
    pub results: Vec<AttemptResult>,
    /// For operations of this type.
    pub operation_type: Option<String>,
    /// For operations that this device recorded.
    pub device: Option<DeviceId>,
    /// Over this kind of network.
    pub network_type: Option<String>,
    /// That began between these two times, both included.
    pub between: Option<(Timestamp, Timestamp)>,
}

/// A page of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallPage {
    /// The calls, the first one first.
    pub calls: Vec<Linked>,
    /// The number of the call behind which to go on; `None` at the end.
    pub next: Option<u64>,
}

const LINK: u8 = b'h';
const BY_OPERATION: u8 = b'a';
const UNDER_WAY: u8 = b'i';

impl Linked {
    /// Its hash, over everything before it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let bytes = minicbor::to_vec(self).unwrap_or_default();
        domain_hash("tillmesh 2026 attempt chain", &[&bytes])
    }
}

impl ChainEnd {
    /// Adds a call to the chain; gives the rows that do.
    pub fn add(&mut self, attempt: Attempt) -> Vec<RowWrite> {
        let mut index = vec![BY_OPERATION];
        index.extend(attempt.operation.0.as_bytes());
        index.extend(attempt.number.to_be_bytes());
        let linked = Linked { number: self.number.saturating_add(1), previous: self.hash, attempt };
        *self = Self { number: linked.number, hash: linked.hash() };
        index.extend(linked.number.to_be_bytes());
        let bytes = minicbor::to_vec(&linked).unwrap_or_default();
        vec![put(link_key(linked.number), bytes), put(index, linked.number.to_be_bytes().to_vec())]
    }

    /// Reads where the chain ends. Numbers have no gaps, so it is found by halving.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn load(reader: &dyn Reader) -> Result<Self, StorageError> {
        let (mut held, mut beyond) = (0_u64, 1_u64);
        while read_link(reader, beyond)?.is_some() {
            held = beyond;
            beyond = beyond.saturating_mul(2);
        }
        while beyond - held > 1 {
            let middle = held + (beyond - held) / 2;
            match read_link(reader, middle)? {
                Some(_) => held = middle,
                None => beyond = middle,
            }
        }
        Ok(read_link(reader, held)?.map_or_else(Self::default, |linked| Self { number: held, hash: linked.hash() }))
    }
}

/// The row that says that a call is under way; `None` takes it away.
#[must_use]
pub fn under_way_row(operation: RecordId, call: Option<&UnderWay>) -> RowWrite {
    let mut key = vec![UNDER_WAY];
    key.extend(operation.0.as_bytes());
    RowWrite { rows: Rows::AttemptLog, key, value: call.map(|call| minicbor::to_vec(call).unwrap_or_default()) }
}

/// Calls that were under way when the node ended.
///
/// # Errors
/// [`StorageError`].
pub fn under_way(reader: &dyn Reader) -> Result<Vec<(RecordId, UnderWay)>, StorageError> {
    let page = reader.rows(Rows::AttemptLog, Keys { prefix: &[UNDER_WAY], after: None }, ReadLimits::NONE)?;
    let calls = page.rows.iter().filter_map(|row| {
        let id = uuid::Uuid::from_slice(row.key.get(1..)?).ok()?;
        Some((RecordId(id), minicbor::decode(&row.value).ok()?))
    });
    Ok(calls.collect())
}

/// One link of the chain.
///
/// # Errors
/// [`StorageError`].
pub fn read_link(reader: &dyn Reader, number: u64) -> Result<Option<Linked>, StorageError> {
    let row = reader.row(Rows::AttemptLog, &link_key(number))?;
    Ok(row.and_then(|bytes| minicbor::decode(&bytes).ok()))
}

/// Links behind one, with the numbers that they are stored under; `None` for one that can't be read.
///
/// # Errors
/// [`StorageError`].
pub fn links_after(
    reader: &dyn Reader,
    after: u64,
    count_max: usize,
) -> Result<Vec<(u64, Option<Linked>)>, StorageError> {
    let behind = link_key(after);
    let limits = ReadLimits { entries_max: count_max, bytes_max: usize::MAX };
    let page = reader.rows(Rows::AttemptLog, Keys { prefix: &[LINK], after: Some(&behind) }, limits)?;
    let links = page.rows.iter().map(|row| {
        let number = row.key.get(1..).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        (number, minicbor::decode(&row.value).ok())
    });
    Ok(links.collect())
}

/// Calls that a filter admits, behind one. Looks at so many that a page takes no longer than
/// others, so it may hold fewer than there is room for, and still not be the last.
///
/// # Errors
/// [`StorageError`].
pub fn calls_after(
    reader: &dyn Reader,
    after: u64,
    filter: &CallFilter,
    limit: usize,
) -> Result<CallPage, StorageError> {
    let mut page = CallPage::default();
    let (mut behind, mut looks) = (after, 0);
    loop {
        let links = links_after(reader, behind, PAGE)?;
        if links.is_empty() {
            return Ok(page);
        }
        for (number, linked) in links {
            if page.calls.len() == limit || looks == LOOKS_MAX {
                page.next = Some(behind);
                return Ok(page);
            }
            looks += 1;
            behind = number;
            page.calls.extend(linked.filter(|linked| filter.admits(&linked.attempt)));
        }
    }
}

/// The calls for an operation, the first one first.
///
/// # Errors
/// [`StorageError`].
pub fn of_operation(reader: &dyn Reader, operation: RecordId, count_max: usize) -> Result<Vec<Attempt>, StorageError> {
    let mut prefix = vec![BY_OPERATION];
    prefix.extend(operation.0.as_bytes());
    let limits = ReadLimits { entries_max: count_max, bytes_max: usize::MAX };
    let page = reader.rows(Rows::AttemptLog, Keys { prefix: &prefix, after: None }, limits)?;
    let mut attempts = Vec::with_capacity(page.rows.len());
    for row in page.rows {
        let Ok(number) = <[u8; 8]>::try_from(row.value.as_slice()) else { continue };
        attempts.extend(read_link(reader, u64::from_be_bytes(number))?.map(|linked| linked.attempt));
    }
    Ok(attempts)
}

impl CallFilter {
    fn admits(&self, attempt: &Attempt) -> bool {
        (self.results.is_empty() || self.results.contains(&attempt.result))
            && self.operation_type.as_ref().is_none_or(|kind| attempt.operation_type.as_ref() == Some(kind))
            && self.device.is_none_or(|device| device == attempt.device)
            && self.network_type.as_ref().is_none_or(|kind| attempt.network_type.as_ref() == Some(kind))
            && self.between.is_none_or(|(first, last)| (first..=last).contains(&attempt.at))
    }
}

/// The most links that one page looks at.
const LOOKS_MAX: usize = 5_000;
const PAGE: usize = 256;

fn link_key(number: u64) -> Vec<u8> {
    let mut key = vec![LINK];
    key.extend(number.to_be_bytes());
    key
}

fn put(key: Vec<u8>, value: Vec<u8>) -> RowWrite {
    RowWrite { rows: Rows::AttemptLog, key, value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, MemoryDisk, Storage};

    fn attempt(number: u32) -> Attempt {
        Attempt {
            operation: RecordId(uuid::Uuid::from_u128(u128::from(number % 3))),
            number,
            at: Timestamp(u64::from(number)),
            duration_ms: 5,
            result: AttemptResult::Success,
            http_status: Some(201),
            class: None,
            code: None,
            detail: None,
            bytes_sent: 10,
            bytes_received: 20,
            device: DeviceId([1; 32]),
            network_type: None,
            endpoint: "POST /api/sales".to_owned(),
            operation_type: None,
        }
    }

    #[test]
    fn the_chain_goes_on_where_it_ended_and_each_operation_has_its_own_calls() {
        let mut storage = MemoryDisk::new().open();
        let mut end = ChainEnd::default();
        for number in 1..=21 {
            assert_eq!(ChainEnd::load(storage.reader().as_ref()).unwrap(), end);
            let rows = end.add(attempt(number));
            storage.commit(&Batch { rows, ..Batch::default() }).unwrap();
        }
        let reader = storage.reader();
        let own = of_operation(reader.as_ref(), RecordId(uuid::Uuid::from_u128(1)), 100).unwrap();
        assert_eq!(own.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 4, 7, 10, 13, 16, 19]);
        let mut previous = [0; 32];
        for number in 1..=21 {
            let linked = read_link(reader.as_ref(), number).unwrap().unwrap();
            assert_eq!(linked.previous, previous);
            previous = linked.hash();
        }
        assert_eq!(previous, end.hash);
    }

    #[test]
    fn a_filter_goes_through_pages_and_leaves_none_out() {
        let mut storage = MemoryDisk::new().open();
        let mut end = ChainEnd::default();
        let mut rows = Vec::new();
        for number in 1..=600 {
            let result = if number % 100 == 0 { AttemptResult::Failed } else { AttemptResult::Success };
            let network_type = (number % 2 == 0).then(|| "4g".to_owned());
            rows.extend(end.add(Attempt { result, network_type, ..attempt(number) }));
        }
        storage.commit(&Batch { rows, ..Batch::default() }).unwrap();
        let reader = storage.reader();
        let through = |filter: CallFilter, limit| {
            let (mut numbers, mut after) = (Vec::new(), 0);
            loop {
                let page = calls_after(reader.as_ref(), after, &filter, limit).unwrap();
                assert!(page.calls.len() <= limit);
                numbers.extend(page.calls.iter().map(|linked| linked.number));
                let Some(next) = page.next else { return numbers };
                after = next;
            }
        };
        let failed = CallFilter { results: vec![AttemptResult::Failed], ..CallFilter::default() };
        assert_eq!(through(failed, 2), [100, 200, 300, 400, 500, 600]);
        assert_eq!(through(CallFilter::default(), 250), (1..=600).collect::<Vec<_>>());
        let between = Some((Timestamp(301), Timestamp(305)));
        let some = CallFilter { network_type: Some("4g".to_owned()), between, ..CallFilter::default() };
        assert_eq!(through(some, 50), [302, 304]);
        assert!(
            through(CallFilter { operation_type: Some("sale".to_owned()), ..CallFilter::default() }, 50).is_empty()
        );
        assert!(through(CallFilter { device: Some(DeviceId([2; 32])), ..CallFilter::default() }, 50).is_empty());
    }
}
