//! How much the cores carry, without I/O: merge, wire form, registry and bridge, on one thread.
//!
//! The events are those of the default fleet: records of about 0.93 kB, nine deltas for each snapshot. Registry and
//! bridge are driven by a loop that answers every effect at once, so the figures are the cores' own cost per record.

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use dmp_core::{
    agent::{Backoff, Message},
    bridge::{self, Bridge, ProduceOutcome},
    core::{ConnectionId, Core, PacketId},
    event::{AttributeName, Body, Event, StateEvent, Value, decode},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::Rows,
    registry::{self, CommitOutcome, Generation, Record, Registry, WriteOutcome},
    time::{Mono, Now, Wall},
};

const DEVICES: u64 = 1_000;
const EVENTS: u64 = 10_000;
/// Attributes of a record: with their values a snapshot of about 0.93 kB.
const ATTRIBUTES: u64 = 17;
const PARTITIONS: i32 = 12;
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .sample_size(20)
        .without_plots();
    targets = merge, wire, registry_core, bridge_core
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    if cfg!(not(feature = "containers")) {
        eprintln!(
            "NOT RUN: cargo bench --features containers adds bridge and registry on Mosquitto, Kafka and PostgreSQL; needs a \
             Docker engine"
        );
    }
}

fn merge(criterion: &mut Criterion) {
    let events = events();
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("events", |bencher| {
        bencher.iter_batched(
            Rows::default,
            |mut rows| {
                for event in &events {
                    black_box(rows.apply(event, Wall(0)));
                }
                rows
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn wire(criterion: &mut Criterion) {
    let (snapshot, delta) = (state(1, 1), state(1, 2));
    let mut group = criterion.benchmark_group("wire");
    for (name, event) in [("snapshot", &snapshot), ("delta", &delta)] {
        let (topic, payload) = (event.topic().to_string(), event.encode());
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("encode {name} of {} bytes", payload.len()), |bencher| {
            bencher.iter(|| black_box(event).encode());
        });
        group.bench_function(format!("decode {name} of {} bytes", payload.len()), |bencher| {
            bencher.iter(|| decode(black_box(&topic), black_box(&payload)));
        });
    }
    group.finish();
}

fn registry_core(criterion: &mut Criterion) {
    let records = records();
    let config = registry::Config {
        batch_rows: 200,
        batch_wait: Duration::from_millis(10),
        commit_records: 1_000,
        commit_every: Duration::from_secs(1),
        partition_credit: 1_000,
        backoff: BACKOFF,
        tracked_sessions: 10_000,
        drain_within: Duration::from_secs(5),
        feedback: None,
    };
    let mut group = criterion.benchmark_group("registry");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("records", |bencher| {
        bencher.iter_batched(
            || (Registry::new(config.clone(), 7), records.clone()),
            |(registry, records)| reflect_all(registry, records),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn bridge_core(criterion: &mut Criterion) {
    let messages = messages();
    let config = bridge::Config { id: "b-1".into(), filters: vec![], window: 1_000, backoff: BACKOFF };
    let mut group = criterion.benchmark_group("bridge");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("messages", |bencher| {
        bencher.iter_batched(
            || (Bridge::new(config.clone(), 7), messages.clone()),
            |(bridge, messages)| forward_all(bridge, messages),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// Reads all records, one every 100 us, with a store and a group that answer at once; returns how many were reflected.
fn reflect_all(mut registry: Registry, records: Vec<Record>) -> u64 {
    let mut now = Now { mono: Mono(0), wall: Wall(0) };
    let generation = Generation(1);
    let mut effects = Vec::new();
    let starts = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    registry.handle(now, registry::Event::Assigned(generation, starts), &mut effects);
    let mut reflected = 0;
    for record in records {
        now.mono = now.mono + Duration::from_micros(100);
        registry.handle(now, registry::Event::Record(generation, record), &mut effects);
        if registry.deadline().is_some_and(|deadline| deadline <= now.mono) {
            registry.wake(now, &mut effects);
        }
        reflected += answer(&mut registry, now, &mut effects);
    }
    registry.handle(now, registry::Event::Stop { within: Duration::from_secs(1) }, &mut effects);
    reflected += answer(&mut registry, now, &mut effects);
    assert_eq!(reflected, EVENTS, "every record is reflected");
    reflected
}

fn answer(registry: &mut Registry, now: Now, effects: &mut Vec<registry::Effect>) -> u64 {
    let mut reflected = 0;
    while !effects.is_empty() {
        for effect in std::mem::take(effects) {
            let answer = match effect {
                registry::Effect::Write(id, _, rows) => {
                    black_box(rows);
                    registry::Event::Written(id, WriteOutcome::Committed { beaten: vec![] })
                }
                registry::Effect::Commit(id, ..) => registry::Event::Committed(id, CommitOutcome::Committed),
                registry::Effect::Fact(fact) => {
                    reflected += u64::from(matches!(fact, registry::Fact::Reflected { .. }));
                    continue;
                }
                _ => continue,
            };
            registry.handle(now, answer, effects);
        }
    }
    reflected
}

/// Takes all messages, with Kafka a hundred records behind; returns how many were acknowledged.
fn forward_all(mut bridge: Bridge, messages: Vec<Message>) -> u64 {
    const BEHIND: usize = 100;
    let now = Now { mono: Mono(0), wall: Wall(0) };
    let connection = ConnectionId(1);
    let mut effects = Vec::new();
    bridge.handle(now, bridge::Event::Start, &mut effects);
    bridge.handle(now, bridge::Event::Connected { connection, session_present: true }, &mut effects);
    let mut in_flight = std::collections::VecDeque::new();
    let mut acknowledged = 0;
    let mut messages = messages.into_iter();
    loop {
        let message = messages.next();
        let over = message.is_none();
        if let Some(message) = message {
            bridge.handle(now, bridge::Event::Message(connection, message), &mut effects);
        }
        if in_flight.len() >= BEHIND || over {
            let Some(id) = in_flight.pop_front() else { break };
            let stored = ProduceOutcome::Stored { partition: 0, offset: 0 };
            bridge.handle(now, bridge::Event::Produced(id, stored), &mut effects);
        }
        for effect in effects.drain(..) {
            match effect {
                bridge::Effect::Produce(id, record) => {
                    black_box(record);
                    in_flight.push_back(id);
                }
                bridge::Effect::Acknowledge(..) => acknowledged += 1,
                _ => {}
            }
        }
    }
    assert_eq!(acknowledged, EVENTS, "every message is acknowledged");
    acknowledged
}

/// The events of all devices in turn: a snapshot, then nine deltas each.
fn events() -> Vec<Event> {
    let states = (1..=EVENTS / DEVICES).flat_map(|seq| (0..DEVICES).map(move |device| state(device, seq)));
    states.map(Event::State).collect()
}

fn records() -> Vec<Record> {
    let mut next = BTreeMap::new();
    let record = |message: Message| {
        let partition = i32::try_from(spread(&message.topic) % u64::from(PARTITIONS.unsigned_abs())).unwrap_or(0);
        let offset = next.entry(partition).or_insert(0_i64);
        *offset += 1;
        Record {
            partition,
            offset: *offset - 1,
            timestamp: Wall(0),
            key: Some(Bytes::copy_from_slice(message.topic.as_bytes())),
            value: Some(message.payload),
            retained: false,
        }
    };
    messages().into_iter().map(record).collect()
}

/// Spreads topics over partitions; which one is of no matter here.
fn spread(topic: &str) -> u64 {
    topic.bytes().fold(7, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn messages() -> Vec<Message> {
    let message = |(event, packet): (Event, usize)| {
        let Event::State(event) = event else { unreachable!("all are state") };
        let packet = u16::try_from(packet % 60_000 + 1).map(PacketId).ok();
        let topic = event.topic().to_string().into();
        Message { topic, payload: event.encode().into(), packet, dup: false, retain: false }
    };
    events().into_iter().zip(0..).map(message).collect()
}

/// Event `seq` of a device's first session: a snapshot at 1, deltas of two attributes after it.
fn state(device: u64, seq: u64) -> StateEvent {
    let name = |index: u64| AttributeName::try_from(format!("attribute_{index:02}").as_str()).expect("a name");
    let value = |index: u64| Value::Text(format!("value {index} of change {seq:06}").into());
    let number = Seq::try_from(seq).expect("a seq");
    let body = if seq == 1 {
        Body::Snapshot { attributes: (0..ATTRIBUTES).map(|index| (name(index), (value(index), number))).collect() }
    } else {
        let set = [seq % ATTRIBUTES, (seq + 5) % ATTRIBUTES].map(|index| (name(index), value(index)));
        Body::Delta { set: set.into(), unset: [].into() }
    };
    let session = Session(uuid::Uuid::from_u128(u128::from(device) << 64));
    StateEvent {
        rae: Rae::try_from(format!("RAE-{:07}", device / 12).as_str()).expect("a serial"),
        device: Device::of_hardware(&format!("hw-{device}")),
        version: Version { epoch: Epoch::FIRST, session, seq: number },
        at: Wall(1_700_000_000_000),
        body,
    }
}
