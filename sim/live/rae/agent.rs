//! Between the agent and the world: what comes in becomes its events, and what it wants is carried out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Effect, Event, Fact, Published, SaveOutcome, SnapshotCause},
    core::{ConnectionId, Core},
    id::{Device, Version},
};
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Incoming};

use super::LiveRae;
use crate::history::{Copy, Down, Publish, What};

/// Keep-alive of the fleet's connections: a half-open one is found within it, and thousands of pings cost little.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

impl LiveRae {
    /// The serial; for the short connection that only reads, a name of its own: the embedded broker may take a client
    /// that comes back at once for the one that is just leaving, and then serve neither.
    fn client_id(&self, stays: bool) -> Arc<str> {
        let serial = &self.shared.plan.raes[self.index.0 as usize].serial;
        if stays { serial.clone().into() } else { format!("{serial}-status").into() }
    }

    /// Breaks the connection as a cut cable does: the broker sends the will.
    pub(super) fn drop_link(&mut self) -> Option<ConnectionId> {
        self.client = Client::new(self.shared.access.of(self.index).dialer.clone());
        let connection = self.connection.take();
        self.went_offline();
        connection
    }

    pub(super) fn went_offline(&mut self) {
        self.online = false;
        self.copies.connection_lost();
        self.entries.push(self.shared.journal.entry(What::Offline(self.index)));
    }

    pub(super) fn incoming(&mut self, connection: ConnectionId, incoming: Incoming) {
        match incoming {
            Incoming::Connected { .. } => {
                self.online = true;
                self.entries.push(self.shared.journal.entry(What::Online(self.index)));
                self.step(Some(Event::Connected(connection)));
                self.send_copies();
            }
            Incoming::Acknowledged(packet) => match self.copies.acknowledged(packet) {
                Some((publish, Copy::Delayed)) => self.enter(What::Acknowledged(publish)),
                Some((_, Copy::First | Copy::Resent | Copy::Duplicate)) => {}
                None => self.step(Some(Event::Acknowledged(connection, packet))),
            },
            Incoming::Subscribed(packet) => self.step(Some(Event::Subscribed(connection, packet))),
            Incoming::Message(message) => self.message(connection, message),
            Incoming::Closed(reason) => {
                tracing::debug!(rae = %self.shared.plan.raes[self.index.0 as usize].serial, %reason, "connection closed");
                if !matches!(reason, Closed::AsAsked | Closed::Replaced) {
                    self.shared.errors.fetch_add(1, Ordering::Relaxed);
                }
                if self.connection == Some(connection) {
                    self.connection = None;
                    self.went_offline();
                }
                self.step(Some(Event::Disconnected(connection)));
            }
        }
    }

    /// Hands the agent an event, or the passing of time, and carries out all that follows.
    pub(super) fn step(&mut self, event: Option<Event>) {
        let mut events = std::collections::VecDeque::from_iter([event]);
        while let Some(event) = events.pop_front() {
            let (now, mut effects) = (self.now(), Vec::new());
            let Some(agent) = &mut self.agent else { return };
            match event {
                Some(event) => agent.handle(now, event, &mut effects),
                None => agent.wake(now, &mut effects),
            }
            for effect in effects {
                events.extend(self.carry_out(effect).map(Some));
            }
        }
    }

    /// Carries out one effect; returns its answer where it is at hand.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Connect { connection, will } => {
                if self.link_down_until.is_some_and(|until| Instant::now() < until) {
                    return Some(Event::Disconnected(connection));
                }
                self.connection = Some(connection);
                self.stays = will.is_some();
                let client_id = self.client_id(will.is_some());
                let credentials = self.shared.access.of(self.index).credentials.clone();
                let options =
                    ConnectOptions { client_id, clean_session: true, keep_alive: KEEP_ALIVE, will, credentials };
                self.client.connect(connection, options);
            }
            Effect::Disconnect(connection) => self.client.disconnect(connection),
            Effect::Subscribe { connection, packet, filters } => self.client.subscribe(connection, packet, filters),
            Effect::Publish { connection, packet, dup, message, of } => {
                return self.publish(connection, packet, dup, &message, of);
            }
            Effect::Acknowledge(connection, packet) => self.client.acknowledge(connection, packet),
            Effect::Save(id, changes) => {
                changes.into_iter().for_each(|change| self.disk.apply(change));
                return Some(Event::Saved(id, SaveOutcome::Durable));
            }
            Effect::Probe(id, hardware) => return Some(Event::Probed(id, self.probe(&hardware))),
            Effect::Set { id, hardware, set, unset } => {
                return Some(Event::SetDone(id, self.set(&hardware, &set, &unset)));
            }
            Effect::Stopped => self.stopped = true,
            Effect::Fact(fact) => self.fact(fact),
        }
        None
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Recorded(Published::Delta(device, version)) => self.recorded(device, version, None),
            Fact::Recorded(Published::Snapshot(device, version, cause)) => self.recorded(device, version, Some(cause)),
            Fact::Acknowledged(Published::Delta(device, version)) => self.acknowledged(device, version, false),
            Fact::Acknowledged(Published::Snapshot(device, version, _)) => self.acknowledged(device, version, true),
            Fact::Shed(device, version) => self.enter_of(device, version, false, What::Shed),
            Fact::Recorded(Published::Status | Published::Reply(_))
            | Fact::Acknowledged(Published::Status | Published::Reply(_))
            | Fact::RefusedReport(_)
            | Fact::RefusedDevice(_)
            | Fact::SaveRetried
            | Fact::Forgotten(_)
            | Fact::Outbox(_) => {}
            Fact::TookCommand(id, _) => self.enter(What::Down(Down::Taken { rae: self.index, id })),
            Fact::ExecutedCommand { id, ok, .. } => self.enter(What::Down(Down::Executed { rae: self.index, id, ok })),
            Fact::RepeatedCommand(id) => self.enter(What::Down(Down::Repeated { rae: self.index, id })),
            Fact::RefusedCommand { id, reason, replied } => {
                self.enter(What::Down(Down::Refused { rae: self.index, id, reason, replied }));
            }
        }
    }

    fn recorded(&mut self, device: Device, version: Version, cause: Option<SnapshotCause>) {
        let Some(publish) = self.publish_of(device, version, cause.is_some()) else { return };
        self.shared.directory.recorded(&publish);
        if let Some(cause) = cause {
            self.enter(What::Cause(publish, cause));
        }
        self.enter(What::Recorded(publish));
    }

    fn acknowledged(&mut self, device: Device, version: Version, snapshot: bool) {
        if !self.spoofed.remove(&(device, version)) {
            self.enter_of(device, version, snapshot, What::Acknowledged);
        }
    }

    fn enter_of(&mut self, device: Device, version: Version, snapshot: bool, what: impl FnOnce(Publish) -> What) {
        if let Some(publish) = self.publish_of(device, version, snapshot) {
            self.enter(what(publish));
        }
    }

    pub(super) fn enter(&mut self, what: What) {
        self.entries.push(self.shared.journal.entry(what));
    }

    pub(super) fn publish_of(&self, device: Device, version: Version, snapshot: bool) -> Option<Publish> {
        let device = self.shared.plan.device(device)?;
        Some(Publish { device, rae: self.index, version, snapshot })
    }
}
