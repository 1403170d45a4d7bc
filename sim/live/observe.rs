//! Black-box observation of a running pipeline: the log by an own reader, committed offsets, then rows, end offsets last.

pub(super) mod baseline;
pub(super) mod consumer;
pub(super) mod down;
pub(super) mod gauges;
pub(super) mod log;
pub(super) mod offsets;
pub(super) mod sample;
pub(super) mod store;

use std::collections::BTreeMap;

use dmp_service::{
    config::Kafka,
    kafka::{
        KafkaError,
        inspect::{Inspector, Tailed},
    },
};

use crate::{
    fleet::RunPrefix,
    target::{Observe, Topics},
};

/// The topics that are read, and what of them is the run's.
pub(super) struct Feed {
    pub(super) kafka: Kafka,
    pub(super) topics: Topics,
    pub(super) observe: Observe,
    /// Of a run that is not alone.
    pub(super) run: Option<RunPrefix>,
    /// For offsets, which are of no group.
    pub(super) inspector: Inspector,
}

impl Feed {
    /// Where the run begins in a topic: at its end, where others were there before; else at its begin.
    async fn begins(&self, topic: &str) -> Result<BTreeMap<i32, i64>, KafkaError> {
        match self.run {
            Some(_) => self.inspector.end_offsets(topic).await,
            None => Ok(BTreeMap::new()),
        }
    }
}

/// Whether a record is of the run: what others publish to the same topic is theirs.
fn is_of(run: Option<&RunPrefix>, record: &Tailed) -> bool {
    let key = || record.key.as_deref().and_then(|key| str::from_utf8(key).ok());
    run.is_none_or(|run| key().is_some_and(|key| run.is_of(key)))
}
