//! The connection to the broker, and the presence of the RAE on it.
//!
//! A boot number comes first. With an intact disk it is the saved one plus one; after a wipe the RAE's own retained
//! status is read on a short connection without a will, so that the boot is above the one that the world remembers.
//! Only when the boot is durable does the agent connect with its will, say "online" first, and send its outbox.
//! It reconnects for ever, with a capped back-off that starts anew only after the broker acknowledged "online": a
//! broker that accepts and drops is not stormed.

use std::sync::Arc;

use super::{Agent, Effect, Message, Published, machine::Life, timers::Timer};
use crate::{
    core::{ConnectionId, PacketId, Publication, Qos},
    event::{self, Presence, PresenceState, Topic, commands_filter},
    id::{Epoch, Seq},
    time::Now,
};

/// Widest window: leaves free packet ids, of which there are 65,535.
const MAX_WINDOW: u16 = 1 << 15;

/// What the agent knows of its boot and connection.
#[derive(Debug)]
pub(super) struct Connection {
    boot: Boot,
    link: Link,
    /// Attempts of this life.
    attempts: u64,
    /// Connections with a will in this boot: the counter in `status`.
    number: Option<Seq>,
    /// Attempts in a row that led to nothing.
    failures: u32,
    /// The status that is not yet acknowledged.
    status: Option<PacketId>,
    /// The subscription that is not yet acknowledged.
    subscription: Option<PacketId>,
    last_packet: u16,
}

/// Epoch of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// Not chosen yet; holds the last one on disk.
    Unchosen(Option<Epoch>),
    /// Chosen, not durable.
    Chosen,
    /// Durable.
    Known(Epoch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Connecting(ConnectionId, Purpose),
    Open(ConnectionId, Purpose),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To read the RAE's own retained status, once.
    ReadStatus,
    /// To publish.
    Serve(Epoch, Seq),
}

impl Connection {
    pub(super) fn new(saved: Option<Epoch>) -> Connection {
        Connection {
            boot: Boot::Unchosen(saved),
            link: Link::Down,
            attempts: 0,
            number: None,
            failures: 0,
            status: None,
            subscription: None,
            last_packet: 0,
        }
    }

    /// Whether events can be published now.
    pub(super) fn serves(&self) -> bool {
        self.serving().is_some()
    }

    /// The connection on which events are published and commands come.
    pub(super) fn serving(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Open(connection, Purpose::Serve(..)) => Some(connection),
            Link::Open(_, Purpose::ReadStatus) | Link::Connecting(..) | Link::Down => None,
        }
    }

    /// Nothing waits for it: a message may come before it. Its packet id is free again.
    pub(super) fn subscribed(&mut self, connection: ConnectionId, packet: PacketId) {
        if self.is_current(connection) {
            self.subscription.take_if(|waiting| *waiting == packet);
        }
    }

    fn uses(&self, packet: PacketId) -> bool {
        self.status == Some(packet) || self.subscription == Some(packet)
    }

    /// Whether no status waits for its acknowledgement.
    pub(super) fn is_quiet(&self) -> bool {
        self.status.is_none()
    }

    fn is_current(&self, connection: ConnectionId) -> bool {
        match self.link {
            Link::Down => false,
            Link::Connecting(current, _) | Link::Open(current, _) => current == connection,
        }
    }
}

impl Agent {
    pub(super) fn start_connection(&mut self, now: Now, effects: &mut Vec<Effect>) {
        match self.connection.boot {
            Boot::Unchosen(Some(_)) => self.choose_boot(now, None),
            Boot::Unchosen(None) => self.connect(effects),
            Boot::Chosen | Boot::Known(_) => {}
        }
    }

    pub(super) fn connect(&mut self, effects: &mut Vec<Effect>) {
        let purpose = match self.connection.boot {
            Boot::Unchosen(_) => Purpose::ReadStatus,
            // The connection follows when the boot is durable.
            Boot::Chosen => return,
            Boot::Known(boot) => {
                let number = self.connection.number.map_or(Seq::FIRST, |last| last.next().unwrap_or(last));
                self.connection.number = Some(number);
                Purpose::Serve(boot, number)
            }
        };
        self.connection.attempts += 1;
        let connection = ConnectionId(self.connection.attempts);
        self.connection.link = Link::Connecting(connection, purpose);
        let will = match purpose {
            Purpose::ReadStatus => None,
            Purpose::Serve(boot, number) => Some(self.status(boot, number, PresenceState::Offline)),
        };
        effects.push(Effect::Connect { connection, will });
    }

    pub(super) fn connected(&mut self, now: Now, connection: ConnectionId, effects: &mut Vec<Effect>) {
        let Link::Connecting(current, purpose) = self.connection.link else { return };
        if current != connection {
            return;
        }
        self.connection.link = Link::Open(connection, purpose);
        match purpose {
            Purpose::ReadStatus => {
                self.subscribe(connection, Topic::Status(self.config.rae.clone()).to_string(), effects);
                if !self.timers.is_set(Timer::StatusWait) {
                    self.timers.set(Timer::StatusWait, now.mono + self.config.status_wait);
                }
            }
            Purpose::Serve(boot, number) => {
                // First, so that whoever sees the RAE online can command it.
                self.subscribe(connection, commands_filter(&self.config.rae), effects);
                self.say(connection, boot, number, PresenceState::Online, effects);
            }
        }
    }

    pub(super) fn disconnected(&mut self, now: Now, connection: ConnectionId, effects: &mut Vec<Effect>) {
        if !self.connection.is_current(connection) {
            return;
        }
        self.connection.link = Link::Down;
        (self.connection.status, self.connection.subscription) = (None, None);
        self.outbox.disconnected();
        self.commands.disconnected();
        match self.life {
            Life::Running => {
                let wait = self.config.backoff.wait(self.connection.failures, &mut self.rng);
                self.connection.failures = self.connection.failures.saturating_add(1);
                self.timers.set(Timer::Reconnect, now.mono + wait);
            }
            Life::SayingOffline => self.end(effects),
            Life::New | Life::Draining | Life::Stopped => {}
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        connection: ConnectionId,
        packet: PacketId,
        effects: &mut Vec<Effect>,
    ) -> Option<Published> {
        if !self.connection.is_current(connection) {
            return None;
        }
        if self.connection.status != Some(packet) {
            return self.outbox.acknowledge(packet);
        }
        self.connection.status = None;
        self.connection.failures = 0;
        if self.life == Life::SayingOffline {
            self.end(effects);
        }
        Some(Published::Status)
    }

    pub(super) fn message(&mut self, now: Now, connection: ConnectionId, message: &Message, effects: &mut Vec<Effect>) {
        if !self.connection.is_current(connection) {
            return;
        }
        if self.connection.serves() {
            self.command_came(message, effects);
            return;
        }
        if let Some(packet) = message.packet {
            effects.push(Effect::Acknowledge(connection, packet));
        }
        if self.connection.link != Link::Open(connection, Purpose::ReadStatus) {
            return;
        }
        // Whatever else may lie on that topic says nothing about the last boot.
        if let Ok(event::Event::Status(rae, presence)) = event::decode(&message.topic, &message.payload)
            && rae == self.config.rae
        {
            self.boot_is_read(now, Some(presence.boot), effects);
        }
    }

    pub(super) fn status_wait_is_over(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.boot_is_read(now, None, effects);
    }

    pub(super) fn boot_is_durable(&mut self, boot: Epoch, effects: &mut Vec<Effect>) {
        self.connection.boot = Boot::Known(boot);
        // A back-off that is under way stays: the broker is not to be asked sooner for it.
        let waits = self.timers.is_set(Timer::Reconnect);
        if self.life == Life::Running && self.connection.link == Link::Down && !waits {
            self.connect(effects);
        }
    }

    /// Sends what may be sent: resends first, then what is new.
    pub(super) fn send(&mut self, effects: &mut Vec<Effect>) {
        let Link::Open(connection, Purpose::Serve(..)) = self.connection.link else { return };
        let window =
            usize::from(self.config.window.clamp(1, MAX_WINDOW)) - usize::from(self.connection.status.is_some());
        loop {
            let mut last = self.connection.last_packet;
            let packet = |outbox: &super::outbox::Outbox| {
                free_packet(&mut last, |packet| self.connection.uses(packet) || outbox.uses(packet))
            };
            let Some(outgoing) = self.outbox.send(window, packet) else { return };
            self.connection.last_packet = last;
            if !outgoing.dup {
                self.no_longer_waits(outgoing.of);
            }
            effects.push(Effect::Publish {
                connection,
                packet: outgoing.packet,
                dup: outgoing.dup,
                message: outgoing.message,
                of: outgoing.of,
            });
        }
    }

    /// Says "offline", the last message of this life; ends at once where nobody listens.
    pub(super) fn say_offline(&mut self, effects: &mut Vec<Effect>) {
        self.life = Life::SayingOffline;
        match self.connection.link {
            Link::Open(connection, Purpose::Serve(boot, number)) => {
                self.say(connection, boot, number, PresenceState::Offline, effects);
            }
            Link::Down | Link::Connecting(..) | Link::Open(_, Purpose::ReadStatus) => self.end(effects),
        }
    }

    /// Ends this life, in good order where there is a connection.
    pub(super) fn end(&mut self, effects: &mut Vec<Effect>) {
        if self.life == Life::Draining && self.connection.serves() {
            self.say_offline(effects);
        }
        match self.connection.link {
            Link::Open(connection, _) | Link::Connecting(connection, _) => {
                effects.push(Effect::Disconnect(connection));
            }
            Link::Down => {}
        }
        self.connection.link = Link::Down;
        self.life = Life::Stopped;
        self.timers.clear();
        effects.push(Effect::Stopped);
    }

    fn boot_is_read(&mut self, now: Now, retained: Option<Epoch>, effects: &mut Vec<Effect>) {
        if !matches!(self.connection.boot, Boot::Unchosen(_)) {
            return;
        }
        self.timers.cancel(Timer::StatusWait);
        match self.connection.link {
            Link::Open(connection, _) | Link::Connecting(connection, _) => {
                effects.push(Effect::Disconnect(connection));
            }
            Link::Down => {}
        }
        self.connection.link = Link::Down;
        self.connection.failures = 0;
        self.choose_boot(now, retained);
    }

    fn choose_boot(&mut self, now: Now, retained: Option<Epoch>) {
        if let Boot::Unchosen(saved) = self.connection.boot {
            self.connection.boot = Boot::Chosen;
            self.saves.boot(Epoch::after(retained.max(saved), now.wall));
        }
    }

    fn subscribe(&mut self, connection: ConnectionId, filter: String, effects: &mut Vec<Effect>) {
        let packet = self.next_packet();
        self.connection.subscription = Some(packet);
        effects.push(Effect::Subscribe { connection, packet, filters: vec![filter] });
    }

    fn say(
        &mut self,
        connection: ConnectionId,
        boot: Epoch,
        number: Seq,
        state: PresenceState,
        effects: &mut Vec<Effect>,
    ) {
        let packet = self.next_packet();
        self.connection.status = Some(packet);
        let message = self.status(boot, number, state);
        effects.push(Effect::Publish { connection, packet: Some(packet), dup: false, message, of: Published::Status });
    }

    fn status(&self, boot: Epoch, connection: Seq, state: PresenceState) -> Publication {
        Publication {
            topic: Arc::from(Topic::Status(self.config.rae.clone()).to_string()),
            payload: Presence { boot, connection, state }.encode().into(),
            qos: Qos::AtLeastOnce,
            retain: true,
        }
    }

    fn next_packet(&mut self) -> PacketId {
        let mut last = self.connection.last_packet;
        let packet = free_packet(&mut last, |packet| self.connection.uses(packet) || self.outbox.uses(packet));
        self.connection.last_packet = last;
        packet
    }
}

/// The next packet id that is not in use. There is one: the window is far below 65,535.
fn free_packet(last: &mut u16, is_used: impl Fn(PacketId) -> bool) -> PacketId {
    loop {
        *last = last.checked_add(1).unwrap_or(1);
        if !is_used(PacketId(*last)) {
            return PacketId(*last);
        }
    }
}
