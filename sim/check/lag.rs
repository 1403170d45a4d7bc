//! C11: the peak of the lag, its percentiles under load, and how soon it is quiet again after a burst or a fault.

use std::{collections::BTreeSet, time::Duration};

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    history::{Entry, Stage, What},
    observe::{Figures, Percentiles, PhaseFigures, lag::Lag as Offsets},
    scenario::{Checks as Limits, Phase},
};

/// C11.
#[derive(Debug)]
pub(super) struct Lag {
    tally: Tally,
    offsets: Offsets,
    loaded: bool,
    peak: u64,
    peak_told: bool,
    burst: Option<String>,
    open_faults: BTreeSet<usize>,
    draining: Option<Drain>,
    slowest_drain: Option<Duration>,
    /// Drains whose time was up before another burst or fault.
    judged: u64,
    /// After what else there was no time to drain before the next.
    unjudged: Vec<String>,
}

/// After the end of a burst or a fault: the lag is to become quiet, and to be so when its time is up. It may be quiet
/// before, while what piled up elsewhere is not in the log yet.
#[derive(Debug)]
struct Drain {
    since: Duration,
    after: String,
    last_quiet: Option<Duration>,
    /// How long after the end the lag was last above quiet.
    loud_for: Duration,
}

/// A quiet round this recently counts: at rest the lag flickers with the batches.
const RECENTLY: Duration = Duration::from_secs(2);

impl Lag {
    pub(super) fn new() -> Lag {
        Lag {
            tally: Tally::new(CheckId::C11),
            offsets: Offsets::default(),
            loaded: false,
            peak: 0,
            peak_told: false,
            burst: None,
            open_faults: BTreeSet::new(),
            draining: None,
            slowest_drain: None,
            judged: 0,
            unjudged: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            What::Phase { name, stage } => self.phase(models, entry.at, name, *stage),
            What::FaultBegan(fault) => {
                self.open_faults.insert(*fault);
                self.cut_short();
            }
            What::FaultEnded(fault) => {
                self.open_faults.remove(fault);
                let key = models.scenario.faults.get(*fault).map_or("a fault", |fault| fault.kind.key());
                self.drain_from(entry.at, key.to_owned());
            }
            _ => {}
        }
        if self.offsets.observe(entry) && self.loaded {
            self.round(&models.scenario.checks, entry.at);
        }
    }

    pub(super) fn finish(&mut self, models: &Models, figures: &Figures) -> CheckResult {
        let limits = &models.scenario.checks;
        let committed = self.percentile(figures, "end - committed", limits.lag_committed_p99, |p| p.lag_committed);
        let reflected = self.percentile(figures, "end - reflected", limits.lag_reflected_p99, |p| p.lag_reflected);
        if let Some(drain) =
            self.draining.take().filter(|drain| drain.last_quiet.is_some() || !drain.loud_for.is_zero())
        {
            self.slowest_drain = self.slowest_drain.max(Some(drain.loud_for));
        }
        let drain = match self.slowest_drain {
            None => String::new(),
            Some(Duration::ZERO) => ", quiet at once".to_owned(),
            Some(drain) => format!(", quiet again after {drain:.1?}"),
        };
        let unjudged = match (limits.drained_within, self.unjudged.as_slice()) {
            (None, _) | (Some(_), []) => String::new(),
            (Some(_), after) => format!(", not judged after {}", after.join(", ")),
        };
        let figure =
            format!("peak {}, p99 {committed:.0} committed, {reflected:.0} reflected{drain}{unjudged}", self.peak);
        let limit = [
            limits.lag_peak.map(|limit| format!("peak at most {limit}")),
            limits.lag_committed_p99.map(|limit| format!("p99 committed at most {limit}")),
            limits.lag_reflected_p99.map(|limit| format!("p99 reflected at most {limit}")),
            limits.drained_within.map(|limit| format!("quiet ({}) within {limit:?}", limits.quiet_lag)),
        ];
        let limit = limit.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if limits.drained_within.is_some() && self.judged == 0 && self.tally.failures() == 0 {
            let because = "no burst or fault ended early enough for its drain to be judged".to_owned();
            return self.tally.with(Outcome::Invalid(because), figure, limit);
        }
        self.tally.result(figure, limit, "end offset under load")
    }

    fn phase(&mut self, models: &Models, at: Duration, name: &str, stage: Stage) {
        self.loaded |= stage == Stage::Load;
        if let Some(burst) = self.burst.take() {
            self.drain_from(at, format!("phase {burst}"));
        }
        let bursts = |phase: &&Phase| phase.rate > 1.0 || phase.canary.is_some();
        if models.scenario.phases.iter().filter(bursts).any(|phase| phase.name == name) {
            self.burst = Some(name.to_owned());
            self.cut_short();
        }
    }

    /// Another burst or fault begins: whether the lag would have become quiet in time is not known.
    fn cut_short(&mut self) {
        self.unjudged.extend(self.draining.take().map(|drain| drain.after));
    }

    fn drain_from(&mut self, at: Duration, after: String) {
        let calm = self.open_faults.is_empty() && self.burst.is_none();
        self.draining = calm.then_some(Drain { since: at, after, last_quiet: None, loud_for: Duration::ZERO });
    }

    /// A round of readings is complete.
    fn round(&mut self, limits: &Limits, at: Duration) {
        self.tally.saw();
        let (committed, reflected) = (self.offsets.committed(), self.offsets.reflected());
        self.peak = self.peak.max(committed);
        if let Some(limit) = limits.lag_peak.filter(|&limit| committed > limit && !self.peak_told) {
            self.peak_told = true;
            let what = format!("{committed} records are not committed, above {limit}");
            self.tally.fail(at, || (what, Vec::new()));
        }
        let Some(drain) = &mut self.draining else { return };
        let took = at.saturating_sub(drain.since);
        if reflected <= limits.quiet_lag {
            drain.last_quiet = Some(at);
        } else {
            drain.loud_for = took;
        }
        // Without a limit it is followed until the next burst or fault, for its figure.
        let Some(limit) = limits.drained_within.filter(|&limit| took >= limit) else { return };
        self.judged += 1;
        if drain.last_quiet.is_some_and(|quiet| quiet + RECENTLY >= at) {
            self.slowest_drain = self.slowest_drain.max(Some(drain.loud_for));
        } else {
            let what = format!(
                "{reflected} records are not reflected {took:.1?} after the end of {}; at most {} after {limit:?} is \
                 allowed",
                drain.after, limits.quiet_lag
            );
            self.tally.fail(at, || (what, Vec::new()));
        }
        self.draining = None;
    }

    /// The worst 99th percentile of the load phases, held against its limit.
    fn percentile(
        &mut self,
        figures: &Figures,
        which: &str,
        limit: Option<u64>,
        of: impl Fn(&PhaseFigures) -> Percentiles,
    ) -> f64 {
        let mut worst = 0.0f64;
        for phase in figures.phases.iter().filter(|phase| phase.stage == Stage::Load) {
            let p99 = of(phase).p99;
            worst = worst.max(p99);
            if let Some(limit) = limit.filter(|&limit| p99 > limit as f64) {
                let what = format!("p99 of the lag {which} is {p99:.0} in phase {}, above {limit}", phase.name);
                self.tally.fail(Duration::from_secs_f64(phase.ends_s), || (what, Vec::new()));
            }
        }
        worst
    }
}
