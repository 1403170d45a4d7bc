//! One shard group's core on a real MQTT connection and a real producer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use dmp_core::{
    bridge::{Bridge, Effect, Event, Fact, ProduceOutcome},
    core::{ConnectionId, EffectId},
};
use tokio::sync::mpsc;

use super::{Gauges, Shared};
use crate::{
    drive::{self, Flow},
    http::Part,
    kafka::Producer,
    link::{Link, Settings, Works},
    mqtt::Incoming,
    program::{Life, Stop},
};

/// Records under way beyond the window: what had been read before reading paused. One read of the connection holds at
/// most a few hundred small messages.
const BEYOND_WINDOW: usize = 4_096;

pub(super) struct Adapter {
    group: u8,
    link: Link,
    producer: Producer,
    answers: mpsc::Receiver<(EffectId, ProduceOutcome)>,
    /// Answers to records that the producer did not take; each is told in the next turns.
    not_taken: VecDeque<(EffectId, ProduceOutcome)>,
    produced_at: BTreeMap<EffectId, Instant>,
    life: Life,
    drain_within: Duration,
    gauges: Gauges,
}

impl Adapter {
    pub(super) fn new(
        shared: &Shared,
        group: u8,
        stop: Stop,
        fatal: mpsc::Sender<anyhow::Error>,
        gauges: Gauges,
        health: Part,
    ) -> anyhow::Result<Adapter> {
        let config = &shared.config;
        let client_id = config.shards.client_id(group);
        let queue = config.window + BEYOND_WINDOW;
        let (answer, answers) = mpsc::channel(queue);
        let producer = Producer::start(&config.kafka, &client_id, queue, move |id, outcome| {
            // The group is gone, and its core with it: nobody waits.
            let _group_gone = answer.blocking_send((id, outcome));
        })?;
        gauges.producer_queue_cap.set_count(queue);
        let settings = Settings {
            name: format!("group {group}"),
            connects: gauges.connects.clone(),
            disconnects: gauges.disconnects.clone(),
            health,
            works: Works::Subscribed,
            fatal,
        };
        Ok(Adapter {
            group,
            link: Link::new(shared.dialer.clone(), config.mqtt.options(&client_id, false), settings),
            producer,
            answers,
            not_taken: VecDeque::new(),
            produced_at: BTreeMap::new(),
            life: Life::new(stop),
            drain_within: config.drain_within,
            gauges,
        })
    }

    /// Lets the connection end in good order.
    pub(super) async fn finish(&mut self) {
        self.link.finish().await;
    }

    /// The core's event of what the client tells; `None` for what a bridge never asks for.
    fn event_of(&self, connection: ConnectionId, incoming: Incoming) -> Option<Event> {
        match incoming {
            Incoming::Connected { session_present } => Some(Event::Connected { connection, session_present }),
            Incoming::Subscribed(packet) => Some(Event::Subscribed(connection, packet)),
            Incoming::Message(message) => {
                self.gauges.messages.increment();
                Some(Event::Message(connection, message))
            }
            Incoming::Closed(_) => Some(Event::Disconnected(connection)),
            Incoming::Acknowledged(_) => None,
        }
    }

    fn tell(&self, fact: &Fact) {
        match fact {
            Fact::Forwarded => self.gauges.forwarded.increment(),
            Fact::IgnoredRetained => self.gauges.ignored_retained.increment(),
            Fact::DeadLettered => self.gauges.dead_lettered.increment(),
            Fact::Retried => self.gauges.retried.increment(),
            Fact::Orphaned => self.gauges.orphaned.increment(),
            Fact::Window(_) => {}
        }
    }

    fn answered(&mut self, id: EffectId, outcome: ProduceOutcome) -> Event {
        if let Some(since) = self.produced_at.remove(&id) {
            self.gauges.produce.record(since.elapsed());
        }
        match &outcome {
            ProduceOutcome::Stored { .. } => {}
            ProduceOutcome::Refused { reason } => {
                tracing::warn!(group = self.group, "kafka refuses a record: {reason}")
            }
            ProduceOutcome::Failed { reason } | ProduceOutcome::Unknown { reason } => {
                tracing::warn!(group = self.group, "storing a record in kafka: {reason}");
            }
        }
        Event::Produced(id, outcome)
    }
}

impl drive::Adapter for Adapter {
    type Core = Bridge;

    async fn next(&mut self) -> Event {
        if self.life.starts() {
            return Event::Start;
        }
        if let Some((id, outcome)) = self.not_taken.pop_front() {
            return self.answered(id, outcome);
        }
        loop {
            tokio::select! {
                Some((id, outcome)) = self.answers.recv() => return self.answered(id, outcome),
                (connection, incoming) = self.link.next() => {
                    if let Some(event) = self.event_of(connection, incoming) {
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
            Effect::Subscribe { connection, packet, filters } => {
                self.link.client.subscribe(connection, packet, filters)
            }
            Effect::PauseReading(connection) => self.link.client.pause_reading(connection),
            Effect::ResumeReading(connection) => self.link.client.resume_reading(connection),
            Effect::Produce(id, record) => {
                self.produced_at.insert(id, Instant::now());
                if let Err(outcome) = self.producer.produce(id, record) {
                    self.not_taken.push_back((id, outcome));
                }
            }
            Effect::Acknowledge(connection, packet) => self.link.client.acknowledge(connection, packet),
            Effect::Fact(fact) => self.tell(&fact),
            Effect::Stopped => return Flow::Stopped,
        }
        Flow::Continue
    }

    fn observe(&mut self, core: &Bridge) {
        self.gauges.show(&core.gauges());
        self.gauges.producer_queue.set_count(self.producer.queued());
    }
}
