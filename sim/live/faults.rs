//! Carries faults out: begins them, and ends what they hold.

mod scale;
mod server;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use dmp_service::store::{self, Database};
use tokio::task::JoinSet;

use super::{
    access::Access,
    child::ChildOrder,
    clock::RunClock,
    fleet::Fleet,
    hooks::{Hooked, Hooks},
    journal::Journal,
    observe::{self, gauges, store::ReadNow},
    poisoner::Poisoner,
    primary::{Incarnation, Primary},
    process::Processes,
    proxy::Traffic,
    rae::Order,
    stack::{Settings, Stack},
};
use crate::{
    fleet::plan::{Plan, power_off_after},
    history::{Process, What},
    scenario::{Fault, FaultKind, OldRae, Part, Scenario},
};

/// What faults act on.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) clock: &'a Arc<RunClock>,
    pub(super) journal: &'a Journal,
    pub(super) processes: &'a mut Processes,
    pub(super) target: &'a Stack,
    pub(super) access: &'a Arc<Access>,
    pub(super) hooks: &'a Arc<Hooks>,
    pub(super) read_now: &'a ReadNow,
    pub(super) primary: &'a Primary,
    pub(super) observers: &'a mut JoinSet<()>,
    pub(super) fleet: &'a Fleet,
}

impl World<'_> {
    /// When a fault is over, from the begin of the load.
    fn end_of(&self, fault: usize) -> Duration {
        let fault = &self.scenario.faults[fault];
        fault.at + fault.kind.lasts()
    }

    /// Starts a process in mid-run; a registry is given the limits of its store that hold `now`.
    async fn start(&mut self, process: Process, settings: Settings, now: Duration) -> anyhow::Result<()> {
        self.processes.start(process, &self.target.child(process, self.scenario, settings)).await?;
        if process.part == Part::Registry {
            for order in limits_at(&self.scenario.faults, now) {
                self.processes.order(process, &order).await?;
            }
        }
        Ok(())
    }
}

/// Whether a fault is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// What it held is released.
    Now,
    /// What it held is on its way back; the end is entered when it is there.
    Later,
}

/// Begins and ends faults, and holds what goes on by itself meanwhile.
#[derive(Default)]
pub(super) struct Breaker {
    tasks: JoinSet<anyhow::Result<()>>,
    /// What had passed the link when a fault of it began.
    traffic: BTreeMap<usize, Traffic>,
}

impl Breaker {
    /// Begins fault number `fault`.
    pub(super) async fn begin(&mut self, fault: usize, world: World<'_>) -> anyhow::Result<()> {
        if let Some(hooked) = world.target.by_hooks(&world.scenario.faults[fault].kind) {
            return self.begin_by_hook(fault, hooked, &world).await;
        }
        match world.scenario.faults[fault].kind {
            // Planned, or decided per message by the fleet itself.
            FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { old: OldRae::Up, .. } => {}
            FaultKind::Poison { kind, messages, lasts } => {
                let (seed, plan) = (world.scenario.seed, world.plan.clone());
                let (access, journal) = (world.access.clone(), world.journal.clone());
                self.tasks.spawn(Poisoner { seed, fault, kind, messages, lasts, plan, access, journal }.run());
            }
            FaultKind::Reboot { share, down } => world.fleet.order(fault, share, Order::Reboot(down)).await,
            FaultKind::Wipe { share, down } => world.fleet.order(fault, share, Order::Wipe(down)).await,
            FaultKind::Gone { share } => world.fleet.order(fault, share, Order::Gone).await,
            // That its devices move is planned.
            ref kind @ FaultKind::Move { share, over, old: OldRae::Down, .. } => {
                let order = Order::BreakDown(power_off_after(over), kind.lasts());
                world.fleet.order(fault, share, order).await;
            }
            ref kind @ FaultKind::Move { share, old: OldRae::Isolated, .. } => {
                world.fleet.order(fault, share, Order::Disconnect(kind.lasts())).await;
            }
            FaultKind::Disconnect { share, lasts } => {
                world.fleet.order(fault, share, Order::Disconnect(lasts)).await;
            }
            FaultKind::Kill { part, index, .. } => {
                let process = Process { part, index };
                last_restarts(process, fault, &world).await;
                world.processes.kill(process).await?;
                self.read_soon(part, &world);
            }
            FaultKind::Pause { part, index, .. } => {
                world.processes.pause(Process { part, index }).await?;
                world.journal.enter(What::FaultActed { fault, times: 1 }).await;
                self.read_soon(part, &world);
            }
            FaultKind::Scale { part, to } => scale::scale(fault, part, to, world).await?,
            FaultKind::StageFailure { index, times } => {
                let process = Process { part: Part::Registry, index };
                world.processes.order(process, &ChildOrder::PanicWriter(times)).await?;
            }
            FaultKind::Server(ref kind) => self.begin_server(fault, kind, &world).await?,
            FaultKind::ThrottledStore { .. } | FaultKind::SlowStore { .. } => {
                if let Some(order) = limit(&world.scenario.faults[fault].kind) {
                    order_writers(world, &order).await?;
                }
            }
            FaultKind::WipeStore { .. } => wipe_store(fault, world).await?,
            FaultKind::NewConsumer { .. } => start_consumer(fault, world).await?,
        }
        Ok(())
    }

    /// Ends fault number `fault`.
    pub(super) async fn end(&mut self, fault: usize, mut world: World<'_>) -> anyhow::Result<Ended> {
        if world.target.by_hooks(&world.scenario.faults[fault].kind).is_some() {
            return Ok(self.end_by_hook(fault, &world));
        }
        match world.scenario.faults[fault].kind {
            FaultKind::Kill { part, index, .. } => {
                let now = world.end_of(fault);
                let settings = Settings::at(world.scenario, now);
                world.start(Process { part, index }, settings, now).await?;
            }
            FaultKind::Pause { part, index, .. } => world.processes.resume(Process { part, index })?,
            FaultKind::Server(ref kind) => return self.end_server(fault, kind, &world).await,
            FaultKind::ThrottledStore { .. } => order_writers(world, &ChildOrder::Throttle(None)).await?,
            FaultKind::SlowStore { .. } => order_writers(world, &ChildOrder::Delay(0)).await?,
            FaultKind::WipeStore { .. } => renew_store(fault, world).await?,
            FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Poison { .. }
            | FaultKind::Reboot { .. }
            | FaultKind::Wipe { .. }
            | FaultKind::Gone { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::Disconnect { .. }
            | FaultKind::Scale { .. }
            | FaultKind::StageFailure { .. }
            | FaultKind::NewConsumer { .. } => {}
        }
        Ok(Ended::Now)
    }

    /// Begins a fault of what is not the harness's own.
    async fn begin_by_hook(&mut self, fault: usize, hooked: Hooked, world: &World<'_>) -> anyhow::Result<()> {
        world.hooks.begin(fault, hooked).await?;
        world.journal.enter(What::FaultActed { fault, times: 1 }).await;
        if let FaultKind::Kill { part, .. } | FaultKind::Pause { part, .. } = world.scenario.faults[fault].kind {
            self.read_soon(part, world);
        }
        Ok(())
    }

    /// Ends it while the load goes on.
    fn end_by_hook(&mut self, fault: usize, world: &World<'_>) -> Ended {
        let (hooks, journal) = (world.hooks.clone(), world.journal.clone());
        self.tasks.spawn(async move {
            hooks.end(fault).await?;
            journal.enter(What::FaultEnded(fault)).await;
            Ok(())
        });
        Ended::Later
    }

    /// Waits for what went on by itself.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Reads the store at once, while a registry is down: what it had committed must be there already.
    fn read_soon(&mut self, part: Part, world: &World<'_>) {
        if part == Part::Registry {
            let read_now = world.read_now.clone();
            self.tasks.spawn(async move { read_now.read().await });
        }
    }
}

/// Gives an order to the registries, and to the baseline beside them: both write under the same limits.
async fn order_writers(world: World<'_>, order: &ChildOrder) -> anyhow::Result<()> {
    for part in [Part::Registry, Part::Baseline] {
        world.processes.order_running(part, order).await?;
    }
    Ok(())
}

/// Kills all registries and takes their store and their group away.
async fn wipe_store(fault: usize, world: World<'_>) -> anyhow::Result<()> {
    let registries = world.scenario.processes_at(Part::Registry, world.scenario.faults[fault].at);
    for index in 0..registries {
        world.processes.kill(Process { part: Part::Registry, index }).await?;
    }
    world.target.renew().await?;
    world.primary.gone(world.journal, &world.target.group(world.scenario)).await;
    world.journal.enter(What::FaultActed { fault, times: 1 }).await;
    Ok(())
}

/// Starts all registries again, as a new group with an empty store.
async fn renew_store(fault: usize, mut world: World<'_>) -> anyhow::Result<()> {
    let now = world.end_of(fault);
    let settings = Settings::at(world.scenario, now);
    for index in 0..world.scenario.processes_at(Part::Registry, now) {
        world.start(Process { part: Part::Registry, index }, settings, now).await?;
    }
    world.primary.back(Incarnation::open(world.target, world.scenario, world.plan).await?).await;
    Ok(())
}

/// Starts a registry beside the others, with a group and a store of its own.
async fn start_consumer(fault: usize, world: World<'_>) -> anyhow::Result<()> {
    let place = world.scenario.consumers().position(|(of, _)| of == fault).context("it starts no consumer")?;
    let consumer = u8::try_from(place)?;
    let process = Process { part: Part::Consumer, index: consumer };
    world.target.make_consumer_store(consumer).await?;
    let settings = Settings::at(world.scenario, world.scenario.faults[fault].at);
    world.processes.start(process, &world.target.child(process, world.scenario, settings)).await?;
    let group = Stack::consumer_group(consumer).into();
    world.journal.enter(What::ConsumerStarted { consumer, group }).await;
    world.journal.enter(What::FaultActed { fault, times: 1 }).await;
    let url = world.target.consumer_store(consumer).full_url().context("parsing the URL of its store")?;
    let store = Database::open(&url, store::Access::Read).await.context("opening its store for reading")?;
    world.observers.spawn(observe::consumer::watch(consumer, store, world.clock.clone(), world.journal.clone()));
    Ok(())
}

/// The limits of the store that hold at a moment of the load.
fn limits_at(faults: &[Fault], now: Duration) -> impl Iterator<Item = ChildOrder> {
    let holds = move |fault: &&Fault| fault.at <= now && now < fault.at + fault.kind.lasts();
    faults.iter().filter(holds).filter_map(|fault| limit(&fault.kind))
}

/// The limit that a fault sets to the store.
fn limit(kind: &FaultKind) -> Option<ChildOrder> {
    match *kind {
        FaultKind::ThrottledStore { rows_per_s, .. } => Some(ChildOrder::Throttle(Some(rows_per_s))),
        FaultKind::SlowStore { delay, .. } => {
            Some(ChildOrder::Delay(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)))
        }
        FaultKind::MissedUpdates { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::Qos0Loss { .. }
        | FaultKind::Duplicates { .. }
        | FaultKind::DelayedTails { .. }
        | FaultKind::Poison { .. }
        | FaultKind::Reboot { .. }
        | FaultKind::Wipe { .. }
        | FaultKind::Gone { .. }
        | FaultKind::ClockStep { .. }
        | FaultKind::ClockDrift { .. }
        | FaultKind::Move { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::Disconnect { .. }
        | FaultKind::Kill { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Scale { .. }
        | FaultKind::StageFailure { .. }
        | FaultKind::Server(_)
        | FaultKind::WipeStore { .. }
        | FaultKind::NewConsumer { .. } => None,
    }
}

/// Reads how often the stage of a registry has failed, before a kill takes the count; at once where none was to fail.
async fn last_restarts(process: Process, fault: usize, world: &World<'_>) {
    let of_process = |fault: &Fault| {
        matches!(fault.kind, FaultKind::StageFailure { index, .. } if index == process.index)
            && process.part == Part::Registry
    };
    if !world.scenario.faults[..fault].iter().any(of_process) {
        return;
    }
    let Some((pid, http)) = world.processes.metrics_of(process) else { return };
    // A registry that does not answer is judged by what it said last.
    if let Ok(gauges::Reading { stage_restarts: Some(restarts), .. }) = gauges::read(pid, http).await {
        world.journal.enter(What::StageRestarts(process, restarts)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_comes_back_is_given_the_limits_that_hold_then_and_no_others() {
        let text = "# Which limits hold when the registry is back?
[[phase]]
name = \"load\"
lasts = \"30s\"
[[fault]]
at = \"2s\"
slow_store = { delay = \"5ms\", lasts = \"10s\" }
[[fault]]
at = \"3s\"
kill = { part = \"registry\", back_after = \"2s\" }
[[fault]]
at = \"4s\"
throttled_store = { rows_per_s = 100, lasts = \"4s\" }
[[fault]]
at = \"15s\"
throttled_store = { rows_per_s = 200, lasts = \"4s\" }
";
        let scenario = Scenario::from_text("limits", text, &[], None).unwrap_or_else(|error| panic!("{error}"));
        let at = |seconds| limits_at(&scenario.faults, Duration::from_secs(seconds)).collect::<Vec<_>>();
        // One was given before the kill, one while the registry was down.
        assert_eq!(at(5), [ChildOrder::Delay(5_000), ChildOrder::Throttle(Some(100))]);
        assert_eq!(at(8), [ChildOrder::Delay(5_000)]);
        assert_eq!(at(12), []);
        assert_eq!(at(15), [ChildOrder::Throttle(Some(200))]);
    }
}
