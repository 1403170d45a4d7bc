//! What the agent numbers: sessions that open, deltas, snapshots, and what is shed when the outbox is full.
//!
//! Numbered, saved, published: an event enters the outbox here, and leaves it only after the save that covers it. A
//! snapshot never sheds what others wait to say: it is made when there is room, and one per device waits at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{Rng, RngExt};

use super::{
    Agent, Effect, Fact, Published, SavedDevice, SnapshotCause,
    devices::Slot,
    record::{Attributes, Difference, Record},
    timers::Timer,
};
use crate::{
    core::Publication,
    event::{Body, MAX_PAYLOAD_BYTES, StateEvent},
    id::{Device, Epoch, Seq, Session},
    time::Now,
};

/// Shortest snapshot period: a shorter one would leave no time for anything else.
const MIN_SNAPSHOT_PERIOD: Duration = Duration::from_millis(1);

impl Agent {
    /// A probe found the device: its session opens with a snapshot at seq 1, above the epoch that a `reonboard` names.
    /// Without room for that, it is probed later, and the answer is `false`.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        device: Device,
        attributes: Attributes,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.make_room(effects) {
            self.probe_again(now, device);
            return false;
        }
        let named = self.reonboard_above(device);
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let Some(slot) = self.devices.get_mut(&device) else { return false };
        let known = slot.record.as_ref().map(|record| record.saved().epoch);
        let opening = SavedDevice {
            hardware: slot.hardware.clone(),
            session: Session(uuid::Builder::from_random_bytes(id).into_uuid()),
            epoch: Epoch::after(known.max(named), now.wall),
            seq: Seq::FIRST,
            attributes: BTreeMap::new(),
            found_at: now.wall,
        };
        slot.record = Some(Record::open(&self.config.rae, opening, attributes));
        self.is_confirmed(now, device);
        self.due.remove(&device);
        self.push_snapshot(now, device, SnapshotCause::Opening, effects);
        true
    }

    /// The device's next snapshot is due.
    pub(super) fn owe_snapshot(&mut self, device: Device, cause: SnapshotCause) {
        let owed = self.due.entry(device).or_insert(cause);
        *owed = cause.max(*owed);
    }

    /// Makes a change and its delta.
    pub(super) fn change(&mut self, now: Now, device: Device, change: Difference, effects: &mut Vec<Effect>) {
        let Some(record) = self.devices.get_mut(&device).and_then(|slot| slot.record.as_mut()) else { return };
        if change.is_empty() {
            return;
        }
        // A session without seqs is over: the next probe opens another.
        let Some(version) = record.change(&change) else { return };
        let topic = record.topic().clone();
        self.saves.device(device);
        let body = Body::Delta { set: change.set, unset: change.unset };
        let event = StateEvent { rae: self.config.rae.clone(), device, version, at: now.wall, body };
        let payload = event.encode();
        let of = Published::Delta(device, version);
        // A delta that sets and unsets much can be larger than the snapshot that covers it.
        if payload.len() <= MAX_PAYLOAD_BYTES && self.make_room(effects) {
            let message = self.publication(topic, payload);
            self.outbox.push(of, message);
        } else {
            self.is_shed(device, of, false, effects);
        }
    }

    pub(super) fn snapshot_falls_due(&mut self, now: Now, device: Device) {
        self.owe_snapshot(device, SnapshotCause::Periodic);
        let permille = u32::from(self.config.snapshot_jitter_permille.min(500));
        let factor = self.rng.random_range(1000 - permille..=1000 + permille);
        let period = (self.config.snapshot_every.saturating_mul(factor) / 1000).max(MIN_SNAPSHOT_PERIOD);
        self.timers.set(Timer::Snapshot(device), now.mono + period);
    }

    pub(super) fn make_due_snapshots(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.due.is_empty() || !self.outbox.has_room() {
            return;
        }
        let waits = |device: &Device| self.devices.get(device).is_some_and(|slot| slot.snapshot_waits);
        let makeable: Vec<Device> = self.due.keys().filter(|device| !waits(device)).copied().collect();
        for device in makeable {
            if !self.outbox.has_room() {
                return;
            }
            if let Some(cause) = self.due.remove(&device) {
                self.snapshot(now, device, cause, effects);
            }
        }
    }

    /// A state event left for the broker, or was shed: the next snapshot of its session may be made.
    pub(super) fn no_longer_waits(&mut self, of: Published) {
        let Published::Snapshot(device, version, _) = of else { return };
        if let Some(slot) = self.devices.get_mut(&device).filter(|slot| slot.session() == Some(version.session)) {
            slot.snapshot_waits = false;
        }
    }

    fn snapshot(&mut self, now: Now, device: Device, cause: SnapshotCause, effects: &mut Vec<Effect>) {
        let Some(record) = self.devices.get_mut(&device).and_then(|slot| slot.record.as_mut()) else { return };
        if record.advance().is_some() {
            self.push_snapshot(now, device, cause, effects);
        } else {
            self.snapshot_is_impossible(device, effects);
        }
    }

    fn push_snapshot(&mut self, now: Now, device: Device, cause: SnapshotCause, effects: &mut Vec<Effect>) {
        let Some(slot) = self.devices.get_mut(&device) else { return };
        let Some(record) = &slot.record else { return };
        slot.snapshot_waits = true;
        let event = record.snapshot(&self.config.rae, device, now.wall);
        let topic = record.topic().clone();
        let message = self.publication(topic, event.encode());
        self.outbox.push(Published::Snapshot(device, event.version, cause), message);
        self.saves.device(device);
        self.snapshot_is_numbered(device, effects);
    }

    /// Whether an event fits into the outbox, after shedding if need be.
    fn make_room(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.outbox.has_room() {
            return true;
        }
        let shed = self.outbox.shed(|device| self.devices.get(&device).and_then(Slot::session));
        for event in shed {
            if let Some((device, _)) = event.of.state() {
                self.is_shed(device, event.of, event.durable, effects);
            }
        }
        self.outbox.has_room()
    }

    fn is_shed(&mut self, device: Device, of: Published, recorded: bool, effects: &mut Vec<Effect>) {
        self.owe_snapshot(device, SnapshotCause::Owed);
        if !recorded {
            effects.push(Effect::Fact(Fact::Recorded(of)));
        }
        if let Some((device, version)) = of.state() {
            effects.push(Effect::Fact(Fact::Shed(device, version)));
        }
    }

    fn publication(&self, topic: Arc<str>, payload: Vec<u8>) -> Publication {
        Publication { topic, payload: payload.into(), qos: self.config.qos, retain: false }
    }
}
