//! A device of the plan: its changes, and the RAEs that it is plugged into.

use std::{sync::Arc, time::Duration};

use dmp_core::id::Device;

use super::{ChangeNumber, Names, RaeIndex};

/// A device.
#[derive(Debug)]
pub struct DevicePlan {
    /// Its id.
    pub id: Device,
    /// Serial of its hardware.
    pub hardware: Arc<str>,
    /// The RAE that it is on first.
    pub rae: RaeIndex,
    /// Its changes in order of time: change number n is at index n - 1.
    pub changes: Vec<Change>,
    /// Its moves to other RAEs, in order.
    pub moves: Vec<Move>,
    /// From then on its RAE is gone for ever. It has no changes after that, and the last ones before may be lost.
    pub lost_from: Option<Duration>,
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
    /// It is plugged in again, at the same RAE or at another; `rev` and `report` change with it.
    Attach,
}

/// A device is plugged in at another RAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Number of the fault that moves it.
    pub fault: usize,
    /// The change with which it is plugged in there.
    pub change: ChangeNumber,
    /// Where.
    pub to: RaeIndex,
}

impl DevicePlan {
    /// The RAE that it is plugged into, or was last, after change number `change`.
    #[must_use]
    pub fn home(&self, change: ChangeNumber) -> RaeIndex {
        let before = self.moves.partition_point(|moved| moved.change <= change);
        before.checked_sub(1).map_or(self.rae, |last| self.moves[last].to)
    }

    /// The move that brought it where it is after change number `change`, and the RAE that it left by that.
    #[must_use]
    pub fn last_move(&self, change: ChangeNumber) -> Option<(Move, RaeIndex)> {
        let moved = *self.moves.iter().rfind(|moved| moved.change <= change)?;
        Some((moved, self.home(ChangeNumber(moved.change.0 - 1))))
    }

    /// Whether it is plugged in after change number `change`.
    #[must_use]
    pub fn attached(&self, change: ChangeNumber) -> bool {
        let changes = &self.changes[..change.0 as usize];
        let last = changes.iter().rev().find(|change| !matches!(change.kind, ChangeKind::Update { .. }));
        last.is_none_or(|change| change.kind == ChangeKind::Attach)
    }
}
