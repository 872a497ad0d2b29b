//! Peers that the host wants nothing to do with for a while.

use std::{collections::HashMap, time::Instant};

use libp2p::PeerId;

#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<PeerId, Instant>);

impl Refusals {
    pub(super) fn refuse(&mut self, peer: PeerId, until: Instant) {
        if self.0.len() >= REFUSALS_MAX && !self.0.contains_key(&peer) {
            let soonest = self.0.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            if let Some(soonest) = soonest {
                self.0.remove(&soonest);
            }
        }
        self.0.insert(peer, until);
    }

    pub(super) fn readmit(&mut self, peer: &PeerId) -> bool {
        self.0.remove(peer).is_some()
    }

    pub(super) fn is_refused(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    pub(super) fn end_of(&self, peer: &PeerId) -> Option<Instant> {
        self.0.get(peer).copied()
    }

    /// Forgets the refusals that have ended by `now`.
    pub(super) fn end(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

/// Strangers may come with a new key each time: only so many are remembered.
const REFUSALS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_ends_with_its_pause() {
        let mut refusals = Refusals::default();
        let (peer, now) = (PeerId::random(), Instant::now());
        refusals.refuse(peer, now + Duration::from_secs(5));
        refusals.end(now + Duration::from_secs(4));
        assert!(refusals.is_refused(&peer));
        refusals.end(now + Duration::from_secs(5));
        assert!(!refusals.is_refused(&peer));
    }

    #[test]
    fn a_crowd_of_strangers_is_remembered_only_so_far() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for n in 0..=u64::try_from(REFUSALS_MAX).unwrap() {
            refusals.refuse(PeerId::random(), now + Duration::from_secs(n));
        }
        assert_eq!(refusals.0.len(), REFUSALS_MAX);
        assert_eq!(refusals.next_end(), Some(now + Duration::from_secs(1)));
    }
}
