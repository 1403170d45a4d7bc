//! The Local Registry of one RAE: keeps the records of its devices durably, publishes every change at once and a
//! complete snapshot of each record at regular intervals.
//!
//! Every change is saved, then published. What is not yet acknowledged waits in a bounded outbox; when that is full, a
//! device's deltas are shed and the device is marked "snapshot due", so an outage of any length costs bounded memory
//! and is healed by a snapshot. A session opens only after a successful probe.
//!
//! This file is what a driver and an agent say to each other. The agent itself is `machine`; its parts are
//! `connection` (boot, presence, back-off), `devices` (lifecycle of a device), `absence` (how long one is gone),
//! `commands` (what comes down: taken once, answered) and `execute` (what each command does), `events` (what is
//! numbered), `record` (one record and its bound), `outbox` (QoS 1 window, resend, shedding), `saves` and `timers`;
//! `disk` and `fact` hold the types of what it saves and tells.

mod absence;
mod commands;
mod connection;
mod devices;
mod disk;
mod events;
mod execute;
mod fact;
mod machine;
mod outbox;
mod record;
mod saves;
#[cfg(test)]
mod tests;
mod timers;

pub use commands::{MAX_REPLIES, MAX_UNDER_WAY};
pub use disk::{Change, MAX_REMEMBERED, Saved, SavedCommand, SavedDevice};
pub use fact::{Fact, Published, SnapshotCause};
pub use machine::Agent;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;

use crate::{
    core::{ConnectionId, EffectId, PacketId, Publication, Qos},
    event::{AttributeName, Value},
    id::Rae,
};

/// Most devices of one RAE: it is the router of one shelf, and what it keeps of each is in memory.
pub const MAX_DEVICES: usize = 1024;

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// Serial of the RAE; also its MQTT client id.
    pub rae: Rae,
    /// Delivery quality of state events. Status is always at least once.
    pub qos: Qos,
    /// Mean time between two snapshots of a device.
    pub snapshot_every: Duration,
    /// Each interval is drawn from `snapshot_every` times 1 +- this, in thousandths (0 to 500).
    pub snapshot_jitter_permille: u16,
    /// Time between two probes of a device.
    pub probe_every: Duration,
    /// After how long without a successful probe a device is forgotten.
    pub forget_after: Duration,
    /// Unacknowledged QoS 1 publishes at a time; above 20 rumqttd and slow brokers only queue.
    pub window: u16,
    /// Most state events that wait in the outbox, those in the window included.
    pub outbox: usize,
    /// Longest wait for the RAE's own retained status before a boot number is made without it.
    pub status_wait: Duration,
    /// Waits between connection attempts.
    pub backoff: Backoff,
}

/// A capped back-off: the n-th wait is drawn from half to all of `first * 2^n`, at most `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end of the first wait.
    pub first: Duration,
    /// Upper end of any wait.
    pub most: Duration,
}

impl Backoff {
    /// The wait before attempt number `retry` (0 is the first retry).
    #[must_use]
    pub fn wait(&self, retry: u32, rng: &mut impl rand::Rng) -> Duration {
        let upper = self.first.saturating_mul(1 << retry.min(24)).min(self.most);
        let nanos = u64::try_from(upper.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.random_range(nanos / 2..=nanos))
    }
}

/// What happened around the RAE.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be sent once, first: the agent begins to connect and probes what it had saved.
    Start,
    /// A device was noticed on a port, new or back.
    Detected {
        /// Serial that the device claims.
        hardware: Arc<str>,
    },
    /// A device was unplugged.
    Detached {
        /// Its serial.
        hardware: Arc<str>,
    },
    /// A device tells what changed on it. Of a device that is not onboarded it is ignored: the probe will tell.
    Reported {
        /// Its serial.
        hardware: Arc<str>,
        /// New values.
        set: BTreeMap<AttributeName, Value>,
        /// Removed attributes.
        unset: BTreeSet<AttributeName>,
    },
    /// Answer to [`Effect::Probe`].
    Probed(EffectId, Probe),
    /// Answer to [`Effect::Set`].
    SetDone(EffectId, SetOutcome),
    /// Answer to [`Effect::Save`].
    Saved(EffectId, SaveOutcome),
    /// The broker accepted the connection.
    Connected(ConnectionId),
    /// The connection ended, or could not be made. Once per [`Effect::Connect`].
    Disconnected(ConnectionId),
    /// The broker acknowledged a publish.
    Acknowledged(ConnectionId, PacketId),
    /// The broker acknowledged a subscription.
    Subscribed(ConnectionId, PacketId),
    /// A message arrived.
    Message(ConnectionId, Message),
    /// Finish what is in the window if that takes no longer than the given time, say "offline" and stop.
    Stop {
        /// Bound of the drain.
        within: Duration,
    },
}

/// A message that arrived on a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its payload.
    pub payload: Bytes,
    /// Set for QoS 1: to be acknowledged with [`Effect::Acknowledge`].
    pub packet: Option<PacketId>,
    /// Resent by the broker.
    pub dup: bool,
    /// A retained message, replayed at subscription.
    pub retain: bool,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// The device answered with its whole record; `connection` is the agent's own and not part of it.
    Found(BTreeMap<AttributeName, Value>),
    /// Nothing there.
    Absent,
    /// The probe did not end; says nothing about the device.
    Unknown,
}

/// How an attempt to change a device ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOutcome {
    /// The device took the change.
    Done,
    /// It did not, and why.
    Refused(String),
    /// It may have: the device is probed.
    Unknown,
}

/// How a save ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveOutcome {
    /// On disk, synced.
    Durable,
    /// Not on disk.
    Failed,
    /// May be on disk or not; retried.
    Unknown,
}

/// What the agent wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Connect with a clean session, after giving up whatever connection there was.
    Connect {
        /// Names the attempt.
        connection: ConnectionId,
        /// Last will; none on the short connection that reads the RAE's own retained status.
        will: Option<Publication>,
    },
    /// End the connection in good order: no will.
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
    /// Send a message.
    Publish {
        /// The connection.
        connection: ConnectionId,
        /// Packet id for QoS 1.
        packet: Option<PacketId>,
        /// Set where it was sent before.
        dup: bool,
        /// The message.
        message: Publication,
        /// What it holds.
        of: Published,
    },
    /// Acknowledge a message that arrived.
    Acknowledge(ConnectionId, PacketId),
    /// Make changes durable; saves are carried out and answered in order.
    Save(EffectId, Vec<Change>),
    /// Ask the device itself.
    Probe(EffectId, Arc<str>),
    /// Change attributes on the device itself; always answered, if only by "unknown". One per device at a time.
    Set {
        /// Names the attempt.
        id: EffectId,
        /// Serial of the device.
        hardware: Arc<str>,
        /// New values.
        set: BTreeMap<AttributeName, Value>,
        /// Attributes to remove.
        unset: BTreeSet<AttributeName>,
    },
    /// The agent has stopped; nothing follows.
    Stopped,
    /// For metrics and checks.
    Fact(Fact),
}
