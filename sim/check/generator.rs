//! Whether the run says anything at all: the generator kept its schedule, each fault that was ordered was seen to act, and
//! nothing around the system broke.

use std::{sync::Arc, time::Duration};

use super::{
    effects::Effects,
    model::{Fate, Fates, Models, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::history::{Entry, What};

/// The check of the harness itself.
#[derive(Debug)]
pub(super) struct Generator {
    tally: Tally,
    lateness: Duration,
    broken: Vec<(Duration, Arc<str>)>,
    effects: Effects,
}

/// A RAE that is not online this long after it was to arrive, or by the end of its stay if that is later, says nothing.
const ONLINE_WITHIN: Duration = Duration::from_secs(30);

/// Kept of what broke: the first ones say it.
const MOST_BROKEN: usize = 100;

impl Generator {
    pub(super) fn new() -> Generator {
        Generator {
            tally: Tally::new(CheckId::Generator),
            lateness: Duration::ZERO,
            broken: Vec::new(),
            effects: Effects::default(),
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        self.effects.observe(models, entry);
        match &entry.what {
            What::Lateness(lateness) => {
                self.lateness = self.lateness.max(*lateness);
                let limit = models.scenario.checks.lateness_at_most;
                if *lateness > limit {
                    self.tally.fail(entry.at, || {
                        (format!("the generator was {lateness:?} behind its plan, above {limit:?}"), Vec::new())
                    });
                }
            }
            What::Recorded(_) => self.tally.saw(),
            What::Broken(what) if self.broken.len() < MOST_BROKEN => self.broken.push((entry.at, what.clone())),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models, fates: &Fates) -> CheckResult {
        for (at, what) in std::mem::take(&mut self.broken) {
            self.tally.fail(at, || (what.to_string(), Vec::new()));
        }
        for (device, version) in fates.of(Fate::LostByBroker) {
            self.tally.fail(models.clock.now, || {
                let what = format!(
                    "the MQTT broker lost {} of device {}: acknowledged to the agent, and never handed to a bridge",
                    brief(version),
                    models.id(device)
                );
                (what, models.timeline(device, models.clock.now))
            });
        }
        self.online(models);
        let (faults, idle) = self.effects.finish(models);
        let acted = faults - idle.len();
        for (at, what) in idle {
            self.tally.fail(at, || (what, Vec::new()));
        }
        let mut figure = format!("at most {:.1} ms late", self.lateness.as_secs_f64() * 1e3);
        if faults > 0 {
            figure.push_str(&format!(", {acted} of {faults} faults acted"));
        }
        let limit = format!("{:?}", models.scenario.checks.lateness_at_most);
        self.tally.result(figure, limit, "event of the fleet")
    }

    /// Every RAE came online in time.
    fn online(&mut self, models: &Models) {
        let pace = Duration::from_secs(1) / models.scenario.fleet.connects_per_s.max(1);
        for (index, (rae, online)) in (0..).zip(models.plan.raes.iter().zip(&models.online)) {
            let deadline = match (rae.stay, models.clock.load) {
                (Some((from, until)), Some(_)) => models.clock.in_run(until.max(from + ONLINE_WITHIN)),
                (Some(_), None) => continue,
                // The standing fleet connects during warm-up.
                (None, load) => (pace * index + ONLINE_WITHIN).max(load.unwrap_or_default()),
            };
            if models.clock.now > deadline && online.is_none_or(|at| at > deadline) {
                self.tally
                    .fail(deadline, || (format!("RAE {} was not online by {deadline:.1?}", rae.serial), Vec::new()));
            }
        }
    }
}
