//! Storage in one redb file: committing. Files are created and opened in `file`, read in `redb_reader`.

use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::Database;

use super::packed::{self, LastRun};
use super::redb_reader::RedbReader;
use super::tables::{FILE, JOURNAL, PACKED, ROWS, TAIL_THROUGH_KEY, place_key, row_key};
use super::tail::{Appended, Tail};
use super::{Batch, Durability, EntryRow, Reader, RowWrite, Storage, StorageError};

/// The engine of tills and of relays on one machine. Small commits become durable in the tail, the
/// engine takes them over afterwards.
///
/// Another process that opens the file meanwhile is refused. Dropping it closes the file cleanly,
/// so that the next opening needn't check all of it.
pub struct RedbStorage {
    held: Arc<Held>,
    tail: Tail,
    path: PathBuf,
    file_id: [u8; 16],
    ended: bool,
    /// Rows that readers see already, and that the tail's next record takes along.
    along: Vec<RowWrite>,
}

/// The engine, and what is durable in the tail but not in the engine yet.
pub(super) struct Held {
    pub(super) database: Database,
    waiting: Mutex<Waiting>,
    /// Something waits: readers look here first.
    any: AtomicBool,
    pub(super) last_run: LastRun,
}

#[derive(Default)]
struct Waiting {
    batches: Vec<Batch>,
    /// The number of the last record of the tail that is waiting or taken over.
    through: u64,
    /// The engine's last durable commit is behind that record.
    behind: bool,
    /// The engine holds a batch that the tail does not, and that is not durable yet: the next
    /// durable commit has to be the engine's, since commits become durable in their order.
    ahead: bool,
}

impl RedbStorage {
    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id that the file got when it was created. A copy has the same one.
    #[must_use]
    pub fn file_id(&self) -> [u8; 16] {
        self.file_id
    }

    /// Puts an opened database and its tail together; what only the tail holds is taken over.
    pub(super) fn of_database(
        database: Database,
        tail: (Tail, Vec<Batch>),
        path: PathBuf,
        file_id: [u8; 16],
    ) -> Result<Self, StorageError> {
        let (tail, batches) = tail;
        let recovered = !batches.is_empty();
        let waiting = Waiting { batches, through: tail.number(), behind: recovered, ahead: false };
        let held = Held {
            database,
            waiting: Mutex::new(waiting),
            any: AtomicBool::new(recovered),
            last_run: LastRun::default(),
        };
        let mut storage = Self { held: Arc::new(held), tail, path, file_id, ended: false, along: Vec::new() };
        if recovered {
            storage.take_over(&Batch::new(Durability::PeerData))?;
        }
        Ok(storage)
    }

    /// Makes the tail's batches and one more durable in the engine; the tail is free then.
    fn take_over(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.held.write(batch)?;
        if batch.durability != Durability::Background {
            self.tail.restart();
            self.along.clear();
        }
        Ok(())
    }

    /// Whether a batch is only rows that can be made again, and may go through the tail. Through the
    /// engine it would make the next commit the engine's too.
    fn is_derived(&self, batch: &Batch) -> bool {
        let rows_only = batch.entries.is_empty() && batch.runs.is_empty() && batch.dropped.is_empty();
        batch.durability == Durability::Background && rows_only && !self.held.waiting().ahead
    }

    /// Whether rows may wait for the tail's next record, which takes them along.
    fn goes_along(&self, rows: &[RowWrite]) -> bool {
        let size = |row: &RowWrite| row.key.len() + row.value.as_ref().map_or(0, Vec::len);
        self.along.iter().chain(rows).map(size).sum::<usize>() <= ALONG_BYTES_MAX
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        batch.check_sizes()?;
        let derived = self.is_derived(batch);
        if derived && self.goes_along(&batch.rows) {
            self.along.extend(batch.rows.iter().cloned());
            self.held.add(batch.clone());
            // So that closing the file makes it durable, even once the engine has it.
            self.held.waiting().behind = true;
            return Ok(());
        }
        if (batch.durability == Durability::Background && !derived) || self.held.waiting().ahead {
            return self.take_over(batch);
        }
        let mut appended = match self.along.is_empty() {
            true => self.tail.append(batch)?,
            false => {
                let mut whole = batch.clone();
                whole.rows = self.along.iter().chain(&batch.rows).cloned().collect();
                self.tail.append(&whole)?
            }
        };
        if appended == Appended::Full {
            self.take_over(&Batch::new(Durability::PeerData))?;
            appended = self.tail.append(batch)?;
        }
        match appended {
            Appended::Yes => {
                self.along.clear();
                self.held.wait_for_engine(batch.clone(), self.tail.number());
                Ok(())
            }
            Appended::Full | Appended::TooLarge => self.take_over(batch),
        }
    }
}

/// Rows that wait for the tail's next record: a quarter of what one holds.
const ALONG_BYTES_MAX: usize = 16 * 1024;

impl fmt::Debug for RedbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStorage").field("path", &self.path).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Storage for RedbStorage {
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if self.ended {
            return Err(StorageError::Ended);
        }
        let written = self.write(batch);
        self.ended = written.is_err();
        written
    }

    fn settle(&mut self, signed: Vec<EntryRow>) -> Result<(), StorageError> {
        if self.ended {
            return Err(StorageError::Ended);
        }
        if !signed.is_empty() {
            self.held.add(Batch::own(signed));
        }
        let settled = self.held.settle();
        self.ended = settled.is_err();
        settled
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(RedbReader { held: Arc::downgrade(&self.held), path: self.path.clone() })
    }
}

impl Drop for RedbStorage {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.take_over(&Batch::new(Durability::PeerData))
        {
            tracing::warn!(%error, "the file was not closed cleanly; nothing is lost");
        }
    }
}

impl Held {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_engine(&self, batch: Batch, through: u64) {
        let mut waiting = self.waiting();
        waiting.batches.push(batch);
        waiting.through = through;
        waiting.behind = true;
        self.any.store(true, Ordering::Release);
    }

    /// Adds a batch that the tail does not hold by itself.
    fn add(&self, batch: Batch) {
        self.waiting().batches.push(batch);
        self.any.store(true, Ordering::Release);
    }

    /// Lets the engine take over what waits; it is durable in the tail already.
    pub(super) fn settle(&self) -> Result<(), StorageError> {
        if self.any.load(Ordering::Acquire) { self.write(&Batch::new(Durability::Background)) } else { Ok(()) }
    }

    /// Writes what waits and one more batch in one transaction of the engine.
    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut waiting = self.waiting();
        if batch.is_empty() && waiting.batches.is_empty() && !waiting.behind && !waiting.ahead {
            return Ok(());
        }
        let durable = batch.durability != Durability::Background;
        let through = (durable && waiting.behind).then_some(waiting.through);
        guarded(|| write(&self.database, &waiting.batches, batch, through))?;
        waiting.batches.clear();
        waiting.behind &= !durable;
        waiting.ahead = !durable && (waiting.ahead || !batch.is_empty());
        self.any.store(false, Ordering::Release);
        Ok(())
    }
}

/// One transaction. With `through` it also says up to which record the tail is taken over, and is
/// two-phase, since the tail may hold what others chose.
fn write(database: &Database, waiting: &[Batch], batch: &Batch, through: Option<u64>) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    match batch.durability {
        Durability::Background => transaction.set_durability(redb::Durability::None)?,
        Durability::OwnEntries => transaction.set_two_phase_commit(through.is_some()),
        Durability::PeerData => transaction.set_two_phase_commit(true),
    }
    let batches = || waiting.iter().chain([batch]);
    if batches().any(|batch| !(batch.entries.is_empty() && batch.runs.is_empty() && batch.dropped.is_empty())) {
        let mut journal = transaction.open_table(JOURNAL)?;
        let packs = batches().any(|batch| !(batch.runs.is_empty() && batch.dropped.is_empty()));
        let mut packed = if packs { Some(transaction.open_table(PACKED)?) } else { None };
        for batch in batches() {
            if let Some(packed) = &mut packed {
                for place in &batch.dropped {
                    packed::open_up(&mut journal, packed, *place)?;
                    journal.remove(&place_key(place.journal, place.seq))?;
                }
                for run in &batch.runs {
                    packed::put(&mut journal, packed, run)?;
                }
            }
            for entry in &batch.entries {
                journal.insert(&place_key(entry.place.journal, entry.place.seq), entry.bytes.as_slice())?;
            }
        }
    }
    if batches().any(|batch| !batch.rows.is_empty()) {
        let mut rows = transaction.open_table(ROWS)?;
        for row in batches().flat_map(|batch| &batch.rows) {
            let key = row_key(row.rows, &row.key);
            match &row.value {
                Some(value) => rows.insert(key.as_slice(), value.as_slice())?,
                None => rows.remove(key.as_slice())?,
            };
        }
    }
    if let Some(through) = through {
        transaction.open_table(FILE)?.insert(TAIL_THROUGH_KEY, through.to_be_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Turns the engine's errors into ours, and its panics too: on a damaged file it may panic.
pub(super) fn guarded<T>(engine: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(engine))
        .unwrap_or_else(|panic| Err(redb::Error::Corrupted(panic_text(panic.as_ref()))))
        .map_err(StorageError::from)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the storage engine gave up").to_owned()
}

impl From<redb::Error> for StorageError {
    fn from(error: redb::Error) -> Self {
        if let redb::Error::Io(error) = error {
            // What these two kinds mean here: not this engine's file, or cut short.
            let damaged = matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
            return if damaged { Self::Corrupt(error.to_string()) } else { error.into() };
        }
        if matches!(error, redb::Error::PreviousIo) {
            return Self::Ended;
        }
        if matches!(error, redb::Error::DatabaseClosed) {
            return Self::Closed;
        }
        Self::Corrupt(error.to_string())
    }
}
