//! What a comparison of the registries with the baseline consumer comes to.

use serde::Serialize;

use crate::observe::Percentiles;

/// Both sides of a comparison.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BeforeAfterFigures {
    /// The baseline consumer: what not to do.
    pub before: SideFigures,
    /// The registries.
    pub after: SideFigures,
}

/// One side of a comparison; all but wrong rows is of the load.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct SideFigures {
    /// Lag in records, end - reflected, while it is quiet.
    pub quiet_lag: Percentiles,
    /// Highest lag in records in and shortly after a burst.
    pub burst_lag: u64,
    /// Deepest queue of records in memory: that of a partition, where each has its own.
    pub queue: u64,
    /// The bound of that queue, where it has one.
    pub queue_cap: Option<u64>,
    /// Largest memory of its processes together, in bytes.
    pub memory_bytes: u64,
    /// Records reflected.
    pub records: u64,
    /// Offset commits that Kafka took.
    pub commits: u64,
    /// Devices with a row that shows less than was committed, as of the last read.
    pub wrong_rows: u64,
    /// Devices of which anything had been committed by then.
    pub devices: u64,
    /// Quiet windows, in order.
    pub windows: Vec<WindowFigures>,
    /// Whether its process ended by itself.
    pub fell: bool,
}

/// Ten seconds or so in which it is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct WindowFigures {
    /// Begin, in seconds from the begin of the run.
    pub begins_s: f64,
    /// End, likewise.
    pub ends_s: f64,
    /// Events put on the wire by the fleet.
    pub published: u64,
    /// Records reflected.
    pub reflected: u64,
    /// Lag at its begin.
    pub lag_begins: u64,
    /// Lag at its end.
    pub lag_ends: u64,
}

impl SideFigures {
    /// Offset commits per record; `None` where no record was reflected.
    #[must_use]
    pub fn commits_per_record(&self) -> Option<f64> {
        (self.records > 0).then(|| self.commits as f64 / self.records as f64)
    }
}

impl WindowFigures {
    /// Reflected records as a part of those published.
    #[must_use]
    pub fn followed(&self) -> f64 {
        self.reflected as f64 / (self.published as f64).max(1.0)
    }
}
