//! Reads committed offsets, then what the store says it reflects, then end offsets: lag that is never negative.

use std::time::Duration;

use dmp_core::event::kafka_topic;
use dmp_service::{kafka::inspect::Inspector, store::Store};

use crate::{
    history::What,
    live::{journal::Journal, primary::Primary},
};

/// Time between two rounds.
const EVERY: Duration = Duration::from_millis(250);

/// Failed rounds in a row after which the run is broken: about ten seconds.
const FAILURES: u32 = 40;

/// Reads rounds until it is dropped.
pub(in crate::live) async fn watch(primary: Primary, journal: Journal) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let held = primary.held().await;
        let Some(now) = &*held else { continue };
        match round(&now.inspector, &*now.store).await {
            Ok(mut round) => {
                failures = 0;
                for what in round.drain(..) {
                    journal.enter(what).await;
                }
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES {
                    journal.enter(What::Broken(format!("reading offsets: {error:#}").into())).await;
                }
            }
        }
    }
}

async fn round(inspector: &Inspector, store: &impl Store) -> anyhow::Result<Vec<What>> {
    let committed = inspector.committed(kafka_topic::EVENTS).await?;
    let feeds = store.feeds().await?;
    let ends = inspector.end_offsets(kafka_topic::EVENTS).await?;
    let mut round = vec![What::Partitions(u32::try_from(ends.len())?)];
    round.extend(committed.into_iter().map(|(partition, offset)| What::Committed { partition, offset }));
    let feed = |feed: dmp_core::merge::Feed| What::Feed { partition: feed.partition, next_offset: feed.next_offset };
    round.extend(feeds.into_iter().map(feed));
    round.extend(ends.into_iter().map(|(partition, offset)| What::End { partition, offset }));
    Ok(round)
}
