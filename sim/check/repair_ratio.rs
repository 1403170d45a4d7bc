//! C21: how much sooner a snapshot that was asked for heals what a session missed than one that was not: the medians of
//! what was missed while active repair was on and while it was off.

use std::time::Duration;

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::observe::{Figures, Percentiles};

/// C21.
#[derive(Debug)]
pub(super) struct RepairRatio(Tally);

impl RepairRatio {
    pub(super) fn new() -> RepairRatio {
        RepairRatio(Tally::new(CheckId::C21))
    }

    pub(super) fn finish(&mut self, models: &Models, figures: &Figures) -> CheckResult {
        let [with, without] = [&figures.repaired_ms, &figures.unrepaired_ms];
        self.0.observed = with.count + without.count;
        let shown = |of: &Percentiles| match of.count {
            0 => "nothing missed".to_owned(),
            _ => format!("median {:.1} s", of.p50 / 1e3),
        };
        let figure = format!("with repair {}, without {}", shown(with), shown(without));
        let Some(limit) = models.scenario.checks.repair_ratio else {
            return self.0.not_observable("the scenario sets no checks.repair_ratio");
        };
        let text = format!("at most {limit} of that without");
        if with.count == 0 || without.count == 0 {
            let why = "nothing was missed and healed by a snapshot in one of the two, and checks.repair_ratio is given";
            return self.0.with(Outcome::Invalid(why.to_owned()), figure, text);
        }
        if with.p50 > limit * without.p50 {
            let what = format!(
                "with active repair half of {} missed updates took above {:.0} ms to heal, without it half of {} took \
                 {:.0} ms: {:.2} of that, and at most {limit} is allowed",
                with.count,
                with.p50,
                without.count,
                without.p50,
                with.p50 / without.p50
            );
            self.0.fail(models.clock.settle.unwrap_or(Duration::ZERO), || (what, Vec::new()));
        }
        self.0.result(figure, text, "missed update")
    }
}
