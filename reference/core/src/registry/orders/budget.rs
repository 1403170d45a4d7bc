//! A token bucket: so many a second, and at most a second's worth at once.

use std::time::Duration;

use crate::time::Mono;

const SECOND: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm: one time stamp instead of a count that has to be refilled.
#[derive(Debug)]
pub(super) struct Budget {
    each: Duration,
    /// When the bucket would be full again.
    full_at: Mono,
}

impl Budget {
    pub(super) fn new(per_s: u32) -> Budget {
        assert!(per_s > 0, "a budget of zero grants nothing");
        Budget { each: SECOND / per_s, full_at: Mono(0) }
    }

    /// When the next one can be taken.
    pub(super) fn ready_at(&self) -> Mono {
        self.full_at - (SECOND - self.each)
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let granted = now >= self.ready_at();
        if granted {
            self.full_at = self.full_at.max(now) + self.each;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_is_there_at_once_and_then_one_at_a_time() {
        for per_s in [1, 3, 100] {
            let mut budget = Budget::new(per_s);
            let mut now = Mono(0) + Duration::from_secs(100);
            let burst = (0..1_000).filter(|_| budget.take(now)).count();
            assert_eq!(burst, per_s as usize, "at once");
            let mut taken = 0;
            while now < Mono(0) + Duration::from_secs(110) {
                now = budget.ready_at();
                assert!(budget.take(now) && !budget.take(now), "one at a time");
                taken += 1;
            }
            assert!((10 * per_s..=10 * per_s + 2).contains(&taken), "{taken} in 10 s at {per_s}/s");
        }
    }
}
