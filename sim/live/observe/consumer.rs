//! Reads the store of a consumer that joined in mid-run: how far it has read, and again and again all its rows.

use std::{sync::Arc, time::Duration};

use dmp_core::merge::Feed;
use dmp_service::store::{Database, Store};

use crate::{
    history::{ConsumerSeen, What},
    live::{clock::RunClock, journal::Journal},
};

/// Time between two looks at how far it is: the resolution of its rate.
const EVERY: Duration = Duration::from_millis(100);

/// Shortest time between two reads of all rows: the resolution of when it is complete.
const ROWS_EVERY: Duration = Duration::from_millis(500);

/// Reads of all rows take at most this part of the time, so that observing does not slow down what is observed.
const IDLE_FACTOR: u32 = 5;

/// Reads the store of consumer number `consumer` until it is dropped.
pub(in crate::live) async fn watch(consumer: u8, store: Database, clock: Arc<RunClock>, journal: Journal) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rows_at = Duration::ZERO;
    loop {
        ticks.tick().await;
        let began = clock.at();
        // A store that cannot be read shows nothing: a consumer that is never seen complete fails by that.
        let Ok(feeds) = store.feeds().await else { continue };
        let rows = if began >= rows_at { store.records().await.ok() } else { None };
        if rows.is_some() {
            let now = clock.at();
            rows_at = now + ROWS_EVERY.max((now - began) * IDLE_FACTOR);
        }
        let feeds = feeds.into_iter().map(|Feed { partition, next_offset, .. }| (partition, next_offset)).collect();
        journal.enter(What::Consumer(Box::new(ConsumerSeen { consumer, began, feeds, rows }))).await;
    }
}
