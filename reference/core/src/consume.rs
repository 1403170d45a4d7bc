//! What every consumer of a Kafka topic has in common: assignments, records, dead letters and offset commits.
//!
//! Registry and downlink read with the same rules: an offset is committed only when everything below it has come to its
//! end, by one explicit commit at a time, after so many records or so much time. What "its end" means is theirs
//! ([`Progress`]).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rand_pcg::Pcg64;

use crate::{
    agent::Backoff,
    bridge::OutgoingRecord,
    dead_letter::{Letter, Source, dead_letter},
    time::{Mono, Wall},
};

/// Kafka partition number.
pub type Partition = i32;

/// Kafka offset.
pub type Offset = i64;

/// Names one assignment of partitions to this consumer; rises with each rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// A record read from Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Receive time at the bridge; of a command, when it was issued.
    pub timestamp: Wall,
    /// Key: the MQTT topic.
    pub key: Option<Bytes>,
    /// Value: the payload.
    pub value: Option<Bytes>,
    /// Whether the header `mqtt-retain` is `1`: a replay of a retained message, which only `status` may be.
    pub retained: bool,
}

impl Record {
    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// The dead letter of this record of `topic`.
    #[must_use]
    pub fn letter(&self, topic: &str, reason: &str, detail: &str) -> OutgoingRecord {
        let source = Source::Record { topic, partition: self.partition, offset: self.offset };
        let (key, value) = (self.key.clone().unwrap_or_default(), self.value.clone().unwrap_or_default());
        dead_letter(source, &Letter { reason, detail, key: &key, value: &value, received: self.timestamp })
    }
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

/// When offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitSettings {
    pub(crate) records: u64,
    pub(crate) every: Duration,
    pub(crate) backoff: Backoff,
}

/// How far a partition has come.
pub(crate) trait Progress {
    /// The offset to commit: everything below it has come to its end.
    fn committable(&self) -> Offset;
    /// The newest offset known to be committed.
    fn committed(&self) -> Offset;
    /// Kafka has this offset.
    fn set_committed(&mut self, offset: Offset);
}

/// Offset commits: after so many records or so much time, one under way at a time.
#[derive(Debug)]
pub(crate) struct Commits {
    under_way: Option<Vec<(Partition, Offset)>>,
    /// When the next commit is due, however few records it covers.
    due: Mono,
    /// Set after a failed commit: not before then, however many records there are.
    not_before: Option<Mono>,
    failures: u32,
}

/// What the answer to a commit means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Committed(Vec<(Partition, Offset)>),
    Failed,
    /// The group no longer knows us.
    Stale,
}

/// How many offsets could be committed.
pub(crate) fn pending<P: Progress>(partitions: &BTreeMap<Partition, P>) -> u64 {
    let ahead = |partition: &P| partition.committable() - partition.committed();
    partitions.values().map(|partition| u64::try_from(ahead(partition)).unwrap_or(0)).sum()
}

impl Commits {
    pub(crate) fn new(due: Mono) -> Commits {
        Commits { under_way: None, due, not_before: None, failures: 0 }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(crate) fn deadline<P: Progress>(&self, partitions: &BTreeMap<Partition, P>) -> Option<Mono> {
        let waits = !self.is_under_way() && pending(partitions) > 0;
        waits.then_some(self.not_before.unwrap_or(self.due))
    }

    /// The offsets to commit now, if enough has gathered, or if it is the `last` of a drain.
    pub(crate) fn start_if_due<P: Progress>(
        &mut self,
        now: Mono,
        last: bool,
        partitions: &BTreeMap<Partition, P>,
        settings: CommitSettings,
    ) -> Option<Vec<(Partition, Offset)>> {
        let pending = pending(partitions);
        let due = match self.not_before {
            Some(not_before) => now >= not_before,
            None => last || now >= self.due || pending >= settings.records,
        };
        if self.is_under_way() || pending == 0 || !due {
            return None;
        }
        let ahead = partitions.iter().filter(|(_, partition)| partition.committable() > partition.committed());
        let offsets: Vec<_> = ahead.map(|(&number, partition)| (number, partition.committable())).collect();
        self.under_way = Some(offsets.clone());
        self.due = now + settings.every;
        Some(offsets)
    }

    pub(crate) fn answered<P: Progress>(
        &mut self,
        now: Mono,
        outcome: CommitOutcome,
        partitions: &mut BTreeMap<Partition, P>,
        settings: CommitSettings,
        rng: &mut Pcg64,
    ) -> Answered {
        let offsets = self.under_way.take().unwrap_or_default();
        match outcome {
            CommitOutcome::Committed => {
                (self.failures, self.not_before) = (0, None);
                for &(number, offset) in &offsets {
                    partitions.entry(number).and_modify(|partition| partition.set_committed(offset));
                }
                Answered::Committed(offsets)
            }
            CommitOutcome::Failed { reason: _ } => {
                self.not_before = Some(now + settings.backoff.wait(self.failures, rng));
                self.failures = self.failures.saturating_add(1);
                Answered::Failed
            }
            CommitOutcome::Stale => Answered::Stale,
        }
    }
}
