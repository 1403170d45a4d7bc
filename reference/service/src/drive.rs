//! The one drive loop: events into a core, effects out of it in their order, and its one timer.
//!
//! Everything that waits is in the adapter's [`Adapter::next`]; [`Adapter::carry_out`] never waits. So the loop always
//! takes the next event, and no stage can be stuck on a core that is stuck on the stage.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dmp_core::{
    core::Core,
    time::{Mono, Now, Wall},
};

/// The process's two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    /// Both clocks, read together.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { mono: Mono(mono), wall: wall() }
    }

    fn instant_of(&self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + Duration::from_nanos(at.0))
    }
}

/// The wall clock.
#[must_use]
pub fn wall() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Whether the core goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It has stopped: nothing follows.
    Stopped,
}

/// What a core is driven with.
pub trait Adapter {
    /// The core.
    type Core: Core;

    /// The next event. Dropped and called again at will: must be cancel safe.
    fn next(&mut self) -> impl Future<Output = <Self::Core as Core>::Event> + Send;

    /// Carries out an effect, or hands it to a stage that will answer; never waits.
    fn carry_out(&mut self, effect: <Self::Core as Core>::Effect) -> Flow;

    /// Looks at the core after each turn; for gauges.
    fn observe(&mut self, core: &Self::Core);
}

/// Drives `core` until it says that it has stopped.
pub async fn drive<A: Adapter>(core: &mut A::Core, adapter: &mut A, clock: Clock) {
    let mut effects = Vec::new();
    loop {
        let woken = match core.deadline() {
            Some(at) if at <= clock.now().mono => None,
            Some(at) => tokio::select! {
                event = adapter.next() => Some(event),
                () = tokio::time::sleep_until(clock.instant_of(at)) => None,
            },
            None => Some(adapter.next().await),
        };
        match woken {
            Some(event) => core.handle(clock.now(), event, &mut effects),
            None => core.wake(clock.now(), &mut effects),
        }
        for effect in effects.drain(..) {
            if adapter.carry_out(effect) == Flow::Stopped {
                adapter.observe(core);
                return;
            }
        }
        adapter.observe(core);
    }
}
