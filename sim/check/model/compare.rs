//! How the rows of one device differ from what the committed part of the log demands.
//!
//! The rows must be the merge of everything committed and of any part of what lies beyond. So each committed offer is in
//! the rows at its version or above, unless something beyond hides it, and nothing is shown that the committed part
//! hides.

use dmp_core::{event::AttributeName, id::Version};

use super::{log::DeviceLog, rows::Rows};
use crate::fleet::plan::DeviceIndex;

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) struct Gap {
    /// The device.
    pub(in crate::check) device: DeviceIndex,
    /// The attribute; `None` is the floor.
    pub(in crate::check) name: Option<AttributeName>,
    /// The version that the committed log demands.
    pub(in crate::check) expected: Version,
    /// The version that is stored, if anything is.
    pub(in crate::check) stored: Option<Version>,
    /// How it came about.
    pub(in crate::check) kind: GapKind,
}

/// How a difference came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum GapKind {
    /// What was committed was never written.
    NeverWritten,
    /// An older offer that came later was written over it.
    Overwritten,
    /// It was shown, and was taken away.
    Removed,
    /// A snapshot or a removal hides it, and it is shown all the same.
    NotHidden,
}

/// The differences of one device.
pub(super) fn gaps(device: DeviceIndex, log: &DeviceLog, rows: &Rows) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = floor_gap(device, log, rows).into_iter().collect();
    let committed = &log.committed;
    let visible = |name: &AttributeName, version: Version| {
        committed.floor.as_ref().is_some_and(|floor| version > floor.version || floor.names.contains(name))
    };
    for (name, offer) in &committed.attributes {
        let row = rows.get(device, name.as_str());
        let shown = row.filter(|row| row.shown).map(|row| row.version);
        let must_show = offer.value.is_some() && visible(name, offer.version);
        let kind = match shown {
            Some(version) if version < offer.version && log.offered_late(name, version) => GapKind::Overwritten,
            Some(version) if version < offer.version && must_show => GapKind::NeverWritten,
            Some(version) if version < offer.version => GapKind::NotHidden,
            Some(version) if version == offer.version && !must_show && !log.may_offer(name, version) => {
                GapKind::NotHidden
            }
            None if must_show && !log.may_hide(name, offer.version) => {
                let once = row.is_some_and(|row| row.version >= offer.version);
                if once { GapKind::Removed } else { GapKind::NeverWritten }
            }
            Some(_) | None => continue,
        };
        gaps.push(Gap { device, name: Some(name.clone()), expected: offer.version, stored: shown, kind });
    }
    gaps
}

fn floor_gap(device: DeviceIndex, log: &DeviceLog, rows: &Rows) -> Option<Gap> {
    let expected = log.committed.floor.as_ref().filter(|_| rows.whole)?.version;
    let stored = rows.device(device);
    let kind = match stored.floor {
        Some(floor) if floor >= expected => return None,
        Some(floor) if log.floor_late(floor) => GapKind::Overwritten,
        Some(_) | None if stored.highest_floor >= Some(expected) => GapKind::Removed,
        Some(_) | None => GapKind::NeverWritten,
    };
    Some(Gap { device, name: None, expected, stored: stored.floor, kind })
}
