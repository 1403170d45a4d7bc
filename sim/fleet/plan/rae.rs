//! A RAE of the plan: its devices, its stay, and what its wall clock shows.

use std::{ops::Range, time::Duration};

use dmp_core::id::Rae;
use rand::RngExt;

use super::{DeviceIndex, RaeIndex, hits};
use crate::{
    random::stream,
    scenario::{FaultKind, Scenario, quantity::Shift},
};

/// A RAE.
#[derive(Debug)]
pub struct RaePlan {
    /// Its serial.
    pub serial: Rae,
    /// The devices that it has first.
    pub devices: Range<u32>,
    /// The devices that move to it, in order of their numbers; each once.
    pub guests: Vec<DeviceIndex>,
    /// For a canary: when it connects and when it is done. The standing fleet is there all the time.
    pub stay: Option<(Duration, Duration)>,
    /// When it is powered off for ever.
    pub gone_at: Option<Duration>,
    /// Its wall clock.
    pub clock: RaeClock,
}

impl RaePlan {
    /// Every device that is ever plugged into it.
    pub fn ever(&self) -> impl Iterator<Item = DeviceIndex> {
        self.devices.clone().map(DeviceIndex).chain(self.guests.iter().copied())
    }
}

/// How wrong the wall clock of a RAE is. Nobody else's is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RaeClock {
    offset: Shift,
    steps: Vec<ClockStep>,
    drifts: Vec<Drift>,
}

#[derive(Debug, Clone, PartialEq)]
struct ClockStep {
    fault: usize,
    from: Duration,
    until: Option<Duration>,
    by: Shift,
}

#[derive(Debug, Clone, PartialEq)]
struct Drift {
    fault: usize,
    from: Duration,
    until: Duration,
    /// Seconds gained per second.
    rate: f64,
}

impl RaeClock {
    /// The clock of a RAE of the standing fleet.
    pub(super) fn new(scenario: &Scenario, rae: RaeIndex) -> RaeClock {
        let most = scenario.fleet.clock_offset.unwrap_or_default().as_secs_f64();
        let part = stream(scenario.seed, "clock", rae.0.into()).random_range(-1.0..=1.0);
        let mut clock = RaeClock { offset: Shift::of_seconds(most * part), ..RaeClock::default() };
        for (fault, planned) in scenario.faults.iter().enumerate() {
            let (from, hit) = (planned.at, |share| hits(scenario.seed, fault, rae.0.into(), share));
            match planned.kind {
                FaultKind::ClockStep { share, by, lasts } if hit(share) => {
                    clock.steps.push(ClockStep { fault, from, until: lasts.map(|lasts| from + lasts), by });
                }
                FaultKind::ClockDrift { share, rate, lasts } if hit(share) => {
                    clock.drifts.push(Drift { fault, from, until: from + lasts, rate });
                }
                _ => {}
            }
        }
        clock
    }

    /// How far it is ahead of the true time, `at` from the begin of the load; `None` is before it.
    #[must_use]
    pub fn ahead(&self, at: Option<Duration>) -> Shift {
        let Some(at) = at else { return self.offset };
        self.wrongs(at).fold(self.offset, |sum, (_, shift)| sum + shift)
    }

    /// How much of that is by fault number `fault`.
    #[must_use]
    pub fn ahead_by(&self, fault: usize, at: Duration) -> Shift {
        let own = self.wrongs(at).filter(|(of, _)| *of == fault);
        own.fold(Shift::default(), |sum, (_, shift)| sum + shift)
    }

    /// What each fault does to it.
    fn wrongs(&self, at: Duration) -> impl Iterator<Item = (usize, Shift)> {
        let holds = move |step: &&ClockStep| step.from <= at && step.until.is_none_or(|until| at < until);
        let steps = self.steps.iter().filter(holds).map(|step| (step.fault, step.by));
        let drifts = self.drifts.iter().map(move |drift| {
            let drifted = at.min(drift.until).saturating_sub(drift.from);
            (drift.fault, Shift::of_seconds(drifted.as_secs_f64() * drift.rate))
        });
        steps.chain(drifts)
    }
}
