//! The bridge: each MQTT message becomes one Kafka record, key = topic; acknowledged in arrival order, and only after
//! Kafka has stored it.
//!
//! One core is one shard group's connection. Its window is bounded: when it is full, reading stops and MQTT's own flow
//! control holds the rest at the broker. What Kafka refuses for good goes to the dead-letter topic and is then
//! acknowledged like any other.

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
    /// A retained message outside `status` was ignored and acknowledged.
    IgnoredRetained,
    /// A message went to the dead-letter topic.
    DeadLettered,
    /// A record is produced again.
    Retried,
    /// The window holds this many messages; told at full and at empty.
    Window(usize),
}
