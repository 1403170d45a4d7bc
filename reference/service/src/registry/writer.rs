//! The writer stage: rows into the store, each write answered, also when a worker panics.

use std::{sync::Arc, time::Instant};

use dmp_core::{
    core::EffectId,
    merge::Rows,
    registry::{Event, Partition, WriteOutcome},
};

use super::{Faults, Gauges};
use crate::{metrics::Counter, stage::Work, store::Store};

/// One write. The core has at most one per partition and generation under way.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) id: EffectId,
    pub(super) partition: Partition,
    pub(super) rows: Arc<Rows>,
}

pub(super) struct Writer<S> {
    store: Arc<S>,
    faults: Faults,
    gauges: Gauges,
    restarts: Counter,
}

impl<S: Store> Writer<S> {
    pub(super) fn new(store: Arc<S>, faults: Faults, gauges: Gauges) -> Writer<S> {
        let restarts = gauges.restarts("writer");
        Writer { store, faults, gauges, restarts }
    }
}

impl<S: Store> Work for Writer<S> {
    type Job = Write;
    type Answer = Event;

    async fn work(&self, Write { id, partition, rows }: Write) -> Event {
        assert!(!self.faults.writer_panics(), "provoked failure of the writer");
        let began = Instant::now();
        let outcome = self.store.write(&rows).await;
        self.gauges.wrote(&outcome, began.elapsed());
        match &outcome {
            WriteOutcome::Committed => {}
            WriteOutcome::Aborted { reason } => tracing::warn!(partition, "write aborted: {reason}"),
            WriteOutcome::Ambiguous { reason } => tracing::warn!(partition, "write with unknown outcome: {reason}"),
            WriteOutcome::Refused { reason } => tracing::warn!(partition, "write refused: {reason}"),
        }
        Event::Written(id, outcome)
    }

    fn broken(&self, Write { id, .. }: Write, reason: String) -> Event {
        Event::Written(id, WriteOutcome::Ambiguous { reason })
    }

    fn failed(&self, reason: &str) {
        self.restarts.increment();
        tracing::error!(reason, "writer failed and is started again");
    }
}
