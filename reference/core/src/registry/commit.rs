//! Offset commits: after so many records or so much time, one under way at a time, only what is durable.

use std::collections::BTreeMap;

use super::{Awaited, CommitOutcome, Context, Effect, Fact, Generation, Offset, Partition, partition::PartitionState};
use crate::time::Mono;

#[derive(Debug)]
pub(super) struct Commits {
    under_way: Option<Vec<(Partition, Offset)>>,
    /// When the next commit is due, however few records it covers.
    due: Mono,
    /// Set after a failed commit: not before then, however many records there are.
    not_before: Option<Mono>,
    failures: u32,
}

/// Whether the group still knows us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Member,
    Stale,
}

/// How many offsets could be committed.
pub(super) fn pending(partitions: &BTreeMap<Partition, PartitionState>) -> u64 {
    let ahead = |partition: &PartitionState| partition.committable() - partition.committed;
    partitions.values().map(|partition| u64::try_from(ahead(partition)).unwrap_or(0)).sum()
}

impl Commits {
    pub(super) fn new(due: Mono) -> Commits {
        Commits { under_way: None, due, not_before: None, failures: 0 }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn deadline(&self, partitions: &BTreeMap<Partition, PartitionState>) -> Option<Mono> {
        let waits = !self.is_under_way() && pending(partitions) > 0;
        waits.then_some(self.not_before.unwrap_or(self.due))
    }

    /// Starts a commit if enough has gathered, or if it is the `last` of a drain.
    pub(super) fn start_if_due(
        &mut self,
        last: bool,
        generation: Generation,
        partitions: &BTreeMap<Partition, PartitionState>,
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        let pending = pending(partitions);
        let due = match self.not_before {
            Some(not_before) => now >= not_before,
            None => last || now >= self.due || pending >= context.config.commit_records,
        };
        if self.is_under_way() || pending == 0 || !due {
            return;
        }
        let ahead = partitions.iter().filter(|(_, partition)| partition.committable() > partition.committed);
        let offsets: Vec<_> = ahead.map(|(&number, partition)| (number, partition.committable())).collect();
        let id = context.await_answer(Awaited::Commit);
        context.effects.push(Effect::Commit(id, generation, offsets.clone()));
        self.under_way = Some(offsets);
        self.due = now + context.config.commit_every;
    }

    pub(super) fn answered(
        &mut self,
        outcome: CommitOutcome,
        partitions: &mut BTreeMap<Partition, PartitionState>,
        context: &mut Context<'_>,
    ) -> Standing {
        let offsets = self.under_way.take().unwrap_or_default();
        match outcome {
            CommitOutcome::Committed => {
                (self.failures, self.not_before) = (0, None);
                for (number, offset) in offsets {
                    partitions.entry(number).and_modify(|partition| partition.committed = offset);
                    context.fact(Fact::Committed(number, offset));
                }
            }
            CommitOutcome::Failed { reason: _ } => {
                self.not_before = Some(context.retry_at(self.failures));
                self.failures = self.failures.saturating_add(1);
                context.fact(Fact::FailedCommit);
            }
            CommitOutcome::Stale => return Standing::Stale,
        }
        Standing::Member
    }
}
