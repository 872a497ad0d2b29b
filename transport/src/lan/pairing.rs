//! One link per pair of peers. The side with the lower key opens it as soon as they are connected;
//! the other opens one only if none has come for a while, which tells the first that the link it
//! believes in is dead. A newer link replaces an older one. QUIC is preferred when both are there.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{
    discovery::{Jitter, backoff},
    streams::Ticket,
};
use crate::{LinkId, PeerKey};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) is_quic: bool,
    pub(super) remote: Multiaddr,
}

/// What is up with every peer we are, or just were, connected to.
#[derive(Debug)]
pub(super) struct Pairing {
    ours: PeerKey,
    pairs: HashMap<PeerId, Pair>,
    jitter: Jitter,
}

impl Pairing {
    pub(super) fn new(ours: PeerKey, jitter: Jitter) -> Self {
        Self { ours, pairs: HashMap::new(), jitter }
    }

    pub(super) fn connected(&mut self, peer: PeerId, key: PeerKey, connection: Connection, now: Instant) {
        let head_start = self.head_start(key);
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(key, now));
        pair.connections.push(connection);
        pair.plan(now + head_start);
    }

    /// The connection is gone, and with it a link on it.
    pub(super) fn disconnected(&mut self, peer: &PeerId, connection: ConnectionId, now: Instant) {
        let Some(pair) = self.pairs.get_mut(peer) else {
            return;
        };
        pair.connections.retain(|known| known.id != connection);
        let carried = pair.link.as_ref().filter(|link| link.connection == connection);
        if let Some(link) = carried {
            let id = link.id;
            self.over(peer, id, now);
        }
        self.pairs.retain(|_, pair| !pair.connections.is_empty() || pair.not_before > now);
    }

    /// Peers to open a link to now, each with the connection to do it on.
    pub(super) fn due(&self, now: Instant) -> Vec<(PeerId, Connection)> {
        let due = self.pairs.iter().filter(|(_, pair)| pair.opens_at().is_some_and(|at| at <= now));
        due.filter_map(|(peer, pair)| Some((*peer, pair.best_connection()?))).collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pairs.values().filter_map(Pair::opens_at).min()
    }

    /// A stream for a link has been asked for.
    pub(super) fn opening(&mut self, peer: &PeerId, ticket: Ticket) {
        if let Some(pair) = self.pairs.get_mut(peer) {
            pair.opening = Some(ticket);
        }
    }

    /// Whether the stream that has come for `ticket` is still wanted.
    pub(super) fn opened(&mut self, peer: &PeerId, ticket: Ticket) -> bool {
        let pair = self.pairs.get_mut(peer);
        pair.is_some_and(|pair| pair.opening.take_if(|opening| *opening == ticket).is_some())
    }

    /// The stream for `ticket` could not be had; tried again after `pause`, or after a back-off.
    pub(super) fn not_opened(&mut self, peer: &PeerId, ticket: Ticket, pause: Option<Duration>, now: Instant) {
        if !self.opened(peer, ticket) {
            return;
        }
        self.back_off(peer, pause, now);
    }

    /// Whether a link stream that the peer opened shall be taken. Not if ours is on its way, or
    /// was opened a moment ago and the two crossed: then the peer will take ours.
    pub(super) fn takes_inbound(&self, peer: &PeerId, now: Instant) -> bool {
        let Some(pair) = self.pairs.get(peer) else {
            return false;
        };
        let crossed = pair
            .link
            .as_ref()
            .is_some_and(|link| link.opened_here && now.saturating_duration_since(link.since) < CROSSING);
        let first = self.head_start(pair.key).is_zero();
        !first || (pair.opening.is_none() && !crossed)
    }

    /// The link is up; the one it replaces, if any.
    pub(super) fn linked(
        &mut self,
        peer: &PeerId,
        id: LinkId,
        connection: ConnectionId,
        opened_here: bool,
        now: Instant,
    ) -> Option<LinkId> {
        let pair = self.pairs.get_mut(peer)?;
        pair.opening = None;
        let replaced = pair.link.replace(Linked { id, connection, opened_here, since: now });
        replaced.map(|link| link.id)
    }

    /// The link is over. Whether it had lived long enough to count as a good one; `None` if it
    /// was not the peer's current link.
    pub(super) fn over(&mut self, peer: &PeerId, id: LinkId, now: Instant) -> Option<bool> {
        let pair = self.pairs.get_mut(peer)?;
        let link = pair.link.take_if(|link| link.id == id)?;
        let lived = now.saturating_duration_since(link.since) >= GOOD_LIFE;
        if lived {
            pair.short_lives = 0;
        }
        self.back_off(peer, None, now);
        Some(lived)
    }

    pub(super) fn current_link(&self, peer: &PeerId) -> Option<LinkId> {
        Some(self.pairs.get(peer)?.link.as_ref()?.id)
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.best_connection(peer).is_some()
    }

    pub(super) fn best_connection(&self, peer: &PeerId) -> Option<Connection> {
        self.pairs.get(peer)?.best_connection()
    }

    pub(super) fn connection(&self, peer: &PeerId, id: ConnectionId) -> Option<&Connection> {
        self.pairs.get(peer)?.connections.iter().find(|known| known.id == id)
    }

    pub(super) fn connected_peers(&self) -> Vec<PeerId> {
        let connected = self.pairs.iter().filter(|(_, pair)| !pair.connections.is_empty());
        connected.map(|(peer, _)| *peer).collect()
    }

    /// Lets a link to the peer be opened no sooner than `until`.
    pub(super) fn hold(&mut self, peer: &PeerId, until: Instant) {
        if let Some(pair) = self.pairs.get_mut(peer) {
            pair.not_before = until;
        }
    }

    fn back_off(&mut self, peer: &PeerId, pause: Option<Duration>, now: Instant) {
        let Some(pair) = self.pairs.get_mut(peer) else {
            return;
        };
        let wait = pause.unwrap_or_else(|| self.jitter.spread(backoff(pair.short_lives)));
        pair.short_lives = pair.short_lives.saturating_add(1);
        pair.not_before = now + wait;
        let head_start = match self.ours < pair.key {
            true => Duration::ZERO,
            false => HEAD_START,
        };
        pair.open_at = now + head_start;
    }

    fn head_start(&self, theirs: PeerKey) -> Duration {
        match self.ours < theirs {
            true => Duration::ZERO,
            false => HEAD_START,
        }
    }
}

#[derive(Debug)]
struct Pair {
    key: PeerKey,
    /// Oldest first.
    connections: Vec<Connection>,
    link: Option<Linked>,
    opening: Option<Ticket>,
    short_lives: u32,
    open_at: Instant,
    not_before: Instant,
}

#[derive(Debug)]
struct Linked {
    id: LinkId,
    connection: ConnectionId,
    opened_here: bool,
    since: Instant,
}

impl Pair {
    fn new(key: PeerKey, now: Instant) -> Self {
        Self { key, connections: Vec::new(), link: None, opening: None, short_lives: 0, open_at: now, not_before: now }
    }

    fn plan(&mut self, open_at: Instant) {
        if self.connections.len() == 1 {
            self.open_at = open_at;
        }
    }

    fn opens_at(&self) -> Option<Instant> {
        let waits = self.link.is_none() && self.opening.is_none() && !self.connections.is_empty();
        waits.then(|| self.open_at.max(self.not_before))
    }

    fn best_connection(&self) -> Option<Connection> {
        let newest_first = || self.connections.iter().rev();
        let quic = newest_first().find(|connection| connection.is_quic);
        quic.or_else(|| newest_first().next()).cloned()
    }
}

/// How long the peer with the higher key leaves the opening to the other.
const HEAD_START: Duration = Duration::from_secs(2);
/// Two link streams opened within this time of each other are taken to have crossed.
const CROSSING: Duration = Duration::from_secs(2);
/// A link that lived this long was a good one: its loss is followed by a prompt attempt.
const GOOD_LIFE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Our key is the lower one.
    fn pair() -> (Pairing, Pairing, PeerId, PeerId) {
        let mut keys = [1, 2].map(|n| PeerKey::from_secret(&[n; 32]).unwrap());
        keys.sort();
        let [low, high] = keys;
        let jitter = Jitter::seeded(3);
        let lower = Pairing::new(low, jitter.clone());
        let higher = Pairing::new(high, jitter);
        (lower, higher, low.to_peer_id().unwrap(), high.to_peer_id().unwrap())
    }

    fn connection(n: usize, is_quic: bool) -> Connection {
        Connection { id: ConnectionId::new_unchecked(n), is_quic, remote: "/ip4/10.0.0.1/tcp/1".parse().unwrap() }
    }

    #[test]
    fn the_lower_key_opens_and_prefers_quic() {
        let (mut lower, mut higher, low, high) = pair();
        let now = Instant::now();
        for (n, is_quic) in [(1, false), (2, true), (3, false)] {
            lower.connected(high, higher.ours, connection(n, is_quic), now);
            higher.connected(low, lower.ours, connection(n, is_quic), now);
        }
        assert_eq!(lower.due(now), [(high, connection(2, true))]);
        assert!(higher.due(now).is_empty());
        assert_eq!(higher.next_due(), Some(now + HEAD_START), "unless none comes");

        lower.opening(&high, Ticket(1));
        assert!(lower.due(now).is_empty());
        assert!(lower.opened(&high, Ticket(1)));
        assert!(!lower.opened(&high, Ticket(1)));
        assert_eq!(lower.linked(&high, LinkId(1), connection(2, true).id, true, now), None);
        assert_eq!(lower.next_due(), None);
    }

    #[test]
    fn of_two_crossing_links_both_sides_keep_the_one_of_the_lower_key() {
        let (mut lower, mut higher, low, high) = pair();
        let now = Instant::now();
        let on = connection(1, true);
        lower.connected(high, higher.ours, on.clone(), now);
        higher.connected(low, lower.ours, on.clone(), now);
        lower.opening(&high, Ticket(1));
        higher.opening(&low, Ticket(1));

        assert!(!lower.takes_inbound(&high, now), "ours is on its way");
        assert!(higher.takes_inbound(&low, now));
        higher.linked(&low, LinkId(5), on.id, false, now);
        assert!(!higher.opened(&low, Ticket(1)), "our own stream is no longer wanted");

        assert!(lower.opened(&high, Ticket(1)));
        lower.linked(&high, LinkId(6), on.id, true, now);
        assert!(!lower.takes_inbound(&high, now + CROSSING / 2), "crossed");
        assert!(lower.takes_inbound(&high, now + CROSSING), "the peer has lost its link");
        let replaced = lower.linked(&high, LinkId(7), on.id, false, now + CROSSING);
        assert_eq!(replaced, Some(LinkId(6)));
        assert_eq!(lower.over(&high, LinkId(6), now + CROSSING), None, "no longer the current one");
    }

    #[test]
    fn a_link_that_is_put_down_at_once_comes_back_ever_more_slowly() {
        let (mut lower, higher, _, high) = pair();
        let mut now = Instant::now();
        let on = connection(1, true);
        lower.connected(high, higher.ours, on.clone(), now);
        let mut last_wait = Duration::ZERO;
        for n in 0..8 {
            lower.linked(&high, LinkId(n), on.id, true, now);
            assert_eq!(lower.over(&high, LinkId(n), now), Some(false));
            let due = lower.next_due().unwrap();
            last_wait = due - now;
            now = due;
        }
        assert!(last_wait >= Duration::from_secs(10), "{last_wait:?}");
        lower.linked(&high, LinkId(99), on.id, true, now);
        assert_eq!(lower.over(&high, LinkId(99), now + GOOD_LIFE), Some(true));
        assert!(lower.next_due().unwrap() <= now + GOOD_LIFE + Duration::from_millis(250));
    }

    #[test]
    fn a_link_goes_with_its_connection() {
        let (mut lower, higher, _, high) = pair();
        let now = Instant::now();
        lower.connected(high, higher.ours, connection(1, true), now);
        lower.connected(high, higher.ours, connection(2, false), now);
        lower.linked(&high, LinkId(1), connection(1, true).id, true, now);
        lower.disconnected(&high, connection(2, false).id, now);
        assert_eq!(lower.current_link(&high), Some(LinkId(1)));
        lower.disconnected(&high, connection(1, true).id, now);
        assert_eq!(lower.current_link(&high), None);
        assert!(!lower.is_connected(&high));
    }
}
