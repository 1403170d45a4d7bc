//! Reads a sample of devices often, for freshness: a change counts as reflected when a reader of the store sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{event::Value, id::Device};
use rand::{RngExt, seq::IndexedRandom};

use crate::{
    fleet::plan::{DeviceIndex, Plan},
    history::What,
    live::{journal::Journal, primary::Primary},
    random::stream,
};

/// Time between two reads: the resolution of latency and staleness. What is measured is at most this much too large.
const EVERY: Duration = Duration::from_millis(50);

/// Devices in the sample.
const DEVICES: usize = 200;

/// The sample: standing devices, drawn from the seed.
#[must_use]
pub(in crate::live) fn choose(plan: &Plan, seed: u64) -> Vec<DeviceIndex> {
    let standing = plan.raes.iter().filter(|rae| rae.stay.is_none()).map(|rae| rae.devices.end).max().unwrap_or(0);
    let all: Vec<_> = (0..standing).map(DeviceIndex).collect();
    let mut rng = stream(seed, "sample", 0);
    // Drawn in one go from one stream: the same sample for the same seed.
    let _warm: u64 = rng.random();
    let mut sample: Vec<_> = all.sample(&mut rng, DEVICES).copied().collect();
    sample.sort_unstable();
    sample
}

/// Reads the sample until it is dropped.
pub(in crate::live) async fn watch(sample: Vec<DeviceIndex>, plan: Arc<Plan>, primary: Primary, journal: Journal) {
    let ids: Vec<Device> = sample.iter().map(|index| plan.devices[index.0 as usize].id).collect();
    let mut shown: BTreeMap<Device, i64> = BTreeMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A store that cannot be read shows nothing new; the offsets' reader says when that lasts.
        let held = primary.held().await;
        let Some(now) = &*held else { continue };
        let Ok(records) = now.store.records_of(&ids).await else { continue };
        for (index, id) in sample.iter().zip(&ids) {
            let rev = records.get(id).and_then(|record| record.attributes.get("rev"));
            let Some((Value::Integer(rev), _)) = rev else { continue };
            if shown.insert(*id, *rev) != Some(*rev) {
                journal.enter(What::Reflected { device: *index, rev: *rev }).await;
            }
        }
    }
}
