//! C22: a store that begins empty in mid-run shows every device within a bound, and whoever builds it says nothing to a RAE.
//!
//! Two kinds begin so: that of a new consumer, and that of the registry after a wipe. From the begin of the log the bound is
//! the time to read what is in it; from its end it is one snapshot period, for devices whose RAE lives. Under load a device
//! is shown right if its row is as the device was a moment ago. What a fault delays meanwhile is due that much later.
//!
//! Who sends commands is in the log: a registry signs with its group. No consumer but the registry may send any, and the
//! registry none from when it rebuilds; where the scenario gives it a reason to, none of those it sends while it does so is
//! held against it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    bound::rebuild,
    model::{Models, Rows, right_within},
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    fleet::plan::DeviceIndex,
    history::{ConsumerSeen, Down, Entry, LoggedCommand, Stage, What},
    observe::ReconstructionFigures,
    scenario::{FaultKind, Part, ReadFrom, Scenario, quantity::show_whole},
};

/// A change may take this long to be shown by whoever is up to date.
const FRESH: Duration = Duration::from_secs(2);

/// C22.
#[derive(Debug)]
pub(super) struct Reconstruction {
    tally: Tally,
    builds: Vec<Build>,
    /// Ends of the log, as far as it is in the history.
    ends: BTreeMap<i32, i64>,
    /// How far the registry reflects it.
    feeds: BTreeMap<i32, i64>,
    /// When the load began, and the records that the registry had reflected by then.
    loaded: Option<(Duration, u64)>,
    normal_per_s: Option<f64>,
    /// Since when each RAE has been online.
    online: BTreeMap<u32, Duration>,
    /// Faults that hold and may delay records.
    holding: BTreeSet<usize>,
    verify: Option<Duration>,
}

/// A store that began empty.
#[derive(Debug)]
struct Build {
    who: Who,
    group: Arc<str>,
    from: ReadFrom,
    started: Option<Duration>,
    /// Ends of the log when it started.
    backlog: BTreeMap<i32, i64>,
    bound: Duration,
    due: Duration,
    complete: Option<Duration>,
    /// When it had read all that was in the log when it started.
    caught_up: Option<Duration>,
    /// Records reflected since it started, until it was complete.
    reflected: u64,
    normal_per_s: Option<f64>,
    /// Whether it has no reason to speak, however long it lives.
    silent: bool,
    /// Commands that it sent: where it is not silent, until it was complete.
    commands: u64,
    /// The first of them, and when it was in the log.
    first: Option<(Duration, LoggedCommand)>,
    told: BTreeSet<DeviceIndex>,
    judged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Registry,
    Consumer(u8),
}

impl Default for Reconstruction {
    fn default() -> Reconstruction {
        Reconstruction {
            tally: Tally::new(CheckId::C22),
            builds: Vec::new(),
            ends: BTreeMap::new(),
            feeds: BTreeMap::new(),
            loaded: None,
            normal_per_s: None,
            online: BTreeMap::new(),
            holding: BTreeSet::new(),
            verify: None,
        }
    }
}

impl Reconstruction {
    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        let at = entry.at;
        match &entry.what {
            What::Phase { stage: Stage::Load, .. } => {
                self.loaded.get_or_insert((at, records(&self.feeds)));
            }
            What::Phase { stage: Stage::Verify, .. } => self.verify = Some(at),
            What::Online(rae) => {
                self.online.insert(rae.0, at);
            }
            What::Offline(rae) => {
                self.online.remove(&rae.0);
            }
            What::Appended(record) => {
                self.ends.insert(record.partition, record.offset + 1);
            }
            What::Feed { partition, next_offset } => {
                self.feeds.insert(*partition, *next_offset);
                if let Some(build) = self.builds.iter_mut().rfind(|build| build.who == Who::Registry) {
                    build.reads(&self.feeds, at);
                }
            }
            What::StoreWiped { group } => {
                self.learn_normal(at);
                self.feeds.clear();
                self.builds.retain(|build| build.who != Who::Registry || build.judged || !build.told.is_empty());
                let silent = !has_reasons(&models.scenario);
                self.builds.push(Build::new(Who::Registry, group, ReadFrom::Earliest, silent));
            }
            What::ProcessStarted(process) if process.part == Part::Registry => {
                let waiting = self.builds.iter_mut().find(|build| build.started.is_none());
                if let Some(build) = waiting {
                    build.start(&models.scenario, at, &self.ends, self.normal_per_s);
                }
            }
            What::ConsumerStarted { consumer, group } => {
                if self.builds.is_empty() {
                    self.learn_normal(at);
                }
                let from = models.scenario.consumers().nth((*consumer).into());
                let mut build =
                    Build::new(Who::Consumer(*consumer), group, from.map_or(ReadFrom::Latest, |(_, from)| from), true);
                build.start(&models.scenario, at, &self.ends, self.normal_per_s);
                self.builds.push(build);
            }
            What::Consumer(seen) => self.consumer(models, seen, at),
            What::Read(read) => {
                if let Some(place) = self.builds.iter().rposition(|build| build.who == Who::Registry) {
                    self.judge(models, place, &models.rows, read.began, at);
                }
            }
            What::Down(Down::Logged(logged)) if !models.commands.is_issued(logged.id) => {
                self.commanded(models, logged, at)
            }
            What::FaultBegan(fault) if delays(&models.scenario, *fault) => {
                self.holding.insert(*fault);
            }
            What::FaultEnded(fault) if self.holding.remove(fault) => {
                for build in self.builds.iter_mut().filter(|build| build.complete.is_none()) {
                    build.due = build.due.max(at + build.bound);
                }
            }
            _ => {}
        }
    }

    /// One of each store that began empty.
    pub(super) fn figures(&self) -> Vec<ReconstructionFigures> {
        self.builds.iter().map(Build::figures).collect()
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if self.builds.is_empty() {
            return self.tally.not_observable("no store begins empty in mid-run");
        }
        let mut early = None;
        for build in &self.builds {
            if let (true, Some((at, first))) = (build.silent, &build.first) {
                let (commands, name) = (build.commands, build.name());
                let LoggedCommand { name: kind, session, rae, .. } = first;
                let s = if commands == 1 { "" } else { "s" };
                let which = format!("{commands} command{s}, the first a {kind} to session {session} of {rae}");
                let what = match build.who {
                    Who::Registry => format!("{name} sent {which}, after its store was wiped, and had no reason to"),
                    Who::Consumer(_) => format!("{name}, group {}, sent {which}: it is not the registry", build.group),
                };
                let device = models.ledger.holder(*session);
                let timeline = device.map(|device| models.timeline(device, models.clock.now));
                self.tally.fail(*at, || (what, timeline.unwrap_or_default()));
            }
            if !build.judged && build.told.is_empty() {
                early = Some(format!("{} was not complete, and the run ended before it had to be", build.name()));
            }
        }
        let said = self.builds.iter().map(Build::sentence);
        let figure = said.collect::<Vec<_>>().join("; ");
        let bounds = self.builds.iter().map(|build| format!("{:.1} s", build.bound.as_secs_f64()));
        let limit = format!("within {}, no commands", bounds.collect::<Vec<_>>().join(" and "));
        match early {
            Some(early) if self.tally.failures() == 0 => self.tally.with(Outcome::Invalid(early), figure, limit),
            Some(_) | None => self.tally.result(figure, limit, "device in a store that began empty"),
        }
    }

    fn learn_normal(&mut self, at: Duration) {
        let Some((since, before)) = self.loaded.filter(|(since, _)| *since < at) else { return };
        let reflected = records(&self.feeds).saturating_sub(before);
        self.normal_per_s = Some(reflected as f64 / (at - since).as_secs_f64());
    }

    fn consumer(&mut self, models: &Models, seen: &ConsumerSeen, at: Duration) {
        let who = Who::Consumer(seen.consumer);
        let Some(place) = self.builds.iter().position(|build| build.who == who) else { return };
        self.builds[place].reads(&seen.feeds.iter().copied().collect(), at);
        if let Some(records) = &seen.rows {
            self.judge(models, place, &models.rows_of(records, at), seen.began, at);
        }
    }

    /// Judges a whole read of a store.
    fn judge(&mut self, models: &Models, place: usize, rows: &Rows, began: Duration, at: Duration) {
        let build = &mut self.builds[place];
        let Some(started) = build.started.filter(|&started| started <= began) else { return };
        let online = &self.online;
        let lives = |device: DeviceIndex| {
            let home = models.plan.home(device, models.change_by(device, began));
            let since = online.get(&home.0);
            since.is_some_and(|&since| since <= started || since + build.bound <= began)
        };
        let stays = |device: DeviceIndex| {
            let rae = models.plan.devices[device.0 as usize].rae;
            models.plan.raes[rae.0 as usize].stay.is_none()
        };
        let all = (0..models.plan.devices.len() as u32).map(DeviceIndex);
        // From the end of the log nothing is learnt of those who say nothing more.
        let due = all.filter(|&device| build.from == ReadFrom::Earliest || (stays(device) && lives(device)));
        let (from, to) = (models.clock.in_plan(began.saturating_sub(FRESH)), models.clock.in_plan(at));
        let right = |device: &DeviceIndex| {
            right_within(&models.plan, rows, &models.ledger, &models.commands, *device, from, to)
                // What never reached the log is missing for everybody.
                || (build.who != Who::Registry && models.truth.behind().contains(device) && rows.same(&models.rows, *device))
        };
        let (right, wrong): (Vec<_>, Vec<_>) = due.partition(right);
        if wrong.is_empty() && build.complete.is_none() && !right.is_empty() {
            build.complete = Some(at);
            self.tally.observed += right.len() as u64;
            build.judged = true;
        }
        let late = began > build.due && !build.judged && self.holding.is_empty();
        let last = build.who != Who::Registry && self.verify.is_some_and(|verify| verify <= began) && began > build.due;
        if !late && !last {
            return;
        }
        self.tally.observed += (right.len() + wrong.len()) as u64;
        for device in wrong {
            if build.told.insert(device) {
                let after = (began - started).as_secs_f64();
                let what = format!(
                    "device {} is not shown as it is by {}, {after:.1} s after its start from the {} of the log",
                    models.id(device),
                    build.name(),
                    build.begin()
                );
                self.tally.fail(at, || (what, models.timeline(device, at)));
            }
        }
    }

    /// A command that is none of the harness's.
    fn commanded(&mut self, models: &Models, logged: &LoggedCommand, at: Duration) {
        let Some(issuer) = &logged.issuer else {
            // On a target that others use, an operator may have sent it by hand.
            if !models.observable.shared {
                let what = format!("a {} for {} that no registry signed is in the log", logged.name, logged.rae);
                self.tally.fail(at, || (what, Vec::new()));
            }
            return;
        };
        let speaks = |build: &&mut Build| build.group == *issuer && (build.silent || build.complete.is_none());
        for build in self.builds.iter_mut().filter(speaks) {
            build.commands += 1;
            build.first.get_or_insert_with(|| (at, logged.clone()));
        }
    }
}

impl Build {
    fn new(who: Who, group: &Arc<str>, from: ReadFrom, silent: bool) -> Build {
        Build {
            who,
            group: group.clone(),
            from,
            started: None,
            backlog: BTreeMap::new(),
            bound: Duration::ZERO,
            due: Duration::MAX,
            complete: None,
            caught_up: None,
            reflected: 0,
            normal_per_s: None,
            silent,
            commands: 0,
            first: None,
            told: BTreeSet::new(),
            judged: false,
        }
    }

    fn start(&mut self, scenario: &Scenario, at: Duration, ends: &BTreeMap<i32, i64>, normal_per_s: Option<f64>) {
        self.started = Some(at);
        self.backlog = ends.clone();
        self.bound = rebuild(scenario, self.from, records(ends));
        self.due = at + self.bound;
        self.normal_per_s = normal_per_s;
    }

    /// How far it has read.
    fn reads(&mut self, feeds: &BTreeMap<i32, i64>, at: Duration) {
        let passed = |(partition, end): (&i32, &i64)| feeds.get(partition).is_some_and(|next| next >= end);
        if self.started.is_some() && self.backlog.iter().filter(|(_, end)| **end > 0).all(passed) {
            self.caught_up.get_or_insert(at);
        }
        if self.complete.is_none() {
            let begin = |partition: &i32| match self.from {
                ReadFrom::Earliest => 0,
                ReadFrom::Latest => self.backlog.get(partition).copied().unwrap_or(0),
            };
            let new = feeds.iter().map(|(partition, next)| u64::try_from(next - begin(partition)).unwrap_or(0));
            self.reflected = new.sum();
        }
    }

    fn per_s(&self) -> Option<f64> {
        let (until, records) = match self.from {
            ReadFrom::Earliest => (self.caught_up?, records(&self.backlog)),
            ReadFrom::Latest => (self.complete?, self.reflected),
        };
        let took = until.saturating_sub(self.started?).as_secs_f64();
        (took > 0.0).then_some(records as f64 / took)
    }

    fn after(&self) -> Option<Duration> {
        Some(self.complete?.saturating_sub(self.started?))
    }

    fn name(&self) -> String {
        match self.who {
            Who::Registry => "the registry".to_owned(),
            Who::Consumer(number) => format!("new consumer {number}"),
        }
    }

    fn begin(&self) -> &'static str {
        match self.from {
            ReadFrom::Earliest => "begin",
            ReadFrom::Latest => "end",
        }
    }

    fn sentence(&self) -> String {
        let after = self
            .after()
            .map_or("never complete".to_owned(), |after| format!("complete after {:.1} s", after.as_secs_f64()));
        let sent = match self.commands {
            0 => "no commands".to_owned(),
            commands => format!("{} commands", show_whole(commands)),
        };
        format!("{} from the {}: {after}, {sent}", self.name(), self.begin())
    }

    fn figures(&self) -> ReconstructionFigures {
        let who = match self.who {
            Who::Registry => "registry".to_owned(),
            Who::Consumer(number) => format!("new consumer {number}"),
        };
        ReconstructionFigures {
            who,
            from: self.from,
            started_s: self.started.map(|at| at.as_secs_f64()),
            complete_after_s: self.after().map(|after| after.as_secs_f64()),
            within_s: self.bound.as_secs_f64(),
            backlog: records(&self.backlog),
            reflected_per_s: self.per_s(),
            normal_per_s: self.normal_per_s,
            commands: self.commands,
        }
    }
}

fn records(offsets: &BTreeMap<i32, i64>) -> u64 {
    offsets.values().map(|&offset| u64::try_from(offset).unwrap_or(0)).sum()
}

/// Whether a fault may keep records from a consumer, or devices from saying what they are.
fn delays(scenario: &Scenario, fault: usize) -> bool {
    let kind = scenario.faults.get(fault).map(|fault| &fault.kind);
    !matches!(kind, None | Some(FaultKind::NewConsumer { .. } | FaultKind::WipeStore { .. }))
}

/// Whether a registry may have something to say to a RAE: a session that lost, or an event that is missing.
pub(super) fn has_reasons(scenario: &Scenario) -> bool {
    let reason = |kind: &FaultKind| !matches!(kind, FaultKind::NewConsumer { .. } | FaultKind::WipeStore { .. });
    scenario.fleet.clock_offset.is_some() || scenario.faults.iter().any(|fault| reason(&fault.kind))
}
