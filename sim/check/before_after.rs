//! C23: what a comparison with the baseline consumer must show. The baseline's defects fail nothing; that they do not
//! show does, for then the scenario says nothing about them.

use std::time::Duration;

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    observe::{BeforeAfterFigures, Figures, SideFigures, WindowFigures},
    scenario::quantity::show_whole,
};

/// C23.
#[derive(Debug)]
pub(super) struct BeforeAfter(Tally);

impl BeforeAfter {
    pub(super) fn new() -> BeforeAfter {
        BeforeAfter(Tally::new(CheckId::C23))
    }

    pub(super) fn finish(&mut self, models: &Models, figures: &Figures) -> CheckResult {
        let Some(limits) = models.scenario.checks.before_after else {
            return self.0.not_observable("the scenario sets no checks.before_after");
        };
        let quiet = models.scenario.checks.quiet_lag;
        let text = format!(
            "quiet lag at most {quiet}, the baseline's rises; {} times fewer commits; reflected within {} % of published; \
             at least {} wrong rows of the baseline",
            limits.fewer_commits,
            limits.follows_within * 1e2,
            limits.wrong_rows
        );
        let Some(BeforeAfterFigures { before, after }) = &figures.before_after else {
            return self.0.with(Outcome::Invalid("there is no baseline".to_owned()), String::new(), text);
        };
        let ratio = before.commits_per_record().zip(after.commits_per_record()).map(|(before, after)| before / after);
        let figure = format!(
            "quiet lag p99 {:.0}, the baseline's {:.0}; {:.0} times fewer commits; reflected at most {:.1} % off; {} of {} \
             rows of the baseline wrong",
            after.quiet_lag.p99,
            before.quiet_lag.p99,
            ratio.unwrap_or(0.0),
            after.windows.iter().map(off).fold(0.0, f64::max) * 1e2,
            before.wrong_rows,
            before.devices
        );
        if let Some(why) = incomparable(before, after) {
            return self.0.with(Outcome::Invalid(why.to_owned()), figure, text);
        }
        self.0.observed = (before.windows.len() + after.windows.len()) as u64;
        let mut fail = |at_s: f64, what: String| self.0.fail(Duration::from_secs_f64(at_s), || (what, Vec::new()));
        let end_s = after.windows.last().map_or(0.0, |window| window.ends_s);
        if after.quiet_lag.p99 > quiet as f64 {
            fail(end_s, format!("the registries' quiet lag has a p99 of {:.0}, above {quiet}", after.quiet_lag.p99));
        }
        for window in before.windows.iter().filter(|window| window.lag_ends <= window.lag_begins) {
            let lags = [window.lag_begins, window.lag_ends].map(show_whole).join(" to ");
            fail(window.ends_s, format!("the baseline keeps up in {}: its lag goes from {lags}", called(window)));
        }
        for window in after.windows.iter().filter(|window| off(window) > limits.follows_within) {
            let [published, reflected] = [window.published, window.reflected].map(show_whole);
            let what = format!(
                "the registries reflect {reflected} records in {}, and {published} are published",
                called(window)
            );
            fail(window.ends_s, what);
        }
        if ratio.is_none_or(|ratio| ratio < limits.fewer_commits) {
            let what = format!(
                "the baseline commits {} times for {} records, the registries {} times for {}: not {} times as often",
                before.commits, before.records, after.commits, after.records, limits.fewer_commits
            );
            fail(end_s, what);
        }
        if before.wrong_rows < limits.wrong_rows {
            let what =
                format!("{} rows of the baseline are wrong, fewer than {}", before.wrong_rows, limits.wrong_rows);
            fail(end_s, what);
        }
        if after.wrong_rows > 0 {
            fail(end_s, format!("{} rows of the registries show less than they have committed", after.wrong_rows));
        }
        self.0.result(figure, text, "quiet window")
    }
}

/// Why there is nothing to compare.
fn incomparable(before: &SideFigures, after: &SideFigures) -> Option<&'static str> {
    match () {
        () if before.fell => Some("the baseline ended by itself"),
        () if before.windows.is_empty() || after.windows.is_empty() => Some("no phase was quiet for a whole window"),
        () if before.commits == 0 || after.commits == 0 => Some("one side committed nothing"),
        () => None,
    }
}

/// By which part of what is published the records reflected are off.
fn off(window: &WindowFigures) -> f64 {
    (window.followed() - 1.0).abs()
}

fn called(window: &WindowFigures) -> String {
    format!("the quiet window from {:.1} to {:.1} s", window.begins_s, window.ends_s)
}
