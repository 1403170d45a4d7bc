//! Reads what the baseline consumer has come to: its committed offsets, now and then its rows, and end offsets last.

use std::time::Duration;

use anyhow::Context;
use dmp_core::event::kafka_topic;
use dmp_service::{
    kafka::inspect::Inspector,
    store::{Access, Database, Store},
};

use crate::{
    history::{BaselineSeen, What},
    live::{baseline::Config, journal::Journal},
};

/// Time between two rounds: as the offsets of the registries are read.
const EVERY: Duration = Duration::from_millis(250);

/// Rounds from one read of all rows to the next: what is wrong stays so, and reading must not slow down what is observed.
const ROWS_EVERY: u32 = 16;

/// Reads the group and the store of the baseline.
pub(in crate::live) struct Reader {
    inspector: Inspector,
    store: Database,
}

impl Reader {
    /// Opens what a baseline that is ready has made.
    pub(in crate::live) async fn open(config: &Config) -> anyhow::Result<Reader> {
        let url = config.store.full_url().context("parsing the URL of the baseline's store")?;
        let store = Database::open(&url, Access::Read).await.context("opening the baseline's store for reading")?;
        Ok(Reader { inspector: Inspector::new(&config.kafka, &config.group)?, store })
    }

    async fn round(&self, with_rows: bool) -> anyhow::Result<BaselineSeen> {
        let committed = self.inspector.committed(kafka_topic::EVENTS).await?.into_iter().collect();
        let rows = if with_rows { Some(self.store.records().await?) } else { None };
        let ends = self.inspector.end_offsets(kafka_topic::EVENTS).await?.into_iter().collect();
        Ok(BaselineSeen { committed, rows, ends })
    }
}

/// Reads rounds until it is dropped.
pub(in crate::live) async fn watch(reader: Reader, journal: Journal) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u32.. {
        ticks.tick().await;
        match reader.round(round.is_multiple_of(ROWS_EVERY)).await {
            Ok(seen) => journal.enter(What::Baseline(Box::new(seen))).await,
            // A round that is missing is seen where it counts: windows are measured from reading to reading.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "reading the baseline"),
        }
    }
}
