//! The registry's core on a real consumer, a real store and a real producer of dead letters.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use dmp_core::{
    bridge::ProduceOutcome,
    core::EffectId,
    event::kafka_topic,
    registry::{CommitOutcome, Effect, Event, Fact, Order, Partition, Registry, WriteOutcome},
};
use tokio::sync::mpsc;

use super::{
    Gauges, Shared,
    writer::{Write, Writer},
};
use crate::{
    drive::{self, Flow},
    http::Part,
    kafka::{self, Consumer, ConsumerConfig, Producer},
    program::{Life, Stop},
    stage::Stage,
    store::Store,
};

/// Events of the reader that wait for the core. Small: what waits here is beyond the partitions' credit.
const READER_QUEUE: usize = 64;

/// Records beyond a partition's credit that may still come once it is to be paused: the queue's, and the one that waits for
/// a place in it.
pub(super) const READ_AHEAD: usize = READER_QUEUE + 1;

/// Writes that wait for a worker. The core has one per partition; more partitions than this on one member are refused
/// a write and try again.
const WRITER_QUEUE: usize = 1_024;

/// Dead letters and commands that wait for the producer; more are refused and tried again.
pub(super) const PRODUCER_QUEUE: usize = 4_096;

pub(super) struct Adapter {
    read: mpsc::Receiver<kafka::Event>,
    written: mpsc::Receiver<Event>,
    produced: mpsc::Receiver<(EffectId, ProduceOutcome)>,
    /// Which of what was produced are commands; the rest are dead letters.
    commands: BTreeSet<EffectId>,
    /// Answers to what a full stage did not take; each is told in the next turns.
    not_taken: VecDeque<Event>,
    consumer: Consumer,
    writer: Stage<Write>,
    producer: Producer,
    life: Life,
    drain_within: Duration,
    gauges: Gauges,
    group: Part,
    shown: BTreeSet<Partition>,
}

impl Adapter {
    pub(super) fn new<S: Store>(shared: &Shared<S>, stop: Stop) -> anyhow::Result<Adapter> {
        let Shared { config, store, faults, gauges, group } = shared;
        let (events, read) = mpsc::channel(READER_QUEUE);
        let (answers, written) = mpsc::channel(WRITER_QUEUE);
        let (outcomes, produced) = mpsc::channel(PRODUCER_QUEUE);
        let writer = Writer::new(store.clone(), faults.clone(), gauges.clone());
        let writer = Stage::start(writer, config.pipeline.writers, WRITER_QUEUE, config.backoff.into(), answers);
        let client_id = format!("{}-{}", config.group, std::process::id());
        let producer = Producer::start(&config.kafka, &client_id, PRODUCER_QUEUE, move |id, outcome| {
            // The core is gone: nobody waits.
            let _core_gone = outcomes.blocking_send((id, outcome));
        })?;
        let (fault, restarts) = (faults.clone(), gauges.restarts("reader"));
        let consumer = ConsumerConfig {
            kafka: config.kafka.clone(),
            group: config.group.clone(),
            client_id,
            topic: kafka_topic::EVENTS,
            fetch: kafka::Fetch::Bulk,
            start: config.start,
            drain_within: config.drain_within,
            backoff: config.backoff,
            fault: Box::new(move || fault.reader_fails()),
            restarted: Box::new(move |_reason| restarts.increment()),
        };
        gauges.queue_caps(READER_QUEUE, WRITER_QUEUE, PRODUCER_QUEUE);
        Ok(Adapter {
            read,
            written,
            produced,
            commands: BTreeSet::new(),
            not_taken: VecDeque::new(),
            consumer: Consumer::start(consumer, events)?,
            writer,
            producer,
            life: Life::new(stop),
            drain_within: config.drain_within,
            gauges: gauges.clone(),
            group: group.clone(),
            shown: BTreeSet::new(),
        })
    }

    /// Leaves the group, so that others need not wait for its session to end.
    pub(super) async fn finish(self) {
        self.group.set(false);
        self.consumer.stop().await;
    }

    fn answered(&mut self, id: EffectId, outcome: ProduceOutcome) -> Event {
        if self.commands.remove(&id) { Event::Commanded(id, outcome) } else { Event::Quarantined(id, outcome) }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Assigned(_, starts) => {
                tracing::info!(partitions = starts.len(), "joined the group");
                self.group.set(true);
                self.gauges.assignments.increment();
            }
            Event::Revoked(_) => self.gauges.revocations.increment(),
            Event::Lost(_) => {
                tracing::warn!("partitions were lost");
                self.group.set(false);
                self.gauges.losses.increment();
            }
            Event::Record(..) => self.gauges.records.increment(),
            Event::Quarantined(_, ProduceOutcome::Stored { .. }) => {}
            Event::Quarantined(
                _,
                ProduceOutcome::Refused { reason }
                | ProduceOutcome::Failed { reason }
                | ProduceOutcome::Unknown { reason },
            ) => tracing::warn!("storing a dead letter: {reason}"),
            Event::Commanded(_, ProduceOutcome::Stored { .. }) => self.gauges.commands.increment(),
            Event::Commanded(
                _,
                ProduceOutcome::Refused { reason }
                | ProduceOutcome::Failed { reason }
                | ProduceOutcome::Unknown { reason },
            ) => tracing::warn!("storing a command: {reason}"),
            Event::Committed(_, CommitOutcome::Committed) => self.gauges.commits.increment(),
            Event::Committed(_, CommitOutcome::Stale) => self.gauges.stale_commits.increment(),
            Event::Committed(_, CommitOutcome::Failed { reason }) => tracing::warn!("committing offsets: {reason}"),
            Event::Written(..) | Event::Stop { .. } => {}
        }
    }

    fn tell(&self, fact: &Fact) {
        let gauges = &self.gauges;
        match fact {
            Fact::Reflected { class, received, .. } => gauges.reflected(*class, *received),
            Fact::GapOpened { .. } => gauges.gaps.increment(),
            Fact::GapClosed { by, .. } => gauges.closed_gap(*by),
            Fact::RepairRequested(..) => gauges.ordered(Order::Repair),
            Fact::NoticeSent { .. } => gauges.ordered(Order::Notice),
            Fact::RetriedCommand => gauges.retried_commands.increment(),
            Fact::CommandDropped { order, why, .. } => gauges.dropped(*order, *why),
            Fact::Quarantined { partition, offset, reason } => {
                tracing::warn!(partition, offset, reason, "record quarantined");
                gauges.quarantined(reason);
            }
            Fact::Paused(_) => gauges.pauses.increment(),
            Fact::Resumed(_) => gauges.resumes.increment(),
            Fact::RetriedWrite(_) => gauges.retried_writes.increment(),
            Fact::RetriedQuarantine(_) => gauges.retried_quarantines.increment(),
            Fact::FailedCommit => gauges.failed_commits.increment(),
            // Both are in the core's gauges.
            Fact::Committed(..) | Fact::Buffered(..) => {}
        }
    }
}

impl drive::Adapter for Adapter {
    type Core = Registry;

    async fn next(&mut self) -> Event {
        if let Some(event) = self.not_taken.pop_front() {
            return event;
        }
        let event = tokio::select! {
            Some(event) = self.written.recv() => event,
            Some((id, outcome)) = self.produced.recv() => self.answered(id, outcome),
            Some(event) = self.read.recv() => event.into(),
            () = self.life.stops() => Event::Stop { within: self.drain_within },
        };
        self.note(&event);
        event
    }

    fn carry_out(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Write(id, partition, rows) => {
                if let Err(refused) = self.writer.offer(Write { id, partition, rows }) {
                    let reason = "the writer's queue is full".to_owned();
                    self.not_taken.push_back(Event::Written(refused.id, WriteOutcome::Aborted { reason }));
                }
            }
            Effect::Quarantine(id, record) => {
                if let Err(outcome) = self.producer.produce(id, record) {
                    self.not_taken.push_back(Event::Quarantined(id, outcome));
                }
            }
            Effect::Command(id, record) => match self.producer.produce(id, record) {
                Ok(()) => {
                    self.commands.insert(id);
                }
                Err(outcome) => self.not_taken.push_back(Event::Commanded(id, outcome)),
            },
            Effect::Commit(id, generation, offsets) => self.consumer.commit(id, generation, offsets),
            Effect::Pause(generation, partition) => self.consumer.pause(generation, partition),
            Effect::Resume(generation, partition) => self.consumer.resume(generation, partition),
            Effect::Drained(generation) => self.consumer.drained(generation),
            Effect::Fact(fact) => self.tell(&fact),
            Effect::Stopped => return Flow::Stopped,
        }
        Flow::Continue
    }

    fn observe(&mut self, core: &Registry) {
        let gauges = core.gauges();
        let held: BTreeSet<Partition> = gauges.partitions.iter().map(|partition| partition.partition).collect();
        for gone in self.shown.difference(&held) {
            self.gauges.partition_gone(*gone);
        }
        self.shown = held;
        self.gauges.show(&gauges);
        self.gauges.queues(self.read.len(), self.writer.queued(), self.producer.queued());
    }
}
