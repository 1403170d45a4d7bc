//! The device plan: the truth that every check is held against, made from scenario and seed before the run.
//!
//! It numbers each device's changes from 1 (0 is the record with which the device comes into being). A change made on
//! the device sets the integer attribute `rev` to its number, and every other value it sets leads back to that number,
//! so that a stored value proves by itself when it was true. Unplugging is a change too; `rev` then stays.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use dmp_core::{
    event::{AttributeName, CONNECTION, Value},
    id::{Device, Rae},
};
use rand::RngExt;

use crate::{
    random::{chosen, stream},
    scenario::{Canary, FaultKind, HEAL, Scenario},
};

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
    /// All devices, grouped by RAE.
    pub devices: Vec<DevicePlan>,
    report_bytes: usize,
    by_id: BTreeMap<Device, DeviceIndex>,
}

/// A RAE.
#[derive(Debug)]
pub struct RaePlan {
    /// Its serial.
    pub serial: Rae,
    /// Its devices.
    pub devices: std::ops::Range<u32>,
    /// For a canary: when it connects and when it is done. The standing fleet is there all the time.
    pub stay: Option<(Duration, Duration)>,
}

/// A device.
#[derive(Debug)]
pub struct DevicePlan {
    /// Its id.
    pub id: Device,
    /// Serial of its hardware.
    pub hardware: Arc<str>,
    /// Its RAE.
    pub rae: RaeIndex,
    /// Its changes in order of time: change number n is at index n - 1.
    pub changes: Vec<Change>,
}

/// One change of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When it happens, from the begin of the load.
    pub at: Duration,
    /// What happens.
    pub kind: ChangeKind,
}

/// What happens to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Attributes change: `rev`, `report` and those of the sets.
    Update {
        /// New values.
        set: Names,
        /// Removed.
        unset: Names,
    },
    /// It is unplugged.
    Detach,
    /// It is plugged in again; `rev` and `report` change with it.
    Attach,
}

/// A set of attribute names, as bits into [`ATTRIBUTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names(u16);

impl Names {
    /// Whether attribute number `index` of [`ATTRIBUTES`] is in the set.
    #[must_use]
    pub fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }
}

/// The attributes of a device; `connection` is the agent's own and comes on top.
pub const ATTRIBUTES: [&str; 10] =
    ["rev", "report", "availability", "firmware", "ip", "mac", "charging", "temperature", "esn", "sdk_version"];

const REV: usize = 0;
const REPORT: usize = 1;
/// `esn` and `sdk_version` come and go; the others are always there.
const OPTIONAL: std::ops::Range<usize> = 8..10;

/// What a delta and a snapshot hold beside `report`, on average: so that payloads come out at the size asked for.
const PAYLOAD_WITHOUT_REPORT_BYTES: u32 = 410;

/// Time between two messages of a canary.
pub const CANARY_PACE: Duration = Duration::from_millis(100);

/// How long a canary stays after its last message.
const CANARY_LINGERS: Duration = Duration::from_secs(2);

/// Time for which a device that re-attaches is unplugged.
const REATTACH_DOWN: Duration = Duration::from_millis(500);

static NAMES: LazyLock<Vec<AttributeName>> =
    LazyLock::new(|| ATTRIBUTES.iter().map(|&name| AttributeName::try_from(name).expect("valid by hand")).collect());

/// The name of attribute number `index` of [`ATTRIBUTES`].
#[must_use]
pub fn attribute(index: usize) -> AttributeName {
    NAMES[index].clone()
}

impl Plan {
    /// The plan of `scenario`: the same for the same scenario and seed.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Plan {
        let report_bytes = scenario.fleet.record_bytes.saturating_sub(PAYLOAD_WITHOUT_REPORT_BYTES).max(8) as usize;
        let mut plan = Plan { raes: Vec::new(), devices: Vec::new(), report_bytes, by_id: BTreeMap::new() };
        for number in 0..scenario.fleet.raes {
            plan.add_rae(&format!("RAE-{number:07}"), None, scenario.fleet.devices_per_rae, |device| {
                standing_changes(scenario, device)
            });
        }
        for (index, phase) in scenario.phases.iter().enumerate() {
            if let Some(canary) = &phase.canary {
                plan.add_canaries(scenario.seed, index, scenario.phase_begins(index), canary);
            }
        }
        plan.by_id = (0..).map(DeviceIndex).zip(&plan.devices).map(|(index, device)| (device.id, index)).collect();
        plan
    }

    /// The device with this id, if it is one of the plan's.
    #[must_use]
    pub fn device(&self, id: Device) -> Option<DeviceIndex> {
        self.by_id.get(&id).copied()
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
        let changes = &self.devices[device.0 as usize].changes[..change.0 as usize];
        let last = changes.iter().rev().find(|change| !matches!(change.kind, ChangeKind::Update { .. }));
        last.is_none_or(|change| change.kind == ChangeKind::Attach)
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

    /// The value that change number `change` gives to attribute number `index`.
    #[must_use]
    pub fn value(&self, device: DeviceIndex, change: ChangeNumber, index: usize) -> Value {
        let (d, k) = (device.0, change.0);
        let [_, high, mid, low] = k.to_be_bytes();
        Value::Text(match ATTRIBUTES[index] {
            "rev" => return Value::Integer(i64::from(k)),
            "charging" => return Value::Bool(k % 2 == 1),
            "temperature" => return Value::Float(f64::from(k) + 0.5),
            "availability" => format!("{}.{k}", ["available", "in_test", "reserved"][k as usize % 3]).into(),
            "firmware" => format!("7.2.{k}").into(),
            "sdk_version" => format!("2026.3.{k}").into(),
            "esn" => format!("NFXD{d:07}-{k}").into(),
            "ip" => format!("10.{high}.{mid}.{low}").into(),
            "mac" => format!("02:{:02x}:{:02x}:{high:02x}:{mid:02x}:{low:02x}", d >> 8 & 0xff, d & 0xff).into(),
            _ => self.report(d, k).into(),
        })
    }

    fn report(&self, device: u32, change: u32) -> String {
        let mut text = format!("device {device} change {change} ");
        // Words rather than one letter, so that compression somewhere on the way does not flatter.
        let mut state = u64::from(device) << 32 | u64::from(change) | 1;
        while text.len() < self.report_bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            text.push(char::from(b'a' + ((state >> 59) % 26) as u8));
        }
        text.truncate(self.report_bytes.max(32));
        text
    }

    fn add_rae(
        &mut self,
        serial: &str,
        stay: Option<(Duration, Duration)>,
        devices: u32,
        mut changes: impl FnMut(u32) -> Vec<Change>,
    ) {
        let rae = RaeIndex(self.raes.len() as u32);
        let first = self.devices.len() as u32;
        for number in first..first + devices {
            let hardware: Arc<str> = format!("{serial}-HW-{number:07}").into();
            self.devices.push(DevicePlan {
                id: Device::of_hardware(&hardware),
                hardware,
                rae,
                changes: changes(number),
            });
        }
        let serial = Rae::try_from(serial).expect("made of letters, digits and hyphens");
        self.raes.push(RaePlan { serial, devices: first..first + devices, stay });
    }

    fn add_canaries(&mut self, seed: u64, phase: usize, begins: Duration, canary: &Canary) {
        let mut rng = stream(seed, "canary", phase as u64);
        for number in 0..canary.clients {
            let arrives = begins + canary.over.mul_f64(rng.random::<f64>());
            let deltas = canary.messages.saturating_sub(1);
            let leaves = arrives + CANARY_PACE * (deltas + 1) + CANARY_LINGERS;
            self.add_rae(&format!("CANARY-{phase}-{number:05}"), Some((arrives, leaves)), 1, |_| {
                let at = |delta: u32| arrives + CANARY_PACE * (delta + 1);
                (0..deltas)
                    .map(|delta| Change { at: at(delta), kind: update(&mut rng, 0.0, &mut all_present()) })
                    .collect()
            });
        }
    }
}

/// The changes of device number `device` of the standing fleet.
fn standing_changes(scenario: &Scenario, device: u32) -> Vec<Change> {
    let mut raw = updates(scenario, device);
    raw.extend(plug_changes(scenario, device));
    raw.sort_by_key(|&(at, plug)| (at, plug));
    let mut rng = stream(scenario.seed, "values", u64::from(device));
    let (mut attached, mut present) = (true, all_present());
    let mut changes = Vec::with_capacity(raw.len());
    for (at, plug) in raw {
        let kind = match plug {
            None if attached => update(&mut rng, scenario.fleet.unset_share, &mut present),
            Some(false) if attached => ChangeKind::Detach,
            Some(true) if !attached => ChangeKind::Attach,
            None | Some(_) => continue,
        };
        attached = kind != ChangeKind::Detach;
        changes.push(Change { at, kind });
    }
    changes
}

/// Times at which attributes change: a Poisson process whose rate follows the phases.
fn updates(scenario: &Scenario, device: u32) -> Vec<(Duration, Option<bool>)> {
    let mut rng = stream(scenario.seed, "updates", u64::from(device));
    let mut times = Vec::new();
    let phases = scenario.phases.iter().enumerate();
    let phases = phases.map(|(index, phase)| (scenario.phase_begins(index), phase.lasts, phase.rate));
    for (begins, lasts, rate) in phases.chain([(scenario.load(), HEAL, 1.0)]).filter(|&(_, _, rate)| rate > 0.0) {
        let mean = scenario.fleet.update_every.div_f64(rate);
        let mut at = begins + exponential(&mut rng, mean);
        while at < begins + lasts {
            times.push((at, None));
            at += exponential(&mut rng, mean);
        }
    }
    times
}

/// Times at which the device is unplugged (`false`) and plugged in (`true`); it always ends plugged in.
fn plug_changes(scenario: &Scenario, device: u32) -> Vec<(Duration, Option<bool>)> {
    let mut rng = stream(scenario.seed, "plug", u64::from(device));
    let mut times = Vec::new();
    if let Some(mean) = scenario.fleet.reattach_every {
        let mut at = exponential(&mut rng, mean);
        while at + REATTACH_DOWN < scenario.load() {
            times.extend([(at, Some(false)), (at + REATTACH_DOWN, Some(true))]);
            at += REATTACH_DOWN + exponential(&mut rng, mean);
        }
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        match &fault.kind {
            FaultKind::Flapping { share, every, lasts }
                if chosen(scenario.seed, &format!("fault {index}"), device.into(), *share) =>
            {
                let (mut at, mut attached) = (fault.at, true);
                loop {
                    at += exponential(&mut rng, *every);
                    if at >= fault.at + *lasts {
                        break;
                    }
                    attached = !attached;
                    times.push((at, Some(attached)));
                }
                times.push((fault.at + *lasts, Some(true)));
            }
            FaultKind::DelayedTails { share, lasts, .. }
                if chosen(scenario.seed, &format!("fault {index}"), device.into(), *share) =>
            {
                // A tail can only be late if the device has gone on to a new session meanwhile.
                let at = fault.at + lasts.mul_f64(0.5 + 0.4 * rng.random::<f64>());
                times.extend([(at, Some(false)), (at + REATTACH_DOWN, Some(true))]);
            }
            _ => {}
        }
    }
    times
}

/// An update that changes one or two attributes beside `rev` and `report`, and sometimes removes or brings back one.
fn update(rng: &mut rand_pcg::Pcg64Mcg, unset_share: f64, present: &mut Names) -> ChangeKind {
    let mut set = Names(1 << REV | 1 << REPORT);
    for _ in 0..rng.random_range(1..=2) {
        set.0 |= 1 << rng.random_range(REPORT + 1..ATTRIBUTES.len());
    }
    let mut unset = Names::default();
    if rng.random::<f64>() < unset_share {
        let index = rng.random_range(OPTIONAL);
        set.0 &= !(1 << index);
        if present.contains(index) {
            unset.0 = 1 << index;
        } else {
            set.0 |= 1 << index;
        }
    }
    present.0 = (present.0 | set.0) & !unset.0;
    ChangeKind::Update { set, unset }
}

fn all_present() -> Names {
    Names((1 << ATTRIBUTES.len()) - 1)
}

fn exponential(rng: &mut rand_pcg::Pcg64Mcg, mean: Duration) -> Duration {
    // Capped at 20 means, which one draw in 5 * 10^8 exceeds.
    mean.mul_f64((-(1.0 - rng.random::<f64>()).ln()).min(20.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    const SCENARIO: &str = r#"# What is true?
seed = 11
[fleet]
raes = 6
devices_per_rae = 5
update_every = "2s"
unset_share = 0.3
reattach_every = "10s"
[[phase]]
name = "load"
lasts = "30s"
[[phase]]
name = "canary"
lasts = "5s"
canary = { clients = 4, over = "2s", messages = 3 }
"#;

    fn plan() -> Plan {
        Plan::new(&Scenario::from_text("truth", SCENARIO, &[], None).expect("a correct scenario"))
    }

    fn all_changes(plan: &Plan) -> impl Iterator<Item = (DeviceIndex, ChangeNumber)> {
        (0..).map(DeviceIndex).zip(&plan.devices).flat_map(|(index, device)| {
            (0..=device.changes.len() as u32).map(move |number| (index, ChangeNumber(number)))
        })
    }

    #[test]
    fn every_value_leads_back_to_the_change_that_set_it() {
        let plan = plan();
        for (device, number) in all_changes(&plan) {
            for (name, value) in plan.record(device, number) {
                let index = ATTRIBUTES.iter().position(|&known| known == name.as_str()).expect("a known name");
                let (origin, present) = plan.origin(device, number, index);
                assert!(present);
                let source = plan.source(device, name.as_str(), &value, number).expect("it had this value");
                // Two changes may give the same boolean; then the later one is as true.
                assert!(source == origin || name.as_str() == "charging", "{name} {value}: {source:?}, {origin:?}");
            }
        }
    }

    #[test]
    fn a_value_that_a_device_never_had_has_no_source() {
        let plan = plan();
        let (device, last) = (DeviceIndex(3), plan.change_at(DeviceIndex(3), Duration::from_secs(1_000)));
        assert_eq!(plan.source(device, "rev", &Value::Integer(1_000_000), last), None);
        assert_eq!(plan.source(device, "firmware", &Value::Text("7.2.999999".into()), last), None);
        assert_eq!(plan.source(device, "no_such_name", &Value::Bool(true), last), None);
    }

    #[test]
    fn a_change_sets_rev_to_its_number_unless_it_unplugs() {
        let plan = plan();
        for (device, number) in all_changes(&plan).filter(|(_, number)| number.0 > 0) {
            let change = plan.devices[device.0 as usize].changes[number.0 as usize - 1];
            let rev = plan.record(device, number)["rev"].clone();
            assert_eq!(rev == Value::Integer(number.0.into()), change.kind != ChangeKind::Detach);
        }
    }

    #[test]
    fn every_device_is_plugged_in_at_the_end_and_nothing_updates_while_it_is_not() {
        let plan = plan();
        for (index, device) in (0..).map(DeviceIndex).zip(&plan.devices) {
            let mut attached = true;
            for change in &device.changes {
                match change.kind {
                    ChangeKind::Update { .. } => assert!(attached),
                    ChangeKind::Detach => assert!(std::mem::replace(&mut attached, false)),
                    ChangeKind::Attach => assert!(!std::mem::replace(&mut attached, true)),
                }
            }
            assert!(attached && plan.attached(index, ChangeNumber(device.changes.len() as u32)));
        }
    }

    #[test]
    fn payloads_come_out_at_about_the_size_asked_for() {
        let plan = plan();
        let record = plan.record(DeviceIndex(0), ChangeNumber(0));
        let bytes: usize = record.iter().map(|(name, value)| name.as_str().len() + value.to_string().len() + 8).sum();
        assert!((600..1_100).contains(&bytes), "{bytes}");
    }

    #[test]
    fn another_rae_does_not_shift_the_changes_of_the_others() {
        let more = SCENARIO.replace("raes = 6", "raes = 7");
        let more = Plan::new(&Scenario::from_text("truth", &more, &[], None).expect("a correct scenario"));
        for (device, other) in plan().devices.iter().zip(&more.devices).take(30) {
            assert_eq!(device.changes, other.changes);
        }
    }
}
