//! The devices on a RAE: what happens on them by the plan, what the agent notices of it, and what a probe finds.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use dmp_core::{
    agent::{Event, Probe},
    event::AttributeName,
};

use super::LiveRae;
use crate::fleet::plan::{ATTRIBUTES, ChangeKind, ChangeNumber, DeviceIndex, Names, attribute};

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
            let local = self.local(device);
            self.happened[local] = number;
            let event = self.event_of(device, number);
            if self.agent.is_some() {
                self.step(Some(event));
            }
        }
    }

    /// What the RAE notices of a change.
    fn event_of(&self, device: DeviceIndex, number: ChangeNumber) -> Event {
        let plan = &self.shared.plan;
        let planned = &plan.devices[device.0 as usize];
        let hardware = planned.hardware.clone();
        match planned.changes[number.0 as usize - 1].kind {
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
        }
    }

    pub(super) fn probe(&self, hardware: &str) -> Probe {
        let devices = self.shared.plan.raes[self.index.0 as usize].devices.clone().map(DeviceIndex);
        let mut here = devices.filter(|&device| self.attached(device));
        let found = here.find(|device| &*self.shared.plan.devices[device.0 as usize].hardware == hardware);
        found.map_or(Probe::Absent, |device| {
            Probe::Found(self.shared.plan.record(device, self.happened[self.local(device)]))
        })
    }

    pub(super) fn attached(&self, device: DeviceIndex) -> bool {
        self.shared.plan.attached(device, self.happened[self.local(device)])
    }

    fn local(&self, device: DeviceIndex) -> usize {
        (device.0 - self.shared.plan.raes[self.index.0 as usize].devices.start) as usize
    }
}
