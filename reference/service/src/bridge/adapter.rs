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
    mqtt::{Client, Closed, ConnectOptions, Incoming},
    program::{Stop, chain, never_heals},
};

/// Records under way beyond the window: what had been read before reading paused. One read of the connection holds at
/// most a few hundred small messages.
const BEYOND_WINDOW: usize = 4_096;

/// Bound of the good end of a connection; the client gives itself 5 s.
const FINISH_WITHIN: Duration = Duration::from_secs(6);

pub(super) struct Adapter {
    group: u8,
    client: Client,
    options: ConnectOptions,
    producer: Producer,
    answers: mpsc::Receiver<(EffectId, ProduceOutcome)>,
    /// Answers to records that the producer did not take; each is told in the next turns.
    not_taken: VecDeque<(EffectId, ProduceOutcome)>,
    produced_at: BTreeMap<EffectId, Instant>,
    stop: Stop,
    drain_within: Duration,
    fatal: mpsc::Sender<anyhow::Error>,
    gauges: Gauges,
    health: Part,
    phase: Phase,
    /// The connection whose end was not yet told.
    open: Option<ConnectionId>,
    was_accepted: bool,
}

#[derive(PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Stopping,
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
        Ok(Adapter {
            group,
            client: Client::new(shared.dialer.clone()),
            options: config.mqtt.options(&client_id, false),
            producer,
            answers,
            not_taken: VecDeque::new(),
            produced_at: BTreeMap::new(),
            stop,
            drain_within: config.drain_within,
            fatal,
            gauges,
            health,
            phase: Phase::New,
            open: None,
            was_accepted: false,
        })
    }

    /// Lets the connection end in good order.
    pub(super) async fn finish(&mut self) {
        self.health.set(false);
        let Some(open) = self.open else { return };
        self.client.disconnect(open);
        let ended = async { while !matches!(self.client.next().await.1, Incoming::Closed(_)) {} };
        if tokio::time::timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::warn!(group = self.group, "the MQTT connection did not end in good order");
        }
    }

    /// The core's event of what the client tells; `None` for what a bridge never asks for.
    fn event_of(&mut self, connection: ConnectionId, incoming: Incoming) -> Option<Event> {
        match incoming {
            Incoming::Connected { session_present } => {
                tracing::info!(group = self.group, session_present, "connected to the MQTT broker");
                self.was_accepted = true;
                self.gauges.connects.increment();
                Some(Event::Connected { connection, session_present })
            }
            Incoming::Subscribed(packet) => {
                self.health.set(true);
                Some(Event::Subscribed(connection, packet))
            }
            Incoming::Message(message) => {
                self.gauges.messages.increment();
                Some(Event::Message(connection, message))
            }
            Incoming::Closed(closed) => {
                self.closed(connection, &closed);
                Some(Event::Disconnected(connection))
            }
            Incoming::Acknowledged(_) => None,
        }
    }

    fn closed(&mut self, connection: ConnectionId, closed: &Closed) {
        if self.open == Some(connection) {
            self.open = None;
            self.health.set(false);
        }
        self.gauges.disconnects.increment();
        if matches!(closed, Closed::AsAsked) {
            return;
        }
        tracing::warn!(group = self.group, "MQTT connection: {}", chain(closed));
        if let Closed::NotMade(error) = closed
            && !self.was_accepted
            && never_heals(error)
        {
            let told = anyhow::Error::new((**error).clone()).context("connecting to the MQTT broker");
            // Full means that another group told the same before.
            let _first_wins = self.fatal.try_send(told);
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
        if self.phase == Phase::New {
            self.phase = Phase::Running;
            return Event::Start;
        }
        if let Some((id, outcome)) = self.not_taken.pop_front() {
            return self.answered(id, outcome);
        }
        loop {
            tokio::select! {
                Some((id, outcome)) = self.answers.recv() => return self.answered(id, outcome),
                (connection, incoming) = self.client.next() => {
                    if let Some(event) = self.event_of(connection, incoming) {
                        return event;
                    }
                }
                () = self.stop.wait(), if self.phase == Phase::Running => {
                    self.phase = Phase::Stopping;
                    return Event::Stop { within: self.drain_within };
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Connect(connection) => {
                self.open = Some(connection);
                self.client.connect(connection, self.options.clone());
            }
            Effect::Disconnect(connection) => self.client.disconnect(connection),
            Effect::Subscribe { connection, packet, filters } => self.client.subscribe(connection, packet, filters),
            Effect::PauseReading(connection) => self.client.pause_reading(connection),
            Effect::ResumeReading(connection) => self.client.resume_reading(connection),
            Effect::Produce(id, record) => {
                self.produced_at.insert(id, Instant::now());
                if let Err(outcome) = self.producer.produce(id, record) {
                    self.not_taken.push_back((id, outcome));
                }
            }
            Effect::Acknowledge(connection, packet) => self.client.acknowledge(connection, packet),
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
