//! Runs in one piece, as a frame brought them: so they are stored, and so they are sent on.

use super::codec::{CodecError, Run, decode_block};
use super::message::Message;
use crate::entry::{Entry, Mark};
use crate::ids::{EntryHash, JournalId};
use crate::journal::JournalInfo;

/// Shorter runs are stored entry by entry: a block of few entries saves little.
pub const PACK_ENTRIES_MIN: usize = 64;

/// A verified run, still as the block of the frame that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRun {
    /// The journal.
    pub journal: JournalId,
    /// The sequence number of the first entry.
    pub first: u64,
    /// The sequence number of the last entry.
    pub last: u64,
    /// The hash of the last entry, which its author signed.
    pub head: EntryHash,
    /// A block with this one run.
    pub block: Vec<u8>,
}

impl PackedRun {
    /// The frame that brings it to a peer; `info` introduces its journal.
    ///
    /// # Errors
    /// A [`CodecError`] if the block is not the run that it should be.
    pub fn to_frame(&self, info: Option<JournalInfo>) -> Result<Vec<u8>, CodecError> {
        match info {
            None => Ok(Message::entries_frame(&self.block)),
            Some(_) => Ok(Message::Entries(vec![Run { info, ..self.run()? }]).to_frame()),
        }
    }

    /// The entries, the last one with its mark.
    ///
    /// # Errors
    /// A [`CodecError`] if the block is not the run that it should be.
    pub fn unpack(&self) -> Result<Vec<Entry>, CodecError> {
        let mut run = self.run()?;
        if let Some(entry) = run.entries.last_mut() {
            entry.mark = Some(Mark { hash: self.head, signature: run.signature });
        }
        Ok(run.entries)
    }

    fn run(&self) -> Result<Run, CodecError> {
        let mut runs = decode_block(&self.block)?;
        let (Some(run), true) = (runs.pop(), runs.is_empty()) else {
            return Err(CodecError::Malformed("it is not one run".to_owned()));
        };
        let last = run.start.saturating_add(run.entries.len() as u64).saturating_sub(1);
        if (run.journal, run.start, last) != (self.journal, self.first, self.last) {
            return Err(CodecError::Malformed("it is another run".to_owned()));
        }
        Ok(run)
    }
}
