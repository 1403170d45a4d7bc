//! How much bridge and registry carry between Mosquitto, Kafka and PostgreSQL, and how fresh a row is at Netflix's rate.
//!
//! The servers run in containers of this run; bridge and registry are the programs' own code, in this process, set as by
//! default. What each is held against is measured in the same run with the same messages: a bare subscriber of that
//! broker, and raw upserts of the same rows into that database. Ends with a table of rates, ratios and CPU times.
//!
//! ```sh
//! FLEETPROOF_KAFKA_HEAP_OPTS=-Xmx1g cargo bench --features containers --bench pipeline
//! cargo bench --features containers --bench pipeline -- registry       # what has this in its name
//! ```

mod bridge;
mod cpu;
mod events;
mod freshness;
mod machine;
mod program;
mod raw;
mod registry;
mod report;
mod servers;
mod session;
mod step;

use std::{
    cell::{LazyCell, OnceCell},
    time::Duration,
};

use anyhow::Context;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use tokio::runtime::Runtime;

use cpu::Run;
use events::Keys;
use freshness::Flow;
use report::Report;
use servers::Servers;
use step::Step;

/// The file that takes the report, besides standard output.
const REPORT: &str = "FLEETPROOF_BENCH_REPORT";

/// Runs of the bridge before those that are reported: Kafka's JVM compiles its code as it goes, and is several times slower in
/// its first hundred thousands of records.
const WARM_UPS: u32 = 10;

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let _within = runtime.enter();
    let servers = Servers::start(&runtime)?;
    let report = Report::default();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(8))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    bridge(&mut criterion, &servers, &report);
    registry(&mut criterion, &servers, &report);
    freshness(&mut criterion, &servers, &report);
    backlog(&mut criterion, &servers, &report);
    criterion.final_summary();
    let text = report.markdown(&servers.versions()?);
    println!("{text}");
    let Some(path) = std::env::var_os(REPORT) else { return Ok(()) };
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// A backlog of messages at the broker: through the bridge into Kafka, and to a subscriber that does nothing with them.
fn bridge(criterion: &mut Criterion, servers: &Servers, report: &Report) {
    let messages = LazyCell::new(|| {
        let messages = events::publications(Keys::Mixed, Step::Forward.items());
        for run in 1..=WARM_UPS {
            report::tell(&format!("  warming up, {run} of {WARM_UPS}"));
            servers.block_on(bridge::forward(servers, &messages));
        }
        messages
    });
    let ready = || LazyCell::force(&messages);
    measure(criterion, report, Step::Forward, ready, |messages| servers.block_on(bridge::forward(servers, messages)));
    measure(criterion, report, Step::Subscribe, ready, |messages| {
        servers.block_on(bridge::subscribe(servers, messages))
    });
}

/// Records that are in the log already: through the registry into an empty database, and the same rows by raw upserts.
fn registry(criterion: &mut Criterion, servers: &Servers, report: &Report) {
    let cold = (Keys::Cold, Step::ReflectCold, Step::UpsertCold);
    let hot = (Keys::Hot, Step::ReflectHot, Step::UpsertHot);
    for (keys, reflect, upsert) in [cold, hot] {
        let span = LazyCell::new(|| servers.block_on(registry::append(servers, keys, reflect.items())));
        let batches = LazyCell::new(|| raw::batches(&span));
        let ready = || LazyCell::force(&span);
        measure(criterion, report, reflect, ready, |span| servers.block_on(registry::reflect(servers, span)));
        let ready = || LazyCell::force(&batches);
        measure(criterion, report, upsert, ready, |batches| {
            servers.block_on(raw::upsert(servers, batches, upsert.items()))
        });
    }
}

/// From a publish until a reader of the database sees it, while 900 other messages a second go the same way.
fn freshness(criterion: &mut Criterion, servers: &Servers, report: &Report) {
    let flow = OnceCell::new();
    let ready = || flow.get_or_init(|| servers.block_on(Flow::start(servers)));
    measure(criterion, report, Step::Change, ready, |flow| servers.block_on(flow.change()));
    if let Some(flow) = flow.into_inner() {
        servers.block_on(flow.stop(servers));
    }
}

/// The time in which a registry drains what had piled up.
fn backlog(criterion: &mut Criterion, servers: &Servers, report: &Report) {
    let span = LazyCell::new(|| servers.block_on(registry::append(servers, Keys::Mixed, Step::Drain.items())));
    let ready = || LazyCell::force(&span);
    measure(criterion, report, Step::Drain, ready, |span| servers.block_on(registry::reflect(servers, span)));
}

/// Measures a step, and reports each of its runs: `ready` makes what it needs, the first time that it is asked, and `run` tells
/// itself what of it is timed.
fn measure<T>(criterion: &mut Criterion, report: &Report, step: Step, ready: impl Fn() -> T, run: impl Fn(&T) -> Run) {
    let (group, name) = step.name();
    let mut group: BenchmarkGroup<'_, WallTime> = criterion.benchmark_group(group);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(step.items()));
    group.bench_function(name, |bencher| {
        let ready = ready();
        bencher.iter_custom(|times| (0..times).map(|_| report.add(step, run(&ready))).sum());
    });
    group.finish();
}
