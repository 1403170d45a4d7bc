//! What a bridge and its driver say to each other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    agent::{Backoff, Message},
    core::{ConnectionId, EffectId, PacketId},
    time::Wall,
};

/// Settings of a bridge connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// Identity in the record header `bridge`.
    pub id: Arc<str>,
    /// Topic filters of its shard group.
    pub filters: Vec<String>,
    /// Most messages that wait for Kafka at a time.
    pub window: usize,
    /// Waits between connection attempts and between retries of a record.
    pub backoff: Backoff,
}

/// What happened around the bridge.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be sent once, first.
    Start,
    /// The broker accepted the connection.
    Connected {
        /// The attempt.
        connection: ConnectionId,
        /// Whether the broker still had the session.
        session_present: bool,
    },
    /// The connection ended, or could not be made. Once per [`Effect::Connect`].
    Disconnected(ConnectionId),
    /// The broker acknowledged the subscription.
    Subscribed(ConnectionId, PacketId),
    /// A message arrived.
    Message(ConnectionId, Message),
    /// Answer to [`Effect::Produce`].
    Produced(EffectId, ProduceOutcome),
    /// Stop reading, wait for Kafka no longer than the given time, acknowledge what it stored and stop.
    Stop {
        /// Bound of the drain.
        within: Duration,
    },
}

/// How a produce ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// In the log.
    Stored {
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
    /// Never going to be taken: too large, or invalid.
    Refused {
        /// Kafka's words.
        reason: String,
    },
    /// Not stored; may be later.
    Failed {
        /// Kafka's words.
        reason: String,
    },
    /// May be stored or not.
    Unknown {
        /// Kafka's words.
        reason: String,
    },
}

/// What the bridge wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Connect with the persistent session of the shard group's fixed client id.
    Connect(ConnectionId),
    /// End the connection in good order.
    Disconnect(ConnectionId),
    /// Subscribe at QoS 1.
    Subscribe {
        /// The connection.
        connection: ConnectionId,
        /// Packet id.
        packet: PacketId,
        /// Topic filters.
        filters: Vec<String>,
    },
    /// Stop reading from the connection: the window is full.
    PauseReading(ConnectionId),
    /// Read again.
    ResumeReading(ConnectionId),
    /// Store a record. Records are handed to Kafka in the order of the effects.
    Produce(EffectId, OutgoingRecord),
    /// Acknowledge a message that arrived.
    Acknowledge(ConnectionId, PacketId),
    /// The bridge has stopped; nothing follows.
    Stopped,
    /// For metrics and checks.
    Fact(Fact),
}

/// A record on its way to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// Kafka topic.
    pub topic: &'static str,
    /// Key: the MQTT topic.
    pub key: Bytes,
    /// Value: the payload, untouched; in a dead letter cut.
    pub value: Bytes,
    /// Receive time.
    pub timestamp: Wall,
    /// Headers, ASCII.
    pub headers: Vec<(&'static str, String)>,
}

/// What the bridge did; for metrics and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// A message was stored and acknowledged.
    Forwarded,
    /// A retained message outside `status`, or the removal of one on it, was ignored and acknowledged.
    IgnoredRetained,
    /// A message went to the dead-letter topic.
    DeadLettered,
    /// A record is produced again.
    Retried,
    /// A record was stored after the connection of its message had gone: the broker sends the message again.
    Orphaned,
    /// The window holds this many messages; told when it is full, and when it is empty again.
    Window(usize),
}

/// Queues of a bridge, for metrics and for checks of their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Messages in the window. After [`Effect::PauseReading`] it grows above `window_cap` only by what had been read
    /// before the driver carried that out.
    pub window: usize,
    /// The window's bound, [`Config::window`].
    pub window_cap: usize,
    /// Records handed to Kafka and not yet answered.
    pub in_flight: usize,
    /// Records that wait to be produced again.
    pub retrying: usize,
    /// Whether reading is paused.
    pub paused: bool,
    /// Whether the broker has accepted the connection.
    pub connected: bool,
}
