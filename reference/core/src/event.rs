//! The wire contract: topics, payloads, limits, and what poison looks like.
//!
//! One JSON object per message; unknown fields are ignored, an unknown `v` is refused. What any store could refuse is
//! refused here, with one typed error per kind ([`Poison`]).

mod command;
mod payload;
mod reply;
mod topic;
mod value;

pub use command::{BadCommand, Command, CommandError, CommandKind, CommandName};
pub use payload::{Body, Event, Poison, Presence, PresenceState, StateEvent, decode};
pub use reply::{BadReply, MAX_ERROR_CHARS, Reply, ReplyOutcome};
pub use topic::{Topic, TopicError, commands_filter, subscriptions};
pub use value::{AttributeName, NameError, Value, ValueError};

/// Largest payload, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The only version of the wire contract, `v`.
pub const WIRE_VERSION: u64 = 1;

/// The attribute that tells whether a device is plugged in: `attached` or `detached`.
pub const CONNECTION: &str = "connection";

/// Names of the Kafka topics.
pub mod kafka_topic {
    /// State and status events, upwards.
    pub const EVENTS: &str = "dmp.events";
    /// Commands, downwards.
    pub const COMMANDS: &str = "dmp.commands";
    /// Replies to commands.
    pub const REPLIES: &str = "dmp.replies";
    /// What could not be decoded or stored.
    pub const DEAD_LETTER: &str = "dmp.dead-letter";
}

#[cfg(test)]
mod tests;
