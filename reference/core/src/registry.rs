//! The Cloud Registry: records in, guarded rows out, offsets committed only after the rows are durable.
//!
//! In order within a partition, parallel across partitions. Records are decoded, merged per device into batches by
//! rows or time, and written with one write in flight per partition. Back-pressure is credit-based: a partition whose
//! buffer is full is paused. Poison is quarantined in the dead-letter topic, also what only the store refuses (found by
//! bisection).
//!
//! With [`Config::feedback`] it also speaks to the RAEs: a session whose snapshot lost to a newer session is told so, and
//! one of which records stay missing is asked for a snapshot. Neither is part of what it commits.
//!
//! An assignment lives from `Assigned` to its end: drained after `Revoked` or `Stop`, dropped at once by `Lost`, by a
//! commit that is refused as stale, or by the next `Assigned`. Answers and records of an ended one are ignored; its
//! last writes may still become durable, which the merge rule makes harmless.

mod batch;
mod entry;
mod gaps;
mod interface;
mod orders;
mod partition;
mod track;

pub use interface::*;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::{
    bridge::ProduceOutcome,
    consume::{Answered, CommitSettings, Commits, pending},
    core::{Core, EffectId},
    time::{Mono, Now},
};
use orders::Orders;
use partition::{PartitionState, Serial};

/// A consumer of the event log that materializes it in a store.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    rng: Pcg64,
    last_id: u64,
    awaited: BTreeMap<EffectId, Awaited>,
    assignment: Option<Assignment>,
    orders: Option<Orders>,
    /// The newest generation of which [`Effect::Drained`] was said.
    drained: Option<Generation>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
    Stopped,
}

#[derive(Debug)]
struct Assignment {
    generation: Generation,
    partitions: BTreeMap<Partition, PartitionState>,
    commits: Commits,
    /// When a drain that is under way ends, whatever is left.
    drain_until: Option<Mono>,
    /// Whether the driver waits for [`Effect::Drained`].
    revoked: bool,
}

/// Who waits for the answer to an effect.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Write(Partition),
    Quarantine(Partition, Serial),
    Command(orders::Serial),
    Commit,
}

/// What an assignment and its partitions borrow from the registry while they handle an event.
struct Context<'a> {
    now: Now,
    config: &'a Config,
    rng: &'a mut Pcg64,
    last_id: &'a mut u64,
    awaited: &'a mut BTreeMap<EffectId, Awaited>,
    orders: &'a mut Option<Orders>,
    effects: &'a mut Vec<Effect>,
}

impl Registry {
    /// A registry without partitions; `seed` drives its back-off.
    ///
    /// # Panics
    /// If a limit in `config` is zero.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Registry {
        let limits = [config.batch_rows, config.partition_credit, config.tracked_sessions];
        assert!(limits.iter().all(|&limit| limit > 0) && config.commit_records > 0, "a limit of zero takes nothing");
        let mut rng = Pcg64::seed_from_u64(seed);
        let orders = config.feedback.clone().map(|feedback| Orders::new(feedback, config.backoff, &mut rng));
        Registry {
            config,
            rng,
            last_id: 0,
            awaited: BTreeMap::new(),
            assignment: None,
            orders,
            drained: None,
            phase: Phase::Running,
        }
    }

    /// The registry's queues and their bounds.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let feedback = self.orders.as_ref().map(Orders::gauges);
        let Some(assignment) = &self.assignment else { return Gauges { feedback, ..Gauges::default() } };
        Gauges {
            partitions: assignment.partitions.values().map(|partition| partition.gauges(&self.config)).collect(),
            committing: assignment.commits.is_under_way(),
            draining: assignment.drain_until.is_some(),
            feedback,
        }
    }

    fn assigned(
        &mut self,
        now: Now,
        generation: Generation,
        starts: &[(Partition, Offset)],
        effects: &mut Vec<Effect>,
    ) {
        // A driver that assigns without having revoked has lost what it had.
        self.end(effects);
        if self.phase != Phase::Running {
            return;
        }
        let state = |&(partition, start): &(Partition, Offset)| {
            (partition, PartitionState::new(partition, generation, start, &self.config))
        };
        self.assignment = Some(Assignment {
            generation,
            partitions: starts.iter().map(state).collect(),
            commits: Commits::new(now.mono + self.config.commit_every),
            drain_until: None,
            revoked: false,
        });
    }

    fn revoked(&mut self, now: Now, generation: Generation, effects: &mut Vec<Effect>) {
        let until = now.mono + self.config.drain_within;
        match &mut self.assignment {
            Some(assignment) if assignment.generation == generation => {
                assignment.revoked = true;
                self.drain(now, until, effects);
            }
            // It was lost or found to be stale: nothing is left to drain, but the driver waits for a word.
            Some(_) | None if self.drained < Some(generation) => {
                self.drained = Some(generation);
                effects.push(Effect::Drained(generation));
            }
            Some(_) | None => {}
        }
    }

    fn drain(&mut self, now: Now, until: Mono, effects: &mut Vec<Effect>) {
        self.with_assignment(now, effects, |assignment, context| {
            let earlier = assignment.drain_until;
            assignment.drain_until = Some(earlier.map_or(until, |earlier| earlier.min(until)));
            assignment.partitions.values_mut().for_each(|partition| partition.drain(context));
        });
    }

    fn answered(&mut self, now: Now, id: EffectId, answer: Answer, effects: &mut Vec<Effect>) {
        let Some(awaited) = self.awaited.remove(&id) else { return };
        let stale = self.with_assignment(now, effects, |assignment, context| {
            match (awaited, answer) {
                (Awaited::Write(partition), Answer::Written(outcome)) => {
                    assignment.partition(partition).written(outcome, context);
                }
                (Awaited::Quarantine(partition, serial), Answer::Quarantined(outcome)) => {
                    assignment.partition(partition).quarantined(serial, outcome, context);
                }
                (Awaited::Command(serial), Answer::Commanded(outcome)) => {
                    if let Some(orders) = context.orders {
                        orders.answered(now.mono, serial, &outcome, context.effects);
                    }
                }
                (Awaited::Commit, Answer::Committed(outcome)) => return assignment.committed(outcome, context),
                (Awaited::Write(_) | Awaited::Quarantine(..) | Awaited::Command(_) | Awaited::Commit, answer) => {
                    panic!("{id:?} is answered by {answer:?}, but {awaited:?} waits for it")
                }
            }
            false
        });
        if stale == Some(true) {
            self.end(effects);
        }
    }

    /// What every event may bring about: a commit, the end of a drain.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let over = self.with_assignment(now, effects, |assignment, context| {
            let drained = assignment.partitions.values().all(PartitionState::is_drained);
            let last = assignment.drain_until.is_some_and(|until| drained || now.mono >= until);
            assignment.commit_if_due(last, context);
            context.send_orders();
            // At the bound the last commit is sent, but its answer not awaited.
            let committed = !assignment.commits.is_under_way() && pending(&assignment.partitions) == 0;
            assignment.drain_until.is_some_and(|until| now.mono >= until || (drained && committed))
        });
        if over == Some(true) {
            self.end(effects);
        }
        if self.phase == Phase::Stopping && self.assignment.is_none() {
            self.phase = Phase::Stopped;
            effects.push(Effect::Stopped);
        }
    }

    /// Drops the assignment with all that it buffers.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        self.awaited.clear();
        if let Some(orders) = &mut self.orders {
            orders.end(effects);
        }
        if let Some(Assignment { generation, revoked: true, .. }) = self.assignment.take() {
            self.drained = Some(generation);
            effects.push(Effect::Drained(generation));
        }
    }

    fn with_assignment<T>(
        &mut self,
        now: Now,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Assignment, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let assignment = self.assignment.as_mut()?;
        let mut context = Context {
            now,
            config: &self.config,
            rng: &mut self.rng,
            last_id: &mut self.last_id,
            awaited: &mut self.awaited,
            orders: &mut self.orders,
            effects,
        };
        Some(act(assignment, &mut context))
    }
}

/// An answer, whatever it answers.
#[derive(Debug)]
enum Answer {
    Written(WriteOutcome),
    Quarantined(ProduceOutcome),
    Commanded(ProduceOutcome),
    Committed(CommitOutcome),
}

impl Assignment {
    fn partition(&mut self, partition: Partition) -> &mut PartitionState {
        self.partitions.get_mut(&partition).expect("what is awaited belongs to the present assignment")
    }

    fn commit_if_due(&mut self, last: bool, context: &mut Context<'_>) {
        let settings = context.config.commits();
        if let Some(offsets) = self.commits.start_if_due(context.now.mono, last, &self.partitions, settings) {
            let id = context.await_answer(Awaited::Commit);
            context.effects.push(Effect::Commit(id, self.generation, offsets));
        }
    }

    /// Returns whether the group no longer knows us.
    fn committed(&mut self, outcome: CommitOutcome, context: &mut Context<'_>) -> bool {
        let settings = context.config.commits();
        match self.commits.answered(context.now.mono, outcome, &mut self.partitions, settings, context.rng) {
            Answered::Committed(offsets) => {
                offsets.iter().for_each(|&(partition, offset)| context.fact(Fact::Committed(partition, offset)));
            }
            Answered::Failed => context.fact(Fact::FailedCommit),
            Answered::Stale => return true,
        }
        false
    }
}

impl Config {
    fn commits(&self) -> CommitSettings {
        CommitSettings { records: self.commit_records, every: self.commit_every, backoff: self.backoff }
    }
}

impl Context<'_> {
    fn await_answer(&mut self, awaited: Awaited) -> EffectId {
        *self.last_id += 1;
        let id = EffectId(*self.last_id);
        self.awaited.insert(id, awaited);
        id
    }

    fn fact(&mut self, fact: Fact) {
        self.effects.push(Effect::Fact(fact));
    }

    /// Hands to Kafka what is to go down now.
    fn send_orders(&mut self) {
        let Some(orders) = self.orders else { return };
        for (serial, record) in orders.pump(self.now, self.effects) {
            let id = self.await_answer(Awaited::Command(serial));
            self.effects.push(Effect::Command(id, record));
        }
    }

    /// When the try after `failures` failed ones is due.
    fn retry_at(&mut self, failures: u32) -> Mono {
        self.now.mono + self.config.backoff.wait(failures, self.rng)
    }
}

impl Core for Registry {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            Event::Assigned(generation, starts) => self.assigned(now, generation, &starts, effects),
            Event::Revoked(generation) => self.revoked(now, generation, effects),
            Event::Lost(generation) => {
                if self.assignment.as_ref().is_some_and(|assignment| assignment.generation == generation) {
                    self.end(effects);
                }
            }
            Event::Record(generation, record) => {
                self.with_assignment(now, effects, |assignment, context| {
                    if assignment.generation == generation
                        && assignment.drain_until.is_none()
                        && let Some(partition) = assignment.partitions.get_mut(&record.partition)
                    {
                        partition.take(record, context);
                    }
                });
            }
            Event::Written(id, outcome) => self.answered(now, id, Answer::Written(outcome), effects),
            Event::Quarantined(id, outcome) => self.answered(now, id, Answer::Quarantined(outcome), effects),
            Event::Committed(id, outcome) => self.answered(now, id, Answer::Committed(outcome), effects),
            Event::Commanded(id, outcome) => self.answered(now, id, Answer::Commanded(outcome), effects),
            Event::Stop { within } => {
                self.phase = Phase::Stopping;
                self.drain(now, now.mono + within, effects);
            }
        }
        self.settle(now, effects);
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.with_assignment(now, effects, |assignment, context| {
            assignment.partitions.values_mut().for_each(|partition| partition.wake(context));
        });
        self.settle(now, effects);
    }

    fn deadline(&self) -> Option<Mono> {
        let assignment = self.assignment.as_ref()?;
        let partitions = assignment.partitions.values().filter_map(|partition| partition.deadline(&self.config));
        let commit = assignment.commits.deadline(&assignment.partitions);
        let orders = self.orders.as_ref().and_then(Orders::deadline);
        partitions.chain(commit).chain(orders).chain(assignment.drain_until).min()
    }
}

#[cfg(test)]
mod tests;
