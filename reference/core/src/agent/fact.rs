//! What the agent tells of its work: what a publish holds, and facts for metrics and checks.

use uuid::Uuid;

use crate::{
    event::CommandName,
    id::{Device, Version},
};

/// What a publish holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Presence of the RAE.
    Status,
    /// A delta.
    Delta(Device, Version),
    /// A snapshot.
    Snapshot(Device, Version, SnapshotCause),
    /// The reply to a command.
    Reply(Uuid),
}

/// Why a snapshot was made. Where several came together the greatest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotCause {
    /// A session opened.
    Opening,
    /// It was time.
    Periodic,
    /// The agent knows that something is missing: it shed events of the device, or had a restart.
    Owed,
    /// A command asked for it.
    Requested,
}

/// What the agent did; for metrics and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// An event was numbered and saved: it waits for its publication, or is shed.
    Recorded(Published),
    /// An event was dropped from the full outbox; the device's next snapshot covers it.
    Shed(Device, Version),
    /// The broker acknowledged the event.
    Acknowledged(Published),
    /// A report, or what a probe found, was refused: it holds a value that is none, or would push the device's snapshot
    /// over the payload limit.
    RefusedReport(Device),
    /// A device was not taken: the RAE has [`MAX_DEVICES`] already.
    RefusedDevice(Device),
    /// A save failed, or may have: it is retried.
    SaveRetried,
    /// A device was forgotten.
    Forgotten(Device),
    /// A command's id is durable: it is executed now, the only time.
    TookCommand(Uuid, CommandName),
    /// A command that was taken has ended, well or with an error; its reply follows.
    ExecutedCommand {
        /// Its id.
        id: Uuid,
        /// What it asked for.
        name: CommandName,
        /// Whether its reply says "ok".
        ok: bool,
    },
    /// A command came again: it gets the reply that it got or will get.
    RepeatedCommand(Uuid),
    /// A command is not executed. One whose id can be read, and for whose reply there is room, gets an error reply.
    RefusedCommand {
        /// Its id, where it can be read.
        id: Option<Uuid>,
        /// Why, in one word: a [`crate::event::CommandError::reason`], or `topic`, `busy`, `stopping`, `gone`, `device`,
        /// `epoch`, `detached`, `size`.
        reason: &'static str,
        /// Whether an error reply follows.
        replied: bool,
    },
    /// The outbox held this many events after a change of more than a tenth of its bound.
    Outbox(usize),
}
