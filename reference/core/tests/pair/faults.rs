//! What a seed may do to the world, and what happens on the devices meanwhile.

use std::time::Duration;

use dmp_core::{
    agent, bridge,
    core::{Publication, Qos},
    event::Topic,
    id::Session,
};
use rand::RngExt;
use uuid::Uuid;

use crate::{broker::Client, world::World};

/// Kinds of faults; each seed draws a subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Connections are refused, cut and slow.
    Links,
    /// Saves, probes, produces, writes and commits fail, or may have.
    Answers,
    /// Messages reach the broker again, late.
    Repeats,
    /// QoS 0 messages are lost.
    Loss,
    /// What a device reports does not reach its agent.
    MissedReports,
    /// Agents crash and stop; their clocks step meanwhile.
    Agents,
    /// The bridge crashes and stops.
    Bridge,
    /// The registry crashes; its partitions are given anew.
    Registry,
    /// Poison among the messages.
    Poison,
}

/// Faults that are on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults(u32);

impl Faults {
    pub(crate) const NONE: Faults = Faults(0);
    pub(crate) const ALL: Faults = Faults(u32::MAX);

    /// A tenth of the seeds is calm, a quarter has everything, the rest a subset.
    pub(crate) fn drawn(seed: u64) -> Faults {
        match seed % 20 {
            0 | 1 => Faults::NONE,
            2..=6 => Faults::ALL,
            _ => Faults(u32::try_from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap()),
        }
    }

    pub(crate) fn without(self, fault: Fault) -> Faults {
        Faults(self.0 & !(1 << fault as u32))
    }

    pub(crate) fn with(self, fault: Fault) -> Faults {
        Faults(self.0 | 1 << fault as u32)
    }

    pub(crate) fn is_on(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }
}

impl World {
    /// One fault of a kind that is on.
    pub(crate) fn strike(&mut self) {
        let agent = self.rng.random_range(0..self.raes.len());
        let within = Duration::from_millis(self.rng.random_range(0..1000));
        match self.rng.random_range(0..12) {
            0 if self.faults.is_on(Fault::Agents) => self.crash_and_step_clock(agent),
            1 if self.faults.is_on(Fault::Agents) => self.agent_event(agent, agent::Event::Stop { within }),
            2 if self.faults.is_on(Fault::Bridge) => self.crash_bridge(),
            3 if self.faults.is_on(Fault::Bridge) => self.bridge_event(bridge::Event::Stop { within }),
            4 if self.faults.is_on(Fault::Registry) => self.crash_registry(),
            5 if self.faults.is_on(Fault::Registry) => self.rebalance(true),
            6 if self.faults.is_on(Fault::Registry) => self.rebalance(false),
            7 if self.faults.is_on(Fault::Links) => self.cut(Client::Bridge),
            8 | 9 if self.faults.is_on(Fault::Links) => self.cut(Client::Agent(agent)),
            10 | 11 if self.faults.is_on(Fault::Poison) => self.poison(),
            _ => {}
        }
    }

    /// Something happens on a device: mostly a change, sometimes it is plugged in or out.
    pub(crate) fn change_something(&mut self) {
        if self.calm {
            return;
        }
        let at = self.rng.random_range(0..self.devices.len());
        let (attribute, remove) = (["fw", "sdk", "ip"][self.rng.random_range(0..3)], self.rng.random_bool(0.2));
        let replug = self.rng.random_range(0..100) < if self.devices[at].plugged { 10 } else { 50 };
        let missed = self.chance(Fault::MissedReports, 20);
        let device = &mut self.devices[at];
        let (index, hardware) = (device.agent, device.serial.as_str().into());
        let event = if replug {
            device.plugged = !device.plugged;
            if device.plugged { agent::Event::Detected { hardware } } else { agent::Event::Detached { hardware } }
        } else {
            let (set, unset) = device.change(attribute, remove);
            if !device.plugged || missed {
                return;
            }
            agent::Event::Reported { hardware, set, unset }
        };
        self.agent_event(index, event);
    }

    fn crash_and_step_clock(&mut self, agent: usize) {
        self.crash_agent(agent);
        self.raes[agent].skew_ms += self.rng.random_range(-3_600_000..3_600_000);
    }

    fn poison(&mut self) {
        let session = Session(Uuid::from_u128(self.rng.random()));
        // One that the bridge refuses, one that only the registry can.
        let topic = match self.rng.random_bool(0.3) {
            true => "dmp/v1/nonsense".to_owned(),
            false => Topic::State(self.raes[0].config.rae.clone(), session).to_string(),
        };
        let topic = topic.into();
        let payload = format!("poison {}", self.rng.random::<u64>()).into();
        self.inject(Publication { topic, payload, qos: Qos::AtLeastOnce, retain: false });
    }
}
