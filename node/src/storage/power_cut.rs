//! A disk that forgets what was not synced, and what storage must keep on it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::file::create_on;
use super::rig::{Contents, Seeded, contents_of, random_batch};
use super::{Durability, OpenError, RedbStorage, Storage, StorageError};

const SECTOR_BYTES: usize = 512;
const CRASH_POINTS: u64 = 300;

/// Bytes that outlive a machine's crash, and those that may not.
#[derive(Debug, Clone, Default)]
pub(super) struct SimDisk {
    state: Arc<Mutex<SimState>>,
}

#[derive(Debug, Default)]
struct SimState {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Unsynced>,
    boot: u64,
    operations: u64,
    power_cut_at: Option<u64>,
    failing: Option<io::ErrorKind>,
    sync_is_ignored: bool,
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug)]
struct SimBackend {
    disk: SimDisk,
    boot: u64,
}

impl SimDisk {
    /// A disk with a new storage file on it.
    pub(super) fn with_new_file() -> Self {
        let disk = Self::default();
        create_on(Arc::new(disk.plug_in()), [7; 16], [8; 32]).unwrap();
        disk
    }

    pub(super) fn open(&self) -> Result<RedbStorage, OpenError> {
        RedbStorage::open_on(Arc::new(self.plug_in()), Path::new(""))
    }

    /// Every write and sync fails from now on, until the disk is opened again.
    pub(super) fn fail(&self, kind: io::ErrorKind) {
        self.lock().failing = Some(kind);
    }

    fn copy(&self) -> Self {
        let durable = self.lock().durable.clone();
        let state = SimState { seen: durable.clone(), durable, ..SimState::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn plug_in(&self) -> SimBackend {
        let mut state = self.lock();
        state.boot += 1;
        state.failing = None;
        state.power_cut_at = None;
        SimBackend { disk: self.clone(), boot: state.boot }
    }

    fn cut_power_after(&self, operations: u64) {
        let mut state = self.lock();
        state.power_cut_at = Some(state.operations + operations);
    }

    /// Of what was written since the last sync, each sector is on the disk or not, by chance.
    fn cut_power(&self, seeded: &mut Seeded) {
        let mut state = self.lock();
        state.boot += 1;
        let survivors_of_4 = seeded.below(5);
        let mut image = std::mem::take(&mut state.durable);
        for unsynced in std::mem::take(&mut state.unsynced) {
            match unsynced {
                Unsynced::Length(bytes) => {
                    if seeded.below(4) < survivors_of_4 {
                        image.resize(bytes, 0);
                    }
                }
                Unsynced::Write { offset, data } => {
                    for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if seeded.below(4) < survivors_of_4 {
                            overwrite(&mut image, offset + index * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        state.seen.clone_from(&image);
        state.durable = image;
    }

    fn lock(&self) -> MutexGuard<'_, SimState> {
        self.state.lock().unwrap()
    }
}

fn overwrite(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

impl SimBackend {
    fn running(&self) -> io::Result<MutexGuard<'_, SimState>> {
        let state = self.disk.lock();
        let power_is_off = state.power_cut_at.is_some_and(|at| state.operations >= at);
        if state.boot != self.boot || power_is_off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(state)
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, SimState>> {
        let mut state = self.running()?;
        state.operations += 1;
        match state.failing {
            Some(kind) => Err(kind.into()),
            None => Ok(state),
        }
    }
}

impl redb::StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.running()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.running()?;
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.changing()?;
        let bytes = usize::try_from(len).unwrap();
        state.seen.resize(bytes, 0);
        state.unsynced.push(Unsynced::Length(bytes));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.changing()?;
        if !state.sync_is_ignored {
            state.unsynced.clear();
            state.durable = state.seen.clone();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.changing()?;
        let offset = usize::try_from(offset).unwrap();
        overwrite(&mut state.seen, offset, data);
        state.unsynced.push(Unsynced::Write { offset, data: data.to_vec() });
        Ok(())
    }
}

/// Sells until the power goes, comes back (perhaps at the second attempt), and says what is wrong
/// with what it then finds.
fn crash_once(template: &SimDisk, seed: u64, sync_is_ignored: bool) -> Result<(), String> {
    let mut seeded = Seeded::new(seed);
    let disk = template.copy();
    disk.lock().sync_is_ignored = sync_is_ignored;
    let mut storage = disk.open().map_err(|error| error.to_string())?;
    disk.cut_power_after(1 + seeded.below(160));

    let mut states = vec![Contents::default()];
    let mut promised = 0;
    for _ in 0..12 {
        let batch = random_batch(&mut seeded);
        let mut after = states.last().unwrap().clone();
        after.apply(&batch);
        states.push(after);
        if storage.commit(&batch).is_err() {
            break;
        }
        if seeded.below(3) == 0 && storage.settle(Vec::new()).is_err() {
            break;
        }
        if batch.durability != Durability::Background {
            promised = states.len() - 1;
        }
    }
    disk.cut_power(&mut seeded);
    drop(storage);

    if seeded.below(2) == 0 {
        let backend = disk.plug_in();
        disk.cut_power_after(1 + seeded.below(12));
        let recovered = RedbStorage::open_on(Arc::new(backend), Path::new(""));
        disk.cut_power(&mut seeded);
        drop(recovered);
    }

    let mut storage = disk.open().map_err(|error| format!("it does not open: {error}"))?;
    let found = contents_of(storage.reader().as_ref()).map_err(|error| format!("it can't be read: {error}"))?;
    let Some(mut expected) = states[promised..].iter().find(|state| **state == found).cloned() else {
        return Err(format!("commit {promised} was acknowledged, and what is found is no state since then"));
    };
    let batch = random_batch(&mut seeded);
    storage.commit(&batch).map_err(|error| format!("it can't go on: {error}"))?;
    expected.apply(&batch);
    drop(storage);
    let storage = disk.open().map_err(|error| format!("it does not open again: {error}"))?;
    let found = contents_of(storage.reader().as_ref()).map_err(|error| error.to_string())?;
    if found == expected { Ok(()) } else { Err("what came after the crash is lost".to_owned()) }
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let template = SimDisk::with_new_file();
    for seed in 0..CRASH_POINTS {
        if let Err(wrong) = crash_once(&template, seed, false) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn the_power_cut_would_be_noticed_on_a_disk_that_ignores_syncs() {
    let template = SimDisk::with_new_file();
    let noticed = (0..60).filter(|seed| crash_once(&template, *seed, true).is_err()).count();
    assert!(noticed > 20, "only {noticed} of 60 crashes lost anything: the harness has no teeth");
}

#[test]
fn a_full_disk_ends_the_writer_and_keeps_what_was_acknowledged() {
    for (kind, expected_full) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::Other, false)] {
        let disk = SimDisk::with_new_file();
        let mut storage = disk.open().unwrap();
        let mut seeded = Seeded::new(1);
        let mut expected = Contents::default();
        let mut batch = random_batch(&mut seeded);
        batch.durability = Durability::OwnEntries;
        storage.commit(&batch).unwrap();
        expected.apply(&batch);

        disk.fail(kind);
        let failed = storage.commit(&random_batch_that_writes(&mut seeded));
        match failed {
            Err(StorageError::Full) => assert!(expected_full),
            Err(StorageError::Io(_)) => assert!(!expected_full),
            other => panic!("{kind:?} gave {other:?}"),
        }
        assert!(matches!(storage.commit(&batch), Err(StorageError::Ended)));
        disk.cut_power(&mut seeded);
        drop(storage);
        let storage = disk.open().unwrap();
        assert_eq!(contents_of(storage.reader().as_ref()).unwrap(), expected);
    }
}

fn random_batch_that_writes(seeded: &mut Seeded) -> super::Batch {
    let mut batch = random_batch(seeded);
    batch.put(super::Rows::Local, *b"more", vec![1; 9000]);
    batch.durability = Durability::OwnEntries;
    batch
}
