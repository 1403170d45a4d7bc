//! One agent, driven by hand: its disk and its broker are the few lines of [`Rig`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::{
    core::Core,
    event::{self, Body, CONNECTION, MAX_PAYLOAD_BYTES, Presence, PresenceState, StateEvent, Topic},
    id::{Device, Epoch, Seq, Version},
    time::{Mono, Now, Wall},
};

mod connection;
mod lifecycle;
mod outbox;

fn config() -> Config {
    Config {
        rae: Rae::try_from("RAE-0000042").unwrap(),
        qos: Qos::AtLeastOnce,
        snapshot_every: Duration::from_secs(60),
        snapshot_jitter_permille: 100,
        probe_every: Duration::from_secs(30),
        forget_after: Duration::from_secs(7 * 24 * 3600),
        window: 20,
        outbox: 100,
        status_wait: Duration::from_secs(2),
        backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) },
    }
}

fn name(text: &str) -> AttributeName {
    AttributeName::try_from(text).unwrap()
}

fn attributes<const N: usize>(list: [(&str, i64); N]) -> BTreeMap<AttributeName, Value> {
    list.into_iter().map(|(key, value)| (name(key), Value::Integer(value))).collect()
}

/// An agent between a disk that keeps everything at once and a broker that acknowledges when told to.
struct Rig {
    agent: Agent,
    now: Now,
    disk: Saved,
    /// Answers saves at once when set.
    disk_works: bool,
    connection: Option<ConnectionId>,
    will: Option<Publication>,
    saves: Vec<EffectId>,
    probes: Vec<(EffectId, Arc<str>)>,
    /// Everything else that came out.
    effects: Vec<Effect>,
}

impl Rig {
    fn new(config: Config, disk: Saved, seed: u64) -> Rig {
        let now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };
        let agent = Agent::new(config, disk.clone(), seed);
        let (saves, probes, effects) = (Vec::new(), Vec::new(), Vec::new());
        Rig { agent, now, disk, disk_works: true, connection: None, will: None, saves, probes, effects }
    }

    /// Started, with a boot on disk and "online" acknowledged.
    fn online(config: Config) -> Rig {
        let mut rig = Rig::new(config, Saved { boot: Some(Epoch::FIRST), ..Saved::default() }, 1);
        rig.event(Event::Start);
        rig.accept();
        rig.acknowledge_all();
        rig.effects.clear();
        rig
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.agent.handle(self.now, event, &mut out);
        self.take(out);
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.agent.deadline().filter(|&at| at <= end) {
            self.advance(at.max(self.now.mono));
            let mut out = Vec::new();
            self.agent.wake(self.now, &mut out);
            self.take(out);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Mono) {
        self.now.wall.0 += i64::try_from(to.since(self.now.mono).as_millis()).unwrap();
        self.now.mono = to;
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &effect {
                Effect::Connect { connection, will } => {
                    (self.connection, self.will) = (Some(*connection), will.clone());
                }
                Effect::Save(id, changes) => {
                    for change in changes.iter().filter(|_| self.disk_works) {
                        self.disk.apply(change.clone());
                    }
                    self.saves.push(*id);
                }
                Effect::Probe(id, hardware) => self.probes.push((*id, hardware.clone())),
                _ => {}
            }
            self.effects.push(effect);
        }
        if self.disk_works {
            for id in std::mem::take(&mut self.saves) {
                self.event(Event::Saved(id, SaveOutcome::Durable));
            }
        }
    }

    fn accept(&mut self) {
        self.event(Event::Connected(self.connection.unwrap()));
    }

    fn cut(&mut self) {
        let connection = self.connection.take().unwrap();
        self.event(Event::Disconnected(connection));
    }

    /// Answers every probe under way.
    fn answer_probes(&mut self, probe: &Probe) {
        for (id, _) in std::mem::take(&mut self.probes) {
            self.event(Event::Probed(id, probe.clone()));
        }
    }

    fn plug(&mut self, hardware: &str, record: BTreeMap<AttributeName, Value>) -> Device {
        self.event(Event::Detected { hardware: hardware.into() });
        self.answer_probes(&Probe::Found(record));
        Device::of_hardware(hardware)
    }

    fn report<const N: usize>(&mut self, hardware: &str, set: [(&str, i64); N]) {
        let hardware = hardware.into();
        self.event(Event::Reported { hardware, set: attributes(set), unset: BTreeSet::new() });
    }

    /// Acknowledges what was published and not acknowledged, until nothing new comes.
    fn acknowledge_all(&mut self) {
        let mut done = BTreeSet::new();
        loop {
            let current = self.connection.unwrap();
            let next = self.effects.iter().find_map(|effect| match effect {
                Effect::Publish { connection, packet: Some(packet), .. }
                    if *connection == current && !done.contains(packet) =>
                {
                    Some(*packet)
                }
                _ => None,
            });
            let Some(packet) = next else { return };
            done.insert(packet);
            self.event(Event::Acknowledged(current, packet));
        }
    }

    /// The published state events since the last clear, with DUP.
    fn published(&self) -> Vec<(StateEvent, bool)> {
        let publishes = self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish { message, dup, .. } => Some((message, *dup)),
            _ => None,
        });
        publishes
            .filter_map(|(message, dup)| match event::decode(&message.topic, &message.payload).unwrap() {
                event::Event::State(event) => Some((event, dup)),
                event::Event::Status(..) => None,
            })
            .collect()
    }

    fn seqs(&self) -> Vec<u64> {
        self.published().iter().map(|(event, _)| event.version.seq.get()).collect()
    }

    fn presences(&self) -> Vec<Presence> {
        let decoded = self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish { message, of: Published::Status, .. } => Some(presence(message)),
            _ => None,
        });
        decoded.collect()
    }

    fn facts(&self) -> Vec<Fact> {
        self.effects
            .iter()
            .filter_map(|effect| if let Effect::Fact(fact) = effect { Some(*fact) } else { None })
            .collect()
    }
}

fn presence(message: &Publication) -> Presence {
    match event::decode(&message.topic, &message.payload).unwrap() {
        event::Event::Status(_, presence) => presence,
        event::Event::State(event) => panic!("{event:?} is not a status"),
    }
}
