//! The registry on its own: every claim of its header as a test, then random histories.

mod assignment;
mod feedback;
mod random;
mod records;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    agent::Backoff,
    bridge::{OutgoingRecord, ProduceOutcome},
    event::{Body, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::Rows,
    time::Wall,
};

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);
const BATCH_WAIT: Duration = Duration::from_millis(10);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
const STORED: ProduceOutcome = ProduceOutcome::Stored { partition: 0, offset: 0 };

fn config() -> Config {
    Config {
        batch_rows: 4,
        batch_wait: BATCH_WAIT,
        commit_records: 1_000,
        commit_every: COMMIT_EVERY,
        partition_credit: 20,
        backoff: Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) },
        tracked_sessions: 100,
        drain_within: DRAIN_WITHIN,
        feedback: None,
    }
}

type Commit = (EffectId, Generation, Vec<(Partition, Offset)>);

/// The delta `seq` of device and session number `device`: one row.
fn event(device: u128, seq: u64) -> StateEvent {
    let version = Version {
        epoch: Epoch::FIRST,
        session: Session(uuid::Uuid::from_u128(device)),
        seq: Seq::try_from(seq).expect("a seq"),
    };
    let set = BTreeMap::from([("rev".try_into().expect("a name"), Value::Integer(i64::try_from(seq).expect("small")))]);
    StateEvent {
        rae: Rae::try_from("RAE-1").expect("a serial"),
        device: Device(uuid::Uuid::from_u128(device)),
        version,
        at: Wall(0),
        body: Body::Delta { set, unset: [].into() },
    }
}

fn record(partition: Partition, offset: Offset, event: &StateEvent) -> Record {
    Record {
        partition,
        offset,
        timestamp: Wall(1_000 + offset),
        key: Some(event.topic().to_string().into()),
        value: Some(event.encode().into()),
        retained: false,
    }
}

/// A record of its own device, whose seq is offset + 1.
fn good(partition: Partition, offset: Offset) -> Record {
    record(partition, offset, &event(7, u64::try_from(offset).expect("an offset") + 1))
}

/// One row for each record: every offset is a device of its own.
fn wide(partition: Partition, offset: Offset) -> Record {
    record(partition, offset, &event(u128::try_from(offset).expect("an offset") + 1, 1))
}

fn poison(partition: Partition, offset: Offset) -> Record {
    Record { value: Some(Bytes::from_static(b"\xffnot JSON")), ..good(partition, offset) }
}

/// A registry under hand control.
struct Bench {
    registry: Registry,
    now: Now,
}

impl Bench {
    fn new(config: Config) -> Bench {
        Bench { registry: Registry::new(config, 7), now: Now { mono: Mono(0), wall: Wall(10_000) } }
    }

    /// With partitions 0 and 1 of generation 1, from offset 0.
    fn assigned(config: Config) -> Bench {
        let mut bench = Bench::new(config);
        bench.tell(Event::Assigned(G1, vec![(0, 0), (1, 0)]));
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.registry.handle(self.now, event, &mut effects);
        effects
    }

    fn reads(&mut self, record: Record) -> Vec<Effect> {
        self.tell(Event::Record(G1, record))
    }

    fn wait(&mut self) -> Vec<Effect> {
        self.now.mono = self.registry.deadline().expect("something waits");
        let mut effects = Vec::new();
        self.registry.wake(self.now, &mut effects);
        effects
    }

    fn writes(&mut self, write: &(EffectId, Partition, Arc<Rows>), outcome: WriteOutcome) -> Vec<Effect> {
        self.tell(Event::Written(write.0, outcome))
    }

    fn quarantines(&mut self, letter: &(EffectId, OutgoingRecord), outcome: ProduceOutcome) -> Vec<Effect> {
        self.tell(Event::Quarantined(letter.0, outcome))
    }

    /// Waits until a commit is due, and returns it.
    fn commit_due(&mut self) -> Commit {
        let mut effects = Vec::new();
        while commits(&effects).is_empty() {
            effects = self.wait();
        }
        commits(&effects).remove(0)
    }

    fn partition(&self, partition: Partition) -> PartitionGauges {
        let gauges = self.registry.gauges().partitions;
        *gauges.iter().find(|gauges| gauges.partition == partition).expect("an assigned partition")
    }
}

fn write_of(effects: &[Effect]) -> (EffectId, Partition, Arc<Rows>) {
    match writes_of(effects).as_slice() {
        [write] => write.clone(),
        other => panic!("expected one write, got {other:?}"),
    }
}

fn writes_of(effects: &[Effect]) -> Vec<(EffectId, Partition, Arc<Rows>)> {
    let write = |effect: &Effect| match effect {
        Effect::Write(id, partition, rows) => Some((*id, *partition, rows.clone())),
        _ => None,
    };
    effects.iter().filter_map(write).collect()
}

fn letter_of(effects: &[Effect]) -> (EffectId, OutgoingRecord) {
    let letter = |effect: &Effect| match effect {
        Effect::Quarantine(id, record) => Some((*id, record.clone())),
        _ => None,
    };
    effects.iter().find_map(letter).expect("a dead letter")
}

fn commits(effects: &[Effect]) -> Vec<Commit> {
    let commit = |effect: &Effect| match effect {
        Effect::Commit(id, generation, offsets) => Some((*id, *generation, offsets.clone())),
        _ => None,
    };
    effects.iter().filter_map(commit).collect()
}

/// Offset and class of every record that is told to be reflected.
fn reflected(effects: &[Effect]) -> Vec<(Offset, Class)> {
    let one = |effect: &Effect| match effect {
        Effect::Fact(Fact::Reflected { offset, class, .. }) => Some((*offset, *class)),
        _ => None,
    };
    effects.iter().filter_map(one).collect()
}

fn next_offset(rows: &Rows) -> Offset {
    rows.feed.expect("every write carries the feed").next_offset
}

fn aborted() -> WriteOutcome {
    WriteOutcome::Aborted { reason: "40001".to_owned() }
}

fn refused() -> WriteOutcome {
    WriteOutcome::Refused { reason: "22021".to_owned() }
}
