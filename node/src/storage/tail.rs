//! The tail: where small commits become durable with one write and one sync, before the engine
//! takes them over. docs/storage.md specifies its bytes.
//!
//! - Records follow one another from the start of the tail, each in blocks of its own, so that a
//!   torn write never reaches a record that was acknowledged.
//! - Records are numbered without gaps. The engine keeps the number of the last one it has taken
//!   over; after a crash the records behind it are read back.
//! - Once the engine's own commit is durable, the next record goes to the start again. What is left
//!   of older ones has lower numbers and is never read as a successor.

use std::io;
use std::sync::Arc;

use crdt_model::entry::Place;
use minicbor::{Decoder, Encoder};
use redb::StorageBackend;

use super::tables::{rows_byte, rows_of_byte};
use super::{Batch, Durability, EntryRow, RowWrite};

/// The size of the tail: room for 255 small commits between two of the engine's own.
pub(super) const TAIL_BYTES: u64 = 1024 * 1024;
/// Larger batches go to the engine at once: writing them twice costs more than it saves.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// What a disk writes at once, and what file systems keep together.
const BLOCK_BYTES: usize = 4096;
/// Length (4), number (8), checksum (32).
const HEAD_BYTES: usize = 44;

/// Keys the checksums: whoever chose the bytes of a record can't make a half-written one look whole.
pub(super) type TailKey = [u8; 32];

#[derive(Debug)]
pub(super) struct Tail {
    device: Arc<dyn StorageBackend>,
    key: TailKey,
    number: u64,
    offset: u64,
    buffer: Vec<u8>,
}

/// Whether a record was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is durable.
    Yes,
    /// There is no room: the engine has to take over what is there first.
    Full,
    /// It is too large for the tail.
    TooLarge,
}

impl Tail {
    /// The tail of a device, behind record `through`; gives the batches that come after it.
    pub(super) fn open(device: Arc<dyn StorageBackend>, key: TailKey, through: u64) -> io::Result<(Self, Vec<Batch>)> {
        let mut tail = Self { device, key, number: through, offset: 0, buffer: Vec::new() };
        let batches = tail.read_back()?;
        Ok((tail, batches))
    }

    /// The number of the last record.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Writes a batch and syncs.
    pub(super) fn append(&mut self, batch: &Batch) -> io::Result<Appended> {
        // Runs are large, and from peers: there is nothing to gain by writing them twice.
        if !batch.runs.is_empty() || rough_size(batch) > RECORD_BYTES_MAX {
            return Ok(Appended::TooLarge);
        }
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES, 0);
        encode(batch, &mut self.buffer);
        let payload = self.buffer.len() - HEAD_BYTES;
        let blocks = self.buffer.len().div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        if self.offset + blocks as u64 > TAIL_BYTES {
            return Ok(Appended::Full);
        }
        let number = self.number + 1;
        let check = checksum(&self.key, number, self.buffer.get(HEAD_BYTES..).unwrap_or_default());
        let head: Vec<u8> = [
            u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes().as_slice(),
            &number.to_le_bytes(),
            check.as_bytes(),
        ]
        .concat();
        for (to, from) in self.buffer.iter_mut().zip(head) {
            *to = from;
        }
        self.buffer.resize(blocks, 0);
        self.device.write(self.offset, &self.buffer)?;
        self.device.sync_data()?;
        self.number = number;
        self.offset += blocks as u64;
        Ok(Appended::Yes)
    }

    /// The engine holds everything durably: begins at the start again.
    pub(super) fn restart(&mut self) {
        self.offset = 0;
    }

    fn read_back(&mut self) -> io::Result<Vec<Batch>> {
        let mut bytes = vec![0; usize::try_from(TAIL_BYTES).unwrap_or_default()];
        if self.device.len()? < TAIL_BYTES {
            return Ok(Vec::new());
        }
        self.device.read(0, &mut bytes)?;
        let mut batches = Vec::new();
        let mut rest = bytes.as_slice();
        let mut previous = None;
        while let Some((number, payload)) = read_record(&self.key, rest) {
            let follows = previous.map_or(number <= self.number + 1, |previous| number == previous + 1);
            if !follows {
                break;
            }
            if number > self.number {
                let Some(batch) = decode(payload) else { break };
                batches.push(batch);
                self.number = number;
            }
            previous = Some(number);
            let blocks = (HEAD_BYTES + payload.len()).div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
            self.offset += blocks as u64;
            rest = rest.get(blocks..).unwrap_or_default();
        }
        Ok(batches)
    }
}

fn checksum(key: &TailKey, number: u64, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The whole record at the start of `bytes`.
fn read_record<'b>(key: &TailKey, bytes: &'b [u8]) -> Option<(u64, &'b [u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let (number, rest) = rest.split_at_checked(8)?;
    let (check, rest) = rest.split_at_checked(32)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    let payload = rest.get(..length)?;
    let expected = blake3::Hash::from_slice(check).ok()?;
    (checksum(key, number, payload) == expected).then_some((number, payload))
}

fn rough_size(batch: &Batch) -> usize {
    let entries: usize = batch.entries.iter().map(|entry| entry.bytes.len() + 40).sum();
    let rows: usize = batch.rows.iter().map(|row| row.key.len() + row.value.as_ref().map_or(0, Vec::len) + 16).sum();
    entries + rows + batch.dropped.len() * 40
}

fn encode(batch: &Batch, to: &mut Vec<u8>) {
    let mut encoder = Encoder::new(to);
    let written = (|| {
        encoder.array(3)?;
        encoder.encode(&batch.dropped)?;
        encoder.array(batch.entries.len() as u64 * 2)?;
        for entry in &batch.entries {
            encoder.encode(entry.place)?.bytes(&entry.bytes)?;
        }
        encoder.array(batch.rows.len() as u64 * 3)?;
        for row in &batch.rows {
            encoder.u8(rows_byte(row.rows))?.bytes(&row.key)?;
            match &row.value {
                Some(value) => encoder.bytes(value)?,
                None => encoder.null()?,
            };
        }
        Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
    })();
    // Writing to memory can't fail.
    drop(written);
}

/// What was acknowledged is read back as durable as it was.
fn decode(payload: &[u8]) -> Option<Batch> {
    let mut decoder = Decoder::new(payload);
    let mut batch = Batch::new(Durability::PeerData);
    decoder.array().ok()?;
    batch.dropped = decoder.decode::<Vec<Place>>().ok()?;
    for _ in 0..decoder.array().ok()?? / 2 {
        let place = decoder.decode().ok()?;
        batch.entries.push(EntryRow { place, bytes: decoder.bytes().ok()?.to_vec() });
    }
    for _ in 0..decoder.array().ok()?? / 3 {
        let rows = rows_of_byte(decoder.u8().ok()?)?;
        let key = decoder.bytes().ok()?.to_vec();
        let value = decoder.decode::<Option<minicbor::bytes::ByteVec>>().ok()?.map(Vec::from);
        batch.rows.push(RowWrite { rows, key, value });
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::rig::{Seeded, random_batch};

    fn tail_on(device: &Arc<redb::backends::InMemoryBackend>, through: u64) -> (Tail, Vec<Batch>) {
        let device: Arc<dyn StorageBackend> = Arc::<redb::backends::InMemoryBackend>::clone(device);
        Tail::open(device, [7; 32], through).unwrap()
    }

    fn device() -> Arc<redb::backends::InMemoryBackend> {
        let device = Arc::new(redb::backends::InMemoryBackend::new());
        device.set_len(TAIL_BYTES).unwrap();
        device
    }

    fn batches(count: u64) -> Vec<Batch> {
        let batch = |seed| {
            let random = random_batch(&mut Seeded::new(seed));
            Batch { durability: Durability::PeerData, runs: Vec::new(), ..random }
        };
        (0..count).map(batch).collect()
    }

    #[test]
    fn what_was_written_is_read_back_behind_what_the_engine_holds() {
        let device = device();
        let (mut tail, none) = tail_on(&device, 0);
        assert!(none.is_empty());
        let written = batches(20);
        for batch in &written {
            assert_eq!(tail.append(batch).unwrap(), Appended::Yes);
        }
        for through in 0..=20 {
            let (again, found) = tail_on(&device, through);
            assert_eq!(found, written[usize::try_from(through).unwrap()..]);
            assert_eq!((again.number, again.offset), (tail.number, tail.offset));
        }
    }

    #[test]
    fn older_records_are_never_taken_for_successors() {
        let device = device();
        let (mut tail, _) = tail_on(&device, 0);
        let written = batches(30);
        for batch in &written[..20] {
            tail.append(batch).unwrap();
        }
        tail.restart();
        for batch in &written[20..23] {
            tail.append(batch).unwrap();
        }
        assert_eq!(tail_on(&device, 20).1, written[20..23]);
        assert!(tail_on(&device, 23).1.is_empty());
        // Records that the engine should hold are missing: nothing behind the gap counts.
        assert!(tail_on(&device, 11).1.is_empty());
    }

    #[test]
    fn a_torn_record_and_what_follows_it_are_left_out() {
        let device = device();
        let (mut tail, _) = tail_on(&device, 0);
        let written = batches(8);
        let mut starts = Vec::new();
        for batch in &written {
            starts.push(tail.offset);
            tail.append(batch).unwrap();
        }
        for (index, start) in starts.iter().enumerate() {
            for at in [0, 5, 20, HEAD_BYTES as u64] {
                let mut byte = [0];
                device.read(start + at, &mut byte).unwrap();
                device.write(start + at, &[byte[0] ^ 1]).unwrap();
                assert_eq!(tail_on(&device, 0).1, written[..index], "byte {at} of record {index}");
                device.write(start + at, &byte).unwrap();
            }
        }
        assert_eq!(tail_on(&device, 0).1, written);
    }

    #[test]
    fn it_says_when_it_is_full_and_what_is_too_large() {
        let device = device();
        let (mut tail, _) = tail_on(&device, 0);
        let mut batch = Batch::new(Durability::OwnEntries);
        batch.put(super::super::Rows::Local, *b"key", vec![1; 100]);
        for _ in 0..TAIL_BYTES / BLOCK_BYTES as u64 {
            assert_eq!(tail.append(&batch).unwrap(), Appended::Yes);
        }
        assert_eq!(tail.append(&batch).unwrap(), Appended::Full);
        tail.restart();
        assert_eq!(tail.append(&batch).unwrap(), Appended::Yes);
        batch.put(super::super::Rows::Local, *b"large", vec![1; RECORD_BYTES_MAX]);
        assert_eq!(tail.append(&batch).unwrap(), Appended::TooLarge);
    }
}
