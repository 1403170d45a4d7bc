//! The Kafka adapter on the embedded broker: what the registry and bridge cores rely on, with everything real between.
//!
//! The adapter's own tests use librdkafka's mock cluster, which cannot expel a member, cut connections or refuse a record.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    consume::{CommitOutcome, Generation, Offset, Partition, Record},
    core::EffectId,
    time::Wall,
};
use dmp_service::{
    config::{Backoff, Kafka, Start},
    kafka::{
        Consumer, ConsumerConfig, Event, Producer,
        inspect::{Inspector, Tail},
    },
};
use fleetproof::live::embedded::kafka::{Broker, Config};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{sync::mpsc, time::timeout};

const TOPIC: &str = "dmp.events";
const PARTITIONS: i32 = 4;
const GROUP: &str = "g";
/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    broker: Broker,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn start() -> Bench {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::new(directory.path());
        config.topics = vec![(TOPIC.to_owned(), PARTITIONS as u32)];
        Bench { broker: Broker::start(config).expect("a broker"), _directory: directory }
    }

    fn kafka(&self) -> Kafka {
        let mut kafka = Kafka::at(self.broker.bootstrap());
        kafka.session_timeout = Duration::from_secs(2);
        kafka
    }

    fn inspector(&self) -> Inspector {
        Inspector::new(&self.kafka(), GROUP).expect("the settings are good")
    }

    /// Waits until nobody is in the group.
    async fn wait_until_empty(&self) {
        let kafka = self.kafka();
        let waiting = tokio::task::spawn_blocking(move || {
            let mut config = ClientConfig::new();
            let client: BaseConsumer = config.set("bootstrap.servers", kafka.bootstrap).create().expect("a client");
            let is_empty = || {
                let listed = client.fetch_group_list(Some(GROUP), PATIENCE).expect("the broker answers");
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
        let (producer, mut answers) = producer(&self.kafka());
        for number in 0..count {
            producer.produce(EffectId(number), record(number)).expect("the queue has room");
        }
        for _ in 0..count {
            let (_, outcome) = answer(&mut answers).await;
            assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
        }
    }
}

type Answers = mpsc::UnboundedReceiver<(EffectId, ProduceOutcome)>;

fn producer(kafka: &Kafka) -> (Producer, Answers) {
    // As many answers as the test has asked for.
    let (answers, answered) = mpsc::unbounded_channel();
    let answer = move |id, outcome| {
        let _test_has_ended = answers.send((id, outcome));
    };
    (Producer::start(kafka, "producer", 10_000, answer).expect("the settings are good"), answered)
}

async fn answer(answers: &mut Answers) -> (EffectId, ProduceOutcome) {
    timeout(PATIENCE, answers.recv()).await.expect("an answer in time").expect("the producer lives")
}

/// Record n has one of 20 keys.
fn record(number: u64) -> OutgoingRecord {
    OutgoingRecord {
        topic: TOPIC,
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
    fn join(kafka: &Kafka, client_id: &str) -> Member {
        Member::join_with(kafka, client_id, || false)
    }

    fn join_with(kafka: &Kafka, client_id: &str, before_each_poll: impl Fn() -> bool + Send + 'static) -> Member {
        let (sender, events) = mpsc::channel(64);
        let config = ConsumerConfig {
            kafka: kafka.clone(),
            group: GROUP.to_owned(),
            client_id: client_id.to_owned(),
            topic: TOPIC,
            start: Start::Earliest,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_while_giving_partitions_away_is_where_the_next_owner_starts() {
    let bench = Bench::start();
    bench.produce(400).await;
    let mut first = Member::join(&bench.kafka(), "first");
    let (generation, starts) = first.assigned().await;
    assert_eq!(starts, (0..PARTITIONS).map(|partition| (partition, 0)).collect());
    assert_eq!(first.commit(generation, &[(0, 3)]).await, CommitOutcome::Committed);

    let mut second = Member::join(&bench.kafka(), "second");
    assert_eq!(first.revoked().await, generation);
    let drained: Vec<(Partition, Offset)> =
        (0..PARTITIONS).map(|partition| (partition, 5 + i64::from(partition))).collect();
    assert_eq!(first.commit(generation, &drained).await, CommitOutcome::Committed);
    first.consumer.drained(generation);

    let (newer, mut starts) = first.assigned_of(2).await;
    starts.extend(second.assigned_of(2).await.1);
    assert_eq!(starts, drained.into_iter().collect(), "each starts at what was committed");
    assert_eq!(first.commit(generation, &[(0, 99)]).await, CommitOutcome::Stale, "of a generation that is over");
    assert!(newer > generation);
    assert_eq!(bench.inspector().committed(TOPIC).await.expect("the broker answers")[&0], 5);

    // A member that leaves hands over to the one that stays.
    timeout(PATIENCE, second.consumer.stop()).await.expect("it leaves");
    let (_, starts) = first.assigned_of(4).await;
    assert_eq!(starts.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_not_polled_is_expelled_and_its_late_commit_is_stale() {
    // Expelled by its own silence, and in the middle of a round in which it was asked for its partitions.
    for alone in [true, false] {
        let bench = Bench::start();
        let mut kafka = bench.kafka();
        // Heartbeats come from librdkafka's own thread: it is the interval between polls that ends this member.
        kafka.max_poll_interval = kafka.session_timeout;
        let asleep = Arc::new(AtomicBool::new(false));
        let sleeps = asleep.clone();
        let mut zombie = Member::join_with(&kafka, "zombie", move || {
            while sleeps.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            false
        });
        let (generation, _) = zombie.assigned().await;
        assert_eq!(zombie.commit(generation, &[(0, 1)]).await, CommitOutcome::Committed);
        asleep.store(true, Ordering::Relaxed);
        if alone {
            bench.wait_until_empty().await;
        }

        let mut heir = Member::join(&bench.kafka(), "heir");
        let (inherited, starts) = heir.assigned_of(4).await;
        assert_eq!(starts[&0], 1);
        assert_eq!(heir.commit(inherited, &[(0, 9)]).await, CommitOutcome::Committed);

        // The commit waits for the thread to wake up, and must not be let through by it.
        zombie.consumer.commit(EffectId(1), generation, vec![(0, 5)]);
        asleep.store(false, Ordering::Relaxed);
        let (mut given_up, mut outcome) = (false, None);
        while !(given_up && outcome.is_some()) {
            match zombie.next().await {
                Event::Lost(gone) => given_up = gone == generation,
                Event::Revoked(gone) if !alone => {
                    zombie.consumer.drained(gone);
                    given_up = true;
                }
                Event::Committed(EffectId(1), told) => outcome = Some(told),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(outcome, Some(CommitOutcome::Stale), "alone: {alone}");
        assert_eq!(bench.inspector().committed(TOPIC).await.expect("the broker answers")[&0], 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_and_resuming_again_and_again_keeps_order_and_loses_nothing() {
    let bench = Bench::start();
    bench.produce(4_000).await;
    let mut left = bench.inspector().end_offsets(TOPIC).await.expect("the broker answers");
    let mut member = Member::join(&bench.kafka(), "member");
    let (generation, _) = member.assigned().await;
    let mut next: BTreeMap<Partition, Offset> = BTreeMap::new();
    let (mut paused, mut pauses): (Option<(Partition, u32)>, u32) = (None, 0);
    for _ in 0..4_000 {
        let record = member.record().await;
        let expected = next.entry(record.partition).or_insert(0);
        assert_eq!(record.offset, *expected, "partition {}", record.partition);
        *expected += 1;
        *left.get_mut(&record.partition).expect("a partition of the topic") -= 1;
        // What came of a paused partition may still be in the channel; others must have enough to go on without it.
        let others = left.iter().filter(|(partition, _)| **partition != record.partition).map(|(_, left)| left);
        paused = match paused {
            None if others.sum::<Offset>() > 60 => {
                member.consumer.pause(generation, record.partition);
                pauses += 1;
                Some((record.partition, 50))
            }
            None => None,
            Some((partition, 0)) => {
                member.consumer.resume(generation, partition);
                None
            }
            Some((partition, count)) => Some((partition, count - 1)),
        };
    }
    assert!(pauses > 40, "{pauses}");
    assert_eq!(next.values().sum::<i64>(), 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_keeps_order_and_stores_once_while_connections_are_cut() {
    let bench = Bench::start();
    let (producer, mut answers) = producer(&bench.kafka());
    let mut ends: BTreeMap<Partition, Offset> = BTreeMap::new();
    let (mut sent, mut answered) = (0, 0);
    while answered < 5_000_u64 {
        while sent < 5_000 && sent < answered + 500 {
            producer.produce(EffectId(sent), record(sent)).expect("the queue has room");
            sent += 1;
        }
        if answered.is_multiple_of(250) {
            bench.broker.cut_connections();
        }
        match answer(&mut answers).await.1 {
            ProduceOutcome::Stored { partition, offset } => {
                let end = ends.entry(partition).or_insert(0);
                *end = (*end).max(offset + 1);
            }
            other => panic!("{other:?}"),
        }
        answered += 1;
    }
    let (sender, mut tailed) = mpsc::channel(16);
    let _tail = Tail::start(&bench.kafka(), TOPIC, BTreeMap::new(), sender).await.expect("the topic is there");
    let mut seen: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
    for _ in 0..5_000 {
        let record = timeout(PATIENCE, tailed.recv()).await.expect("in time").expect("the tail lives");
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        assert_eq!(headers, [("mqtt-qos", Some(b"1".as_slice())), ("bridge", Some(b"b"))]);
        seen.entry(record.partition).or_default().push(number(record.value.as_deref()));
    }
    for (partition, numbers) in &seen {
        assert!(numbers.is_sorted_by(|one, next| one < next), "partition {partition}: each once, in order");
    }
    assert_eq!(bench.inspector().end_offsets(TOPIC).await.expect("the broker answers"), ends);
    assert_eq!(ends.values().sum::<i64>(), 5_000, "nothing is stored twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_record_is_refused_and_its_neighbours_are_stored() {
    let bench = Bench::start();
    let mut kafka = bench.kafka();
    let (small, mut answers) = producer(&kafka);
    let large = OutgoingRecord { value: vec![b'v'; 2 << 20].into(), ..record(1) };
    for (id, record) in [(0, record(0)), (1, large.clone()), (2, record(2))] {
        small.produce(EffectId(id), record).expect("the queue has room");
    }
    let mut outcomes = BTreeMap::new();
    for _ in 0..3 {
        outcomes.extend([answer(&mut answers).await]);
    }
    assert!(matches!(outcomes[&EffectId(0)], ProduceOutcome::Stored { .. }));
    assert!(matches!(outcomes[&EffectId(1)], ProduceOutcome::Refused { .. }), "{outcomes:?}");
    assert!(matches!(outcomes[&EffectId(2)], ProduceOutcome::Stored { .. }));

    // Here it is the broker that refuses it.
    kafka.extra.insert("message.max.bytes".to_owned(), "8000000".to_owned());
    let (generous, mut answers) = producer(&kafka);
    generous.produce(EffectId(0), large).expect("the queue has room");
    let (_, outcome) = answer(&mut answers).await;
    assert!(matches!(outcome, ProduceOutcome::Refused { .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_no_broker_takes_in_time_is_answered_and_never_as_stored() {
    let bench = Bench::start();
    let mut kafka = bench.kafka();
    // Long enough for the first record, which waits for the connection.
    kafka.message_timeout = Duration::from_secs(5);
    let (producer, mut answers) = producer(&kafka);
    producer.produce(EffectId(0), record(0)).expect("the queue has room");
    assert!(matches!(answer(&mut answers).await.1, ProduceOutcome::Stored { .. }));
    bench.broker.shutdown();
    producer.produce(EffectId(1), record(1)).expect("the queue has room");
    let (id, outcome) = answer(&mut answers).await;
    assert_eq!(id, EffectId(1));
    assert!(matches!(outcome, ProduceOutcome::Unknown { .. } | ProduceOutcome::Failed { .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_read_while_records_flow_is_never_negative() {
    let bench = Bench::start();
    let inspector = bench.inspector();
    let (producer, mut answers) = producer(&bench.kafka());
    let mut member = Member::join(&bench.kafka(), "member");
    let (generation, _) = member.assigned().await;
    let mut next: BTreeMap<Partition, Offset> = BTreeMap::new();
    for round in 0..20 {
        for number in round * 20..(round + 1) * 20 {
            producer.produce(EffectId(number), record(number)).expect("the queue has room");
        }
        for _ in 0..20 {
            assert!(matches!(answer(&mut answers).await.1, ProduceOutcome::Stored { .. }));
            let record = member.record().await;
            next.insert(record.partition, record.offset + 1);
        }
        member.consumer.commit(EffectId(round), generation, next.clone().into_iter().collect());
        let committed = inspector.committed(TOPIC).await.expect("the broker answers");
        let ends = inspector.end_offsets(TOPIC).await.expect("the broker answers");
        for (partition, offset) in &committed {
            assert!(offset <= &ends[partition], "partition {partition}: {offset} of {}", ends[partition]);
        }
        assert!(matches!(member.next().await, Event::Committed(id, CommitOutcome::Committed) if id.0 == round));
        assert_eq!(inspector.committed(TOPIC).await.expect("the broker answers"), next, "no lag is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_ends_in_any_state() {
    let bench = Bench::start();
    bench.produce(1_000).await;
    // With its channel full, with partitions paused, with a revoked generation that nobody drains, and without a broker.
    for state in 0..4 {
        let mut member = Member::join(&bench.kafka(), "member");
        let (generation, _) = member.assigned().await;
        let mut other = None;
        match state {
            0 => drop(member.record().await),
            1 => (0..PARTITIONS).for_each(|partition| member.consumer.pause(generation, partition)),
            2 => {
                other = Some(Member::join(&bench.kafka(), "other"));
                member.revoked().await;
            }
            _ => bench.broker.cut_connections(),
        }
        let Member { consumer, events } = member;
        timeout(PATIENCE, consumer.stop()).await.expect("it ends");
        drop(events);
        if let Some(mut other) = other {
            other.assigned_of(4).await;
            timeout(PATIENCE, other.consumer.stop()).await.expect("it ends");
        }
    }
    let member = Member::join(&bench.kafka(), "member");
    bench.broker.shutdown();
    timeout(PATIENCE, member.consumer.stop()).await.expect("it ends without a broker");
}
