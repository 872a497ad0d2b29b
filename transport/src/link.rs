//! What a host holds: a link, its name, and the limits on everything it carries.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Span;

use crate::{
    PeerKey, Traffic,
    frame::{self, FrameReceiver, FrameSender, LinkControl, OnOver},
};

/// A link's number, never used twice by the [`LinkIds`] that handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Hands out link numbers. Clones share one sequence: give all transports of a process the same.
#[derive(Clone, Debug, Default)]
pub struct LinkIds(Arc<AtomicU64>);

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    Lan,
    Bluetooth,
    /// The embedding app passes the bytes both ways.
    Host,
    Memory,
}

/// One authenticated, ordered frame stream to a known device. See the crate's contract.
#[derive(Debug)]
pub struct Link {
    pub id: LinkId,
    /// Proved in the handshake.
    pub peer: PeerKey,
    pub kind: LinkKind,
    /// Where the peer is, for people: a multiaddr on the LAN.
    pub remote: String,
    /// Whether this side opened the stream.
    pub dialled: bool,
    /// What its carrier has moved.
    pub traffic: Traffic,
    pub frames_out: FrameSender,
    pub frames_in: FrameReceiver,
}

/// Bounds on everything that arrives or waits. Sizes are bytes of payload.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame, both ways. 1 MiB: four times the largest batch the sync protocol makes.
    pub frame_bytes_max: usize,
    /// Largest arriving frame until the host raises the limit. 16 KiB: a greeting fits, and a
    /// stranger on the shop's Wi-Fi cannot make a till hold more.
    pub first_frame_bytes_max: usize,
    /// Frames waiting to be written on one link. 256: a burst of live entries.
    pub queue_frames_max: usize,
    /// Bytes waiting to be written on one link. 4 MiB: keeps a fast link busy while the host
    /// makes the next batch, and 64 slow peers cannot fill a phone's memory.
    pub queue_bytes_max: usize,
    /// How often an idle link says that it is alive. 4 s: three chances before the silence is
    /// judged. `None` sends no beats.
    pub beat_interval: Option<Duration>,
    /// How long a peer may say nothing. 13 s: a device whose battery died is noticed within 15 s.
    /// `None` waits for ever.
    pub silence_max: Option<Duration>,
    /// How long a peer may take nothing while we have something to write. 30 s: a phone that
    /// sleeps for a moment is kept.
    pub stall_max: Duration,
    /// How long queued frames may take to leave after the host dropped the link. 5 s.
    pub drain_max: Duration,
    /// Connections in all, of which three quarters may be inbound, so that a crowd of strangers
    /// cannot keep us from dialling our own. 256: far more than a shop has devices.
    pub connections_max: u32,
    /// Connections per peer. 3: the one in use, one from both dialling at once, and one that the
    /// peer left behind when it was restarted.
    pub connections_per_peer_max: u32,
    /// Inbound handshakes under way. 64: each costs a Diffie-Hellman on a small processor.
    pub pending_incoming_max: u32,
    /// Inbound handshakes under way from one IP address. 16: one device cannot take all 64.
    pub pending_per_host_max: u32,
    /// Outbound dials under way. 16: what a phone's Wi-Fi does at once without losing packets.
    pub dials_max: u32,
    /// Streams on one connection. 16: a link needs one, joining another.
    pub streams_per_connection_max: u32,
    /// Peers that discovery may make us remember. 256: a LAN full of false answers stays cheap.
    pub peers_known_max: usize,
    /// Addresses remembered per peer. 8: two networks, two protocols, both address families.
    pub addresses_per_peer_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 1024 * 1024,
            first_frame_bytes_max: 16 * 1024,
            queue_frames_max: 256,
            queue_bytes_max: 4 * 1024 * 1024,
            beat_interval: Some(Duration::from_secs(4)),
            silence_max: Some(Duration::from_secs(13)),
            stall_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(5),
            connections_max: 256,
            connections_per_peer_max: 3,
            pending_incoming_max: 64,
            pending_per_host_max: 16,
            dials_max: 16,
            streams_per_connection_max: 16,
            peers_known_max: 256,
            addresses_per_peer_max: 8,
        }
    }
}

impl LinkIds {
    pub fn next(&self) -> LinkId {
        LinkId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a link before its stream is given to it.
#[derive(Debug)]
pub(crate) struct LinkOrigin {
    pub(crate) id: LinkId,
    pub(crate) peer: PeerKey,
    pub(crate) kind: LinkKind,
    pub(crate) remote: String,
    pub(crate) dialled: bool,
}

impl Link {
    /// A link over a byte stream that the caller has authenticated as `peer`: a host's own
    /// Bluetooth, for one. Must be called within a tokio runtime.
    pub fn over_stream(
        id: LinkId,
        peer: PeerKey,
        kind: LinkKind,
        remote: String,
        dialled: bool,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        limits: &Limits,
    ) -> Self {
        let origin = LinkOrigin { id, peer, kind, remote, dialled };
        Self::carried_by(origin, stream, limits, Box::new(|_| ())).0
    }

    /// As [`Self::over_stream`], with a handle for the transport and a call when the link is over,
    /// which is told whether the link failed (rather than being put down by either side).
    pub(crate) fn carried_by(
        origin: LinkOrigin,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        limits: &Limits,
        on_over: OnOver,
    ) -> (Self, LinkControl) {
        let span = link_span(&origin);
        let (frames_out, frames_in, control) = frame::carry(stream, limits, span, on_over);
        let link = Self {
            id: origin.id,
            peer: origin.peer,
            kind: origin.kind,
            remote: origin.remote,
            dialled: origin.dialled,
            traffic: Traffic::default(),
            frames_out,
            frames_in,
        };
        (link, control)
    }
}

fn link_span(origin: &LinkOrigin) -> Span {
    // The first four bytes tell a shop's devices apart; whole keys stay out of logs.
    let [a, b, c, d, ..] = origin.peer.0;
    tracing::info_span!(
        "link",
        id = origin.id.0,
        peer = format_args!("{a:02x}{b:02x}{c:02x}{d:02x}"),
        kind = ?origin.kind,
        remote = %origin.remote,
        dialled = origin.dialled,
    )
}
