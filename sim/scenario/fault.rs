//! The faults that a scenario can hold.

mod server;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::quantity::{Shift, as_text, as_text_or_none};

pub use server::{Server, ServerFault};

/// One fault on the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// When it begins, from the begin of the first load phase.
    #[serde(serialize_with = "as_text")]
    pub at: Duration,
    /// As written in the file: `burst + 5s`.
    pub at_text: String,
    /// What goes wrong.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// This share of updates is saved by the agent and never published.
    MissedUpdates {
        /// Share of deltas, 0 to 1.
        share: f64,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of QoS 0 publishes is lost between RAE and broker.
    Qos0Loss {
        /// Share of messages, 0 to 1.
        share: f64,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of messages is published a second time, later.
    Duplicates {
        /// Share of messages, 0 to 1.
        share: f64,
        /// Most time between the two.
        #[serde(serialize_with = "as_text")]
        delay: Duration,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// The tail of this share of sessions is held back and arrives later, in its order, after the device has opened a
    /// new session.
    DelayedTails {
        /// Share of devices, 0 to 1.
        share: f64,
        /// How long each tail is held back.
        #[serde(serialize_with = "as_text")]
        delay: Duration,
        /// How long the fault holds.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// Messages that can never be applied.
    Poison {
        /// How they are poisonous.
        kind: PoisonKind,
        /// How many.
        messages: u32,
        /// Over which time.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of RAEs restarts with its disk intact.
    Reboot {
        /// Share of RAEs, 0 to 1.
        share: f64,
        /// Time without power.
        #[serde(serialize_with = "as_text")]
        down: Duration,
    },
    /// This share of RAEs loses power, and its disk with it.
    Wipe {
        /// Share of RAEs, 0 to 1.
        share: f64,
        /// Time without power.
        #[serde(serialize_with = "as_text")]
        down: Duration,
    },
    /// This share of RAEs is powered off and never comes back.
    Gone {
        /// Share of RAEs, 0 to 1.
        share: f64,
    },
    /// The wall clock of this share of RAEs steps.
    ClockStep {
        /// Share of RAEs, 0 to 1.
        share: f64,
        /// How far.
        by: Shift,
        /// When it steps back; `None` is never.
        #[serde(serialize_with = "as_text_or_none", skip_serializing_if = "Option::is_none")]
        lasts: Option<Duration>,
    },
    /// The wall clock of this share of RAEs runs at another speed, and keeps what it gained.
    ClockDrift {
        /// Share of RAEs, 0 to 1.
        share: f64,
        /// Seconds gained per second; negative is lost.
        rate: f64,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of devices is unplugged at its RAE and plugged in at another.
    Move {
        /// Share of devices, 0 to 1.
        share: f64,
        /// Over which time.
        #[serde(serialize_with = "as_text")]
        over: Duration,
        /// What becomes of the RAEs that they leave.
        old: OldRae,
        /// For an old RAE that is down or isolated: when it is back, after all have moved. `None` where it stays up.
        #[serde(serialize_with = "as_text_or_none", skip_serializing_if = "Option::is_none")]
        back_after: Option<Duration>,
    },
    /// This share of devices is unplugged and plugged in again, again and again.
    Flapping {
        /// Share of devices, 0 to 1.
        share: f64,
        /// Mean time between two changes of the plug.
        #[serde(serialize_with = "as_text")]
        every: Duration,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// The connections of this share of RAEs break at once, and stay down.
    Disconnect {
        /// Share of RAEs, 0 to 1.
        share: f64,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// SIGKILL, and a restart.
    Kill {
        /// Which part.
        part: Part,
        /// Which of its processes, from 0.
        index: u8,
        /// When it is started again.
        #[serde(serialize_with = "as_text")]
        back_after: Duration,
    },
    /// SIGSTOP, and SIGCONT.
    Pause {
        /// Which part.
        part: Part,
        /// Which of its processes, from 0.
        index: u8,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// From then on there are so many processes of a part: others are started, or told to drain and end.
    Scale {
        /// Which part.
        part: Part,
        /// How many there are from then on.
        to: u8,
    },
    /// The writer stage of a registry panics inside its process.
    StageFailure {
        /// Which registry process, from 0.
        index: u8,
        /// How many times in a row.
        times: u32,
    },
    /// The store takes only so many rows per second.
    ThrottledStore {
        /// Rows per second and registry process.
        rows_per_s: u32,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of commands is lost between broker and agent.
    CommandLoss {
        /// Share of commands, 0 to 1.
        share: f64,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of commands reaches the agent a second time, later.
    CommandDuplicates {
        /// Share of commands, 0 to 1.
        share: f64,
        /// Most time between the two.
        #[serde(serialize_with = "as_text")]
        delay: Duration,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// This share of commands reaches the agent late.
    LateCommands {
        /// Share of commands, 0 to 1.
        share: f64,
        /// Most time by which it is late.
        #[serde(serialize_with = "as_text")]
        delay: Duration,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// Each write takes longer.
    SlowStore {
        /// Additional time per write.
        #[serde(serialize_with = "as_text")]
        delay: Duration,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// All registries are killed, their store is removed, and they come back as a new group that reads the log from its
    /// begin.
    WipeStore {
        /// When they are started again.
        #[serde(serialize_with = "as_text")]
        back_after: Duration,
    },
    /// A second registry joins, with a group and an empty store of its own, and stays; it never speaks to a RAE.
    NewConsumer {
        /// Where it begins to read.
        from: ReadFrom,
    },
    /// What goes wrong with a server, or with the way to it.
    #[serde(untagged)]
    Server(ServerFault),
}

/// Where a new group begins to read the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// At its oldest record.
    Earliest,
    /// At its end: only what comes from then on.
    Latest,
}

/// A part of the pipeline that runs in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// MQTT to Kafka.
    Bridge,
    /// Kafka to the store.
    Registry,
    /// Kafka to another store: a registry beside the others, which no fault can name.
    #[serde(skip)]
    Consumer,
    /// Kafka to a store of its own, done wrong: what the registries are compared with. No fault can name it.
    #[serde(skip)]
    Baseline,
}

/// What becomes of a RAE that devices move away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldRae {
    /// It is there, and notices.
    Up,
    /// It loses its network, then its power, all its devices are carried away, and it boots later, not knowing.
    Down,
    /// It loses its network, all its devices are carried away, and when it is back it sends what it has kept of them.
    Isolated,
}

/// How a message is poisonous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoisonKind {
    /// Not of the wire contract, in a random one of its kinds.
    Undecodable,
    /// Decodes, and no store takes it: one attribute value above the column's limit.
    RefusedByStore,
}

impl FaultKind {
    /// When it has ended, counted from its begin.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            FaultKind::MissedUpdates { lasts, .. }
            | FaultKind::Qos0Loss { lasts, .. }
            | FaultKind::Poison { lasts, .. }
            | FaultKind::Flapping { lasts, .. }
            | FaultKind::Disconnect { lasts, .. }
            | FaultKind::Pause { lasts, .. }
            | FaultKind::ThrottledStore { lasts, .. }
            | FaultKind::SlowStore { lasts, .. }
            | FaultKind::CommandLoss { lasts, .. }
            | FaultKind::ClockDrift { lasts, .. } => *lasts,
            FaultKind::Duplicates { delay, lasts, .. }
            | FaultKind::DelayedTails { delay, lasts, .. }
            | FaultKind::CommandDuplicates { delay, lasts, .. }
            | FaultKind::LateCommands { delay, lasts, .. } => *lasts + *delay,
            FaultKind::Reboot { down, .. } | FaultKind::Wipe { down, .. } => *down,
            FaultKind::Kill { back_after, .. } | FaultKind::WipeStore { back_after } => *back_after,
            FaultKind::ClockStep { lasts, .. } => lasts.unwrap_or_default(),
            FaultKind::Move { over, back_after, .. } => *over + back_after.unwrap_or_default(),
            FaultKind::Server(fault) => fault.lasts(),
            FaultKind::StageFailure { .. }
            | FaultKind::Gone { .. }
            | FaultKind::Scale { .. }
            | FaultKind::NewConsumer { .. } => Duration::ZERO,
        }
    }

    /// The share of RAEs that it takes the power of, and with it what is in their memory, if it does.
    #[must_use]
    pub fn powers_off(&self) -> Option<f64> {
        match self {
            FaultKind::Reboot { share, .. } | FaultKind::Wipe { share, .. } | FaultKind::Gone { share } => Some(*share),
            FaultKind::Move { share, old: OldRae::Down, .. } => Some(*share),
            FaultKind::Move { old: OldRae::Up | OldRae::Isolated, .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Poison { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::Disconnect { .. }
            | FaultKind::Kill { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Scale { .. }
            | FaultKind::StageFailure { .. }
            | FaultKind::Server(_)
            | FaultKind::ThrottledStore { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::SlowStore { .. }
            | FaultKind::WipeStore { .. }
            | FaultKind::NewConsumer { .. } => None,
        }
    }

    /// Whether it can leave a living session with a lower version than a dead one, so that only feedback heals it.
    #[must_use]
    pub fn upsets_epochs(&self) -> bool {
        match self {
            FaultKind::Wipe { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { .. } => true,
            FaultKind::Reboot { .. }
            | FaultKind::Gone { .. }
            | FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Poison { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::Disconnect { .. }
            | FaultKind::Kill { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Scale { .. }
            | FaultKind::StageFailure { .. }
            | FaultKind::Server(_)
            | FaultKind::ThrottledStore { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::SlowStore { .. }
            | FaultKind::WipeStore { .. }
            | FaultKind::NewConsumer { .. } => false,
        }
    }

    /// Whether only servers of their own can do it, in containers.
    #[must_use]
    pub fn needs_containers(&self) -> bool {
        matches!(self, FaultKind::Server(fault) if fault.needs_containers())
    }

    /// Its key in a scenario file.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            FaultKind::MissedUpdates { .. } => "missed_updates",
            FaultKind::Qos0Loss { .. } => "qos0_loss",
            FaultKind::Duplicates { .. } => "duplicates",
            FaultKind::DelayedTails { .. } => "delayed_tails",
            FaultKind::Poison { .. } => "poison",
            FaultKind::Reboot { .. } => "reboot",
            FaultKind::Wipe { .. } => "wipe",
            FaultKind::Gone { .. } => "gone",
            FaultKind::ClockStep { .. } => "clock_step",
            FaultKind::ClockDrift { .. } => "clock_drift",
            FaultKind::Move { .. } => "move",
            FaultKind::Flapping { .. } => "flapping",
            FaultKind::Disconnect { .. } => "disconnect",
            FaultKind::Kill { .. } => "kill",
            FaultKind::Pause { .. } => "pause",
            FaultKind::Scale { .. } => "scale",
            FaultKind::StageFailure { .. } => "stage_failure",
            FaultKind::Server(fault) => fault.key(),
            FaultKind::ThrottledStore { .. } => "throttled_store",
            FaultKind::SlowStore { .. } => "slow_store",
            FaultKind::CommandLoss { .. } => "command_loss",
            FaultKind::CommandDuplicates { .. } => "command_duplicates",
            FaultKind::LateCommands { .. } => "late_commands",
            FaultKind::WipeStore { .. } => "wipe_store",
            FaultKind::NewConsumer { .. } => "new_consumer",
        }
    }
}

impl fmt::Display for FaultKind {
    /// As a scenario file has it: `kill = { back_after = "2s", index = 0, part = "bridge" }`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = toml::Value::try_from(self).map_err(|_not_toml| fmt::Error)?;
        write!(f, "{} = {}", self.key(), tables.get(self.key()).ok_or(fmt::Error)?)
    }
}
