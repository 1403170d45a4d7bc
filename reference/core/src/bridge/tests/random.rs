//! Random histories: a broker with a persistent session and a log around a bridge.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Arrive { key: u8, qos_0: bool },
    Answer { pick: usize, outcome: u8 },
    Cut,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u8, prop::bool::weighted(0.1)).prop_map(|(key, qos_0)| Step::Arrive { key, qos_0 }),
        8 => (any::<usize>(), 0..6u8).prop_map(|(pick, outcome)| Step::Answer { pick, outcome }),
        1 => Just(Step::Cut),
        3 => Just(Step::Wait),
    ]
}

/// A broker with a persistent session and a log, around a bridge: keeps what is not acknowledged and sends it again.
struct World {
    bench: Bench,
    connection: ConnectionId,
    reading: bool,
    /// (packet id, key, number), oldest first; the number is in the payload.
    unacknowledged: Vec<(u16, u8, u32)>,
    /// The first of them that was not sent on this connection.
    unsent: usize,
    in_flight: Vec<(EffectId, OutgoingRecord)>,
    log: Vec<OutgoingRecord>,
    numbers: u32,
}

const WINDOW: usize = 5;

impl World {
    fn new() -> World {
        World {
            bench: Bench::connected(WINDOW),
            connection: C1,
            reading: true,
            unacknowledged: Vec::new(),
            unsent: 0,
            in_flight: Vec::new(),
            log: Vec::new(),
            numbers: 0,
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect(connection) => {
                    self.connection = connection;
                    (self.unsent, self.reading) = (0, true);
                    let effects = self.bench.connect(connection);
                    self.carry_out(effects);
                }
                Effect::PauseReading(connection) | Effect::ResumeReading(connection) => {
                    assert_eq!(connection, self.connection);
                    self.reading = matches!(effect, Effect::ResumeReading(_));
                }
                Effect::Produce(id, record) => {
                    let same_key = self.in_flight.iter().any(|(_, other)| other.key == record.key);
                    assert!(!same_key, "two records of one key in flight");
                    self.in_flight.push((id, record));
                }
                Effect::Acknowledge(connection, packet) => {
                    assert_eq!(connection, self.connection, "acknowledged on a dead connection");
                    assert!(self.unsent > 0 && self.unacknowledged[0].0 == packet.0, "out of turn, or twice");
                    let (_, _, number) = self.unacknowledged.remove(0);
                    self.unsent -= 1;
                    assert!(self.log.iter().any(|record| number_of(record) == number), "{number} is not stored");
                }
                Effect::Disconnect(_) | Effect::Subscribe { .. } | Effect::Stopped | Effect::Fact(_) => {}
            }
        }
    }

    fn send(&mut self) {
        while self.reading && self.unsent < self.unacknowledged.len() {
            let (packet, key, number) = self.unacknowledged[self.unsent];
            self.unsent += 1;
            self.arrive(packet, key, number);
        }
    }

    fn arrive(&mut self, packet: u16, key: u8, number: u32) {
        let payload = Bytes::from(number.to_string());
        let message = Message { payload, ..message(topic(key.into()), packet) };
        let effects = self.bench.arrives(self.connection, message);
        self.carry_out(effects);
        assert!(self.bench.bridge.gauges().window <= WINDOW, "the broker stops at once, so nothing comes on top");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Arrive { key, qos_0 } => {
                self.numbers += 1;
                if !qos_0 {
                    let packet = u16::try_from(self.numbers).expect("short histories");
                    self.unacknowledged.push((packet, key, self.numbers));
                } else if self.reading && self.unsent == self.unacknowledged.len() {
                    self.arrive(0, key, self.numbers);
                }
                self.send();
            }
            Step::Answer { pick, outcome } if !self.in_flight.is_empty() => {
                let (id, record) = self.in_flight.remove(pick % self.in_flight.len());
                let reason = String::new();
                let (stored, outcome) = match outcome {
                    0 => (false, ProduceOutcome::Failed { reason }),
                    1 => (false, ProduceOutcome::Unknown { reason }),
                    2 => (true, ProduceOutcome::Unknown { reason }),
                    _ => (true, STORED),
                };
                self.log.extend(stored.then_some(record));
                let effects = self.bench.answers(id, outcome);
                self.carry_out(effects);
                self.send();
            }
            Step::Answer { .. } => {}
            Step::Cut => {
                let effects = self.bench.tell(Event::Disconnected(self.connection));
                self.carry_out(effects);
                self.wait_while(|bench| !bench.bridge.gauges().connected);
                self.send();
            }
            Step::Wait => {
                if self.bench.bridge.deadline().is_some() {
                    let effects = self.bench.wait();
                    self.carry_out(effects);
                    self.send();
                }
            }
        }
    }

    fn wait_while(&mut self, condition: impl Fn(&Bench) -> bool) {
        while condition(&self.bench) {
            let effects = self.bench.wait();
            self.carry_out(effects);
        }
    }
}

fn number_of(record: &OutgoingRecord) -> u32 {
    std::str::from_utf8(&record.value).ok().and_then(|text| text.parse().ok()).expect("a number")
}

fn fixed_seed() -> ProptestConfig {
    ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn whatever_happens_acknowledged_is_stored_in_turn_once_and_first_appearances_keep_their_order(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        // Kafka heals: everything ends.
        while !world.unacknowledged.is_empty() || !world.in_flight.is_empty() || world.bench.bridge.gauges().window > 0 {
            let step = if world.in_flight.is_empty() { Step::Wait } else { Step::Answer { pick: 0, outcome: 5 } };
            world.step(&step);
        }
        let mut newest = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in &world.log {
            if seen.insert(number_of(record)) {
                let last = newest.insert(record.key.clone(), number_of(record));
                prop_assert!(last < Some(number_of(record)), "{last:?} appeared before {}", number_of(record));
            }
        }
    }
}
