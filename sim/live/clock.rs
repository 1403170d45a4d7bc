//! The clock of a run: one monotonic origin for entries, cores and the plan.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dmp_core::time::{Mono, Now, Wall};

use crate::fleet::plan::RaeClock;

/// Time since the begin of the run, and where in it the load begins.
#[derive(Debug)]
pub(super) struct RunClock {
    began: Instant,
    load: OnceLock<Duration>,
}

impl RunClock {
    /// A run that begins now.
    #[must_use]
    pub(super) fn start() -> RunClock {
        RunClock { began: Instant::now(), load: OnceLock::new() }
    }

    /// Time since the begin of the run.
    #[must_use]
    pub(super) fn at(&self) -> Duration {
        self.began.elapsed()
    }

    /// What a core gets as now on a RAE with this wall clock.
    #[must_use]
    pub(super) fn now(&self, clock: &RaeClock) -> Now {
        let mono = Mono(u64::try_from(self.at().as_nanos()).expect("a run ends within 500 years"));
        let ahead = clock.ahead(self.in_load());
        Now { mono, wall: Wall(wall().0.saturating_add(ahead.millis())) }
    }

    /// Marks the begin of the load, `at` from the begin of the run; only the first call counts.
    pub(super) fn begin_load(&self, at: Duration) {
        let _already_begun = self.load.set(at);
    }

    /// Time since the begin of the load; `None` during warm-up.
    #[must_use]
    pub(super) fn in_load(&self) -> Option<Duration> {
        self.load.get().map(|load| self.at().saturating_sub(*load))
    }

    /// The instant that is `at` from the begin of the load; `None` during warm-up.
    #[must_use]
    pub(super) fn instant_of_load(&self, at: Duration) -> Option<Instant> {
        self.load.get().map(|load| self.began + *load + at)
    }

    /// The time of the run that is `at` from the begin of the load; `None` during warm-up.
    #[must_use]
    pub(super) fn of_load(&self, at: Duration) -> Option<Duration> {
        self.load.get().map(|load| *load + at)
    }

    /// The instant at which a core wants to be woken.
    #[must_use]
    pub(super) fn instant(&self, mono: Mono) -> Instant {
        self.began + Duration::from_nanos(mono.0)
    }
}

/// This machine's wall clock.
#[must_use]
pub(super) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
