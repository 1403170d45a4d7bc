//! What becomes of a write that meets another transaction at its rows.

use dmp_core::merge::Rows;
use dmp_service::store::{Database, Store, WriteOutcome};

use crate::{
    histories::{device, name, rows, snapshot, text, version},
    stage::{Meeting, Stage, write},
};

fn opened(seq: u64, value: &str) -> Rows {
    rows(&[snapshot(device(1), version(1, 1, seq), &[("a", text(value), seq)])], 0)
}

/// A write of seq 2 that begins while a transaction past the code under test holds the row, and how it ends when that
/// has committed.
async fn met(stage: &Stage, store: &Database) -> WriteOutcome {
    write(store, &opened(1, "old")).await;
    let other = stage.hold("UPDATE device SET seen_at = 1").await;
    let second = opened(2, "new");
    let (outcome, ()) = tokio::join!(store.write(&second), async {
        stage.until_somebody_waits().await;
        other.commit().await;
    });
    outcome
}

pub(crate) async fn a_write_that_meets_another_waits_or_is_told_to_be_aborted(stage: &Stage) {
    let store = stage.migrated().await;
    match (stage.meeting(), met(stage, &store).await) {
        (Meeting::Waits, WriteOutcome::Committed { .. }) => {}
        (Meeting::Fails(state), WriteOutcome::Aborted { reason }) => assert!(reason.contains(state), "{reason}"),
        (meeting, outcome) => panic!("{meeting:?} is declared, and it was {outcome:?}"),
    }
}

pub(crate) async fn the_repetition_of_a_write_that_met_another_is_stored_whatever_was_told(stage: &Stage) {
    let store = stage.migrated().await;
    let told = met(stage, &store).await;
    assert!(!matches!(told, WriteOutcome::Refused { .. }), "good rows are never refused for it: {told:?}");
    write(&store, &opened(2, "new")).await;
    let records = store.records().await.unwrap();
    let record = &records[&device(1)];
    assert_eq!((record.floor, &record.attributes[&name("a")].0), (version(1, 1, 2), &text("new")));
}
