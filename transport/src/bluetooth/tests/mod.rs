//! The exchange over a carrier that loses, repeats and reorders, and against hostile peers.

#![allow(clippy::cast_possible_truncation)]

mod campaign;
mod hostile;
mod links;
mod lossy;

use super::{Tag, fragment::Opening};

pub(super) fn opening(nonce: u32, fragment_bytes_max: u16) -> Opening {
    Opening { nonce, fragment_bytes_max, credit: 64, tag: Tag([nonce.to_le_bytes()[0]; 6]) }
}
