//! The messages of a session, and their bytes. One message is one frame.

use minicbor::{Decode, Encode};

use super::codec::{CodecError, Run, decode_block, encode_block};
use crate::frontier::{FRONTIER_ROWS_MAX, Frontier, FrontierRow};
use crate::ids::{BusinessId, EntryHash, JournalId, ShortHash};
use crate::record::Certificate;

/// The version of the session protocol. Devices of different versions say so and part.
pub const PROTOCOL_VERSION: u32 = 1;
/// The largest frame of a session.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024 + 4096;
/// Frontiers of more journals than this are first compared by digest alone.
pub const FRONTIER_ROWS_AT_ONCE: usize = 64;
/// The most checkpoints of a forked journal in one message.
pub const CHECKPOINTS_MAX: usize = 256;

/// What one device says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message each way: who I am.
    Hello(Hello),
    /// What I hold; please send what I lack.
    Frontier(Asking),
    /// What has become durable here since.
    Have(Vec<FrontierRow>),
    /// Entries.
    Entries(Vec<Run>),
    /// Our copies of a journal differ: hashes of mine, to find where.
    Checkpoints(Checkpoints),
    /// Please send your branch of a forked journal, from the last entry that we share.
    SendBranch(BranchPoint),
    /// A branch of a forked journal.
    Branch(BranchPoint, Box<Run>),
    /// I end the session, and why.
    Bye(Bye),
}

/// The first message each way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    #[n(0)]
    pub version: u32,
    /// The business.
    #[n(1)]
    pub business: BusinessId,
    /// The sender's certificate.
    #[n(2)]
    pub certificate: Certificate,
}

/// A frontier, and what is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Asking {
    /// The digest of the whole frontier.
    #[n(0)]
    pub digest: ShortHash,
    /// The frontier, unless it is long and only the digest is to be compared.
    #[n(1)]
    pub frontier: Option<Frontier>,
    /// Journals that another link is bringing.
    #[n(2)]
    pub skip: Vec<JournalId>,
}

/// Hashes of signed entries of one journal, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoints {
    /// The journal.
    #[n(0)]
    pub journal: JournalId,
    /// Sequence numbers and hashes.
    #[n(1)]
    pub hashes: Vec<(u64, ShortHash)>,
}

/// The last entry of a journal that two replicas are known to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BranchPoint {
    /// The journal.
    #[n(0)]
    pub journal: JournalId,
    /// The shared entry.
    #[n(1)]
    pub seq: u64,
    /// Its hash.
    #[n(2)]
    pub hash: EntryHash,
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Bye {
    /// Which reason, for programs.
    #[n(0)]
    pub code: ByeCode,
    /// The same for people.
    #[n(1)]
    pub reason: String,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ByeCode {
    /// Different protocol versions.
    #[n(0)]
    Version,
    /// Not a member of this business.
    #[n(1)]
    NotEnrolled,
    /// A message that breaks the protocol.
    #[n(2)]
    Protocol,
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not a message of this version.
    #[error("the message can't be read: {0}")]
    Malformed(String),
    /// Its entries can't be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<minicbor::decode::Error> for MessageError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

const HELLO: u8 = 1;
const FRONTIER: u8 = 2;
const HAVE: u8 = 3;
const ENTRIES: u8 = 4;
const CHECKPOINTS: u8 = 5;
const SEND_BRANCH: u8 = 6;
const BRANCH: u8 = 7;
const BYE: u8 = 8;

impl Message {
    /// The frame's bytes.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Hello(hello) => (HELLO, cbor(hello)),
            Self::Frontier(asking) => (FRONTIER, cbor(asking)),
            Self::Have(rows) => (HAVE, cbor(rows)),
            Self::Entries(runs) => (ENTRIES, encode_block(runs)),
            Self::Checkpoints(checkpoints) => (CHECKPOINTS, cbor(checkpoints)),
            Self::SendBranch(point) => (SEND_BRANCH, cbor(point)),
            Self::Branch(point, run) => {
                let block = encode_block(std::slice::from_ref(run));
                (BRANCH, [cbor(point), block].concat())
            }
            Self::Bye(bye) => (BYE, cbor(bye)),
        };
        let mut frame = Vec::with_capacity(body.len() + 1);
        frame.push(tag);
        frame.extend_from_slice(&body);
        frame
    }

    /// Reads a frame. The transport has bounded its length.
    ///
    /// # Errors
    /// A [`MessageError`].
    pub fn from_frame(frame: &[u8]) -> Result<Self, MessageError> {
        let (tag, body) = frame.split_first().ok_or_else(|| MessageError::Malformed("an empty frame".to_owned()))?;
        let message = match *tag {
            HELLO => Self::Hello(minicbor::decode(body)?),
            FRONTIER => {
                let asking: Asking = minicbor::decode(body)?;
                let rows = asking.frontier.as_ref().map_or(0, |frontier| frontier.0.len());
                bounded(rows.max(asking.skip.len()), FRONTIER_ROWS_MAX)?;
                Self::Frontier(asking)
            }
            HAVE => {
                let rows: Vec<FrontierRow> = minicbor::decode(body)?;
                bounded(rows.len(), FRONTIER_ROWS_MAX)?;
                Self::Have(rows)
            }
            ENTRIES => Self::Entries(decode_block(body)?),
            CHECKPOINTS => {
                let checkpoints: Checkpoints = minicbor::decode(body)?;
                bounded(checkpoints.hashes.len(), CHECKPOINTS_MAX)?;
                Self::Checkpoints(checkpoints)
            }
            SEND_BRANCH => Self::SendBranch(minicbor::decode(body)?),
            BRANCH => {
                let mut decoder = minicbor::Decoder::new(body);
                let point: BranchPoint = decoder.decode()?;
                let mut runs = decode_block(body.get(decoder.position()..).unwrap_or_default())?;
                match (runs.pop(), runs.is_empty()) {
                    (Some(run), true) => Self::Branch(point, Box::new(run)),
                    _ => return Err(MessageError::Malformed("a branch is one run".to_owned())),
                }
            }
            BYE => Self::Bye(minicbor::decode(body)?),
            other => return Err(MessageError::Malformed(format!("unknown kind {other}"))),
        };
        Ok(message)
    }
}

fn cbor<T: Encode<()>>(value: T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}

fn bounded(count: usize, limit: usize) -> Result<(), MessageError> {
    if count > limit {
        return Err(MessageError::Malformed(format!("more than {limit} rows")));
    }
    Ok(())
}
