//! What the tests of storage share: seeded batches, the plainest engine, and the engines to try.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crdt_model::entry::{Class, Entry, PageLabel, Place};
use crdt_model::ids::{EntryHash, JournalId};
use crdt_model::sync::codec::{Run, encode_block};
use crdt_model::sync::packed::PackedRun;
use crdt_model::time::Hlc;

use super::packed::unpacked;
use super::power_cut::SimDisk;
use super::{
    Batch, Durability, EntryRow, Keys, MemoryDisk, ReadEnd, ReadLimits, Reader, RedbStorage, Rows, Storage,
    StorageError,
};

/// Random choices that a seed repeats (splitmix64).
#[derive(Debug)]
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The plainest engine there is, to compare with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    entries: BTreeMap<Place, Vec<u8>>,
    rows: BTreeMap<(Rows, Vec<u8>), Vec<u8>>,
}

impl Contents {
    pub(super) fn apply(&mut self, batch: &Batch) {
        for place in &batch.dropped {
            self.entries.remove(place);
        }
        for run in &batch.runs {
            self.entries.extend(unpacked(run).unwrap().into_iter().map(|entry| (entry.place, entry.bytes)));
        }
        for entry in &batch.entries {
            self.entries.insert(entry.place, entry.bytes.clone());
        }
        for row in &batch.rows {
            match &row.value {
                Some(value) => self.rows.insert((row.rows, row.key.clone()), value.clone()),
                None => self.rows.remove(&(row.rows, row.key.clone())),
            };
        }
    }
}

/// Reads everything, a few at a time.
pub(super) fn contents_of(reader: &dyn Reader) -> Result<Contents, StorageError> {
    let limits = ReadLimits { entries_max: 3, bytes_max: 2000 };
    let mut contents = Contents::default();
    for journal in reader.journals(None, 100)? {
        let mut from = 0;
        while let ReadEnd::At(next) = reader.entries(journal, from..=u64::MAX, limits, &mut |seq, bytes| {
            contents.entries.insert(Place { journal, seq }, bytes.to_vec());
            ControlFlow::Continue(())
        })? {
            from = next;
        }
    }
    for rows in Rows::ALL {
        let mut after = None;
        loop {
            let page = reader.rows(rows, Keys { prefix: b"", after: after.as_deref() }, limits)?;
            after = page.rows.last().map(|row| row.key.clone());
            contents.rows.extend(page.rows.into_iter().map(|row| ((rows, row.key), row.value)));
            if !page.more {
                break;
            }
        }
    }
    Ok(contents)
}

pub(super) fn random_batch(seeded: &mut Seeded) -> Batch {
    let durability = match seeded.below(3) {
        0 => Durability::OwnEntries,
        1 => Durability::PeerData,
        _ => Durability::Background,
    };
    let mut batch = Batch::new(durability);
    for _ in 0..seeded.below(3) {
        batch.drop_entry(Place { journal: journal(1), seq: seeded.below(40) });
    }
    for _ in 0..seeded.below(3) {
        let number = seeded.next().to_le_bytes()[0] % 3;
        batch.runs.push(run(number, seeded.below(40), seeded.below(12) + 1, seeded.next()));
    }
    for _ in 0..seeded.below(6) {
        let bytes = vec![seeded.next().to_le_bytes()[0]; usize::try_from(seeded.below(3000)).unwrap()];
        let journal = journal(seeded.next().to_le_bytes()[0] % 3);
        batch.entries.push(EntryRow { place: Place { journal, seq: seeded.below(40) }, bytes });
    }
    for _ in 0..seeded.below(6) {
        let rows = Rows::ALL[usize::try_from(seeded.below(10)).unwrap()];
        let key = vec![b'k'; usize::try_from(seeded.below(5)).unwrap()];
        match seeded.below(3) {
            0 => batch.delete(rows, key),
            _ => batch.put(rows, key, seeded.next().to_le_bytes().repeat(20)),
        }
    }
    batch
}

/// A run in one piece; its entries differ with `seed`.
pub(super) fn run(number: u8, first: u64, count: u64, seed: u64) -> PackedRun {
    let entry = |seq: u64| Entry {
        class: Class::Normal,
        page: PageLabel::default(),
        time: Hlc(seed >> 16 << 16 | seq),
        user: None,
        after: Vec::new(),
        parts: Vec::new(),
        mark: None,
    };
    let last = first + count - 1;
    let entries = (first..=last).map(entry).collect();
    let run = Run { journal: journal(number), info: None, start: first, entries, signature: [number; 64] };
    let mut head = EntryHash([number; 32]);
    head.0[..8].copy_from_slice(&seed.to_le_bytes());
    PackedRun { journal: run.journal, first, last, head, block: encode_block(&[run]) }
}

/// An engine and what is left of it when its node goes.
pub(super) trait Engine {
    fn new() -> Self;
    fn open(&self) -> Box<dyn Storage>;
    /// Opens again as if the node had been killed.
    fn open_after_crash(&self, crashed: Box<dyn Storage>) -> Box<dyn Storage>;
}

pub(super) trait FailingEngine: Engine {
    /// Makes the next commit fail as a full disk would.
    fn fail_next_commit(&self);
}

impl Engine for MemoryDisk {
    fn new() -> Self {
        Self::new()
    }

    fn open(&self) -> Box<dyn Storage> {
        Box::new(Self::open(self))
    }

    fn open_after_crash(&self, crashed: Box<dyn Storage>) -> Box<dyn Storage> {
        let storage = Self::open(self);
        drop(crashed);
        Box::new(storage)
    }
}

impl FailingEngine for MemoryDisk {
    fn fail_next_commit(&self) {
        self.fail_commit(1);
    }
}

impl Engine for SimDisk {
    fn new() -> Self {
        Self::with_new_file()
    }

    fn open(&self) -> Box<dyn Storage> {
        Box::new(Self::open(self).unwrap())
    }

    fn open_after_crash(&self, crashed: Box<dyn Storage>) -> Box<dyn Storage> {
        self.fail(std::io::ErrorKind::Other);
        drop(crashed);
        Box::new(Self::open(self).unwrap())
    }
}

impl FailingEngine for SimDisk {
    fn fail_next_commit(&self) {
        self.fail(std::io::ErrorKind::StorageFull);
    }
}

pub(super) struct FileEngine {
    folder: tempfile::TempDir,
}

impl Engine for FileEngine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        drop(RedbStorage::create(&folder.path().join("journal.redb"), [3; 16]).unwrap());
        Self { folder }
    }

    fn open(&self) -> Box<dyn Storage> {
        Box::new(RedbStorage::open(&self.folder.path().join("journal.redb")).unwrap())
    }

    fn open_after_crash(&self, crashed: Box<dyn Storage>) -> Box<dyn Storage> {
        // What a killed process leaves behind: the file as it is now, never closed.
        let path = self.folder.path().join("journal.redb");
        let left_behind = self.folder.path().join("left-behind.redb");
        std::fs::copy(&path, &left_behind).unwrap();
        drop(crashed);
        std::fs::rename(&left_behind, &path).unwrap();
        self.open()
    }
}

pub(super) fn journal(number: u8) -> JournalId {
    JournalId([number; 16])
}
