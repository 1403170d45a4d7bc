//! One sentence each, of one writer.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use dmp_core::{
    event::{Event, Presence, PresenceState, StateEvent, Value},
    id::{Epoch, Seq},
    merge::{Feed, Rows},
    time::Wall,
};
use dmp_service::store::{Access, Database, MAX_VALUE_BYTES, Store, StoreError, WriteOutcome};

use crate::{
    histories::{delta, device, name, rae, rows, snapshot, text, version},
    stage::{PERIOD, Stage, write},
};

const SECOND: i64 = 1_000;

/// The visible value of one attribute of device 1.
async fn shown(store: &Database, key: &str) -> Option<Value> {
    let records = store.records_of(&[device(1)]).await.unwrap();
    records.get(&device(1))?.attributes.get(&name(key)).map(|(value, _)| value.clone())
}

fn fed(mut rows: Rows, partition: i32, received: i64) -> Rows {
    rows.feed = Some(Feed { partition, next_offset: 1, received: Wall(received) });
    rows
}

pub(crate) async fn the_newest_version_of_an_attribute_stays_whatever_the_order(stage: &Stage) {
    let store = stage.migrated().await;
    write(&store, &rows(&[snapshot(device(1), version(5, 9, 1), &[])], 0)).await;
    // By epoch first, then by the session's bytes, then by seq.
    let versions = [version(5, 9, 2), version(5, 9, 3), version(5, 200, 1), version(6, 0, 1), version(1 << 52, 0, 1)];
    for (newest, newer) in versions.iter().enumerate() {
        write(&store, &rows(&[delta(device(1), *newer, &[("a", Value::Integer(newest as i64))], &[])], 0)).await;
        for older in &versions[..=newest] {
            write(&store, &rows(&[delta(device(1), *older, &[("a", text("older"))], &[])], 0)).await;
        }
        assert_eq!(shown(&store, "a").await, Some(Value::Integer(newest as i64)), "of {newer}");
    }
}

pub(crate) async fn a_tombstone_keeps_older_values_out(stage: &Stage) {
    let store = stage.migrated().await;
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 1), &[("a", text("x"), 1)])], 0)).await;
    write(&store, &rows(&[delta(device(1), version(1, 1, 3), &[], &["a"])], 0)).await;
    assert_eq!(shown(&store, "a").await, None);
    write(&store, &rows(&[delta(device(1), version(1, 1, 2), &[("a", text("late"))], &[])], 0)).await;
    assert_eq!(shown(&store, "a").await, None);
    assert_eq!(store.clean().await.unwrap(), 0, "a tombstone above the floor still guards");
    write(&store, &rows(&[delta(device(1), version(1, 1, 4), &[("a", text("new"))], &[])], 0)).await;
    assert_eq!(shown(&store, "a").await, Some(text("new")));
}

pub(crate) async fn a_snapshot_hides_what_it_does_not_name_and_nothing_newer(stage: &Stage) {
    let store = stage.migrated().await;
    let set = |seq, key| delta(device(1), version(1, 1, seq), &[(key, text(key))], &[]);
    write(&store, &rows(&[set(2, "gone"), set(3, "kept"), set(9, "newer")], 0)).await;
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 5), &[("kept", text("kept"), 3)])], 7)).await;
    let records = store.records().await.unwrap();
    let record = &records[&device(1)];
    assert_eq!(record.floor, version(1, 1, 5));
    assert_eq!((&record.rae, record.seen_at), (&rae("RAE-1"), Wall(7)));
    let names: Vec<_> = record.attributes.iter().map(|(key, (_, version))| (key.as_str(), version.seq.get())).collect();
    assert_eq!(names, [("kept", 3), ("newer", 9)]);
    assert_eq!(store.clean().await.unwrap(), 1);
    assert_eq!(store.records().await.unwrap(), records, "a clean-up removes nothing visible");
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 10), &[])], 8)).await;
    let empty = &store.records().await.unwrap()[&device(1)];
    assert!(empty.attributes.is_empty(), "an empty record is a record");
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 4), &[("gone", text("x"), 4)])], 9)).await;
    assert_eq!(&store.records().await.unwrap()[&device(1)], empty, "an older floor is refused");
}

pub(crate) async fn a_device_without_a_snapshot_is_not_shown(stage: &Stage) {
    let store = stage.migrated().await;
    write(&store, &rows(&[delta(device(1), version(1, 1, 2), &[("a", text("x"))], &[])], 0)).await;
    assert!(store.records().await.unwrap().is_empty());
    assert!(store.records_of(&[device(1)]).await.unwrap().is_empty());
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 1), &[])], 0)).await;
    assert_eq!(shown(&store, "a").await, Some(text("x")), "and nothing that overtook the snapshot is lost");
}

pub(crate) async fn values_of_every_type_come_back_as_they_were(stage: &Stage) {
    let store = stage.migrated().await;
    let mut values = vec![Value::Bool(true), Value::Bool(false)];
    values.extend([0, -1, 1 << 53, -(1 << 53), i64::from(i32::MAX) + 1].map(Value::Integer));
    let floats = [0.0, -0.0, 1.0, 0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE, 5e-324, -123_456.789e-30, 2f64.powi(60)];
    values.extend(floats.map(Value::Float));
    values.extend(["", " ", "null", "1", "\"'\\\n\t\u{1}", "gerät 设备 📺", "a|b", "{}", "%s $1 ?1"].map(text));
    let keys: Vec<String> = (0..values.len()).map(|index| format!("v{index}")).collect();
    let attributes: Vec<_> = keys.iter().zip(&values).map(|(key, value)| (key.as_str(), value.clone(), 1)).collect();
    write(&store, &rows(&[snapshot(device(1), version(1, 1, 1), &attributes)], 0)).await;
    let records = store.records().await.unwrap();
    for (key, value) in keys.iter().zip(&values) {
        let (back, _) = &records[&device(1)].attributes[&name(key)];
        assert_eq!(back.to_string(), value.to_string(), "the JSON form tells -0.0 from 0.0");
        assert_eq!(back, value);
    }
}

pub(crate) async fn records_of_some_devices_are_those_of_all(stage: &Stage) {
    let store = stage.migrated().await;
    let events: Vec<_> = (1..=5).map(|n| snapshot(device(n), version(1, 1, 1), &[("a", text("x"), 1)])).collect();
    write(&store, &rows(&events, 0)).await;
    let all = store.records().await.unwrap();
    let some = store.records_of(&[device(4), device(2), device(99), device(2)]).await.unwrap();
    assert_eq!(some.len(), 2);
    assert!(some.iter().all(|(device, record)| all[device] == *record));
    assert!(store.records_of(&[]).await.unwrap().is_empty());
}

pub(crate) async fn a_feed_only_rises(stage: &Stage) {
    let store = stage.migrated().await;
    let feed = |partition, next_offset, received| Feed { partition, next_offset, received: Wall(received) };
    let offered = [feed(1, 10, 100), feed(0, 3, 1), feed(1, 9, 200), feed(1, 11, 50), feed(1, 1, 1)];
    for feed in offered {
        write(&store, &Rows { feed: Some(feed), ..Rows::default() }).await;
    }
    assert_eq!(store.feeds().await.unwrap(), [feed(0, 3, 1), feed(1, 11, 200)]);
}

pub(crate) async fn presence_keeps_the_newest_word_of_each_rae(stage: &Stage) {
    let store = stage.migrated().await;
    let said = |boot, connection, state| Presence {
        boot: Epoch::try_from(boot).unwrap(),
        connection: Seq::try_from(connection).unwrap(),
        state,
    };
    use PresenceState::{Offline, Online};
    let newest = said(2, 2, Online);
    for presence in [said(1, 9, Offline), newest, said(2, 1, Offline), said(2, 2, Online), said(1, 10, Online)] {
        let mut rows = Rows::default();
        rows.apply(&Event::Status(rae("RAE-7"), presence), Wall(0));
        write(&store, &rows).await;
    }
    assert_eq!(store.presence().await.unwrap(), [(rae("RAE-7"), newest)].into());
    let mut rows = Rows::default();
    rows.apply(&Event::Status(rae("RAE-7"), said(2, 2, Offline)), Wall(0));
    write(&store, &rows).await;
    assert_eq!(store.presence().await.unwrap()[&rae("RAE-7")].state, Offline, "offline is after online");
}

pub(crate) async fn a_write_tells_which_sessions_with_a_snapshot_are_not_the_newest_of_their_device(stage: &Stage) {
    let store = stage.migrated().await;
    let opened = |n, epoch, session, seq| snapshot(device(n), version(epoch, session, seq), &[("a", text("x"), 1)]);
    let told = async |rows: Rows| match store.write(&rows).await {
        WriteOutcome::Committed { beaten } => {
            beaten.iter().map(|of| (of.device, of.session, of.by.get())).collect::<BTreeSet<_>>()
        }
        other => panic!("{other:?}"),
    };
    let clock = Cell::new(0);
    // Each a millisecond after the one before it.
    let beaten = async |events: &[StateEvent]| {
        let mut rows = Rows::default();
        for event in events {
            clock.set(clock.get() + 1);
            rows.apply(&Event::State(event.clone()), Wall(clock.get()));
        }
        told(rows).await
    };
    let beaten_at = async |received, events: &[StateEvent]| told(rows(events, received)).await;
    let lost = |n, session, by| (device(n), version(1, session, 1).session, by);
    assert_eq!(beaten(&[opened(1, 5, 1, 1), opened(2, 5, 1, 1)]).await, [].into(), "each is the only one");
    assert_eq!(beaten(&[opened(1, 5, 1, 2)]).await, [].into(), "nothing is above itself");
    assert_eq!(beaten(&[opened(1, 4, 9, 1)]).await, [lost(1, 9, 5)].into(), "by epoch");
    assert_eq!(beaten(&[opened(1, 5, 0, 1)]).await, [lost(1, 0, 5)].into(), "by the session's bytes");
    let newer = delta(device(1), version(8, 3, 7), &[("a", text("y"))], &[]);
    assert_eq!(beaten(&[newer]).await, [].into(), "a delta asks for nothing, but enters its session");
    assert_eq!(beaten(&[opened(1, 5, 1, 3), opened(2, 5, 1, 2)]).await, [lost(1, 1, 8)].into(), "each by its device");
    let both = [opened(3, 1 << 52, 1, 1), opened(3, 7, 2, 1), opened(3, 9, 3, 1)];
    assert_eq!(beaten(&both).await, [lost(3, 2, 1 << 52), lost(3, 3, 1 << 52)].into(), "also within a batch");
    let deltas_alone = delta(device(3), version(7, 2, 2), &[("a", text("y"))], &[]);
    assert_eq!(beaten(&[deltas_alone]).await, [].into());
    assert_eq!(beaten_at(50, &[opened(4, 9, 1, 1)]).await, [].into());
    assert_eq!(beaten_at(49, &[opened(4, 8, 2, 1)]).await, [].into(), "received before the newer one opened");
    assert_eq!(beaten_at(50, &[opened(4, 8, 2, 2)]).await, [].into(), "received with it: which was first is not known");
    assert_eq!(beaten_at(51, &[opened(4, 8, 2, 3)]).await, [lost(4, 2, 9)].into(), "received after it");
}

pub(crate) async fn a_device_is_stale_by_what_was_read_of_its_own_partition(stage: &Stage) {
    let store = stage.migrated().await;
    let opened = |n| [snapshot(device(n), version(1, 1, 1), &[])];
    write(&store, &fed(rows(&opened(1), 1_000 * SECOND), 0, 1_000 * SECOND)).await;
    write(&store, &fed(rows(&opened(2), 1_000 * SECOND), 1, 1_000 * SECOND)).await;
    let limit = 1_000 * SECOND + 3 * i64::try_from(PERIOD.as_millis()).unwrap();
    write(&store, &fed(Rows::default(), 0, limit)).await;
    let stale = async |n| store.records().await.unwrap()[&device(n)].stale;
    assert!(!stale(1).await, "three periods are allowed");
    write(&store, &fed(Rows::default(), 0, limit + 1)).await;
    assert!(stale(1).await);
    assert!(!stale(2).await, "another partition has not been read so far");
}

pub(crate) async fn retiring_deletes_whole_what_was_stale_for_long_and_nothing_else(stage: &Stage) {
    let store = stage.migrated().await;
    let opened = |n| [snapshot(device(n), version(1, 1, 1), &[("a", text("x"), 1)])];
    // More than one batch of them.
    let old: Vec<_> = (1_000..1_250).flat_map(opened).collect();
    write(&store, &fed(rows(&old, 0), 0, 0)).await;
    write(&store, &fed(rows(&opened(1), 60 * SECOND), 0, 100 * SECOND)).await;
    write(&store, &fed(rows(&opened(2), 100 * SECOND), 0, 100 * SECOND)).await;
    // Stale are the old, for 70 s, and device 1, for 10 s.
    assert_eq!(store.retire(Duration::from_secs(71)).await.unwrap(), 0);
    assert_eq!(store.retire(Duration::from_secs(69)).await.unwrap(), 250);
    let left: Vec<_> = stage.stored().await.into_keys().collect();
    let mut living = [device(1), device(2)];
    living.sort();
    assert_eq!(left, living, "attributes went with their device");
    assert!(store.records().await.unwrap()[&device(1)].stale, "only stale, and still there");
    write(&store, &fed(rows(&opened(1_000), 101 * SECOND), 0, 101 * SECOND)).await;
    assert_eq!(store.records().await.unwrap().len(), 3, "a retired device may come back");
}

pub(crate) async fn a_value_too_long_for_its_column_is_refused_and_its_batch_leaves_no_trace(stage: &Stage) {
    let store = stage.migrated().await;
    // Two of the bytes are the quotes.
    let fits = text(&"x".repeat(MAX_VALUE_BYTES - 2));
    let too_long = text(&"ä".repeat(MAX_VALUE_BYTES / 2));
    let good = snapshot(device(1), version(1, 1, 1), &[("a", fits.clone(), 1)]);
    let bad = snapshot(device(2), version(1, 1, 1), &[("a", too_long, 1)]);
    for _ in 0..2 {
        match store.write(&fed(rows(&[good.clone(), bad.clone()], 0), 0, 5)).await {
            WriteOutcome::Refused { reason } => assert!(reason.contains("device_attribute_value_length"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(stage.stored().await.is_empty());
    assert!(store.feeds().await.unwrap().is_empty());
    write(&store, &rows(&[good], 0)).await;
    assert_eq!(shown(&store, "a").await, Some(fits), "the longest that fits is taken");
}

pub(crate) async fn a_store_that_was_never_migrated_refuses_no_rows(stage: &Stage) {
    let store = stage.open().await;
    match store.write(&rows(&[snapshot(device(1), version(1, 1, 1), &[])], 0)).await {
        WriteOutcome::Aborted { reason } => assert!(reason.contains("schema is missing"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.records().await, Err(StoreError::Schema { found: None })));
    assert!(matches!(store.clean().await, Err(StoreError::Schema { found: None })));
}

pub(crate) async fn migrating_at_once_and_again_is_harmless_and_another_schema_is_told(stage: &Stage) {
    let stores = [stage.open().await, stage.open().await, stage.open().await, stage.open().await];
    let [a, b, c, d] = &stores;
    let (a, b, c, d) = tokio::join!(a.migrate(PERIOD), b.migrate(PERIOD), c.migrate(PERIOD), d.migrate(PERIOD));
    a.and(b).and(c).and(d).unwrap();
    write(&stores[0], &rows(&[snapshot(device(1), version(1, 1, 1), &[])], 0)).await;
    stores[1].migrate(PERIOD).await.unwrap();
    let url = stage.url().parse().unwrap();
    let reader = Database::open(&url, Access::Read).await.unwrap();
    assert_eq!(reader.records().await.unwrap().len(), 1);
    stage.execute("UPDATE setting SET value = 7 WHERE name = 'schema_version'").await;
    assert!(matches!(stores[0].migrate(PERIOD).await, Err(StoreError::Schema { found: Some(7) })));
}

pub(crate) async fn a_clock_beyond_all_years_harms_no_reader(stage: &Stage) {
    let store = stage.migrated().await;
    for (n, received) in [(1, i64::MIN), (2, i64::MAX), (3, 0)] {
        let opened = [snapshot(device(n), version(1, 1, 1), &[])];
        write(&store, &fed(rows(&opened, received), 0, received)).await;
    }
    assert_eq!(store.records().await.unwrap().len(), 3);
    assert_eq!(store.retire(Duration::MAX).await.unwrap(), 0);
}
