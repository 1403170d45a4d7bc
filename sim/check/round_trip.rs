//! C17: how long a command takes from its intended time until its reply is in the log. Judged in phases without faults.

use std::time::Duration;

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::observe::{Figures, PhaseFigures};

/// C17.
#[derive(Debug)]
pub(super) struct RoundTrip(Tally);

impl RoundTrip {
    pub(super) fn new() -> RoundTrip {
        RoundTrip(Tally::new(CheckId::C17))
    }

    pub(super) fn finish(&mut self, models: &Models, figures: &Figures) -> CheckResult {
        if models.scenario.commands.is_empty() {
            return self.0.not_observable("the scenario sends no commands");
        }
        let phases: Vec<_> = figures.phases.iter().filter(|phase| phase.command_ms.count > 0).collect();
        self.0.observed = phases.iter().map(|phase| phase.command_ms.count).sum();
        let told = phases.iter().map(|phase| {
            let PhaseFigures { name, command_ms, .. } = phase;
            format!("{name} p50 {:.0} ms, p99 {:.0} ms", command_ms.p50, command_ms.p99)
        });
        let figure = told.collect::<Vec<_>>().join("; ");
        let Some(limit) = models.scenario.checks.command_p99 else {
            return self.0.result(figure, String::new(), "reply to a command");
        };
        let text = format!("p99 at most {limit:?} without faults");
        let calm: Vec<_> = phases.into_iter().filter(|phase| is_calm(models, phase)).collect();
        if calm.is_empty() {
            let why = "no phase without faults has a reply to a command, and checks.command_p99 is given";
            return self.0.with(Outcome::Invalid(why.to_owned()), figure, text);
        }
        for phase in calm.into_iter().filter(|phase| phase.command_ms.p99 > limit.as_secs_f64() * 1e3) {
            let PhaseFigures { name, command_ms, .. } = phase;
            let what = format!(
                "in phase {name} 1 % of {} commands took above {:.0} ms to be answered, the slowest {:.0} ms; at most \
                 {limit:?} is allowed",
                command_ms.count, command_ms.p99, command_ms.max
            );
            self.0.fail(Duration::from_secs_f64(phase.ends_s), || (what, Vec::new()));
        }
        self.0.result(figure, text, "reply to a command")
    }
}

/// Whether no fault held at any time of the phase.
fn is_calm(models: &Models, phase: &PhaseFigures) -> bool {
    models.faults.windows.iter().all(|&(_, began, ended)| {
        began.as_secs_f64() >= phase.ends_s || ended.is_some_and(|ended| ended.as_secs_f64() <= phase.begins_s)
    })
}
