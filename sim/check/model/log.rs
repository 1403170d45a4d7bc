//! The log, merged per device: up to the committed offsets as one state, and beyond them record by record.
//!
//! Committed is what the rows must reflect. What is beyond may be in the rows or not, in part or whole, so that the rows
//! of a device lie between the two. A fleet has tens of thousands of devices, so names are shared, and digests stand for
//! the values, which the merge passes on unread.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use dmp_core::{
    event::{AttributeName, Body, StateEvent, Value},
    id::Version,
    merge::DeviceState,
    time::Wall,
};

use super::Gap;
use crate::{fleet::plan::DeviceIndex, history::Digest};

/// Offers remembered per device that came after a newer one: they tell an overwritten row from one never written.
const LATE_OFFERS: usize = 64;

/// Committed records remembered per partition, so that a dead letter that is read late still finds its record.
const REMEMBERED: usize = 8_192;

/// What the log offers for a name at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum Offered {
    /// This value.
    Same,
    /// Another value, or its removal.
    Other,
    /// The log has gone on, so that the offer itself is no longer at hand.
    Past,
    /// Nothing.
    Nothing,
}

/// The log of one device.
#[derive(Debug, Default)]
pub(in crate::check) struct DeviceLog {
    /// Everything below the committed offsets.
    pub(in crate::check) committed: DeviceState,
    /// Records beyond them, in order of arrival.
    pub(in crate::check) pending: VecDeque<Pending>,
    /// Offers that came after a newer one.
    late: VecDeque<(AttributeName, Version)>,
    /// Snapshots that came after a newer one.
    late_floors: VecDeque<Version>,
}

/// A record beyond the committed offset of its partition.
#[derive(Debug)]
pub(in crate::check) struct Pending {
    pub(in crate::check) partition: i32,
    pub(in crate::check) offset: i64,
    /// With digests in place of its values.
    event: Arc<StateEvent>,
}

impl Pending {
    /// Whether it tells the value of `name`: a snapshot tells all there are.
    pub(in crate::check) fn tells(&self, name: &str) -> bool {
        match &self.event.body {
            Body::Snapshot { .. } => true,
            Body::Delta { set, .. } => set.contains_key(name),
        }
    }
}

#[derive(Debug, Default)]
struct PartitionLog {
    ahead: VecDeque<(i64, DeviceIndex)>,
    behind: VecDeque<(i64, DeviceIndex, Version)>,
    committed: i64,
}

/// Events of devices by their partition and offset.
type Kept = BTreeMap<(i32, i64), (DeviceIndex, Arc<StateEvent>)>;

/// The log of all devices of the plan.
#[derive(Debug)]
pub(in crate::check) struct Log {
    devices: Vec<DeviceLog>,
    partitions: BTreeMap<i32, PartitionLog>,
    excused: BTreeMap<DeviceIndex, Vec<Version>>,
    told: BTreeSet<(DeviceIndex, Option<AttributeName>, Version)>,
    names: BTreeSet<AttributeName>,
    /// Every record, where the store is to be rebuilt from them.
    kept: Option<Kept>,
}

impl Log {
    /// `rebuilds` tells whether the store may be wiped, and all be committed again from the begin.
    pub(super) fn new(devices: usize, rebuilds: bool) -> Log {
        Log {
            devices: std::iter::repeat_with(DeviceLog::default).take(devices).collect(),
            partitions: BTreeMap::new(),
            excused: BTreeMap::new(),
            told: BTreeSet::new(),
            names: BTreeSet::new(),
            kept: rebuilds.then(BTreeMap::new),
        }
    }

    pub(in crate::check) fn device(&self, device: DeviceIndex) -> &DeviceLog {
        &self.devices[device.0 as usize]
    }

    /// The committed offset that was merged last.
    pub(in crate::check) fn committed_offset(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |log| log.committed)
    }

    pub(super) fn appended(&mut self, device: DeviceIndex, partition: i32, offset: i64, event: &StateEvent) {
        let event = Arc::new(self.condensed(event));
        self.enter(device, partition, offset, event);
    }

    fn enter(&mut self, device: DeviceIndex, partition: i32, offset: i64, event: Arc<StateEvent>) {
        if let Some(kept) = &mut self.kept {
            kept.insert((partition, offset), (device, event.clone()));
        }
        self.partitions.entry(partition).or_default().ahead.push_back((offset, device));
        self.devices[device.0 as usize].pending.push_back(Pending { partition, offset, event });
    }

    /// Store and group are new: nothing is committed, and all that is in the log lies ahead.
    pub(super) fn wiped(&mut self) {
        self.devices.iter_mut().for_each(|device| *device = DeviceLog::default());
        self.partitions.clear();
        self.told.clear();
        let Some(kept) = self.kept.replace(BTreeMap::new()) else { return };
        for ((partition, offset), (device, event)) in kept {
            self.enter(device, partition, offset, event);
        }
    }

    /// Merges what is below `offset`; the devices concerned join `touched`. Returns how many records that were.
    pub(super) fn committed(&mut self, partition: i32, offset: i64, touched: &mut BTreeSet<DeviceIndex>) -> u64 {
        let log = self.partitions.entry(partition).or_default();
        log.committed = log.committed.max(offset);
        let mut records = 0;
        while let Some(&(next, device)) = log.ahead.front().filter(|(next, _)| *next < offset) {
            log.ahead.pop_front();
            touched.insert(device);
            records += 1;
            if let Some(version) = self.devices[device.0 as usize].commit(partition, next) {
                log.behind.push_back((next, device, version));
            }
        }
        let surplus = log.behind.len().saturating_sub(REMEMBERED);
        log.behind.drain(..surplus);
        records
    }

    /// A record was quarantined: the rows need not reflect it. Returns whose it was, if it was an event of the fleet.
    pub(super) fn quarantined(&mut self, partition: i32, offset: i64) -> Option<(DeviceIndex, Version)> {
        if let Some(kept) = &mut self.kept {
            kept.remove(&(partition, offset));
        }
        let log = self.partitions.get_mut(&partition)?;
        if let Ok(place) = log.ahead.binary_search_by_key(&offset, |&(at, _)| at) {
            let (_, device) = log.ahead.remove(place)?;
            let pending = &mut self.devices[device.0 as usize].pending;
            let place = pending.iter().position(|p| p.partition == partition && p.offset == offset)?;
            let version = pending.remove(place)?.event.version;
            return Some((device, version));
        }
        let place = log.behind.binary_search_by_key(&offset, |&(at, _, _)| at).ok()?;
        let (_, device, version) = log.behind[place];
        self.excused.entry(device).or_default().push(version);
        Some((device, version))
    }

    /// Whether a quarantined record, merged before its dead letter was read, can have offered this version.
    pub(super) fn excused(&self, device: DeviceIndex, version: Version) -> bool {
        let of_session = |excuse: &Version| (excuse.epoch, excuse.session) == (version.epoch, version.session);
        let excuses = self.excused.get(&device);
        excuses.is_some_and(|excuses| excuses.iter().any(|e| of_session(e) && version.seq <= e.seq))
    }

    /// What the log offers for `name` at `version`, and whether it is `value`.
    pub(super) fn offers(&self, device: DeviceIndex, name: &AttributeName, value: &Value, version: Version) -> Offered {
        let log = self.device(device);
        let value = digest(value);
        let stored = log.committed.attributes.get(name);
        let committed =
            stored.filter(|offer| offer.version == version).map(|offer| offer.value.as_ref() == Some(&value));
        let pending = log.pending.iter().filter_map(|p| offer_at(&p.event, name, version));
        let mut found = None;
        for same in committed.into_iter().chain(pending.map(|offered| offered == Some(&value))) {
            if same {
                return Offered::Same;
            }
            found = Some(Offered::Other);
        }
        let past = stored.is_some_and(|offer| version < offer.version);
        found.unwrap_or(if past { Offered::Past } else { Offered::Nothing })
    }

    /// Whether a snapshot of this version is in the log, or the log has gone on.
    pub(super) fn offers_floor(&self, device: DeviceIndex, version: Version) -> bool {
        let log = self.device(device);
        log.committed.floor.as_ref().is_some_and(|floor| version <= floor.version)
            || log.pending.iter().any(|p| is_snapshot(&p.event) && p.event.version == version)
    }

    /// Whether anything in the log makes `name` at `version` invisible.
    pub(super) fn hides(&self, device: DeviceIndex, name: &AttributeName, version: Version) -> bool {
        let log = self.device(device);
        let removed = log.committed.attributes.get(name).is_some_and(|o| o.value.is_none() && o.version > version);
        let below = |floor: &dmp_core::merge::Floor| floor.version >= version && !floor.names.contains(name);
        removed || log.committed.floor.as_ref().is_some_and(below) || log.may_hide(name, version)
    }

    /// Those gaps that were not told before.
    pub(super) fn untold(&mut self, gaps: Vec<Gap>) -> Vec<Gap> {
        let told = &mut self.told;
        gaps.into_iter().filter(|gap| told.insert((gap.device, gap.name.clone(), gap.expected))).collect()
    }

    /// The event with digests in place of its values, and with shared names.
    fn condensed(&mut self, event: &StateEvent) -> StateEvent {
        let body = match &event.body {
            Body::Delta { set, unset } => Body::Delta {
                set: set.iter().map(|(name, value)| (self.name(name), digest(value))).collect(),
                unset: unset.iter().map(|name| self.name(name)).collect(),
            },
            Body::Snapshot { attributes } => {
                let condensed = |(name, (value, seq)): (&_, &(_, _))| (self.name(name), (digest(value), *seq));
                Body::Snapshot { attributes: attributes.iter().map(condensed).collect() }
            }
        };
        StateEvent { rae: event.rae.clone(), device: event.device, version: event.version, at: event.at, body }
    }

    fn name(&mut self, name: &AttributeName) -> AttributeName {
        if let Some(shared) = self.names.get(name) {
            return shared.clone();
        }
        self.names.insert(name.clone());
        name.clone()
    }
}

impl DeviceLog {
    /// Whether a record beyond the committed offsets hides `name` at `version`.
    pub(in crate::check) fn may_hide(&self, name: &AttributeName, version: Version) -> bool {
        self.pending.iter().map(|p| &p.event).any(|event| match &event.body {
            Body::Delta { unset, .. } => event.version > version && unset.contains(name),
            Body::Snapshot { attributes } => event.version >= version && !attributes.contains_key(name),
        })
    }

    /// Whether a record beyond the committed offsets offers `name` at `version`.
    pub(in crate::check) fn may_offer(&self, name: &AttributeName, version: Version) -> bool {
        self.pending.iter().any(|p| offer_at(&p.event, name, version).flatten().is_some())
    }

    /// Whether `name` at `version` was offered again after a newer one.
    pub(in crate::check) fn offered_late(&self, name: &AttributeName, version: Version) -> bool {
        self.late.iter().any(|(late, at)| late == name && *at == version)
            || self.pending.iter().any(|p| offer_at(&p.event, name, version).is_some())
    }

    /// Whether the snapshot of `version` came again, or at all, after a newer one.
    pub(in crate::check) fn floor_late(&self, version: Version) -> bool {
        self.late_floors.contains(&version)
            || self.pending.iter().any(|p| is_snapshot(&p.event) && p.event.version == version)
    }

    fn commit(&mut self, partition: i32, offset: i64) -> Option<Version> {
        let place = self.pending.iter().position(|p| p.partition == partition && p.offset == offset)?;
        let record = self.pending.remove(place)?;
        let event = &record.event;
        self.remember_late(event);
        self.committed.apply(event, Wall::default());
        Some(event.version)
    }

    fn remember_late(&mut self, event: &StateEvent) {
        let newer = |name: &AttributeName, version| {
            self.committed.attributes.get(name).is_some_and(|stored| stored.version > version)
        };
        let late: Vec<(AttributeName, Version)> =
            offers(event).filter(|(name, version)| newer(name, *version)).map(|(n, v)| (n.clone(), v)).collect();
        self.late.extend(late);
        let surplus = self.late.len().saturating_sub(LATE_OFFERS);
        self.late.drain(..surplus);
        let floor = self.committed.floor.as_ref().map(|floor| floor.version);
        if is_snapshot(event) && floor.is_some_and(|floor| floor > event.version) {
            self.late_floors.push_back(event.version);
            let surplus = self.late_floors.len().saturating_sub(LATE_OFFERS);
            self.late_floors.drain(..surplus);
        }
    }
}

/// What stands for `value`.
fn digest(value: &Value) -> Value {
    Digest::of(value).as_value()
}

fn is_snapshot(event: &StateEvent) -> bool {
    matches!(event.body, Body::Snapshot { .. })
}

/// What an event offers for `name` if it does so at `version`: a value, or `Some(None)` for its removal.
fn offer_at<'a>(event: &'a StateEvent, name: &AttributeName, version: Version) -> Option<Option<&'a Value>> {
    let Version { epoch, session, .. } = event.version;
    match &event.body {
        Body::Delta { .. } if event.version != version => None,
        Body::Delta { set, unset } => set.get(name).map(Some).or_else(|| unset.contains(name).then_some(None)),
        Body::Snapshot { attributes } => {
            let (value, seq) = attributes.get(name)?;
            (Version { epoch, session, seq: *seq } == version).then_some(Some(value))
        }
    }
}

/// Every name that an event offers, with the version of the offer.
fn offers(event: &StateEvent) -> Box<dyn Iterator<Item = (&AttributeName, Version)> + '_> {
    let Version { epoch, session, .. } = event.version;
    match &event.body {
        Body::Delta { set, unset } => Box::new(set.keys().chain(unset).map(|name| (name, event.version))),
        Body::Snapshot { attributes } => {
            Box::new(attributes.iter().map(move |(name, (_, seq))| (name, Version { epoch, session, seq: *seq })))
        }
    }
}
