//! Who is connected to, and who is not: the budget of links, one link a peer, which side connects,
//! and back-off after failures. Pure; times come in.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::Tag;
use crate::{LinkId, PeerKey, frame::LinkControl};

/// What the radio may be used for.
#[derive(Debug, Clone)]
pub struct BluetoothBudget {
    /// Links in both roles together. 5: phones carry 6 or 7 connections, and one is left for the
    /// customer's headset or the receipt printer.
    pub links_max: usize,
    /// How long one search lasts. 4 s: a phone that saves power advertises about once a second.
    pub scan: Duration,
    /// How long it searches not at all after that. 8 s: a third of the time costs a phone about a
    /// tenth of its battery a day, and two devices still meet within half a minute.
    pub pause: Duration,
}

impl Default for BluetoothBudget {
    fn default() -> Self {
        Self { links_max: 5, scan: Duration::from_secs(4), pause: Duration::from_secs(8) }
    }
}

impl BluetoothBudget {
    /// How long the device with the higher tag leaves the connecting to the other one: two of its
    /// searches.
    fn head_start(&self) -> Duration {
        (self.scan + self.pause) * 2
    }
}

/// See the file's head. `C` is what ends a link.
#[derive(Debug)]
pub(super) struct Pairs<C = LinkControl> {
    budget: BluetoothBudget,
    candidates: HashMap<String, Candidate>,
    links: HashMap<PeerKey, Linked<C>>,
    /// Whose tag it was when we last spoke.
    known: HashMap<Tag, PeerKey>,
    refused: HashMap<PeerKey, Instant>,
    /// Peers that are reached in a better way.
    resting: HashSet<PeerKey>,
    /// Carriers of which no link has come yet.
    under_way: usize,
}

#[derive(Debug)]
struct Candidate {
    tag: Tag,
    first_seen: Instant,
    last_seen: Instant,
    failures: u32,
    not_before: Instant,
}

#[derive(Debug)]
struct Linked<C> {
    id: LinkId,
    control: C,
    dialled: bool,
    remote: String,
    since: Instant,
}

/// What shall become of a peer that has proved its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// For this reason its link is not wanted.
    Leave(&'static str),
}

/// A link as it is remembered.
pub(super) struct NewLink<C> {
    pub(super) peer: PeerKey,
    pub(super) id: LinkId,
    pub(super) control: C,
    pub(super) dialled: bool,
    pub(super) remote: String,
}

impl<C> Pairs<C> {
    pub(super) fn new(budget: BluetoothBudget) -> Self {
        Self {
            budget,
            candidates: HashMap::new(),
            links: HashMap::new(),
            known: HashMap::new(),
            refused: HashMap::new(),
            resting: HashSet::new(),
            under_way: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.links.len() + self.under_way < self.budget.links_max
    }

    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// A device that shows one of our tags was seen: whether to connect to it now.
    pub(super) fn wants(&mut self, remote: &str, theirs: Tag, ours: Tag, now: Instant) -> bool {
        self.remember(remote, theirs, now);
        if !self.has_room() || self.links.values().any(|link| link.remote == remote) {
            return false;
        }
        if self.known.get(&theirs).is_some_and(|peer| self.is_out_of_question(peer, now)) {
            return false;
        }
        let Some(candidate) = self.candidates.get(remote) else { return false };
        let first = ours < theirs || candidate.first_seen + self.budget.head_start() <= now;
        first && candidate.not_before <= now
    }

    fn is_out_of_question(&self, peer: &PeerKey, now: Instant) -> bool {
        self.links.contains_key(peer) || self.resting.contains(peer) || self.is_refused(peer, now)
    }

    fn is_refused(&self, peer: &PeerKey, now: Instant) -> bool {
        self.refused.get(peer).is_some_and(|until| *until > now)
    }

    fn remember(&mut self, remote: &str, tag: Tag, now: Instant) {
        if !self.candidates.contains_key(remote) && self.candidates.len() >= REMEMBERED_MAX {
            let stalest = self.candidates.iter().min_by_key(|(_, candidate)| candidate.last_seen);
            if let Some(stalest) = stalest.map(|(remote, _)| remote.clone()) {
                self.candidates.remove(&stalest);
            }
        }
        let new = || Candidate { tag, first_seen: now, last_seen: now, failures: 0, not_before: now };
        let candidate = self.candidates.entry(remote.to_owned()).or_insert_with(new);
        if candidate.tag != tag || now.saturating_duration_since(candidate.last_seen) > FORGOTTEN_AFTER {
            // Another period, or another visit: the other side has its head start again.
            candidate.tag = tag;
            candidate.first_seen = now;
        }
        candidate.last_seen = now;
    }

    /// A carrier is being made into a link.
    pub(super) fn begins(&mut self) {
        self.under_way += 1;
    }

    /// It is a link now, or never will be.
    pub(super) fn ends(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn failed(&mut self, remote: &str, now: Instant) {
        if let Some(candidate) = self.candidates.get_mut(remote) {
            candidate.not_before = now + backoff(candidate.failures);
            candidate.failures = candidate.failures.saturating_add(1);
        }
    }

    /// What to do with a peer that has proved its key.
    pub(super) fn proved(&mut self, peer: PeerKey, theirs: Tag, ours: Tag, dialled: bool, now: Instant) -> Verdict {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(theirs, peer);
        if self.is_refused(&peer, now) {
            return Verdict::Leave("it was refused a moment ago");
        }
        if self.resting.contains(&peer) {
            return Verdict::Leave("it is reached in a better way");
        }
        let crossed = self
            .links
            .get(&peer)
            .is_some_and(|link| link.dialled != dialled && now.saturating_duration_since(link.since) < CROSSING);
        // Both sides keep the one that the device with the lower tag has opened.
        if crossed && dialled != (ours < theirs) {
            return Verdict::Leave("the two devices connected to each other at once");
        }
        Verdict::Take
    }

    /// The link is up; gives what ends the one that it replaces.
    pub(super) fn linked(&mut self, link: NewLink<C>, now: Instant) -> Option<C> {
        let NewLink { peer, id, control, dialled, remote } = link;
        let replaced = self.links.insert(peer, Linked { id, control, dialled, remote, since: now });
        replaced.map(|link| link.control)
    }

    /// The link is over.
    pub(super) fn over(&mut self, peer: PeerKey, id: LinkId, now: Instant) {
        let Some(link) = self.links.get(&peer).filter(|link| link.id == id) else { return };
        let (remote, since) = (link.remote.clone(), link.since);
        self.links.remove(&peer);
        if now.saturating_duration_since(since) < GOOD_LIFE {
            self.failed(&remote, now);
        } else if let Some(candidate) = self.candidates.get_mut(&remote) {
            candidate.failures = 0;
            candidate.not_before = now;
        }
    }

    /// Keeps links to a peer away until then; gives what ends the one there is.
    pub(super) fn refuse(&mut self, peer: PeerKey, until: Instant) -> Option<C> {
        self.refused.retain(|_, other| *other > until.checked_sub(REFUSED_KEPT).unwrap_or(until));
        if self.refused.len() < REMEMBERED_MAX {
            self.refused.insert(peer, until);
        }
        self.take_control(&peer)
    }

    pub(super) fn readmit(&mut self, peer: &PeerKey) {
        self.refused.remove(peer);
    }

    /// The peer is reached in a better way; gives what ends its link.
    pub(super) fn rest(&mut self, peer: PeerKey) -> Option<C> {
        self.resting.insert(peer);
        self.take_control(&peer)
    }

    /// The better way is gone: the peer is looked for again, at once.
    pub(super) fn wake(&mut self, peer: &PeerKey, now: Instant) {
        if self.resting.remove(peer) {
            self.candidates.values_mut().for_each(|candidate| candidate.not_before = candidate.not_before.min(now));
        }
    }

    fn take_control(&mut self, peer: &PeerKey) -> Option<C> {
        self.links.remove(peer).map(|link| link.control)
    }

    /// Everything that ends a link.
    pub(super) fn take_all(&mut self) -> Vec<C> {
        self.links.drain().map(|(_, link)| link.control).collect()
    }
}

/// 2 s, then twice as long each time, up to 5 minutes: a device that is out of reach costs a
/// connection attempt, during which nothing else is found.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(2).saturating_mul(1 << failures.min(8)).min(Duration::from_secs(300))
}

/// Devices, tags and refusals remembered: a crowded street stays cheap.
const REMEMBERED_MAX: usize = 256;
/// A device that was not seen for so long has been away.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
const REFUSED_KEPT: Duration = Duration::from_secs(3_600);
/// Two links opened from both sides within this time of each other are taken to have crossed.
const CROSSING: Duration = Duration::from_secs(10);
/// A link that lived shorter than this counts as a failure.
const GOOD_LIFE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Tag = Tag([1; 6]);
    const HIGH: Tag = Tag([9; 6]);
    const PEER: PeerKey = PeerKey([50; 32]);

    fn pairs() -> (Pairs<u64>, Instant) {
        (Pairs::new(BluetoothBudget::default()), Instant::now())
    }

    fn link(pairs: &mut Pairs<u64>, peer: PeerKey, id: u64, dialled: bool, remote: &str, now: Instant) -> Option<u64> {
        let remote = remote.to_owned();
        pairs.linked(NewLink { peer, id: LinkId(id), control: id, dialled, remote }, now)
    }

    #[test]
    fn the_lower_tag_connects_and_the_higher_only_if_nobody_comes() {
        let (mut lower, now) = pairs();
        let (mut higher, _) = pairs();
        assert!(lower.wants("b", HIGH, LOW, now));
        assert!(!higher.wants("a", LOW, HIGH, now));
        let later = now + BluetoothBudget::default().head_start();
        assert!(higher.wants("a", LOW, HIGH, later), "the other one can't be a central, or does not see us");
        assert!(!higher.wants("a", Tag([2; 6]), HIGH, later), "it changed its tag: a head start again");
    }

    #[test]
    fn of_two_crossing_links_both_sides_keep_the_one_of_the_lower_tag() {
        let (mut lower, now) = pairs();
        let (mut higher, _) = pairs();
        // Each has the link it opened itself; then the other one's arrives.
        assert_eq!(link(&mut lower, PEER, 1, true, "b", now), None);
        assert_eq!(link(&mut higher, PEER, 1, true, "a", now), None);
        assert!(matches!(lower.proved(PEER, HIGH, LOW, false, now), Verdict::Leave(_)));
        assert_eq!(higher.proved(PEER, LOW, HIGH, false, now), Verdict::Take);
        assert_eq!(link(&mut higher, PEER, 2, false, "a", now), Some(1), "the own one is ended");
        // Later, a second one means that the peer has lost the first.
        assert_eq!(lower.proved(PEER, HIGH, LOW, false, now + CROSSING), Verdict::Take);
    }

    #[test]
    fn the_budget_holds_and_a_linked_peer_is_not_connected_to_again() {
        let (mut pairs, now) = pairs();
        link(&mut pairs, PEER, 1, true, "b", now);
        assert!(!pairs.wants("b", HIGH, LOW, now));
        assert_eq!(pairs.proved(PEER, HIGH, LOW, true, now), Verdict::Take);
        assert!(!pairs.wants("b under another address", HIGH, LOW, now), "its tag is known");
        for n in 2..=5 {
            assert!(pairs.wants(&n.to_string(), Tag([n; 6]), LOW, now));
            link(&mut pairs, PeerKey([n; 32]), u64::from(n), true, &n.to_string(), now);
        }
        assert!(!pairs.has_room());
        assert!(!pairs.wants("one more", HIGH, LOW, now));
        pairs.over(PeerKey([5; 32]), LinkId(5), now);
        pairs.begins();
        assert!(!pairs.has_room(), "what is under way counts");
        pairs.ends();
        assert!(pairs.has_room());
    }

    #[test]
    fn failures_are_tried_ever_more_slowly() {
        let (mut pairs, now) = pairs();
        assert!(pairs.wants("b", HIGH, LOW, now));
        pairs.failed("b", now);
        assert!(!pairs.wants("b", HIGH, LOW, now + Duration::from_secs(1)));
        assert!(pairs.wants("b", HIGH, LOW, now + Duration::from_secs(2)));
        for _ in 0..20 {
            pairs.failed("b", now);
        }
        assert!(!pairs.wants("b", HIGH, LOW, now + Duration::from_secs(299)));
        assert!(pairs.wants("b", HIGH, LOW, now + Duration::from_secs(300)));
        // A good link ends the back-off, a short one is a failure of its own.
        link(&mut pairs, PEER, 1, true, "b", now);
        pairs.over(PEER, LinkId(1), now + GOOD_LIFE);
        assert!(pairs.wants("b", HIGH, LOW, now + GOOD_LIFE));
        link(&mut pairs, PEER, 2, true, "b", now);
        pairs.over(PEER, LinkId(2), now + Duration::from_secs(1));
        assert!(!pairs.wants("b", HIGH, LOW, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_refused_or_resting_peer_is_left_alone_until_it_may_come_back() {
        let (mut pairs, now) = pairs();
        assert!(pairs.wants("b", HIGH, LOW, now));
        assert_eq!(pairs.proved(PEER, HIGH, LOW, true, now), Verdict::Take);
        link(&mut pairs, PEER, 1, true, "b", now);
        assert_eq!(pairs.refuse(PEER, now + Duration::from_secs(60)), Some(1));
        assert!(!pairs.wants("b", HIGH, LOW, now + Duration::from_secs(59)));
        assert!(matches!(pairs.proved(PEER, HIGH, LOW, false, now), Verdict::Leave(_)));
        assert!(pairs.wants("b", HIGH, LOW, now + Duration::from_secs(60)));
        pairs.readmit(&PEER);
        assert!(pairs.wants("b", HIGH, LOW, now));

        link(&mut pairs, PEER, 2, true, "b", now);
        assert_eq!(pairs.rest(PEER), Some(2));
        assert!(!pairs.wants("b", HIGH, LOW, now));
        pairs.failed("b", now);
        pairs.wake(&PEER, now);
        assert!(pairs.wants("b", HIGH, LOW, now), "at once");
    }

    #[test]
    fn a_crowd_is_not_remembered() {
        let (mut pairs, now) = pairs();
        for n in 0..2_000_u32 {
            pairs.wants(&n.to_string(), HIGH, LOW, now + Duration::from_millis(n.into()));
        }
        assert_eq!(pairs.candidates.len(), REMEMBERED_MAX);
    }
}
