//! The Kafka adapter against librdkafka's mock cluster, which keeps 5 MiB per partition: far above what is used here.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
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
        Consumer, ConsumerConfig, Event, Fetch, KafkaError, Producer,
        inspect::{Inspector, Tail},
        topics,
    },
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{sync::mpsc, time::timeout};

const TOPIC: &str = "dmp.events";
const PARTITIONS: i32 = 3;
/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> (Cluster, Kafka) {
    let cluster = MockCluster::new(1).expect("a mock cluster starts");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("the mock cluster takes a topic");
    let kafka = Kafka::at(cluster.bootstrap_servers());
    (cluster, kafka)
}

fn record(number: u64) -> OutgoingRecord {
    OutgoingRecord {
        topic: TOPIC,
        key: format!("key-{}", number % 5).into(),
        value: number.to_string().into(),
        timestamp: Wall(1_700_000_000_000 + i64::try_from(number).expect("small")),
        headers: vec![("mqtt-qos", "1".to_owned()), ("mqtt-retain", u64::from(number == 3).to_string())],
    }
}

/// Produces records `0..count` and waits for their answers.
async fn produce(kafka: &Kafka, count: u64) -> BTreeMap<u64, (Partition, Offset)> {
    let (answers, mut answered) = mpsc::channel(1_000);
    let answer = move |id: EffectId, outcome| answers.blocking_send((id, outcome)).expect("the test listens");
    let producer = Producer::start(kafka, "test-producer", 1_000, answer).expect("the settings are good");
    for number in 0..count {
        producer.produce(EffectId(number), record(number)).expect("the queue has room");
    }
    let mut stored = BTreeMap::new();
    while (stored.len() as u64) < count {
        let (id, outcome) = timeout(PATIENCE, answered.recv()).await.expect("an answer in time").expect("an answer");
        let ProduceOutcome::Stored { partition, offset } = outcome else { panic!("not stored: {outcome:?}") };
        assert!(stored.insert(id.0, (partition, offset)).is_none(), "each record is answered once");
    }
    stored
}

struct Group {
    consumer: Consumer,
    events: mpsc::Receiver<Event>,
}

impl Group {
    fn join(kafka: &Kafka, channel: usize, fault: impl Fn() -> bool + Send + 'static) -> Group {
        let (sender, events) = mpsc::channel(channel);
        let config = ConsumerConfig {
            kafka: kafka.clone(),
            group: "test-group".to_owned(),
            client_id: "test-consumer".to_owned(),
            topic: TOPIC,
            fetch: Fetch::Bulk,
            start: Start::Earliest,
            drain_within: Duration::from_secs(5),
            backoff: Backoff { first: Duration::from_millis(10), most: Duration::from_millis(100) },
            fault: Box::new(fault),
            restarted: Box::new(|_reason| {}),
        };
        Group { consumer: Consumer::start(config, sender).expect("the settings are good"), events }
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the reader lives")
    }

    async fn assigned(&mut self) -> (Generation, BTreeMap<Partition, Offset>) {
        match self.next().await {
            Event::Assigned(generation, starts) => (generation, starts.into_iter().collect()),
            other => panic!("not assigned but {other:?}"),
        }
    }

    async fn record(&mut self) -> (Generation, Record) {
        match self.next().await {
            Event::Record(generation, record) => (generation, record),
            other => panic!("no record but {other:?}"),
        }
    }

    async fn committed(&mut self) -> (EffectId, CommitOutcome) {
        loop {
            match self.next().await {
                Event::Committed(id, outcome) => return (id, outcome),
                Event::Record(..) => {}
                other => panic!("no commit but {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_tailed_in_order_with_key_headers_and_timestamp() {
    let (_cluster, kafka) = cluster();
    let stored = produce(&kafka, 50).await;
    let inspector = Inspector::new(&kafka, "test-group").expect("the settings are good");
    let ends = inspector.end_offsets(TOPIC).await.expect("the cluster answers");
    assert_eq!(ends.values().sum::<i64>(), 50);
    assert!(inspector.committed(TOPIC).await.expect("the cluster answers").is_empty());

    let (sender, mut tailed) = mpsc::channel(4);
    let _tail = Tail::start(&kafka, TOPIC, BTreeMap::new(), sender).await.expect("the topic is there");
    let mut newest: BTreeMap<Partition, u64> = BTreeMap::new();
    for _ in 0..50 {
        let seen = timeout(PATIENCE, tailed.recv()).await.expect("a record in time").expect("the tail lives");
        let number: u64 = std::str::from_utf8(&seen.value.expect("a value")).expect("text").parse().expect("a number");
        let wanted = record(number);
        assert_eq!(stored[&number], (seen.partition, seen.offset));
        assert_eq!(seen.key.as_ref(), Some(&wanted.key));
        assert_eq!(seen.timestamp, wanted.timestamp);
        let headers: Vec<_> = seen.headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let retain: &[u8] = if number == 3 { b"1" } else { b"0" };
        assert_eq!(headers, [("mqtt-qos", Some(b"1".as_slice())), ("mqtt-retain", Some(retain))]);
        assert!(newest.insert(seen.partition, number).is_none_or(|before| before < number), "order of hand-over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_member_reads_through_a_narrow_channel_commits_and_resumes_behind_its_commit() {
    let (_cluster, kafka) = cluster();
    let stored = produce(&kafka, 40).await;
    // A channel of one: the reader holds a record most of the time, and still serves the commit.
    let mut group = Group::join(&kafka, 1, || false);
    let (generation, starts) = group.assigned().await;
    assert_eq!(starts, (0..PARTITIONS).map(|partition| (partition, 0)).collect());
    let mut next: BTreeMap<Partition, Offset> = starts;
    for _ in 0..40 {
        let (of, record) = group.record().await;
        assert_eq!(of, generation);
        assert_eq!(next.insert(record.partition, record.offset + 1), Some(record.offset), "no record is skipped");
        let number: u64 = std::str::from_utf8(&record.value.expect("a value")).expect("text").parse().expect("number");
        assert_eq!(record.retained, number == 3);
    }
    assert_eq!(stored.len(), 40);
    let half: Vec<_> = next.iter().map(|(&partition, &offset)| (partition, offset / 2)).collect();
    group.consumer.commit(EffectId(1), generation, half.clone());
    assert_eq!(group.committed().await, (EffectId(1), CommitOutcome::Committed));
    group.consumer.commit(EffectId(2), Generation(generation.0 + 1), half.clone());
    assert_eq!(group.committed().await, (EffectId(2), CommitOutcome::Stale));
    let inspector = Inspector::new(&kafka, "test-group").expect("the settings are good");
    assert_eq!(inspector.committed(TOPIC).await.expect("the cluster answers"), half.iter().copied().collect());
    group.consumer.stop().await;

    let mut group = Group::join(&kafka, 64, || false);
    assert_eq!(group.assigned().await.1, half.into_iter().collect());
    group.consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_is_silent_and_loses_nothing_when_resumed() {
    let (_cluster, kafka) = cluster();
    produce(&kafka, 60).await;
    let mut group = Group::join(&kafka, 1, || false);
    let (generation, mut next) = group.assigned().await;
    let (_, first) = group.record().await;
    next.insert(first.partition, first.offset + 1);
    group.consumer.pause(generation, first.partition);
    let mut seen = 1;
    let mut late = 0;
    let others: i64 = 60
        - Inspector::new(&kafka, "test-group")
            .expect("the settings are good")
            .end_offsets(TOPIC)
            .await
            .expect("the cluster answers")[&first.partition];
    while next.iter().filter(|(p, _)| **p != first.partition).map(|(_, offset)| offset).sum::<i64>() < others {
        let (_, record) = group.record().await;
        assert_eq!(next.insert(record.partition, record.offset + 1), Some(record.offset));
        late += u32::from(record.partition == first.partition);
        seen += 1;
    }
    assert!(late <= 2, "at most what was held and in the channel arrives after the pause, not {late}");
    group.consumer.resume(generation, first.partition);
    while seen < 60 {
        let (_, record) = group.record().await;
        assert_eq!(next.insert(record.partition, record.offset + 1), Some(record.offset));
        seen += 1;
    }
    group.consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_fails_tells_that_its_generation_is_lost_and_starts_again() {
    let (_cluster, kafka) = cluster();
    produce(&kafka, 1).await;
    static FAIL: AtomicBool = AtomicBool::new(false);
    let mut group = Group::join(&kafka, 64, || FAIL.swap(false, Ordering::Relaxed));
    let (generation, _) = group.assigned().await;
    assert_eq!(group.record().await.1.offset, 0);
    FAIL.store(true, Ordering::Relaxed);
    assert_eq!(group.next().await, Event::Lost(generation));
    group.consumer.commit(EffectId(7), generation, vec![(0, 1)]);
    let mut stale = false;
    let again = loop {
        match group.next().await {
            Event::Committed(EffectId(7), CommitOutcome::Stale) => stale = true,
            Event::Assigned(again, _) => break again,
            other => panic!("neither the answer nor an assignment but {other:?}"),
        }
    };
    assert!(stale && again > generation);
    assert_eq!(group.record().await.1.offset, 0, "nothing was committed, so it is read again");
    group.consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_makes_the_first_drain_before_it_gives_partitions_away() {
    let (_cluster, kafka) = cluster();
    produce(&kafka, 30).await;
    let mut first = Group::join(&kafka, 256, || false);
    let (generation, starts) = first.assigned().await;
    assert_eq!(starts.len(), 3);
    let mut next = BTreeMap::new();
    for _ in 0..30 {
        let (_, record) = first.record().await;
        next.insert(record.partition, record.offset + 1);
    }
    first.consumer.commit(EffectId(1), generation, next.clone().into_iter().collect());
    assert_eq!(first.committed().await, (EffectId(1), CommitOutcome::Committed));
    let mut second = Group::join(&kafka, 256, || false);
    assert_eq!(first.next().await, Event::Revoked(generation));
    // A commit of the drain is served although the thread waits. Kafka takes it; the mock refuses it while it rebalances.
    first.consumer.commit(EffectId(2), generation, next.clone().into_iter().collect());
    let (id, outcome) = first.committed().await;
    assert_eq!(id, EffectId(2));
    assert_ne!(outcome, CommitOutcome::Stale);
    first.consumer.drained(generation);
    let (after, kept) = first.assigned().await;
    let (_, given) = second.assigned().await;
    assert!(after > generation);
    let together: BTreeMap<_, _> = kept.iter().chain(&given).map(|(p, o)| (*p, *o)).collect();
    assert_eq!(kept.len() + given.len(), 3);
    for (partition, start) in together {
        assert_eq!(start, next.get(&partition).copied().unwrap_or(0), "both start behind the commit");
    }
    first.consumer.commit(EffectId(3), generation, next.into_iter().collect());
    let answer = loop {
        match first.next().await {
            Event::Committed(id, outcome) => break (id, outcome),
            // On a busy machine the mock rebalances once more.
            Event::Revoked(again) => first.consumer.drained(again),
            Event::Lost(_) | Event::Assigned(..) | Event::Record(..) => {}
        }
    };
    assert_eq!(answer, (EffectId(3), CommitOutcome::Stale));
    first.consumer.stop().await;
    second.consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_brokers_and_missing_topics_are_told_apart() {
    let (_cluster, kafka) = cluster();
    topics::wait_for(&kafka, &[TOPIC], PATIENCE).await.expect("the topic is there");
    let missing = topics::wait_for(&kafka, &[TOPIC, "dmp.absent"], Duration::ZERO).await.expect_err("it is missing");
    let KafkaError::MissingTopics { topics: missing, .. } = missing else { panic!("not missing but {missing:?}") };
    assert_eq!(missing, ["dmp.absent"]);

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let away = topics::wait_for(&Kafka::at(nobody.to_string()), &[TOPIC], Duration::ZERO).await.expect_err("nobody");
    assert!(matches!(away, KafkaError::Unreachable { .. }), "{away:?}");
    assert!(away.to_string().contains(&nobody.to_string()), "{away}");
}
