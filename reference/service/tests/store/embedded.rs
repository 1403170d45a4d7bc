//! What only a file can do: be missing, be no database, be full.

use dmp_core::merge::Rows;
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
