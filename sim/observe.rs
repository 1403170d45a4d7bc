//! Figures of a run, folded from its history: percentiles, time series, who healed what. No check, no opinion.

mod before_after;
mod fold;
mod healing;
pub(crate) mod lag;
mod round_trips;
mod sample;
#[cfg(test)]
mod tests;

pub use before_after::{BeforeAfterFigures, SideFigures, WindowFigures};
pub(crate) use fold::MEMORY_GAUGE;
pub use fold::{FiguresFold, Snapshot};

use serde::Serialize;

/// Percentiles of one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// Half of them are at or below this.
    pub p50: f64,
    /// 99 % of them are at or below this.
    pub p99: f64,
    /// 99.9 % of them are at or below this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// Figures of one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseFigures {
    /// Its name.
    pub name: String,
    /// Its place in every run.
    pub stage: crate::history::Stage,
    /// Begin, in seconds from the begin of the run.
    pub begins_s: f64,
    /// End, likewise.
    pub ends_s: f64,
    /// Events put on the wire by the fleet.
    pub published: u64,
    /// Records appended to the log.
    pub appended: u64,
    /// Latency in milliseconds: `rev` visible - its intended time, for changes intended in this phase (sampled devices).
    pub latency_ms: Percentiles,
    /// Staleness in milliseconds: age of the oldest unreflected change of a sampled device, over devices and time.
    pub staleness_ms: Percentiles,
    /// Lag in records: end - committed, summed over partitions.
    pub lag_committed: Percentiles,
    /// Lag in records: end - reflected, summed over partitions.
    pub lag_reflected: Percentiles,
    /// Round trip in milliseconds: reply in the log - intended time, for commands that were due in this phase.
    pub command_ms: Percentiles,
}

/// One point of the time series; rates are over the time since the point before.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Point {
    /// Seconds from the begin of the run.
    pub at_s: f64,
    /// Events put on the wire per second.
    pub published_per_s: f64,
    /// Records appended per second.
    pub appended_per_s: f64,
    /// Records reflected in the store per second.
    pub reflected_per_s: f64,
    /// End - committed, in records.
    pub lag_committed: u64,
    /// End - reflected, in records.
    pub lag_reflected: u64,
    /// Age of the first uncommitted record, in seconds.
    pub lag_committed_s: f64,
    /// Oldest unreflected change of a sampled device, in milliseconds.
    pub staleness_ms: f64,
    /// Sampled devices whose newest change is not reflected.
    pub devices_behind: u64,
    /// Deepest queue per name over all processes.
    pub queues: std::collections::BTreeMap<String, u64>,
}

/// Changes that were missed and healed in one way.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Healed {
    /// How many.
    pub count: u64,
    /// Healing time in milliseconds: reflected in the store - intended time, to within a quarter of a second.
    pub after_ms: Percentiles,
}

/// What brought the changes of the plan into the log. A change is missed when a later event of its device is there first.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct HealedBy {
    /// By their own update, in order: never missed.
    pub own_update: u64,
    /// Missed, and healed by their own update, which came late.
    pub update: Healed,
    /// Missed, and healed by a snapshot that nobody had asked for: periodic, or opening a session.
    pub snapshot: Healed,
    /// Missed, and healed by a snapshot that was asked for.
    pub requested_snapshot: Healed,
    /// Never within the run.
    pub never: u64,
}

/// A fault, when it really held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultFigures {
    /// Its key and parameters.
    pub what: String,
    /// Begin, in seconds from the begin of the run.
    pub began_s: f64,
    /// End; absent if it had not ended when the run did.
    pub ended_s: Option<f64>,
}

/// All figures of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Per phase, in order.
    pub phases: Vec<PhaseFigures>,
    /// The time series, a point per second or so.
    pub series: Vec<Point>,
    /// What brought the changes into the log.
    pub healed_by: HealedBy,
    /// Healing time in milliseconds of what snapshots healed that was missed while active repair was on.
    pub repaired_ms: Percentiles,
    /// The same while it was off.
    pub unrepaired_ms: Percentiles,
    /// Faults.
    pub faults: Vec<FaultFigures>,
    /// Largest memory per process in bytes.
    pub memory_bytes: std::collections::BTreeMap<String, u64>,
    /// Largest lateness of the generator, in milliseconds.
    pub lateness_ms_max: f64,
    /// From the end of heal until every row equalled its device, in seconds; absent if that was not reached.
    pub converged_after_s: Option<f64>,
    /// Stores that began empty in mid-run.
    pub reconstructions: Vec<ReconstructionFigures>,
    /// The registries beside the baseline consumer, where there is one.
    pub before_after: Option<BeforeAfterFigures>,
}

/// How a store that began empty in mid-run came to show every device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReconstructionFigures {
    /// `registry`, or `new consumer 0`.
    pub who: String,
    /// Where its group began to read.
    pub from: crate::scenario::ReadFrom,
    /// When its process was ready, in seconds from the begin of the run; absent if it never was.
    pub started_s: Option<f64>,
    /// From then until it showed every device as it was, in seconds; absent if it never did.
    pub complete_after_s: Option<f64>,
    /// Bound of that.
    pub within_s: f64,
    /// Records in the log when it started.
    pub backlog: u64,
    /// Records per second that it reflected: of the backlog, or, from the end of the log, until it was complete. Absent
    /// if it never came so far.
    pub reflected_per_s: Option<f64>,
    /// Records per second that the registry reflected under load before.
    pub normal_per_s: Option<f64>,
    /// Commands that it sent, until it was complete if it is the registry.
    pub commands: u64,
}
