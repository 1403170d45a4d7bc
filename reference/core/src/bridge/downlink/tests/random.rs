//! Random histories: a log of commands, a group, a broker that loses connections, around downlinks that crash.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

const PARTITIONS: [Partition; 2] = [0, 1];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A command for one of some sessions, with a life in ms; or poison.
    Append(Partition, u128, Option<i64>),
    Read(Partition),
    Acknowledge(usize),
    Produce(usize, u8),
    Commit(u8),
    Cut,
    Wait,
    Pass(u64),
    Revoke,
    Lose,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || prop::sample::select(PARTITIONS.to_vec());
    let life = prop_oneof![1 => Just(None), 3 => (0..3_000_i64).prop_map(Some), 8 => Just(Some(LIFE * 1_000))];
    prop_oneof![
        12 => (partition(), 0..3_u128, life).prop_map(|(partition, session, life)| Step::Append(partition, session, life)),
        14 => partition().prop_map(Step::Read),
        8 => any::<usize>().prop_map(Step::Acknowledge),
        4 => (any::<usize>(), 0..6_u8).prop_map(|(pick, outcome)| Step::Produce(pick, outcome)),
        4 => (0..8_u8).prop_map(Step::Commit),
        2 => Just(Step::Cut),
        6 => Just(Step::Wait),
        3 => (0..1_500_u64).prop_map(Step::Pass),
        1 => Just(Step::Revoke),
        1 => Just(Step::Lose),
        1 => Just(Step::Crash),
    ]
}

type Commit = (EffectId, Generation, Vec<(Partition, Offset)>);

struct World {
    bench: Bench,
    log: BTreeMap<Partition, Vec<Record>>,
    position: BTreeMap<Partition, Offset>,
    committed: BTreeMap<Partition, Offset>,
    paused: BTreeSet<Partition>,
    generation: Generation,
    drain_until: Option<Mono>,
    connection: Option<ConnectionId>,
    /// What the broker has got on the connection and not acknowledged, oldest first.
    owed: Vec<(PacketId, Bytes)>,
    /// Every first publication that the broker got, per topic: (partition, offset) by the command's id.
    seen: BTreeMap<String, Vec<Bytes>>,
    produces: Vec<(EffectId, OutgoingRecord)>,
    commit: Option<Commit>,
    acknowledged: BTreeSet<Bytes>,
    expired: BTreeSet<Uuid>,
    lettered: BTreeSet<(Partition, Offset)>,
    told: BTreeSet<(Partition, Offset)>,
}

impl World {
    fn new() -> World {
        let empty = || PARTITIONS.map(|partition| (partition, 0)).into();
        let mut world = World {
            bench: Bench::new(config(3)),
            log: PARTITIONS.map(|partition| (partition, Vec::new())).into(),
            position: empty(),
            committed: empty(),
            paused: BTreeSet::new(),
            generation: Generation(0),
            drain_until: None,
            connection: None,
            owed: Vec::new(),
            seen: BTreeMap::new(),
            produces: Vec::new(),
            commit: None,
            acknowledged: BTreeSet::new(),
            expired: BTreeSet::new(),
            lettered: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        world.tell(Event::Start);
        world.assign();
        world
    }

    fn assign(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
        (self.drain_until, self.commit) = (None, None);
        (self.position, self.paused, self.told) = (self.committed.clone(), BTreeSet::new(), BTreeSet::new());
        let starts = self.position.iter().map(|(&partition, &offset)| (partition, offset)).collect();
        self.tell(Event::Assigned(self.generation, starts));
    }

    fn tell(&mut self, event: Event) {
        let effects = self.bench.tell(event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect(connection) => {
                    (self.connection, self.owed) = (Some(connection), Vec::new());
                    self.tell(Event::Connected(connection));
                }
                Effect::Disconnect(_) => (self.connection, self.owed) = (None, Vec::new()),
                Effect::Publish { connection, packet, message, .. } => {
                    assert_eq!(Some(connection), self.connection);
                    assert!(self.owed.iter().all(|(owed, _)| *owed != packet), "{packet:?} is taken");
                    let seen = self.seen.entry(message.topic.to_string()).or_default();
                    if !seen.contains(&message.payload) {
                        seen.push(message.payload.clone());
                    }
                    self.owed.push((packet, message.payload));
                }
                Effect::Produce(id, record) => self.produces.push((id, record)),
                Effect::Commit(id, generation, offsets) => {
                    assert!(self.commit.is_none(), "two commits under way");
                    offsets.iter().for_each(|&(partition, offset)| self.assert_ended(partition, offset));
                    self.commit = Some((id, generation, offsets));
                }
                Effect::Pause(_, partition) => assert!(self.paused.insert(partition), "paused twice"),
                Effect::Resume(_, partition) => assert!(self.paused.remove(&partition), "resumed though not paused"),
                Effect::Drained(generation) => {
                    assert_eq!(generation, self.generation);
                    assert!(self.drain_until >= Some(self.bench.now.mono), "drained too late, or unasked");
                    self.assign();
                }
                Effect::Stopped => unreachable!("nobody stops it"),
                Effect::Fact(Fact::Ended(partition, offset, _)) => {
                    assert!(self.told.insert((partition, offset)), "{partition}/{offset} ended twice");
                }
                Effect::Fact(_) => {}
            }
        }
        let gauges = self.bench.downlink.gauges();
        assert!(gauges.window <= gauges.window_cap);
        let over = gauges.partitions.iter().find(|partition| partition.buffered > partition.buffered_cap);
        assert_eq!(over, None, "the driver stops at once, so nothing comes on top");
    }

    /// Every record below `end` is acknowledged by the broker, told as expired, or lettered.
    fn assert_ended(&self, partition: Partition, end: Offset) {
        for record in &self.log[&partition][..usize::try_from(end).expect("an offset")] {
            let value = record.value.as_ref().expect("a value");
            let id = Command::decode(value).map(|command| command.id);
            let expired = id.is_ok_and(|id| self.expired.contains(&id));
            let lettered = self.lettered.contains(&(partition, record.offset));
            assert!(self.acknowledged.contains(value) || expired || lettered, "{partition}/{} is lost", record.offset);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(partition, session, life) => self.append(partition, session, life),
            Step::Read(partition) => {
                let position = self.position[&partition];
                let record = self.log[&partition].get(usize::try_from(position).expect("an offset")).cloned();
                let Some(record) = record.filter(|_| !self.paused.contains(&partition)) else { return };
                self.position.insert(partition, position + 1);
                self.tell(Event::Record(self.generation, record));
            }
            Step::Acknowledge(pick) => {
                let Some(connection) = self.connection.filter(|_| !self.owed.is_empty()) else { return };
                let (packet, value) = self.owed.remove(pick % self.owed.len());
                self.acknowledged.insert(value);
                self.tell(Event::Acknowledged(connection, packet));
            }
            Step::Produce(pick, outcome) if !self.produces.is_empty() => {
                let (id, record) = self.produces.remove(pick % self.produces.len());
                self.produced(id, &record, outcome);
            }
            Step::Produce(..) => {}
            Step::Commit(outcome) => self.answer_commit(outcome),
            Step::Cut => {
                if let Some(connection) = self.connection.take() {
                    // What it got last may be acknowledged by nobody.
                    self.owed.clear();
                    self.tell(Event::Disconnected(connection));
                }
            }
            Step::Wait => {
                if self.bench.downlink.deadline().is_some() {
                    let effects = self.bench.wait();
                    self.carry_out(effects);
                }
            }
            Step::Pass(ms) => {
                let passing = Duration::from_millis(ms);
                let until = self.bench.now.mono + passing;
                while self.bench.downlink.deadline().is_some_and(|at| at <= until) {
                    self.step(Step::Wait);
                }
                let rest = until.since(self.bench.now.mono);
                let effects = self.bench.pass(rest);
                self.carry_out(effects);
            }
            Step::Revoke if self.drain_until.is_none() => {
                self.drain_until = Some(self.bench.now.mono + DRAIN_WITHIN);
                self.tell(Event::Revoked(self.generation));
            }
            Step::Lose if self.drain_until.is_none() => {
                self.tell(Event::Lost(self.generation));
                self.assign();
            }
            Step::Revoke | Step::Lose => {}
            Step::Crash => {
                self.bench.downlink = Downlink::new(config(3), 11);
                (self.connection, self.owed, self.produces) = (None, Vec::new(), Vec::new());
                self.tell(Event::Start);
                self.assign();
            }
        }
    }

    fn append(&mut self, partition: Partition, session: u128, life: Option<i64>) {
        let log = self.log.get_mut(&partition).expect("a partition");
        let offset = Offset::try_from(log.len()).expect("short histories");
        // A session's topic is the key, so it has one partition.
        let session = session * 2 + u128::from(partition.unsigned_abs());
        let now = self.bench.now.wall.0 - START.0;
        let record = command(partition, offset, session, now + life.unwrap_or_default());
        let poison = Bytes::from(format!("poison {partition}/{offset}"));
        log.push(if life.is_some() { record } else { Record { value: Some(poison), ..record } });
    }

    fn produced(&mut self, id: EffectId, record: &OutgoingRecord, outcome: u8) {
        let reason = String::new();
        let (stored, outcome) = match outcome {
            0 => (false, ProduceOutcome::Failed { reason }),
            1 => (true, ProduceOutcome::Unknown { reason }),
            2 => (false, ProduceOutcome::Refused { reason }),
            _ => (true, STORED),
        };
        if stored && record.topic == kafka_topic::REPLIES {
            let reply = Reply::decode(&record.value).expect("a reply");
            self.expired.insert(reply.id);
        } else if stored {
            let number = |name| headers(record)[name].parse::<i64>().expect("a number");
            let partition = Partition::try_from(number("source-partition")).expect("a partition");
            self.lettered.insert((partition, number("source-offset")));
        }
        self.tell(Event::Produced(id, outcome));
    }

    fn answer_commit(&mut self, outcome: u8) {
        let Some((id, generation, offsets)) = self.commit.take() else { return };
        assert_eq!(generation, self.generation);
        let reason = String::new();
        let (applied, outcome) = match outcome {
            0 => (false, CommitOutcome::Failed { reason }),
            1 => (true, CommitOutcome::Failed { reason }),
            2 => (false, CommitOutcome::Stale),
            _ => (true, CommitOutcome::Committed),
        };
        for (partition, offset) in offsets.into_iter().filter(|_| applied) {
            assert!(self.committed.insert(partition, offset) <= Some(offset), "a committed offset fell");
        }
        let stale = outcome == CommitOutcome::Stale;
        self.tell(Event::Committed(id, outcome));
        if stale && generation == self.generation {
            self.assign();
        }
    }

    /// No faults any more: everything comes to its end, and is committed.
    fn heal(&mut self) {
        for _ in 0..5_000 {
            let end = |partition| Offset::try_from(self.log[partition].len()).expect("short");
            if self.committed.iter().all(|(partition, &offset)| offset == end(partition)) {
                return;
            }
            PARTITIONS.iter().for_each(|&partition| self.step(Step::Read(partition)));
            self.step(Step::Acknowledge(0));
            self.step(Step::Produce(0, 5));
            self.step(Step::Commit(7));
            self.step(Step::Wait);
        }
        panic!("stuck at {:?} of {:?}", self.committed, self.bench.downlink.gauges());
    }
}

fn fixed_seed() -> ProptestConfig {
    ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn whatever_happens_what_is_committed_came_to_its_end_and_first_publications_keep_their_order(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        for (topic, payloads) in &world.seen {
            let id = |payload: &Bytes| Command::decode(payload).expect("a command").id;
            prop_assert!(payloads.is_sorted_by_key(id), "{topic}: {payloads:?}");
        }
    }
}
