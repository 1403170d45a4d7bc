//! Power and network of a RAE: what faults, and the end of the run, do to it.

use std::time::{Duration, Instant};

use dmp_core::agent::{self, Agent, Event};

use super::{LiveRae, Order};
use crate::fleet::plan::DeviceIndex;

/// Longest drain of a RAE that stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Wait of a RAE for its own retained status.
const STATUS_WAIT: Duration = Duration::from_secs(1);

impl LiveRae {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Reboot(down) => {
                self.agent = None;
                self.drop_link();
                self.power_on_at = Some(Instant::now() + down);
            }
            Order::Disconnect(lasts) => {
                self.link_down_until = Some(Instant::now() + lasts);
                if let Some(connection) = self.drop_link() {
                    self.step(Some(Event::Disconnected(connection)));
                }
            }
            Order::Stop if self.agent.is_some() => self.step(Some(Event::Stop { within: STOP_WITHIN })),
            Order::Stop => self.stopped = true,
        }
    }

    pub(super) fn power_on(&mut self) {
        self.boots += 1;
        let shared = self.shared.clone();
        let seed = crate::random::stream(shared.scenario.seed, "agent", u64::from(self.index.0) << 16 | self.boots);
        let seed = rand::RngExt::random::<u64>(&mut { seed });
        self.agent = Some(Agent::new(self.config(), self.disk.clone(), seed));
        self.step(Some(Event::Start));
        for device in shared.plan.raes[self.index.0 as usize].devices.clone().map(DeviceIndex) {
            let planned = &shared.plan.devices[device.0 as usize];
            if !self.disk.devices.contains_key(&planned.id) && self.attached(device) {
                self.step(Some(Event::Detected { hardware: planned.hardware.clone() }));
            }
        }
    }

    fn config(&self) -> agent::Config {
        let (fleet, rae) = (&self.shared.scenario.fleet, &self.shared.plan.raes[self.index.0 as usize]);
        // A canary is gone before its first periodic snapshot.
        let forever = Duration::from_secs(24 * 3600);
        let (snapshot_every, probe_every) = match rae.stay {
            None => (fleet.snapshot_every, fleet.probe_every),
            Some(_) => (forever, forever),
        };
        agent::Config {
            rae: rae.serial.clone(),
            qos: fleet.qos,
            snapshot_every,
            snapshot_jitter_permille: crate::fleet::SNAPSHOT_JITTER_PERMILLE,
            probe_every,
            forget_after: Duration::from_secs(7 * 24 * 3600),
            window: 20,
            outbox: crate::fleet::OUTBOX_EVENTS,
            status_wait: STATUS_WAIT,
            backoff: crate::fleet::BACKOFF,
        }
    }
}
