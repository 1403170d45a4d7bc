//! What a run is given and what it ends in: the seam between whoever asks for a run and the driver that carries it out.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Serialize;

use crate::{
    check::verdict::{CheckResult, Verdict},
    fleet::RunPrefix,
    history::Stage,
    observe::Figures,
    scenario::Scenario,
    target::{AbortIf, Deployment},
};

/// Where a scenario is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// MQTT broker, Kafka-protocol broker and SQLite inside this process.
    #[default]
    Embedded,
    /// Mosquitto, Kafka and this database in containers; only with the cargo feature `containers`.
    Containers(StoreProduct),
    /// Somebody's own servers.
    Deployed(Box<Deployment>),
}

/// A database in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreProduct {
    /// PostgreSQL.
    #[default]
    Postgres,
    /// CockroachDB, one node.
    Cockroach,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Embedded => "embedded",
            Target::Containers(StoreProduct::Postgres) => "containers, postgres",
            Target::Containers(StoreProduct::Cockroach) => "containers, cockroach",
            Target::Deployed(deployment) => &deployment.name,
        })
    }
}

impl Target {
    /// What the serials of a run there begin with, as far as it is known.
    #[must_use]
    pub fn prefix(&self) -> Option<&RunPrefix> {
        match self {
            Target::Deployed(deployment) => deployment.prefix.as_ref(),
            Target::Embedded | Target::Containers(_) => None,
        }
    }

    /// When a run there is given up.
    #[must_use]
    pub fn abort_if(&self) -> AbortIf {
        match self {
            Target::Deployed(deployment) => deployment.abort_if,
            Target::Embedded | Target::Containers(_) => AbortIf::default(),
        }
    }

    /// Its name, and what tells a run's traces from others'.
    #[must_use]
    pub fn of_run(&self) -> String {
        match self.prefix() {
            Some(prefix) => format!("{self}, run {prefix}"),
            None => self.to_string(),
        }
    }
}

/// How to run a scenario.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where.
    pub target: Target,
    /// The directory of this run's files: `result.json`, and the logs of bridge and registry in `logs/`. Made if absent.
    pub out: PathBuf,
    /// The `fleetproof` binary, of which bridge and registry are child processes; `None`: they are tasks of this process,
    /// which cannot be killed or paused.
    pub binary: Option<PathBuf>,
    /// A planted bug, by name; only with the cargo feature `sabotage`.
    pub sabotage: Option<String>,
    /// The command line that reproduces the run.
    pub reproduce: String,
}

/// How far a run is; told about four times a second.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Name of the phase.
    pub phase: String,
    /// Its place in every run; absent before the first.
    pub stage: Option<Stage>,
    /// Time since the begin of the run.
    pub elapsed: Duration,
    /// When a run that goes well has ended, from its begin: an estimate.
    pub expected: Duration,
    /// Events put on the wire per second, over the last second or so.
    pub published_per_s: f64,
    /// Records reflected in the store per second, likewise.
    pub reflected_per_s: f64,
    /// End - committed, in records.
    pub lag: u64,
    /// Devices whose rows do not equal the device.
    pub devices_behind: u64,
    /// Devices of the plan.
    pub devices: u64,
    /// Keys of the faults that hold now.
    pub faults: Vec<String>,
}

/// What a run ended in: everything that a report shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunOutcome {
    /// PASS, FAIL or INVALID.
    pub verdict: Verdict,
    /// One per check of the catalogue.
    pub checks: Vec<CheckResult>,
    /// Percentiles, series, who healed what.
    pub figures: Figures,
    /// The scenario with every default and override in it.
    pub scenario: Scenario,
    /// The target: `embedded`; `containers, postgres`; `containers, cockroach`; a target's file, and the prefix of the run.
    pub target: String,
    /// When the run began, RFC 3339 in UTC.
    pub began_at: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// What hooks have begun on somebody's servers and could not end, one line each: somebody has to.
    pub left_behind: Vec<String>,
    /// The planted bug, if any, and how often it acted.
    pub sabotage: Option<Sabotage>,
    /// Machine and versions.
    pub environment: Environment,
    /// The command line that reproduces the run.
    pub reproduce: String,
}

/// A planted bug.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sabotage {
    /// Its name.
    pub name: String,
    /// How often it was seen to act, in all lives of all processes; never means "not exercised". Absent where none told.
    pub hits: Option<u64>,
}

/// Where a run took place.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Environment {
    /// Version of fleetproof.
    pub fleetproof: String,
    /// Operating system and architecture.
    pub system: String,
    /// Processor cores that the run may use.
    pub cores: usize,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Whether it was an optimized build.
    pub optimized: bool,
}

/// Why a run could not be carried out at all; a run that was carried out has a verdict instead.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The target, or part of it, did not start.
    #[error("starting the target")]
    Target(#[source] anyhow::Error),
    /// A target that this build does not have.
    #[error(
        "this build has no {target}: build it with the cargo feature `{feature}`, as in cargo run --release --features \
         {feature} -- run ..."
    )]
    Feature {
        /// The target.
        target: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// A fault that the target cannot do.
    #[error("fault {fault} is not possible on this target: {reason}")]
    Unsupported {
        /// Key of the fault.
        fault: &'static str,
        /// Why not.
        reason: String,
    },
    /// The target does not allow it, or cannot be set as the scenario asks; nothing was begun.
    #[error("refused: {0}")]
    Refused(String),
    /// The fleet needs more open files than this process may have.
    #[error(
        "this fleet needs about {needed} open files and this process may have {limit}: raise the hard limit (ulimit -Hn), \
         or take fewer RAEs or canary clients"
    )]
    OpenFiles {
        /// Files, sockets among them.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Too little space is free where files of the run are to go.
    #[error(
        "{directory} has {} MiB free, and a run needs at least {} MiB there: make room, or take another directory (--out \
         for results, TMPDIR for temporary files)",
        free >> 20,
        needed >> 20
    )]
    NoRoom {
        /// Where.
        directory: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The directory of the run's files cannot be written.
    #[error("writing to {path}")]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted; everything that the harness started is gone")]
    Interrupted,
    /// Something in the harness failed.
    #[error("running the scenario")]
    Harness(#[source] anyhow::Error),
    /// A run that ended before its verdict, and what its hooks have begun and could not end.
    #[error("the target is not as it was, end this by hand: {}", left_behind.join("; "))]
    LeftBehind {
        /// One line for each hook.
        left_behind: Vec<String>,
        /// Why the run ended.
        #[source]
        ended: Box<RunError>,
    },
}
