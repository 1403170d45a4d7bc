//! A run as a test of somebody's own: a scenario and a target in, an outcome out that can be asserted on.
//!
//! ```no_run
//! use fleetproof::{Trial, run::Target, scenario::Scenario};
//!
//! let scenario = Scenario::asking("Is a small burst reflected?").phase("burst", "5s", 8.0).build()?;
//! let outcome = Trial::of(scenario).on(Target::Embedded).run()?;
//! assert!(outcome.passed(), "{outcome}");
//! assert!(outcome.figures.converged_after_s.is_some_and(|after| after < 20.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{fmt, path::PathBuf};

use crate::{
    check::verdict::{CheckId, CheckResult, Verdict},
    live,
    report::{self, Terminal},
    run::{RunError, RunOptions, RunOutcome, Target},
    scenario::Scenario,
};

/// A run that is to be.
#[derive(Debug, Clone)]
pub struct Trial {
    scenario: Scenario,
    target: Target,
    binary: Option<PathBuf>,
    results: Option<PathBuf>,
}

impl Trial {
    /// A run of `scenario` on the embedded target, with bridge and registry in this process.
    #[must_use]
    pub fn of(scenario: Scenario) -> Trial {
        Trial { scenario, target: Target::Embedded, binary: None, results: None }
    }

    /// On another target.
    #[must_use]
    pub fn on(self, target: Target) -> Trial {
        Trial { target, ..self }
    }

    /// Bridge and registry become child processes of the `fleetproof` binary at `path`: then faults can kill and pause
    /// them, and nothing of them outlives a test that is killed.
    #[must_use]
    pub fn binary(self, path: impl Into<PathBuf>) -> Trial {
        Trial { binary: Some(path.into()), ..self }
    }

    /// Keeps `result.json`, and the logs of child processes, in this directory; else they are gone with the run.
    #[must_use]
    pub fn results_in(self, directory: impl Into<PathBuf>) -> Trial {
        Trial { results: Some(directory.into()), ..self }
    }

    /// Carries it out on a runtime of its own.
    ///
    /// # Errors
    /// [`RunError`] where it could not be carried out at all; a run that was has a verdict.
    ///
    /// # Panics
    /// Within a runtime of tokio: there [`Trial::carry_out`] is at hand.
    pub fn run(self) -> Result<RunOutcome, RunError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(|error| RunError::Harness(error.into()))?.block_on(self.carry_out())
    }

    /// Carries it out; dropping the future ends all that was started.
    ///
    /// # Errors
    /// [`RunError`] where it could not be carried out at all; a run that was has a verdict.
    pub async fn carry_out(self) -> Result<RunOutcome, RunError> {
        let temporary = tempfile::tempdir().map_err(|error| RunError::Harness(error.into()))?;
        let out = self.results.clone().unwrap_or_else(|| temporary.path().to_owned());
        let options = RunOptions {
            target: self.target,
            out: out.clone(),
            binary: self.binary,
            sabotage: None,
            reproduce: format!("seed {}", self.scenario.seed),
        };
        let outcome = live::run(self.scenario, options, |_| {}).await?;
        if self.results.is_some() {
            report::write(&out, &outcome).map_err(|source| RunError::Output { path: out, source })?;
        }
        Ok(outcome)
    }
}

impl RunOutcome {
    /// Whether every check that the target can observe held, and saw something.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }

    /// What became of one check.
    ///
    /// # Panics
    /// Never: every outcome holds every check.
    #[must_use]
    pub fn check(&self, id: CheckId) -> &CheckResult {
        self.checks.iter().find(|check| check.id == id).expect("every outcome holds every check")
    }
}

impl fmt::Display for RunOutcome {
    /// The summary, as the program prints it without a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::summary(self, std::path::Path::new("result.json"), Terminal::new(usize::MAX, false)))
    }
}
