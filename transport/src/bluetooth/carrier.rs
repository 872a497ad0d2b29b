//! What carries fragments: a GATT characteristic, an L2CAP channel, or whatever the embedding app
//! has. It may lose, repeat and reorder them.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

/// Fragments for the peer.
///
/// - `send` is ready once the carrier can take the next one: that is its backpressure.
/// - A fragment is sent whole or not at all, and arrives whole or not at all.
/// - An error ends the link; a fragment lost on the way is no error.
/// - Dropping it frees whatever carried the link.
pub trait FragmentSink: Send {
    /// Sends one fragment, of at most [`Carrier::fragment_bytes_max`] bytes.
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>>;
}

/// A way to one peer and back.
pub struct Carrier {
    /// The largest fragment it takes, 20 to 65,535 bytes.
    pub fragment_bytes_max: usize,
    /// Fragments for the peer.
    pub outgoing: Box<dyn FragmentSink>,
    /// Fragments from the peer. It is closed when the carrier has ended.
    pub incoming: mpsc::Receiver<Bytes>,
}

/// The carrier has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CarrierError(pub String);

/// Fragments that wait between a carrier and its exchange. 128: as many as a peer may have under
/// way; what arrives beyond is dropped and sent again.
pub const INCOMING_FRAGMENTS_MAX: usize = 128;

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("fragment_bytes_max", &self.fragment_bytes_max).finish_non_exhaustive()
    }
}
