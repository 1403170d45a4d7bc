//! A run on the live driver: warm-up, load and faults, heal, settle, verify, and verify again a snapshot period later.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context;
use dmp_service::kafka::inspect::Inspector;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    abort,
    access::Access,
    allowed,
    clock::RunClock,
    directory::Directory,
    disk,
    faults::{Breaker, Ended},
    fleet::Fleet,
    hooks::Hooks,
    issuer::Issuer,
    journal::Journal,
    judge::{Judge, Standing},
    limits,
    observe::{
        Feed, baseline, down, gauges, log, offsets, sample,
        store::{ReadNow, StoreReader},
    },
    primary::{Incarnation, Primary},
    process::{NotRunning, Processes},
    proxy::{Observed, Wire},
    stack::{Settings, Stack, shows},
};
use crate::{
    check,
    faults::{Edge, Timeline},
    fleet::{RunPrefix, SNAPSHOT_JITTER_PERMILLE, plan::Plan},
    history::{PayloadHash, Process, Stage, What},
    run::{Environment, Progress, RunError, RunOptions, RunOutcome, Sabotage, Target},
    sabotage,
    scenario::{Fault, HEAL, Part, Scenario},
};

/// Time for the fleet to be connected and shown whole, beyond what connecting takes by its pace: so much, and a second for so
/// many devices, each of which brings topics that the MQTT broker has not routed before.
const WARM_UP_WITHIN: Duration = Duration::from_secs(60);
const WARM_UP_DEVICES_PER_S: u64 = 500;

/// Time for a backlog to drain that no longer grows, before nothing that moves counts as stuck.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait for the log to be read to its end.
const LOG_WITHIN: Duration = Duration::from_secs(10);

/// What the parts take to start, and the fleet to be shown, beyond what connecting takes by its pace.
const STARTED_WITHIN: Duration = Duration::from_secs(3);

/// What all parts take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);

/// Time between two tellings of progress.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Runs `scenario` on the target of `options`; `watcher` is told how far it is.
///
/// # Errors
/// [`RunError`] where the run could not be carried out at all; nothing is left running then. A run that was carried out
/// has a verdict.
pub async fn run(
    scenario: Scenario,
    mut options: RunOptions,
    mut watcher: impl FnMut(&Progress),
) -> Result<RunOutcome, RunError> {
    // The agents of the fleet live in this process.
    sabotage::plant(options.sabotage.as_deref()).map_err(RunError::Harness)?;
    let interrupted = dmp_service::program::signals().map_err(|error| RunError::Harness(error.into()))?;
    Stack::available(&options.target)?;
    for fault in &scenario.faults {
        Stack::supports(&options.target, options.binary.is_none(), &fault.kind)
            .map_err(|reason| RunError::Unsupported { fault: fault.kind.key(), reason })?;
    }
    let hooks = Arc::new(prepared(&scenario, &mut options.target)?);
    limits::allow_open_files(&scenario)?;
    disk::room_for(&options.out)?;
    let running = Run::start(scenario, options, hooks.clone());
    let whole = async {
        let run = running.await?;
        let (standing, expected, clock) = (run.judge.standing(), expected(&run.scenario), run.clock.clone());
        let mut ticks = tokio::time::interval(TELL_EVERY);
        let mut carried_out = std::pin::pin!(run.carry_out());
        loop {
            tokio::select! {
                outcome = &mut carried_out => return outcome,
                _ = ticks.tick() => watcher(&progress(&standing.borrow(), clock.at(), expected)),
            }
        }
    };
    let outcome = tokio::select! {
        outcome = whole => outcome,
        () = interrupted => Err(RunError::Interrupted),
    };
    let Err(ended) = outcome else { return outcome };
    // However it ended: what a hook has begun on somebody's servers must not stay.
    let left_behind = hooks.end_all().await;
    match left_behind.is_empty() {
        true => Err(ended),
        false => Err(RunError::LeftBehind { left_behind, ended: Box::new(ended) }),
    }
}

/// What somebody's servers allow is judged, and their run gets its own serials; the hooks are theirs.
fn prepared(scenario: &Scenario, target: &mut Target) -> Result<Hooks, RunError> {
    let Target::Deployed(deployment) = target else { return Ok(Hooks::none()) };
    allowed::allows(deployment, scenario).map_err(RunError::Refused)?;
    let now = u64::try_from(super::clock::wall().0).unwrap_or_default();
    let prefix = deployment.prefix.get_or_insert_with(|| RunPrefix::of_time(now));
    Ok(Hooks::new(deployment.hooks.clone(), prefix.to_string()))
}

/// A run whose parts have been started.
struct Run {
    scenario: Arc<Scenario>,
    options: RunOptions,
    began: dmp_core::time::Wall,
    plan: Arc<Plan>,
    clock: Arc<RunClock>,
    journal: Journal,
    judge: Judge,
    target: Stack,
    processes: Processes,
    access: Arc<Access>,
    hooks: Arc<Hooks>,
    /// Connections of the fleet that were refused or broke.
    errors: Arc<AtomicU64>,
    directory: Arc<Directory>,
    read_now: ReadNow,
    primary: Primary,
    /// For end offsets, which are of no group.
    inspector: Inspector,
    entered: log::Entered,
    sabotage_hits: gauges::SabotageHits,
    /// Readers that run until the end.
    observers: JoinSet<()>,
    tails: Vec<dmp_service::kafka::inspect::Tail>,
}

impl Run {
    async fn start(scenario: Scenario, options: RunOptions, hooks: Arc<Hooks>) -> Result<Run, RunError> {
        let logs = options.out.join("logs");
        std::fs::create_dir_all(&logs).map_err(|source| RunError::Output { path: logs.clone(), source })?;
        Run::started(scenario, options, hooks, &logs).await.map_err(RunError::Target)
    }

    async fn started(
        scenario: Scenario,
        options: RunOptions,
        hooks: Arc<Hooks>,
        logs: &std::path::Path,
    ) -> anyhow::Result<Run> {
        let (scenario, clock) = (Arc::new(scenario), Arc::new(RunClock::start()));
        let plan = Arc::new(Plan::of_run(&scenario, options.target.prefix().cloned()));
        let (journal, entries) = Journal::new(clock.clone());
        let judge = Judge::start(scenario.clone(), plan.clone(), shows(&options.target), entries)?;
        journal.enter(What::Phase { name: "warm-up".into(), stage: Stage::WarmUp }).await;
        let (target, observed) = Stack::start(&options.target, &scenario, options.binary.as_deref()).await?;
        target.is_there().await?;
        let access = Arc::new(target.access(&plan)?);
        let mut processes =
            Processes::new(options.binary.clone(), target.directory(), logs, options.sabotage.clone(), journal.clone())
                .with_secrets(target.secrets());
        let settings = Settings::at(&scenario, Duration::ZERO);
        for process in target.processes(&scenario) {
            processes.start(process, &target.child(process, &scenario, settings)).await?;
        }
        if target.is_deployed() {
            // They begin at the end of the log, and must be there before the fleet says anything.
            processes.all_work().await?;
        }
        let first = Incarnation::open(&target, &scenario, &plan).await?;
        let (inspector, primary) = (first.inspector.clone(), Primary::new(first));
        let mut observers = JoinSet::new();
        let feed = Feed {
            kafka: target.kafka(),
            topics: target.topics(),
            observe: target.observe(),
            run: plan.prefix().cloned(),
            inspector: inspector.clone(),
        };
        let (mut tails, entered) = log::start(&feed, journal.clone(), &mut observers).await?;
        tails.extend(down::start(&feed, &journal, &mut observers).await?);
        observers.spawn(wire(observed, journal.clone()));
        let topic = feed.topics.events;
        observers.spawn(offsets::watch(topic.clone(), primary.clone(), journal.clone()));
        let sampled = sample::choose(&plan, scenario.seed);
        observers.spawn(sample::watch(sampled, plan.clone(), primary.clone(), journal.clone()));
        let reader = StoreReader {
            topic,
            primary: primary.clone(),
            entered: entered.clone(),
            clock: clock.clone(),
            journal: journal.clone(),
        };
        let (read_now, reading) = reader.start();
        observers.spawn(reading);
        if scenario.pipeline.baseline {
            let reader = baseline::Reader::open(&target.baseline_seen(&scenario)).await?;
            observers.spawn(baseline::watch(reader, journal.clone()));
        }
        Ok(Run {
            directory: Arc::new(Directory::new(plan.devices.len())),
            scenario,
            options,
            began: super::clock::wall(),
            plan,
            clock,
            journal,
            judge,
            target,
            processes,
            access,
            hooks,
            errors: Arc::default(),
            read_now,
            primary,
            inspector,
            entered,
            sabotage_hits: gauges::SabotageHits::default(),
            observers,
            tails,
        })
    }

    async fn carry_out(mut self) -> Result<RunOutcome, RunError> {
        let aborted = abort::reached(self.options.target.abort_if(), self.judge.standing(), self.errors.clone());
        let written_to = [self.target.directory().to_owned(), self.options.out.clone()];
        let driven = tokio::select! {
            driven = self.drive() => driven,
            full = disk::ran_full(written_to) => Err(full.into()),
            aborted = aborted => Err(aborted.into()),
        };
        if let Err(error) = driven {
            // What was seen until then is judged, and told: a violated invariant stands.
            self.journal.enter(What::Broken(format!("{error:#}").into())).await;
        }
        let took = self.clock.at();
        // First: the end asks the servers, of which a hook may have killed one.
        let left_behind = self.hooks.end_all().await;
        let ended = self.end().await;
        let Run {
            scenario,
            options,
            began,
            judge,
            target,
            processes,
            journal,
            observers,
            tails,
            read_now,
            sabotage_hits,
            ..
        } = self;
        // The judge ends with the last journal, and every source holds one.
        drop((read_now, processes, observers, tails, target, journal));
        ended.map_err(RunError::Harness)?;
        let (checks, figures) = judge.finish().await.map_err(RunError::Harness)?;
        Ok(RunOutcome {
            verdict: check::verdict::verdict(&checks),
            checks,
            figures,
            scenario: Arc::unwrap_or_clone(scenario),
            target: options.target.of_run(),
            began_at: began.to_string(),
            took_s: took.as_secs_f64(),
            left_behind,
            sabotage: options.sabotage.map(|name| Sabotage {
                name,
                hits: sabotage_hits.total().map(|in_children| in_children + sabotage::hits()),
            }),
            environment: environment(),
            reproduce: options.reproduce,
        })
    }

    /// Stops the pipeline, lets the log be read to its end, and sees whether an observer failed.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.processes.stop().await?;
        self.target.leave().await?;
        let ends: Vec<_> = self.inspector.end_offsets(&self.target.topics().events).await?.into_iter().collect();
        anyhow::ensure!(self.entered.wait(&ends, LOG_WITHIN).await, "the log could not be read to its end");
        self.observers.abort_all();
        while let Some(ended) = self.observers.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                return Err(anyhow::Error::new(error).context("an observer failed"));
            }
        }
        Ok(())
    }

    async fn drive(&mut self) -> anyhow::Result<()> {
        let fleet = Fleet::start(
            self.scenario.clone(),
            self.plan.clone(),
            self.clock.clone(),
            self.journal.clone(),
            self.access.clone(),
            self.directory.clone(),
            self.errors.clone(),
        )
        .await;
        let mut standing = self.judge.standing();
        let within = WARM_UP_WITHIN + Duration::from_secs(self.plan.devices.len() as u64 / WARM_UP_DEVICES_PER_S);
        if !self.gauging(converged(&mut standing, within)).await {
            let behind = standing.borrow().checks.behind;
            let why = format!("{behind} devices were not shown within {within:?} of warm-up, before any fault");
            self.journal.enter(What::Broken(why.into())).await;
        }
        fleet.begin_load();
        self.load(&fleet).await?;
        self.enter_phase("settle", Stage::Settle).await;
        let bound = check::bound(&self.scenario);
        self.gauging(self.settled(&standing, bound)).await;
        self.verify("verify", Stage::Verify).await;
        let period = again(&self.scenario);
        self.gauging(tokio::time::sleep(period)).await;
        self.verify("verify again", Stage::VerifyAgain).await;
        fleet.stop().await
    }

    /// Phases, faults and commands at their times, then heal.
    async fn load(&mut self, fleet: &Fleet) -> anyhow::Result<()> {
        let phases =
            (0..self.scenario.phases.len()).map(|index| (self.scenario.phase_begins(index), Step::Phase(index)));
        let mut steps: Vec<_> = phases.collect();
        steps.extend(Timeline::new(&self.scenario.faults).edges().map(|(at, edge)| (at, Step::Edge(edge))));
        steps.push((self.scenario.load(), Step::Heal));
        // Stable: at the same moment a phase begins first, and faults keep their own order: one without duration begins
        // before it ends.
        steps.sort_by_key(|&(at, _)| at);
        let mut breaker = Breaker::default();
        let mut issuing = self.issue();
        let mut repair = self.scenario.repairs_at(Duration::ZERO);
        for (at, step) in steps {
            let instant = self.clock.instant_of_load(at).context("the load has begun")?;
            self.gauging(tokio::time::sleep_until(instant.into())).await;
            match step {
                Step::Phase(index) => {
                    let name: Arc<str> = self.scenario.phases[index].name.as_str().into();
                    let entered = match index {
                        // What happens at a time of the plan happens after it: the load's begin is its origin.
                        0 => self.clock.of_load(Duration::ZERO).context("the load has begun")?,
                        _ => self.clock.at(),
                    };
                    self.journal.enter_at(entered, What::Phase { name, stage: Stage::Load }).await;
                    let wanted = self.scenario.phases[index].repair;
                    if std::mem::replace(&mut repair, wanted) != wanted {
                        self.restart_registries(at).await?;
                    }
                }
                Step::Edge(edge) => self.edge(&mut breaker, edge, fleet).await?,
                Step::Heal => self.enter_phase("heal", Stage::Heal).await,
            }
        }
        self.gauging(tokio::time::sleep(HEAL)).await;
        while let Some(issued) = issuing.join_next().await {
            issued??;
        }
        breaker.finish().await
    }

    /// Begins to issue the scenario's commands.
    fn issue(&self) -> JoinSet<anyhow::Result<()>> {
        let issuer = Issuer {
            scenario: self.scenario.clone(),
            plan: self.plan.clone(),
            clock: self.clock.clone(),
            journal: self.journal.clone(),
            directory: self.directory.clone(),
        };
        let kafka = self.target.kafka();
        let mut issuing = JoinSet::new();
        issuing.spawn(async move { issuer.run(&kafka).await });
        issuing
    }

    /// Whether gaps are repaired is a setting of the registries: they drain, end, and start with the other one.
    async fn restart_registries(&mut self, at: Duration) -> anyhow::Result<()> {
        for index in 0..self.scenario.processes_at(Part::Registry, at) {
            let process = Process { part: Part::Registry, index };
            let config = self.target.child(process, &self.scenario, Settings::at(&self.scenario, at));
            self.processes.restart(process, &config).await?;
        }
        Ok(())
    }

    async fn edge(&mut self, breaker: &mut Breaker, edge: Edge, fleet: &Fleet) -> anyhow::Result<()> {
        let Run {
            scenario, plan, clock, journal, processes, target, access, hooks, read_now, primary, observers, ..
        } = self;
        let world = super::faults::World {
            scenario,
            plan,
            clock,
            journal,
            processes,
            target,
            access,
            hooks,
            read_now,
            primary,
            observers,
            fleet,
        };
        match edge {
            Edge::Begin(fault) => {
                journal.enter(What::FaultBegan(fault)).await;
                let begun = breaker.begin(fault, world).await;
                taken(fault, scenario, journal, begun).await
            }
            Edge::End(fault) => {
                match breaker.end(fault, world).await {
                    // A server that starts again has not ended its fault before it answers.
                    Ok(Ended::Later) => return Ok(()),
                    Ok(Ended::Now) => {}
                    Err(error) => taken(fault, scenario, journal, Err(error)).await?,
                }
                journal.enter(What::FaultEnded(fault)).await;
                Ok(())
            }
        }
    }

    async fn verify(&mut self, name: &str, stage: Stage) {
        self.enter_phase(name, stage).await;
        // Read twice: the first read may have begun before the phase did.
        for _ in 0..2 {
            if let Err(error) = self.read_now.read().await {
                self.journal.enter(What::Broken(format!("reading the store for the verdict: {error:#}").into())).await;
            }
        }
    }

    /// Waits until a read that began in settle shows every row equal to its device, until `bound` is over, or until
    /// nothing has moved for so long that nothing will: a snapshot period, the time to drain, and for a device that lost
    /// to a dead session of its own the time to be onboarded again.
    async fn settled(&self, standing: &watch::Receiver<Standing>, bound: Duration) {
        let (began, reads) = (self.clock.at(), standing.borrow().checks.reads);
        let still = again(&self.scenario) + DRAINED_WITHIN + check::reonboarding(&self.scenario);
        let mut ticks = tokio::time::interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            let (now, checks) = (self.clock.at(), standing.borrow().checks);
            // The first read that ends in settle may have begun before it.
            let converged = checks.converged && checks.reads >= reads + 2;
            let stuck = now.saturating_sub(checks.moved.max(began)) > still;
            if converged || stuck || now - began > bound {
                return;
            }
        }
    }

    async fn enter_phase(&self, name: &str, stage: Stage) {
        self.journal.enter(What::Phase { name: name.into(), stage }).await;
    }

    /// Awaits `waiting`, and reads the gauges of all processes every second meanwhile.
    async fn gauging<T>(&self, waiting: impl Future<Output = T>) -> T {
        let running = self.processes.running();
        let journal = &self.journal;
        let gauging = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                if let Ok(bytes) = gauges::own_memory() {
                    journal.enter(What::OwnMemory(bytes)).await;
                }
                for (process, pid, http) in &running {
                    // A paused process does not answer; one that has gone is told by its watcher.
                    if let Ok(reading) = gauges::read(*pid, *http).await {
                        if let Some(restarts) = reading.stage_restarts {
                            journal.enter(What::StageRestarts(*process, restarts)).await;
                        }
                        if let Some(commits) = reading.commits {
                            journal.enter(What::Commits(*process, commits)).await;
                        }
                        self.sabotage_hits.saw(*pid, reading.sabotage_hits);
                        journal.enter(What::Gauges(*process, reading.gauges)).await;
                    }
                }
            }
        };
        tokio::select! {
            done = waiting => done,
            () = gauging => unreachable!("gauging goes on until it is dropped"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Phase(usize),
    Edge(Edge),
    Heal,
}

/// Whether a fault's order was taken. One to a process that is down makes the run invalid; where the process ended by
/// itself, that is the system's failure, and its watcher has told it.
async fn taken(
    fault: usize,
    scenario: &Scenario,
    journal: &Journal,
    ordered: anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Err(error) = ordered else { return Ok(()) };
    let Fault { at_text, kind, .. } = &scenario.faults[fault];
    match error.downcast_ref::<NotRunning>() {
        Some(down) if down.by_itself => Ok(()),
        Some(down) => {
            journal.enter(What::Broken(format!("fault `{kind}` at {at_text:?}: {down}").into())).await;
            Ok(())
        }
        None => Err(error.context(format!("fault `{kind}` at {at_text:?}"))),
    }
}

/// Waits until every device's rows equal the device; `false` if that takes longer than `within`.
async fn converged(standing: &mut watch::Receiver<Standing>, within: Duration) -> bool {
    let there = standing.wait_for(|standing| standing.checks.converged);
    tokio::time::timeout(within, there).await.is_ok_and(|seen| seen.is_ok())
}

/// When a run ends that goes well, about: settle takes a snapshot period at most where something has to be healed, and
/// another period lies between the two verdicts.
fn expected(scenario: &Scenario) -> Duration {
    let connecting = scenario.fleet.raes / scenario.fleet.connects_per_s.max(1);
    let warm_up = STARTED_WITHIN + Duration::from_secs(connecting.into());
    let settle = check::bound(scenario).min(again(scenario));
    warm_up + scenario.load() + HEAL + settle + again(scenario) + STOPPED_WITHIN
}

/// A snapshot period with its jitter: between the two verdicts.
fn again(scenario: &Scenario) -> Duration {
    scenario.fleet.snapshot_every * (1000 + u32::from(SNAPSHOT_JITTER_PERMILLE)) / 1000
}

/// Enters what passes between broker and bridges.
async fn wire(mut observed: mpsc::Receiver<Observed>, journal: Journal) {
    while let Some(seen) = observed.recv().await {
        let what = match seen.what {
            Wire::BridgeReceived(message) => What::Delivered {
                topic: message.topic.clone(),
                payload: PayloadHash::of(&message.payload),
                dup: message.dup,
                retain: message.retain,
            },
            Wire::BridgeAcknowledged(message) => What::BridgeAcknowledged {
                topic: message.topic.clone(),
                payload: PayloadHash::of(&message.payload),
                retain: message.retain,
            },
            Wire::Unreadable { reason, .. } => {
                What::Broken(format!("the wire between broker and bridge cannot be read: {reason}").into())
            }
            Wire::Opened { .. } | Wire::StrayAcknowledgement(_) | Wire::Closed => continue,
        };
        journal.enter(what).await;
    }
}

fn progress(standing: &Standing, elapsed: Duration, expected: Duration) -> Progress {
    let Standing { checks, figures } = standing;
    Progress {
        phase: figures.phase.clone(),
        stage: figures.stage,
        elapsed,
        expected,
        published_per_s: figures.published_per_s,
        reflected_per_s: figures.reflected_per_s,
        lag: figures.lag,
        devices_behind: checks.behind,
        devices: checks.devices,
        faults: figures.faults.clone(),
    }
}

fn environment() -> Environment {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    Environment {
        fleetproof: env!("CARGO_PKG_VERSION").to_owned(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: kib * 1024,
        optimized: !cfg!(debug_assertions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_end_leaves_room_for_two_snapshot_periods_after_heal() {
        let text = "# When does it end?
[fleet]
raes = 300
connects_per_s = 100
snapshot_every = \"30s\"
[[phase]]
name = \"load\"
lasts = \"10s\"
";
        let of = |bound: &str| {
            let text = format!("{text}[checks]\nconverged_within = {bound:?}\n");
            expected(&Scenario::from_text("end", &text, &[], None).unwrap_or_else(|error| panic!("{error}")))
        };
        let period = Duration::from_secs(30) * (1000 + u32::from(SNAPSHOT_JITTER_PERMILLE)) / 1000;
        let besides = STARTED_WITHIN + Duration::from_secs(3 + 10) + HEAL + STOPPED_WITHIN;
        assert_eq!(of("60s"), besides + 2 * period);
        assert_eq!(of("5s"), besides + Duration::from_secs(5) + period, "settle ends at its bound");
    }
}
