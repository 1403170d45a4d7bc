//! What must hold whoever else is at the store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmp_core::{
    event::{StateEvent, Value},
    id::Device,
    merge::{DeviceState, Feed, Rows},
    time::Wall,
};
use dmp_service::store::{Database, Store, StoreError};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    histories::{Record, arrivals, delta, device, name, rows, snapshot, version},
    stage::{Stage, Tally, write},
};

const SEEDS: std::ops::Range<u64> = 0..8;
const WRITERS: usize = 4;

pub(crate) async fn random_histories_end_in_the_state_of_the_merge_rule(stage: &Stage) {
    let store = stage.migrated().await;
    for seed in SEEDS {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (events, truth) = arrivals(&mut random, 12);
        empty(stage).await;
        let mut model = BTreeMap::<Device, DeviceState>::new();
        for batch in batches(&events, &mut random) {
            for (device, state) in &batch.devices {
                model.entry(*device).or_default().join(state);
            }
            write(&store, &batch).await;
        }
        assert_eq!(stage.stored().await, model, "seed {seed}: what is stored is the join");
        assert_shown(&store, &model).await;
        model.values_mut().for_each(DeviceState::clean);
        store.clean().await.unwrap();
        assert_eq!(stage.stored().await, model, "seed {seed}: the clean-up deletes what the rule says");
        assert_true(&store, &truth, seed).await;
    }
}

pub(crate) async fn four_writers_and_a_cleaner_leave_nothing_wrong_and_nothing_over(stage: &Stage) {
    let cleaner = Arc::new(stage.migrated().await);
    for seed in SEEDS {
        println!("seed {seed}");
        let (events, truth) = arrivals(&mut StdRng::seed_from_u64(seed), 40);
        empty(stage).await;
        let done = Arc::new(AtomicBool::new(false));
        let cleaning = tokio::spawn(clean_until(Arc::clone(&cleaner), Arc::clone(&done)));
        let tally = write_in_parallel(stage, &events, seed).await;
        println!("{} tries aborted", tally.aborted.len());
        done.store(true, Ordering::Relaxed);
        cleaning.await.unwrap();
        assert_true(&cleaner, &truth, seed).await;
        cleaner.clean().await.unwrap();
        let left: usize = stage.stored().await.values().map(|state| state.attributes.len()).sum();
        assert_eq!(left, truth.values().map(BTreeMap::len).sum::<usize>(), "seed {seed}: nothing is left over");
    }
}

pub(crate) async fn writers_of_the_same_rows_do_not_deadlock(stage: &Stage) {
    let first = stage.migrated().await;
    drop(first);
    // Four rounds on one device, one for each writer, then the next device. Deltas alone: where a batch raises floors,
    // their rows are locked first and keep others from those behind.
    let rounds: Vec<StateEvent> = (1..=2_400)
        .map(|round| {
            let keys = ["a", "b", "c", "d", "e", "f"].map(|key| (key, Value::Integer(round)));
            delta(device(round as u64 / 4 % 8), version(1, 1, round as u64), &keys, &[])
        })
        .collect();
    let tally = write_in_parallel(stage, &rounds, 1).await;
    let deadlocks = tally.aborted.iter().filter(|reason| reason.contains("40P01")).count();
    assert_eq!(deadlocks, 0, "{:?}", tally.aborted);
    // Those who only have to wait for each other do so; serializable transactions may have to be tried again.
    assert!(tally.aborted.is_empty() || stage.url().contains("serializable"), "{:?}", tally.aborted);
    assert!(tally.ambiguous.is_empty(), "{:?}", tally.ambiguous);
}

pub(crate) async fn a_reader_never_sees_a_torn_record(stage: &Stage) {
    let (writer, reader) = (stage.migrated().await, stage.open().await);
    let writing = tokio::spawn(async move {
        for round in 1..=300_u64 {
            let value = Value::Integer(round as i64);
            // The attributes come and go, so that a torn floor would show as well.
            let keys = if round % 2 == 0 { ["a", "b"] } else { ["c", "d"] };
            let attributes = keys.map(|key| (key, value.clone(), round));
            write(&writer, &rows(&[snapshot(device(1), version(1, 1, round), &attributes)], 0)).await;
        }
    });
    let mut reads = 0;
    while !writing.is_finished() || reads == 0 {
        let records = if reads % 2 == 0 {
            reader.records().await.unwrap()
        } else {
            reader.records_of(&[device(1)]).await.unwrap()
        };
        for record in records.values() {
            let round = record.floor.seq.get();
            let keys = if round % 2 == 0 { ["a", "b"] } else { ["c", "d"] };
            let expected = keys.map(|key| (name(key), (Value::Integer(round as i64), record.floor)));
            assert_eq!(record.attributes, expected.into(), "at seq {round}");
        }
        reads += 1;
    }
    writing.await.unwrap();
}

/// Each writer has a store of its own, as processes have, and takes every fourth event, in batches of random size.
pub(crate) async fn write_in_parallel(stage: &Stage, events: &[StateEvent], seed: u64) -> Tally {
    let mut writing = Vec::new();
    for writer in 0..WRITERS {
        let store = stage.open().await;
        let mut random = StdRng::seed_from_u64(seed * WRITERS as u64 + writer as u64);
        let mine: Vec<_> = events.iter().skip(writer).step_by(WRITERS).cloned().collect();
        let batches = batches(&mine, &mut random);
        writing.push(tokio::spawn(async move {
            let mut tally = Tally::default();
            for (at, mut batch) in batches.into_iter().enumerate() {
                batch.feed = Some(Feed { partition: writer as i32, next_offset: at as i64, received: Wall(0) });
                let more = write(&store, &batch).await;
                tally.aborted.extend(more.aborted);
                tally.ambiguous.extend(more.ambiguous);
            }
            tally
        }));
    }
    let mut tally = Tally::default();
    for writer in writing {
        let more = writer.await.unwrap();
        tally.aborted.extend(more.aborted);
        tally.ambiguous.extend(more.ambiguous);
    }
    tally
}

pub(crate) async fn assert_true(store: &Database, truth: &BTreeMap<Device, Record>, seed: u64) {
    let records = store.records().await.unwrap();
    for (device, expected) in truth {
        let attributes = records[device].attributes.iter().map(|(name, (value, _))| (name.clone(), value.clone()));
        assert_eq!(attributes.collect::<Record>(), *expected, "seed {seed}, device {device}");
    }
}

pub(crate) async fn empty(stage: &Stage) {
    stage.execute("DELETE FROM device; DELETE FROM device_attribute; DELETE FROM device_session").await;
}

fn batches(events: &[StateEvent], random: &mut StdRng) -> Vec<Rows> {
    let (mut batches, mut rest) = (Vec::new(), events);
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(random.random_range(1..=9).min(rest.len()));
        batches.push(rows(batch, 0));
        rest = others;
    }
    batches
}

async fn assert_shown(store: &Database, model: &BTreeMap<Device, DeviceState>) {
    let records = store.records().await.unwrap();
    for (device, state) in model {
        let visible = state.visible().map(|visible| {
            let owned = visible.into_iter().map(|(name, (value, version))| (name.clone(), (value.clone(), version)));
            owned.collect::<BTreeMap<_, _>>()
        });
        assert_eq!(records.get(device).map(|record| &record.attributes), visible.as_ref(), "device {device}");
    }
}

/// Cleans again and again; where writers are in its way, the next pass does what this one could not.
async fn clean_until(store: Arc<Database>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        match store.clean().await {
            Ok(_) | Err(StoreError::Busy(_)) => {}
            Err(error) => panic!("clean-up: {error:?}"),
        }
        // A pace, not a wait: far more often than in production, yet writers have their turn.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
