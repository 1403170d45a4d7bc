//! The lifecycle of a device: noticed, probed, onboarded, reported, detached, re-attached, forgotten.
//!
//! ```text
//!   detected -> probe -> found: a session opens with a snapshot at seq 1
//!   attached -> reports and probes become deltas; unplugged or not found becomes `connection` = detached
//!   detached -> found again: a new session; not found for long: forgotten
//! ```
//!
//! A session is opened only by a probe that found the device, never from what is on the disk. What a device reports
//! while it is probed is laid over the probe's answer, which may be older.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::{Rng, RngExt};

use super::{
    Agent, Effect, Fact, MAX_DEVICES, Probe, SavedDevice, SnapshotCause,
    execute::Verdict,
    record::{Attributes, Difference, Record, connection, is_acceptable},
    timers::Timer,
};
use crate::{
    core::EffectId,
    event::{AttributeName, Value},
    id::{Device, Rae, Session},
    time::{Mono, Now},
};

/// Most attributes that are laid over a probe's answer; above it the probe begins anew, and will tell them itself.
const MAX_LAID_OVER: usize = 4096;

/// A device that the agent knows of.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hardware: Arc<str>,
    /// Its record in its current session; `None` before the first probe found it.
    pub(super) record: Option<Record>,
    /// Whether this life of the agent has found out if it is there. Before, the record is only what was on the disk.
    confirmed: bool,
    /// When a probe of this life last found it.
    pub(super) found_at: Option<Mono>,
    probe: Option<Probing>,
    /// Probes in a row that led to nothing.
    failures: u32,
    /// Whether a snapshot of the current session waits unsent: one at a time is enough.
    pub(super) snapshot_waits: bool,
}

/// A probe under way.
#[derive(Debug)]
struct Probing {
    id: EffectId,
    /// What the device reported since the probe began.
    reported: BTreeMap<AttributeName, Option<Value>>,
    /// The device was noticed meanwhile: "absent" is not the last word.
    noticed: bool,
}

impl Slot {
    fn noticed(hardware: Arc<str>) -> Slot {
        let (record, probe, found_at) = (None, None, None);
        Slot { hardware, record, confirmed: false, found_at, probe, failures: 0, snapshot_waits: false }
    }

    pub(super) fn from_disk(rae: &Rae, saved: Arc<SavedDevice>) -> Slot {
        let hardware = saved.hardware.clone();
        Slot { record: Some(Record::resume(rae, saved)), ..Slot::noticed(hardware) }
    }

    /// Whether this life of the agent has found out if the device is there.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    fn is_attached(&self) -> bool {
        self.confirmed && self.record.as_ref().is_some_and(Record::is_attached)
    }

    pub(super) fn session(&self) -> Option<Session> {
        self.record.as_ref().map(Record::session)
    }
}

impl Probing {
    fn lay_over(&mut self, set: &Attributes, unset: &BTreeSet<AttributeName>) {
        self.reported.extend(unset.iter().map(|name| (name.clone(), None)));
        self.reported.extend(set.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    }
}

impl Agent {
    pub(super) fn start_devices(&mut self, effects: &mut Vec<Effect>) {
        let known: Vec<Device> = self.devices.keys().copied().collect();
        for device in known {
            self.begin_probe(device, effects);
        }
    }

    pub(super) fn detected(&mut self, hardware: Arc<str>, effects: &mut Vec<Effect>) {
        let device = Device::of_hardware(&hardware);
        if self.devices.len() >= MAX_DEVICES && !self.devices.contains_key(&device) {
            effects.push(Effect::Fact(Fact::RefusedDevice(device)));
            return;
        }
        let slot = self.devices.entry(device).or_insert_with(|| Slot::noticed(hardware));
        if let Some(probing) = &mut slot.probe {
            probing.noticed = true;
        } else if !slot.is_attached() {
            self.begin_probe(device, effects);
        }
    }

    pub(super) fn detached(&mut self, now: Now, hardware: &str, effects: &mut Vec<Effect>) {
        let device = Device::of_hardware(hardware);
        // The probe's answer may be from before the device was unplugged.
        self.cancel_probe(device);
        self.is_gone(now, device, effects);
        self.probe_ended(device, Verdict::Absent, effects);
    }

    pub(super) fn reported(
        &mut self,
        now: Now,
        hardware: &str,
        mut set: Attributes,
        mut unset: BTreeSet<AttributeName>,
        effects: &mut Vec<Effect>,
    ) {
        let device = Device::of_hardware(hardware);
        let Some(slot) = self.devices.get_mut(&device) else { return };
        set.remove(&connection());
        unset.remove(&connection());
        if !is_acceptable(&set) {
            effects.push(Effect::Fact(Fact::RefusedReport(device)));
            return;
        }
        let attached = slot.is_attached();
        if let Some(probing) = &mut slot.probe {
            probing.lay_over(&set, &unset);
            if probing.reported.len() > MAX_LAID_OVER {
                self.cancel_probe(device);
                self.begin_probe(device, effects);
            }
        }
        if attached {
            self.report(now, device, set, unset, effects);
        }
    }

    pub(super) fn probed(&mut self, now: Now, id: EffectId, probe: Probe, effects: &mut Vec<Effect>) {
        let Some(device) = self.probes.remove(&id) else { return };
        let Some(slot) = self.devices.get_mut(&device) else { return };
        let Some(probing) = slot.probe.take() else { return };
        match probe {
            Probe::Found(attributes) => {
                if let Some(verdict) = self.is_found(now, device, attributes, probing.reported, effects) {
                    self.probe_ended(device, verdict, effects);
                }
            }
            Probe::Absent if probing.noticed => self.begin_probe(device, effects),
            Probe::Absent => {
                self.is_gone(now, device, effects);
                self.forget_if_long_gone(now, device, effects);
                self.probe_ended(device, Verdict::Absent, effects);
            }
            Probe::Unknown => {
                self.probe_again(now, device);
                self.probe_ended(device, Verdict::Unknown, effects);
            }
        }
    }

    pub(super) fn begin_probe(&mut self, device: Device, effects: &mut Vec<Effect>) {
        let id = self.next_effect();
        let Some(slot) = self.devices.get_mut(&device) else { return };
        if slot.probe.is_none() {
            slot.probe = Some(Probing { id, reported: BTreeMap::new(), noticed: false });
            self.probes.insert(id, device);
            self.timers.cancel(Timer::Probe(device));
            effects.push(Effect::Probe(id, slot.hardware.clone()));
        }
    }

    /// What its probe means; `None` while the session that it asks for cannot open: it is probed again soon.
    fn is_found(
        &mut self,
        now: Now,
        device: Device,
        mut attributes: Attributes,
        reported: BTreeMap<AttributeName, Option<Value>>,
        effects: &mut Vec<Effect>,
    ) -> Option<Verdict> {
        for (name, value) in reported {
            match value {
                Some(value) => attributes.insert(name, value),
                None => attributes.remove(&name),
            };
        }
        attributes.remove(&connection());
        if !is_acceptable(&attributes) {
            effects.push(Effect::Fact(Fact::RefusedReport(device)));
            self.probe_again(now, device);
            return Some(Verdict::Refused);
        }
        let lost = self.reonboard_above(device).is_some();
        let slot = self.devices.get_mut(&device)?;
        slot.found_at = Some(now.mono);
        match slot.record.as_mut().filter(|record| record.is_attached() && !record.is_exhausted() && !lost) {
            Some(record) => {
                record.found(now.wall);
                let change = record.difference_to(attributes);
                self.is_confirmed(now, device);
                self.change(now, device, change, effects);
                Some(Verdict::Found)
            }
            None => self.open_session(now, device, attributes, effects).then_some(Verdict::Found),
        }
    }

    /// Unplugged, or a probe found nothing. A session that lost to another is no longer this RAE's.
    fn is_gone(&mut self, now: Now, device: Device, effects: &mut Vec<Effect>) {
        if self.reonboard_above(device).is_some() {
            self.forget(device, effects);
        } else {
            self.is_absent(now, device, effects);
        }
    }

    /// It is not there. A session that was on the disk stays what it was, detached.
    fn is_absent(&mut self, now: Now, device: Device, effects: &mut Vec<Effect>) {
        let Some(slot) = self.devices.get(&device) else { return };
        let Some(record) = &slot.record else {
            self.devices.remove(&device);
            self.timers.cancel(Timer::Probe(device));
            return;
        };
        let attached = record.is_attached();
        self.is_confirmed(now, device);
        if attached {
            self.change(now, device, Difference::connection("detached"), effects);
        }
    }

    /// From now on the agent answers for this record: probes and snapshots go on until it is forgotten.
    pub(super) fn is_confirmed(&mut self, now: Now, device: Device) {
        let Some(slot) = self.devices.get_mut(&device) else { return };
        slot.failures = 0;
        let first = !std::mem::replace(&mut slot.confirmed, true);
        if first {
            self.owe_snapshot(device, SnapshotCause::Owed);
            self.arm(now, device);
        } else {
            self.timers.set(Timer::Probe(device), now.mono + self.config.probe_every);
        }
    }

    /// Both timers start at a random phase of their period, so that devices do not beat together.
    fn arm(&mut self, now: Now, device: Device) {
        let probe = phase(self.config.probe_every, &mut self.rng);
        self.timers.set(Timer::Probe(device), now.mono + probe);
        let snapshot = phase(self.config.snapshot_every, &mut self.rng);
        self.timers.set(Timer::Snapshot(device), now.mono + snapshot);
    }

    /// Nothing was learnt: probes again after a wait.
    pub(super) fn probe_again(&mut self, now: Now, device: Device) {
        let Some(slot) = self.devices.get_mut(&device) else { return };
        let wait = self.config.backoff.wait(slot.failures, &mut self.rng);
        slot.failures = slot.failures.saturating_add(1);
        self.timers.set(Timer::Probe(device), now.mono + wait);
    }

    fn report(
        &mut self,
        now: Now,
        device: Device,
        set: Attributes,
        unset: BTreeSet<AttributeName>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(record) = self.devices.get(&device).and_then(|slot| slot.record.as_ref()) else { return };
        let change = record.changed(set, unset);
        if record.would_fit(&change) {
            self.change(now, device, change, effects);
        } else {
            effects.push(Effect::Fact(Fact::RefusedReport(device)));
        }
    }

    pub(super) fn cancel_probe(&mut self, device: Device) {
        if let Some(probing) = self.devices.get_mut(&device).and_then(|slot| slot.probe.take()) {
            self.probes.remove(&probing.id);
        }
    }
}

/// A random point within the period.
fn phase(period: Duration, rng: &mut impl Rng) -> Duration {
    period.saturating_mul(rng.random_range(1..=1000)) / 1000
}
