//! What disk, device, Kafka and store answer: mostly yes, sometimes no, sometimes nothing that can be relied on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dmp_core::{
    agent,
    bridge::{self, OutgoingRecord, downlink},
    core::EffectId,
    event::{AttributeName, Value},
    merge::Rows,
    registry::{self, CommitOutcome, Generation, Offset, Partition},
};
use rand::RngExt;

use crate::{
    cloud::PARTITIONS,
    device::Hardware,
    faults::Fault,
    world::{DownlinkSide, Item, RegistrySide, World},
};

impl World {
    pub(crate) fn save(&mut self, index: usize, id: EffectId, changes: Vec<agent::Change>) {
        let (outcome, kept) = match (self.chance(Fault::Answers, 10), self.rng.random_range(0..3)) {
            (false, _) => (agent::SaveOutcome::Durable, true),
            (true, 0) => (agent::SaveOutcome::Failed, false),
            (true, kept) => (agent::SaveOutcome::Unknown, kept == 1),
        };
        for change in changes.into_iter().filter(|_| kept) {
            self.raes[index].disk.apply(change);
        }
        let life = self.raes[index].life;
        self.after_ms(0, 30, Item::Saved(index, life, id, outcome));
    }

    pub(crate) fn probe(&self, index: usize, serial: &str) -> agent::Probe {
        let device = self.devices.iter().find(|device| device.serial == serial);
        device.map_or(agent::Probe::Absent, |device| device.probe(index))
    }

    /// The agent changes a device; it may not hear of it.
    pub(crate) fn set(
        &mut self,
        index: usize,
        serial: &str,
        set: BTreeMap<AttributeName, Value>,
        unset: BTreeSet<AttributeName>,
    ) -> agent::SetOutcome {
        let lost = self.chance(Fault::Answers, 10);
        let there = |device: &&mut Hardware| device.serial == serial && device.plugged && device.agent == index;
        let Some(device) = self.devices.iter_mut().find(there) else {
            return agent::SetOutcome::Refused("it is not there".to_owned());
        };
        device.set(set, unset);
        if lost { agent::SetOutcome::Unknown } else { agent::SetOutcome::Done }
    }

    pub(crate) fn produce(&mut self, record: OutgoingRecord) -> bridge::ProduceOutcome {
        let reason = "as the seed has it".to_owned();
        if !self.chance(Fault::Answers, 10) {
            let (partition, offset) = self.log.append(record);
            return bridge::ProduceOutcome::Stored { partition, offset };
        }
        match self.rng.random_range(0..4) {
            0 => return bridge::ProduceOutcome::Failed { reason },
            1 => {
                self.log.append(record);
            }
            2 => {}
            _ => {
                self.count("straggling record");
                // A producer that answers "unknown" has not yet given up on the record that it sent.
                self.log.append(record.clone());
                self.after_ms(100, 3000, Item::Straggler(record));
            }
        }
        self.count("unknown produce");
        bridge::ProduceOutcome::Unknown { reason }
    }

    pub(crate) fn write(&mut self, which: usize, rows: &Arc<Rows>) -> registry::WriteOutcome {
        let reason = "as the seed has it".to_owned();
        if !self.chance(Fault::Answers, 10) {
            self.store_rows(which, rows);
            return registry::WriteOutcome::Committed { beaten: self.registries[which].store.beaten(rows) };
        }
        match self.rng.random_range(0..4) {
            0 => return registry::WriteOutcome::Aborted { reason },
            1 => self.store_rows(which, rows),
            2 => {}
            _ => {
                self.count("late write");
                self.after_ms(100, 3000, Item::LateWrite(which, rows.clone()));
            }
        }
        self.count("ambiguous write");
        registry::WriteOutcome::Ambiguous { reason }
    }

    pub(crate) fn store_rows(&mut self, which: usize, rows: &Rows) {
        for (device, state) in &rows.devices {
            let hardware =
                self.devices.iter().find(|hardware| hardware.device() == *device).expect("C1: no such device");
            for (name, offer) in &state.attributes {
                let Some(value) = &offer.value else { continue };
                assert!(
                    hardware.had.contains(&(name.clone(), value.to_string())),
                    "C1: {device} never had {name}={value}"
                );
            }
        }
        self.registries[which].store.write(rows);
    }

    pub(crate) fn commit(
        &mut self,
        which: usize,
        generation: Generation,
        offsets: &[(Partition, Offset)],
    ) -> CommitOutcome {
        let (outcome, applied) = self.answer_commit(generation == self.registries[which].group.current());
        for &(partition, offset) in offsets.iter().filter(|_| applied) {
            let RegistrySide { group, store, .. } = &mut self.registries[which];
            let at = &mut group.committed[usize::try_from(partition).unwrap()];
            self.log.assert_reflected(partition, *at, offset, store);
            *at = offset;
        }
        outcome
    }

    pub(crate) fn commit_commands(&mut self, generation: Generation, offsets: &[(Partition, Offset)]) -> CommitOutcome {
        let (outcome, applied) = self.answer_commit(generation == self.downlink.group.current());
        for &(partition, offset) in offsets.iter().filter(|_| applied) {
            let at = &mut self.downlink.group.committed[usize::try_from(partition).unwrap()];
            self.log.assert_delivered(partition, *at, offset, &self.broker.commands);
            *at = offset;
        }
        outcome
    }

    /// How a commit ends, and whether it is carried out.
    fn answer_commit(&mut self, is_current: bool) -> (CommitOutcome, bool) {
        if !is_current {
            self.count("stale commit");
            return (CommitOutcome::Stale, false);
        }
        if !self.chance(Fault::Answers, 10) {
            return (CommitOutcome::Committed, true);
        }
        (CommitOutcome::Failed { reason: "as the seed has it".to_owned() }, self.rng.random_bool(0.5))
    }

    pub(crate) fn fetch(&mut self) {
        for partition in 0..PARTITIONS {
            let number = Partition::try_from(partition).unwrap();
            for which in 0..self.registries.len() {
                for _ in 0..10 {
                    let RegistrySide { core, group, .. } = &mut self.registries[which];
                    let offset = group.positions[partition];
                    if core.is_none() || group.draining || group.paused[partition] {
                        break;
                    }
                    let Some(record) = self.log.read(number, offset) else { break };
                    let event = registry::Event::Record(group.current(), record.clone());
                    group.positions[partition] += 1;
                    self.registry_event(which, event);
                }
            }
            for _ in 0..10 {
                let DownlinkSide { core, group } = &mut self.downlink;
                let offset = group.positions[partition];
                if core.is_none() || group.draining || group.paused[partition] {
                    break;
                }
                let Some(record) = self.log.command(number, offset) else { break };
                let event = downlink::Event::Record(group.current(), record.clone());
                group.positions[partition] += 1;
                self.downlink_event(event);
            }
        }
    }

    /// What the bridge acknowledged is in the log at that moment (C8), and in the order of arrival.
    pub(crate) fn check_acknowledged(&mut self) {
        for message in std::mem::take(&mut self.broker.acknowledged) {
            let ignored = message.retain && !message.topic.ends_with("/status");
            let stored = self.log.holds(&message.topic, &message.payload);
            assert!(ignored || stored, "C8: acknowledged and not stored: {message:?}");
        }
        assert_eq!(self.broker.disordered, 0, "acknowledged out of order");
    }
}
