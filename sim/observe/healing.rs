//! What brought each change of the plan into the log, and how long a change that was missed took to be healed.
//!
//! A change is missed when a later event of its device is in the log and it is not. It is healed by its own update, late,
//! or by a snapshot that was taken after it: a later update of the same attributes hides the gap and does not fill it.
//! Reflected is what the store says it reflects (table `feed`), as read four times a second.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use dmp_core::{
    agent::SnapshotCause,
    event::{Body, Event, StateEvent, Value},
    id::Version,
};
use hdrhistogram::Histogram;

use super::{Healed, HealedBy, Percentiles, fold};
use crate::{
    fleet::plan::{ChangeKind, DeviceIndex, Plan},
    history::{Appended, Entry, Stage, What},
    scenario::Scenario,
};

#[derive(Debug)]
pub(super) struct Healing {
    scenario: Arc<Scenario>,
    plan: Arc<Plan>,
    load: Option<Duration>,
    devices: Vec<Told>,
    /// Snapshots that were asked for and are not in the log yet.
    requested: BTreeSet<(DeviceIndex, Version)>,
    /// By partition: what is healed in the log and not yet in the store.
    waiting: BTreeMap<i32, VecDeque<Waiting>>,
    own_update: u64,
    counts: [u64; 3],
    times: [Histogram<u64>; 3],
    /// By snapshots alone: with and without active repair when the change was missed.
    repaired: Histogram<u64>,
    unrepaired: Histogram<u64>,
}

/// How far the log tells of a device.
#[derive(Debug, Default)]
struct Told {
    /// The newest change in the log.
    newest: u32,
    /// Older ones that are not.
    missed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Waiting {
    offset: i64,
    /// On the plan's clock.
    intended: Duration,
    by: By,
}

/// What healed a change: places in the arrays above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Update,
    Snapshot,
    RequestedSnapshot,
}

impl Healing {
    pub(super) fn new(scenario: Arc<Scenario>, plan: Arc<Plan>) -> Healing {
        Healing {
            devices: std::iter::repeat_with(Told::default).take(plan.devices.len()).collect(),
            scenario,
            plan,
            load: None,
            requested: BTreeSet::new(),
            waiting: BTreeMap::new(),
            own_update: 0,
            counts: [0; 3],
            times: std::array::from_fn(|_| fold::histogram()),
            repaired: fold::histogram(),
            unrepaired: fold::histogram(),
        }
    }

    pub(super) fn observe(&mut self, entry: &Entry) {
        match &entry.what {
            What::Phase { stage: Stage::Load, .. } => {
                self.load.get_or_insert(entry.at);
            }
            What::Cause(publish, SnapshotCause::Requested) => {
                self.requested.insert((publish.device, publish.version));
            }
            What::Appended(record) => self.appended(record),
            What::Feed { partition, next_offset } => self.reflected(*partition, *next_offset, entry.at),
            _ => {}
        }
    }

    /// The figures at `now`, the end of the history: healed, and by snapshots with and without active repair.
    pub(super) fn finish(mut self, now: Duration) -> (HealedBy, Percentiles, Percentiles) {
        let partitions: Vec<_> = self.waiting.keys().copied().collect();
        for partition in partitions {
            // What is in the log and was not seen in the store counts with its age.
            self.reflected(partition, i64::MAX, now);
        }
        let all = self.plan.devices.iter().flat_map(|device| &device.changes).filter(|c| carries_rev(c.kind)).count();
        let told = self.own_update + self.counts.iter().sum::<u64>();
        let healed = |by: By| Healed {
            count: self.counts[by as usize],
            after_ms: fold::percentiles(&self.times[by as usize], 1e-3),
        };
        let healed_by = HealedBy {
            own_update: self.own_update,
            update: healed(By::Update),
            snapshot: healed(By::Snapshot),
            requested_snapshot: healed(By::RequestedSnapshot),
            never: (all as u64).saturating_sub(told),
        };
        (healed_by, fold::percentiles(&self.repaired, 1e-3), fold::percentiles(&self.unrepaired, 1e-3))
    }

    fn appended(&mut self, record: &Appended) {
        let Some(Event::State(event)) = record.event.as_deref().filter(|_| !record.retained) else { return };
        let Some(device) = self.plan.device(event.device) else { return };
        let requested = self.requested.remove(&(device, event.version));
        let Some(rev) = rev(event) else { return };
        let rev = rev.min(self.plan.devices[device.0 as usize].changes.len() as u32);
        let healed = match &event.body {
            Body::Delta { .. } => self.delta(device, rev).map(|number| (number, By::Update)).into_iter().collect(),
            Body::Snapshot { .. } => {
                let by = if requested { By::RequestedSnapshot } else { By::Snapshot };
                let covered = self.snapshot(device, rev, event.version.seq.get() == 1);
                covered.into_iter().map(|number| (number, by)).collect::<Vec<_>>()
            }
        };
        for (number, by) in healed {
            self.counts[by as usize] += 1;
            let intended = self.plan.devices[device.0 as usize].changes[number as usize - 1].at;
            let waiting = Waiting { offset: record.offset, intended, by };
            self.waiting.entry(record.partition).or_default().push_back(waiting);
        }
    }

    /// Takes the update of change `rev`. Returns it if it had been missed.
    fn delta(&mut self, device: DeviceIndex, rev: u32) -> Option<u32> {
        let told = &mut self.devices[device.0 as usize];
        if rev <= told.newest {
            return told.missed.remove(&rev).then_some(rev);
        }
        let changes = &self.plan.devices[device.0 as usize].changes;
        told.missed.extend((told.newest + 1..rev).filter(|&number| carries_rev(changes[number as usize - 1].kind)));
        told.newest = rev;
        self.own_update += 1;
        None
    }

    /// Takes a snapshot that was made after change `rev`. Returns the changes that are told by it alone.
    fn snapshot(&mut self, device: DeviceIndex, rev: u32, opening: bool) -> Vec<u32> {
        let told = &mut self.devices[device.0 as usize];
        let changes = &self.plan.devices[device.0 as usize].changes;
        let still = told.missed.split_off(&(rev + 1));
        let mut covered: Vec<u32> = std::mem::replace(&mut told.missed, still).into_iter().collect();
        for number in told.newest + 1..=rev {
            match changes[number as usize - 1].kind {
                ChangeKind::Detach => {}
                // The update of its own of a device that is plugged in is the snapshot that opens its session.
                ChangeKind::Attach if opening => self.own_update += 1,
                ChangeKind::Attach | ChangeKind::Update { .. } => covered.push(number),
            }
        }
        told.newest = told.newest.max(rev);
        covered
    }

    fn reflected(&mut self, partition: i32, next_offset: i64, at: Duration) {
        let Some(waiting) = self.waiting.get_mut(&partition) else { return };
        let load = self.load.unwrap_or_default();
        while let Some(healed) = waiting.pop_front_if(|healed| healed.offset < next_offset) {
            let took = fold::micros(at.saturating_sub(load + healed.intended));
            fold::record(&mut self.times[healed.by as usize], took);
            if healed.by != By::Update {
                let repairs = self.scenario.repairs_at(healed.intended);
                fold::record(if repairs { &mut self.repaired } else { &mut self.unrepaired }, took);
            }
        }
    }
}

/// The change that an event's `rev` names.
pub(super) fn rev(event: &StateEvent) -> Option<u32> {
    let rev = match &event.body {
        Body::Delta { set, .. } => set.get("rev"),
        Body::Snapshot { attributes } => attributes.get("rev").map(|(value, _)| value),
    };
    match rev {
        Some(&Value::Integer(rev)) => u32::try_from(rev).ok(),
        Some(Value::Text(_) | Value::Bool(_) | Value::Float(_)) | None => None,
    }
}

fn carries_rev(kind: ChangeKind) -> bool {
    kind != ChangeKind::Detach
}
