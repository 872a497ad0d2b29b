//! The bytes of a fragment: what opens an exchange, what carries it, what ends it. All numbers are
//! little endian; docs/protocol.md has the layout and test vectors.

use super::Tag;

/// The version of the exchange; devices of different versions part.
pub const EXCHANGE_VERSION: u8 = 1;
/// What a data fragment holds besides its payload, at most.
pub const FRAGMENT_OVERHEAD_BYTES: usize = 1 + ACK_BYTES + SELECTIVE_BYTES + 2;
/// The smallest fragment that a carrier must take: an ATT MTU of 23, less its header.
pub const FRAGMENT_BYTES_MIN: usize = 20;

/// One fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment<'b> {
    /// The side that connected begins.
    Open(Opening),
    /// The other side agrees.
    Accept(Opening),
    /// The other side does not.
    Refuse {
        /// The opening's.
        nonce: u32,
        /// Why.
        reason: Refusal,
    },
    /// The sender has given the exchange up.
    Reset {
        /// The opening's.
        nonce: u32,
    },
    /// Everything in between.
    Flow(Flow<'b>),
}

/// What each side says of itself before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Names the exchange; made by the side that connected.
    pub nonce: u32,
    /// The largest fragment the sender takes.
    pub fragment_bytes_max: u16,
    /// How many data fragments the sender takes before it acknowledges any.
    pub credit: u8,
    /// What the sender advertises at the moment.
    pub tag: Tag,
}

/// Why an exchange is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another version.
    Version,
    /// As many links as it keeps.
    Busy,
}

/// Data, an acknowledgement, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flow<'b> {
    /// A piece of the stream.
    pub piece: Option<Piece<'b>>,
    /// What has arrived.
    pub ack: Option<Ack>,
    /// Whether an acknowledgement is wanted at once.
    pub ask: bool,
}

/// A piece of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'b> {
    /// The number of the piece, modulo 2^16.
    pub seq: u16,
    /// Whether it is the last one.
    pub last: bool,
    /// Its bytes; only the last piece may have none.
    pub payload: &'b [u8],
}

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The first piece that is missing, modulo 2^16.
    pub next: u16,
    /// How many pieces from there on are taken; `None` for as many as the opening said.
    pub credit: Option<u8>,
    /// Which of the 64 pieces after the missing one are here, lowest bit first.
    pub selective: u64,
}

/// Why bytes are not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    #[error("a fragment is cut short")]
    Short,
    #[error("a fragment has bytes that don't belong to it")]
    Long,
    #[error("a fragment is of an unknown kind")]
    Kind,
    #[error("a fragment without data claims to be a piece of it")]
    Empty,
    #[error("the peer speaks version {0} of the exchange")]
    Version(u8),
}

impl<'b> Fragment<'b> {
    /// Reads a fragment.
    ///
    /// # Errors
    /// [`FragmentError`], for anything that is not exactly one.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, FragmentError> {
        let mut rest = Rest(bytes);
        let [kind] = rest.take()?;
        if kind & FLOW != 0 {
            return flow(kind, rest).map(Self::Flow);
        }
        let fragment = match kind {
            OPEN => Self::Open(opening(&mut rest)?),
            ACCEPT => Self::Accept(opening(&mut rest)?),
            REFUSE => {
                let nonce = u32::from_le_bytes(rest.take()?);
                let [reason] = rest.take()?;
                let reason = if reason == REFUSED_VERSION { Refusal::Version } else { Refusal::Busy };
                Self::Refuse { nonce, reason }
            }
            RESET => Self::Reset { nonce: u32::from_le_bytes(rest.take()?) },
            _ => return Err(FragmentError::Kind),
        };
        rest.0.is_empty().then_some(fragment).ok_or(FragmentError::Long)
    }

    /// The fragment's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Open(opening) => put_opening(&mut bytes, OPEN, opening),
            Self::Accept(opening) => put_opening(&mut bytes, ACCEPT, opening),
            Self::Refuse { nonce, reason } => {
                bytes.push(REFUSE);
                bytes.extend(nonce.to_le_bytes());
                bytes.push(match reason {
                    Refusal::Version => REFUSED_VERSION,
                    Refusal::Busy => REFUSED_BUSY,
                });
            }
            Self::Reset { nonce } => {
                bytes.push(RESET);
                bytes.extend(nonce.to_le_bytes());
            }
            Self::Flow(flow) => put_flow(&mut bytes, flow),
        }
        bytes
    }
}

fn opening(rest: &mut Rest<'_>) -> Result<Opening, FragmentError> {
    let [version] = rest.take()?;
    if version != EXCHANGE_VERSION {
        return Err(FragmentError::Version(version));
    }
    Ok(Opening {
        nonce: u32::from_le_bytes(rest.take()?),
        fragment_bytes_max: u16::from_le_bytes(rest.take()?),
        credit: u8::from_le_bytes(rest.take()?),
        tag: Tag(rest.take()?),
    })
}

fn put_opening(bytes: &mut Vec<u8>, kind: u8, opening: &Opening) {
    bytes.extend([kind, EXCHANGE_VERSION]);
    bytes.extend(opening.nonce.to_le_bytes());
    bytes.extend(opening.fragment_bytes_max.to_le_bytes());
    bytes.push(opening.credit);
    bytes.extend(opening.tag.0);
}

fn flow(kind: u8, mut rest: Rest<'_>) -> Result<Flow<'_>, FragmentError> {
    if kind & !(FLOW | DATA | LAST | ACK | SELECTIVE | ASK | CREDIT) != 0 || kind & (DATA | ACK | ASK) == 0 {
        return Err(FragmentError::Kind);
    }
    let mut flow = Flow { ask: kind & ASK != 0, ..Flow::default() };
    if kind & ACK != 0 {
        let next = u16::from_le_bytes(rest.take()?);
        let credit = if kind & CREDIT != 0 { Some(u8::from_le_bytes(rest.take()?)) } else { None };
        let selective = if kind & SELECTIVE != 0 { u64::from_le_bytes(rest.take()?) } else { 0 };
        flow.ack = Some(Ack { next, credit, selective });
    } else if kind & (SELECTIVE | CREDIT) != 0 {
        return Err(FragmentError::Kind);
    }
    if kind & DATA != 0 {
        let seq = u16::from_le_bytes(rest.take()?);
        let last = kind & LAST != 0;
        if rest.0.is_empty() && !last {
            return Err(FragmentError::Empty);
        }
        flow.piece = Some(Piece { seq, last, payload: rest.0 });
    } else if kind & LAST != 0 {
        return Err(FragmentError::Kind);
    } else if !rest.0.is_empty() {
        return Err(FragmentError::Long);
    }
    Ok(flow)
}

fn put_flow(bytes: &mut Vec<u8>, flow: &Flow<'_>) {
    let mut kind = FLOW;
    if flow.ask {
        kind |= ASK;
    }
    if let Some(ack) = flow.ack {
        kind |= ACK;
        if ack.credit.is_some() {
            kind |= CREDIT;
        }
        if ack.selective != 0 {
            kind |= SELECTIVE;
        }
    }
    if let Some(piece) = flow.piece {
        kind |= DATA;
        if piece.last {
            kind |= LAST;
        }
    }
    bytes.push(kind);
    if let Some(ack) = flow.ack {
        bytes.extend(ack.next.to_le_bytes());
        bytes.extend(ack.credit);
        if ack.selective != 0 {
            bytes.extend(ack.selective.to_le_bytes());
        }
    }
    if let Some(piece) = flow.piece {
        bytes.extend(piece.seq.to_le_bytes());
        bytes.extend(piece.payload);
    }
}

/// What is left to read.
struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FragmentError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FragmentError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }
}

const OPEN: u8 = 0x01;
const ACCEPT: u8 = 0x02;
const REFUSE: u8 = 0x03;
const RESET: u8 = 0x04;
const REFUSED_VERSION: u8 = 1;
const REFUSED_BUSY: u8 = 2;

const FLOW: u8 = 0x80;
const DATA: u8 = 0x01;
const LAST: u8 = 0x02;
const ACK: u8 = 0x04;
const SELECTIVE: u8 = 0x08;
const ASK: u8 = 0x10;
const CREDIT: u8 = 0x20;

const ACK_BYTES: usize = 3;
const SELECTIVE_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opening() -> Opening {
        Opening { nonce: 0x0403_0201, fragment_bytes_max: 508, credit: 64, tag: Tag([1, 2, 3, 4, 5, 6]) }
    }

    #[test]
    fn every_fragment_comes_back_as_it_was() {
        let piece = Some(Piece { seq: 0xFFFE, last: false, payload: b"bread" });
        let ack = Some(Ack { next: 7, credit: Some(3), selective: 0 });
        for fragment in [
            Fragment::Open(opening()),
            Fragment::Accept(opening()),
            Fragment::Refuse { nonce: 9, reason: Refusal::Busy },
            Fragment::Refuse { nonce: 9, reason: Refusal::Version },
            Fragment::Reset { nonce: 9 },
            Fragment::Flow(Flow { piece, ack, ask: true }),
            Fragment::Flow(Flow { piece, ack: None, ask: false }),
            Fragment::Flow(Flow { piece: None, ack: Some(Ack { next: 1, credit: Some(0), selective: 5 }), ask: false }),
            Fragment::Flow(Flow { piece, ack: Some(Ack { next: 1, credit: None, selective: 0 }), ask: false }),
            Fragment::Flow(Flow { piece: Some(Piece { seq: 0, last: true, payload: &[] }), ack: None, ask: false }),
        ] {
            let bytes = fragment.to_bytes();
            assert_eq!(Fragment::parse(&bytes), Ok(fragment.clone()), "{bytes:02x?}");
            assert!(bytes.len() <= FRAGMENT_BYTES_MIN, "fits the smallest carrier: {bytes:02x?}");
        }
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        let mut other = Fragment::Open(opening()).to_bytes();
        other[1] = 9;
        for (bytes, error) in [
            (&[][..], FragmentError::Short),
            (&[0x05], FragmentError::Kind),
            (&[0x80], FragmentError::Kind),
            (&[0xC1, 0, 0, 1], FragmentError::Kind),
            (&[0xA1, 0, 0, 1], FragmentError::Kind),
            (&[0x81, 0, 0], FragmentError::Empty),
            (&[0x82, 0, 0], FragmentError::Kind),
            (&[0x88, 0, 0], FragmentError::Kind),
            (&[0xA4, 0, 0], FragmentError::Short),
            (&[0xA4, 0, 0, 1, 1], FragmentError::Long),
            (&[0x84, 0, 0, 1], FragmentError::Long),
            (&[0x04, 0, 0, 0, 0, 0], FragmentError::Long),
            (&other, FragmentError::Version(9)),
        ] {
            assert_eq!(Fragment::parse(bytes), Err(error), "{bytes:02x?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_read_is_written_the_same(bytes: Vec<u8>) {
            if let Ok(fragment) = Fragment::parse(&bytes) {
                let written = fragment.to_bytes();
                prop_assert_eq!(Fragment::parse(&written), Ok(fragment));
            }
        }
    }
}
