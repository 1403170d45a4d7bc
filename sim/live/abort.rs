//! Gives a run up when it does more harm to its target than its owner allows.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::judge::Standing;
use crate::target::AbortIf;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Errors are counted over this many looks: one broken connection is no rate.
const LOOKS: usize = 8;

/// Why a run was given up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Aborted {
    /// Too much waits in the log.
    #[error("given up: {lag} records are not committed, above abort_if.lag = {limit}")]
    Lag {
        /// How much.
        lag: u64,
        /// How much may.
        limit: u64,
    },
    /// Too many connections fail.
    #[error("given up: {per_s} connections a second were refused or broke, above abort_if.errors_per_s = {limit}")]
    Errors {
        /// How many.
        per_s: u64,
        /// How many may.
        limit: u64,
    },
}

/// Ends when a threshold is crossed; never where none is set.
pub(super) async fn reached(limits: AbortIf, standing: watch::Receiver<Standing>, errors: Arc<AtomicU64>) -> Aborted {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut seen = VecDeque::new();
    loop {
        ticks.tick().await;
        let lag = standing.borrow().figures.lag;
        if let Some(aborted) = crossed(limits, lag, per_s(&mut seen, errors.load(Ordering::Relaxed))) {
            return aborted;
        }
    }
}

fn crossed(limits: AbortIf, lag: u64, per_s: u64) -> Option<Aborted> {
    let above = |limit: Option<u64>, value| limit.filter(|&limit| value > limit);
    let lag = above(limits.lag, lag).map(|limit| Aborted::Lag { lag, limit });
    lag.or_else(|| above(limits.errors_per_s, per_s).map(|limit| Aborted::Errors { per_s, limit }))
}

/// The rate over the last looks, of a count that has grown to `total`.
fn per_s(seen: &mut VecDeque<u64>, total: u64) -> u64 {
    seen.push_back(total);
    if seen.len() > LOOKS + 1 {
        seen.pop_front();
    }
    let grown = total - seen.front().copied().unwrap_or(total);
    grown * 1_000 / (LOOK_EVERY.as_millis() as u64 * LOOKS as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_per_second_over_the_last_two() {
        let mut seen = VecDeque::new();
        assert_eq!(per_s(&mut seen, 0), 0);
        assert_eq!(per_s(&mut seen, 20), 10);
        for _ in 0..LOOKS - 1 {
            assert_eq!(per_s(&mut seen, 20), 10);
        }
        assert_eq!(per_s(&mut seen, 20), 0, "they are over");
    }

    #[test]
    fn what_is_above_its_limit_ends_a_run_and_what_is_at_it_does_not() {
        let limits = AbortIf { lag: Some(100), errors_per_s: Some(5) };
        assert_eq!(crossed(limits, 100, 5), None);
        assert_eq!(crossed(limits, 101, 0), Some(Aborted::Lag { lag: 101, limit: 100 }));
        assert_eq!(crossed(limits, 0, 6), Some(Aborted::Errors { per_s: 6, limit: 5 }));
        assert_eq!(crossed(AbortIf::default(), u64::MAX, u64::MAX), None);
    }
}
