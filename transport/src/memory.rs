//! Links within one process, for tests: the same frames, limits and ends as on any other link.

use crate::{Limits, Link, LinkIds, LinkKind, PeerKey};

/// Bytes under way between the two ends before the writer waits. 64 KiB: a small socket buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// Two ends of one link: the first is `a`'s, leading to `b`. Their ids are unique within the pair
/// only; see [`memory_pair_with`]. Sends no beats, so that virtual time stands still when nothing
/// happens.
pub fn memory_pair(a: PeerKey, b: PeerKey) -> (Link, Link) {
    let limits = Limits { beat_interval: None, silence_max: None, ..Limits::default() };
    memory_pair_with(&LinkIds::default(), a, b, &limits)
}

/// As [`memory_pair`], with ids from `ids` and the given limits.
pub fn memory_pair_with(ids: &LinkIds, a: PeerKey, b: PeerKey, limits: &Limits) -> (Link, Link) {
    let (stream_a, stream_b) = tokio::io::duplex(PIPE_BYTES);
    let end = |peer: PeerKey, dialled, stream| {
        Link::over_stream(ids.next(), peer, LinkKind::Memory, "memory".to_owned(), dialled, stream, limits)
    };
    (end(b, true, stream_a), end(a, false, stream_b))
}
