//! Opening a file to import: plain or gzip by its first bytes, with how much of it is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use super::reader::{HeaderError, Reader};

/// How far the reading is, in bytes of the file as it lies on disk. Cheap to clone and to ask
/// from another thread.
#[derive(Debug, Clone)]
pub struct Progress {
    bytes_total: Option<u64>,
    bytes_read: Arc<AtomicU64>,
}

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("cannot open {}; check the path and that you may read it: {source}", path.display())]
    Unopened { path: PathBuf, source: io::Error },
    #[error("{} is a folder; name the .csv or .csv.gz file in it", path.display())]
    Folder { path: PathBuf },
    #[error("{} is a spreadsheet or ZIP archive; save or unpack it as CSV", path.display())]
    Archive { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Header { path: PathBuf, source: HeaderError },
}

/// A file's text, unpacked if need be.
#[derive(Debug)]
pub struct Source {
    packing: Packing,
}

/// Opens `path` and reads its header; gzip is known by its first bytes, whatever the name.
///
/// # Errors
/// A file that cannot be opened, or whose header is not the format's.
pub fn open(path: &Path) -> Result<(Reader<Source>, Progress), OpenError> {
    let unopened = |source| OpenError::Unopened { path: path.to_owned(), source };
    let file = File::open(path).map_err(unopened)?;
    let metadata = file.metadata().map_err(unopened)?;
    if metadata.is_dir() {
        return Err(OpenError::Folder { path: path.to_owned() });
    }

    let progress = Progress { bytes_total: metadata.is_file().then_some(metadata.len()), bytes_read: Arc::default() };
    let mut counted = BufReader::new(Counted { file, bytes_read: Arc::clone(&progress.bytes_read) });
    let first_bytes = counted.fill_buf().map_err(unopened)?;
    if first_bytes.starts_with(ZIP_MAGIC) {
        return Err(OpenError::Archive { path: path.to_owned() });
    }
    let packing = if first_bytes.starts_with(GZIP_MAGIC) {
        Packing::Gzip(Box::new(MultiGzDecoder::new(counted)))
    } else {
        Packing::Plain(counted)
    };
    let reader =
        Reader::new(Source { packing }).map_err(|source| OpenError::Header { path: path.to_owned(), source })?;
    Ok((reader, progress))
}

impl Progress {
    /// `None` for what has no length, such as a pipe.
    pub fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.packing {
            Packing::Plain(file) => file.read(buffer),
            Packing::Gzip(unpacked) => unpacked.read(buffer),
        }
    }
}

#[derive(Debug)]
enum Packing {
    Plain(BufReader<Counted>),
    Gzip(Box<MultiGzDecoder<BufReader<Counted>>>),
}

#[derive(Debug)]
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes_read.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(read)
    }
}

const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
