//! What the agent keeps on disk, and the changes that it saves there.
//!
//! A disk applies the changes of one save together or not at all, and knows nothing of what they mean: which commands
//! are remembered and which are forgotten is the agent's decision.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::{AttributeName, ReplyOutcome, Value},
    id::{Device, Epoch, Seq, Session},
    time::Wall,
};

/// Most commands whose ids are remembered. A repeat comes from a bridge that crashed with commands published and their
/// offsets not committed: at most a commit's worth, 1,000 records over all RAEs.
pub const MAX_REMEMBERED: usize = 1024;

/// What the agent keeps on disk of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// Serial that the device reported when it was probed.
    pub hardware: Arc<str>,
    /// Its current session.
    pub session: Session,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Seq of the newest event of the session; the next event gets the one above.
    pub seq: Seq,
    /// The record: value and seq of the last change in this session.
    pub attributes: BTreeMap<AttributeName, (Value, Seq)>,
    /// When a probe last found the device.
    pub found_at: Wall,
}

/// What the agent finds on its disk when it starts; empty after a wipe.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Saved {
    /// Epoch of the last boot.
    pub boot: Option<Epoch>,
    /// Its devices. Shared with the agent: a disk in memory costs no second copy of what did not change.
    pub devices: BTreeMap<Device, Arc<SavedDevice>>,
    /// The last commands that it took, numbered in the order in which it did; at most [`MAX_REMEMBERED`].
    #[serde(default)]
    pub commands: BTreeMap<u64, SavedCommand>,
}

/// What the agent keeps on disk of a command: so that none is executed twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCommand {
    /// Its id; saved before the command is executed.
    pub id: Uuid,
    /// How it ended; `None` until then. One without an outcome at the start was interrupted.
    pub outcome: Option<ReplyOutcome>,
}

/// One durable change; those of one [`Effect::Save`] are applied together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Epoch of this boot.
    Boot(Epoch),
    /// The whole record of a device.
    Device(Device, Arc<SavedDevice>),
    /// The device is forgotten.
    Forget(Device),
    /// A command that was taken, or its outcome, at its number.
    Command(u64, SavedCommand),
    /// The command of this number is forgotten.
    ForgetCommand(u64),
}

impl Saved {
    /// Applies one change: what a disk does.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Boot(boot) => self.boot = Some(boot),
            Change::Device(device, saved) => {
                self.devices.insert(device, saved);
            }
            Change::Forget(device) => {
                self.devices.remove(&device);
            }
            Change::Command(number, command) => {
                self.commands.insert(number, command);
            }
            Change::ForgetCommand(number) => {
                self.commands.remove(&number);
            }
        }
    }
}
