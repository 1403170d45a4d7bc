//! The agent's core on a real MQTT connection, its records on disk and its devices' API.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Agent, Change, Effect, Event, SaveOutcome, SetOutcome},
    core::{ConnectionId, EffectId},
};
use tokio::sync::{MutexGuard, mpsc};

use super::{Gauges, Shared, devices::Shelf, records::Records};
use crate::{
    drive::{self, Flow},
    http::Part,
    mqtt::{Client, Closed, ConnectOptions, Incoming},
    program::{Stop, chain, never_heals},
    stage::{Stage, Work},
};

/// Saves that wait for the disk; more are refused and tried again.
const SAVE_QUEUE: usize = 4_096;

/// Bound of the good end of a connection; the client gives itself 5 s.
const FINISH_WITHIN: Duration = Duration::from_secs(6);

type Save = (EffectId, Vec<Change>);

pub(super) struct Adapter<'a> {
    client: Client,
    options: ConnectOptions,
    said: MutexGuard<'a, mpsc::Receiver<Event>>,
    saves: Stage<Save>,
    saved: mpsc::Receiver<Event>,
    shelf: Shelf,
    /// Answers that are known at once: probes, and saves that were not taken; each is told in the next turns.
    known: VecDeque<Event>,
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

impl<'a> Adapter<'a> {
    pub(super) fn new(
        shared: &Shared,
        said: MutexGuard<'a, mpsc::Receiver<Event>>,
        stop: Stop,
        fatal: mpsc::Sender<anyhow::Error>,
    ) -> Adapter<'a> {
        let Shared { config, dialer, records, shelf, gauges, mqtt, .. } = shared;
        let (answers, saved) = mpsc::channel(SAVE_QUEUE);
        let disk = Disk { records: Arc::clone(records), gauges: gauges.clone() };
        // One worker: saves are carried out in order.
        let saves = Stage::start(disk, 1, SAVE_QUEUE, config.backoff.into(), answers);
        Adapter {
            client: Client::new(Arc::clone(dialer)),
            options: config.mqtt.options(config.rae.as_str(), true),
            said,
            saves,
            saved,
            shelf: shelf.clone(),
            known: VecDeque::new(),
            stop,
            drain_within: config.drain_within,
            fatal,
            gauges: gauges.clone(),
            health: mqtt.clone(),
            phase: Phase::New,
            open: None,
            was_accepted: false,
        }
    }

    /// Lets the connection end in good order, so that the last will does not fire.
    pub(super) async fn finish(&mut self) {
        self.health.set(false);
        let Some(open) = self.open else { return };
        self.client.disconnect(open);
        let ended = async { while !matches!(self.client.next().await.1, Incoming::Closed(_)) {} };
        if tokio::time::timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::warn!("the MQTT connection did not end in good order");
        }
    }

    fn event_of(&mut self, connection: ConnectionId, incoming: Incoming) -> Event {
        match incoming {
            Incoming::Connected { .. } => {
                tracing::info!("connected to the MQTT broker");
                self.was_accepted = true;
                self.gauges.connects.increment();
                self.health.set(true);
                Event::Connected(connection)
            }
            Incoming::Acknowledged(packet) => Event::Acknowledged(connection, packet),
            Incoming::Subscribed(packet) => Event::Subscribed(connection, packet),
            Incoming::Message(message) => Event::Message(connection, message),
            Incoming::Closed(closed) => {
                self.closed(connection, &closed);
                Event::Disconnected(connection)
            }
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
        tracing::warn!("MQTT connection: {}", chain(closed));
        if let Closed::NotMade(error) = closed
            && !self.was_accepted
            && never_heals(error)
        {
            let told = anyhow::Error::new((**error).clone()).context("connecting to the MQTT broker");
            // Full means that it was told before.
            let _first_wins = self.fatal.try_send(told);
        }
    }
}

impl drive::Adapter for Adapter<'_> {
    type Core = Agent;

    async fn next(&mut self) -> Event {
        if self.phase == Phase::New {
            self.phase = Phase::Running;
            return Event::Start;
        }
        if let Some(event) = self.known.pop_front() {
            return event;
        }
        tokio::select! {
            (connection, incoming) = self.client.next() => self.event_of(connection, incoming),
            Some(event) = self.saved.recv() => event,
            Some(event) = self.said.recv() => event,
            () = self.stop.wait(), if self.phase == Phase::Running => {
                self.phase = Phase::Stopping;
                Event::Stop { within: self.drain_within }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Connect { connection, will } => {
                self.open = Some(connection);
                self.client.connect(connection, ConnectOptions { will, ..self.options.clone() });
            }
            Effect::Disconnect(connection) => self.client.disconnect(connection),
            Effect::Subscribe { connection, packet, filters } => self.client.subscribe(connection, packet, filters),
            Effect::Publish { connection, packet, dup, message, of: _ } => {
                self.client.publish(connection, packet, dup, &message);
            }
            Effect::Acknowledge(connection, packet) => self.client.acknowledge(connection, packet),
            Effect::Save(id, changes) => {
                if let Err((id, _)) = self.saves.offer((id, changes)) {
                    self.known.push_back(Event::Saved(id, SaveOutcome::Failed));
                }
            }
            Effect::Probe(id, hardware) => self.known.push_back(Event::Probed(id, self.shelf.probe(&hardware))),
            // Devices speak to this RAE, and it has no way to speak to them.
            Effect::Set { id, .. } => {
                let refused = SetOutcome::Refused("devices at this RAE cannot be changed from outside".to_owned());
                self.known.push_back(Event::SetDone(id, refused));
            }
            Effect::Fact(fact) => self.gauges.tell(&fact),
            Effect::Stopped => return Flow::Stopped,
        }
        Flow::Continue
    }

    fn observe(&mut self, _core: &Agent) {
        self.gauges.present.set_count(self.shelf.present());
    }
}

/// The stage that saves.
struct Disk {
    records: Arc<Records>,
    gauges: Gauges,
}

impl Work for Disk {
    type Job = Save;
    type Answer = Event;

    async fn work(&self, (id, changes): Save) -> Event {
        let began = Instant::now();
        let outcome = self.records.save(changes).await;
        self.gauges.saved(began.elapsed());
        Event::Saved(id, outcome)
    }

    fn broken(&self, (id, _): Save, _reason: String) -> Event {
        Event::Saved(id, SaveOutcome::Unknown)
    }

    fn failed(&self, reason: &str) {
        self.gauges.save_restarts.increment();
        tracing::error!(reason, "saving failed and is started again");
    }
}
