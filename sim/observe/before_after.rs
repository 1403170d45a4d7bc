//! The registries and the baseline consumer side by side: the same records, read by two groups into two stores.
//!
//! Each side is measured alike. Lag is end - reflected; the baseline commits each record once it is written, so what it has
//! committed is what it reflects. Quiet is a phase of the load with a rate of at most 1 and no canary, a moment after its
//! begin; what is published and what is reflected is held against each other per window of it. A row is wrong if it shows
//! an older change of its device than the newest one that its group had committed before the row was read.

mod figures;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dmp_core::{
    event::{Event, Value},
    id::Device,
};
use hdrhistogram::Histogram;

pub use figures::{BeforeAfterFigures, SideFigures, WindowFigures};

use super::{
    MEMORY_GAUGE,
    fold::{histogram, percentiles, record},
    healing::rev,
    lag::Lag,
};
use crate::{
    history::{BaselineSeen, Entry, Gauge, Process, Stage, What},
    scenario::{Part, Phase, Scenario},
};

/// After the begin of a quiet phase: what the phase before left behind, at the broker too, is not its own.
const QUIETS_WITHIN: Duration = Duration::from_secs(5);

/// Length of a window in which published and reflected records are held against each other.
const WINDOW: Duration = Duration::from_secs(10);

/// Queues of records of a registry; its deepest partition counts.
const REGISTRY_QUEUE: &str = "dmp_registry_buffered";

/// The queue of the baseline.
const BASELINE_QUEUE: &str = "baseline_queue";

/// Folds the history into [`BeforeAfterFigures`].
#[derive(Debug)]
pub(super) struct BeforeAfter {
    scenario: Arc<Scenario>,
    stretch: Stretch,
    published: u64,
    lag: Lag,
    before: Side,
    after: Side,
    /// The newest `rev` that the registries' store shows.
    shown: BTreeMap<Device, u32>,
}

/// What the load is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// There is none, or none any more.
    Idle,
    /// Quiet from then on.
    Quiet(Duration),
    /// A burst.
    Loud,
}

#[derive(Debug)]
struct Side {
    quiet_lag: Histogram<u64>,
    burst_lag: u64,
    queue: u64,
    queue_cap: Option<u64>,
    memory: BTreeMap<Process, u64>,
    records: Span,
    commits: Span,
    /// Commits of each process: in its earlier lives, and in this one.
    lives: BTreeMap<Process, (u64, u64)>,
    window: Option<(u128, Mark)>,
    windows: Vec<WindowFigures>,
    log: Consumed,
    wrong_rows: u64,
    devices: u64,
    fell: bool,
}

/// A number that only rises: what it was first and last under load.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    first: Option<u64>,
    last: u64,
}

/// A reading.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    published: u64,
    reflected: u64,
    lag: u64,
}

/// What is in the log of each device, and the newest of it that is committed.
#[derive(Debug, Default)]
struct Consumed {
    waiting: BTreeMap<i32, VecDeque<(i64, Device, u32)>>,
    newest: BTreeMap<Device, u32>,
}

impl BeforeAfter {
    /// The comparison of a run of `scenario`, if it runs a baseline.
    pub(super) fn new(scenario: Arc<Scenario>) -> Option<BeforeAfter> {
        scenario.pipeline.baseline.then(|| BeforeAfter {
            scenario,
            stretch: Stretch::Idle,
            published: 0,
            lag: Lag::default(),
            before: Side::new(),
            after: Side::new(),
            shown: BTreeMap::new(),
        })
    }

    pub(super) fn observe(&mut self, entry: &Entry) {
        if self.lag.observe(entry) {
            let mark = Mark {
                at: entry.at,
                published: self.published,
                reflected: self.lag.reflected_records(),
                lag: self.lag.reflected(),
            };
            self.after.reading(self.stretch, mark);
        }
        match &entry.what {
            What::Phase { name, stage } => self.phase(name, *stage, entry.at),
            What::Sent(..) => self.published += 1,
            What::Appended(appended) => {
                let Some(Event::State(event)) = appended.event.as_deref().filter(|_| !appended.retained) else {
                    return;
                };
                let Some(rev) = rev(event) else { return };
                for side in [&mut self.before, &mut self.after] {
                    let waiting = side.log.waiting.entry(appended.partition).or_default();
                    waiting.push_back((appended.offset, event.device, rev));
                }
            }
            What::Row { device, name, value: Value::Integer(rev), .. } if name.as_str() == "rev" => {
                self.shown.insert(*device, u32::try_from(*rev).unwrap_or(0));
            }
            What::RowGone { device, name } if name.as_str() == "rev" => {
                self.shown.remove(device);
            }
            What::DeviceGone(device) => {
                self.shown.remove(device);
            }
            What::Read(read) => {
                self.after.log.committed(&read.committed);
                self.after.judge(&self.shown);
            }
            What::Baseline(seen) => self.baseline(seen, entry.at),
            What::Commits(process, commits) => {
                let under_load = self.stretch != Stretch::Idle;
                self.side(*process, |side| side.commits(*process, *commits, under_load));
            }
            What::Gauges(process, gauges) if self.stretch != Stretch::Idle => {
                self.side(*process, |side| side.gauges(*process, gauges));
            }
            What::ProcessStarted(process) => self.side(*process, |side| side.begins(*process)),
            What::ProcessEnded { process, meant: false } => self.side(*process, |side| side.fell = true),
            _ => {}
        }
    }

    pub(super) fn finish(self) -> BeforeAfterFigures {
        BeforeAfterFigures { before: self.before.figures(), after: self.after.figures() }
    }

    fn phase(&mut self, name: &str, stage: Stage, at: Duration) {
        let quiet = |phase: &Phase| phase.rate <= 1.0 && phase.canary.is_none();
        let phase = self.scenario.phases.iter().find(|phase| phase.name == name);
        self.stretch = match (stage, phase) {
            (Stage::Load, Some(phase)) if quiet(phase) => Stretch::Quiet(at + QUIETS_WITHIN),
            (Stage::Load, _) => Stretch::Loud,
            (Stage::WarmUp | Stage::Heal | Stage::Settle | Stage::Verify | Stage::VerifyAgain, _) => Stretch::Idle,
        };
        for side in [&mut self.before, &mut self.after] {
            side.window = None;
        }
    }

    fn baseline(&mut self, seen: &BaselineSeen, at: Duration) {
        let sum = |offsets: &[(i32, i64)]| offsets.iter().map(|&(_, offset)| u64::try_from(offset).unwrap_or(0)).sum();
        let (reflected, end): (u64, u64) = (sum(&seen.committed), sum(&seen.ends));
        let mark = Mark { at, published: self.published, reflected, lag: end.saturating_sub(reflected) };
        self.before.reading(self.stretch, mark);
        self.before.log.committed(&seen.committed);
        let Some(rows) = &seen.rows else { return };
        let rev = |value: &Value| match value {
            Value::Integer(rev) => u32::try_from(*rev).ok(),
            Value::Text(_) | Value::Bool(_) | Value::Float(_) => None,
        };
        let shown = rows.iter().filter_map(|(device, record)| {
            let (value, _) = record.attributes.get("rev")?;
            Some((*device, rev(value)?))
        });
        self.before.judge(&shown.collect());
    }

    /// Lets the side that a process is of take something; bridges are of none.
    fn side(&mut self, process: Process, take: impl FnOnce(&mut Side)) {
        match process.part {
            Part::Registry => take(&mut self.after),
            Part::Baseline => take(&mut self.before),
            Part::Bridge | Part::Consumer => {}
        }
    }
}

impl Side {
    fn new() -> Side {
        Side {
            quiet_lag: histogram(),
            burst_lag: 0,
            queue: 0,
            queue_cap: None,
            memory: BTreeMap::new(),
            records: Span::default(),
            commits: Span::default(),
            lives: BTreeMap::new(),
            window: None,
            windows: Vec::new(),
            log: Consumed::default(),
            wrong_rows: 0,
            devices: 0,
            fell: false,
        }
    }

    fn reading(&mut self, stretch: Stretch, now: Mark) {
        match stretch {
            Stretch::Idle => return,
            Stretch::Quiet(since) if now.at >= since => {
                record(&mut self.quiet_lag, now.lag);
                self.window(since, now);
            }
            Stretch::Quiet(_) | Stretch::Loud => self.burst_lag = self.burst_lag.max(now.lag),
        }
        self.records.reads(now.reflected);
    }

    /// Windows begin and end with the first reading behind their edges, so that both numbers are of one moment.
    fn window(&mut self, since: Duration, now: Mark) {
        let number = (now.at - since).as_nanos() / WINDOW.as_nanos();
        match self.window {
            Some((open, _)) if open == number => {}
            Some((open, begin)) => {
                if open + 1 == number {
                    self.windows.push(WindowFigures {
                        begins_s: begin.at.as_secs_f64(),
                        ends_s: now.at.as_secs_f64(),
                        published: now.published - begin.published,
                        reflected: now.reflected.saturating_sub(begin.reflected),
                        lag_begins: begin.lag,
                        lag_ends: now.lag,
                    });
                }
                self.window = Some((number, now));
            }
            None => self.window = Some((number, now)),
        }
    }

    fn begins(&mut self, process: Process) {
        let (before, life) = self.lives.entry(process).or_default();
        (*before, *life) = (*before + *life, 0);
    }

    fn commits(&mut self, process: Process, commits: u64, under_load: bool) {
        let (_, life) = self.lives.entry(process).or_default();
        *life = (*life).max(commits);
        if under_load {
            self.commits.reads(self.lives.values().map(|(before, life)| before + life).sum());
        }
    }

    fn gauges(&mut self, process: Process, gauges: &[Gauge]) {
        for gauge in gauges {
            match &*gauge.name {
                MEMORY_GAUGE => {
                    let most = self.memory.entry(process).or_default();
                    *most = gauge.value.max(*most);
                }
                REGISTRY_QUEUE | BASELINE_QUEUE if gauge.value >= self.queue => {
                    (self.queue, self.queue_cap) = (gauge.value, gauge.cap);
                }
                _ => {}
            }
        }
    }

    /// Rows that were read after the offsets that are committed.
    fn judge(&mut self, shown: &BTreeMap<Device, u32>) {
        let wrong = |(device, newest): &(&Device, &u32)| shown.get(device).is_none_or(|shown| shown < newest);
        self.wrong_rows = self.log.newest.iter().filter(wrong).count() as u64;
        self.devices = self.log.newest.len() as u64;
    }

    fn figures(self) -> SideFigures {
        SideFigures {
            quiet_lag: percentiles(&self.quiet_lag, 1.0),
            burst_lag: self.burst_lag,
            queue: self.queue,
            queue_cap: self.queue_cap,
            memory_bytes: self.memory.values().sum(),
            records: self.records.risen(),
            commits: self.commits.risen(),
            wrong_rows: self.wrong_rows,
            devices: self.devices,
            windows: self.windows,
            fell: self.fell,
        }
    }
}

impl Span {
    fn reads(&mut self, now: u64) {
        self.first.get_or_insert(now);
        self.last = now.max(self.last);
    }

    fn risen(self) -> u64 {
        self.last - self.first.unwrap_or(self.last)
    }
}

impl Consumed {
    fn committed(&mut self, offsets: &[(i32, i64)]) {
        for (partition, offset) in offsets {
            let Some(waiting) = self.waiting.get_mut(partition) else { continue };
            while let Some((_, device, rev)) = waiting.pop_front_if(|(at, ..)| *at < *offset) {
                let newest = self.newest.entry(device).or_default();
                *newest = rev.max(*newest);
            }
        }
    }
}
