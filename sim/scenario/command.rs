//! The commands that a scenario sends down to the fleet, as an operator would.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::as_text;

/// Some commands of one kind, spread evenly over a time. Number n goes to another RAE than those before it, as long as
/// there are RAEs; its device is drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Commands {
    /// When the first is sent, from the begin of the first load phase.
    #[serde(serialize_with = "as_text")]
    pub at: Duration,
    /// As written in the file: `load + 5s`.
    pub at_text: String,
    /// What each asks for.
    pub kind: Ask,
    /// How many.
    pub count: u32,
    /// Over which time they are sent.
    #[serde(serialize_with = "as_text")]
    pub over: Duration,
    /// How long after it was due to be sent a command expires.
    #[serde(serialize_with = "as_text")]
    pub expires_after: Duration,
    /// Whom they are for.
    pub to: Addressee,
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A snapshot now.
    Snapshot,
    /// A probe of the device now.
    Probe,
    /// The attribute that only commands change becomes the command's id.
    Set,
    /// A new session.
    Reonboard,
}

/// Whom a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressee {
    /// The session that a device has at that moment.
    Living,
    /// A session that no RAE has, or has no more.
    DeadSession,
    /// A RAE that does not exist.
    AbsentRae,
}

impl Commands {
    /// When command number `number` is due, from the begin of the load.
    #[must_use]
    pub fn due(&self, number: u32) -> Duration {
        self.at + self.over.mul_f64(f64::from(number) / f64::from(self.count.max(1)))
    }
}
