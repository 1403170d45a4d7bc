//! The store as a reader sees it: folded from the differences between reads.
//!
//! Values are kept as digests and as the change that they lead back to: what is compared again and again is small, and
//! a value itself is only needed at the moment in which it is read.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dmp_core::{event::AttributeName, id::Version};

use super::Source;
use crate::{
    fleet::plan::{DeviceIndex, RaeIndex},
    history::Digest,
};

/// Row changes remembered per device, for timelines.
const REMEMBERED: usize = 24;

/// An attribute of a device.
#[derive(Debug, Clone)]
pub(in crate::check) struct Row {
    name: u16,
    /// Whether it was there at the last read.
    pub(in crate::check) shown: bool,
    /// Version that it is, or was last, stored at.
    pub(in crate::check) version: Version,
    /// Its value.
    pub(in crate::check) digest: Digest,
    /// Where the value comes from.
    pub(in crate::check) source: Source,
}

/// A version that was replaced by a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) struct Fell {
    /// From here.
    pub(in crate::check) from: Version,
    /// To here.
    pub(in crate::check) to: Version,
}

/// What became of the stored version of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum RowChange {
    /// It is new, rose, or stayed.
    Rose,
    /// It fell.
    Fell(Fell),
    /// It stayed, and the value is another.
    Rewritten,
}

/// What is stored of one device.
#[derive(Debug, Default)]
pub(in crate::check) struct DeviceRows {
    /// Version of the floor, while the device is shown.
    pub(in crate::check) floor: Option<Version>,
    /// The highest floor ever seen.
    pub(in crate::check) highest_floor: Option<Version>,
    /// The RAE that it is shown under; `None` is none of the plan's.
    pub(in crate::check) rae: Option<RaeIndex>,
    rows: Vec<Row>,
    pub(super) recent: VecDeque<Seen>,
}

/// A row change, for the timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Duration,
    /// `None` is the floor.
    pub(super) name: Option<u16>,
    /// `None` is gone.
    pub(super) version: Option<Version>,
}

/// The store.
#[derive(Debug)]
pub(in crate::check) struct Rows {
    devices: Vec<DeviceRows>,
    names: Vec<AttributeName>,
    numbers: BTreeMap<AttributeName, u16>,
    touched: BTreeSet<DeviceIndex>,
    /// Whether floors and RAEs are the store's own, and not made up from attributes.
    pub(in crate::check) whole: bool,
}

impl Rows {
    pub(super) fn new(devices: usize, whole: bool) -> Rows {
        Rows {
            devices: std::iter::repeat_with(DeviceRows::default).take(devices).collect(),
            names: Vec::new(),
            numbers: BTreeMap::new(),
            touched: BTreeSet::new(),
            whole,
        }
    }

    pub(in crate::check) fn device(&self, device: DeviceIndex) -> &DeviceRows {
        &self.devices[device.0 as usize]
    }

    /// The attribute `name` of a device, shown now or once.
    pub(in crate::check) fn get(&self, device: DeviceIndex, name: &str) -> Option<&Row> {
        let number = *self.numbers.get(name)?;
        self.device(device).rows.iter().find(|row| row.name == number)
    }

    /// What is shown of a device.
    pub(in crate::check) fn shown(&self, device: DeviceIndex) -> impl Iterator<Item = (&AttributeName, &Row)> {
        let rows = self.device(device).rows.iter().filter(|row| row.shown);
        rows.map(|row| (&self.names[usize::from(row.name)], row))
    }

    /// Whether a device is shown here as it is in `other`.
    pub(in crate::check) fn same(&self, other: &Rows, device: DeviceIndex) -> bool {
        let floor = |rows: &Rows| (rows.device(device).floor, rows.device(device).rae);
        let mut shown = self.shown(device);
        let there = |(name, row): (&AttributeName, &Row)| {
            let same = |other: &&Row| other.shown && (other.version, other.digest) == (row.version, row.digest);
            other.get(device, name.as_str()).filter(same).is_some()
        };
        self.device(device).floor.is_some()
            && floor(self) == floor(other)
            && shown.all(there)
            && self.shown(device).count() == other.shown(device).count()
    }

    pub(super) fn name(&self, number: u16) -> &AttributeName {
        &self.names[usize::from(number)]
    }

    /// The device is to be compared with the next read, though its rows are as they were.
    pub(super) fn expect(&mut self, device: DeviceIndex) {
        self.touched.insert(device);
    }

    /// The devices with differences since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<DeviceIndex> {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn row(
        &mut self,
        device: DeviceIndex,
        name: &AttributeName,
        version: Version,
        digest: Digest,
        source: Source,
        at: Duration,
    ) -> RowChange {
        let number = self.number(name);
        let rows = self.touch(device, Seen { at, name: Some(number), version: Some(version) });
        let new = Row { name: number, shown: true, version, digest, source };
        let Some(row) = rows.rows.iter_mut().find(|row| row.name == number) else {
            rows.rows.push(new);
            return RowChange::Rose;
        };
        let old = std::mem::replace(row, new);
        if version < old.version {
            RowChange::Fell(Fell { from: old.version, to: version })
        } else if version == old.version && digest != old.digest {
            RowChange::Rewritten
        } else {
            RowChange::Rose
        }
    }

    /// Returns the version that was shown last, if the attribute was shown.
    pub(super) fn row_gone(&mut self, device: DeviceIndex, name: &AttributeName, at: Duration) -> Option<Version> {
        let number = self.number(name);
        let rows = self.touch(device, Seen { at, name: Some(number), version: None });
        let row = rows.rows.iter_mut().find(|row| row.name == number && row.shown)?;
        row.shown = false;
        Some(row.version)
    }

    pub(super) fn floor(
        &mut self,
        device: DeviceIndex,
        version: Version,
        rae: Option<RaeIndex>,
        at: Duration,
    ) -> Option<Fell> {
        let rows = self.touch(device, Seen { at, name: None, version: Some(version) });
        let before = rows.highest_floor;
        rows.floor = Some(version);
        rows.rae = rae;
        rows.highest_floor = before.max(Some(version));
        before.filter(|&from| version < from).map(|from| Fell { from, to: version })
    }

    pub(super) fn device_gone(&mut self, device: DeviceIndex, at: Duration) {
        let rows = self.touch(device, Seen { at, name: None, version: None });
        rows.floor = None;
        rows.rows.iter_mut().for_each(|row| row.shown = false);
    }

    /// Everything is gone, and may come again from the begin.
    pub(super) fn wiped(&mut self) {
        self.touched.extend((0..).map(DeviceIndex).take(self.devices.len()));
        self.devices.iter_mut().for_each(|device| *device = DeviceRows::default());
    }

    fn touch(&mut self, device: DeviceIndex, seen: Seen) -> &mut DeviceRows {
        self.touched.insert(device);
        let rows = &mut self.devices[device.0 as usize];
        if rows.recent.len() == REMEMBERED {
            rows.recent.pop_front();
        }
        rows.recent.push_back(seen);
        rows
    }

    fn number(&mut self, name: &AttributeName) -> u16 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        // The plan has eleven names; what a broken store makes up beyond 65,535 shares the last number.
        let number = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        if number < u16::MAX {
            self.names.push(name.clone());
            self.numbers.insert(name.clone(), number);
        }
        number.min(u16::MAX - 1)
    }
}
