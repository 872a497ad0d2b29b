//! Authenticated, ordered frame streams between devices, whatever carries them. Knows no shop.
//!
//! The contract of a [`Link`], the same over QUIC, TCP, memory and any stream a host supplies:
//!
//! - `peer` is the key that the other side proved in the handshake, never one it claimed.
//! - Frames arrive whole, once and in the order they were sent, or the link ends.
//! - A frame holds 1 to [`Limits::frame_bytes_max`] bytes; until the host calls
//!   [`FrameReceiver::raise_limit`], an arriving one at most [`Limits::first_frame_bytes_max`].
//!   A larger claim ends the link before a byte is allocated for it.
//! - Every queue is bounded: `send` waits while a slow peer has the queue full, and a peer that
//!   takes nothing for [`Limits::stall_max`] is cut off. It never holds up another link.
//! - A silent peer is noticed within [`Limits::silence_max`] by whoever waits for its next frame.
//! - Dropping either half ends the link, after what was already queued has been written. The
//!   other side sees those frames, then `None`. Every other end shows as one error, then `None`.
//! - Between two devices at most one link lives; a newer one replaces the older.

pub mod bluetooth;
mod frame;
mod lan;
mod link;
mod memory;
mod peer;
mod traffic;
mod writer;

pub use frame::{FrameReceiver, FrameSender, LinkError};
pub use lan::{AddressError, Lan, LanConfig, LanEvent, OpenError, StartError};
pub use link::{Limits, Link, LinkId, LinkIds, LinkKind};
pub use memory::{memory_pair, memory_pair_with};
pub use peer::{PeerKey, PeerKeyError};
pub use traffic::Traffic;
