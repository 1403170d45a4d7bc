//! The checks: they see nothing but the typed history and the scenario, and end in one verdict with witnesses.
//!
//! ```text
//! entry -> models (log, rows, ledger, truth) -> what it meant -> each check -> result
//! ```
//!
//! [`Checks`] takes the history entry by entry while the run goes on, so that nothing of it needs to be kept, and the
//! driver can ask how far the rows are behind the truth. Each check is a file, and an arm of one enum.

pub mod verdict;

mod acknowledged;
mod attributes;
mod before_after;
mod bound;
mod bounds;
mod commands;
mod commit_safety;
mod commits;
mod conservation;
mod convergence;
mod effects;
mod feedback;
mod floors;
mod generator;
mod lag;
mod lease;
mod model;
mod order;
mod presence;
mod progress;
mod provenance;
mod reconstruction;
mod repair_ratio;
mod round_trip;
mod scale_out;
mod staleness;
mod start_position;
mod tally;
#[cfg(test)]
mod tests;

pub use bound::{bound, reonboarding};

use std::{sync::Arc, time::Duration};

use crate::{fleet::plan::Plan, history::Entry, observe::Figures, scenario::Scenario};
use model::{Fates, Models, Step};
use verdict::{CheckId, CheckResult, Outcome};

/// What a target can show; declared by the target before the run. Log, committed offsets and rows are the least.
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
    /// How the registries are set: as the scenario says.
    pub settings: bool,
    /// Whole records: floors, RAEs and presence, and not attributes alone.
    pub records: bool,
    /// Whether others publish here too, so that devices which are not the plan's are none of ours.
    pub shared: bool,
}

impl Observable {
    /// A target that shows everything and serves this run alone.
    pub const EVERYTHING: Observable = Observable {
        wire: true,
        dead_letters: true,
        gauges: true,
        processes: true,
        settings: true,
        records: true,
        shared: false,
    };
}

/// How far the rows are behind the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Whole reads of the store so far.
    pub reads: u64,
    /// Devices that exist by now.
    pub devices: u64,
    /// Devices whose rows differ from the plan, as of the last whole read.
    pub behind: u64,
    /// Whether every row equalled its device at the last whole read.
    pub converged: bool,
    /// When the set of devices behind was last another.
    pub moved: Duration,
}

/// All checks of one run.
#[derive(Debug)]
pub struct Checks {
    models: Models,
    checks: Vec<Check>,
}

/// One check of the catalogue.
#[derive(Debug)]
enum Check {
    Provenance(provenance::Provenance),
    Attributes(attributes::Attributes),
    Floors(floors::Floors),
    Order(order::Order),
    CommitSafety(commit_safety::CommitSafety),
    StartPosition(start_position::StartPosition),
    Commits(commits::Commits),
    Bounds(bounds::Bounds),
    Acknowledged(acknowledged::Acknowledged),
    Convergence(convergence::Convergence),
    Staleness(staleness::Staleness),
    Lag(lag::Lag),
    Progress(progress::Progress),
    Conservation(conservation::Conservation),
    Commands(commands::Commands),
    RoundTrip(round_trip::RoundTrip),
    FeedbackBounds(feedback::FeedbackBounds),
    Lease(lease::Lease),
    Presence(presence::Presence),
    RepairRatio(repair_ratio::RepairRatio),
    Reconstruction(Box<reconstruction::Reconstruction>),
    BeforeAfter(before_after::BeforeAfter),
    ScaleOut(scale_out::ScaleOut),
    Generator(generator::Generator),
}

impl Checks {
    /// The checks of a run of `scenario` on a target that can show this much.
    #[must_use]
    pub fn new(scenario: Arc<Scenario>, plan: Arc<Plan>, observable: Observable) -> Checks {
        Checks {
            models: Models::new(scenario, plan, observable),
            checks: CheckId::ALL.into_iter().map(Check::new).collect(),
        }
    }

    /// Takes the next entry of the history.
    pub fn observe(&mut self, entry: &Entry) {
        let step = self.models.observe(entry);
        for check in &mut self.checks {
            check.observe(&self.models, entry, &step);
        }
    }

    /// How far the rows are behind the truth.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let truth = &self.models.truth;
        Progress {
            reads: truth.reads,
            devices: truth.expected() as u64,
            behind: truth.behind().len() as u64,
            converged: truth.reads > 0 && truth.behind().is_empty(),
            moved: truth.moved,
        }
    }

    /// The results, in the order of the catalogue. Fills in [`Figures::converged_after_s`] and
    /// [`Figures::reconstructions`].
    #[must_use]
    pub fn finish(&mut self, figures: &mut Figures) -> Vec<CheckResult> {
        self.models.ledger.settle();
        let fates = self.models.fates();
        let converged = self.checks.iter().find_map(|check| check.converged_after(&self.models));
        figures.converged_after_s = converged.map(|after| after.as_secs_f64());
        let builds = self.checks.iter().find_map(|check| match check {
            Check::Reconstruction(check) => Some(check.figures()),
            _ => None,
        });
        figures.reconstructions = builds.unwrap_or_default();
        let models = &self.models;
        // The generator first: others judge what it fell short of otherwise.
        let generator = self.checks.iter_mut().find(|check| matches!(check, Check::Generator(_)));
        let generator = generator.map(|check| check.finish(models, figures, &fates, true)).expect("of the catalogue");
        let sound = generator.outcome == Outcome::Pass;
        let others = self.checks.iter_mut().filter(|check| !matches!(check, Check::Generator(_)));
        let mut results: Vec<_> = others.map(|check| check.finish(models, figures, &fates, sound)).collect();
        results.push(generator);
        results.sort_by_key(|result| result.id);
        results
    }
}

impl Check {
    fn new(id: CheckId) -> Check {
        match id {
            CheckId::C1 => Check::Provenance(provenance::Provenance::new()),
            CheckId::C2 => Check::Attributes(attributes::Attributes::new()),
            CheckId::C3 => Check::Floors(floors::Floors::new()),
            CheckId::C4 => Check::Order(order::Order::new()),
            CheckId::C5 => Check::CommitSafety(commit_safety::CommitSafety::new()),
            CheckId::C5b => Check::StartPosition(start_position::StartPosition::new()),
            CheckId::C6 => Check::Commits(commits::Commits::new()),
            CheckId::C7 => Check::Bounds(bounds::Bounds::new()),
            CheckId::C8 => Check::Acknowledged(acknowledged::Acknowledged::new()),
            CheckId::C9 => Check::Convergence(convergence::Convergence::new()),
            CheckId::C10 => Check::Staleness(staleness::Staleness::new()),
            CheckId::C11 => Check::Lag(lag::Lag::new()),
            CheckId::C12 => Check::Progress(progress::Progress::new()),
            CheckId::C15 => Check::Conservation(conservation::Conservation::new()),
            CheckId::C16 => Check::Commands(commands::Commands::new()),
            CheckId::C17 => Check::RoundTrip(round_trip::RoundTrip::new()),
            CheckId::C18 => Check::FeedbackBounds(feedback::FeedbackBounds::new()),
            CheckId::C19 => Check::Lease(lease::Lease::new()),
            CheckId::C20 => Check::Presence(presence::Presence::new()),
            CheckId::C21 => Check::RepairRatio(repair_ratio::RepairRatio::new()),
            CheckId::C22 => Check::Reconstruction(Box::default()),
            CheckId::C23 => Check::BeforeAfter(before_after::BeforeAfter::new()),
            CheckId::C24 => Check::ScaleOut(scale_out::ScaleOut::new()),
            CheckId::Generator => Check::Generator(generator::Generator::new()),
        }
    }

    fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match self {
            Check::Provenance(check) => check.observe(models, entry, step),
            Check::Attributes(check) => check.observe(models, entry, step),
            Check::Floors(check) => check.observe(models, entry, step),
            Check::Order(check) => check.observe(models, entry, step),
            Check::CommitSafety(check) => check.observe(models, entry, step),
            Check::StartPosition(check) => check.observe(models, entry, step),
            Check::Commits(check) => check.observe(entry),
            Check::Bounds(check) => check.observe(models, entry),
            Check::Convergence(check) => check.observe(models, entry, step),
            Check::Lag(check) => check.observe(models, entry),
            Check::Progress(check) => check.observe(models, entry),
            Check::FeedbackBounds(check) => check.observe(models, entry),
            Check::Lease(check) => check.observe(models, entry),
            Check::Presence(check) => check.observe(models, entry),
            Check::Reconstruction(check) => check.observe(models, entry),
            Check::ScaleOut(check) => check.observe(models, entry),
            Check::Generator(check) => check.observe(models, entry),
            // These are judged from the models and the figures alone.
            Check::Acknowledged(_)
            | Check::Staleness(_)
            | Check::Conservation(_)
            | Check::Commands(_)
            | Check::RoundTrip(_)
            | Check::RepairRatio(_)
            | Check::BeforeAfter(_) => {}
        }
    }

    fn converged_after(&self, models: &Models) -> Option<Duration> {
        match self {
            Check::Convergence(check) => check.after(models),
            _ => None,
        }
    }

    /// `sound` tells whether the generator's own check passed.
    fn finish(&mut self, models: &Models, figures: &Figures, fates: &Fates, sound: bool) -> CheckResult {
        match self {
            Check::Provenance(check) => check.finish(),
            Check::Attributes(check) => check.finish(),
            Check::Floors(check) => check.finish(models),
            Check::Order(check) => check.finish(),
            Check::CommitSafety(check) => check.finish(models),
            Check::StartPosition(check) => check.finish(models),
            Check::Commits(check) => check.finish(),
            Check::Bounds(check) => check.finish(models),
            Check::Acknowledged(check) => check.finish(models, fates),
            Check::Convergence(check) => check.finish(models),
            Check::Staleness(check) => check.finish(&models.scenario, figures),
            Check::Lag(check) => check.finish(models, figures),
            Check::Progress(check) => check.finish(models),
            Check::Conservation(check) => check.finish(models, fates, sound),
            Check::Commands(check) => check.finish(models),
            Check::RoundTrip(check) => check.finish(models, figures),
            Check::FeedbackBounds(check) => check.finish(models),
            Check::Lease(check) => check.finish(models),
            Check::Presence(check) => check.finish(models),
            Check::RepairRatio(check) => check.finish(models, figures),
            Check::Reconstruction(check) => check.finish(models),
            Check::BeforeAfter(check) => check.finish(models, figures),
            Check::ScaleOut(check) => check.finish(models),
            Check::Generator(check) => check.finish(models, fates),
        }
    }
}
