//! A registry's surroundings: librdkafka's mock cluster, a SQLite store, and a look at its metrics.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::{Body, StateEvent, Value, kafka_topic},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::Wall,
};
use dmp_service::{
    config::Kafka,
    kafka::{Producer, inspect::Inspector},
    program::Running,
    registry::Config,
    store::{Access, SqliteStore, StoreUrl},
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    _folder: Option<tempfile::TempDir>,
    pub(crate) url: StoreUrl,
    pub(crate) config: Config,
}

impl Bench {
    /// With its store in a directory of its own.
    pub(crate) fn new() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Bench::with_store_in(folder.path());
        Bench { _folder: Some(folder), ..bench }
    }

    /// With its store in `directory`.
    pub(crate) fn with_store_in(directory: &Path) -> Bench {
        let cluster = MockCluster::new(1).expect("a mock cluster starts");
        cluster.create_topic(kafka_topic::EVENTS, 3, 1).expect("the mock cluster takes a topic");
        for topic in [kafka_topic::COMMANDS, kafka_topic::DEAD_LETTER] {
            cluster.create_topic(topic, 1, 1).expect("the mock cluster takes a topic");
        }
        let url = format!("sqlite:{}", directory.join("store.db").display()).parse().expect("a store URL");
        let mut config = Config::reading(Kafka::at(cluster.bootstrap_servers()));
        config.snapshot_period = Duration::from_secs(60);
        config.backoff.first = Duration::from_millis(10);
        config.pipeline.commit_every = Duration::from_millis(100);
        Bench { _cluster: cluster, _folder: None, url, config }
    }

    pub(crate) async fn store(&self, access: Access) -> SqliteStore {
        let StoreUrl::Sqlite(url) = &self.url else { panic!("an embedded store") };
        SqliteStore::open(url, access).await.expect("the store opens")
    }

    /// Stores a snapshot of each of `devices` devices, and `poison` records that cannot be decoded.
    pub(crate) async fn produce(&self, devices: u128, poison: u64) {
        let (answers, mut answered) = mpsc::channel(1_000);
        let answer = move |id: EffectId, outcome| answers.blocking_send((id, outcome)).expect("the test listens");
        let producer = Producer::start(&self.config.kafka, "test-producer", 1_000, answer).expect("good settings");
        let snapshots = (1..=devices).map(|number| {
            let event = snapshot(number);
            (event.topic().to_string(), event.encode())
        });
        let junk = (0..poison).map(|_| ("dmp/v1/s00/no/such/topic".to_owned(), b"{".to_vec()));
        let mut count = 0;
        for (key, value) in snapshots.chain(junk) {
            let record = OutgoingRecord {
                topic: kafka_topic::EVENTS,
                key: key.into(),
                value: value.into(),
                timestamp: dmp_service::drive::wall(),
                headers: vec![],
            };
            producer.produce(EffectId(count), record).expect("the queue has room");
            count += 1;
        }
        for _ in 0..count {
            let (_, outcome) = timeout(PATIENCE, answered.recv()).await.expect("in time").expect("an answer");
            assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
        }
    }

    pub(crate) async fn committed_and_end(&self, topic: &str) -> (i64, i64) {
        let inspector = Inspector::new(&self.config.kafka, &self.config.group).expect("good settings");
        let committed = inspector.committed(topic).await.expect("the cluster answers").values().sum();
        (committed, inspector.end_offsets(topic).await.expect("the cluster answers").values().sum())
    }
}

pub(crate) fn snapshot(number: u128) -> StateEvent {
    let (value, seq) = (Value::Integer(i64::try_from(number).expect("small")), Seq::FIRST);
    StateEvent {
        rae: Rae::try_from("RAE-0000001").expect("a serial"),
        device: Device::of_hardware(&number.to_string()),
        version: Version { epoch: Epoch::FIRST, session: Session(uuid::Uuid::from_u128(number)), seq },
        at: Wall(0),
        body: Body::Snapshot {
            attributes: BTreeMap::from([("rev".try_into().expect("an attribute name"), (value, seq))]),
        },
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.expect("the endpoint is there");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// Sum of a metric over its labels.
pub(crate) async fn metric(running: &Running, name: &str) -> f64 {
    let text = get(running.http(), "/metrics").await;
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines()
        .filter(of)
        .map(|line| line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number"))
        .sum()
}

pub(crate) async fn until_at_least(running: &Running, name: &str, wanted: f64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(running, name).await < wanted {
        assert!(Instant::now() < deadline, "{name} stays below {wanted}:\n{}", get(running.http(), "/metrics").await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
