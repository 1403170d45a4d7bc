//! What a registry and its driver say to each other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    agent::Backoff,
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    id::Version,
    merge::Rows,
    time::Wall,
};

/// Kafka partition number.
pub type Partition = i32;

/// Kafka offset.
pub type Offset = i64;

/// Settings of a registry.
#[derive(Debug, Clone)]
pub struct Config {
    /// A batch is written when it has this many rows...
    pub batch_rows: usize,
    /// ... or is this old.
    pub batch_wait: Duration,
    /// Offsets are committed after this many records...
    pub commit_records: u64,
    /// ... or this long after the last commit.
    pub commit_every: Duration,
    /// Most records buffered per partition, those being written or quarantined included; at it the partition is
    /// paused, and resumed at half of it.
    pub partition_credit: usize,
    /// Waits between retries of a write, a quarantine or a commit.
    pub backoff: Backoff,
    /// Most sessions per partition whose last seq is remembered, to tell duplicates and gaps.
    pub tracked_sessions: usize,
    /// Longest drain when partitions are revoked.
    pub drain_within: Duration,
}

/// Names one assignment of partitions to this consumer; rises with each rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What happened around the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Partitions were assigned, each with the offset at which reading starts. None of them is paused.
    Assigned(Generation, Vec<(Partition, Offset)>),
    /// Partitions are about to be taken away: drain them, commit, and answer with [`Effect::Drained`].
    Revoked(Generation),
    /// Partitions were lost without a chance to commit.
    Lost(Generation),
    /// A record was read.
    Record(Generation, Record),
    /// Answer to [`Effect::Write`].
    Written(EffectId, WriteOutcome),
    /// Answer to [`Effect::Quarantine`].
    Quarantined(EffectId, ProduceOutcome),
    /// Answer to [`Effect::Commit`].
    Committed(EffectId, CommitOutcome),
    /// Drain all that is buffered if that takes no longer than the given time, commit, and stop.
    Stop {
        /// Bound of the drain.
        within: Duration,
    },
}

/// A record read from Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Receive time at the bridge.
    pub timestamp: Wall,
    /// Key: the MQTT topic.
    pub key: Option<Bytes>,
    /// Value: the payload.
    pub value: Option<Bytes>,
    /// Whether the header `mqtt-retain` is `1`: a replay of a retained message, which only `status` may be.
    pub retained: bool,
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The rows are durable.
    Committed,
    /// Nothing was written; a later attempt may succeed.
    Aborted {
        /// The store's words.
        reason: String,
    },
    /// The rows may be durable or not.
    Ambiguous {
        /// The store's words.
        reason: String,
    },
    /// Nothing was written, and these rows never will be.
    Refused {
        /// The store's words.
        reason: String,
    },
}

/// How an offset commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Kafka has it.
    Committed,
    /// The group has moved on: the partitions are no longer ours.
    Stale,
    /// Not committed, or not known to be; retried with what is newest then.
    Failed {
        /// Kafka's words.
        reason: String,
    },
}

/// What the registry wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write rows in one transaction, [`Rows::feed`] included, which may be all there is. At most one per partition and
    /// generation is under way.
    Write(EffectId, Partition, Arc<Rows>),
    /// Store a dead letter.
    Quarantine(EffectId, OutgoingRecord),
    /// Commit offsets: each is the next to be read. At most one is under way.
    Commit(EffectId, Generation, Vec<(Partition, Offset)>),
    /// Stop reading a partition. A record that arrives all the same is taken.
    Pause(Generation, Partition),
    /// Read it again.
    Resume(Generation, Partition),
    /// The revoked generation is drained and committed, or its time is up. Exactly once per [`Event::Revoked`], unless
    /// the registry has stopped.
    Drained(Generation),
    /// The registry has stopped; nothing follows.
    Stopped,
    /// For metrics and checks.
    Fact(Fact),
}

/// What the registry did; for metrics and checks.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A record is durable in the store.
    Reflected {
        /// Its partition.
        partition: Partition,
        /// Its offset.
        offset: Offset,
        /// What it did.
        class: Class,
        /// Receive time at the bridge, for latency.
        received: Wall,
    },
    /// Seqs are missing between `after` and `before` of a session.
    Gap {
        /// Version of the record before the gap.
        after: Version,
        /// Version of the record behind it.
        before: Version,
    },
    /// A record was quarantined.
    Quarantined {
        /// Its partition.
        partition: Partition,
        /// Its offset.
        offset: Offset,
        /// One word: [`crate::event::Poison::reason`], or `store`.
        reason: &'static str,
    },
    /// A partition was paused.
    Paused(Partition),
    /// A partition was resumed.
    Resumed(Partition),
    /// An offset was committed.
    Committed(Partition, Offset),
    /// A write is retried.
    RetriedWrite(Partition),
    /// A dead letter is produced again.
    RetriedQuarantine(Partition),
    /// A commit failed; what is newest is committed later.
    FailedCommit,
    /// A partition buffers this many records; told with each write.
    Buffered(Partition, usize),
}

/// What a record did to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It replaced something, as far as its batch can tell.
    Applied,
    /// Everything in it was older than what its batch or its session's device already had.
    Superseded,
    /// Its seq was seen before in this session.
    Duplicate,
    /// Presence of a RAE, or a retained message that is ignored.
    Other,
}

/// Queues of a registry, for metrics and for checks of their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gauges {
    /// One per partition of the present generation.
    pub partitions: Vec<PartitionGauges>,
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
    /// Records read and not yet behind the durable offset. After [`Effect::Pause`] it grows above `buffered_cap` only by
    /// what had been fetched before the driver carried that out.
    pub buffered: usize,
    /// Its bound, [`Config::partition_credit`].
    pub buffered_cap: usize,
    /// Payload bytes of those records.
    pub buffered_bytes: usize,
    /// Their bound, at which the partition is paused too.
    pub buffered_bytes_cap: usize,
    /// Records in the write under way.
    pub writing: usize,
    /// Dead letters not yet stored.
    pub quarantining: usize,
    /// Whether the partition is paused.
    pub paused: bool,
    /// The next offset to be read.
    pub next: Offset,
    /// Everything below is durable or quarantined.
    pub durable: Offset,
    /// The newest offset known to be committed; the start offset before the first commit.
    pub committed: Offset,
}
