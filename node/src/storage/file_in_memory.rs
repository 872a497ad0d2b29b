//! A storage file in memory that outlives its process's crash, for simulations in virtual time:
//! the real engine on it, without a disk.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::create_on;
use super::redb::guarded;
use super::{OpenError, RedbStorage, StorageError};

/// The file. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileInMemory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Which process has it open; what an earlier one still writes goes nowhere.
    process: u64,
}

#[derive(Debug)]
struct Backend {
    file: FileInMemory,
    process: u64,
}

impl FileInMemory {
    /// A new storage file.
    pub(crate) fn create() -> Result<Self, StorageError> {
        let file = Self::default();
        guarded(|| create_on(Arc::new(file.plug_in()), [7; 16], [8; 32]))?;
        Ok(file)
    }

    /// Opens it, as after a crash of whoever had it open.
    pub(crate) fn open(&self) -> Result<RedbStorage, OpenError> {
        RedbStorage::open_on(Arc::new(self.plug_in()), Path::new(""))
    }

    /// The process that has it open is gone.
    pub(crate) fn cut_off(&self) {
        self.lock().process += 1;
    }

    fn plug_in(&self) -> Backend {
        let mut state = self.lock();
        state.process += 1;
        Backend { file: self.clone(), process: state.process }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.file.lock();
        if state.process == self.process { Ok(state) } else { Err(io::Error::other("the process is gone")) }
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        let from = place(offset)?;
        let bytes = state.bytes.get(from..from.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = place(len)?;
        self.state()?.bytes.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state().map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let from = place(offset)?;
        let until = from.saturating_add(data.len());
        if state.bytes.len() < until {
            state.bytes.resize(until, 0);
        }
        state.bytes.get_mut(from..until).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
