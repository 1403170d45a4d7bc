//! The writer stage: rows into the store, each write answered, also when a worker panics.
//!
//! A panic is answered as "may be durable or not", and the core repeats the write. Rows on which workers break again and
//! again are refused in the end: the core bisects them down to the one record, quarantines it, and the stream goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use dmp_core::{
    core::EffectId,
    merge::Rows,
    registry::{Event, Partition, WriteOutcome},
};

use super::{Faults, Gauges};
use crate::{metrics::Counter, stage::Work, store::Store};

/// Breaks in a row on the same rows before these are refused: far more than a fault that passes would cause within the
/// back-off, and a record that always breaks a worker is found within a minute.
const BREAKS_UNTIL_REFUSED: u32 = 8;

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
    /// Per partition the rows on which workers broke last, and how often in a row.
    breaks: Mutex<BTreeMap<Partition, (Arc<Rows>, u32)>>,
}

impl<S: Store> Writer<S> {
    pub(super) fn new(store: Arc<S>, faults: Faults, gauges: Gauges) -> Writer<S> {
        let restarts = gauges.restarts("writer");
        Writer { store, faults, gauges, restarts, breaks: Mutex::default() }
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
            WriteOutcome::Committed { .. } => {}
            WriteOutcome::Aborted { reason } => tracing::warn!(partition, "write aborted: {reason}"),
            WriteOutcome::Ambiguous { reason } => tracing::warn!(partition, "write with unknown outcome: {reason}"),
            WriteOutcome::Refused { reason } => tracing::warn!(partition, "write refused: {reason}"),
        }
        Event::Written(id, outcome)
    }

    fn broken(&self, Write { id, partition, rows }: Write, reason: String) -> Event {
        let mut breaks = self.breaks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaks.remove(&partition).filter(|(broken, _)| Arc::ptr_eq(broken, &rows)).map_or(0, |(_, n)| n);
        if before + 1 >= BREAKS_UNTIL_REFUSED {
            return Event::Written(id, WriteOutcome::Refused { reason });
        }
        breaks.insert(partition, (rows, before + 1));
        Event::Written(id, WriteOutcome::Ambiguous { reason })
    }

    fn failed(&self, reason: &str) {
        self.restarts.increment();
        tracing::error!(reason, "writer failed and is started again");
    }
}
