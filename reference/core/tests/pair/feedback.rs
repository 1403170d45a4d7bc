//! Feedback to sessions that lost, and the troubles that only it heals: clocks hours apart, wiped disks, moved devices.
//!
//! A notice goes the whole way: from the store's answer through registry, Kafka and downlink to the agent.

use std::time::Duration;

use dmp_core::{agent, core::Qos, registry::Feedback};
use rand::RngExt;

use crate::{
    faults::Faults,
    world::{PROBE_EVERY, SNAPSHOT_EVERY, World},
};

const HOUR_MS: i64 = 3_600_000;

/// What happens while the faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Clocks step by hours, both ways, and devices move between them.
    Clocks,
    /// Disks are lost under clocks that step.
    Wipes,
    /// Devices move, also while their RAE is down, and boots later, or while it has no network, and sends its full outbox
    /// later.
    Moves,
}

/// How long a RAE has no network: more than fills its outbox, and in which some of its devices move.
const ISOLATED: Duration = Duration::from_secs(4);

/// Snapshot periods after the faults within which every record is right and the notices have ended.
const PERIODS: u32 = 3;

/// Feedback that suits a world in which a device sends a snapshot every three seconds.
pub(crate) fn feedback(repair: bool) -> Feedback {
    let gap_wait = Duration::from_millis(200);
    Feedback { repair, gap_wait, expires_after: Duration::from_secs(5), ..Feedback::with_period(SNAPSHOT_EVERY) }
}

/// Runs one seed of a trouble; returns what is wrong in the end.
pub(crate) fn heals(seed: u64, trouble: Trouble) -> Result<World, String> {
    let mut world = World::new(seed, Faults::drawn(seed), Qos::AtLeastOnce);
    world.registries[0].feedback = Some(feedback(false));
    for _ in 0..60 {
        world.run(Duration::from_millis(350));
        world.make_trouble(trouble);
    }
    (world.faults, world.calm) = (Faults::NONE, true);
    world.plug_all();
    // A restart, a back-off, a probe, what the backlog takes, and the periods.
    world.run(Duration::from_secs(3 + 2 + 7) + PROBE_EVERY + (PERIODS + 1) * SNAPSHOT_EVERY);
    world.is_right("after the bound")?;
    let notices = world.told();
    world.run(2 * SNAPSHOT_EVERY + PROBE_EVERY);
    world.is_right("two periods later")?;
    if world.told() > notices {
        return Err(format!("{} notices when all should be at rest", world.told() - notices));
    }
    Ok(world)
}

impl World {
    /// How many notices the registry has sent.
    pub(crate) fn told(&self) -> u64 {
        self.reached.get("notice sent").copied().unwrap_or(0)
    }

    fn make_trouble(&mut self, trouble: Trouble) {
        let (rae, device) = (self.rng.random_range(0..self.raes.len()), self.rng.random_range(0..self.devices.len()));
        let step_ms = self.rng.random_range(-6 * HOUR_MS..6 * HOUR_MS);
        match (trouble, self.rng.random_range(0..10)) {
            (Trouble::Clocks | Trouble::Wipes, 0 | 1) => self.step_clock(rae, step_ms),
            (Trouble::Clocks | Trouble::Moves, 2 | 3) => self.move_device(device, rae),
            (Trouble::Wipes, 2) => self.wipe_agent(rae),
            (Trouble::Moves, 5) => self.isolate_agent(rae, ISOLATED),
            (Trouble::Moves, 4) => {
                let from = self.devices[device].agent;
                self.crash_agent(from);
                self.move_device(device, rae);
            }
            _ => {}
        }
    }

    fn plug_all(&mut self) {
        for at in 0..self.devices.len() {
            self.devices[at].plugged = true;
            let hardware = self.devices[at].serial.as_str().into();
            self.agent_event(self.devices[at].agent, agent::Event::Detected { hardware });
        }
    }

    /// Whether every record equals its device, on the RAE where that is.
    fn is_right(&self, when: &str) -> Result<(), String> {
        for hardware in &self.devices {
            let state = self.registries[0].store.devices.get(&hardware.device());
            let rae = state.and_then(|state| Some(state.floor.as_ref()?.rae.clone()));
            let record = state.and_then(|state| state.visible());
            let plain = record
                .map(|record| record.into_iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect());
            let (is, home) = (hardware.device(), &self.raes[hardware.agent].config.rae);
            if rae.as_ref() != Some(home) {
                return Err(format!("C9 {when}: {is} of {home} is shown at {rae:?}"));
            }
            if plain != Some(hardware.truth()) {
                return Err(format!("C9 {when}: {is} of {home} is {plain:?} and not {:?}", hardware.truth()));
            }
        }
        Ok(())
    }
}
