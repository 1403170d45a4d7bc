//! Each planted bug of the cores does what its name says, and is counted. One test: a planted bug is the process's.

#![cfg(feature = "sabotage")]

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    agent::{self, Agent, Backoff, Message, Published},
    bridge::{self, Bridge},
    core::{ConnectionId, Core, PacketId, Qos},
    event::{Command, CommandKind, Reply, ReplyOutcome, Topic},
    id::{Device, Epoch, Rae},
    registry::{self, Generation, Record, Registry},
    sabotage::{Bug, hits, plant},
    time::{Mono, Now, Wall},
};
use uuid::Uuid;

const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

#[test]
fn a_planted_bug_acts_and_its_hits_are_counted() {
    plant(Bug::BridgeAcksEarly);
    assert_eq!(hits(), 0);
    let effects = bridge_effects();
    assert!(effects.contains(&bridge::Effect::Acknowledge(ConnectionId(1), PacketId(9))), "{effects:?}");
    assert_eq!(hits(), 1);

    plant(Bug::RegistryCommitsEarly);
    let effects = registry_effects();
    let commits =
        |effect: &registry::Effect| matches!(effect, registry::Effect::Commit(_, _, offsets) if *offsets == [(0, 1)]);
    assert!(effects.iter().any(commits), "{effects:?}");
    assert!(hits() > 0);

    plant(Bug::LeaseByClock);
    let effects = registry_effects();
    let is_now = |effect: &registry::Effect| match effect {
        registry::Effect::Write(_, _, rows) => rows.feed.is_some_and(|feed| feed.received == NOW.wall),
        _ => false,
    };
    assert!(effects.iter().any(is_now), "{effects:?}");
    assert_eq!(hits(), 1);

    plant(Bug::NoReonboard);
    let effects = agent_effects();
    assert!(!effects.iter().any(|effect| matches!(effect, agent::Effect::Probe(..))), "{effects:?}");
    assert!(replies_ok(&effects) && snapshots(&effects) == 0, "{effects:?}");
    assert_eq!(hits(), 1);

    plant(Bug::ReonboardUnprobed);
    let effects = agent_effects();
    assert!(!effects.iter().any(|effect| matches!(effect, agent::Effect::Probe(..))), "{effects:?}");
    assert!(replies_ok(&effects) && snapshots(&effects) == 1, "{effects:?}");
    assert_eq!(hits(), 1);
}

fn replies_ok(effects: &[agent::Effect]) -> bool {
    let ok = |effect: &agent::Effect| match effect {
        agent::Effect::Publish { of: Published::Reply(_), message, .. } => {
            Reply::decode(&message.payload).is_ok_and(|reply| reply.outcome == ReplyOutcome::Ok)
        }
        _ => false,
    };
    effects.iter().any(ok)
}

fn snapshots(effects: &[agent::Effect]) -> usize {
    let is = |effect: &&agent::Effect| matches!(effect, agent::Effect::Publish { of: Published::Snapshot(..), .. });
    effects.iter().filter(is).count()
}

/// What an agent with one device does on `reonboard`.
fn agent_effects() -> Vec<agent::Effect> {
    let rae: Rae = "RAE-1".try_into().unwrap();
    let config = agent::Config {
        rae: rae.clone(),
        qos: Qos::AtLeastOnce,
        snapshot_every: Duration::from_secs(60),
        snapshot_jitter_permille: 0,
        probe_every: Duration::from_secs(60),
        forget_after: Duration::from_secs(3600),
        window: 20,
        outbox: 20,
        status_wait: Duration::from_secs(1),
        backoff: BACKOFF,
    };
    let saved = agent::Saved { boot: Some(Epoch::FIRST), ..agent::Saved::default() };
    let mut agent = Drive { agent: Agent::new(config, saved, 7), connection: None, disk: agent::Saved::default() };
    agent.step(agent::Event::Start);
    agent.step(agent::Event::Connected(agent.connection.unwrap()));
    agent.step(agent::Event::Detected { hardware: "SN-1".into() });
    let device = Device::of_hardware("SN-1");
    let session = agent.disk.devices[&device].session;
    let kind = CommandKind::Reonboard { device, epoch: Epoch::try_from(1 << 50).unwrap() };
    let message = Message {
        topic: Topic::Command(rae, session).to_string().into(),
        payload: Command { id: Uuid::nil(), expires_at: Wall(0), kind }.encode().into(),
        packet: Some(PacketId(9)),
        dup: false,
        retain: false,
    };
    agent.step(agent::Event::Message(agent.connection.unwrap(), message))
}

/// An agent whose saves and probes are answered at once.
struct Drive {
    agent: Agent,
    connection: Option<ConnectionId>,
    disk: agent::Saved,
}

impl Drive {
    fn step(&mut self, event: agent::Event) -> Vec<agent::Effect> {
        let (mut events, mut all) = (vec![event], Vec::new());
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.agent.handle(NOW, event, &mut effects);
            for effect in &effects {
                match effect {
                    agent::Effect::Connect { connection, .. } => self.connection = Some(*connection),
                    agent::Effect::Save(id, changes) => {
                        changes.iter().for_each(|change| self.disk.apply(change.clone()));
                        events.push(agent::Event::Saved(*id, agent::SaveOutcome::Durable));
                    }
                    agent::Effect::Probe(id, _) => {
                        events.push(agent::Event::Probed(*id, agent::Probe::Found(BTreeMap::new())));
                    }
                    _ => {}
                }
            }
            all.extend(effects);
        }
        all
    }
}

/// A bridge that gets one message and hears nothing of Kafka.
fn bridge_effects() -> Vec<bridge::Effect> {
    let config = bridge::Config { id: "b-1".into(), filters: vec![], window: 10, backoff: BACKOFF };
    let mut bridge = Bridge::new(config, 7);
    let message = Message {
        topic: "any/topic".into(),
        payload: b"{}"[..].into(),
        packet: Some(PacketId(9)),
        dup: false,
        retain: false,
    };
    let connection = ConnectionId(1);
    let events = [
        bridge::Event::Start,
        bridge::Event::Connected { connection, session_present: false },
        bridge::Event::Message(connection, message),
    ];
    let mut effects = Vec::new();
    events.into_iter().for_each(|event| bridge.handle(NOW, event, &mut effects));
    effects
}

/// A registry that reads one record and hears nothing of its store.
fn registry_effects() -> Vec<registry::Effect> {
    let config = registry::Config {
        batch_rows: 10,
        batch_wait: Duration::from_millis(10),
        commit_records: 1,
        commit_every: Duration::from_secs(1),
        partition_credit: 10,
        backoff: BACKOFF,
        tracked_sessions: 10,
        drain_within: Duration::from_secs(1),
        feedback: None,
    };
    let mut registry = Registry::new(config, 7);
    let record = Record { partition: 0, offset: 0, timestamp: Wall(-5), key: None, value: None, retained: false };
    let events =
        [registry::Event::Assigned(Generation(1), vec![(0, 0)]), registry::Event::Record(Generation(1), record)];
    let mut effects = Vec::new();
    events.into_iter().for_each(|event| registry.handle(NOW, event, &mut effects));
    let stored = effects.iter().find_map(|effect| match effect {
        registry::Effect::Quarantine(id, _) => Some(*id),
        _ => None,
    });
    let stored = registry::Event::Quarantined(
        stored.expect("it is poison"),
        bridge::ProduceOutcome::Stored { partition: 0, offset: 0 },
    );
    registry.handle(NOW, stored, &mut effects);
    registry.wake(Now { mono: Mono(10_000_000), ..NOW }, &mut effects);
    effects
}
