//! Faults of the servers that the pipeline works with, and of the ways to them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scenario::quantity::{as_text, as_text_or_none};

/// A server that bridge and registry work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// The MQTT broker.
    Broker,
    /// Kafka.
    Kafka,
    /// The database.
    Store,
}

/// What goes wrong with a server, or with the way from bridge and registry to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFault {
    /// SIGKILL, and a start on the same disk.
    Kill {
        /// Which.
        part: Server,
        /// When it is started again.
        #[serde(serialize_with = "as_text")]
        back_after: Duration,
    },
    /// An orderly end, and a start on the same disk.
    Restart {
        /// Which.
        part: Server,
        /// When it is started again.
        #[serde(serialize_with = "as_text")]
        back_after: Duration,
    },
    /// It stands still, with its connections open.
    Pause {
        /// Which.
        part: Server,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// Its disk takes nothing more.
    FullDisk {
        /// Which.
        part: Server,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// All connections to it are closed, and every new one.
    CutLink {
        /// To which.
        to: Server,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// Connections to it are slow.
    SlowLink {
        /// To which.
        to: Server,
        /// Added to the way of each byte, in each direction.
        #[serde(serialize_with = "as_text_or_none", skip_serializing_if = "Option::is_none")]
        delay: Option<Duration>,
        /// Bytes per second, direction and connection.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_per_s: Option<u64>,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
    /// Connections to it stay open and carry nothing; at the end those that were open break.
    HalfOpenLink {
        /// To which.
        to: Server,
        /// How long.
        #[serde(serialize_with = "as_text")]
        lasts: Duration,
    },
}

impl ServerFault {
    /// Whose fault it is.
    #[must_use]
    pub fn server(&self) -> Server {
        match *self {
            ServerFault::Kill { part, .. }
            | ServerFault::Restart { part, .. }
            | ServerFault::Pause { part, .. }
            | ServerFault::FullDisk { part, .. } => part,
            ServerFault::CutLink { to, .. }
            | ServerFault::SlowLink { to, .. }
            | ServerFault::HalfOpenLink { to, .. } => to,
        }
    }

    /// When it has ended, counted from its begin.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match *self {
            ServerFault::Kill { back_after, .. } | ServerFault::Restart { back_after, .. } => back_after,
            ServerFault::Pause { lasts, .. }
            | ServerFault::FullDisk { lasts, .. }
            | ServerFault::CutLink { lasts, .. }
            | ServerFault::SlowLink { lasts, .. }
            | ServerFault::HalfOpenLink { lasts, .. } => lasts,
        }
    }

    /// Its key in a scenario file.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            ServerFault::Kill { .. } => "kill",
            ServerFault::Restart { .. } => "restart",
            ServerFault::Pause { .. } => "pause",
            ServerFault::FullDisk { .. } => "full_disk",
            ServerFault::CutLink { .. } => "cut_link",
            ServerFault::SlowLink { .. } => "slow_link",
            ServerFault::HalfOpenLink { .. } => "half_open_link",
        }
    }

    /// Whether it is a fault of the way to the server, and not of the server itself.
    #[must_use]
    pub fn is_of_link(&self) -> bool {
        match self {
            ServerFault::CutLink { .. } | ServerFault::SlowLink { .. } | ServerFault::HalfOpenLink { .. } => true,
            ServerFault::Kill { .. }
            | ServerFault::Restart { .. }
            | ServerFault::Pause { .. }
            | ServerFault::FullDisk { .. } => false,
        }
    }

    /// Whether only a server of its own can do it, in a container: the embedded ones are part of the harness, which can
    /// break nothing but its own way to the broker.
    #[must_use]
    pub fn needs_containers(&self) -> bool {
        !(self.is_of_link() && self.server() == Server::Broker)
    }
}
