//! Whom to dial, where and when: static addresses for ever, discovered ones while they last.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

/// Names one thing to dial: a peer with its addresses, or a single address whose peer is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TargetId(u64);

/// A dial to be made now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) target: TargetId,
    pub(super) to: DialTo,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialTo {
    /// This key must answer, at any of the addresses.
    Peer(PeerId, Vec<Multiaddr>),
    /// Whoever answers.
    Address(Multiaddr),
}

/// All targets. Holds no clock and no randomness of its own.
#[derive(Debug)]
pub(super) struct Directory {
    targets: Vec<Target>,
    next_id: u64,
    jitter: Jitter,
    discovered_max: usize,
    addresses_max: usize,
}

impl Directory {
    pub(super) fn new(jitter: Jitter, discovered_max: usize, addresses_max: usize) -> Self {
        Self { targets: Vec::new(), next_id: 0, jitter, discovered_max, addresses_max: addresses_max.max(1) }
    }

    /// An address from the configuration or the host: redialled until the process ends.
    /// `first_dial` is when to try it first.
    pub(super) fn add_static(&mut self, peer: Option<PeerId>, address: Multiaddr, first_dial: Instant) {
        let known = self.targets.iter_mut().find(|target| match peer {
            Some(_) => target.expects == peer,
            None => target.expects.is_none() && target.addresses.contains(&address),
        });
        let Some(target) = known else {
            self.push(peer, address, true, first_dial);
            return;
        };
        target.is_static = true;
        target.due = target.due.min(first_dial);
        if !target.addresses.contains(&address) {
            // Addresses the host knows come before hearsay and push it out.
            target.addresses.insert(0, address);
            target.addresses.truncate(self.addresses_max);
        }
    }

    /// A hint from the LAN. `first_dial` is when to follow it; `false` if there is no room or
    /// nothing new in it.
    pub(super) fn discovered(&mut self, peer: PeerId, address: Multiaddr, first_dial: Instant) -> bool {
        if let Some(target) = self.targets.iter_mut().find(|t| t.expects == Some(peer)) {
            if target.addresses.contains(&address) || target.addresses.len() >= self.addresses_max {
                return false;
            }
            target.addresses.push(address);
            target.due = target.due.min(first_dial);
            return true;
        }
        let discovered = self.targets.iter().filter(|target| !target.is_static).count();
        if discovered >= self.discovered_max {
            return false;
        }
        self.push(Some(peer), address, false, first_dial);
        true
    }

    /// The hint is no longer given.
    pub(super) fn expired(&mut self, peer: PeerId, address: &Multiaddr) {
        for target in &mut self.targets {
            if !target.is_static && target.expects == Some(peer) {
                target.addresses.retain(|known| known != address);
            }
        }
        self.targets.retain(|target| target.is_static || !target.addresses.is_empty());
    }

    /// Takes up to `at_most` dials that are due; `busy` peers are connected, or not to be dialled.
    pub(super) fn take_due(&mut self, now: Instant, at_most: usize, busy: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let due = self.targets.iter_mut().filter(|target| target.is_free(&busy) && target.due <= now);
        due.take(at_most).filter_map(Target::dial).collect()
    }

    /// When the next dial is due, if nothing changes.
    pub(super) fn next_due(&self, busy: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        let free = self.targets.iter().filter(|target| target.is_free(&busy));
        free.map(|target| target.due).min()
    }

    /// The dial reached `peer`.
    pub(super) fn reached(&mut self, id: TargetId, peer: PeerId) {
        if let Some(target) = self.targets.iter_mut().find(|target| target.id == id) {
            target.dialling = false;
            target.answered = Some(peer);
        }
    }

    /// The dial failed. For a static target, its first address, for people.
    pub(super) fn failed(&mut self, id: TargetId, now: Instant) -> Option<Multiaddr> {
        let target = self.targets.iter_mut().find(|target| target.id == id)?;
        target.dialling = false;
        target.answered = None;
        target.due = now + self.jitter.spread(backoff(target.failures));
        target.failures = target.failures.saturating_add(1);
        target.addresses.first().filter(|_| target.is_static).cloned()
    }

    /// A link to `peer` has lived: the next loss is dialled at once again.
    pub(super) fn proved(&mut self, peer: &PeerId) {
        for target in self.targets.iter_mut().filter(|target| target.leads_to(peer)) {
            target.failures = 0;
        }
    }

    /// The last connection to `peer` is gone.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant) {
        for target in self.targets.iter_mut().filter(|target| target.leads_to(peer)) {
            target.due = now + self.jitter.spread(backoff(target.failures));
            target.failures = target.failures.saturating_add(1);
        }
    }

    /// The target turned out to be this very node.
    pub(super) fn forget(&mut self, id: TargetId) {
        self.targets.retain(|target| target.id != id);
    }

    pub(super) fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let known = self.targets.iter().filter(|target| target.leads_to(peer));
        known.flat_map(|target| target.addresses.iter().cloned()).collect()
    }

    fn push(&mut self, peer: Option<PeerId>, address: Multiaddr, is_static: bool, due: Instant) {
        self.next_id += 1;
        self.targets.push(Target {
            id: TargetId(self.next_id),
            expects: peer,
            answered: None,
            addresses: vec![address],
            is_static,
            failures: 0,
            due,
            dialling: false,
        });
    }
}

#[derive(Debug)]
struct Target {
    id: TargetId,
    expects: Option<PeerId>,
    answered: Option<PeerId>,
    addresses: Vec<Multiaddr>,
    is_static: bool,
    failures: u32,
    due: Instant,
    dialling: bool,
}

impl Target {
    fn leads_to(&self, peer: &PeerId) -> bool {
        self.expects.or(self.answered).as_ref() == Some(peer)
    }

    fn dial(&mut self) -> Option<Dial> {
        let to = match self.expects {
            Some(peer) => DialTo::Peer(peer, self.addresses.clone()),
            None => DialTo::Address(self.addresses.first()?.clone()),
        };
        self.dialling = true;
        Some(Dial { target: self.id, to })
    }

    fn is_free(&self, busy: &impl Fn(&PeerId) -> bool) -> bool {
        let peer = self.expects.or(self.answered);
        !self.dialling && !self.addresses.is_empty() && !peer.is_some_and(|peer| busy(&peer))
    }
}

/// The wait after `failures` failures in a row: 250 ms, doubling, at most 30 s.
pub(super) fn backoff(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const LAST: Duration = Duration::from_secs(30);
    FIRST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LAST)
}

/// Spreads waits, so that a shop's tills do not all dial in the same moment after a power cut.
#[derive(Debug, Clone)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Between half and all of `wait`.
    pub(super) fn spread(&mut self, wait: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let share = u32::try_from((mixed ^ (mixed >> 31)) % 1_000).unwrap_or(0);
        wait / 2 + wait / 2_000 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: fn(&PeerId) -> bool = |_| false;

    fn peer(n: u8) -> PeerId {
        crate::PeerKey::from_secret(&[n; 32]).unwrap().to_peer_id().unwrap()
    }

    fn address(n: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{n}").parse().unwrap()
    }

    fn directory() -> Directory {
        Directory::new(Jitter::seeded(7), 2, 2)
    }

    #[test]
    fn a_static_peer_is_dialled_again_ever_more_slowly_and_never_given_up() {
        let mut directory = directory();
        let mut now = Instant::now();
        directory.add_static(None, address(1), now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let dials = directory.take_due(now, 16, NOBODY);
            assert_eq!(dials.len(), 1);
            assert!(directory.take_due(now, 16, NOBODY).is_empty(), "dialled twice at once");
            assert_eq!(directory.failed(dials[0].target, now), Some(address(1)));
            let due = directory.next_due(NOBODY).unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits[0] >= Duration::from_millis(125) && waits[0] <= Duration::from_millis(250));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)), "{waits:?}");
        assert!(waits[11] >= Duration::from_secs(15), "{waits:?}");
    }

    #[test]
    fn an_address_is_left_alone_while_the_peer_that_answered_there_is_busy() {
        let mut directory = directory();
        let now = Instant::now();
        directory.add_static(None, address(1), now);
        let dial = directory.take_due(now, 16, NOBODY).remove(0);
        directory.reached(dial.target, peer(1));
        let busy = |other: &PeerId| *other == peer(1);
        assert_eq!(directory.next_due(busy), None);
        directory.lost(&peer(1), now);
        let due = directory.next_due(NOBODY).unwrap();
        assert!(due > now && due <= now + Duration::from_millis(250));
    }

    #[test]
    fn a_link_that_lived_makes_the_next_dial_prompt() {
        let mut directory = directory();
        let now = Instant::now();
        directory.add_static(Some(peer(1)), address(1), now);
        for _ in 0..9 {
            directory.lost(&peer(1), now);
        }
        directory.proved(&peer(1));
        directory.lost(&peer(1), now);
        assert!(directory.next_due(NOBODY).unwrap() <= now + Duration::from_millis(250));
    }

    #[test]
    fn a_lan_full_of_answers_is_remembered_only_so_far() {
        let mut directory = directory();
        let now = Instant::now();
        assert!(directory.discovered(peer(1), address(1), now));
        assert!(!directory.discovered(peer(1), address(1), now));
        assert!(directory.discovered(peer(1), address(2), now));
        assert!(!directory.discovered(peer(1), address(3), now), "third address of one peer");
        assert!(directory.discovered(peer(2), address(4), now));
        assert!(!directory.discovered(peer(3), address(5), now), "third peer");
        directory.add_static(Some(peer(4)), address(6), now);
        assert_eq!(directory.take_due(now, 16, NOBODY).len(), 3, "the host's own always fits");

        directory.expired(peer(2), &address(4));
        assert!(directory.discovered(peer(3), address(5), now), "room again");
    }

    #[test]
    fn no_more_dials_than_allowed_at_once() {
        let mut directory = directory();
        let now = Instant::now();
        for port in 1..=20 {
            directory.add_static(None, address(port), now);
        }
        assert_eq!(directory.take_due(now, 3, NOBODY).len(), 3);
        assert_eq!(directory.take_due(now, 100, NOBODY).len(), 17);
    }
}
