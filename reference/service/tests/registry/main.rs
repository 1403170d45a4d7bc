//! The registry program against librdkafka's mock cluster and a real SQLite store: what supervision, poison, drain and a
//! store that fails come to in the running program.

mod bench;
mod full_store;
mod refusals;
#[path = "../../../../tests/common/tmpfs.rs"]
mod tmpfs;

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bench::{Bench, PATIENCE, get, metric, until_at_least};
use dmp_core::{
    event::{Presence, kafka_topic},
    id::{Device, Rae},
    merge::{Feed, Rows},
    registry::WriteOutcome,
};
use dmp_service::{
    config::Kafka,
    registry::{Faults, start},
    store::{Access, Record, SqliteStore, Store, StoreError},
};
use tmpfs::Tmpfs;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// A disk of its own, or the word that the test was not run: in CI a failure.
fn disk(mib: u32) -> Option<Tmpfs> {
    let disk = Tmpfs::mount(mib);
    if disk.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs, which needs root");
        // Past the test harness, which keeps what passing tests print.
        let _stderr_closed = writeln!(std::io::stderr(), "NOT RUN: no tmpfs can be mounted here, which needs root");
    }
    disk
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
    // What is not committed when the reader fails is read, and quarantined, again.
    until_at_least(&running, "dmp_registry_offset_committed", 203.0).await;
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
