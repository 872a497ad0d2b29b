//! What is sent next. Operations about one record form a lane: they go in their order, one at a
//! time, and what can't go holds its own lane alone. Among lanes the urgent go first, then the
//! oldest. Pure: virtual time, no chance.

use std::collections::{BTreeMap, BTreeSet};

use crdt_model::ids::RecordId;

/// An operation to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The record that it is about.
    pub lane: RecordId,
    /// Its place in its lane, and among lanes of the same priority: by time.
    pub order: u64,
    /// 0 goes first.
    pub priority: u8,
    /// Not before.
    pub not_before_ms: u64,
    /// It waits for a person, and holds its lane.
    pub held: bool,
}

/// How a job is left when its call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is done.
    Gone,
    /// It is tried again, not before this.
    Later(u64),
    /// It waits for a person.
    Held,
    /// It waits for another operation.
    For(RecordId),
}

/// What is sent next.
#[derive(Debug, Default)]
pub struct Schedule {
    jobs: BTreeMap<RecordId, Job>,
    lanes: BTreeMap<RecordId, BTreeSet<(u64, RecordId)>>,
    /// Heads of lanes that may go, by priority and age.
    ready: BTreeSet<(u8, u64, RecordId)>,
    /// Heads of lanes that may go later.
    timers: BTreeSet<(u64, RecordId)>,
    calling: BTreeSet<RecordId>,
    /// Who waits for whom.
    waiting: BTreeMap<RecordId, RecordId>,
    waited_for: BTreeMap<RecordId, BTreeSet<RecordId>>,
}

impl Schedule {
    /// Adds an operation, or says anew how it stands. What is being sent stays so.
    pub fn put(&mut self, id: RecordId, job: Job) {
        if self.calling.contains(&id) {
            return;
        }
        self.take_out(id);
        self.lanes.entry(job.lane).or_default().insert((job.order, id));
        self.jobs.insert(id, job);
        self.arrange(job.lane);
    }

    /// Takes an operation out: it is done, or somebody else's.
    pub fn remove(&mut self, id: RecordId) {
        self.calling.remove(&id);
        self.take_out(id);
        self.free_those_waiting_for(id);
    }

    /// The next one to be sent; it counts as being sent then.
    pub fn next(&mut self, now_ms: u64) -> Option<RecordId> {
        self.next_of(now_ms, |_| true)
    }

    /// The next one of some to be sent.
    pub fn next_of(&mut self, now_ms: u64, wanted: impl Fn(RecordId) -> bool) -> Option<RecordId> {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.timers.remove(&(at, id));
            if let Some(job) = self.jobs.get(&id) {
                self.ready.insert((job.priority, job.order, id));
            }
        }
        let found = self.ready.iter().find(|(.., id)| wanted(*id)).copied()?;
        self.ready.remove(&found);
        let (.., id) = found;
        self.calling.insert(id);
        Some(id)
    }

    /// A call ended.
    pub fn ended(&mut self, id: RecordId, left: Left) {
        self.calling.remove(&id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let lane = job.lane;
        match left {
            Left::Gone => return self.remove(id),
            Left::Later(at) => (job.held, job.not_before_ms) = (false, at),
            Left::Held => job.held = true,
            Left::For(other) => {
                self.waiting.insert(id, other);
                self.waited_for.entry(other).or_default().insert(id);
            }
        }
        self.arrange(lane);
    }

    /// Makes everything due that only waits for its time.
    pub fn hurry(&mut self) {
        for (_, id) in std::mem::take(&mut self.timers) {
            if let Some(job) = self.jobs.get(&id) {
                self.ready.insert((job.priority, job.order, id));
            }
        }
    }

    /// Makes one due that only waits for its time.
    pub fn hurry_one(&mut self, id: RecordId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if self.timers.remove(&(job.not_before_ms, id)) {
            self.ready.insert((job.priority, job.order, id));
        }
    }

    /// When the next one is due that only waits for its time.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        if !self.ready.is_empty() {
            return Some(0);
        }
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many are being sent.
    #[must_use]
    pub fn calling(&self) -> usize {
        self.calling.len()
    }

    /// Whether one is being sent.
    #[must_use]
    pub fn is_calling(&self, id: RecordId) -> bool {
        self.calling.contains(&id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many wait behind another one, or for a person.
    #[must_use]
    pub fn held(&self) -> usize {
        self.jobs.len().saturating_sub(self.ready.len() + self.timers.len() + self.calling.len())
    }

    /// Those that are to be sent without anybody's word: not held.
    pub fn sendable(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.jobs.iter().filter(|(_, job)| !job.held).map(|(id, _)| *id)
    }

    fn take_out(&mut self, id: RecordId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        self.ready.remove(&(job.priority, job.order, id));
        self.timers.remove(&(job.not_before_ms, id));
        if let Some(other) = self.waiting.remove(&id)
            && let Some(those) = self.waited_for.get_mut(&other)
        {
            those.remove(&id);
        }
        if let Some(lane) = self.lanes.get_mut(&job.lane) {
            lane.remove(&(job.order, id));
            if lane.is_empty() {
                self.lanes.remove(&job.lane);
            }
        }
        self.arrange(job.lane);
    }

    /// Lists a lane's head where it belongs; nothing else of the lane may go.
    fn arrange(&mut self, lane: RecordId) {
        let Some(queue) = self.lanes.get(&lane) else { return };
        if queue.iter().any(|(_, id)| self.calling.contains(id)) {
            return;
        }
        let mut in_order = queue.iter();
        let head = in_order.next();
        if let Some((_, second)) = in_order.next()
            && let Some(job) = self.jobs.get(second)
        {
            // It was the head before something older came.
            self.ready.remove(&(job.priority, job.order, *second));
            self.timers.remove(&(job.not_before_ms, *second));
        }
        let Some((_, id)) = head else { return };
        let Some(job) = self.jobs.get(id) else { return };
        if job.held || self.waiting.contains_key(id) {
            self.ready.remove(&(job.priority, job.order, *id));
        } else if job.not_before_ms == 0 {
            self.ready.insert((job.priority, job.order, *id));
        } else if !self.ready.contains(&(job.priority, job.order, *id)) {
            self.timers.insert((job.not_before_ms, *id));
        }
    }

    fn free_those_waiting_for(&mut self, id: RecordId) {
        for freed in self.waited_for.remove(&id).unwrap_or_default() {
            self.waiting.remove(&freed);
            if let Some(job) = self.jobs.get(&freed) {
                self.arrange(job.lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> RecordId {
        RecordId(uuid::Uuid::from_u128(u128::from(number)))
    }

    fn job(lane: u64, order: u64, priority: u8) -> Job {
        Job { lane: id(lane), order, priority, not_before_ms: 0, held: false }
    }

    #[test]
    fn payments_go_before_sales_and_the_oldest_first_but_a_lane_keeps_its_order() {
        let mut schedule = Schedule::default();
        schedule.put(id(1), job(1, 10, 1));
        schedule.put(id(2), job(1, 20, 0)); // a payment for the sale 1
        schedule.put(id(3), job(3, 30, 0)); // a payment for nothing
        schedule.put(id(4), job(4, 5, 2));
        let sent: Vec<_> = std::iter::from_fn(|| schedule.next(0)).collect();
        assert_eq!(sent, [id(3), id(1), id(4)], "the payment for the sale waits for it");
        schedule.ended(id(1), Left::Gone);
        assert_eq!(schedule.next(0), Some(id(2)));
    }

    #[test]
    fn who_waits_for_another_operation_goes_once_that_is_done() {
        let mut schedule = Schedule::default();
        schedule.put(id(1), job(1, 10, 1));
        schedule.put(id(2), job(2, 5, 1));
        assert_eq!(schedule.next(0), Some(id(2)));
        schedule.ended(id(2), Left::For(id(1)));
        assert_eq!(schedule.next(0), Some(id(1)));
        assert_eq!(schedule.next(0), None);
        schedule.ended(id(1), Left::Gone);
        assert_eq!(schedule.next(0), Some(id(2)));
    }

    #[test]
    fn what_waits_for_its_time_goes_then_or_when_somebody_is_in_a_hurry() {
        let mut schedule = Schedule::default();
        schedule.put(id(1), Job { not_before_ms: 500, ..job(1, 1, 1) });
        schedule.put(id(2), Job { not_before_ms: 900, ..job(2, 2, 1) });
        assert_eq!((schedule.next(499), schedule.due_at_ms()), (None, Some(500)));
        assert_eq!(schedule.next(500), Some(id(1)));
        schedule.put(id(3), Job { not_before_ms: 900, ..job(3, 1, 1) });
        schedule.hurry_one(id(3));
        schedule.hurry_one(id(7));
        assert_eq!((schedule.next(500), schedule.next(500)), (Some(id(3)), None));
        schedule.hurry();
        assert_eq!(schedule.next_of(500, |other| other == id(3)), None);
        assert_eq!(schedule.next(500), Some(id(2)));
    }

    #[test]
    fn something_older_that_arrives_late_goes_before_the_head_of_its_lane() {
        let mut schedule = Schedule::default();
        schedule.put(id(2), job(1, 20, 1));
        schedule.put(id(1), job(1, 10, 1));
        assert_eq!(schedule.next(0), Some(id(1)));
        assert_eq!(schedule.next(0), None);
    }

    proptest! {
        /// One poisoned operation never blocks another lane, every lane keeps its order, and
        /// nothing is forgotten.
        #[test]
        fn whatever_fails_every_other_lane_is_done_in_order(
            jobs in proptest::collection::vec((0..6_u64, 0..3_u8), 1..40),
            poisoned in 0..40_usize,
            luck in proptest::collection::vec(any::<bool>(), 200),
            together in 1..5_usize,
        ) {
            let mut schedule = Schedule::default();
            let poisoned = id(1_000 + (poisoned % jobs.len()) as u64);
            for (number, (lane, priority)) in (0..).zip(&jobs) {
                schedule.put(id(1_000 + number), job(*lane, number, *priority));
            }
            let (mut done, mut calling, mut now) = (Vec::new(), Vec::new(), 0_u64);
            let mut luck = luck.into_iter().cycle();
            for _ in 0..2_000 {
                now += 1;
                while calling.len() < together {
                    let Some(next) = schedule.next(now) else { break };
                    calling.push(next);
                }
                let Some(ended) = calling.pop() else {
                    if schedule.due_at_ms().is_none() { break }
                    continue;
                };
                if ended == poisoned {
                    schedule.ended(ended, Left::Held);
                } else if luck.next() == Some(true) {
                    done.push(ended);
                    schedule.ended(ended, Left::Gone);
                } else {
                    schedule.ended(ended, Left::Later(now + 3));
                }
            }
            let lane_of = |wanted: RecordId| jobs[usize::try_from(wanted.0.as_u128() - 1_000).unwrap()].0;
            let blocked = |candidate: RecordId| lane_of(candidate) == lane_of(poisoned) && candidate >= poisoned;
            for number in 0..jobs.len() as u64 {
                let candidate = id(1_000 + number);
                prop_assert_eq!(done.contains(&candidate), !blocked(candidate), "{}", number);
            }
            for lane in 0..6 {
                let order: Vec<_> = done.iter().filter(|one| lane_of(**one) == lane).collect();
                prop_assert!(order.is_sorted(), "lane {}", lane);
            }
        }
    }
}
