//! Each planted bug of the cores does what its name says, and is counted. One test: a planted bug is the process's.

#![cfg(feature = "sabotage")]

use std::time::Duration;

use dmp_core::{
    agent::{Backoff, Message},
    bridge::{self, Bridge},
    core::{ConnectionId, Core, PacketId},
    registry::{self, Generation, Record, Registry},
    sabotage::{Bug, hits, plant},
    time::{Mono, Now, Wall},
};

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
    };
    let mut registry = Registry::new(config, 7);
    let record = Record { partition: 0, offset: 0, timestamp: Wall(0), key: None, value: None, retained: false };
    let events =
        [registry::Event::Assigned(Generation(1), vec![(0, 0)]), registry::Event::Record(Generation(1), record)];
    let mut effects = Vec::new();
    events.into_iter().for_each(|event| registry.handle(NOW, event, &mut effects));
    effects
}
