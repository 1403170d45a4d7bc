//! The registry program against librdkafka's mock cluster and a real SQLite store: what supervision, poison and drain
//! come to in the running program.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::{Body, Presence, StateEvent, Value, kafka_topic},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::{Feed, Rows},
    registry::WriteOutcome,
    time::Wall,
};
use dmp_service::{
    config::Kafka,
    kafka::{Producer, inspect::Inspector},
    program::Running,
    registry::{Config, Faults, start},
    store::{Access, Record, SqliteStore, Store, StoreError, StoreUrl},
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    _folder: tempfile::TempDir,
    url: StoreUrl,
    config: Config,
}

impl Bench {
    fn new() -> Bench {
        let cluster = MockCluster::new(1).expect("a mock cluster starts");
        cluster.create_topic(kafka_topic::EVENTS, 3, 1).expect("the mock cluster takes a topic");
        cluster.create_topic(kafka_topic::DEAD_LETTER, 1, 1).expect("the mock cluster takes a topic");
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("store.db").display()).parse().expect("a store URL");
        let mut config = Config::reading(Kafka::at(cluster.bootstrap_servers()));
        config.snapshot_period = Duration::from_secs(60);
        config.backoff.first = Duration::from_millis(10);
        config.pipeline.commit_every = Duration::from_millis(100);
        Bench { _cluster: cluster, _folder: folder, url, config }
    }

    async fn store(&self, access: Access) -> SqliteStore {
        let StoreUrl::Sqlite(url) = &self.url else { panic!("an embedded store") };
        SqliteStore::open(url, access).await.expect("the store opens")
    }

    /// Stores a snapshot of each of `devices` devices, and `poison` records that cannot be decoded.
    async fn produce(&self, devices: u128, poison: u64) {
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

    async fn committed_and_end(&self, topic: &str) -> (i64, i64) {
        let inspector = Inspector::new(&self.config.kafka, &self.config.group).expect("good settings");
        let committed = inspector.committed(topic).await.expect("the cluster answers").values().sum();
        (committed, inspector.end_offsets(topic).await.expect("the cluster answers").values().sum())
    }
}

fn snapshot(number: u128) -> StateEvent {
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

async fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.expect("the endpoint is there");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// Sum of a metric over its labels.
async fn metric(running: &Running, name: &str) -> f64 {
    let text = get(running.http(), "/metrics").await;
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines()
        .filter(of)
        .map(|line| line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number"))
        .sum()
}

async fn until_at_least(running: &Running, name: &str, wanted: f64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(running, name).await < wanted {
        assert!(Instant::now() < deadline, "{name} stays below {wanted}:\n{}", get(running.http(), "/metrics").await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_through_poison_and_stages_that_fail() {
    let bench = Bench::new();
    bench.produce(200, 3).await;
    let faults = Faults::default();
    faults.panic_writer(4);
    let mut running =
        start(bench.config.clone(), bench.store(Access::Write).await, faults.clone()).await.expect("starts");
    assert!(get(running.http(), "/healthz").await.starts_with("HTTP/1.1 200"));
    until_at_least(&running, "dmp_registry_reflected_total", 200.0).await;
    faults.fail_reader(1);
    until_at_least(&running, "dmp_registry_losses_total", 1.0).await;
    bench.produce(300, 0).await;
    until_at_least(&running, "dmp_registry_offset_committed", 503.0).await;
    assert!(get(running.http(), "/readyz").await.starts_with("HTTP/1.1 200"));
    assert_eq!(metric(&running, "dmp_registry_stage_restarts_total{stage=\"writer\"}").await, 4.0);
    assert_eq!(metric(&running, "dmp_registry_stage_restarts_total{stage=\"reader\"}").await, 1.0);
    assert_eq!(metric(&running, "dmp_registry_quarantined_total{reason=\"topic\"}").await, 3.0);
    assert!(metric(&running, "dmp_registry_write_retries_total").await >= 4.0);
    running.stop();
    running.wait().await.expect("it was told to stop");

    let records = bench.store(Access::Read).await.records().await.expect("the store answers");
    assert_eq!(records.len(), 300);
    assert_eq!(bench.committed_and_end(kafka_topic::EVENTS).await, (503, 503));
    assert_eq!(bench.committed_and_end(kafka_topic::DEAD_LETTER).await.1, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_always_breaks_the_writer_is_quarantined_and_its_neighbours_are_written() {
    let mut bench = Bench::new();
    bench.config.backoff.first = Duration::from_millis(1);
    bench.config.backoff.most = Duration::from_millis(5);
    bench.produce(30, 0).await;
    let store = Breaking { inner: bench.store(Access::Write).await, on: Device::of_hardware("17") };
    let mut running = start(bench.config.clone(), store, Faults::default()).await.expect("it starts");
    until_at_least(&running, "dmp_registry_offset_committed", 30.0).await;
    assert_eq!(metric(&running, "dmp_registry_quarantined_total{reason=\"store\"}").await, 1.0);
    running.stop();
    running.wait().await.expect("it was told to stop");
    let records = bench.store(Access::Read).await.records().await.expect("the store answers");
    assert_eq!(records.len(), 29);
    assert!(!records.contains_key(&Device::of_hardware("17")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_told_to_stop_writes_and_commits_what_it_holds_first() {
    let bench = Bench::new();
    bench.produce(120, 0).await;
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::new(AtomicU32::new(0));
    let store = Gated { inner: bench.store(Access::Write).await, gate: gate.clone(), waiting: waiting.clone() };
    let mut running = start(bench.config.clone(), store, Faults::default()).await.expect("it starts");
    until_at_least(&running, "dmp_registry_records_total", 120.0).await;
    let deadline = Instant::now() + PATIENCE;
    while waiting.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline, "no write began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.committed_and_end(kafka_topic::EVENTS).await, (0, 120));
    running.stop();
    gate.add_permits(1_000);
    running.wait().await.expect("it was told to stop");
    assert_eq!(bench.store(Access::Read).await.records().await.expect("the store answers").len(), 120);
    assert_eq!(bench.committed_and_end(kafka_topic::EVENTS).await, (120, 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_store_never_answers_stops_when_its_drain_time_is_up_and_commits_nothing() {
    let mut bench = Bench::new();
    bench.produce(10, 0).await;
    bench.config.drain_within = Duration::from_millis(200);
    let inner = bench.store(Access::Write).await;
    let store = Gated { inner, gate: Arc::new(Semaphore::new(0)), waiting: Arc::default() };
    let mut running = start(bench.config.clone(), store, Faults::default()).await.expect("it starts");
    until_at_least(&running, "dmp_registry_records_total", 10.0).await;
    running.stop();
    timeout(PATIENCE, running.wait()).await.expect("a bounded drain").expect("it was told to stop");
    assert_eq!(bench.committed_and_end(kafka_topic::EVENTS).await, (0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_brokers_or_topics_says_so_and_does_not_start() {
    let mut bench = Bench::new();
    bench.config.start_within = Duration::from_millis(1);
    bench.config.kafka = Kafka::at("127.0.0.1:1");
    let store = bench.store(Access::Write).await;
    let error = start(bench.config.clone(), store, Faults::default()).await.expect_err("there is no broker");
    assert!(format!("{error:#}").contains("no kafka broker answers at 127.0.0.1:1"), "{error:#}");
}

/// A store whose writes wait for permits.
struct Gated {
    inner: SqliteStore,
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicU32>,
}

impl Store for Gated {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        self.inner.migrate(snapshot_period).await
    }
    async fn write(&self, rows: &Rows) -> WriteOutcome {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.gate.acquire().await.expect("the gate stays").forget();
        self.inner.write(rows).await
    }
    async fn clean(&self) -> Result<u64, StoreError> {
        self.inner.clean().await
    }
    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        self.inner.retire(retire_after).await
    }
    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.inner.records().await
    }
    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.inner.records_of(devices).await
    }
    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        self.inner.feeds().await
    }
    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        self.inner.presence().await
    }
}

/// A store that panics on one device.
struct Breaking {
    inner: SqliteStore,
    on: Device,
}

impl Store for Breaking {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        self.inner.migrate(snapshot_period).await
    }
    async fn write(&self, rows: &Rows) -> WriteOutcome {
        assert!(!rows.devices.contains_key(&self.on), "a defect in the store that one record brings out");
        self.inner.write(rows).await
    }
    async fn clean(&self) -> Result<u64, StoreError> {
        self.inner.clean().await
    }
    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        self.inner.retire(retire_after).await
    }
    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.inner.records().await
    }
    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.inner.records_of(devices).await
    }
    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        self.inner.feeds().await
    }
    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        self.inner.presence().await
    }
}
