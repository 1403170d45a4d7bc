//! What happens on the way down: commands that are issued, logged, taken, executed and answered.

use std::{sync::Arc, time::Duration};

use dmp_core::{
    event::CommandName,
    id::{Rae, Session},
};
use uuid::Uuid;

use super::PayloadHash;
use crate::{
    fleet::plan::{DeviceIndex, RaeIndex},
    scenario::Addressee,
};

/// One step of a command.
#[derive(Debug, Clone)]
pub enum Down {
    /// The harness is about to hand a command to Kafka.
    Issued(Box<Issued>),
    /// A command is in the commands topic: of the harness, or of a registry.
    Logged(Box<LoggedCommand>),
    /// A reply is in the replies topic.
    Replied {
        /// The command.
        id: Uuid,
        /// Why not, where it says so.
        error: Option<Arc<str>>,
        /// Its key: the MQTT topic that it came by.
        topic: Arc<str>,
        /// Identity of its value.
        payload: PayloadHash,
    },
    /// A command is in the dead-letter topic, or something else is in the commands topic that is none.
    Malformed,
    /// A fault acted on a message with a command, between broker and agent.
    Tampered {
        /// The RAE.
        rae: RaeIndex,
        /// The command.
        id: Uuid,
        /// What was done.
        how: Tampered,
    },
    /// An agent took a command: its id was durable, and it is executed now.
    Taken {
        /// The RAE.
        rae: RaeIndex,
        /// The command.
        id: Uuid,
    },
    /// A command that was taken has ended.
    Executed {
        /// The RAE.
        rae: RaeIndex,
        /// The command.
        id: Uuid,
        /// Whether well.
        ok: bool,
    },
    /// A command reached its agent again.
    Repeated {
        /// The RAE.
        rae: RaeIndex,
        /// The command.
        id: Uuid,
    },
    /// An agent refused a command.
    Refused {
        /// The RAE.
        rae: RaeIndex,
        /// The command; `None` where its id cannot be read.
        id: Option<Uuid>,
        /// Why, in one word.
        reason: &'static str,
        /// Whether an error reply follows.
        replied: bool,
    },
    /// A device itself did what a `set` says: the attribute that only commands change is now this id.
    Changed {
        /// The device.
        device: DeviceIndex,
        /// The command.
        id: Uuid,
    },
}

/// A command of the harness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its id.
    pub id: Uuid,
    /// When it was due, on the run's clock.
    pub due: Duration,
    /// When it expires, on the run's clock.
    pub expires: Duration,
    /// What it asks for.
    pub name: CommandName,
    /// Whom it is for.
    pub to: Addressee,
    /// The device.
    pub device: DeviceIndex,
    /// The RAE that has the device, by what the fleet knows.
    pub rae: RaeIndex,
}

/// A command in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCommand {
    /// Its id.
    pub id: Uuid,
    /// What it asks for.
    pub name: CommandName,
    /// The RAE in its key.
    pub rae: Rae,
    /// The session in its key.
    pub session: Session,
    /// Its timestamp: when its issuer made it, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The consumer group that signed it, if one did.
    pub issuer: Option<Arc<str>>,
}

/// What a fault did to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tampered {
    /// It does not reach the agent.
    Lost,
    /// It reaches the agent now, and again later.
    Doubled,
    /// It reaches the agent later.
    Delayed,
}
