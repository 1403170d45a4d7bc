//! The waits of [`Backoff`], drawn from a core's own seeded stream.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64;

use crate::agent::Backoff;

impl Backoff {
    /// The wait before try `attempt` + 1, where `attempt` tries have failed before this one: drawn from half to all of
    /// `first * 2^attempt`, at most `most`. Never zero, so that no retry is a busy loop.
    pub fn wait(&self, attempt: u32, rng: &mut Pcg64) -> Duration {
        let most = self.first.saturating_mul(1 << attempt.min(31)).min(self.most);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(2);
        Duration::from_nanos(rng.random_range(nanos / 2..=nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_wait_lies_between_half_and_all_of_the_doubled_first_and_never_above_the_cap() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
        let mut rng = Pcg64::seed_from_u64(7);
        for attempt in 0..100 {
            let upper = Duration::from_millis(100 << attempt.min(10)).min(backoff.most);
            let wait = backoff.wait(attempt, &mut rng);
            assert!(upper / 2 <= wait && wait <= upper, "attempt {attempt}: {wait:?} of {upper:?}");
        }
    }

    #[test]
    fn a_back_off_of_zero_still_waits() {
        let backoff = Backoff { first: Duration::ZERO, most: Duration::ZERO };
        assert!(backoff.wait(3, &mut Pcg64::seed_from_u64(7)) > Duration::ZERO);
    }
}
