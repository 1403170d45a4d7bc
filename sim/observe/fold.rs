//! The fold from history to figures.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hdrhistogram::Histogram;

use super::{
    FaultFigures, Figures, Percentiles, PhaseFigures, Point, before_after::BeforeAfter, healing::Healing, lag::Lag,
    round_trips::RoundTrips, sample::Sample,
};
use crate::{
    fleet::plan::{DeviceIndex, Plan},
    history::{Entry, Gauge, Process, Stage, What},
    scenario::{Part, Scenario},
};

/// Time between two points of the series.
const POINT_EVERY: Duration = Duration::from_secs(1);

/// Time between two readings of staleness: fine enough for a percentile, coarse enough to cost nothing.
const STALENESS_EVERY: Duration = Duration::from_millis(250);

/// Name of the gauge that holds the resident memory of a process.
pub(crate) const MEMORY_GAUGE: &str = "memory_bytes";

/// Folds the history into [`Figures`].
#[derive(Debug)]
pub struct FiguresFold {
    scenario: Arc<Scenario>,
    now: Duration,
    phases: Vec<OpenPhase>,
    lag: Lag,
    sample: Sample,
    counts: Counts,
    point: Counts,
    point_at: Duration,
    staleness_at: Duration,
    staleness: Duration,
    devices_behind: u64,
    queues: BTreeMap<String, u64>,
    healing: Healing,
    round_trips: RoundTrips,
    before_after: Option<BeforeAfter>,
    open_faults: Vec<(usize, usize)>,
    figures: Figures,
}

/// What the live progress line shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Time since the begin of the run.
    pub at: Duration,
    /// Name of the phase.
    pub phase: String,
    /// Its place in every run.
    pub stage: Option<Stage>,
    /// Events put on the wire per second, over the last second or so.
    pub published_per_s: f64,
    /// Records appended per second, likewise.
    pub appended_per_s: f64,
    /// Records reflected in the store per second, likewise.
    pub reflected_per_s: f64,
    /// End - committed, in records.
    pub lag: u64,
    /// Keys of the faults that hold now.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    published: u64,
    appended: u64,
    reflected: u64,
}

#[derive(Debug)]
struct OpenPhase {
    name: Arc<str>,
    stage: Stage,
    begins: Duration,
    ends: Duration,
    counts: Counts,
    latency: Histogram<u64>,
    staleness: Histogram<u64>,
    lag_committed: Histogram<u64>,
    lag_reflected: Histogram<u64>,
    round_trip: Histogram<u64>,
}

impl FiguresFold {
    /// The figures of a run of `scenario`.
    #[must_use]
    pub fn new(scenario: Arc<Scenario>, plan: Arc<Plan>) -> FiguresFold {
        FiguresFold {
            healing: Healing::new(scenario.clone(), plan.clone()),
            round_trips: RoundTrips::default(),
            before_after: BeforeAfter::new(scenario.clone()),
            sample: Sample::new(plan),
            scenario,
            now: Duration::ZERO,
            phases: Vec::new(),
            lag: Lag::default(),
            counts: Counts::default(),
            point: Counts::default(),
            point_at: Duration::ZERO,
            staleness_at: Duration::ZERO,
            staleness: Duration::ZERO,
            devices_behind: 0,
            queues: BTreeMap::new(),
            open_faults: Vec::new(),
            figures: Figures::default(),
        }
    }

    /// Takes the next entry of the history.
    pub fn observe(&mut self, entry: &Entry) {
        self.pass_time(entry.at);
        self.healing.observe(entry);
        if let Some(comparison) = &mut self.before_after {
            comparison.observe(entry);
        }
        if self.lag.observe(entry) {
            let (committed, reflected) = (self.lag.committed(), self.lag.reflected());
            if let Some(phase) = self.phases.last_mut() {
                record(&mut phase.lag_committed, committed);
                record(&mut phase.lag_reflected, reflected);
            }
        }
        match &entry.what {
            What::Phase { name, stage } => self.phase(name, *stage, entry.at),
            What::FaultBegan(fault) => self.fault_began(*fault, entry.at),
            What::FaultEnded(fault) => self.fault_ended(*fault, entry.at),
            What::Lateness(lateness) => {
                self.figures.lateness_ms_max = self.figures.lateness_ms_max.max(millis(*lateness));
            }
            What::Sent(..) => self.count(|counts| counts.published += 1),
            What::Appended(_) => self.count(|counts| counts.appended += 1),
            What::Down(down) => {
                if let Some(due) = self.round_trips.observe(down) {
                    self.answered(due, entry.at);
                }
            }
            What::Reflected { device, rev } => self.reflected(*device, *rev, entry.at),
            What::Gauges(process, gauges) => self.gauges(*process, gauges),
            What::OwnMemory(bytes) => {
                let most = self.figures.memory_bytes.entry("harness with its brokers".to_owned()).or_default();
                *most = (*most).max(*bytes);
            }
            _ => {}
        }
    }

    /// What the live progress line shows now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let phase = self.phases.last();
        let rate = |of: fn(&Point) -> f64| self.figures.series.last().map_or(0.0, of);
        let key = |&(fault, _): &(usize, usize)| Some(self.scenario.faults.get(fault)?.kind.key().to_owned());
        Snapshot {
            at: self.now,
            phase: phase.map(|phase| phase.name.to_string()).unwrap_or_default(),
            stage: phase.map(|phase| phase.stage),
            published_per_s: rate(|point| point.published_per_s),
            appended_per_s: rate(|point| point.appended_per_s),
            reflected_per_s: rate(|point| point.reflected_per_s),
            lag: self.lag.committed(),
            faults: self.open_faults.iter().filter_map(key).collect(),
        }
    }

    /// The figures, once the history has ended.
    #[must_use]
    pub fn finish(mut self) -> Figures {
        if self.now > self.point_at {
            self.add_point(self.now);
        }
        if let Some(phase) = self.phases.last_mut() {
            phase.ends = self.now;
        }
        // What was never shown counts with its age.
        for intended in self.sample.never_shown(self.now) {
            self.took(intended, self.now);
        }
        for (due, expires) in self.round_trips.never_answered().collect::<Vec<_>>() {
            self.answered(due, self.now.min(expires));
        }
        (self.figures.healed_by, self.figures.repaired_ms, self.figures.unrepaired_ms) = self.healing.finish(self.now);
        self.figures.before_after = self.before_after.take().map(BeforeAfter::finish);
        self.figures.phases = self.phases.iter().map(OpenPhase::figures).collect();
        self.figures
    }

    fn count(&mut self, add: impl Fn(&mut Counts)) {
        add(&mut self.counts);
        if let Some(phase) = self.phases.last_mut() {
            add(&mut phase.counts);
        }
    }

    fn phase(&mut self, name: &Arc<str>, stage: Stage, at: Duration) {
        if let Some(phase) = self.phases.last_mut() {
            phase.ends = at;
        }
        if stage == Stage::Load {
            self.sample.load_begins(at);
        }
        self.phases.push(OpenPhase::new(name.clone(), stage, at));
    }

    fn fault_began(&mut self, fault: usize, at: Duration) {
        let what = self.scenario.faults.get(fault).map_or("unknown".to_owned(), |fault| fault.kind.to_string());
        self.figures.faults.push(FaultFigures { what, began_s: at.as_secs_f64(), ended_s: None });
        self.open_faults.push((fault, self.figures.faults.len() - 1));
    }

    fn fault_ended(&mut self, fault: usize, at: Duration) {
        if let Some(place) = self.open_faults.iter().position(|(open, _)| *open == fault) {
            let (_, index) = self.open_faults.remove(place);
            self.figures.faults[index].ended_s = Some(at.as_secs_f64());
        }
    }

    fn reflected(&mut self, device: DeviceIndex, rev: i64, at: Duration) {
        for intended in self.sample.reflected(device, rev) {
            self.took(intended, at);
        }
    }

    /// A change was visible at `at`, or is not to this moment.
    fn took(&mut self, intended: Duration, at: Duration) {
        let phase = self.phases.iter_mut().rev().find(|phase| phase.begins <= intended);
        if let Some(phase) = phase {
            record(&mut phase.latency, micros(at.saturating_sub(intended)));
        }
    }

    /// A command was answered at `at`, or given up.
    fn answered(&mut self, due: Duration, at: Duration) {
        let phase = self.phases.iter_mut().rev().find(|phase| phase.begins <= due);
        if let Some(phase) = phase {
            record(&mut phase.round_trip, micros(at.saturating_sub(due)));
        }
    }

    fn gauges(&mut self, process: Process, gauges: &[Gauge]) {
        for gauge in gauges {
            let (name, most) = if &*gauge.name == MEMORY_GAUGE {
                let part = match process.part {
                    Part::Bridge => "bridge",
                    Part::Registry => "registry",
                    Part::Consumer => "new consumer",
                    Part::Baseline => "baseline",
                };
                (format!("{part} {}", process.index), &mut self.figures.memory_bytes)
            } else {
                (gauge.name.to_string(), &mut self.queues)
            };
            let deepest = most.entry(name).or_default();
            *deepest = gauge.value.max(*deepest);
        }
    }

    fn pass_time(&mut self, to: Duration) {
        while self.staleness_at + STALENESS_EVERY <= to {
            self.staleness_at += STALENESS_EVERY;
            self.read_staleness(self.staleness_at);
        }
        while self.point_at + POINT_EVERY <= to {
            self.add_point(self.point_at + POINT_EVERY);
        }
        self.now = self.now.max(to);
    }

    fn read_staleness(&mut self, at: Duration) {
        let Some(phase) = self.phases.last_mut() else { return };
        let (mut oldest, mut behind) = (Duration::ZERO, 0);
        for age in self.sample.ages(at) {
            record(&mut phase.staleness, micros(age));
            oldest = oldest.max(age);
            behind += u64::from(!age.is_zero());
        }
        self.staleness = oldest;
        self.devices_behind = behind;
    }

    fn add_point(&mut self, at: Duration) {
        self.counts.reflected = self.lag.reflected_records();
        let seconds = (at - self.point_at).as_secs_f64();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        self.figures.series.push(Point {
            at_s: at.as_secs_f64(),
            published_per_s: rate(self.counts.published, self.point.published),
            appended_per_s: rate(self.counts.appended, self.point.appended),
            reflected_per_s: rate(self.counts.reflected, self.point.reflected),
            lag_committed: self.lag.committed(),
            lag_reflected: self.lag.reflected(),
            lag_committed_s: self.lag.age(at).as_secs_f64(),
            staleness_ms: millis(self.staleness),
            devices_behind: self.devices_behind,
            queues: std::mem::take(&mut self.queues),
        });
        self.point = self.counts;
        self.point_at = at;
    }
}

impl OpenPhase {
    fn new(name: Arc<str>, stage: Stage, begins: Duration) -> OpenPhase {
        OpenPhase {
            name,
            stage,
            begins,
            ends: begins,
            counts: Counts::default(),
            latency: histogram(),
            staleness: histogram(),
            lag_committed: histogram(),
            lag_reflected: histogram(),
            round_trip: histogram(),
        }
    }

    fn figures(&self) -> PhaseFigures {
        PhaseFigures {
            name: self.name.to_string(),
            stage: self.stage,
            begins_s: self.begins.as_secs_f64(),
            ends_s: self.ends.as_secs_f64(),
            published: self.counts.published,
            appended: self.counts.appended,
            latency_ms: percentiles(&self.latency, 1e-3),
            staleness_ms: percentiles(&self.staleness, 1e-3),
            lag_committed: percentiles(&self.lag_committed, 1.0),
            lag_reflected: percentiles(&self.lag_reflected, 1.0),
            command_ms: percentiles(&self.round_trip, 1e-3),
        }
    }
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are within 0 to 5")
}

pub(super) fn percentiles(values: &Histogram<u64>, unit: f64) -> Percentiles {
    if values.is_empty() {
        return Percentiles::default();
    }
    // A bucket's upper end may lie above every value in it.
    let at = |quantile: f64| values.value_at_quantile(quantile).min(values.max()) as f64 * unit;
    Percentiles { count: values.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: values.max() as f64 * unit }
}

pub(super) fn record(values: &mut Histogram<u64>, value: u64) {
    values.record(value).expect("a histogram that resizes takes every value");
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
