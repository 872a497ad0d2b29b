//! What can go wrong with stored data, and what a person or the node does about it.

use std::io;
use std::path::PathBuf;

/// Why reading or writing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No space is left.
    #[error("the disk is full: free some space and start the node again; everything acknowledged is kept")]
    Full,
    /// The disk or the operating system failed.
    #[error("the disk failed ({0}): check it and start the node again; everything acknowledged is kept")]
    Io(#[source] io::Error),
    /// The file is damaged.
    #[error("the stored data is damaged ({0}): stop the node, keep the file, and join again from the relay")]
    Corrupt(String),
    /// An earlier write failed.
    #[error("an earlier write failed, so nothing more is written: start the node again")]
    Ended,
    /// The storage was closed.
    #[error("the storage is closed: open it again")]
    Closed,
    /// Something is larger than anything the node makes.
    #[error("{what} of {bytes} bytes is over the limit of {bytes_max}: nothing was written")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// Why a file can't be created or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("{} does not exist: run init or join first", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is such a file already.
    #[error("{} exists already: open it, or choose another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{} is held by a running node: talk to that node, or stop it first", path.display())]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// A newer tillmesh wrote it.
    #[error("{} has format {found}, this version reads up to format {known}: use a newer tillmesh", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// It is damaged, or something else altogether.
    #[error(
        "{} can't be read ({detail}): keep the file, and get the data back by joining again from the relay into another folder",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// No space is left.
    #[error("the disk of {} is full: free some space and try again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk or the operating system failed.
    #[error("{} can't be opened ({source}): check the disk and the permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
