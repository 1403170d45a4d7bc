//! Lag, twice: end - committed (what the group shows) and end - reflected (what a reader feels), in records and seconds.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::history::{Entry, What};

/// Offsets of one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionLag {
    /// The next record's offset.
    pub(crate) end: i64,
    /// The next offset to be read by the group.
    pub(crate) committed: i64,
    /// The offset after the newest record reflected, where the store says so.
    pub(crate) reflected: Option<i64>,
    /// Append times of the records that are not yet committed.
    uncommitted: VecDeque<(i64, Duration)>,
}

impl PartitionLag {
    /// Records that are not committed.
    pub(crate) fn behind_committed(&self) -> u64 {
        u64::try_from(self.end - self.committed).unwrap_or(0)
    }

    /// Records that are not reflected; a committed record counts as reflected.
    pub(crate) fn behind_reflected(&self) -> u64 {
        u64::try_from(self.end - self.reflected.unwrap_or(0).max(self.committed)).unwrap_or(0)
    }
}

/// Lag over all partitions.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// By partition.
    pub(crate) partitions: BTreeMap<i32, PartitionLag>,
}

impl Lag {
    /// Takes an entry. Returns whether a round of readings is complete with it: offsets of all partitions, ends last.
    pub(crate) fn observe(&mut self, entry: &Entry) -> bool {
        match &entry.what {
            What::Appended(record) => {
                let partition = self.partitions.entry(record.partition).or_default();
                if record.offset >= partition.committed {
                    partition.uncommitted.push_back((record.offset, entry.at));
                }
                false
            }
            &What::Committed { partition, offset } => {
                let partition = self.partitions.entry(partition).or_default();
                partition.committed = offset;
                let done = partition.uncommitted.partition_point(|(at, _)| *at < offset);
                partition.uncommitted.drain(..done);
                false
            }
            &What::Feed { partition, next_offset } => {
                self.partitions.entry(partition).or_default().reflected = Some(next_offset);
                false
            }
            What::StoreWiped { .. } => {
                for partition in self.partitions.values_mut() {
                    (partition.committed, partition.reflected) = (0, None);
                }
                false
            }
            &What::End { partition, offset } => {
                // Partitions are read in order: one that does not follow the last one starts a new round.
                let known = self.partitions.range(partition + 1..).next().is_some();
                self.partitions.entry(partition).or_default().end = offset;
                !known
            }
            _ => false,
        }
    }

    /// End - committed over all partitions.
    pub(crate) fn committed(&self) -> u64 {
        self.partitions.values().map(PartitionLag::behind_committed).sum()
    }

    /// End - reflected over all partitions.
    pub(crate) fn reflected(&self) -> u64 {
        self.partitions.values().map(PartitionLag::behind_reflected).sum()
    }

    /// Records reflected so far, over all partitions.
    pub(crate) fn reflected_records(&self) -> u64 {
        let reflected = |p: &PartitionLag| u64::try_from(p.reflected.unwrap_or(0).max(p.committed)).unwrap_or(0);
        self.partitions.values().map(reflected).sum()
    }

    /// Age of the oldest uncommitted record.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        let first = |p: &PartitionLag| p.uncommitted.front().map(|(_, at)| now.saturating_sub(*at));
        self.partitions.values().filter_map(first).max().unwrap_or_default()
    }
}
