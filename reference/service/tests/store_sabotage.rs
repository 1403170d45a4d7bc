//! The planted bug `store-without-guard` acts in both stores. In a process of its own: a bug is planted process-wide.

#![cfg(feature = "sabotage")]

#[path = "store/histories.rs"]
#[expect(dead_code, reason = "shared with the tests of the store")]
mod histories;
#[path = "store/stage.rs"]
#[expect(dead_code, reason = "shared with the tests of the store")]
mod stage;

use dmp_core::{
    event::Value,
    sabotage::{Bug, hits, plant},
};
use dmp_service::store::Store;

use histories::{delta, device, name, rows, snapshot, text, version};
use stage::{Arm, Stage, write};

#[tokio::test]
async fn without_the_guard_an_older_version_replaces_a_newer() {
    plant(Bug::StoreWithoutGuard);
    for arm in [Arm::Sqlite, Arm::ReadCommitted, Arm::Serializable] {
        let Some(stage) = Stage::set(arm, "without_guard").await else { continue };
        let store = stage.migrated().await;
        let before = hits();
        write(&store, &rows(&[snapshot(device(1), version(1, 1, 1), &[("a", text("x"), 1)])], 0)).await;
        write(&store, &rows(&[delta(device(1), version(1, 1, 9), &[("a", text("new"))], &[])], 0)).await;
        write(&store, &rows(&[delta(device(1), version(1, 1, 5), &[("a", text("old"))], &[])], 0)).await;
        let (value, version): &(Value, _) = &store.records().await.unwrap()[&device(1)].attributes[&name("a")];
        assert_eq!((value, version.seq.get()), (&text("old"), 5), "{arm:?}");
        assert!(hits() > before);
    }
}
