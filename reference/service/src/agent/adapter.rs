//! The agent's core on a real MQTT connection, its records on disk and its devices' API.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Agent, Change, Effect, Event, MAX_UNDER_WAY, SaveOutcome, SetOutcome},
    core::{ConnectionId, EffectId},
};
use tokio::sync::{MutexGuard, mpsc};

use super::{
    Gauges, Shared,
    changes::{Board, Set, Setter},
    devices::Shelf,
    records::Records,
};
use crate::{
    drive::{self, Flow},
    link::{Link, Settings, Works},
    mqtt::Incoming,
    program::{Life, Stop},
    stage::{Stage, Work},
};

/// Saves that wait for the disk; more are refused and tried again.
pub(super) const SAVE_QUEUE: usize = 4_096;

type Save = (EffectId, Vec<Change>);

pub(super) struct Adapter<'a> {
    link: Link,
    said: MutexGuard<'a, mpsc::Receiver<Event>>,
    saves: Stage<Save>,
    saved: mpsc::Receiver<Event>,
    sets: Stage<Set>,
    set: mpsc::Receiver<Event>,
    board: Board,
    shelf: Shelf,
    /// Answers that are known at once: probes, and saves that were not taken; each is told in the next turns.
    known: VecDeque<Event>,
    life: Life,
    drain_within: Duration,
    gauges: Gauges,
}

impl<'a> Adapter<'a> {
    pub(super) fn new(
        shared: &Shared,
        said: MutexGuard<'a, mpsc::Receiver<Event>>,
        stop: Stop,
        fatal: mpsc::Sender<anyhow::Error>,
    ) -> Adapter<'a> {
        let Shared { config, dialer, records, shelf, board, gauges, mqtt, .. } = shared;
        let (answers, saved) = mpsc::channel(SAVE_QUEUE);
        let disk = Disk { records: Arc::clone(records), gauges: gauges.clone() };
        // One worker: saves are carried out in order.
        let saves = Stage::start(disk, 1, SAVE_QUEUE, config.backoff.into(), answers);
        let (answers, set) = mpsc::channel(MAX_UNDER_WAY);
        let setter = Setter { board: board.clone(), gauges: gauges.clone() };
        // One worker each: a device that does not answer holds up no other.
        let sets = Stage::start(setter, MAX_UNDER_WAY, MAX_UNDER_WAY, config.backoff.into(), answers);
        let settings = Settings {
            name: "agent".to_owned(),
            connects: gauges.connects.clone(),
            disconnects: gauges.disconnects.clone(),
            health: mqtt.clone(),
            works: Works::Connected,
            fatal,
        };
        Adapter {
            link: Link::new(Arc::clone(dialer), config.mqtt.options(config.rae.as_str(), true), settings),
            said,
            saves,
            saved,
            sets,
            set,
            board: board.clone(),
            shelf: shelf.clone(),
            known: VecDeque::new(),
            life: Life::new(stop),
            drain_within: config.drain_within,
            gauges: gauges.clone(),
        }
    }

    /// Lets the connection end in good order, so that the last will does not fire.
    pub(super) async fn finish(&mut self) {
        self.link.finish().await;
    }
}

fn event_of(connection: ConnectionId, incoming: Incoming) -> Event {
    match incoming {
        Incoming::Connected { .. } => Event::Connected(connection),
        Incoming::Acknowledged(packet) => Event::Acknowledged(connection, packet),
        Incoming::Subscribed(packet) => Event::Subscribed(connection, packet),
        Incoming::Message(message) => Event::Message(connection, message),
        Incoming::Closed(_) => Event::Disconnected(connection),
    }
}

impl drive::Adapter for Adapter<'_> {
    type Core = Agent;

    async fn next(&mut self) -> Event {
        if self.life.starts() {
            return Event::Start;
        }
        if let Some(event) = self.known.pop_front() {
            return event;
        }
        tokio::select! {
            (connection, incoming) = self.link.next() => event_of(connection, incoming),
            Some(event) = self.saved.recv() => event,
            Some(event) = self.set.recv() => event,
            Some(event) = self.said.recv() => event,
            () = self.life.stops() => Event::Stop { within: self.drain_within },
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Flow {
        match effect {
            Effect::Connect { connection, will } => {
                self.link.connect_as(connection, |options| options.will = will);
            }
            Effect::Disconnect(connection) => self.link.client.disconnect(connection),
            Effect::Subscribe { connection, packet, filters } => {
                self.link.client.subscribe(connection, packet, filters)
            }
            Effect::Publish { connection, packet, dup, message, of: _ } => {
                self.link.client.publish(connection, packet, dup, &message);
            }
            Effect::Acknowledge(connection, packet) => self.link.client.acknowledge(connection, packet),
            Effect::Save(id, changes) => {
                if let Err((id, _)) = self.saves.offer((id, changes)) {
                    self.known.push_back(Event::Saved(id, SaveOutcome::Failed));
                }
            }
            Effect::Probe(id, hardware) => self.known.push_back(Event::Probed(id, self.shelf.probe(&hardware))),
            Effect::Set { id, hardware, set, unset } => {
                if let Err(Set { id, .. }) = self.sets.offer(Set { id, hardware, set, unset }) {
                    let refused = SetOutcome::Refused("too many devices are being changed".to_owned());
                    self.known.push_back(Event::SetDone(id, refused));
                }
            }
            Effect::Fact(fact) => self.gauges.tell(&fact),
            Effect::Stopped => return Flow::Stopped,
        }
        Flow::Continue
    }

    fn observe(&mut self, _core: &Agent) {
        self.gauges.present.set_count(self.shelf.present());
        self.gauges.saves.set_count(self.saves.queued());
        self.gauges.changes.set_count(self.board.waiting());
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
