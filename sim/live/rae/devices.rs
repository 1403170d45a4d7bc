//! The devices on a RAE: what happens on them by the plan, what the agent notices of it, and what a probe finds.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use dmp_core::{
    agent::{Event, Probe},
    event::{AttributeName, Value},
};

use super::LiveRae;
use crate::fleet::plan::{ATTRIBUTES, COMMANDED, ChangeKind, ChangeNumber, DeviceIndex, Names, attribute};

impl LiveRae {
    /// Lets everything happen that is due.
    pub(super) fn changes(&mut self) {
        let Some(now) = self.shared.clock.in_load() else { return };
        while let Some(&(at, device, number)) = self.upcoming.last()
            && at <= now
        {
            self.upcoming.pop();
            let lateness = u64::try_from((now - at).as_micros()).unwrap_or(u64::MAX);
            self.shared.lateness_us.fetch_max(lateness, Ordering::Relaxed);
            self.happens(device, number);
        }
    }

    pub(super) fn happens(&mut self, device: DeviceIndex, number: ChangeNumber) {
        self.happened.insert(device, number);
        let event = self.event_of(device, number);
        if event.is_some() && self.agent.is_some() {
            self.step(event);
        }
    }

    /// What the RAE notices of a change; nothing of a device that is elsewhere.
    fn event_of(&self, device: DeviceIndex, number: ChangeNumber) -> Option<Event> {
        let plan = &self.shared.plan;
        let planned = &plan.devices[device.0 as usize];
        if planned.home(number) != self.index {
            return None;
        }
        let hardware = planned.hardware.clone();
        Some(match planned.changes[number.0 as usize - 1].kind {
            ChangeKind::Attach => Event::Detected { hardware },
            ChangeKind::Detach => Event::Detached { hardware },
            ChangeKind::Update { set, unset } => {
                let of = |names: Names| (0..ATTRIBUTES.len()).filter(move |&index| names.contains(index));
                Event::Reported {
                    hardware,
                    set: of(set).map(|index| (attribute(index), plan.value(device, number, index))).collect(),
                    unset: of(unset).map(attribute).collect::<BTreeSet<AttributeName>>(),
                }
            }
        })
    }

    pub(super) fn probe(&self, hardware: &str) -> Probe {
        let found = self.here().find(|&(device, _)| *self.shared.plan.devices[device.0 as usize].hardware == *hardware);
        found.map_or(Probe::Absent, |(device, change)| {
            let mut record = self.shared.plan.record(device, change);
            if let Some(id) = self.shared.directory.of(device).commanded {
                let name = AttributeName::try_from(COMMANDED).expect("valid by hand");
                record.insert(name, Value::Text(id.to_string().into()));
            }
            Probe::Found(record)
        })
    }

    /// The devices that are plugged in here now, each with its last change.
    pub(super) fn here(&self) -> impl Iterator<Item = (DeviceIndex, ChangeNumber)> {
        let plugged_in = |device: DeviceIndex, change| {
            let planned = &self.shared.plan.devices[device.0 as usize];
            planned.home(change) == self.index && planned.attached(change)
        };
        self.happened.iter().map(|(&device, &change)| (device, change)).filter(move |&(d, c)| plugged_in(d, c))
    }
}
