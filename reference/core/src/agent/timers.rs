//! What an agent waits for: one time per timer, ordered by (time, timer), so that two timers of one instant always
//! fire in the same order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{id::Device, time::Mono};

/// Something that is due at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next connection attempt.
    Reconnect,
    /// The end of the wait for the RAE's own retained status.
    StatusWait,
    /// The next attempt to save.
    Save,
    /// The end of the drain.
    Stop,
    /// A probe of the device.
    Probe(Device),
    /// A snapshot of the device.
    Snapshot(Device),
}

/// The timers that are set. Each is set at most once.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Mono, Timer)>,
    times: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets a timer, anew where it is set already.
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.cancel(timer);
        self.queue.insert((at, timer));
        self.times.insert(timer, at);
    }

    /// Takes a timer back; harmless where it is not set.
    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.times.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    /// Takes all timers back.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.times.clear();
    }

    /// Whether a timer is set.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.times.contains_key(&timer)
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Mono> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes the first that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        (at <= now).then(|| {
            self.cancel(timer);
            timer
        })
    }
}
