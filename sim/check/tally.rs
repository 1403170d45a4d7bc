//! What one check has seen so far, and how that becomes its result.

use std::time::Duration;

use super::verdict::{CheckId, CheckResult, MAX_WITNESSES, Moment, Outcome, Witness};

/// Why what is asked of whole records is not observable.
pub(super) const ATTRIBUTES_ALONE: &str = "the store shows attributes alone";

/// Why what rests on the settings of registries is not observable.
pub(super) const SET_BY_OTHERS: &str = "the registries are not the harness's, nor known how they are set";

/// Counts what a check looked at and keeps its first witnesses.
#[derive(Debug)]
pub(super) struct Tally {
    id: CheckId,
    /// How many things it looked at.
    pub(super) observed: u64,
    failures: u64,
    witnesses: Vec<Witness>,
}

impl Tally {
    pub(super) fn new(id: CheckId) -> Tally {
        Tally { id, observed: 0, failures: 0, witnesses: Vec::new() }
    }

    /// One more thing was looked at.
    pub(super) fn saw(&mut self) {
        self.observed += 1;
    }

    /// A failure; its text is only made while witnesses are kept.
    pub(super) fn fail(&mut self, at: Duration, what: impl FnOnce() -> (String, Vec<Moment>)) {
        self.failures += 1;
        if self.witnesses.len() < MAX_WITNESSES {
            let (what, timeline) = what();
            self.witnesses.push(Witness { what, at, timeline });
        }
    }

    /// Failures without a witness.
    pub(super) fn add_failures(&mut self, count: u64) {
        self.failures += count;
    }

    /// How many failures there are.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// The result: a failure if there is one, INVALID if nothing was seen of `what` it should have seen.
    pub(super) fn result(&mut self, figure: String, limit: String, what: &str) -> CheckResult {
        let outcome = match (self.failures, self.observed) {
            (0, 0) => Outcome::Invalid(format!("saw no {what}, although the target can observe it")),
            (0, _) => Outcome::Pass,
            (count, _) => Outcome::Fail { witnesses: std::mem::take(&mut self.witnesses), count },
        };
        self.with(outcome, figure, limit)
    }

    /// The result of a check that this target cannot observe.
    pub(super) fn not_observable(&self, because: &str) -> CheckResult {
        self.with(Outcome::NotObservable(because.to_owned()), String::new(), String::new())
    }

    /// The result with another outcome.
    pub(super) fn with(&self, outcome: Outcome, figure: String, limit: String) -> CheckResult {
        CheckResult {
            id: self.id,
            name: self.id.name(),
            class: self.id.class(),
            outcome,
            figure,
            limit,
            observed: self.observed,
        }
    }
}
