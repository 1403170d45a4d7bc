//! The bridge: each MQTT message becomes one Kafka record, key = topic; acknowledged in arrival order, and only after
//! Kafka has stored it.
//!
//! One core is one shard group's connection. Its window is bounded: when it is full, reading stops and MQTT's own flow
//! control holds the rest at the broker. What Kafka refuses for good goes to the dead-letter topic and is then
//! acknowledged like any other. Payloads are not decoded here.
//!
//! A connection may end while records are in flight. They are brought to their end all the same, but acknowledge
//! nothing on the next connection: the broker redelivers, and the second copy in the log is a legal duplicate.
//!
//! The way down is [`downlink`], a core and a connection of its own.

pub mod downlink;
mod interface;
mod window;

pub use interface::{Config, Effect, Event, Fact, Gauges, OutgoingRecord, ProduceOutcome};

use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::{
    agent::Message,
    core::{ConnectionId, Core, PacketId},
    sabotage::{Bug, planted},
    time::{Mono, Now},
};
use window::Window;

/// The only packet that the bridge sends with an id is its subscription, once per connection.
const SUBSCRIPTION: PacketId = PacketId(1);

/// The bridge of one shard group.
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    phase: Phase,
    link: Link,
    window: Window,
    last_connection: u64,
    failed_connects: u32,
    told_full: bool,
    rng: Pcg64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Stopping { until: Mono },
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Waiting { until: Mono },
    Connecting(ConnectionId),
    Up { connection: ConnectionId, paused: bool },
}

impl Bridge {
    /// A bridge that has not started; `seed` drives its back-off.
    ///
    /// # Panics
    /// If the window is empty.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Bridge {
        assert!(config.window > 0, "a bridge needs a window of at least one message");
        let mut rng = Pcg64::seed_from_u64(seed);
        let window = Window::new(config.id.clone(), config.backoff, Pcg64::from_rng(&mut rng));
        Bridge {
            config,
            phase: Phase::New,
            link: Link::Down,
            window,
            last_connection: 0,
            failed_connects: 0,
            told_full: false,
            rng,
        }
    }

    /// The bridge's queues and their bounds.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            window: self.window.len(),
            window_cap: self.config.window,
            in_flight: self.window.in_flight(),
            retrying: self.window.retrying(),
            paused: matches!(self.link, Link::Up { paused: true, .. }),
            connected: matches!(self.link, Link::Up { .. }),
        }
    }

    fn connect(&mut self, effects: &mut Vec<Effect>) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.link = Link::Connecting(connection);
        effects.push(Effect::Connect(connection));
    }

    fn connected(&mut self, connection: ConnectionId, effects: &mut Vec<Effect>) {
        if self.link != Link::Connecting(connection) {
            return;
        }
        self.link = Link::Up { connection, paused: false };
        // Also where the broker kept the session: the filters of a deployment may have changed since.
        let filters = self.config.filters.clone();
        effects.push(Effect::Subscribe { connection, packet: SUBSCRIPTION, filters });
    }

    fn disconnected(&mut self, now: Now, connection: ConnectionId) {
        if self.connection() != Some(connection) {
            return;
        }
        self.link = if self.phase == Phase::Running {
            let wait = self.config.backoff.wait(self.failed_connects, &mut self.rng);
            self.failed_connects = self.failed_connects.saturating_add(1);
            Link::Waiting { until: now.mono + wait }
        } else {
            Link::Down
        };
    }

    fn message(&mut self, now: Now, connection: ConnectionId, mut message: Message, effects: &mut Vec<Effect>) {
        // While stopping, what is not acknowledged stays with the broker for the next owner of the session.
        if self.phase != Phase::Running || self.up() != Some(connection) {
            return;
        }
        if message.packet.is_some() && planted(Bug::BridgeAcksEarly) {
            effects.extend(message.packet.take().map(|packet| Effect::Acknowledge(connection, packet)));
        }
        self.window.take(now, connection, message, effects);
    }

    fn stop(&mut self, until: Mono, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::New | Phase::Running => self.phase = Phase::Stopping { until },
            Phase::Stopping { until: bound } => self.phase = Phase::Stopping { until: until.min(bound) },
            Phase::Stopped => return,
        }
        match &mut self.link {
            Link::Up { connection, paused: paused @ false } => {
                *paused = true;
                effects.push(Effect::PauseReading(*connection));
            }
            Link::Waiting { .. } => self.link = Link::Down,
            Link::Up { .. } | Link::Connecting(_) | Link::Down => {}
        }
    }

    /// What every event may bring about: acknowledgements in turn, the window's limits, the end of a drain.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.window.acknowledge(self.up(), effects);
        self.regulate(effects);
        if let Phase::Stopping { until } = self.phase
            && (self.window.len() == 0 || now.mono >= until)
        {
            effects.extend(self.connection().map(Effect::Disconnect));
            effects.push(Effect::Stopped);
            self.link = Link::Down;
            self.phase = Phase::Stopped;
        }
    }

    fn regulate(&mut self, effects: &mut Vec<Effect>) {
        let held = self.window.len();
        if let Link::Up { connection, paused } = &mut self.link {
            if !*paused && held >= self.config.window {
                *paused = true;
                effects.push(Effect::PauseReading(*connection));
            } else if *paused && held <= self.config.window / 2 && self.phase == Phase::Running {
                *paused = false;
                effects.push(Effect::ResumeReading(*connection));
            }
        }
        let tell = if self.told_full { held == 0 } else { held >= self.config.window };
        if tell {
            self.told_full = !self.told_full;
            effects.push(Effect::Fact(Fact::Window(held)));
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Connecting(connection) | Link::Up { connection, .. } => Some(connection),
            Link::Down | Link::Waiting { .. } => None,
        }
    }

    fn up(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Up { connection, .. } => Some(connection),
            Link::Down | Link::Waiting { .. } | Link::Connecting(_) => None,
        }
    }
}

impl Core for Bridge {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            Event::Start if self.phase == Phase::New => {
                self.phase = Phase::Running;
                self.connect(effects);
            }
            Event::Start => {}
            Event::Connected { connection, session_present: _ } => self.connected(connection, effects),
            Event::Disconnected(connection) => self.disconnected(now, connection),
            // Only now: a broker that accepts and then throws out must not be met without back-off.
            Event::Subscribed(connection, _) if self.up() == Some(connection) => self.failed_connects = 0,
            Event::Subscribed(..) => {}
            Event::Message(connection, message) => self.message(now, connection, message, effects),
            Event::Produced(id, outcome) => self.window.produced(now, id, outcome, effects),
            Event::Stop { within } => self.stop(now.mono + within, effects),
        }
        self.settle(now, effects);
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        if let Link::Waiting { until } = self.link
            && now.mono >= until
        {
            self.connect(effects);
        }
        self.window.retry(now, effects);
        self.settle(now, effects);
    }

    fn deadline(&self) -> Option<Mono> {
        let stop = match self.phase {
            Phase::Stopping { until } => Some(until),
            Phase::Stopped => return None,
            Phase::New | Phase::Running => None,
        };
        let connect = match self.link {
            Link::Waiting { until } => Some(until),
            Link::Down | Link::Connecting(_) | Link::Up { .. } => None,
        };
        [stop, connect, self.window.deadline()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
