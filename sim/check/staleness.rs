//! C10: how long a change takes from its intended time until its row shows it.

use super::{
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    history::Stage,
    observe::{Figures, PhaseFigures},
    scenario::Scenario,
};

/// C10.
#[derive(Debug)]
pub(super) struct Staleness(Tally);

impl Staleness {
    pub(super) fn new() -> Staleness {
        Staleness(Tally::new(CheckId::C10))
    }

    pub(super) fn finish(&mut self, scenario: &Scenario, figures: &Figures) -> CheckResult {
        let loaded = |phase: &&PhaseFigures| matches!(phase.stage, Stage::Load | Stage::Heal);
        let phases: Vec<&PhaseFigures> = figures.phases.iter().filter(loaded).collect();
        self.0.observed = phases.iter().map(|phase| phase.latency_ms.count).sum();
        let worst = |of: fn(&PhaseFigures) -> f64| {
            let worst = phases.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
            worst.map_or("none".to_owned(), |phase| format!("{:.0} ms in phase {}", of(phase), phase.name))
        };
        let (latency, staleness) = (worst(|phase| phase.latency_ms.p99), worst(|phase| phase.staleness_ms.p99));
        let figure = format!("latency p99 {latency}, staleness p99 {staleness}");
        let limit = scenario.checks.staleness_p99;
        if let Some(limit) = limit {
            for phase in phases.iter().filter(|phase| phase.latency_ms.p99 > limit.as_secs_f64() * 1e3) {
                self.0.fail(std::time::Duration::from_secs_f64(phase.ends_s), || {
                    let text = format!(
                        "in phase {} 1 % of {} changes took above {:.0} ms to be visible, the slowest {:.0} ms; at most \
                         {limit:?} is allowed",
                        phase.name, phase.latency_ms.count, phase.latency_ms.p99, phase.latency_ms.max
                    );
                    (text, Vec::new())
                });
            }
            for phase in phases.iter().filter(|phase| phase.staleness_ms.p99 > limit.as_secs_f64() * 1e3) {
                self.0.fail(std::time::Duration::from_secs_f64(phase.ends_s), || {
                    let text = format!(
                        "in phase {} the staleness of a sampled device was above {:.0} ms for 1 % of the time; at most \
                         {limit:?} is allowed",
                        phase.name, phase.staleness_ms.p99
                    );
                    (text, Vec::new())
                });
            }
        }
        let limit = limit.map_or(String::new(), |limit| format!("both p99 at most {limit:?}"));
        self.0.result(figure, limit, "change of a sampled device")
    }
}
