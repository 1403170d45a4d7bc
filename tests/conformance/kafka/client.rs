//! librdkafka as the tests use it, past the adapter.
#![expect(clippy::disallowed_methods, reason = "deadlines of waits for brokers that are real")]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, ProducerContext, ThreadedProducer},
};

use super::{Bench, PARTITIONS, PATIENCE};

impl Bench {
    fn client(&self, name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("client.id", self.named(name));
        config.set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "50");
        config.set("retry.backoff.ms", "10").set("retry.backoff.max.ms", "50");
        config
    }

    pub(super) fn producer(&self, name: &str, settings: &[(&str, &str)]) -> ThreadedProducer<Deliveries> {
        let mut config = self.client(name);
        config.set("enable.idempotence", "true").set("linger.ms", "1");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create_with_context(Deliveries::default()).expect("a producer")
    }

    /// A consumer of `group` that has not joined it.
    pub(super) fn consumer(&self, name: &str, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.client(name);
        config.set("group.id", self.named(group)).set("auto.offset.reset", "earliest");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("heartbeat.interval.ms", "100");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a consumer")
    }

    /// A consumer that has subscribed to the topic.
    pub(super) fn member(&self, name: &str, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let consumer = self.consumer(name, group, settings);
        consumer.subscribe(&[self.topic]).expect("subscribed");
        consumer
    }

    /// A consumer of all partitions from their beginning, in no group.
    pub(super) fn assigned(&self, name: &str) -> BaseConsumer {
        let consumer = self.consumer(name, name, &[]);
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(self.topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("assigned");
        consumer
    }

    pub(super) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client("admin").create().expect("an admin client")
    }

    /// Makes a topic and waits until it is there for everybody.
    pub(super) async fn make_topic(&self, topic: &str) {
        // By their own time the records of tests are years old: a broker that looks for what is to be kept no longer
        // would find them, half a minute after its start and now and then.
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "CreateTime")
            .set("retention.ms", "-1");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = self.admin().create_topics([&new], &options).await.expect("an answer");
        assert_eq!(made, [Ok(topic.to_owned())]);
        let look = self.consumer("look", "look", &[]);
        eventually("the topic is there", || {
            let metadata = look.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
            let partitions = metadata.topics()[0].partitions();
            partitions.len() == PARTITIONS as usize && partitions.iter().all(|partition| partition.leader() >= 0)
        });
    }

    /// Deletes the records of a partition before an offset; the oldest that is left.
    pub(super) async fn delete_before(&self, partition: i32, offset: i64) -> Offset {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(self.topic, partition, Offset::Offset(offset)).expect("a partition");
        let deleted = self.admin().delete_records(&before, &AdminOptions::new()).await.expect("deleted");
        deleted.find_partition(self.topic, partition).expect("the partition").offset()
    }

    /// Low and high watermark.
    pub(super) fn watermarks(&self, partition: i32) -> (i64, i64) {
        self.consumer("look", "look", &[]).fetch_watermarks(self.topic, partition, PATIENCE).expect("watermarks")
    }
}

/// Outcomes of deliveries.
#[derive(Default)]
pub(super) struct Deliveries {
    failed: Mutex<Vec<RDKafkaErrorCode>>,
}

impl Deliveries {
    pub(super) fn failed(&self) -> Vec<RDKafkaErrorCode> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl rdkafka::ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.extend(error.rdkafka_error_code());
        }
    }
}

/// Sends records 0 to `count` as text, record n with key `k<n % keys>`.
pub(super) fn send(bench: &Bench, producer: &ThreadedProducer<Deliveries>, count: usize, keys: usize) {
    for number in 0..count {
        let (key, value) = (format!("k{}", number % keys), number.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&value) });
        let mut record = BaseRecord::to(bench.topic).key(&key).payload(&value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
}

/// Value by value, what each key's records were, in the order in which they were read; and the key's partition.
pub(super) type ByKey = BTreeMap<String, (i32, Vec<usize>)>;

pub(super) fn read(consumer: &BaseConsumer, count: usize) -> ByKey {
    let (mut found, began) = (ByKey::new(), Instant::now());
    for _ in 0..count {
        let record = loop {
            assert!(began.elapsed() < PATIENCE, "{found:?}");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => break record,
                // Told when connections are cut; the client connects again.
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                )))
                | None => {}
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

pub(super) fn expected(count: usize, keys: usize) -> BTreeMap<String, Vec<usize>> {
    (0..keys).map(|key| (format!("k{key}"), (key..count).step_by(keys).collect())).collect()
}

pub(super) fn without_partitions(found: ByKey) -> BTreeMap<String, Vec<usize>> {
    found.into_iter().map(|(key, (_, values))| (key, values)).collect()
}

/// Serves a member, whatever comes.
pub(super) fn poll(consumer: &BaseConsumer) {
    drop(consumer.poll(Duration::from_millis(20)));
}

/// Polls all until they have the numbers of partitions wanted.
pub(super) fn settle(consumers: &[(&BaseConsumer, usize)]) {
    let assigned = |consumer: &BaseConsumer| consumer.assignment().expect("an assignment").count();
    eventually("the group settles", || {
        consumers.iter().for_each(|(consumer, _)| poll(consumer));
        consumers.iter().all(|(consumer, wanted)| assigned(consumer) == *wanted)
    });
}

/// Tries again and again, within a bound; what is tried takes its time by itself.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
    }
}

pub(super) fn commit(bench: &Bench, consumer: &BaseConsumer, partition: i32, offset: i64) -> Result<(), KafkaError> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(bench.topic, partition, Offset::Offset(offset)).expect("a partition");
    consumer.commit(&offsets, CommitMode::Sync)
}

pub(super) fn committed(bench: &Bench, consumer: &BaseConsumer, partition: i32) -> Offset {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(bench.topic, partition);
    let found = consumer.committed_offsets(asked, PATIENCE).expect("offsets");
    found.find_partition(bench.topic, partition).expect("the partition asked for").offset()
}
