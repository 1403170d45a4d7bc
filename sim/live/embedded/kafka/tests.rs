//! The broker as librdkafka sees it.

mod proxy;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpStream,
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use super::{group::Place, *};
use proxy::Proxy;

/// How long a condition is waited for before a test fails; nothing here takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    broker: Broker,
    directory: tempfile::TempDir,
}

impl Bench {
    fn start(change: impl FnOnce(&mut Config)) -> Bench {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::new(directory.path());
        config.topics = vec![("t".to_owned(), 4)];
        change(&mut config);
        Bench { broker: Broker::start(config).expect("a broker"), directory }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.bootstrap());
        config.set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "50");
        config.set("retry.backoff.ms", "10").set("retry.backoff.max.ms", "50");
        config
    }

    fn producer(&self, settings: &[(&str, &str)]) -> ThreadedProducer<Deliveries> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "1");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create_with_context(Deliveries::default()).expect("a producer")
    }

    fn consumer(&self, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("heartbeat.interval.ms", "100");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a consumer")
    }

    fn member(&self, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let consumer = self.consumer(group, settings);
        consumer.subscribe(&["t"]).expect("subscribed");
        consumer
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Low and high watermark.
    fn watermarks(&self, partition: i32) -> (i64, i64) {
        self.consumer("none", &[]).fetch_watermarks("t", partition, PATIENCE).expect("watermarks")
    }
}

/// Outcomes of deliveries.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Vec<RDKafkaErrorCode>>,
}

impl rdkafka::ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("nobody panics").extend(error.rdkafka_error_code());
        }
    }
}

/// Sends records 0 to `count` as text, record n with key `k<n % keys>`.
fn send(producer: &ThreadedProducer<Deliveries>, count: usize, keys: usize) {
    for number in 0..count {
        let (key, value) = (format!("k{}", number % keys), number.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&value) });
        let mut record = BaseRecord::to("t").key(&key).payload(&value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
}

/// Value by value, what each key's records were, in the order in which they were read; and the key's partition.
type ByKey = BTreeMap<String, (i32, Vec<usize>)>;

fn read(consumer: &BaseConsumer, count: usize) -> ByKey {
    let (mut found, began) = (ByKey::new(), Instant::now());
    for _ in 0..count {
        let record = loop {
            assert!(began.elapsed() < PATIENCE, "{found:?}");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => break record,
                // Told once when all connections are cut; the client connects again.
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown))) | None => {}
                Some(Err(error)) => panic!("{error}"),
            }
        };
        let value = std::str::from_utf8(record.payload().expect("a value")).expect("text");
        let header = record.headers().expect("headers").get(0);
        assert_eq!((header.key, header.value), ("n", record.payload()));
        let key = String::from_utf8(record.key().expect("a key").to_vec()).expect("text");
        let entry = found.entry(key).or_insert((record.partition(), Vec::new()));
        assert_eq!(entry.0, record.partition(), "a key has one partition");
        entry.1.push(value.parse().expect("a number"));
    }
    found
}

fn expected(count: usize, keys: usize) -> BTreeMap<String, Vec<usize>> {
    (0..keys).map(|key| (format!("k{key}"), (key..count).step_by(keys).collect())).collect()
}

fn without_partitions(found: ByKey) -> BTreeMap<String, Vec<usize>> {
    found.into_iter().map(|(key, (_, values))| (key, values)).collect()
}

/// Polls all until they have the numbers of partitions wanted.
fn settle(consumers: &[(&BaseConsumer, usize)]) {
    let began = Instant::now();
    let assigned = |consumer: &BaseConsumer| consumer.assignment().expect("an assignment").count();
    while consumers.iter().any(|(consumer, wanted)| assigned(consumer) != *wanted) {
        assert!(began.elapsed() < PATIENCE, "the group does not settle");
        for (consumer, _) in consumers {
            drop(consumer.poll(Duration::from_millis(20)));
        }
    }
}

fn commit(consumer: &BaseConsumer, partition: i32, offset: i64) -> Result<(), KafkaError> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", partition, Offset::Offset(offset)).expect("a partition");
    consumer.commit(&offsets, CommitMode::Sync)
}

fn committed(consumer: &BaseConsumer, partition: i32) -> Offset {
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", partition);
    let found = consumer.committed_offsets(asked, PATIENCE).expect("offsets");
    found.find_partition("t", partition).expect("the partition asked for").offset()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn keys_headers_and_order_come_through() {
    let bench = Bench::start(|_| {});
    let producer = bench.producer(&[("compression.type", "lz4")]);
    send(&producer, 5_000, 20);
    producer.flush(PATIENCE).expect("flushed");
    let found = read(&bench.member("g", &[]), 5_000);
    let partitions: BTreeSet<i32> = found.values().map(|(partition, _)| *partition).collect();
    assert_eq!(partitions.len(), 4, "all partitions are used");
    assert_eq!(without_partitions(found), expected(5_000, 20));
}

#[test]
fn an_idempotent_producer_whose_answers_are_lost_stores_each_record_once_and_in_order() {
    let proxy = Proxy::bind();
    let bench = Bench::start(|config| config.advertised_port = Some(proxy.port()));
    proxy.run(bench.broker.bootstrap(), Some(15));
    let producer = bench.producer(&[("batch.num.messages", "5")]);
    send(&producer, 4_000, 20);
    producer.flush(PATIENCE).expect("flushed");
    assert!(proxy.cuts() > 10, "{} answers were lost", proxy.cuts());
    assert!(producer.context().failed.lock().expect("nobody panics").is_empty());
    let ends: i64 = (0..4).map(|partition| bench.watermarks(partition).1).sum();
    assert_eq!(ends, 4_000);
    assert_eq!(without_partitions(read(&bench.member("g", &[]), 4_000)), expected(4_000, 20));
}

#[test]
fn clients_carry_on_after_all_connections_are_cut() {
    let bench = Bench::start(|_| {});
    let (producer, consumer) = (bench.producer(&[]), bench.member("g", &[]));
    settle(&[(&consumer, 4)]);
    bench.broker.cut_connections();
    send(&producer, 100, 5);
    assert_eq!(without_partitions(read(&consumer, 100)), expected(100, 5));
}

#[test]
fn members_share_the_partitions_and_take_over_from_those_that_leave() {
    for strategy in ["range", "cooperative-sticky"] {
        let bench = Bench::start(|_| {});
        let settings = [("partition.assignment.strategy", strategy)];
        let one = bench.member("g", &settings);
        settle(&[(&one, 4)]);
        let two = bench.member("g", &settings);
        settle(&[(&one, 2), (&two, 2)]);
        let three = bench.member("g", &settings);
        // Of four partitions somebody has two.
        let began = Instant::now();
        let counts = |all: [&BaseConsumer; 3]| {
            let mut counts = all.map(|one| one.assignment().expect("an assignment").count());
            counts.sort_unstable();
            counts
        };
        while counts([&one, &two, &three]) != [1, 1, 2] {
            assert!(began.elapsed() < PATIENCE);
            [&one, &two, &three].into_iter().for_each(|one| drop(one.poll(Duration::from_millis(20))));
        }
        drop(two);
        settle(&[(&one, 2), (&three, 2)]);
        drop(one);
        settle(&[(&three, 4)]);
    }
}

#[test]
fn a_silent_member_is_expelled_and_its_late_commit_refused() {
    let proxy = Proxy::bind();
    let bench = Bench::start(|config| config.advertised_port = Some(proxy.port()));
    proxy.run(bench.broker.bootstrap(), None);
    let settings = [("session.timeout.ms", "1000"), ("topic.metadata.refresh.interval.ms", "-1")];
    let zombie = bench.member("g", &settings);
    settle(&[(&zombie, 4)]);
    commit(&zombie, 0, 5).expect("a member commits");
    proxy.silence();
    let heir = bench.member("g", &settings);
    settle(&[(&heir, 4)]);
    commit(&heir, 0, 9).expect("the new owner commits");
    proxy.heal();
    let refused = commit(&zombie, 0, 7).expect_err("its generation is over");
    let code = refused.rdkafka_error_code().expect("a code");
    assert!([RDKafkaErrorCode::UnknownMemberId, RDKafkaErrorCode::IllegalGeneration].contains(&code), "{code:?}");
    assert_eq!(committed(&heir, 0), Offset::Offset(9));
}

#[test]
fn a_commit_survives_its_member_and_tells_the_lag() {
    let bench = Bench::start(|_| {});
    let producer = bench.producer(&[]);
    send(&producer, 100, 1);
    producer.flush(PATIENCE).expect("flushed");
    let one = bench.member("g", &[]);
    let (partition, _) = read(&one, 40)["k0"];
    commit(&one, partition, 40).expect("committed");
    drop(one);
    let two = bench.member("g", &[]);
    assert_eq!(committed(&two, partition), Offset::Offset(40));
    assert_eq!(bench.watermarks(partition), (0, 100));
    assert_eq!(read(&two, 60)["k0"].1, (40..100).collect::<Vec<_>>());
    assert_eq!(committed(&bench.consumer("other", &[]), partition), Offset::Invalid);
}

#[test]
fn an_offset_that_was_deleted_is_out_of_range() {
    let bench = Bench::start(|config| config.topics = vec![("t".to_owned(), 1)]);
    let producer = bench.producer(&[]);
    send(&producer, 100, 1);
    producer.flush(PATIENCE).expect("flushed");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("t", 0, Offset::Offset(30)).expect("a partition");
    let deleted = run(bench.admin().delete_records(&before, &AdminOptions::new())).expect("deleted");
    assert_eq!(deleted.find_partition("t", 0).expect("the partition").offset(), Offset::Offset(30));
    assert_eq!(bench.watermarks(0), (30, 100));

    let strict = bench.consumer("g", &[("auto.offset.reset", "error")]);
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("t", 0, Offset::Offset(10)).expect("a partition");
    strict.assign(&start).expect("assigned");
    let error = strict.poll(PATIENCE).expect("an answer").expect_err("the record is gone");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset), "{error}");
    assert_eq!(read(&bench.member("h", &[]), 70)["k0"].1, (30..100).collect::<Vec<_>>());
}

#[test]
fn an_oversized_record_is_refused_and_others_are_not() {
    let bench = Bench::start(|_| {});
    let producer = bench.producer(&[("message.max.bytes", "4000000")]);
    producer
        .send(BaseRecord::to("t").key("k").payload(&vec![b'v'; 2 << 20]))
        .map_err(|(error, _)| error)
        .expect("queued");
    producer.flush(PATIENCE).expect("flushed");
    let failed = std::mem::take(&mut *producer.context().failed.lock().expect("nobody panics"));
    assert_eq!(failed, [RDKafkaErrorCode::MessageSizeTooLarge]);
    let producer = bench.producer(&[]);
    send(&producer, 10, 1);
    assert_eq!(without_partitions(read(&bench.member("g", &[]), 10)), expected(10, 1));
}

#[test]
fn a_full_log_holds_producers_up_and_loses_nothing() {
    let bench = Bench::start(|config| {
        config.topics = vec![("t".to_owned(), 1)];
        config.bytes_max = 20_000;
    });
    let producer = bench.producer(&[("batch.num.messages", "10")]);
    send(&producer, 2_000, 1);
    let consumer = bench.member("g", &[]);
    let (admin, mut values) = (bench.admin(), Vec::<usize>::new());
    while values.len() < 2_000 {
        values.extend(read(&consumer, 10)["k0"].1.iter());
        assert!(bench.broker.bytes() <= 20_000, "the cap holds");
        let mut before = TopicPartitionList::new();
        before.add_partition_offset("t", 0, Offset::Offset(values.len() as i64)).expect("a partition");
        run(admin.delete_records(&before, &AdminOptions::new())).expect("deleted");
    }
    assert_eq!(values, (0..2_000).collect::<Vec<_>>());
    assert!(producer.context().failed.lock().expect("nobody panics").is_empty());
}

#[test]
fn a_time_leads_to_an_offset() {
    let bench = Bench::start(|config| config.topics = vec![("t".to_owned(), 1)]);
    let producer = bench.producer(&[]);
    for at in [1_000, 2_000, 3_000] {
        let record = BaseRecord::to("t").key("k").payload("v").timestamp(at);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    }
    producer.flush(PATIENCE).expect("flushed");
    let consumer = bench.consumer("g", &[]);
    let at = |timestamp: i64| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("t", 0, Offset::Offset(timestamp)).expect("a partition");
        let found = consumer.offsets_for_times(asked, PATIENCE).expect("offsets");
        found.find_partition("t", 0).expect("the partition").offset()
    };
    assert_eq!([at(0), at(1_001), at(3_000)], [Offset::Offset(0), Offset::Offset(1), Offset::Offset(2)]);
    assert_eq!(at(3_001), Offset::End);
}

#[test]
fn topics_are_made_grown_and_removed_by_an_admin_client() {
    let bench = Bench::start(|_| {});
    let (admin, options) = (bench.admin(), AdminOptions::new());
    let topic = NewTopic::new("new", 2, TopicReplication::Fixed(1));
    let made = run(admin.create_topics([&topic], &options)).expect("an answer");
    assert_eq!(made, [Ok("new".to_owned())]);
    let again = run(admin.create_topics([&topic], &options)).expect("an answer");
    assert_eq!(again, [Err(("new".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let grown = run(admin.create_partitions([&NewPartitions::new("new", 6)], &options)).expect("an answer");
    assert_eq!(grown, [Ok("new".to_owned())]);
    let partitions = |topic: &str| {
        let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        (metadata.topics()[0].partitions().len(), metadata.topics()[0].error().is_some())
    };
    assert_eq!(partitions("new"), (6, false));
    assert_eq!(run(admin.delete_topics(&["new"], &options)).expect("an answer"), [Ok("new".to_owned())]);
    assert_eq!(partitions("new"), (0, true), "an unknown topic is refused");
}

#[test]
fn groups_are_listed_with_their_states() {
    let bench = Bench::start(|_| {});
    let one = bench.member("g", &[("client.id", "somebody")]);
    settle(&[(&one, 4)]);
    let listed = one.client().fetch_group_list(None, PATIENCE).expect("groups");
    let group = listed.groups().iter().find(|group| group.name() == "g").expect("the group");
    assert_eq!((group.state(), group.protocol_type(), group.members().len()), ("Stable", "consumer", 1));
    assert_eq!(group.members()[0].client_id(), "somebody");
}

#[test]
fn an_offset_is_removed_by_name_only_while_nobody_reads_its_topic() {
    let bench = Bench::start(|_| {});
    let one = bench.member("g", &[]);
    settle(&[(&one, 4)]);
    commit(&one, 0, 7).expect("a member commits");
    let place = |topic: &str| Place { topic: topic.to_owned(), partition: 0 };
    let remove = |group: &str, topic: &str| bench.broker.state.coordinator.delete_offset(group, &place(topic));
    assert_eq!(remove("g", "t"), Err(ResponseError::GroupSubscribedToTopic));
    assert_eq!(remove("g", "another"), Ok(()));
    assert_eq!(remove("nobody", "t"), Err(ResponseError::GroupIdNotFound));
    drop(one);
    let other = bench.consumer("g", &[]);
    assert_eq!(committed(&other, 0), Offset::Offset(7));
    assert_eq!(remove("g", "t"), Ok(()));
    assert_eq!(committed(&other, 0), Offset::Invalid);
}

#[test]
fn when_a_broker_is_dropped_nothing_of_it_is_left() {
    let bench = Bench::start(|_| {});
    let producer = bench.producer(&[]);
    send(&producer, 100, 1);
    producer.flush(PATIENCE).expect("flushed");
    assert!(bench.broker.bytes() > 0);
    let address = bench.broker.bootstrap();
    let state = Arc::downgrade(&bench.broker.state);
    bench.broker.shutdown();
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
    assert_eq!(state.strong_count(), 0, "logs and groups are gone");
    assert_eq!(std::fs::read_dir(bench.directory.path()).expect("readable").count(), 0);
}

#[test]
fn a_broker_starts_and_stops_inside_an_async_program() {
    run(async {
        let bench = Bench::start(|_| {});
        drop(bench.broker);
    });
}

#[test]
fn a_taken_port_and_a_missing_directory_are_told() {
    let bench = Bench::start(|_| {});
    let mut taken = Config::new(bench.directory.path());
    taken.port = Some(bench.broker.port);
    assert!(matches!(Broker::start(taken), Err(Error::Listen { .. })));
    let missing = Config::new(bench.directory.path().join("missing"));
    assert!(matches!(Broker::start(missing), Err(Error::Directory { .. })));
}
