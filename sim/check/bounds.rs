//! C7: every queue stays within its cap, and the memory of each process within its budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    history::{Entry, Gauge, Process, What},
    observe::MEMORY_GAUGE,
    scenario::{Part, Scenario},
};

/// What a process may grow by besides its queues: librdkafka prefetches up to 64 MiB, and allocators keep as much again.
const MEMORY_GROWTH_BYTES: u64 = 256 << 20;

/// Memory that a queued record takes, in times its payload: decoded, encoded, and as rows.
const COPIES_IN_MEMORY: u64 = 8;

/// C7.
#[derive(Debug)]
pub(super) struct Bounds {
    tally: Tally,
    /// Memory at first sight.
    baseline: BTreeMap<Process, u64>,
    told: BTreeSet<(Process, Arc<str>)>,
    /// The fullest queue: its share of its cap, in percent.
    fullest: u64,
    grown: u64,
}

impl Bounds {
    pub(super) fn new() -> Bounds {
        Bounds {
            tally: Tally::new(CheckId::C7),
            baseline: BTreeMap::new(),
            told: BTreeSet::new(),
            fullest: 0,
            grown: 0,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            // A new process starts from a new baseline.
            What::ProcessStarted(process) => {
                self.baseline.remove(process);
            }
            // The baseline has no bounds: that is what is shown of it.
            What::Gauges(process, gauges) if process.part != Part::Baseline => {
                for gauge in gauges {
                    self.gauge(models, entry, *process, gauge);
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if !models.observable.gauges {
            return self.tally.not_observable("the target shows no queues");
        }
        let figure = format!("fullest queue {} % of its cap, memory grew by {} MiB", self.fullest, self.grown >> 20);
        let limit = format!("100 %, {} MiB", growth(&models.scenario) >> 20);
        self.tally.result(figure, limit, "gauge")
    }

    fn gauge(&mut self, models: &Models, entry: &Entry, process: Process, gauge: &Gauge) {
        self.tally.saw();
        let cap = if &*gauge.name == MEMORY_GAUGE {
            let baseline = *self.baseline.entry(process).or_insert(gauge.value);
            self.grown = self.grown.max(gauge.value.saturating_sub(baseline));
            Some(baseline + growth(&models.scenario))
        } else {
            self.fullest = self.fullest.max(gauge.cap.map_or(0, |cap| gauge.value * 100 / cap.max(1)));
            gauge.cap
        };
        let Some(cap) = cap.filter(|&cap| gauge.value > cap) else { return };
        if self.told.insert((process, gauge.name.clone())) {
            let what =
                format!("{} of {:?} {} is {}, above {cap}", gauge.name, process.part, process.index, gauge.value);
            self.tally.fail(entry.at, || (what, Vec::new()));
        }
    }
}

/// By how much the memory of a process may grow: all queues full, and what the libraries keep.
fn growth(scenario: &Scenario) -> u64 {
    let pipeline = &scenario.pipeline;
    let queued = u64::from(pipeline.partitions) * u64::from(pipeline.partition_credit)
        + u64::from(pipeline.shard_groups) * u64::from(pipeline.bridge_window);
    MEMORY_GROWTH_BYTES + queued * u64::from(scenario.fleet.record_bytes) * COPIES_IN_MEMORY
}
