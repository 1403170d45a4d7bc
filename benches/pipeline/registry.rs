//! Records of the log: through a registry into an empty database.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::kafka_topic,
    registry::{Offset, Partition},
};
use dmp_service::{
    config::Start,
    drive,
    kafka::{Producer, inspect::Inspector},
    registry::{self, Config, Faults, Feedback, StoreConfig},
    store::Access,
};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tokio::sync::mpsc;

use crate::{
    cpu::{Run, Stopwatch},
    events::Keys,
    program::{reaches, stop},
    servers::{NewDatabase, Servers},
};

const READ: &str = "dmp_registry_records_total";
pub(crate) const REFLECTED: &str = "dmp_registry_reflected_total";

/// Answers of Kafka that wait to be looked at.
const ANSWERS: usize = 10_000;

/// Time between two questions for offsets, and longest wait for an answer.
const ASK_EVERY: Duration = Duration::from_millis(200);
const LEADERS_WITHIN: Duration = Duration::from_secs(60);

/// The newest records of the log.
pub(crate) struct Span {
    begins: BTreeMap<Partition, Offset>,
    pub(crate) keys: Keys,
    /// The partition of each event.
    pub(crate) partitions: Vec<Partition>,
}

/// Puts the first `count` events at the end of the log.
pub(crate) async fn append(servers: &Servers, keys: Keys, count: u64) -> Span {
    let queue = usize::try_from(count).expect("small");
    let begins = ends(servers).await;
    let (answer, mut answers) = mpsc::channel(ANSWERS);
    let answer = move |id: EffectId, outcome| {
        let _bench_over = answer.blocking_send((id, outcome));
    };
    let producer = Producer::start(&servers.kafka, "bench", queue, answer).expect("good settings");
    for number in 0..count {
        let event = keys.event(number);
        let record = OutgoingRecord {
            topic: kafka_topic::EVENTS,
            key: event.topic().to_string().into(),
            value: event.encode().into(),
            timestamp: drive::wall(),
            headers: vec![],
        };
        producer.produce(EffectId(number), record).expect("the queue has room for all");
    }
    let mut partitions = BTreeMap::new();
    for _ in 0..count {
        let (id, outcome) = answers.recv().await.expect("each record is answered");
        let ProduceOutcome::Stored { partition, .. } = outcome else { panic!("storing a record: {outcome:?}") };
        partitions.insert(id, partition);
    }
    Span { begins, keys, partitions: partitions.into_values().collect() }
}

/// Runs a registry from the first of the records read until all are durable.
pub(crate) async fn reflect(servers: &Servers, span: &Span) -> Run {
    let database = servers.make_database().await;
    let config = config(servers, &database, group_at(servers, span.begins.clone()).await);
    let store = database.open(Access::Write).await;
    let registry = registry::start(config, store, Faults::default()).await.expect("the registry starts");
    reaches(&registry, READ, 1).await;
    let (stopwatch, all) = (Stopwatch::start(), span.partitions.len() as u64);
    reaches(&registry, REFLECTED, all).await;
    let run = stopwatch.stop(all);
    stop(registry).await;
    servers.remove_database(database).await;
    run
}

/// A registry of a deployment, the one that speaks to the RAEs.
pub(crate) fn config(servers: &Servers, database: &NewDatabase, group: String) -> Config {
    let defaults = Config::reading(servers.kafka.clone());
    Config {
        group,
        start: Start::Earliest,
        feedback: Feedback { enabled: Some(true), ..defaults.feedback },
        store: StoreConfig { url: database.url.clone(), ..defaults.store },
        ..defaults
    }
}

/// The offsets of the next records.
pub(crate) async fn ends(servers: &Servers) -> BTreeMap<Partition, Offset> {
    let inspector = Inspector::new(&servers.kafka, "bench").expect("good settings");
    let known = async {
        loop {
            // A topic that was just made has no leaders yet.
            match inspector.end_offsets(kafka_topic::EVENTS).await {
                Ok(ends) => return ends,
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    };
    tokio::time::timeout(LEADERS_WITHIN, known).await.expect("Kafka answers")
}

/// A new consumer group that is to read from these offsets on.
pub(crate) async fn group_at(servers: &Servers, offsets: BTreeMap<Partition, Offset>) -> String {
    let group = servers.name("group");
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &servers.kafka.bootstrap).set("group.id", &group);
    let commit = move || {
        let consumer: BaseConsumer = settings.create()?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(kafka_topic::EVENTS, partition, rdkafka::Offset::Offset(offset))?;
        }
        consumer.commit(&list, CommitMode::Sync)
    };
    let committed = tokio::task::spawn_blocking(commit).await.expect("it does not panic");
    committed.expect("Kafka takes the offsets of a group without members");
    group
}
