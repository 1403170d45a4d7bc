//! The way down on a real consumer, a real MQTT connection and a real producer: one per bridge process, as a member of
//! the group that shares `dmp.commands`.
//!
//! Its connection is its own, with a clean session: what the broker has not acknowledged is not committed in Kafka
//! either, and is sent again from there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use dmp_core::{
    bridge::{
        ProduceOutcome,
        downlink::{Downlink, Effect, Event, Fact},
    },
    consume::{CommitOutcome, Offset, Partition},
    core::{ConnectionId, EffectId},
    event::kafka_topic,
};
use tokio::sync::mpsc;

use super::{Config, Shared};
use crate::{
    config::Start,
    drive::{self, Clock, Flow, drive},
    http::Part,
    kafka::{self, Consumer, ConsumerConfig, Producer},
    link::{Link, Settings, Works},
    mqtt::Incoming,
    program::{Life, Stop},
    stage::restart_on_panic,
};

mod gauges;

use gauges::Gauges;

/// Events of the reader that wait for the core. Small: what waits here is beyond the partitions' credit.
const READER_QUEUE: usize = 64;

/// Replies and dead letters that wait for the producer; more are refused and tried again.
const PRODUCER_QUEUE: usize = 4_096;

/// Runs the downlink until it has drained, or cannot go on; again with a new core after each panic.
pub(super) async fn supervise(shared: Shared, stop: Stop, fatal: mpsc::Sender<anyhow::Error>) {
    let gauges = Gauges::new(&shared.metrics);
    let (backoff, restarts) = (shared.config.backoff, gauges.restarts.clone());
    let attempt = || {
        let (shared, stop, fatal, gauges) = (shared.clone(), stop.clone(), fatal.clone(), gauges.clone());
        async move {
            if let Err(error) = serve(&shared, stop, &fatal, gauges).await {
                // Full means that a group told why it is over before.
                let _first_wins = fatal.try_send(error);
            }
        }
    };
    restart_on_panic("downlink", backoff.into(), attempt, move || restarts.increment()).await;
}

async fn serve(shared: &Shared, stop: Stop, fatal: &mpsc::Sender<anyhow::Error>, gauges: Gauges) -> anyhow::Result<()> {
    let mut core = Downlink::new(shared.config.downlink(), rand::random());
    let mut adapter = Adapter::new(shared, stop, fatal.clone(), gauges)?;
    drive(&mut core, &mut adapter, Clock::start()).await;
    adapter.finish().await;
    Ok(())
}

struct Adapter {
    link: Link,
    read: mpsc::Receiver<kafka::Event>,
    produced: mpsc::Receiver<(EffectId, ProduceOutcome)>,
    /// Answers to records that the producer did not take; each is told in the next turns.
    not_taken: VecDeque<(EffectId, ProduceOutcome)>,
    consumer: Consumer,
    producer: Producer,
    /// When the commands were received that have not come to their end: as many as the partitions' credit.
    received: BTreeMap<(Partition, Offset), Instant>,
    life: Life,
    drain_within: Duration,
    gauges: Gauges,
    group: Part,
    shown: BTreeSet<Partition>,
}

impl Adapter {
    fn new(shared: &Shared, stop: Stop, fatal: mpsc::Sender<anyhow::Error>, gauges: Gauges) -> anyhow::Result<Adapter> {
        let Shared { config, dialer, health, .. } = shared;
        let client_id = config.downlink_client_id();
        let (events, read) = mpsc::channel(READER_QUEUE);
        let (answers, produced) = mpsc::channel(PRODUCER_QUEUE);
        let producer = Producer::start(&config.kafka, &client_id, PRODUCER_QUEUE, move |id, outcome| {
            // The core is gone: nobody waits.
            let _core_gone = answers.blocking_send((id, outcome));
        })?;
        let settings = Settings {
            name: "downlink".to_owned(),
            connects: gauges.connects.clone(),
            disconnects: gauges.disconnects.clone(),
            health: health.part("mqtt commands"),
            works: Works::Connected,
            fatal,
        };
        gauges.queue_caps(READER_QUEUE, PRODUCER_QUEUE);
        Ok(Adapter {
            link: Link::new(dialer.clone(), config.mqtt.options(&client_id, true), settings),
            read,
            produced,
            not_taken: VecDeque::new(),
            consumer: Consumer::start(consumer(config, client_id, &gauges), events)?,
            producer,
            received: BTreeMap::new(),
            life: Life::new(stop),
            drain_within: config.drain_within,
            gauges,
            group: health.part("kafka commands"),
            shown: BTreeSet::new(),
        })
    }

    /// Lets the connection end in good order, and leaves the group, so that others need not wait for its session to end.
    async fn finish(mut self) {
        self.group.set(false);
        self.link.finish().await;
        self.consumer.stop().await;
    }

    /// What the reader says, as the core's event.
    fn note(&mut self, event: kafka::Event) -> Event {
        match &event {
            kafka::Event::Assigned(_, starts) => {
                tracing::info!(partitions = starts.len(), "joined the group of the commands");
                self.group.set(true);
                self.received.clear();
                self.gauges.assignments.increment();
            }
            kafka::Event::Revoked(_) => self.gauges.revocations.increment(),
            kafka::Event::Lost(_) => {
                tracing::warn!("partitions of the commands were lost");
                self.group.set(false);
                self.gauges.losses.increment();
            }
            kafka::Event::Record(_, record) => {
                self.gauges.records.increment();
                self.received.entry((record.partition, record.offset)).or_insert_with(Instant::now);
            }
            kafka::Event::Committed(_, CommitOutcome::Committed) => self.gauges.commits.increment(),
            kafka::Event::Committed(_, CommitOutcome::Stale) => self.gauges.stale_commits.increment(),
            kafka::Event::Committed(_, CommitOutcome::Failed { reason }) => {
                tracing::warn!("committing offsets of commands: {reason}");
            }
        }
        event.into()
    }

    fn tell(&mut self, fact: Fact) {
        match fact {
            Fact::Published(..) => self.gauges.published.increment(),
            Fact::Resent(..) => self.gauges.resent.increment(),
            Fact::Ended(partition, offset, end) => {
                let took = self.received.remove(&(partition, offset)).map(|since| since.elapsed());
                self.gauges.ended(end, took);
            }
            Fact::Retried => self.gauges.retried.increment(),
            Fact::Unacknowledged => {
                tracing::warn!("the MQTT broker does not acknowledge commands: its connection is given up");
                self.gauges.unacknowledged.increment();
            }
            Fact::Paused(_) => self.gauges.pauses.increment(),
            Fact::Resumed(_) => self.gauges.resumes.increment(),
            Fact::FailedCommit => self.gauges.failed_commits.increment(),
            // In the core's gauges.
            Fact::Committed(..) => {}
        }
    }
}

fn consumer(config: &Config, client_id: String, gauges: &Gauges) -> ConsumerConfig {
    let restarts = gauges.reader_restarts.clone();
    ConsumerConfig {
        kafka: config.kafka.clone(),
        group: config.commands.group.clone(),
        client_id,
        topic: kafka_topic::COMMANDS,
        fetch: kafka::Fetch::Prompt,
        // A command that is older than the group has expired, or is still wanted; its issuer waits for a word either way.
        start: Start::Earliest,
        drain_within: config.drain_within,
        backoff: config.backoff,
        fault: Box::new(|| false),
        restarted: Box::new(move |_reason| restarts.increment()),
    }
}

/// The core's event of what the client tells; `None` for what a downlink never asks for.
fn event_of(connection: ConnectionId, incoming: &Incoming) -> Option<Event> {
    match incoming {
        Incoming::Connected { .. } => Some(Event::Connected(connection)),
        Incoming::Acknowledged(packet) => Some(Event::Acknowledged(connection, *packet)),
        Incoming::Closed(_) => Some(Event::Disconnected(connection)),
        Incoming::Subscribed(_) | Incoming::Message(_) => None,
    }
}

fn answered(id: EffectId, outcome: ProduceOutcome) -> Event {
    match &outcome {
        ProduceOutcome::Stored { .. } => {}
        ProduceOutcome::Refused { reason } | ProduceOutcome::Failed { reason } | ProduceOutcome::Unknown { reason } => {
            tracing::warn!("storing a reply or a dead letter: {reason}")
        }
    }
    Event::Produced(id, outcome)
}

impl drive::Adapter for Adapter {
    type Core = Downlink;

    async fn next(&mut self) -> Event {
        if self.life.starts() {
            return Event::Start;
        }
        if let Some((id, outcome)) = self.not_taken.pop_front() {
            return answered(id, outcome);
        }
        loop {
            tokio::select! {
                Some((id, outcome)) = self.produced.recv() => return answered(id, outcome),
                Some(event) = self.read.recv() => return self.note(event),
                (connection, incoming) = self.link.next() => {
                    if let Some(event) = event_of(connection, &incoming) {
                        return event;
                    }
                }
                () = self.life.stops() => return Event::Stop { within: self.drain_within },
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Connect(connection) => self.link.connect(connection),
            Effect::Disconnect(connection) => self.link.client.disconnect(connection),
            Effect::Publish { connection, packet, dup, message } => {
                self.link.client.publish(connection, Some(packet), dup, &message);
            }
            Effect::Produce(id, record) => {
                if let Err(outcome) = self.producer.produce(id, record) {
                    self.not_taken.push_back((id, outcome));
                }
            }
            Effect::Commit(id, generation, offsets) => self.consumer.commit(id, generation, offsets),
            Effect::Pause(generation, partition) => self.consumer.pause(generation, partition),
            Effect::Resume(generation, partition) => self.consumer.resume(generation, partition),
            Effect::Drained(generation) => self.consumer.drained(generation),
            Effect::Fact(fact) => self.tell(fact),
            Effect::Stopped => return Flow::Stopped,
        }
        Flow::Continue
    }

    fn observe(&mut self, core: &Downlink) {
        let gauges = core.gauges();
        let held: BTreeSet<Partition> = gauges.partitions.iter().map(|partition| partition.partition).collect();
        for gone in self.shown.difference(&held) {
            self.gauges.partition_gone(*gone);
            self.received.retain(|(partition, _), _| partition != gone);
        }
        for partition in &gauges.partitions {
            // One that was fetched again after its end has no second one.
            let ended = (partition.partition, partition.ended);
            while let Some(&again) = self.received.range((partition.partition, 0)..ended).next().map(|(at, _)| at) {
                self.received.remove(&again);
            }
        }
        self.shown = held;
        self.gauges.show(&gauges);
        self.gauges.queues(self.read.len(), self.producer.queued());
    }
}
