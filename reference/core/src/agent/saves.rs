//! What has to reach the disk: one save under way at a time, and everything that changes meanwhile goes with the next.
//!
//! A save that failed, or may have, is not repeated as it was: the next one carries the newest records of the same
//! devices and of those that changed since. So the disk never goes back, and a slow disk costs no memory.

use std::{collections::BTreeSet, mem};

use super::SaveOutcome;
use crate::{
    core::EffectId,
    id::{Device, Epoch},
};

/// The changes that are not durable yet.
#[derive(Debug, Default)]
pub(super) struct Saves {
    next: Batch,
    under_way: Option<(EffectId, Batch)>,
    failures: u32,
}

/// What goes to the disk together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Epoch of this boot.
    pub(super) boot: Option<Epoch>,
    /// Devices whose record changed, or that were forgotten.
    pub(super) devices: BTreeSet<Device>,
    /// Numbers of commands that were taken, have ended, or are forgotten.
    pub(super) commands: BTreeSet<u64>,
}

/// What an answer to a save means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All that was in the save is durable.
    Durable(Batch),
    /// To be tried again; the number counts the failures in a row before this one.
    Retry(u32),
    /// Not the answer that is waited for.
    Foreign,
}

impl Saves {
    /// The device's record, or its absence, has to be saved.
    pub(super) fn device(&mut self, device: Device) {
        self.next.devices.insert(device);
    }

    /// The command, or its absence, has to be saved.
    pub(super) fn command(&mut self, number: u64) {
        self.next.commands.insert(number);
    }

    /// This boot's epoch has to be saved.
    pub(super) fn boot(&mut self, boot: Epoch) {
        self.next.boot = Some(boot);
    }

    /// Whether a save can begin.
    pub(super) fn is_ready(&self) -> bool {
        self.under_way.is_none() && self.next != Batch::default()
    }

    /// Whether everything is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.next == Batch::default()
    }

    /// Begins the next save.
    pub(super) fn begin(&mut self, id: EffectId) -> &Batch {
        let batch = mem::take(&mut self.next);
        &self.under_way.insert((id, batch)).1
    }

    /// Takes the answer to a save.
    pub(super) fn answered(&mut self, id: EffectId, outcome: SaveOutcome) -> Answer {
        let Some((_, batch)) = self.under_way.take_if(|(expected, _)| *expected == id) else {
            return Answer::Foreign;
        };
        match outcome {
            SaveOutcome::Durable => {
                self.failures = 0;
                Answer::Durable(batch)
            }
            SaveOutcome::Failed | SaveOutcome::Unknown => {
                self.next.devices.extend(batch.devices);
                self.next.commands.extend(batch.commands);
                self.next.boot = self.next.boot.or(batch.boot);
                self.failures = self.failures.saturating_add(1);
                Answer::Retry(self.failures - 1)
            }
        }
    }
}
