//! What the pipeline makes of messages, without any server: to show that what brokers differ in does not reach its rows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{
    agent::{Backoff, Message},
    bridge::{Bridge, Config, Effect, Event, OutgoingRecord, ProduceOutcome},
    core::{ConnectionId, Core, PacketId},
    event::{AttributeName, Body, StateEvent, Value, decode, kafka_topic},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::Rows,
    time::{Mono, Now, Wall},
};
use uuid::Uuid;

const NOW: Now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };

/// Events of one device of a RAE: a snapshot that opens the session, then deltas.
pub(super) fn events(rae: &str, count: u64) -> Vec<StateEvent> {
    let rae = Rae::try_from(rae).expect("a serial");
    let name = |text: &str| AttributeName::try_from(text).expect("a name");
    let event = |seq| {
        let value = Value::Integer(i64::try_from(seq).expect("small"));
        let body = match seq {
            1 => Body::Snapshot { attributes: BTreeMap::from([(name("a"), (value, number(1)))]) },
            _ => Body::Delta { set: [(name(&format!("a{}", seq % 3)), value)].into(), unset: [].into() },
        };
        let version = Version {
            epoch: Epoch::try_from(5).expect("an epoch"),
            session: Session(Uuid::from_u128(1)),
            seq: number(seq),
        };
        StateEvent { rae: rae.clone(), device: Device::of_hardware("1"), version, at: Wall(0), body }
    };
    (1..=count).map(event).collect()
}

fn number(seq: u64) -> Seq {
    Seq::try_from(seq).expect("a seq")
}

/// What the bridge sends to Kafka for these messages, and which it acknowledges.
pub(super) fn bridged(messages: &[Message]) -> (Vec<OutgoingRecord>, Vec<PacketId>) {
    let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_secs(1) };
    let config = Config { id: Arc::from("bridge-0"), filters: vec!["dmp/#".to_owned()], window: 1_000, backoff };
    let (mut bridge, connection) = (Bridge::new(config, 1), ConnectionId(1));
    let mut effects = Vec::new();
    bridge.handle(NOW, Event::Start, &mut effects);
    bridge.handle(NOW, Event::Connected { connection, session_present: true }, &mut effects);
    bridge.handle(NOW, Event::Subscribed(connection, PacketId(1)), &mut effects);
    for message in messages {
        bridge.handle(NOW, Event::Message(connection, message.clone()), &mut effects);
    }
    let (mut records, mut acknowledged) = (Vec::new(), Vec::new());
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Produce(id, record) => {
                    let outcome = ProduceOutcome::Stored { partition: 0, offset: records.len() as i64 };
                    records.push(record);
                    bridge.handle(NOW, Event::Produced(id, outcome), &mut effects);
                }
                Effect::Acknowledge(_, packet) => acknowledged.push(packet),
                Effect::Connect(_)
                | Effect::Disconnect(_)
                | Effect::Subscribe { .. }
                | Effect::PauseReading(_)
                | Effect::ResumeReading(_)
                | Effect::Stopped
                | Effect::Fact(_) => {}
            }
        }
    }
    (records, acknowledged)
}

/// The rows of these messages when they have come through bridge and registry.
pub(super) fn rows(messages: &[Message]) -> Rows {
    let mut rows = Rows::default();
    for record in bridged(messages).0 {
        assert_eq!(record.topic, kafka_topic::EVENTS, "no dead letter");
        let key = std::str::from_utf8(&record.key).expect("a topic is text");
        rows.apply(&decode(key, &record.value).expect("an event"), record.timestamp);
    }
    rows
}
