//! Latency and staleness of the sampled devices, both from the intended times of the plan.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::fleet::plan::{ChangeKind, ChangeNumber, DeviceIndex, Plan};

/// The sampled devices: every one of which a `rev` was ever seen.
#[derive(Debug)]
pub(super) struct Sample {
    plan: Arc<Plan>,
    load: Option<Duration>,
    /// Newest change reflected, per device.
    reflected: BTreeMap<DeviceIndex, u32>,
}

impl Sample {
    pub(super) fn new(plan: Arc<Plan>) -> Sample {
        Sample { plan, load: None, reflected: BTreeMap::new() }
    }

    pub(super) fn load_begins(&mut self, at: Duration) {
        self.load.get_or_insert(at);
    }

    /// A `rev` was seen: the intended times, on the run's clock, of the changes that are visible with it.
    pub(super) fn reflected(&mut self, device: DeviceIndex, rev: i64) -> Vec<Duration> {
        let changes = &self.plan.devices[device.0 as usize].changes;
        let rev = u32::try_from(rev).unwrap_or(0).min(changes.len() as u32);
        let before = self.reflected.insert(device, rev).unwrap_or(0);
        let Some(load) = self.load else { return Vec::new() };
        // A rev that falls is for the checks to judge; it shows nothing new.
        self.reflected.insert(device, rev.max(before));
        let new = before as usize..(rev.max(before)) as usize;
        changes[new].iter().filter(|change| change.kind != ChangeKind::Detach).map(|c| load + c.at).collect()
    }

    /// The intended times, on the run's clock, of the changes made by `now` that were never shown.
    pub(super) fn never_shown(&self, now: Duration) -> Vec<Duration> {
        let Some((load, planned)) = self.load.and_then(|load| Some((load, now.checked_sub(load)?))) else {
            return Vec::new();
        };
        let of_device = |(&device, &reflected): (&DeviceIndex, &u32)| {
            let ChangeNumber(made) = self.plan.change_at(device, planned);
            let changes = &self.plan.devices[device.0 as usize].changes;
            let hidden = &changes[reflected as usize..made.max(reflected) as usize];
            let hidden = hidden.iter().filter(|change| change.kind != ChangeKind::Detach);
            hidden.map(|change| load + change.at).collect::<Vec<_>>()
        };
        self.reflected.iter().flat_map(of_device).collect()
    }

    /// Age of the oldest unreflected change of each sampled device; zero where there is none.
    pub(super) fn ages(&self, now: Duration) -> impl Iterator<Item = Duration> {
        let planned = self.load.and_then(|load| now.checked_sub(load));
        self.reflected.iter().map(move |(&device, &reflected)| {
            let Some(planned) = planned else { return Duration::ZERO };
            let ChangeNumber(made) = self.plan.change_at(device, planned);
            let changes = &self.plan.devices[device.0 as usize].changes;
            let unreflected = &changes[reflected as usize..made.max(reflected) as usize];
            // Unplugging leaves `rev` as it is, so the sample cannot show it.
            let oldest = unreflected.iter().find(|change| change.kind != ChangeKind::Detach);
            oldest.map_or(Duration::ZERO, |change| planned.saturating_sub(change.at))
        })
    }
}
