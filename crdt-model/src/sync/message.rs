//! The messages of a session, and their bytes. One message is one frame.

use minicbor::{Decode, Encode};

use super::codec::{CodecError, Run, decode_block, encode_block};
use super::compact::{COMPACT_BYTES_MAX, Compact, JournalRef};
use super::holding::{HOLDINGS_MAX, Holding, HoldingsKnown};
use crate::frontier::{FRONTIER_ROWS_MAX, Frontier};
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
    /// What has become durable here since: journals, and how far each is held.
    Have(Vec<(JournalRef, u64)>),
    /// Entries.
    Entries(Vec<Run>),
    /// A few entries that follow what the receiver holds.
    Compact(Compact),
    /// Our copies of a journal differ: hashes of mine, to find where.
    Checkpoints(Checkpoints),
    /// Please send your branch of a forked journal, from the last entry that we share.
    SendBranch(BranchPoint),
    /// A branch of a forked journal.
    Branch(BranchPoint, Box<Run>),
    /// I end the session, and why.
    Bye(Bye),
    /// Some device's signed word for what it holds.
    Holding(Box<Holding>),
    /// Which of those words I have.
    HoldingsKnown(HoldingsKnown),
    /// Please sign for what you hold, now.
    SignPlease,
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
/// A compact run of a journal of the sender's.
const LIVE: u8 = 9;
/// A compact run of any journal.
const CARRIED: u8 = 10;
/// How far one of the receiver's own journals is held.
const HAVE_YOURS: u8 = 11;
const HOLDING: u8 = 12;
const HOLDINGS_KNOWN: u8 = 13;
const SIGN_PLEASE: u8 = 14;

impl Message {
    /// The frame's bytes.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Hello(hello) => (HELLO, cbor(hello)),
            Self::Frontier(asking) => (FRONTIER, cbor(asking)),
            Self::Have(rows) => have_frame(rows),
            Self::Compact(run) => {
                let tag = if matches!(run.journal, JournalRef::OfEnd(_)) { LIVE } else { CARRIED };
                (tag, [&[run.last][..], run.journal.as_slice(), &run.signature, &run.packed].concat())
            }
            Self::Entries(runs) => (ENTRIES, encode_block(runs)),
            Self::Checkpoints(checkpoints) => (CHECKPOINTS, cbor(checkpoints)),
            Self::SendBranch(point) => (SEND_BRANCH, cbor(point)),
            Self::Branch(point, run) => {
                let block = encode_block(std::slice::from_ref(run));
                (BRANCH, [cbor(point), block].concat())
            }
            Self::Bye(bye) => (BYE, cbor(bye)),
            Self::Holding(holding) => (HOLDING, cbor(holding)),
            Self::HoldingsKnown(known) => (HOLDINGS_KNOWN, cbor(known)),
            Self::SignPlease => (SIGN_PLEASE, Vec::new()),
        };
        let mut frame = Vec::with_capacity(body.len() + 1);
        frame.push(tag);
        frame.extend_from_slice(&body);
        frame
    }

    /// The frame of a block of entries.
    #[must_use]
    pub fn entries_frame(block: &[u8]) -> Vec<u8> {
        [&[ENTRIES], block].concat()
    }

    /// The block of a frame of entries.
    #[must_use]
    pub fn block(frame: &[u8]) -> Option<&[u8]> {
        frame.split_first().filter(|(tag, _)| **tag == ENTRIES).map(|(_, block)| block)
    }

    /// Whether a frame may come from a stranger: nothing else of it is read before.
    #[must_use]
    pub fn is_greeting(frame: &[u8]) -> bool {
        matches!(frame.first(), Some(&(HELLO | BYE)))
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
            HAVE => Self::Have(have_rows(body)?),
            HAVE_YOURS => {
                let (prefix, rest) = cut::<2>(body)?;
                let (high, rest) = take_number(rest)?;
                bounded(rest.len(), 0)?;
                Self::Have(vec![(JournalRef::OfEnd(prefix), high)])
            }
            LIVE => {
                let ([last], rest) = cut::<1>(body)?;
                let (prefix, rest) = cut::<2>(rest)?;
                Self::Compact(compact(last, JournalRef::OfEnd(prefix), rest)?)
            }
            CARRIED => {
                let ([last], rest) = cut::<1>(body)?;
                let (prefix, rest) = cut::<8>(rest)?;
                Self::Compact(compact(last, JournalRef::Any(prefix), rest)?)
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
            HOLDING => Self::Holding(Box::new(minicbor::decode(body)?)),
            HOLDINGS_KNOWN => {
                let known: HoldingsKnown = minicbor::decode(body)?;
                bounded(known.numbers.as_ref().map_or(0, Vec::len), HOLDINGS_MAX)?;
                Self::HoldingsKnown(known)
            }
            SIGN_PLEASE => Self::SignPlease,
            other => return Err(MessageError::Malformed(format!("unknown kind {other}"))),
        };
        Ok(message)
    }
}

/// One journal of the receiver's, or any journals by longer names.
fn have_frame(rows: &[(JournalRef, u64)]) -> (u8, Vec<u8>) {
    let tag = if matches!(rows, [(JournalRef::OfEnd(_), _)]) { HAVE_YOURS } else { HAVE };
    let mut body = Vec::with_capacity(12 * rows.len());
    for (journal, high) in rows {
        body.extend_from_slice(journal.as_slice());
        put_number(&mut body, *high);
    }
    (tag, body)
}

fn have_rows(mut body: &[u8]) -> Result<Vec<(JournalRef, u64)>, MessageError> {
    let mut rows = Vec::new();
    while !body.is_empty() {
        bounded(rows.len() + 1, FRONTIER_ROWS_MAX)?;
        let (prefix, rest) = cut::<8>(body)?;
        let (high, rest) = take_number(rest)?;
        rows.push((JournalRef::Any(prefix), high));
        body = rest;
    }
    Ok(rows)
}

fn compact(last: u8, journal: JournalRef, rest: &[u8]) -> Result<Compact, MessageError> {
    let (signature, packed) = cut::<64>(rest)?;
    bounded(packed.len(), 2 * COMPACT_BYTES_MAX)?;
    Ok(Compact { journal, last, signature, packed: packed.to_vec() })
}

fn cut<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), MessageError> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(|| MessageError::Malformed("it ends early".to_owned()))?;
    Ok((*first, rest))
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(0x80 | u8::try_from(number & 0x7f).unwrap_or_default());
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

fn take_number(bytes: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let mut number = 0_u64;
    for (shift, (at, byte)) in (0..64).step_by(7).zip(bytes.iter().enumerate()) {
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((number, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(MessageError::Malformed("a number does not end".to_owned()))
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
