//! How fast is a store? `cargo run --release -p dmp-service --example store_rates -- URL`
//!
//! Writes a fleet as four registries' partitions would, then reads it. The store must be empty, and is filled. One row is
//! one row of `device` or `device_attribute`.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use dmp_core::{
    event::{AttributeName, Body, Event, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::{Feed, Rows},
    time::Wall,
};
use dmp_service::store::{Access, Database, Store, WriteOutcome};

const RAES: u64 = 3_000;
const DEVICES_PER_RAE: u64 = 12;
const ATTRIBUTES: usize = 12;
const WRITERS: u64 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: store_rates URL")?.parse()?;
    let store = Arc::new(Database::open(&url, Access::Write).await?);
    store.migrate(Duration::from_secs(10)).await?;
    let devices = RAES * DEVICES_PER_RAE;

    for devices_per_batch in [1, 8, 16, 40] {
        let seq = devices_per_batch;
        let share = devices / 4;
        let offset = share * [1, 8, 16, 40].iter().position(|n| *n == devices_per_batch).unwrap_or(0) as u64;
        rate("new snapshots", &store, offset, share, devices_per_batch, move |n| whole(n, seq, seq)).await;
    }
    for devices_per_batch in [1, 16] {
        let seq = 100 + devices_per_batch;
        rate("quiet snapshots", &store, 0, devices / 4, devices_per_batch, move |n| whole(n, seq, 1)).await;
        rate("deltas of one attribute", &store, 0, devices / 4, devices_per_batch, move |n| one(n, seq + 1)).await;
    }
    reads(&store, devices).await?;
    Ok(())
}

/// Writes `share` devices from number `from` on, in batches of `per_batch`, with four writers.
async fn rate<F>(what: &str, store: &Arc<Database>, from: u64, share: u64, per_batch: u64, event: F)
where
    F: Fn(u64) -> StateEvent + Copy + Send + 'static,
{
    let started = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let (mut rows_written, mut longest) = (0, Duration::ZERO);
            let mine: Vec<u64> = (from..from + share).filter(|n| n % WRITERS == writer).collect();
            for batch in mine.chunks(per_batch as usize) {
                let mut rows = Rows::default();
                for n in batch {
                    rows.apply(&Event::State(event(*n)), Wall(0));
                }
                rows.feed = Some(Feed { partition: writer as i32, next_offset: 1, received: Wall(0) });
                let began = Instant::now();
                let outcome = store.write(&rows).await;
                assert_eq!(outcome, WriteOutcome::Committed { beaten: vec![] });
                longest = longest.max(began.elapsed());
                rows_written += rows.len();
            }
            (rows_written, longest)
        })
    });
    let (mut rows_written, mut longest) = (0, Duration::ZERO);
    for writer in writers.collect::<Vec<_>>() {
        let (rows, wait) = writer.await.expect("a writer does not panic");
        rows_written += rows;
        longest = longest.max(wait);
    }
    let seconds = started.elapsed().as_secs_f64();
    let (rows_s, events_s) = (rows_written as f64 / seconds, share as f64 / seconds);
    println!("{what}, {per_batch} a batch: {events_s:.0} events/s, {rows_s:.0} rows/s, longest write {longest:.1?}");
}

async fn reads(store: &Database, devices: u64) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let records = store.records().await?;
    println!("records(): {} devices in {:.1?}", records.len(), began.elapsed());
    let some: Vec<Device> = (0..1_000).map(|n| device(n * devices / 1_000)).collect();
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    for _ in 0..20 {
        let one = Instant::now();
        store.records_of(&some).await?;
        longest = longest.max(one.elapsed());
    }
    println!("records_of(1,000): {:.1?} on average, {longest:.1?} at most", began.elapsed() / 20);
    let began = Instant::now();
    let deleted = store.clean().await?;
    println!("clean(): {deleted} deleted in {:.1?}", began.elapsed());
    Ok(())
}

fn device(n: u64) -> Device {
    Device::of_hardware(&n.to_string())
}

fn version(n: u64, seq: u64) -> Version {
    let session = Session(uuid::Uuid::from_u64_pair(n, 1));
    Version { epoch: Epoch::FIRST, session, seq: Seq::try_from(seq).expect("small") }
}

fn event(n: u64, seq: u64, body: Body) -> StateEvent {
    let rae = Rae::try_from(format!("RAE-{:07}", n / DEVICES_PER_RAE).as_str()).expect("a right serial");
    StateEvent { rae, device: device(n), version: version(n, seq), at: Wall(0), body }
}

fn whole(n: u64, seq: u64, changed: u64) -> StateEvent {
    let value = |index| Value::Text(format!("{index}-{changed}-some text as devices have it-{n}").into());
    let changed = Seq::try_from(changed).expect("small");
    let attributes = (0..ATTRIBUTES).map(|index| (name(index), (value(index), changed))).collect();
    event(n, seq, Body::Snapshot { attributes })
}

fn one(n: u64, seq: u64) -> StateEvent {
    let set = [(name(seq as usize % ATTRIBUTES), Value::Integer(seq as i64))].into();
    event(n, seq, Body::Delta { set, unset: [].into() })
}

fn name(index: usize) -> AttributeName {
    AttributeName::try_from(format!("network.attribute_{index}").as_str()).expect("a right name")
}
