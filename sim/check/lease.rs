//! C19: a snapshot is a lease. A device whose newest snapshot is more than three snapshot periods behind what the registry
//! has read of its partition is marked as stale, and no other one: neither an outage upstream nor a backlog makes the
//! living look dead.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dmp_core::{
    event::{Body, Event},
    id::Version,
};

use super::{
    model::Models,
    tally::{SET_BY_OTHERS, Tally},
    verdict::{CheckId, CheckResult},
};
use crate::{
    fleet::plan::DeviceIndex,
    history::{Appended, Entry, Read, What},
};

/// A device is stale when its newest snapshot is more than this many snapshot periods behind its feed.
const PERIODS: u32 = 3;

/// C19.
#[derive(Debug)]
pub(super) struct Lease {
    tally: Tally,
    partitions: BTreeMap<i32, Partition>,
    snapshots: BTreeMap<DeviceIndex, Newest>,
    marked: BTreeSet<DeviceIndex>,
    told: BTreeSet<DeviceIndex>,
    /// After the store was wiped: what was in each partition by then. Until the new life has committed it, partitions are
    /// at different times of the past, and a device that changed its partition may well be marked.
    rebuilding: BTreeMap<i32, i64>,
}

/// Receive times of a partition, in milliseconds since the Unix epoch.
#[derive(Debug, Default)]
struct Partition {
    /// The newest of all records.
    newest: i64,
    /// The newest of those that are committed.
    read: i64,
    committed: i64,
    /// The offset after the newest record.
    end: i64,
    /// Offsets at which the newest rose, not yet committed.
    pending: VecDeque<(i64, i64)>,
}

/// The snapshot of the highest version of a device.
#[derive(Debug, Clone, Copy)]
struct Newest {
    version: Version,
    partition: i32,
    /// Receive times of its first and its last copy.
    first: i64,
    last: i64,
    /// Since the snapshot at this offset the device has never been silent for as long as its lease.
    unbroken_from: i64,
}

impl Lease {
    pub(super) fn new() -> Lease {
        Lease {
            tally: Tally::new(CheckId::C19),
            partitions: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            marked: BTreeSet::new(),
            told: BTreeSet::new(),
            rebuilding: BTreeMap::new(),
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            What::Appended(record) => self.appended(models, record),
            What::Stale { device, stale } => {
                if let Some(device) = models.plan.device(*device) {
                    let _known = if *stale { self.marked.insert(device) } else { self.marked.remove(&device) };
                }
            }
            What::DeviceGone(device) => {
                if let Some(device) = models.plan.device(*device) {
                    self.marked.remove(&device);
                }
            }
            What::StoreWiped { .. } => {
                self.marked.clear();
                let filled = self.partitions.iter().filter(|(_, partition)| partition.end > 0);
                self.rebuilding = filled.map(|(&number, partition)| (number, partition.end)).collect();
            }
            What::Read(read) if judged(models) => self.read(models, entry.at, read),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if !judged(models) {
            return self.tally.not_observable(SET_BY_OTHERS);
        }
        let figure =
            format!("{} of {} devices are marked as stale in the end", self.marked.len(), self.snapshots.len());
        let limit = format!("exactly those silent for {:.1?}", lease(models));
        self.tally.result(figure, limit, "snapshot of a device")
    }

    fn appended(&mut self, models: &Models, record: &Appended) {
        let partition = self.partitions.entry(record.partition).or_default();
        partition.end = record.offset + 1;
        if record.timestamp_ms > partition.newest {
            partition.newest = record.timestamp_ms;
            partition.pending.push_back((record.offset, record.timestamp_ms));
        }
        let Some(Event::State(event)) = record.event.as_deref().filter(|_| !record.retained) else { return };
        let (Body::Snapshot { .. }, Some(device)) = (&event.body, models.plan.device(event.device)) else { return };
        let new = Newest {
            version: event.version,
            partition: record.partition,
            first: record.timestamp_ms,
            last: record.timestamp_ms,
            unbroken_from: record.offset,
        };
        let newest = self.snapshots.entry(device).or_insert(new);
        if event.version > newest.version {
            let silent = partition.newest - newest.first > millis(lease(models));
            let unbroken = newest.partition == new.partition && !silent;
            let unbroken_from = if unbroken { newest.unbroken_from } else { new.unbroken_from };
            *newest = Newest { unbroken_from, ..new };
        } else if event.version == newest.version {
            newest.last = newest.last.max(record.timestamp_ms);
        }
    }

    fn read(&mut self, models: &Models, at: Duration, read: &Read) {
        for &(partition, offset) in &read.committed {
            self.partitions.entry(partition).or_default().commit(offset);
            if self.rebuilding.get(&partition).is_some_and(|&end| offset >= end) {
                self.rebuilding.remove(&partition);
            }
        }
        if !self.rebuilding.is_empty() {
            return;
        }
        let lease = millis(lease(models));
        for (&device, newest) in &self.snapshots {
            self.tally.observed += 1;
            let Some(partition) = self.partitions.get(&newest.partition) else { continue };
            let marked = self.marked.contains(&device);
            let silent = partition.read - newest.last > lease;
            let living = partition.newest - newest.first <= lease && newest.unbroken_from < partition.committed;
            let wrong = match (marked, silent, living) {
                (true, _, true) => format!(
                    "is marked as stale, and its newest snapshot is {} ms behind the newest record of partition {}",
                    partition.newest - newest.first,
                    newest.partition
                ),
                (false, true, _) => format!(
                    "is not marked as stale, and its newest snapshot is {} ms behind what is read of partition {}",
                    partition.read - newest.last,
                    newest.partition
                ),
                (true, _, false) | (false, false, _) => continue,
            };
            if self.told.insert(device) {
                let what = format!("device {} {wrong}; its lease is {lease} ms", models.id(device));
                self.tally.fail(at, || (what, models.timeline(device, at)));
            }
        }
    }
}

impl Partition {
    fn commit(&mut self, offset: i64) {
        self.committed = self.committed.max(offset);
        while let Some((_, newest)) = self.pending.pop_front_if(|(at, _)| *at < self.committed) {
            self.read = newest;
        }
    }
}

/// How long a lease is, and what has one, the target must show.
fn judged(models: &Models) -> bool {
    models.observable.settings && models.observable.records
}

fn lease(models: &Models) -> Duration {
    models.scenario.fleet.snapshot_every * PERIODS
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
