//! One agent, driven by hand: its disk and its broker are the few lines of [`Rig`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use super::*;
use crate::{
    core::Core,
    event::{
        self, Body, CONNECTION, Command, CommandKind, CommandName, MAX_PAYLOAD_BYTES, Presence, PresenceState, Reply,
        ReplyOutcome, StateEvent, Topic,
    },
    id::{Device, Epoch, Seq, Session, Version},
    time::{Mono, Now, Wall},
};

mod commands;
mod connection;
mod lifecycle;
mod outbox;
mod random;
mod reonboard;

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

fn set<const N: usize>(list: [(&str, i64); N]) -> CommandKind {
    CommandKind::Set { set: attributes(list), unset: BTreeSet::new() }
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
    sets: Vec<(EffectId, Arc<str>, BTreeMap<AttributeName, Value>)>,
    /// Messages that came from the broker.
    arrived: u16,
    acknowledged: Vec<PacketId>,
    /// Everything else that came out.
    effects: Vec<Effect>,
}

impl Rig {
    fn new(config: Config, disk: Saved, seed: u64) -> Rig {
        let now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };
        let agent = Agent::new(config, disk.clone(), seed);
        let (saves, probes, effects) = (Vec::new(), Vec::new(), Vec::new());
        let (disk_works, connection, will, arrived) = (true, None, None, 0);
        let (sets, acknowledged) = (Vec::new(), Vec::new());
        Rig { agent, now, disk, disk_works, connection, will, saves, probes, sets, arrived, acknowledged, effects }
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
                    for change in changes.iter() {
                        self.disk.apply(change.clone());
                    }
                    self.saves.push(*id);
                }
                Effect::Probe(id, hardware) => self.probes.push((*id, hardware.clone())),
                Effect::Set { id, hardware, set, .. } => self.sets.push((*id, hardware.clone(), set.clone())),
                Effect::Acknowledge(_, packet) => self.acknowledged.push(*packet),
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
            Effect::Publish { of: Published::Reply(_), .. } => None,
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

    /// Online, with one device and its opening snapshot acknowledged; its session.
    fn with_device(hardware: &str) -> (Rig, Session) {
        let mut rig = Rig::online(config());
        let device = rig.plug(hardware, attributes([("a", 1)]));
        rig.acknowledge_all();
        rig.effects.clear();
        let session = rig.disk.devices[&device].session;
        (rig, session)
    }

    /// A command to this session as it comes from the broker, with the next packet id.
    fn message(&self, session: Session, id: Uuid, kind: CommandKind) -> Message {
        let payload = Command { id, expires_at: Wall(0), kind }.encode().into();
        let topic = Topic::Command(config().rae, session).to_string().into();
        Message { topic, payload, packet: None, dup: false, retain: false }
    }

    fn send(&mut self, message: Message) {
        self.arrived += 1;
        let message = Message { packet: Some(PacketId(self.arrived)), ..message };
        self.event(Event::Message(self.connection.unwrap(), message));
    }

    /// Sends a command with a new id.
    fn command(&mut self, session: Session, kind: CommandKind) -> Uuid {
        let id = Uuid::from_u128(1 << 64 | u128::from(self.arrived));
        self.send(self.message(session, id, kind));
        id
    }

    fn send_bytes(&mut self, session: Session, payload: &[u8]) {
        let message = self.message(session, Uuid::nil(), CommandKind::Probe);
        self.send(Message { payload: Bytes::copy_from_slice(payload), ..message });
    }

    /// From now on saves are answered, the one under way too.
    fn save_works(&mut self) {
        self.disk_works = true;
        for id in std::mem::take(&mut self.saves) {
            self.event(Event::Saved(id, SaveOutcome::Durable));
        }
    }

    fn cut_and_back(&mut self) {
        self.cut();
        self.pass(Duration::from_secs(2));
        self.accept();
    }

    /// The replies that were published, each time that they were.
    fn replies(&self) -> Vec<(Uuid, ReplyOutcome)> {
        let publishes = self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish { message, of: Published::Reply(_), .. } => Some(message),
            _ => None,
        });
        let decoded = publishes.map(|message| {
            assert!(matches!(message.topic.parse(), Ok(Topic::Reply(..))) && !message.retain);
            let Reply { id, outcome } = Reply::decode(&message.payload).unwrap();
            (id, outcome)
        });
        decoded.collect()
    }

    fn refusals(&self) -> Vec<&'static str> {
        let reason = |fact| if let Fact::RefusedCommand { reason, .. } = fact { Some(reason) } else { None };
        self.facts().into_iter().filter_map(reason).collect()
    }

    /// What was published, presence apart.
    fn published_as(&self) -> Vec<Published> {
        let of = |effect: &Effect| if let Effect::Publish { of, .. } = effect { Some(*of) } else { None };
        self.effects.iter().filter_map(of).filter(|of| *of != Published::Status).collect()
    }

    fn causes(&self) -> Vec<SnapshotCause> {
        let cause = |of| if let Published::Snapshot(_, _, cause) = of { Some(cause) } else { None };
        self.published_as().into_iter().filter_map(cause).collect()
    }
}

fn presence(message: &Publication) -> Presence {
    match event::decode(&message.topic, &message.payload).unwrap() {
        event::Event::Status(_, presence) => presence,
        event::Event::State(event) => panic!("{event:?} is not a status"),
    }
}
