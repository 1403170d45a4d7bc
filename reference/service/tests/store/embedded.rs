//! What only a file can do: be missing, be no database, be full.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use dmp_core::{
    merge::{Feed, Rows},
    time::Wall,
};
use dmp_service::store::{Access, Database, Store, StoreError, WriteOutcome};

use crate::{
    histories::{device, rows, snapshot, text, version},
    stage::{Arm, Stage, write},
};

async fn open(url: &str, access: Access) -> Result<Database, StoreError> {
    Database::open(&url.parse().unwrap(), access).await
}

fn one(n: u64, value: &str) -> Rows {
    rows(&[snapshot(device(n), version(1, 1, 1), &[("a", text(value), 1)])], 0)
}

#[tokio::test]
async fn a_missing_file_or_directory_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| format!("sqlite:{}", directory.path().join(path).display());
    let missing = open(&at("store.db"), Access::Read).await.unwrap_err();
    assert!(missing.to_string().ends_with("store.db does not exist"), "{missing}");
    let missing = open(&at("no/store.db"), Access::Write).await.unwrap_err();
    assert!(matches!(&missing, StoreError::Missing(path) if path.ends_with("no")), "{missing:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(&path, "no database, but long enough that SQLite looks at its header".repeat(100)).unwrap();
    let error = open(&format!("sqlite:{}", path.display()), Access::Write).await.unwrap_err();
    assert!(error.to_string().contains("file is not a database"), "{error}");
}

#[tokio::test]
async fn a_store_that_may_only_be_read_refuses_no_rows() {
    let stage = Stage::set(Arm::Sqlite, "").await.unwrap();
    write(&stage.migrated().await, &one(1, "x")).await;
    let reader = open(stage.url(), Access::Read).await.unwrap();
    match reader.write(&one(2, "x")).await {
        WriteOutcome::Aborted { reason } => assert!(reason.contains("read-only"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(reader.clean().await, Err(StoreError::ReadOnly(_))));
}

#[tokio::test]
async fn what_is_committed_is_there_after_the_writer_was_dropped_in_the_middle_of_the_next() {
    let stage = Stage::set(Arm::Sqlite, "").await.unwrap();
    let store = stage.migrated().await;
    write(&store, &one(1, "x")).await;
    // Polled once, then dropped: the job was handed over, and ends by itself, either way whole.
    let next = one(2, "y");
    let _ = tokio::time::timeout(std::time::Duration::ZERO, store.write(&next)).await;
    drop(store);
    let records = stage.open().await.records().await.unwrap();
    assert!(records.contains_key(&device(1)));
    assert!(records.values().all(|record| record.attributes.len() == 1));
}

/// Set for the process that [`a_writer_that_is_killed_leaves_whole_batches_and_no_lock`] kills.
const KILLED_WRITER: &str = "FLEETPROOF_TEST_KILLED_WRITER";

#[tokio::test]
async fn a_writer_that_is_killed_leaves_whole_batches_and_no_lock() {
    if let Ok(url) = std::env::var(KILLED_WRITER) {
        return write_until_killed(&url).await;
    }
    let stage = Stage::set(Arm::Sqlite, "").await.unwrap();
    let store = stage.migrated().await;
    for _ in 0..5 {
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::a_writer_that_is_killed_leaves_whole_batches_and_no_lock", "--nocapture"])
            .env(KILLED_WRITER, stage.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(killed.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut seqs = lines.filter_map(|line| line.strip_prefix("committed ").map(|seq| seq.parse::<u64>().unwrap()));
        let committed = seqs.by_ref().take(30).last().unwrap();
        // While the other process is in the middle of the next ones.
        write(&store, &one(1_000, "a second writer gets its turn")).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        drop(seqs);
        let records = store.records_of(&(0..50).map(device).collect::<Vec<_>>()).await.unwrap();
        let seqs: Vec<_> = records.values().map(|record| record.floor.seq.get()).collect();
        assert_eq!(seqs.len(), 50);
        assert!(seqs.iter().all(|seq| *seq == seqs[0]), "a batch is there whole or not at all: {seqs:?}");
        assert!(seqs[0] >= committed, "what was reported as committed is there");
        assert_eq!(store.feeds().await.unwrap()[0].next_offset as u64, seqs[0], "the feed went with its rows");
    }
}

async fn write_until_killed(url: &str) {
    let store = open(url, Access::Write).await.unwrap();
    let first = store.feeds().await.unwrap().first().map_or(1, |feed| feed.next_offset as u64 + 1);
    for seq in first.. {
        let value = text(&format!("{seq}"));
        let events: Vec<_> =
            (0..50).map(|n| snapshot(device(n), version(1, 1, seq), &[("a", value.clone(), seq)])).collect();
        let mut batch = rows(&events, 0);
        batch.feed = Some(Feed { partition: 0, next_offset: seq as i64, received: Wall(0) });
        write(&store, &batch).await;
        println!("\ncommitted {seq}");
    }
}
