//! How long a device is gone, and forgetting it.
//!
//! A wall clock may step by days, so it is trusted for one thing only: how long the RAE itself was off. A device that
//! this life of the agent has found is gone for the monotonic time since; one that it has not is gone for that time
//! since the start, and before it from the last time it was found to the reading of the clock at the start. A step of the
//! clock while the agent runs forgets nobody, and keeps nobody. A clock that was wrong at the start can at worst forget a
//! device early that is not there; when it comes it is onboarded anew.

use std::time::Duration;

use super::{Agent, Effect, Fact, devices::Slot, timers::Timer};
use crate::{id::Device, time::Now};

impl Agent {
    pub(super) fn forget_if_long_gone(&mut self, now: Now, device: Device, effects: &mut Vec<Effect>) {
        let Some(slot) = self.devices.get(&device).filter(|slot| slot.record.is_some()) else { return };
        if self.gone_for(now, slot) >= self.config.forget_after {
            self.forget(device, effects);
        }
    }

    /// The device is no longer this RAE's. What it still says in the outbox is true of its last session, and goes out.
    pub(super) fn forget(&mut self, device: Device, effects: &mut Vec<Effect>) {
        self.cancel_probe(device);
        self.devices.remove(&device);
        self.due.remove(&device);
        self.timers.cancel(Timer::Probe(device));
        self.timers.cancel(Timer::Snapshot(device));
        self.saves.device(device);
        effects.push(Effect::Fact(Fact::Forgotten(device)));
    }

    fn gone_for(&self, now: Now, slot: &Slot) -> Duration {
        if let Some(found) = slot.found_at {
            return now.mono.since(found);
        }
        let found_ms = slot.record.as_ref().map_or(self.started.wall.0, |record| record.saved().found_at.0);
        let off_ms = u64::try_from(self.started.wall.0.saturating_sub(found_ms)).unwrap_or(0);
        Duration::from_millis(off_ms).saturating_add(now.mono.since(self.started.mono))
    }
}
