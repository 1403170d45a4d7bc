//! A scenario: one question to a pipeline, as a TOML file or built in code.
//!
//! Everything is validated when it is read: a [`Scenario`] that exists can be run, up to what its target can do. All
//! times within a run are measured from the start of its first load phase.

mod command;
mod fault;
pub mod parse;
pub mod quantity;
mod written;

pub use command::{Addressee, Ask, Commands};
pub use fault::{Fault, FaultKind, OldRae, Part, PoisonKind, ReadFrom, Server, ServerFault};
pub use parse::{Override, ScenarioError};
pub use written::Written;

use std::time::Duration;

use dmp_core::core::Qos;
use serde::Serialize;

use quantity::{as_text, as_text_or_none};

/// Length of heal: after the last phase all faults are over, and changes go on at rate 1 for this long.
pub const HEAL: Duration = Duration::from_secs(5);

/// A validated scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// Name: the file's, without its ending.
    pub name: String,
    /// What the scenario asks: the first comment line of the file.
    pub question: String,
    /// From which every random stream is derived.
    pub seed: u64,
    /// Who publishes what.
    pub fleet: Fleet,
    /// How the reference pipeline is built and set.
    pub pipeline: Pipeline,
    /// The load, in order; at least one.
    pub phases: Vec<Phase>,
    /// What goes wrong, and when; in order of time.
    pub faults: Vec<Fault>,
    /// What is sent down to the fleet; in order of time.
    pub commands: Vec<Commands>,
    /// Limits beside the invariants, which always hold.
    pub checks: Checks,
}

/// The simulated fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// RAEs, 1 to 20,000.
    pub raes: u32,
    /// Devices per RAE, 1 to 1,000.
    pub devices_per_rae: u32,
    /// Mean time between two changes of one device at rate 1; exponentially distributed.
    #[serde(serialize_with = "as_text")]
    pub update_every: Duration,
    /// Share of changes that also remove an attribute, 0 to 1.
    pub unset_share: f64,
    /// Mean time between two re-attachments (a new session) of one device; `None` is never.
    #[serde(serialize_with = "as_text_or_none")]
    pub reattach_every: Option<Duration>,
    /// Mean time between two snapshots of one device.
    #[serde(serialize_with = "as_text")]
    pub snapshot_every: Duration,
    /// Time between two probes of one device.
    #[serde(serialize_with = "as_text")]
    pub probe_every: Duration,
    /// Size of a payload that the generator aims at, delta and snapshot alike; 400 B to 64 KiB.
    pub record_bytes: u32,
    /// Delivery quality of state events.
    pub qos: Qos,
    /// New MQTT connections per second while the fleet connects.
    pub connects_per_s: u32,
    /// Each RAE's wall clock is wrong by a random amount within plus and minus this; `None`: all are right.
    #[serde(serialize_with = "as_text_or_none", skip_serializing_if = "Option::is_none")]
    pub clock_offset: Option<Duration>,
}

/// The reference pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// 1, 2, 4, 8 or 16 bridge connections, each with its own shards.
    pub shard_groups: u8,
    /// Bridge processes, 1 to `shard_groups`.
    pub bridges: u8,
    /// Registry processes, 1 to 16.
    pub registries: u8,
    /// Partitions of the events topic, 1 to 256.
    pub partitions: u16,
    /// Most messages of a bridge connection that wait for Kafka.
    pub bridge_window: u32,
    /// Rows at which a batch is written.
    pub batch_rows: u32,
    /// Age at which a batch is written.
    #[serde(serialize_with = "as_text")]
    pub batch_wait: Duration,
    /// Records buffered per partition before it is paused.
    pub partition_credit: u32,
    /// Records after which offsets are committed.
    pub commit_records: u32,
    /// Time after which offsets are committed.
    #[serde(serialize_with = "as_text")]
    pub commit_every: Duration,
    /// Kafka's session timeout of the registry's group.
    #[serde(serialize_with = "as_text")]
    pub session_timeout: Duration,
    /// Time between two clean-ups of the store.
    #[serde(serialize_with = "as_text")]
    pub clean_every: Duration,
    /// Whether a gap in a session's numbers makes the registry ask it for a snapshot, where a phase says nothing else.
    pub repair: bool,
    /// How long a gap may wait for what is missing before that.
    #[serde(serialize_with = "as_text")]
    pub gap_wait: Duration,
    /// Whether a baseline consumer, which does what not to do, reads the same log into a store of its own.
    pub baseline: bool,
}

/// One stretch of load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// Its name, unique; faults refer to it.
    pub name: String,
    /// How long it lasts.
    #[serde(serialize_with = "as_text")]
    pub lasts: Duration,
    /// Factor on the rate of changes, 0 to 1,000.
    pub rate: f64,
    /// Whether gaps are actively repaired in this phase, and from then on until another one.
    pub repair: bool,
    /// Flash traffic in this phase.
    pub canary: Option<Canary>,
}

/// Short-lived MQTT clients, each a RAE with one device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Canary {
    /// How many.
    pub clients: u32,
    /// Over which time, from the begin of the phase, they connect.
    #[serde(serialize_with = "as_text")]
    pub over: Duration,
    /// Messages that each sends: a snapshot, then deltas.
    pub messages: u32,
}

/// Limits beside the invariants. `None` is not limited; the figure is reported all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Checks {
    /// Bound of convergence after heal; `None`: computed from the settings.
    #[serde(serialize_with = "as_text_or_none")]
    pub converged_within: Option<Duration>,
    /// Highest lag (end - committed) in records.
    pub lag_peak: Option<u64>,
    /// 99th percentile of lag (end - reflected) in load phases.
    pub lag_reflected_p99: Option<u64>,
    /// 99th percentile of lag (end - committed) in load phases.
    pub lag_committed_p99: Option<u64>,
    /// After a phase with a rate above 1, a canary, or a fault: back to a quiet lag within this.
    #[serde(serialize_with = "as_text_or_none")]
    pub drained_within: Option<Duration>,
    /// Lag (end - reflected) at or below which the pipeline is quiet.
    pub quiet_lag: u64,
    /// 99th percentile of latency: row visible - intended time.
    #[serde(serialize_with = "as_text_or_none")]
    pub staleness_p99: Option<Duration>,
    /// Longest time that a partition with lag and a live owner may stand still while no fault holds it.
    #[serde(serialize_with = "as_text")]
    pub stalled_at_most: Duration,
    /// Lateness of the generator above which the run is invalid.
    #[serde(serialize_with = "as_text")]
    pub lateness_at_most: Duration,
    /// 99th percentile, in each phase without faults, of reply in the log - intended time of the command.
    #[serde(serialize_with = "as_text_or_none")]
    pub command_p99: Option<Duration>,
    /// Median time in which a snapshot healed what was missed under active repair, as a part of that without.
    pub repair_ratio: Option<f64>,
    /// What the comparison with the baseline must show.
    pub before_after: Option<BeforeAfter>,
    /// After the number of processes changed: consumption is back at the rate of publication within this.
    #[serde(serialize_with = "as_text")]
    pub scaled_within: Duration,
}

/// What a comparison of the registries with the baseline consumer must show, beside a quiet lag of the registries and a
/// lag of the baseline that grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BeforeAfter {
    /// The registries commit at least so many times less often per record, 1 to 1,000,000.
    pub fewer_commits: f64,
    /// In each quiet window the registries reflect as many records as are published, but for this part of them.
    pub follows_within: f64,
    /// The baseline shows at least so many devices wrong.
    pub wrong_rows: u64,
}

impl Scenario {
    /// Length of the load: all phases.
    #[must_use]
    pub fn load(&self) -> Duration {
        self.phases.iter().map(|phase| phase.lasts).sum()
    }

    /// When phase `index` begins.
    #[must_use]
    pub fn phase_begins(&self, index: usize) -> Duration {
        self.phases[..index].iter().map(|phase| phase.lasts).sum()
    }

    /// Whether gaps are actively repaired `at` from the begin of the load.
    #[must_use]
    pub fn repairs_at(&self, at: Duration) -> bool {
        let begun = (0..self.phases.len()).rfind(|&index| self.phase_begins(index) <= at);
        begun.map_or(self.pipeline.repair, |index| self.phases[index].repair)
    }

    /// The faults that start a new consumer: number of the fault, and where it begins to read. Its place here is the
    /// number of its process.
    pub fn consumers(&self) -> impl Iterator<Item = (usize, ReadFrom)> + '_ {
        self.faults.iter().enumerate().filter_map(|(fault, Fault { kind, .. })| match *kind {
            FaultKind::NewConsumer { from } => Some((fault, from)),
            _ => None,
        })
    }

    /// Number of processes of a part `at` from the begin of the load, whoever of them is down. A fault of that very moment
    /// has not changed it yet.
    #[must_use]
    pub fn processes_at(&self, part: Part, at: Duration) -> u8 {
        self.scaled(part).rfind(|&(from, _)| from < at).map_or(self.processes(part), |(_, to)| to)
    }

    /// Most processes of a part at any time.
    #[must_use]
    pub fn most_processes(&self, part: Part) -> u8 {
        self.scaled(part).map(|(_, to)| to).fold(self.processes(part), u8::max)
    }

    /// Number of processes of a part before any fault.
    fn processes(&self, part: Part) -> u8 {
        match part {
            Part::Bridge => self.pipeline.bridges,
            Part::Registry => self.pipeline.registries,
            Part::Consumer => 0,
            Part::Baseline => self.pipeline.baseline.into(),
        }
    }

    /// When a part gets how many processes.
    fn scaled(&self, part: Part) -> impl DoubleEndedIterator<Item = (Duration, u8)> + '_ {
        self.faults.iter().filter_map(move |fault| match fault.kind {
            FaultKind::Scale { part: of, to } if of == part => Some((fault.at, to)),
            _ => None,
        })
    }

    /// Whether only servers in containers can do what the scenario asks: each of these has a fault that says so.
    #[must_use]
    pub fn needs_containers(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.needs_containers())
    }

    /// Devices of the standing fleet, canaries apart.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.fleet.raes * self.fleet.devices_per_rae
    }
}
