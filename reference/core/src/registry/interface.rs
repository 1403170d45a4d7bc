//! What a registry and its driver say to each other.

use std::{sync::Arc, time::Duration};

use crate::{
    agent::Backoff,
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    id::{Device, Epoch, Session, Version},
    merge::Rows,
    time::Wall,
};

pub use crate::consume::{CommitOutcome, Generation, Offset, Partition, Record};

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
    /// Whether and how this registry speaks to the RAEs. `None` for a second consumer and for a rebuild, which must not
    /// send a single command.
    pub feedback: Option<Feedback>,
}

/// Settings of what the primary registry sends down: notices to sessions that lost, and requests for snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// Who speaks, in the header [`ISSUER`] of every command: the consumer group.
    pub issuer: Arc<str>,
    /// Mean time between two snapshots of a device. Nothing is sent on behalf of a record that is older, and at most one
    /// notice and one request per session within it, from when the last one was sent.
    pub snapshot_period: Duration,
    /// Whether a gap in a session's seqs makes the registry ask for a snapshot.
    pub repair: bool,
    /// How long a gap may wait for its missing records before a snapshot is asked for.
    pub gap_wait: Duration,
    /// Most requests for snapshots per second, and at once, of this registry process over all its sessions: a lossy fleet
    /// must not be asked for all it knows at a time.
    pub requests_per_s: u32,
    /// How long after it was sent a command may be executed; also how long storing it is tried.
    pub expires_after: Duration,
    /// Most commands handed to Kafka and not yet stored, those that wait to be tried again included.
    pub under_way: usize,
    /// Most notices, and most requests, that wait for their turn; more are dropped, and made up for by a later snapshot.
    pub waiting: usize,
    /// Most sessions that are remembered as told, asked or lost.
    pub sessions: usize,
}

/// Header of a command: who issued it. Whoever reads the topic can tell the registry from others that must be silent.
pub const ISSUER: &str = "issuer";

impl Feedback {
    /// The defaults, for devices that send a snapshot every `snapshot_period`.
    #[must_use]
    pub fn with_period(snapshot_period: Duration) -> Feedback {
        Feedback {
            issuer: "dmp-registry".into(),
            snapshot_period,
            repair: true,
            gap_wait: Duration::from_secs(2),
            requests_per_s: 100,
            // A notice that is older than the next snapshot would only repeat that one's.
            expires_after: snapshot_period.clamp(Duration::from_secs(5), Duration::from_secs(60)),
            under_way: 100,
            waiting: 1_000,
            sessions: 50_000,
        }
    }
}

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
    /// Answer to [`Effect::Command`].
    Commanded(EffectId, ProduceOutcome),
    /// Drain all that is buffered if that takes no longer than the given time, commit, and stop.
    Stop {
        /// Bound of the drain.
        within: Duration,
    },
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The rows are durable.
    Committed {
        /// The sessions with a snapshot in the batch ([`crate::merge::SessionRow::snapshot`]) that are not the newest of
        /// their device in the store, as that is with these rows in it, and whose snapshot was received after that one had
        /// opened: what is older was followed, not beaten, and a rebuild reads much of it. Not all of them where the store
        /// failed after the rows were durable: the next snapshot of a session that lost asks again.
        beaten: Vec<Beaten>,
    },
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

/// A session that is not the newest of its device, by (epoch, session).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beaten {
    /// The device.
    pub device: Device,
    /// The session that lost.
    pub session: Session,
    /// The epoch of the newest one; equal to the loser's own where the session's bytes decided.
    pub by: Epoch,
}

/// What the registry wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write rows in one transaction, [`Rows::feed`] included, which may be all there is. At most one per partition and
    /// generation is under way.
    Write(EffectId, Partition, Arc<Rows>),
    /// Store a dead letter.
    Quarantine(EffectId, OutgoingRecord),
    /// Store a command in `dmp.commands`, for the session whose topic is its key. At most [`Feedback::under_way`] are
    /// under way or wait to be tried again; an answer is not waited for when the partitions are revoked.
    Command(EffectId, OutgoingRecord),
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
    /// Seqs are missing between `after` and `before` of a session. Each gap ends in one [`Fact::GapClosed`], unless its
    /// partition is taken away first.
    GapOpened {
        /// The device.
        device: Device,
        /// Version of the record before the gap.
        after: Version,
        /// Version of the record behind it.
        before: Version,
    },
    /// A gap is no more.
    GapClosed {
        /// The device.
        device: Device,
        /// The session.
        session: Session,
        /// What closed it.
        by: GapEnd,
        /// How long it was open.
        after: Duration,
    },
    /// A session is asked for a snapshot.
    RepairRequested(Device, Session),
    /// A session is told that it lost.
    NoticeSent {
        /// The device.
        device: Device,
        /// The session.
        session: Session,
        /// The epoch that is named.
        epoch: Epoch,
    },
    /// A command is produced again.
    RetriedCommand,
    /// A command will not be sent, or not be tried any longer.
    CommandDropped {
        /// The session that it is for.
        session: Session,
        /// What it asks for.
        order: Order,
        /// Why.
        why: Dropped,
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

/// How a gap ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapEnd {
    /// All that was missing came late.
    Update,
    /// A snapshot that nobody had asked for.
    Snapshot,
    /// A snapshot after the registry had asked for one.
    RequestedSnapshot,
    /// It was forgotten: too many gaps, or too many sessions.
    Forgotten,
}

/// What the registry asks of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// `reonboard`.
    Notice,
    /// `snapshot`.
    Repair,
}

/// Why a command was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Too many wait.
    Full,
    /// Too many sessions are remembered already.
    Crowded,
    /// Kafka did not take it before it expired.
    Expired,
    /// Kafka never will.
    Refused,
    /// The partitions were taken away before it was stored.
    Unassigned,
}

/// What a record did to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It replaced something, as far as its batch can tell.
    Applied,
    /// Everything in it was older than what its batch or its session's device already had.
    Superseded,
    /// Its seq was seen before in this session, or is not known to be missing.
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
    /// What goes down; `None` without [`Config::feedback`].
    pub feedback: Option<FeedbackGauges>,
}

/// Queues of the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedbackGauges {
    /// Notices that wait for their turn.
    pub notices: usize,
    /// Requests that wait for their turn or for the budget.
    pub requests: usize,
    /// The bound of either, [`Feedback::waiting`].
    pub waiting_cap: usize,
    /// Commands handed to Kafka, those included that wait to be tried again.
    pub under_way: usize,
    /// Their bound, [`Feedback::under_way`].
    pub under_way_cap: usize,
    /// Sessions remembered as told, as asked or as lost; the largest of the three.
    pub sessions: usize,
    /// The bound of each, [`Feedback::sessions`].
    pub sessions_cap: usize,
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
    /// Sessions whose last seq is remembered.
    pub sessions: usize,
    /// Their bound, [`Config::tracked_sessions`], rounded up to an even number.
    pub sessions_cap: usize,
    /// Sessions with a gap among them.
    pub gaps: usize,
    /// Whether the partition is paused.
    pub paused: bool,
    /// The next offset to be read.
    pub next: Offset,
    /// Everything below is durable or quarantined.
    pub durable: Offset,
    /// The newest offset known to be committed; the start offset before the first commit.
    pub committed: Offset,
}
