//! The device plan: the truth that every check is held against, made from scenario and seed before the run.
//!
//! It numbers each device's changes from 1 (0 is the record with which the device comes into being). A change made on
//! the device sets the integer attribute `rev` to its number, and every other value it sets leads back to that number,
//! so that a stored value proves by itself when it was true. Unplugging is a change too; `rev` then stays. A device that
//! moves is unplugged at one RAE and plugged in at another: its changes go on counting across.
//!
//! The parts: `device` and `rae` are what is planned, `changes` and `moves` how it is drawn, `attributes` the values.

mod attributes;
mod changes;
mod device;
mod moves;
mod rae;
#[cfg(test)]
mod tests;

pub use attributes::{ATTRIBUTES, COMMANDED, Names, attribute};
pub use device::{Change, ChangeKind, DevicePlan, Move};
pub use moves::power_off_after;
pub use rae::{RaeClock, RaePlan};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{
    event::{AttributeName, CONNECTION, Value},
    id::{Device, Rae},
};
use rand::RngExt;

use crate::{
    fleet::RunPrefix,
    random::{chosen, stream},
    scenario::{Canary, Scenario},
};
use attributes::{REPORT, REV};
use changes::Life;
use moves::Moves;

/// Index of a device in [`Plan::devices`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub u32);

/// Index of a RAE in [`Plan::raes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaeIndex(pub u32);

/// Number of a change of one device, from 1; 0 is its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChangeNumber(pub u32);

/// The whole truth of a run.
#[derive(Debug)]
pub struct Plan {
    /// All RAEs: the standing ones, then those of canaries.
    pub raes: Vec<RaePlan>,
    /// All devices, grouped by the RAE that they are on first.
    pub devices: Vec<DevicePlan>,
    report_bytes: usize,
    by_id: BTreeMap<Device, DeviceIndex>,
    by_serial: BTreeMap<Rae, RaeIndex>,
    prefix: Option<RunPrefix>,
}

/// Whether fault number `fault` of the scenario hits the device or RAE with the number `entity`, by its share.
#[must_use]
pub fn hits(seed: u64, fault: usize, entity: u64, share: f64) -> bool {
    chosen(seed, &format!("fault {fault}"), entity, share)
}

/// What a delta and a snapshot hold beside `report`, on average: so that payloads come out at the size asked for.
const PAYLOAD_WITHOUT_REPORT_BYTES: u32 = 410;

/// Time between two messages of a canary.
pub const CANARY_PACE: Duration = Duration::from_millis(100);

/// How long a canary stays after its last message.
const CANARY_LINGERS: Duration = Duration::from_secs(2);

impl Plan {
    /// The plan of `scenario`: the same for the same scenario and seed.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Plan {
        Plan::of_run(scenario, None)
    }

    /// The same with serials, and so devices, that are those of one run alone.
    #[must_use]
    pub fn of_run(scenario: &Scenario, prefix: Option<RunPrefix>) -> Plan {
        let report_bytes = scenario.fleet.record_bytes.saturating_sub(PAYLOAD_WITHOUT_REPORT_BYTES).max(8) as usize;
        let (raes, devices) = (Vec::new(), Vec::new());
        let mut plan = Plan { raes, devices, report_bytes, by_id: BTreeMap::new(), by_serial: BTreeMap::new(), prefix };
        let moves = Moves::new(scenario);
        for number in 0..scenario.fleet.raes {
            let rae = RaeIndex(number);
            plan.add_rae(&format!("RAE-{number:07}"), None, scenario.fleet.devices_per_rae, |device| {
                changes::standing(scenario, &moves, device, rae)
            });
            let planned = &mut plan.raes[number as usize];
            (planned.clock, planned.gone_at) = (RaeClock::new(scenario, rae), moves.gone_at(rae));
        }
        for (index, phase) in scenario.phases.iter().enumerate() {
            if let Some(canary) = &phase.canary {
                plan.add_canaries(scenario.seed, index, scenario.phase_begins(index), canary);
            }
        }
        plan.add_guests();
        plan.by_id = (0..).map(DeviceIndex).zip(&plan.devices).map(|(index, device)| (device.id, index)).collect();
        plan.by_serial = (0..).map(RaeIndex).zip(&plan.raes).map(|(index, rae)| (rae.serial.clone(), index)).collect();
        plan
    }

    /// A serial in the manner of the run's others, which none of them has.
    ///
    /// # Panics
    /// If `name` is not of letters, digits and hyphens.
    #[must_use]
    pub fn serial(&self, name: &str) -> Rae {
        let serial = self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| prefix.serial(name));
        Rae::try_from(serial.as_str()).expect("made of letters, digits and hyphens")
    }

    /// What the run's serials begin with, where it is not alone on its servers.
    #[must_use]
    pub fn prefix(&self) -> Option<&RunPrefix> {
        self.prefix.as_ref()
    }

    /// The device with this id, if it is one of the plan's.
    #[must_use]
    pub fn device(&self, id: Device) -> Option<DeviceIndex> {
        self.by_id.get(&id).copied()
    }

    /// The RAE with this serial, if it is one of the plan's.
    #[must_use]
    pub fn rae(&self, serial: &Rae) -> Option<RaeIndex> {
        self.by_serial.get(serial).copied()
    }

    /// The RAE that a device is plugged into, or was last, after change number `change`.
    #[must_use]
    pub fn home(&self, device: DeviceIndex, change: ChangeNumber) -> RaeIndex {
        self.devices[device.0 as usize].home(change)
    }

    /// Number of the last change of a device at or before `at`.
    #[must_use]
    pub fn change_at(&self, device: DeviceIndex, at: Duration) -> ChangeNumber {
        let changes = &self.devices[device.0 as usize].changes;
        ChangeNumber(changes.partition_point(|change| change.at <= at) as u32)
    }

    /// When a change is intended, from the begin of the load; the first record counts as from the begin.
    #[must_use]
    pub fn intended(&self, device: DeviceIndex, change: ChangeNumber) -> Duration {
        match change.0.checked_sub(1) {
            Some(index) => self.devices[device.0 as usize].changes[index as usize].at,
            None => {
                self.raes[self.devices[device.0 as usize].rae.0 as usize].stay.map_or(Duration::ZERO, |(from, _)| from)
            }
        }
    }

    /// Whether the device is plugged in after change number `change`.
    #[must_use]
    pub fn attached(&self, device: DeviceIndex, change: ChangeNumber) -> bool {
        self.devices[device.0 as usize].attached(change)
    }

    /// The record on the device itself after change number `change`: H(d, k) without `connection`.
    #[must_use]
    pub fn record(&self, device: DeviceIndex, change: ChangeNumber) -> BTreeMap<AttributeName, Value> {
        (0..ATTRIBUTES.len())
            .filter_map(|index| {
                let (origin, present) = self.origin(device, change, index);
                present.then(|| (attribute(index), self.value(device, origin, index)))
            })
            .collect()
    }

    /// The record as the store should show it after change number `change`: with `connection`.
    #[must_use]
    pub fn shown(&self, device: DeviceIndex, change: ChangeNumber) -> BTreeMap<AttributeName, Value> {
        let mut record = self.record(device, change);
        let connection = if self.attached(device, change) { "attached" } else { "detached" };
        let name = AttributeName::try_from(CONNECTION).expect("valid by hand");
        record.insert(name, Value::Text(connection.into()));
        record
    }

    /// The change at or before `change` that last touched attribute number `index`, and whether it is present then.
    #[must_use]
    pub fn origin(&self, device: DeviceIndex, change: ChangeNumber, index: usize) -> (ChangeNumber, bool) {
        let changes = &self.devices[device.0 as usize].changes[..change.0 as usize];
        for (at, change) in changes.iter().enumerate().rev() {
            let number = ChangeNumber(at as u32 + 1);
            match change.kind {
                ChangeKind::Update { set, .. } if set.contains(index) => return (number, true),
                ChangeKind::Update { unset, .. } if unset.contains(index) => return (number, false),
                ChangeKind::Attach if index == REV || index == REPORT => return (number, true),
                ChangeKind::Update { .. } | ChangeKind::Attach | ChangeKind::Detach => {}
            }
        }
        (ChangeNumber(0), true)
    }

    /// The change that gave attribute `name` this value, at or before `until`; `None` if it never had it by then.
    #[must_use]
    pub fn source(&self, device: DeviceIndex, name: &str, value: &Value, until: ChangeNumber) -> Option<ChangeNumber> {
        let index = ATTRIBUTES.iter().position(|&known| known == name)?;
        let mut from = until;
        loop {
            let (origin, present) = self.origin(device, from, index);
            if present && self.value(device, origin, index) == *value {
                return Some(origin);
            }
            from = ChangeNumber(origin.0.checked_sub(1)?);
        }
    }

    fn add_rae(
        &mut self,
        name: &str,
        stay: Option<(Duration, Duration)>,
        devices: u32,
        mut life: impl FnMut(u32) -> Life,
    ) {
        let (rae, serial) = (RaeIndex(self.raes.len() as u32), self.serial(name));
        let first = self.devices.len() as u32;
        for number in first..first + devices {
            let hardware: Arc<str> = format!("{serial}-HW-{number:07}").into();
            let Life { changes, moves, lost_from } = life(number);
            self.devices.push(DevicePlan {
                id: Device::of_hardware(&hardware),
                hardware,
                rae,
                changes,
                moves,
                lost_from,
            });
        }
        self.raes.push(RaePlan {
            serial,
            devices: first..first + devices,
            guests: Vec::new(),
            stay,
            gone_at: None,
            clock: RaeClock::default(),
        });
    }

    fn add_canaries(&mut self, seed: u64, phase: usize, begins: Duration, canary: &Canary) {
        let mut rng = stream(seed, "canary", phase as u64);
        for number in 0..canary.clients {
            let arrives = begins + canary.over.mul_f64(rng.random::<f64>());
            let deltas = canary.messages.saturating_sub(1);
            let leaves = arrives + CANARY_PACE * (deltas + 1) + CANARY_LINGERS;
            self.add_rae(&format!("CANARY-{phase}-{number:05}"), Some((arrives, leaves)), 1, |_| {
                let at = |delta: u32| arrives + CANARY_PACE * (delta + 1);
                let mut update = || changes::update(&mut rng, 0.0, &mut Names::all());
                let changes = (0..deltas).map(|delta| Change { at: at(delta), kind: update() }).collect();
                Life { changes, ..Life::default() }
            });
        }
    }

    /// Tells each RAE who moves to it.
    fn add_guests(&mut self) {
        for (index, device) in (0..).map(DeviceIndex).zip(&self.devices) {
            for moved in &device.moves {
                let guests = &mut self.raes[moved.to.0 as usize].guests;
                // Back where it began, or for the second time.
                if moved.to != device.rae && guests.last() != Some(&index) {
                    guests.push(index);
                }
            }
        }
    }
}
