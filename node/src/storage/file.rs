//! Creating and opening a storage file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use super::device::BehindTail;
use super::error::is_full;
use super::redb::guarded;
use super::tables::{
    FILE, FILE_ID_KEY, FORMAT_KEY, FORMAT_VERSION, JOURNAL, PACKED, ROWS, TAIL_KEY_KEY, TAIL_THROUGH_KEY,
};
use super::tail::{TAIL_BYTES, Tail, TailKey};
use super::{OpenError, RedbStorage, StorageError};

/// Memory for the engine's pages. Its own default of 1 GiB is more than many tills have; entries
/// are appended and mostly read once, so a small cache loses little.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

impl RedbStorage {
    /// Creates the file at `path`, under a temporary name until its first contents are durable.
    ///
    /// `file_id` is random, from the caller.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(path: &Path, file_id: [u8; 16]) -> Result<Self, OpenError> {
        let io_error = |source| open_io_error(path, source);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.try_exists().map_err(io_error)? {
            return Err(OpenError::Exists { path: path.to_owned() });
        }
        let file =
            tempfile::Builder::new().prefix(".tillmesh-").suffix(".new").tempfile_in(folder).map_err(io_error)?;
        let storage_error = |error| storage_open_error(path, error);
        let tail_key = crate::folder::random().map_err(|error| io_error(io::Error::other(error)))?;
        let handle = file.reopen().map_err(io_error)?;
        guarded(|| create_on(Arc::new(FileBackend::new(handle)?), file_id, tail_key)).map_err(storage_error)?;
        file.as_file().sync_all().map_err(io_error)?;
        file.persist_noclobber(path).map_err(|failed| {
            if failed.error.kind() == io::ErrorKind::AlreadyExists {
                return OpenError::Exists { path: path.to_owned() };
            }
            open_io_error(path, failed.error)
        })?;
        sync_folder(folder).map_err(io_error)?;
        Self::open(path)
    }

    /// Opens the file at `path`. After a crash the engine checks all of it: about 60 ms a
    /// 100 MB that the system has cached, more from a slow disk.
    ///
    /// # Errors
    /// [`OpenError`]. The file is never deleted, whatever is wrong with it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() == 0 => {
                // The engine would take it for a new one.
                return Err(OpenError::Corrupt { path: path.to_owned(), detail: "it is empty".to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(open_io_error(path, error)),
        }
        let file = File::options().read(true).write(true).open(path).map_err(|source| open_io_error(path, source))?;
        let opened = guarded_open(|| Ok(Arc::new(FileBackend::new(file)?)));
        let device = opened.map_err(|error| error.at(path))?;
        Self::open_on(device, path)
    }

    /// Opens what [`create_on`] made.
    pub(super) fn open_on(device: Arc<dyn StorageBackend>, path: &Path) -> Result<Self, OpenError> {
        let bytes = device.len().map_err(|source| open_io_error(path, source))?;
        if bytes <= TAIL_BYTES {
            // The engine would make a new database of nothing.
            let detail = format!("it has only {bytes} bytes");
            return Err(OpenError::Corrupt { path: path.to_owned(), detail });
        }
        let engine = BehindTail(Arc::clone(&device));
        let database = guarded_open(|| builder().create_with_backend(engine)).map_err(|error| error.at(path))?;
        Self::of_checked(database, device, path)
    }

    fn of_checked(database: Database, device: Arc<dyn StorageBackend>, path: &Path) -> Result<Self, OpenError> {
        let storage_error = |error| storage_open_error(path, error);
        let first = guarded(|| read_first_contents(&database)).map_err(storage_error)?;
        let corrupt = |detail: &str| OpenError::Corrupt { path: path.to_owned(), detail: detail.to_owned() };
        let format: [u8; 4] = first.format.try_into().map_err(|_| corrupt("its format version is missing"))?;
        let found = u32::from_be_bytes(format);
        if found > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: FORMAT_VERSION });
        }
        if found == 0 {
            return Err(corrupt("its format version is 0"));
        }
        let file_id: [u8; 16] = first.file_id.try_into().map_err(|_| corrupt("its id is missing"))?;
        let tail_key = first.tail_key.try_into().map_err(|_| corrupt("its tail's key is missing"))?;
        let through = first.tail_through.try_into().map_err(|_| corrupt("its tail's number is missing"))?;
        let tail =
            Tail::open(device, tail_key, u64::from_be_bytes(through)).map_err(|source| open_io_error(path, source))?;
        Self::of_database(database, tail, path.to_owned(), file_id).map_err(storage_error)
    }
}

/// Makes an empty storage on a device: room for the tail, then the engine with all its tables.
pub(super) fn create_on(
    device: Arc<dyn StorageBackend>,
    file_id: [u8; 16],
    tail_key: TailKey,
) -> Result<(), redb::Error> {
    // Written, not only reserved: a write over it needs no new blocks and so no more than one sync.
    device.set_len(TAIL_BYTES)?;
    device.write(0, &vec![0; usize::try_from(TAIL_BYTES).unwrap_or_default()])?;
    let database = builder().create_with_backend(BehindTail(device))?;
    write_first_contents(&database, file_id, tail_key)?;
    Ok(database.close()?)
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|session| {
        if session.progress() == 0.0 {
            tracing::warn!("the storage file was not closed cleanly: checking it");
        }
    });
    builder
}

/// The format version, the file's id and all tables, so that a reader finds them from the start.
fn write_first_contents(database: &Database, file_id: [u8; 16], tail_key: TailKey) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    {
        let mut file = transaction.open_table(FILE)?;
        file.insert(FORMAT_KEY, FORMAT_VERSION.to_be_bytes().as_slice())?;
        file.insert(FILE_ID_KEY, file_id.as_slice())?;
        file.insert(TAIL_KEY_KEY, tail_key.as_slice())?;
        file.insert(TAIL_THROUGH_KEY, 0_u64.to_be_bytes().as_slice())?;
        transaction.open_table(JOURNAL)?;
        transaction.open_table(PACKED)?;
        transaction.open_table(ROWS)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What the file says of itself, as it is there.
struct FirstContents {
    format: Vec<u8>,
    file_id: Vec<u8>,
    tail_key: Vec<u8>,
    tail_through: Vec<u8>,
}

fn read_first_contents(database: &Database) -> Result<FirstContents, redb::Error> {
    let file = database.begin_read()?.open_table(FILE)?;
    let read = |key| Ok::<_, redb::Error>(file.get(key)?.map(|value| value.value().to_vec()).unwrap_or_default());
    Ok(FirstContents {
        format: read(FORMAT_KEY)?,
        file_id: read(FILE_ID_KEY)?,
        tail_key: read(TAIL_KEY_KEY)?,
        tail_through: read(TAIL_THROUGH_KEY)?,
    })
}

enum EngineOpenError {
    Held,
    Storage(StorageError),
}

impl EngineOpenError {
    fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Held => OpenError::Held { path: path.to_owned() },
            Self::Storage(error) => storage_open_error(path, error),
        }
    }
}

fn guarded_open<T>(open: impl FnOnce() -> Result<T, redb::DatabaseError>) -> Result<T, EngineOpenError> {
    let mut held = false;
    let opened = guarded(|| {
        open().map_err(|error| {
            held =
                matches!(error, redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch);
            error.into()
        })
    });
    opened.map_err(|error| if held { EngineOpenError::Held } else { EngineOpenError::Storage(error) })
}

fn storage_open_error(path: &Path, error: StorageError) -> OpenError {
    match error {
        StorageError::Full => OpenError::Full { path: path.to_owned() },
        StorageError::Io(source) => OpenError::Io { path: path.to_owned(), source },
        StorageError::Corrupt(detail) => OpenError::Corrupt { path: path.to_owned(), detail },
        StorageError::Ended | StorageError::Closed | StorageError::TooLarge { .. } => {
            OpenError::Io { path: path.to_owned(), source: io::Error::other(error.to_string()) }
        }
    }
}

fn open_io_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    if is_full(&source) { OpenError::Full { path } } else { OpenError::Io { path, source } }
}

/// Makes a new name in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::storage::rig::{Contents, Seeded, contents_of, random_batch};
    use crate::storage::{Durability, Storage};

    fn till() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.redb");
        (folder, path)
    }

    fn sold_a_little(path: &Path) -> Contents {
        let mut storage = RedbStorage::create(path, [9; 16]).unwrap();
        let mut contents = Contents::default();
        let mut seeded = Seeded::new(5);
        for _ in 0..40 {
            let mut batch = random_batch(&mut seeded);
            batch.durability = Durability::PeerData;
            storage.commit(&batch).unwrap();
            contents.apply(&batch);
        }
        contents
    }

    #[test]
    fn a_file_is_created_once_and_leaves_nothing_beside_it() {
        let (folder, path) = till();
        let storage = RedbStorage::create(&path, [9; 16]).unwrap();
        assert_eq!(storage.file_id(), [9; 16]);
        drop(storage);
        assert!(matches!(RedbStorage::create(&path, [8; 16]), Err(OpenError::Exists { .. })));
        assert_eq!(RedbStorage::open(&path).unwrap().file_id(), [9; 16]);
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["journal.redb"]);
    }

    #[test]
    fn a_file_that_is_missing_is_not_made_up() {
        let (_folder, path) = till();
        assert!(matches!(RedbStorage::open(&path), Err(OpenError::Missing { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_held_says_so() {
        let (_folder, path) = till();
        let holder = RedbStorage::create(&path, [9; 16]).unwrap();
        let refused = RedbStorage::open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Held { .. }), "{refused}");
        drop(holder);
        RedbStorage::open(&path).unwrap();
    }

    #[test]
    fn a_newer_format_is_named_with_our_own() {
        let (_folder, path) = till();
        drop(RedbStorage::create(&path, [9; 16]).unwrap());
        let device = FileBackend::new(File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        let database = builder().create_with_backend(BehindTail(Arc::new(device))).unwrap();
        let transaction = database.begin_write().unwrap();
        let newer = (FORMAT_VERSION + 1).to_be_bytes();
        transaction.open_table(FILE).unwrap().insert(FORMAT_KEY, newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let refused = RedbStorage::open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::NewerFormat { found: 2, known: 1, .. }));
        assert!(refused.to_string().ends_with("has format 2, this version reads up to format 1: use a newer tillmesh"));
    }

    #[test]
    fn what_is_no_storage_file_is_refused_and_left_alone() {
        let (_folder, path) = till();
        let whole = {
            sold_a_little(&path);
            std::fs::read(&path).unwrap()
        };
        let empty = Vec::new();
        let text = b"sku,quantity\nBREAD,2\n".repeat(500);
        let zeros = vec![0; 1 << 20];
        let head_only = whole[..4096].to_vec();
        let half = whole[..whole.len() / 2].to_vec();
        for (what, bytes) in [("empty", empty), ("text", text), ("zeros", zeros), ("head", head_only), ("half", half)] {
            std::fs::write(&path, &bytes).unwrap();
            let refused = RedbStorage::open(&path).unwrap_err();
            assert!(matches!(refused, OpenError::Corrupt { .. }), "{what}: {refused}");
            assert!(refused.to_string().contains("joining again from the relay"), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what} was changed");
        }
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let (_folder, path) = till();
        drop(builder().create(&path).unwrap());
        assert!(matches!(RedbStorage::open(&path), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn damage_anywhere_gives_an_answer_and_never_a_panic() {
        let (_folder, path) = till();
        let contents = sold_a_little(&path);
        let whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let mut noticed = 0;
        for seed in 0..150 {
            let mut seeded = Seeded::new(seed);
            let mut damaged = whole.clone();
            let bytes = [1, 64, 4096][usize::try_from(seeded.below(3)).unwrap()];
            // Half of the damage goes where the file's own description is.
            let limit = if seeded.below(2) == 0 { 512 } else { used - TAIL_BYTES };
            let from = usize::try_from(TAIL_BYTES + seeded.below(limit)).unwrap();
            for byte in damaged.iter_mut().skip(from).take(bytes) {
                *byte = seeded.next().to_le_bytes()[0];
            }
            std::fs::write(&path, &damaged).unwrap();
            let read = match RedbStorage::open(&path) {
                Ok(mut storage) => {
                    let read = contents_of(storage.reader().as_ref()).ok();
                    // Whatever it answers, it answers.
                    drop(storage.commit(&random_batch(&mut seeded)));
                    read
                }
                Err(_) => None,
            };
            noticed += usize::from(read.as_ref() != Some(&contents));
            assert!(path.exists(), "seed {seed}");
        }
        assert!(noticed > 30, "only {noticed} of 150 had any effect: the damage is not where the data is");
    }
}
