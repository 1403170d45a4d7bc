//! Power and network of a RAE: what faults, and the end of the run, do to it.

use std::time::{Duration, Instant};

use dmp_core::agent::{self, Agent, Event, Saved};

use super::{LiveRae, Order};

/// Longest drain of a RAE that stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Wait of a RAE for its own retained status.
const STATUS_WAIT: Duration = Duration::from_secs(1);

impl LiveRae {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Reboot(down) => {
                self.power_off();
                self.power_on_in(down);
            }
            Order::Wipe(down) => {
                self.power_off();
                self.disk = Saved::default();
                self.power_on_in(down);
            }
            Order::BreakDown(power_off, back) => {
                self.cut_off(back);
                self.power_off_at = Some(Instant::now() + power_off);
                self.power_on_in(back);
            }
            Order::Gone => {
                self.power_off();
                self.gone = true;
            }
            Order::Disconnect(lasts) => self.cut_off(lasts),
            Order::Stop if self.agent.is_some() => self.step(Some(Event::Stop { within: STOP_WITHIN })),
            Order::Stop => self.stopped = true,
        }
    }

    /// Powers it off and on when it is time to.
    pub(super) fn power(&mut self) {
        let now = Instant::now();
        if self.power_off_at.take_if(|at| now >= *at).is_some() {
            self.power_off();
        }
        if self.power_on_at.take_if(|at| now >= *at).is_some() && self.agent.is_none() && !self.gone {
            self.power_on();
        }
    }

    pub(super) fn power_on(&mut self) {
        self.boots += 1;
        let shared = self.shared.clone();
        let seed = crate::random::stream(shared.scenario.seed, "agent", u64::from(self.index.0) << 16 | self.boots);
        let seed = rand::RngExt::random::<u64>(&mut { seed });
        self.agent = Some(Agent::new(self.config(), self.disk.clone(), seed));
        self.step(Some(Event::Start));
        let here: Vec<_> = self.here().collect();
        for (device, _) in here {
            let planned = &shared.plan.devices[device.0 as usize];
            if !self.disk.devices.contains_key(&planned.id) {
                self.step(Some(Event::Detected { hardware: planned.hardware.clone() }));
            }
        }
    }

    fn power_off(&mut self) {
        self.agent = None;
        self.power_off_at = None;
        self.drop_link();
    }

    /// Of two faults that hold it down, the one that holds it longer counts.
    fn power_on_in(&mut self, down: Duration) {
        self.power_on_at = self.power_on_at.max(Some(Instant::now() + down));
    }

    fn cut_off(&mut self, lasts: Duration) {
        self.link_down_until = self.link_down_until.max(Some(Instant::now() + lasts));
        if let Some(connection) = self.drop_link() {
            self.step(Some(Event::Disconnected(connection)));
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
