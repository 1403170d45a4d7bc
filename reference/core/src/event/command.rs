//! Payloads of the way down: commands and their replies.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AttributeName, Value};
use crate::{
    id::{Device, Epoch},
    time::Wall,
};

/// A command to one session; at least once, deduplicated by `id` at the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Ties repeats and the reply to this command.
    pub id: Uuid,
    /// When issuer and bridge give up on it; never judged by a RAE, whose clock may be wrong.
    pub expires_at: Wall,
    /// What to do.
    #[serde(flatten)]
    pub kind: CommandKind,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum CommandKind {
    /// Publish a snapshot of the session's device now.
    Snapshot,
    /// Probe the device now.
    Probe,
    /// Change attributes on the device.
    Set {
        /// New values.
        #[serde(default)]
        set: BTreeMap<AttributeName, Value>,
        /// Attributes to remove.
        #[serde(default)]
        unset: BTreeSet<AttributeName>,
    },
    /// The session lost to one of `epoch`: probe, then open a new session above it or forget the device.
    Reonboard {
        /// The device.
        device: Device,
        /// The epoch that beat the session.
        epoch: Epoch,
    },
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The command's id.
    pub id: Uuid,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: ReplyOutcome,
}

/// How a command ended at the RAE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyOutcome {
    /// Executed.
    Ok,
    /// Not executed, and why.
    Error(String),
}
