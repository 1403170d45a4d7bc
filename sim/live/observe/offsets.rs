//! Reads committed offsets, then what the store says it reflects, then end offsets: lag that is never negative.

use std::time::Duration;

use dmp_service::kafka::inspect::Inspector;

use crate::{
    history::What,
    live::{journal::Journal, primary::Primary, store_view::StoreView},
};

/// Time between two rounds.
const EVERY: Duration = Duration::from_millis(250);

/// Failed rounds in a row after which the run is broken: about ten seconds.
const FAILURES: u32 = 40;

/// Reads rounds until it is dropped.
pub(in crate::live) async fn watch(topic: String, primary: Primary, journal: Journal) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let held = primary.held().await;
        let Some(now) = &*held else { continue };
        match round(&topic, &now.inspector, &now.store).await {
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

async fn round(topic: &str, inspector: &Inspector, store: &StoreView) -> anyhow::Result<Vec<What>> {
    let committed = inspector.committed(topic).await?;
    let feeds = store.feeds().await?;
    let ends = inspector.end_offsets(topic).await?;
    let mut round = vec![What::Partitions(u32::try_from(ends.len())?)];
    round.extend(committed.into_iter().map(|(partition, offset)| What::Committed { partition, offset }));
    let feed = |feed: dmp_core::merge::Feed| What::Feed { partition: feed.partition, next_offset: feed.next_offset };
    round.extend(feeds.into_iter().map(feed));
    round.extend(ends.into_iter().map(|(partition, offset)| What::End { partition, offset }));
    Ok(round)
}
