//! What the registry and bridge cores rely on, through the adapter that carries them.
//!
//! The adapter's own tests use librdkafka's mock cluster, which cannot expel a member, cut connections or refuse a record.

pub(super) mod consume;
pub(super) mod produce;

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    consume::{CommitOutcome, Generation, Offset, Partition, Record},
    core::EffectId,
    time::Wall,
};
use dmp_service::{
    config::{Backoff, Kafka, Start},
    kafka::{Consumer, ConsumerConfig, Event, Fetch, Producer, inspect::Inspector},
};
use rdkafka::consumer::Consumer as _;
use tokio::{sync::mpsc, time::timeout};

use super::{Bench, PATIENCE};

impl Bench {
    fn kafka(&self) -> Kafka {
        let mut kafka = Kafka::at(self.bootstrap());
        kafka.session_timeout = Duration::from_secs(2);
        kafka
    }

    fn inspector(&self) -> Inspector {
        Inspector::new(&self.kafka(), &self.named("g")).expect("the settings are good")
    }

    /// Waits until nobody is in the group.
    async fn wait_until_empty(&self) {
        let (look, group) = (self.consumer("look", "look", &[]), self.named("g"));
        let waiting = tokio::task::spawn_blocking(move || {
            let is_empty = || {
                let listed = look.fetch_group_list(Some(&group), PATIENCE).expect("the broker answers");
                listed.groups().iter().all(|group| group.members().is_empty())
            };
            while !is_empty() {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        timeout(PATIENCE, waiting).await.expect("the members are expelled in time").expect("no panic");
    }

    /// Produces records 0 to `count` and waits for their answers.
    async fn produce(&self, count: u64) {
        let (producer, mut answers) = producer(self, &self.kafka());
        for number in 0..count {
            producer.produce(EffectId(number), record(self, number)).expect("the queue has room");
        }
        for _ in 0..count {
            let (_, outcome) = answer(&mut answers).await;
            assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
        }
    }
}

type Answers = mpsc::UnboundedReceiver<(EffectId, ProduceOutcome)>;

fn producer(bench: &Bench, kafka: &Kafka) -> (Producer, Answers) {
    // As many answers as the test has asked for.
    let (answers, answered) = mpsc::unbounded_channel();
    let answer = move |id, outcome| {
        let _test_has_ended = answers.send((id, outcome));
    };
    (Producer::start(kafka, &bench.named("producer"), 10_000, answer).expect("the settings are good"), answered)
}

async fn answer(answers: &mut Answers) -> (EffectId, ProduceOutcome) {
    timeout(PATIENCE, answers.recv()).await.expect("an answer in time").expect("the producer lives")
}

/// Record n has one of 20 keys.
fn record(bench: &Bench, number: u64) -> OutgoingRecord {
    OutgoingRecord {
        topic: bench.topic,
        key: format!("key-{}", number % 20).into(),
        value: number.to_string().into(),
        timestamp: Wall(1_700_000_000_000 + number as i64),
        headers: vec![("mqtt-qos", "1".to_owned()), ("bridge", "b".to_owned())],
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    std::str::from_utf8(value.expect("a value")).expect("text").parse().expect("a number")
}

struct Member {
    consumer: Consumer,
    events: mpsc::Receiver<Event>,
}

impl Member {
    fn join(bench: &Bench, kafka: &Kafka, name: &str) -> Member {
        Member::join_with(bench, kafka, name, Start::Earliest, || false)
    }

    fn join_with(
        bench: &Bench,
        kafka: &Kafka,
        name: &str,
        start: Start,
        before_each_poll: impl Fn() -> bool + Send + 'static,
    ) -> Member {
        let (sender, events) = mpsc::channel(64);
        let config = ConsumerConfig {
            kafka: kafka.clone(),
            group: bench.named("g"),
            client_id: bench.named(name),
            topic: bench.topic,
            fetch: Fetch::Bulk,
            start,
            drain_within: PATIENCE,
            backoff: Backoff { first: Duration::from_millis(10), most: Duration::from_millis(100) },
            fault: Box::new(before_each_poll),
            restarted: Box::new(|_reason| {}),
        };
        Member { consumer: Consumer::start(config, sender).expect("the settings are good"), events }
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the reader lives")
    }

    /// The next assignment; records before it are let go.
    async fn assigned(&mut self) -> (Generation, BTreeMap<Partition, Offset>) {
        loop {
            match self.next().await {
                Event::Assigned(generation, starts) => return (generation, starts.into_iter().collect()),
                Event::Record(..) => {}
                other => panic!("not assigned but {other:?}"),
            }
        }
    }

    /// The next assignment of `count` partitions; those before it are given back as soon as they are asked for.
    async fn assigned_of(&mut self, count: usize) -> (Generation, BTreeMap<Partition, Offset>) {
        loop {
            match self.next().await {
                Event::Assigned(generation, starts) if starts.len() == count => {
                    return (generation, starts.into_iter().collect());
                }
                Event::Revoked(generation) => self.consumer.drained(generation),
                Event::Assigned(..) | Event::Record(..) | Event::Lost(_) => {}
                other => panic!("not assigned but {other:?}"),
            }
        }
    }

    async fn revoked(&mut self) -> Generation {
        loop {
            match self.next().await {
                Event::Revoked(generation) => return generation,
                Event::Record(..) => {}
                other => panic!("not revoked but {other:?}"),
            }
        }
    }

    async fn record(&mut self) -> Record {
        match self.next().await {
            Event::Record(_, record) => record,
            other => panic!("no record but {other:?}"),
        }
    }

    async fn commit(&mut self, generation: Generation, offsets: &[(Partition, Offset)]) -> CommitOutcome {
        let asked = EffectId(77);
        self.consumer.commit(asked, generation, offsets.to_vec());
        loop {
            match self.next().await {
                Event::Committed(id, outcome) if id == asked => return outcome,
                Event::Record(..) | Event::Lost(_) => {}
                other => panic!("no commit but {other:?}"),
            }
        }
    }
}
