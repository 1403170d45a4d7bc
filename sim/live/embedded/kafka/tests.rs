//! What is the embedded broker's own. What it has in common with Kafka is stated once for both, in `tests/conformance`.

mod versions;

use std::{
    net::TcpStream,
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::RDKafkaErrorCode,
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use super::{group::Place, *};

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

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("heartbeat.interval.ms", "100");
        config.create().expect("a consumer")
    }

    fn member(&self, group: &str) -> BaseConsumer {
        let consumer = self.consumer(group);
        consumer.subscribe(&["t"]).expect("subscribed");
        consumer
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
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

/// Sends the numbers from 0 to `count` as text, with one key.
fn send(producer: &ThreadedProducer<Deliveries>, count: usize) {
    for number in 0..count {
        let value = number.to_string();
        let mut record = BaseRecord::to("t").key("k").payload(&value);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
}

/// The next `count` numbers.
fn read(consumer: &BaseConsumer, count: usize) -> Vec<usize> {
    let (mut found, began) = (Vec::new(), Instant::now());
    while found.len() < count {
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = record.expect("a record");
        let value = std::str::from_utf8(record.payload().expect("a value")).expect("text");
        found.push(value.parse().expect("a number"));
    }
    found
}

/// Polls until it has all partitions.
fn settle(consumer: &BaseConsumer) {
    let began = Instant::now();
    while consumer.assignment().expect("an assignment").count() != 4 {
        assert!(began.elapsed() < PATIENCE, "the group does not settle");
        drop(consumer.poll(Duration::from_millis(20)));
    }
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
fn a_full_log_holds_producers_up_and_loses_nothing() {
    let bench = Bench::start(|config| {
        config.topics = vec![("t".to_owned(), 1)];
        config.bytes_max = 20_000;
    });
    let producer = bench.producer(&[("batch.num.messages", "10")]);
    send(&producer, 2_000);
    let consumer = bench.member("g");
    let (admin, mut values) = (bench.admin(), Vec::new());
    while values.len() < 2_000 {
        values.extend(read(&consumer, 10));
        assert!(bench.broker.bytes() <= 20_000, "the cap holds");
        let mut before = TopicPartitionList::new();
        before.add_partition_offset("t", 0, Offset::Offset(values.len() as i64)).expect("a partition");
        run(admin.delete_records(&before, &AdminOptions::new())).expect("deleted");
    }
    assert_eq!(values, (0..2_000).collect::<Vec<_>>());
    assert!(producer.context().failed.lock().expect("nobody panics").is_empty());
}

#[test]
fn an_offset_is_removed_by_name_only_while_nobody_reads_its_topic() {
    let bench = Bench::start(|_| {});
    let one = bench.member("g");
    settle(&one);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(7)).expect("a partition");
    one.commit(&offsets, CommitMode::Sync).expect("a member commits");
    drop(offsets);
    let place = |topic: &str| Place { topic: topic.to_owned(), partition: 0 };
    let remove = |group: &str, topic: &str| bench.broker.state.coordinator.delete_offset(group, &place(topic));
    assert_eq!(remove("g", "t"), Err(ResponseError::GroupSubscribedToTopic));
    assert_eq!(remove("g", "another"), Ok(()));
    assert_eq!(remove("nobody", "t"), Err(ResponseError::GroupIdNotFound));
    drop(one);
    let other = bench.consumer("g");
    assert_eq!(committed(&other, 0), Offset::Offset(7));
    assert_eq!(remove("g", "t"), Ok(()));
    assert_eq!(committed(&other, 0), Offset::Invalid);
}

#[test]
fn when_a_broker_is_dropped_nothing_of_it_is_left() {
    let bench = Bench::start(|_| {});
    let producer = bench.producer(&[]);
    send(&producer, 100);
    producer.flush(PATIENCE).expect("flushed");
    assert!(bench.broker.bytes() > 0);
    let address = bench.broker.bootstrap();
    let state = Arc::downgrade(&bench.broker.state);
    bench.broker.shutdown();
    // Not at once: a child that another test starts holds every socket until it has become its program.
    let began = Instant::now();
    while TcpStream::connect(&address).is_ok() {
        assert!(began.elapsed() < PATIENCE, "the port stays open");
    }
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
