//! A store whose disk is full: every write is tried again, nothing is lost or quarantined, and the registry catches up by
//! itself when there is room again.

use std::time::Duration;

use dmp_core::{
    event::{Body, Event, Value},
    merge::Rows,
    registry::WriteOutcome,
    time::Wall,
};
use dmp_service::{
    registry::{Faults, start},
    store::{Access, Store},
};

use crate::{
    bench::{Bench, metric, snapshot, until_at_least},
    disk,
};

/// Room for the store, a lock file and a write-ahead log of everything here, several times over, in MiB.
const ROOM: u32 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_a_full_disk_are_tried_again_until_there_is_room_and_nothing_is_lost() {
    let Some(disk) = disk(ROOM) else { return };
    let mut bench = Bench::with_store_in(disk.path());
    bench.config.backoff.most = Duration::from_millis(100);
    let store = bench.store(Access::Write).await;
    let mut running = start(bench.config.clone(), store, Faults::default()).await.expect("starts");
    bench.produce(50, 0).await;
    until_at_least(&running, "dmp_registry_offset_committed", 50.0).await;

    let filler = disk.fill();
    bench.produce(300, 0).await;
    let aborted = "dmp_registry_writes_total{outcome=\"aborted\"}";
    until_at_least(&running, aborted, 5.0).await;
    until_at_least(&running, "dmp_registry_write_retries_total", 5.0).await;
    assert_eq!(metric(&running, "dmp_registry_offset_committed").await, 50.0);
    assert_eq!(metric(&running, "dmp_registry_stage_restarts_total").await, 0.0);

    std::fs::remove_file(filler).expect("it is there");
    until_at_least(&running, "dmp_registry_offset_committed", 350.0).await;
    assert_eq!(metric(&running, "dmp_registry_quarantined_total").await, 0.0);
    running.stop();
    running.wait().await.expect("it was told to stop");
    assert_eq!(bench.store(Access::Read).await.records().await.expect("the store answers").len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_full_disk_is_aborted_says_why_and_leaves_no_trace() {
    let Some(disk) = disk(ROOM) else { return };
    let bench = Bench::with_store_in(disk.path());
    let store = bench.store(Access::Write).await;
    store.migrate(Duration::from_secs(60)).await.expect("there is room");
    assert_eq!(store.write(&rows(1)).await, WriteOutcome::Committed { beaten: vec![] });
    let filler = disk.fill();
    match store.write(&rows(2)).await {
        WriteOutcome::Aborted { reason } => {
            assert!(reason.ends_with("store.db: disk full"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.records().await.expect("reading needs no room").len(), 1);
    std::fs::remove_file(filler).expect("it is there");
    assert_eq!(store.write(&rows(2)).await, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(store.records().await.expect("the store answers").len(), 2);
}

/// A snapshot of device number `number`, long enough to need pages of its own.
fn rows(number: u128) -> Rows {
    let mut event = snapshot(number);
    if let Body::Snapshot { attributes } = &mut event.body {
        for (value, _) in attributes.values_mut() {
            *value = Value::Text("v".repeat(20_000).into());
        }
    }
    let mut rows = Rows::default();
    rows.apply(&Event::State(event), Wall(0));
    rows
}
