//! What a downlink and its driver say to each other.

use std::time::Duration;

use crate::{
    agent::Backoff,
    bridge::{OutgoingRecord, ProduceOutcome},
    consume::{CommitOutcome, Generation, Offset, Partition, Record},
    core::{ConnectionId, EffectId, PacketId, Publication},
};

/// Settings of a downlink.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most publishes that the broker has not acknowledged.
    pub window: u16,
    /// Most records buffered per partition; at it the partition is paused, and resumed at half of it.
    pub partition_credit: usize,
    /// Longest wait for an acknowledgement before the connection is given up.
    pub acknowledged_within: Duration,
    /// Offsets are committed after this many records...
    pub commit_records: u64,
    /// ... or this long after the last commit.
    pub commit_every: Duration,
    /// Longest drain when partitions are revoked.
    pub drain_within: Duration,
    /// Waits between connection attempts, and between retries of a reply, a dead letter or a commit.
    pub backoff: Backoff,
}

/// What happened around the downlink.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be sent once, first.
    Start,
    /// The broker accepted the connection.
    Connected(ConnectionId),
    /// The connection ended, or could not be made. Once per [`Effect::Connect`].
    Disconnected(ConnectionId),
    /// The broker acknowledged a publish.
    Acknowledged(ConnectionId, PacketId),
    /// Partitions of `dmp.commands` were assigned, each with the offset at which reading starts. None of them is paused.
    Assigned(Generation, Vec<(Partition, Offset)>),
    /// Partitions are about to be taken away: drain them, commit, and answer with [`Effect::Drained`].
    Revoked(Generation),
    /// Partitions were lost without a chance to commit.
    Lost(Generation),
    /// A record was read.
    Record(Generation, Record),
    /// Answer to [`Effect::Produce`].
    Produced(EffectId, ProduceOutcome),
    /// Answer to [`Effect::Commit`].
    Committed(EffectId, CommitOutcome),
    /// Wait for what the broker owes no longer than the given time, commit, and stop.
    Stop {
        /// Bound of the drain.
        within: Duration,
    },
}

/// What the downlink wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Connect with a clean session and the downlink's own client id, after giving up whatever connection there was.
    Connect(ConnectionId),
    /// End the connection in good order.
    Disconnect(ConnectionId),
    /// Publish at QoS 1. Messages are sent in the order of the effects.
    Publish {
        /// The connection.
        connection: ConnectionId,
        /// Packet id.
        packet: PacketId,
        /// Whether it was sent before.
        dup: bool,
        /// The command.
        message: Publication,
    },
    /// Store a reply or a dead letter.
    Produce(EffectId, OutgoingRecord),
    /// Commit offsets: each is the next to be read. At most one is under way.
    Commit(EffectId, Generation, Vec<(Partition, Offset)>),
    /// Stop reading a partition. A record that arrives all the same is taken.
    Pause(Generation, Partition),
    /// Read it again.
    Resume(Generation, Partition),
    /// The revoked generation is drained and committed, or its time is up. Exactly once per [`Event::Revoked`], unless
    /// the downlink has stopped.
    Drained(Generation),
    /// The downlink has stopped; nothing follows.
    Stopped,
    /// For metrics and checks.
    Fact(Fact),
}

/// How a record came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Published, and acknowledged by the broker.
    Delivered,
    /// Expired before it was published; its issuer was told.
    Expired,
    /// Expired after it was published and before the broker acknowledged it: it may be executed or not. Its issuer was
    /// told.
    ExpiredInDoubt,
    /// Went to the dead-letter topic.
    DeadLettered(&'static str),
}

/// What the downlink did; for metrics and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// A command is published for the first time by this process and assignment.
    Published(Partition, Offset),
    /// A command is published again on a new connection.
    Resent(Partition, Offset),
    /// A record came to its end. Each does once, unless its partition is taken away before.
    Ended(Partition, Offset, End),
    /// A reply or a dead letter is produced again.
    Retried,
    /// The broker did not acknowledge in time: the connection is given up.
    Unacknowledged,
    /// A partition was paused.
    Paused(Partition),
    /// A partition was resumed.
    Resumed(Partition),
    /// An offset was committed.
    Committed(Partition, Offset),
    /// A commit failed; what is newest is committed later.
    FailedCommit,
}

/// Queues of a downlink, for metrics and for checks of their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gauges {
    /// One per partition of the present generation.
    pub partitions: Vec<PartitionGauges>,
    /// Commands that wait to be published.
    pub waiting: usize,
    /// Publishes that the broker has not acknowledged.
    pub window: usize,
    /// Their bound, [`Config::window`].
    pub window_cap: usize,
    /// Replies and dead letters not yet stored, those that wait to be tried again included; each is a buffered record.
    pub producing: usize,
    /// Whether the broker has accepted the connection.
    pub connected: bool,
    /// Whether an offset commit is under way.
    pub committing: bool,
    /// Whether partitions are being drained.
    pub draining: bool,
}

/// Queues of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionGauges {
    /// The partition.
    pub partition: Partition,
    /// Records read and not yet behind the offset below which all came to their end. After [`Effect::Pause`] it grows
    /// above `buffered_cap` only by what had been fetched before the driver carried that out.
    pub buffered: usize,
    /// Its bound, [`Config::partition_credit`].
    pub buffered_cap: usize,
    /// Bytes of those records.
    pub buffered_bytes: usize,
    /// Their bound, at which the partition is paused too.
    pub buffered_bytes_cap: usize,
    /// Whether the partition is paused.
    pub paused: bool,
    /// The next offset to be read.
    pub next: Offset,
    /// Everything below came to its end.
    pub ended: Offset,
    /// The newest offset known to be committed; the start offset before the first commit.
    pub committed: Offset,
}
