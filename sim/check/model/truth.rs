//! Which devices differ from the plan: kept up with each read, for the devices that changed on either side only.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use dmp_core::event::{AttributeName, CONNECTION, Value};

use super::{Commands, Ledger, Rows, Source};
use crate::{
    fleet::plan::{ATTRIBUTES, COMMANDED, ChangeNumber, DeviceIndex, Plan},
    history::Digest,
};

/// How a device differs from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) enum Difference {
    /// It is not shown at all.
    NotShown,
    /// It is shown under another RAE.
    Rae,
    /// This attribute is missing.
    Missing(AttributeName),
    /// This attribute is shown, and the device does not have it.
    TooMuch(AttributeName),
    /// This attribute has another value.
    Other(AttributeName),
    /// It is shown before it exists.
    TooEarly,
}

/// Devices that differ from the plan.
#[derive(Debug)]
pub(in crate::check) struct Truth {
    /// Times at which a device comes into being or changes, on the plan's clock.
    upcoming: Vec<(u32, DeviceIndex)>,
    next: usize,
    started: bool,
    behind: BTreeSet<DeviceIndex>,
    expected: usize,
    /// When the set of devices behind was last another.
    pub(in crate::check) moved: Duration,
    /// Whole reads so far.
    pub(in crate::check) reads: u64,
}

impl Truth {
    pub(super) fn new(plan: &Plan) -> Truth {
        let mut upcoming = Vec::new();
        for (index, device) in (0..).map(DeviceIndex).zip(&plan.devices) {
            let arrives = plan.raes[device.rae.0 as usize].stay.map(|(from, _)| from);
            let edges = arrives.into_iter().chain(device.lost_from);
            upcoming.extend(edges.chain(device.changes.iter().map(|c| c.at)).map(|at| (ms(at), index)));
        }
        upcoming.sort_unstable();
        Truth {
            upcoming,
            next: 0,
            started: false,
            behind: BTreeSet::new(),
            expected: 0,
            moved: Duration::ZERO,
            reads: 0,
        }
    }

    /// Devices whose rows differ from the plan, as of the last read.
    pub(in crate::check) fn behind(&self) -> &BTreeSet<DeviceIndex> {
        &self.behind
    }

    /// Devices that exist by the last read.
    pub(in crate::check) fn expected(&self) -> usize {
        self.expected
    }

    /// Compares the `touched` devices, and those that the plan changed since the last read.
    #[expect(clippy::too_many_arguments, reason = "one comparison of all that is known; called once")]
    pub(super) fn read(
        &mut self,
        plan: &Plan,
        rows: &Rows,
        ledger: &Ledger,
        commands: &Commands,
        touched: &mut BTreeSet<DeviceIndex>,
        planned: Option<Duration>,
        at: Duration,
    ) {
        if !std::mem::replace(&mut self.started, true) {
            let standing = (0..).map(DeviceIndex).zip(&plan.devices).filter(|(_, d)| stay(plan, d.rae.0).is_none());
            touched.extend(standing.map(|(index, _)| index));
            self.expected = touched.len();
        }
        if let Some(planned) = planned {
            while let Some(&(when, device)) = self.upcoming.get(self.next).filter(|(when, _)| *when <= ms(planned)) {
                self.next += 1;
                touched.insert(device);
                let arrives = stay(plan, plan.devices[device.0 as usize].rae.0);
                self.expected += usize::from(arrives.is_some_and(|(from, _)| ms(from) == when));
            }
        }
        let mut moved = false;
        for &device in touched.iter() {
            moved |= match difference(plan, rows, ledger, commands, device, planned) {
                Some(_) => self.behind.insert(device),
                None => self.behind.remove(&device),
            };
        }
        self.reads += 1;
        if moved {
            self.moved = at;
        }
    }
}

/// How the rows of a device differ from the plan at `planned`; `None` where they do not.
pub(in crate::check) fn difference(
    plan: &Plan,
    rows: &Rows,
    ledger: &Ledger,
    commands: &Commands,
    device: DeviceIndex,
    planned: Option<Duration>,
) -> Option<Difference> {
    let stored = rows.device(device);
    if let Some((from, _)) = stay(plan, plan.devices[device.0 as usize].rae.0)
        && planned.is_none_or(|planned| planned < from)
    {
        return stored.floor.map(|_| Difference::TooEarly);
    }
    if stored.floor.is_none() {
        return Some(Difference::NotShown);
    }
    let change = planned.map_or(ChangeNumber(0), |planned| plan.change_at(device, planned));
    let commanded = || commanded_difference(commands, rows, device);
    let different = difference_to(plan, rows, device, change).or_else(commanded)?;
    let lost_from = plan.devices[device.0 as usize].lost_from;
    let lost = lost_from.zip(planned).is_some_and(|(from, planned)| from <= planned);
    (!lost || !is_as_last_told(plan, rows, ledger, device, change)).then_some(different)
}

/// Whether the rows of a device are as it was at some moment of these, on the plan's clock.
pub(in crate::check) fn right_within(
    plan: &Plan,
    rows: &Rows,
    ledger: &Ledger,
    commands: &Commands,
    device: DeviceIndex,
    from: Option<Duration>,
    to: Option<Duration>,
) -> bool {
    if difference(plan, rows, ledger, commands, device, to).is_none() {
        return true;
    }
    let number = |at: Option<Duration>| at.map_or(0, |at| plan.change_at(device, at).0);
    let was = |change| difference_to(plan, rows, device, ChangeNumber(change)).is_none();
    rows.device(device).floor.is_some() && (number(from)..=number(to)).any(was)
}

/// Whether the rows of a device whose RAE is gone are as the device was at some moment after the newest one that is in
/// the log: what it said later may have died with the RAE. Where an event had been dropped before, the snapshot that
/// would have healed that is not to come: then only what is in the log binds, which is the matter of commit safety.
fn is_as_last_told(plan: &Plan, rows: &Rows, ledger: &Ledger, device: DeviceIndex, last: ChangeNumber) -> bool {
    let Some(session) = ledger.newest_in_log(device) else { return false };
    let agrees = |change| difference_to(plan, rows, device, ChangeNumber(change)).is_none();
    session.misses_a_drop() || (session.newest_rev().unwrap_or(0)..=last.0).rev().any(agrees)
}

/// How the rows of a device differ from its record after change number `change`.
fn difference_to(plan: &Plan, rows: &Rows, device: DeviceIndex, change: ChangeNumber) -> Option<Difference> {
    let planned_names = (0..ATTRIBUTES.len()).find_map(|index| attribute_difference(plan, rows, device, change, index));
    planned_names
        .or_else(|| connection_difference(plan, rows, device, change))
        .or_else(|| {
            let known = |name: &str| name == CONNECTION || name == COMMANDED || ATTRIBUTES.contains(&name);
            let extra = rows.shown(device).find(|(name, _)| !known(name.as_str()));
            extra.map(|(name, _)| Difference::TooMuch(name.clone()))
        })
        .or_else(|| {
            let elsewhere = rows.whole && rows.device(device).rae != Some(plan.home(device, change));
            elsewhere.then_some(Difference::Rae)
        })
}

fn attribute_difference(
    plan: &Plan,
    rows: &Rows,
    device: DeviceIndex,
    change: ChangeNumber,
    index: usize,
) -> Option<Difference> {
    let (origin, present) = plan.origin(device, change, index);
    let row = rows.get(device, ATTRIBUTES[index]).filter(|row| row.shown);
    let name = || crate::fleet::plan::attribute(index);
    match (row, present) {
        (None, false) => None,
        (None, true) => Some(Difference::Missing(name())),
        (Some(_), false) => Some(Difference::TooMuch(name())),
        (Some(row), true) if row.source == Source::Change(origin) => None,
        // Values that repeat lead back to the latest change that gave them.
        (Some(row), true) => {
            (row.digest != Digest::of(&plan.value(device, origin, index))).then(|| Difference::Other(name()))
        }
    }
}

fn connection_difference(plan: &Plan, rows: &Rows, device: DeviceIndex, change: ChangeNumber) -> Option<Difference> {
    let name = || AttributeName::try_from(CONNECTION).expect("valid by hand");
    let wanted = if plan.attached(device, change) { "attached" } else { "detached" };
    match rows.get(device, CONNECTION).filter(|row| row.shown) {
        None => Some(Difference::Missing(name())),
        Some(row) => (row.digest != Digest::of(&Value::Text(wanted.into()))).then(|| Difference::Other(name())),
    }
}

/// How what only commands change differs from what the device was last told to be.
fn commanded_difference(commands: &Commands, rows: &Rows, device: DeviceIndex) -> Option<Difference> {
    let name = || AttributeName::try_from(COMMANDED).expect("valid by hand");
    match (rows.get(device, COMMANDED).filter(|row| row.shown), commands.last_change(device)) {
        (None, None) => None,
        (None, Some(_)) => Some(Difference::Missing(name())),
        (Some(_), None) => Some(Difference::TooMuch(name())),
        (Some(row), Some(id)) => {
            (row.digest != Digest::of(&Value::Text(id.to_string().into()))).then(|| Difference::Other(name()))
        }
    }
}

fn stay(plan: &Plan, rae: u32) -> Option<(Duration, Duration)> {
    plan.raes[rae as usize].stay
}

/// Rounded up, so that nothing is expected before it happens.
fn ms(at: Duration) -> u32 {
    u32::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
