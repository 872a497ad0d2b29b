//! The restore marker: notices that a data folder was copied or put back from a backup, in which
//! case the device must not go on writing its old journal.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::file::sync_folder;
use super::{Batch, Durability, Reader, Rows, Storage, StorageError};

/// Binds a storage file to a small file beside it that backups leave out.
///
/// At each start call [`continuity`](Self::continuity) before anything is written. When it is
/// broken, commit the new epoch first. Then, in both cases, call [`bind`](Self::bind). A crash in
/// between costs at most one more epoch, and never hides a restore.
#[derive(Debug, Clone)]
pub struct RestoreMarker {
    data_file: PathBuf,
    marker_file: PathBuf,
}

/// Whether the stored data is where and what it was when the node last ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It is, or it was never bound before: go on.
    Same,
    /// It is not: continue in a new epoch.
    Broken {
        /// What was noticed.
        reason: Break,
    },
}

/// What shows that data was copied or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Break {
    /// The storage file is another file than the one that was bound.
    #[error("the data file is a copy of the one this device used")]
    FileCopied,
    /// The marker's nonce is not one of the file's.
    #[error("the data file is older or newer than its restore marker")]
    OtherNonce,
    /// There is no marker.
    #[error("the restore marker is missing")]
    MarkerMissing,
    /// The marker is not one of ours.
    #[error("the restore marker can't be read")]
    MarkerUnreadable,
}

/// Why continuity can't be told or renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarkerError {
    /// The stored half can't be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The marker or the data file can't be read or written.
    #[error("{} can't be used as the restore marker or its data file ({source}): check the disk and the permissions", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl RestoreMarker {
    /// The marker of `data_file`, kept in `marker_file`, which must not be in backups.
    #[must_use]
    pub fn new(data_file: impl Into<PathBuf>, marker_file: impl Into<PathBuf>) -> Self {
        Self { data_file: data_file.into(), marker_file: marker_file.into() }
    }

    /// Whether this is still the data folder that was bound last. Writes nothing.
    ///
    /// # Errors
    /// [`MarkerError`]; the node must not write then.
    pub fn continuity(&self, reader: &dyn Reader) -> Result<Continuity, MarkerError> {
        let Some(stored) = reader.row(Rows::Marker, ROW_KEY)? else {
            return Ok(Continuity::Same);
        };
        let Some(bound) = Bound::from_bytes(&stored) else {
            return Err(StorageError::Corrupt("the restore marker's row".to_owned()).into());
        };
        if bound.identity != self.identity()? {
            return Ok(Continuity::Broken { reason: Break::FileCopied });
        }
        let reason = match self.read_marker()? {
            MarkerFile::Holds(nonce) if nonce == bound.current || nonce == bound.previous => {
                return Ok(Continuity::Same);
            }
            MarkerFile::Holds(_) => Break::OtherNonce,
            MarkerFile::Missing => Break::MarkerMissing,
            MarkerFile::Unreadable => Break::MarkerUnreadable,
        };
        Ok(Continuity::Broken { reason })
    }

    /// Binds the data file to a fresh nonce, random, from the caller: the file first, holding what
    /// the marker says now as well, then the marker. A crash in between leaves them matching.
    ///
    /// # Errors
    /// [`MarkerError`].
    pub fn bind(&self, storage: &mut dyn Storage, nonce: Nonce) -> Result<(), MarkerError> {
        self.bind_row(storage, nonce)?;
        self.write_marker(nonce).map_err(|source| MarkerError::Io { path: self.marker_file.clone(), source })
    }

    fn bind_row(&self, storage: &mut dyn Storage, nonce: Nonce) -> Result<(), MarkerError> {
        let previous = match self.read_marker()? {
            MarkerFile::Holds(nonce) => nonce,
            MarkerFile::Missing | MarkerFile::Unreadable => nonce,
        };
        let bound = Bound { previous, current: nonce, identity: self.identity()? };
        let mut batch = Batch::new(Durability::OwnEntries);
        batch.put(Rows::Marker, ROW_KEY, bound.to_bytes());
        Ok(storage.commit(&batch)?)
    }

    fn identity(&self) -> Result<Vec<u8>, MarkerError> {
        let metadata = std::fs::metadata(&self.data_file);
        let metadata = metadata.map_err(|source| MarkerError::Io { path: self.data_file.clone(), source })?;
        Ok(identity_of(&metadata))
    }

    fn read_marker(&self) -> Result<MarkerFile, MarkerError> {
        let io_error = |source| MarkerError::Io { path: self.marker_file.clone(), source };
        let file = match File::open(&self.marker_file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(MarkerFile::Missing);
            }
            Err(error) => return Err(io_error(error)),
        };
        let mut text = Vec::new();
        file.take(MARKER_BYTES_MAX).read_to_end(&mut text).map_err(io_error)?;
        Ok(MarkerFile::parse(&text))
    }

    fn write_marker(&self, nonce: Nonce) -> io::Result<()> {
        let folder =
            self.marker_file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".restore-marker-").tempfile_in(folder)?;
        writeln!(file, "{MARKER_HEAD}{}", data_encoding::HEXLOWER.encode(&nonce))?;
        file.as_file().sync_all()?;
        file.persist(&self.marker_file)?;
        sync_folder(folder)
    }
}

/// A random number that is never used twice.
pub type Nonce = [u8; NONCE_BYTES];

const NONCE_BYTES: usize = 16;
const ROW_KEY: &[u8] = b"bound";
const MARKER_BYTES_MAX: u64 = 256;
const MARKER_HEAD: &str = "tillmesh restore marker, leave it out of backups: ";

enum MarkerFile {
    Holds(Nonce),
    Missing,
    Unreadable,
}

impl MarkerFile {
    fn parse(text: &[u8]) -> Self {
        let nonce = std::str::from_utf8(text).ok().and_then(|text| {
            let digits = text.strip_prefix(MARKER_HEAD)?.trim_end();
            data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
        });
        nonce.map_or(Self::Unreadable, Self::Holds)
    }
}

/// The file's half: previous and current nonce, then the identity.
struct Bound {
    previous: Nonce,
    current: Nonce,
    identity: Vec<u8>,
}

impl Bound {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.previous[..], &self.current[..], &self.identity].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (previous, rest) = bytes.split_first_chunk()?;
        let (current, identity) = rest.split_first_chunk()?;
        Some(Self { previous: *previous, current: *current, identity: identity.to_vec() })
    }
}

/// What tells a file from its copy: inode number and birth time, each as 16 bytes. Where there is
/// no birth time the device number stands in for it; where there is one, the device number is left
/// out, because some systems number their devices anew at each boot.
fn identity_of(metadata: &Metadata) -> Vec<u8> {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let (inode, device) = inode_and_device(metadata);
    let second = born.map_or(u128::from(device), |born| born.as_nanos());
    [u128::from(inode).to_be_bytes(), second.to_be_bytes()].concat()
}

#[cfg(unix)]
fn inode_and_device(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino(), metadata.dev())
}

#[cfg(not(unix))]
fn inode_and_device(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::RedbStorage;

    const SAME: Continuity = Continuity::Same;

    fn broken(reason: Break) -> Continuity {
        Continuity::Broken { reason }
    }

    /// A till's data folder.
    struct Folder {
        path: PathBuf,
        // Holds the folder until the test ends.
        _parent: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("till");
            std::fs::create_dir(&path).unwrap();
            drop(RedbStorage::create(&path.join("journal.redb"), [0; 16]).unwrap());
            Self { path, _parent: parent }
        }

        fn marker(&self) -> RestoreMarker {
            marker_in(&self.path)
        }

        fn file(&self) -> RedbStorage {
            RedbStorage::open(&self.path.join("journal.redb")).unwrap()
        }

        /// A start: what is noticed, then a fresh nonce.
        fn start(&self, nonce: u8) -> Continuity {
            let mut file = self.file();
            let noticed = self.marker().continuity(file.reader().as_ref()).unwrap();
            self.marker().bind(&mut file, [nonce; 16]).unwrap();
            noticed
        }
    }

    fn marker_in(folder: &Path) -> RestoreMarker {
        RestoreMarker::new(folder.join("journal.redb"), folder.join("restore-marker"))
    }

    #[test]
    fn a_till_that_starts_again_goes_on() {
        let folder = Folder::new();
        for nonce in 1..5 {
            assert_eq!(folder.start(nonce), SAME, "start {nonce}");
        }
    }

    #[test]
    fn a_copied_folder_is_noticed() {
        let folder = Folder::new();
        assert_eq!(folder.start(1), SAME);
        let copy = folder.path.with_file_name("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in ["journal.redb", "restore-marker"] {
            std::fs::copy(folder.path.join(name), copy.join(name)).unwrap();
        }
        let file = RedbStorage::open(&copy.join("journal.redb")).unwrap();
        let noticed = marker_in(&copy).continuity(file.reader().as_ref()).unwrap();
        assert_eq!(noticed, broken(Break::FileCopied));
        assert_eq!(folder.start(2), SAME, "the original goes on");
    }

    #[test]
    fn an_older_file_put_back_in_place_is_noticed() {
        let folder = Folder::new();
        folder.start(1);
        let path = folder.path.join("journal.redb");
        let backup = std::fs::read(&path).unwrap();
        folder.start(2);
        folder.start(3);
        // Written into the same file, so that inode and birth time stay.
        std::fs::write(&path, backup).unwrap();
        assert_eq!(folder.start(4), broken(Break::OtherNonce));
        assert_eq!(folder.start(5), SAME, "bound again, it goes on");
    }

    #[test]
    fn a_crash_between_the_two_halves_is_no_restore() {
        let folder = Folder::new();
        folder.start(1);
        for nonce in 2..5 {
            let mut file = folder.file();
            assert_eq!(folder.marker().continuity(file.reader().as_ref()).unwrap(), SAME, "crash {nonce}");
            folder.marker().bind_row(&mut file, [nonce; 16]).unwrap();
        }
        assert_eq!(folder.start(5), SAME);
        assert_eq!(folder.start(6), SAME);
    }

    #[test]
    fn a_crash_at_the_first_start_costs_an_epoch_at_most() {
        let folder = Folder::new();
        folder.marker().bind_row(&mut folder.file(), [1; 16]).unwrap();
        assert_eq!(folder.start(2), broken(Break::MarkerMissing));
        assert_eq!(folder.start(3), SAME);
    }

    #[test]
    fn a_marker_that_is_gone_or_garbled_is_noticed() {
        let folder = Folder::new();
        folder.start(1);
        let marker = folder.path.join("restore-marker");
        std::fs::remove_file(&marker).unwrap();
        assert_eq!(folder.start(2), broken(Break::MarkerMissing));
        std::fs::write(&marker, "not a marker").unwrap();
        assert_eq!(folder.start(3), broken(Break::MarkerUnreadable));
        assert_eq!(folder.start(4), SAME);
    }
}
