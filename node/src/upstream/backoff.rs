//! How long to wait before the next try, and when to leave a destination alone. Pure: times and
//! chance come in.

/// Exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub base_ms: u64,
    /// The longest pause.
    pub cap_ms: u64,
}

impl Backoff {
    /// The pause after so many failures in a row, from 1. Half of it is chance, so that many who
    /// failed together don't come back together.
    #[must_use]
    pub fn pause_ms(self, failures: u32, entropy: u64) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let whole = self.base_ms.saturating_mul(1_u64 << doublings).min(self.cap_ms);
        let half = whole / 2;
        half + entropy % (whole - half + 1)
    }
}

/// A circuit breaker: after several failures in a row a destination is left alone for a pause that
/// doubles, then one call tries whether it is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    opens_after: u32,
    backoff: Backoff,
    failures: u32,
    opened: u32,
    open_until_ms: Option<u64>,
    probing: bool,
}

impl Breaker {
    /// A closed breaker, which opens after so many failures in a row.
    #[must_use]
    pub fn new(opens_after: u32, backoff: Backoff) -> Self {
        Self { opens_after: opens_after.max(1), backoff, failures: 0, opened: 0, open_until_ms: None, probing: false }
    }

    /// Whether a call may begin.
    #[must_use]
    pub fn admits(&self, now_ms: u64) -> bool {
        self.open_until_ms.is_none_or(|until| now_ms >= until && !self.probing)
    }

    /// Until when it admits nobody.
    #[must_use]
    pub fn open_until_ms(&self) -> Option<u64> {
        self.open_until_ms
    }

    /// A call begins.
    pub fn begun(&mut self) {
        self.probing = self.open_until_ms.is_some();
    }

    /// The destination answered.
    pub fn answered(&mut self) {
        *self = Self::new(self.opens_after, self.backoff);
    }

    /// The destination did not answer, or failed.
    pub fn failed(&mut self, now_ms: u64, entropy: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.probing || self.failures >= self.opens_after {
            self.opened = self.opened.saturating_add(1);
            let pause = self.backoff.pause_ms(self.opened, entropy);
            self.open_until_ms = Some(now_ms.saturating_add(pause));
            self.probing = false;
        }
    }

    /// A call ended that says nothing of the destination.
    pub fn nothing_learnt(&mut self) {
        self.probing = false;
    }

    /// Somebody knows better: the next call may try at once.
    pub fn try_now(&mut self, now_ms: u64) {
        if let Some(until) = &mut self.open_until_ms {
            *until = (*until).min(now_ms);
            self.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base_ms: 1_000, cap_ms: 60_000 };

    proptest! {
        #[test]
        fn a_pause_lies_between_half_and_the_whole_and_never_beyond_the_cap(failures in 1..100_u32, entropy: u64) {
            let whole = 1_000_u64.saturating_mul(1 << (failures - 1).min(32)).min(60_000);
            let pause = BACKOFF.pause_ms(failures, entropy);
            prop_assert!((whole / 2..=whole).contains(&pause));
        }
    }

    #[test]
    fn it_opens_after_some_failures_probes_once_and_closes_with_an_answer() {
        let mut breaker = Breaker::new(3, BACKOFF);
        for _ in 0..2 {
            breaker.begun();
            breaker.failed(0, 0);
        }
        assert!(breaker.admits(0));
        breaker.failed(0, 0);
        let until = breaker.open_until_ms().unwrap();
        assert!(!breaker.admits(until - 1) && breaker.admits(until));
        breaker.begun();
        assert!(!breaker.admits(until), "one probe at a time");
        breaker.failed(until, 0);
        assert!(breaker.open_until_ms().unwrap() > until + 900, "its pause doubles");
        breaker.try_now(until);
        assert!(breaker.admits(until));
        breaker.begun();
        breaker.answered();
        assert!(breaker.admits(0) && breaker.open_until_ms().is_none());
    }
}
