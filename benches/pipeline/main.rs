//! How much the pipeline carries with its I/O: the bridge, the registry, a backlog; and how fresh a row is at Netflix's rate.
//!
//! Each of MQTT broker, Kafka and store is a real one where the environment names it ([`parts`]), else the embedded
//! stand-in, whose figures are never Mosquitto's, Kafka's or PostgreSQL's; the first lines say which. Bridge and registry
//! are the programs' own code in this process. What a bridge or a registry is held against is measured in the same run,
//! with the same messages: a bare subscriber of that broker, and raw upserts into that store.
//!
//! ```sh
//! cargo bench --bench pipeline
//! FLEETPROOF_BENCH_STORE=$(.ci/postgres start) cargo bench --bench pipeline -- registry
//! ```

mod bare;
mod events;
mod parts;
mod steps;

use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main, measurement::WallTime};

use events::{cold, hot, mixed};
use parts::Parts;

/// Messages that wait at the broker for the bridge, and for the bare subscriber.
const MESSAGES: u64 = 10_000;

/// Records of one kind for the registry.
const RECORDS: u64 = 20_000;

/// The backlog that is to be drained.
const BACKLOG: u64 = 100_000;

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(1)).sample_size(10).without_plots();
    targets = bridge, registry, freshness, backlog
}
criterion_main!(benches);

/// A backlog of messages at the broker: through the bridge into Kafka, and to a subscriber that does nothing with it.
fn bridge(criterion: &mut Criterion) {
    let parts = Parts::start();
    let mut group = long(criterion, "bridge");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("messages acknowledged after Kafka", |bencher| {
        bencher.iter_custom(|iterations| parts.repeat(iterations, || steps::forward(&parts, MESSAGES)));
    });
    group.bench_function("messages to a bare subscriber", |bencher| {
        bencher.iter_custom(|iterations| parts.repeat(iterations, || bare::subscribe(&parts, MESSAGES)));
    });
    group.finish();
}

/// Records that are in the log already: through the registry into an empty store, and the same rows by raw upserts.
fn registry(criterion: &mut Criterion) {
    let parts = Parts::start();
    let mut group = long(criterion, "registry");
    group.throughput(Throughput::Elements(RECORDS));
    for (keys, events) in [("cold", cold(RECORDS)), ("hot", hot(RECORDS))] {
        let span = parts.block_on(steps::store_in_kafka(&parts, &events));
        group.bench_function(format!("records of {keys} keys"), |bencher| {
            bencher.iter_custom(|iterations| parts.repeat(iterations, || steps::reflect(&parts, &span)));
        });
        group.bench_function(format!("raw upserts of {keys} keys"), |bencher| {
            bencher.iter_custom(|iterations| parts.repeat(iterations, || bare::upsert(&parts, &events)));
        });
    }
    group.finish();
}

/// From a publish until a reader of the store sees it, while 900 other messages a second go the same way.
fn freshness(criterion: &mut Criterion) {
    let parts = Parts::start();
    let mut group = criterion.benchmark_group("freshness");
    let flow = parts.block_on(steps::Flow::start(&parts));
    group.measurement_time(Duration::from_secs(10));
    group.bench_function("a change at 900 messages/s", |bencher| {
        bencher.iter_custom(|iterations| parts.repeat(iterations, || flow.change()));
    });
    parts.block_on(flow.stop());
    group.finish();
}

/// The time in which a registry drains what had piled up.
fn backlog(criterion: &mut Criterion) {
    let parts = Parts::start();
    let mut group = long(criterion, "backlog");
    let span = parts.block_on(steps::store_in_kafka(&parts, &mixed(BACKLOG)));
    group.bench_function("100,000 records drained", |bencher| {
        bencher.iter_custom(|iterations| parts.repeat(iterations, || steps::reflect(&parts, &span)));
    });
    group.finish();
}

/// A group whose iterations take seconds: each is a sample.
fn long<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_millis(1));
    group
}
