//! Random histories: a log, a group and a store around a registry, which answer late, wrongly or not at all.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

const PARTITIONS: [Partition; 2] = [0, 1];
const CREDIT: usize = 8;
const UNDER_WAY: usize = 2;
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Good,
    /// The same as the record before it.
    Repeat,
    /// A later seq of the same session, perhaps behind a gap.
    Later(u64),
    /// Its session lost to another.
    Beaten,
    Undecodable,
    /// Only the store refuses it.
    Refused,
    Retained,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(Partition, Kind),
    /// A paused partition delivers what had been fetched before, now and then.
    Read(Partition, bool),
    AnswerWrite(usize, u8),
    AnswerQuarantine(usize, u8),
    AnswerCommit(usize, u8),
    AnswerCommand(usize, u8),
    Wait,
    Revoke,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || prop::sample::select(PARTITIONS.to_vec());
    let kind = prop_oneof![
        6 => Just(Kind::Good),
        1 => Just(Kind::Repeat),
        2 => (1..3_u64).prop_map(Kind::Later),
        1 => Just(Kind::Beaten),
        1 => Just(Kind::Undecodable),
        1 => Just(Kind::Refused),
        1 => Just(Kind::Retained),
    ];
    let pick = any::<usize>;
    prop_oneof![
        12 => (partition(), kind).prop_map(|(partition, kind)| Step::Append(partition, kind)),
        12 => (partition(), prop::bool::weighted(0.05)).prop_map(|(partition, late)| Step::Read(partition, late)),
        8 => (pick(), 0..8u8).prop_map(|(pick, outcome)| Step::AnswerWrite(pick, outcome)),
        3 => (pick(), 0..6u8).prop_map(|(pick, outcome)| Step::AnswerQuarantine(pick, outcome)),
        3 => (pick(), 0..8u8).prop_map(|(pick, outcome)| Step::AnswerCommit(pick, outcome)),
        3 => (pick(), 0..6u8).prop_map(|(pick, outcome)| Step::AnswerCommand(pick, outcome)),
        6 => Just(Step::Wait),
        1 => Just(Step::Revoke),
        1 => Just(Step::Lose),
    ]
}

type Write = (EffectId, Generation, Partition, Arc<Rows>);

struct World {
    bench: Bench,
    generation: Generation,
    /// When the revoked generation has to be drained.
    drain_until: Option<Mono>,
    log: BTreeMap<Partition, Vec<(Kind, Record)>>,
    position: BTreeMap<Partition, Offset>,
    committed: BTreeMap<Partition, Offset>,
    paused: BTreeSet<Partition>,
    /// Records that were delivered to a paused partition, in this generation.
    late: BTreeMap<Partition, usize>,
    /// Devices whose rows the store holds.
    stored: BTreeSet<Device>,
    lettered: BTreeSet<(Partition, Offset)>,
    /// Ends told in this generation.
    told: BTreeSet<(Partition, Offset)>,
    writes: Vec<Write>,
    quarantines: Vec<(EffectId, OutgoingRecord)>,
    commits: Vec<Commit>,
    commands: Vec<EffectId>,
    /// When each command was first sent: by session and kind, by its id.
    sent: BTreeMap<(Bytes, bool), BTreeMap<uuid::Uuid, Mono>>,
    opened: usize,
    closed: usize,
}

fn device_of(partition: Partition, offset: Offset) -> u128 {
    u128::try_from(i64::from(partition) * 1_000_000 + offset).expect("positive")
}

impl World {
    fn new() -> World {
        let feedback = Feedback {
            gap_wait: Duration::from_millis(20),
            requests_per_s: 5,
            expires_after: Duration::from_secs(1),
            under_way: UNDER_WAY,
            waiting: 3,
            sessions: 10,
            ..Feedback::with_period(PERIOD)
        };
        let config = Config { partition_credit: CREDIT, commit_records: 5, feedback: Some(feedback), ..config() };
        let mut world = World {
            bench: Bench::new(config),
            generation: Generation(0),
            drain_until: None,
            log: PARTITIONS.map(|partition| (partition, Vec::new())).into(),
            position: BTreeMap::new(),
            committed: PARTITIONS.map(|partition| (partition, 0)).into(),
            paused: BTreeSet::new(),
            late: BTreeMap::new(),
            stored: BTreeSet::new(),
            lettered: BTreeSet::new(),
            told: BTreeSet::new(),
            writes: Vec::new(),
            quarantines: Vec::new(),
            commits: Vec::new(),
            commands: Vec::new(),
            sent: BTreeMap::new(),
            opened: 0,
            closed: 0,
        };
        world.assign();
        world
    }

    fn assign(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
        self.drain_until = None;
        self.position = self.committed.clone();
        self.paused.clear();
        self.late.clear();
        self.told.clear();
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
                Effect::Write(id, partition, rows) => {
                    let key = (self.generation, partition);
                    let busy = self.writes.iter().any(|write| (write.1, write.2) == key);
                    assert!(!busy, "two writes of partition {partition} under way");
                    self.writes.push((id, self.generation, partition, rows));
                }
                Effect::Quarantine(id, record) => self.quarantines.push((id, record)),
                Effect::Commit(id, generation, offsets) => {
                    assert_eq!(generation, self.generation);
                    let busy = self.commits.iter().any(|commit| commit.1 == generation);
                    assert!(!busy, "two commits under way");
                    offsets.iter().for_each(|&(partition, offset)| self.assert_durable(partition, offset));
                    self.commits.push((id, generation, offsets));
                }
                Effect::Pause(generation, partition) => {
                    assert_eq!(generation, self.generation);
                    assert!(self.paused.insert(partition), "paused twice");
                }
                Effect::Resume(generation, partition) => {
                    assert_eq!(generation, self.generation);
                    assert!(self.paused.remove(&partition), "resumed though not paused");
                }
                Effect::Drained(generation) => {
                    assert_eq!(generation, self.generation);
                    let until = self.drain_until.expect("drained only if revoked");
                    assert!(self.bench.now.mono <= until, "drained too late");
                    self.assign();
                }
                Effect::Fact(
                    Fact::Reflected { partition, offset, .. } | Fact::Quarantined { partition, offset, .. },
                ) => {
                    assert!(self.told.insert((partition, offset)), "{partition}/{offset} ended twice");
                }
                Effect::Command(id, record) => {
                    let command = crate::event::Command::decode(&record.value).expect("a command");
                    let notice = matches!(command.kind, crate::event::CommandKind::Reonboard { .. });
                    let now = self.bench.now.mono;
                    self.sent.entry((record.key, notice)).or_default().entry(command.id).or_insert(now);
                    self.commands.push(id);
                }
                Effect::Fact(Fact::GapOpened { .. }) => self.opened += 1,
                Effect::Fact(Fact::GapClosed { .. }) => self.closed += 1,
                // What was dropped may be said again.
                Effect::Fact(Fact::CommandDropped { .. }) => self.sent.clear(),
                Effect::Stopped | Effect::Fact(_) => {}
            }
        }
        for gauges in self.bench.registry.gauges().partitions {
            let late = self.late.get(&gauges.partition).copied().unwrap_or(0);
            assert!(gauges.buffered <= CREDIT + late, "{gauges:?} with {late} late ones");
            assert!(gauges.gaps <= gauges.sessions && gauges.sessions <= gauges.sessions_cap, "{gauges:?}");
            assert!(gauges.committed <= gauges.durable && gauges.durable <= gauges.next, "{gauges:?}");
        }
    }

    /// One command of a kind per session within a period less its jitter; and their number is bounded.
    fn assert_polite(&self) {
        let gauges = self.bench.registry.gauges().feedback.expect("it is on");
        assert!(gauges.under_way <= UNDER_WAY && gauges.notices <= 3 && gauges.requests <= 3, "{gauges:?}");
        assert!(gauges.sessions <= gauges.sessions_cap, "{gauges:?}");
        for (session, commands) in &self.sent {
            let mut times: Vec<Mono> = commands.values().copied().collect();
            times.sort();
            let close = times.windows(2).find(|pair| pair[1].since(pair[0]) < PERIOD * 4 / 5);
            assert_eq!(close, None, "{session:?}");
        }
        assert!(self.closed <= self.opened);
    }

    fn assert_durable(&self, partition: Partition, end: Offset) {
        for offset in 0..end {
            let index = usize::try_from(offset).expect("an offset");
            let (kind, record) = &self.log[&partition][index];
            let lettered = self.lettered.contains(&(partition, offset));
            let durable = match kind {
                Kind::Good | Kind::Repeat | Kind::Later(_) | Kind::Beaten => self.stored.contains(&device_in(record)),
                Kind::Undecodable | Kind::Refused => lettered,
                Kind::Retained => true,
            };
            assert!(durable, "{partition}/{offset} is committed, but neither stored nor quarantined");
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(partition, kind) => self.append(partition, kind),
            Step::Read(partition, late) => self.read(partition, late),
            Step::AnswerWrite(pick, outcome) if !self.writes.is_empty() => {
                let write = self.writes.remove(pick % self.writes.len());
                self.answer_write(write, outcome);
            }
            Step::AnswerQuarantine(pick, outcome) if !self.quarantines.is_empty() => {
                let (id, record) = self.quarantines.remove(pick % self.quarantines.len());
                self.answer_quarantine(id, &record, outcome);
            }
            Step::AnswerCommit(pick, outcome) if !self.commits.is_empty() => {
                let commit = self.commits.remove(pick % self.commits.len());
                self.answer_commit(commit, outcome);
            }
            Step::AnswerCommand(pick, outcome) if !self.commands.is_empty() => {
                let id = self.commands.remove(pick % self.commands.len());
                let reason = String::new();
                self.tell(Event::Commanded(
                    id,
                    match outcome {
                        0 => ProduceOutcome::Failed { reason },
                        1 => ProduceOutcome::Unknown { reason },
                        2 => ProduceOutcome::Refused { reason },
                        _ => STORED,
                    },
                ));
            }
            Step::Wait => {
                if self.bench.registry.deadline().is_some() {
                    let effects = self.bench.wait();
                    self.carry_out(effects);
                }
            }
            Step::Revoke if self.drain_until.is_none() => {
                self.drain_until = Some(self.bench.now.mono + DRAIN_WITHIN);
                self.tell(Event::Revoked(self.generation));
            }
            Step::Lose if self.drain_until.is_none() => {
                self.tell(Event::Lost(self.generation));
                self.assign();
            }
            Step::AnswerWrite(..) | Step::AnswerQuarantine(..) | Step::AnswerCommit(..) => {}
            Step::AnswerCommand(..) | Step::Revoke | Step::Lose => {}
        }
    }

    fn append(&mut self, partition: Partition, kind: Kind) {
        let log = self.log.get_mut(&partition).expect("a partition");
        let offset = Offset::try_from(log.len()).expect("short histories");
        let fresh = record(partition, offset, &event(device_of(partition, offset), 1));
        let fresh = Record { timestamp: self.bench.now.wall, ..fresh };
        let entry = match (kind, log.iter().rev().find(|(kind, _)| matches!(kind, Kind::Good))) {
            (Kind::Good | Kind::Refused, _) => (kind, fresh),
            (Kind::Repeat, Some((_, before))) => (kind, Record { offset, ..before.clone() }),
            (Kind::Later(more), Some((_, before))) => {
                let seq = u64::try_from(offset).expect("an offset") * 3 + more;
                let later = record(partition, offset, &event(device_in(before).0.as_u128(), seq));
                (kind, Record { timestamp: self.bench.now.wall, ..later })
            }
            (Kind::Beaten, _) => {
                let body = Body::Snapshot { attributes: [].into() };
                let lost = StateEvent { body, ..event(device_of(partition, offset), 1) };
                (kind, Record { timestamp: self.bench.now.wall, ..record(partition, offset, &lost) })
            }
            (Kind::Repeat | Kind::Later(_), None) => (Kind::Good, fresh),
            (Kind::Undecodable, _) => (kind, poison(partition, offset)),
            (Kind::Retained, _) => (kind, Record { retained: true, ..fresh }),
        };
        log.push(entry);
    }

    fn read(&mut self, partition: Partition, late: bool) {
        let position = self.position[&partition];
        let Some((_, record)) = self.log[&partition].get(usize::try_from(position).expect("an offset")) else { return };
        let paused = self.paused.contains(&partition);
        if paused && !late {
            return;
        }
        *self.late.entry(partition).or_default() += usize::from(paused);
        self.position.insert(partition, position + 1);
        self.tell(Event::Record(self.generation, record.clone()));
    }

    fn answer_write(&mut self, (id, _, partition, rows): Write, outcome: u8) {
        let bad = self.log[&partition].iter().filter(|(kind, _)| matches!(kind, Kind::Refused));
        let bad: BTreeSet<Device> = bad.map(|(_, record)| device_in(record)).collect();
        let reason = String::new();
        let (applied, outcome) = match outcome {
            0 => (false, WriteOutcome::Aborted { reason }),
            _ if rows.devices.keys().any(|device| bad.contains(device)) => (false, WriteOutcome::Refused { reason }),
            1 => (false, WriteOutcome::Ambiguous { reason }),
            2 => (true, WriteOutcome::Ambiguous { reason }),
            _ => (true, WriteOutcome::Committed { beaten: self.beaten(&rows) }),
        };
        if applied {
            self.stored.extend(rows.devices.keys());
        }
        self.tell(Event::Written(id, outcome));
    }

    /// Every session with a snapshot: only those have one that lost.
    fn beaten(&self, rows: &Rows) -> Vec<Beaten> {
        let lost = rows.sessions.iter().filter(|(_, row)| row.snapshot.is_some());
        lost.map(|(&(device, session), row)| Beaten { device, session, by: row.epoch }).collect()
    }

    fn answer_quarantine(&mut self, id: EffectId, record: &OutgoingRecord, outcome: u8) {
        let reason = String::new();
        let (applied, outcome) = match outcome {
            0 => (false, ProduceOutcome::Failed { reason }),
            1 => (true, ProduceOutcome::Unknown { reason }),
            _ => (true, STORED),
        };
        if applied {
            let header = |name| {
                let (_, value) = record.headers.iter().find(|(header, _)| *header == name).expect("a header");
                value.parse::<i64>().expect("a number")
            };
            let partition = Partition::try_from(header("source-partition")).expect("a partition");
            self.lettered.insert((partition, header("source-offset")));
        }
        self.tell(Event::Quarantined(id, outcome));
    }

    fn answer_commit(&mut self, (id, generation, offsets): Commit, outcome: u8) {
        let reason = String::new();
        let (applied, outcome) = match outcome {
            _ if generation != self.generation => (false, CommitOutcome::Stale),
            0 => (false, CommitOutcome::Failed { reason }),
            1 => (true, CommitOutcome::Failed { reason }),
            2 => (false, CommitOutcome::Stale),
            _ => (true, CommitOutcome::Committed),
        };
        for (partition, offset) in offsets.into_iter().filter(|_| applied) {
            let before = self.committed.insert(partition, offset);
            assert!(before <= Some(offset), "a committed offset fell");
        }
        let expelled = generation == self.generation && outcome == CommitOutcome::Stale;
        self.tell(Event::Committed(id, outcome));
        if expelled && generation == self.generation {
            self.step(Step::Lose);
        }
    }

    /// No faults any more: everything that is in the log is reflected or quarantined, and committed.
    fn heal(&mut self) {
        let is_over = |world: &World| {
            PARTITIONS.iter().all(|partition| {
                world.committed[partition] == Offset::try_from(world.log[partition].len()).expect("short")
            })
        };
        // A step answers or reads one thing; a history of 200 steps is over long before.
        for _ in 0..5_000 {
            if is_over(self) {
                return;
            }
            self.step(Step::AnswerWrite(0, 7));
            self.step(Step::AnswerQuarantine(0, 5));
            self.step(Step::AnswerCommit(0, 7));
            self.step(Step::AnswerCommand(0, 5));
            PARTITIONS.iter().for_each(|&partition| self.step(Step::Read(partition, false)));
            self.step(Step::Wait);
        }
        panic!("stuck at {:?} of {:?}", self.committed, self.bench.registry.gauges());
    }
}

fn device_in(record: &Record) -> Device {
    let key = std::str::from_utf8(record.key.as_deref().expect("a key")).expect("a topic");
    match key.parse() {
        Ok(crate::event::Topic::State(_, session)) => Device(session.0),
        other => panic!("not a state topic: {other:?}"),
    }
}

fn fixed_seed() -> ProptestConfig {
    ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn whatever_happens_only_what_is_durable_is_committed_each_record_ends_once_and_all_comes_to_rest(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.assert_polite();
        }
        world.heal();
    }
}
