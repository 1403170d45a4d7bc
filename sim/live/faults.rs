//! Carries faults out: begins them, and ends what they hold.

use std::sync::Arc;

use dmp_service::mqtt::Dialer;
use tokio::task::JoinSet;

use super::{
    child::ChildOrder, embedded::Embedded, fleet::Fleet, journal::Journal, observe::store::ReadNow, poisoner::Poisoner,
    process::Processes, proxy::Pace, rae::Order,
};
use crate::{
    fleet::plan::{Plan, power_off_after},
    history::Process,
    scenario::{FaultKind, OldRae, Part, Scenario},
};

/// What faults act on.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) journal: &'a Journal,
    pub(super) processes: &'a mut Processes,
    pub(super) target: &'a Embedded,
    pub(super) dialer: &'a Arc<Dialer>,
    pub(super) read_now: &'a ReadNow,
    pub(super) fleet: &'a Fleet,
}

/// Begins and ends faults, and holds what goes on by itself meanwhile.
#[derive(Default)]
pub(super) struct Breaker {
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Breaker {
    /// Begins fault number `fault`.
    pub(super) async fn begin(&mut self, fault: usize, world: World<'_>) -> anyhow::Result<()> {
        match world.scenario.faults[fault].kind {
            // Planned, or decided per message by the fleet itself.
            FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { old: OldRae::Up, .. } => {}
            FaultKind::Poison { kind, messages, lasts } => {
                let (seed, plan) = (world.scenario.seed, world.plan.clone());
                let (dialer, journal) = (world.dialer.clone(), world.journal.clone());
                self.tasks.spawn(Poisoner { seed, fault, kind, messages, lasts, plan, dialer, journal }.run());
            }
            FaultKind::Reboot { share, down } => world.fleet.order(fault, share, Order::Reboot(down)).await,
            FaultKind::Wipe { share, down } => world.fleet.order(fault, share, Order::Wipe(down)).await,
            FaultKind::Gone { share } => world.fleet.order(fault, share, Order::Gone).await,
            // That its devices move is planned.
            ref kind @ FaultKind::Move { share, over, old: OldRae::Down, .. } => {
                let order = Order::BreakDown(power_off_after(over), kind.lasts());
                world.fleet.order(fault, share, order).await;
            }
            FaultKind::Disconnect { share, lasts } => {
                world.fleet.order(fault, share, Order::Disconnect(lasts)).await;
            }
            FaultKind::Kill { part, index, .. } => {
                world.processes.kill(Process { part, index }).await?;
                self.read_soon(part, &world);
            }
            FaultKind::Pause { part, index, .. } => {
                world.processes.pause(Process { part, index })?;
                self.read_soon(part, &world);
            }
            FaultKind::StageFailure { index, times } => {
                let order = ChildOrder::PanicWriter(times);
                world.processes.order(Part::Registry, Some(index), &order).await?;
            }
            FaultKind::CutLink { .. } => world.target.proxy().cut(),
            FaultKind::SlowLink { bytes_per_s, .. } => {
                world.target.proxy().slow(Pace { bytes_per_second: Some(bytes_per_s), ..Pace::default() });
            }
            FaultKind::ThrottledStore { rows_per_s, .. } => {
                order_registries(world, &ChildOrder::Throttle(Some(rows_per_s))).await?;
            }
            FaultKind::SlowStore { delay, .. } => {
                let us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
                order_registries(world, &ChildOrder::Delay(us)).await?;
            }
        }
        Ok(())
    }

    /// Ends fault number `fault`.
    pub(super) async fn end(&mut self, fault: usize, world: World<'_>) -> anyhow::Result<()> {
        match world.scenario.faults[fault].kind {
            FaultKind::Kill { part, index, .. } => {
                let process = Process { part, index };
                let config = world.target.child(process, world.scenario);
                world.processes.start(process, &config).await?;
                // A registry is started without the limits of faults that still hold: they are given again.
                reapply(fault, world).await
            }
            FaultKind::Pause { part, index, .. } => world.processes.resume(Process { part, index }),
            FaultKind::CutLink { .. } | FaultKind::SlowLink { .. } => {
                world.target.proxy().restore();
                Ok(())
            }
            FaultKind::ThrottledStore { .. } => order_registries(world, &ChildOrder::Throttle(None)).await,
            FaultKind::SlowStore { .. } => order_registries(world, &ChildOrder::Delay(0)).await,
            FaultKind::MissedUpdates { .. }
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
            | FaultKind::StageFailure { .. } => Ok(()),
        }
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

async fn order_registries(world: World<'_>, order: &ChildOrder) -> anyhow::Result<()> {
    world.processes.order(Part::Registry, None, order).await
}

/// Gives a part that was started in mid-run the limits that hold now: those of faults that began before `fault` ended
/// and end after it.
async fn reapply(fault: usize, world: World<'_>) -> anyhow::Result<()> {
    let ended = &world.scenario.faults[fault];
    let FaultKind::Kill { part: Part::Registry, index, .. } = ended.kind else { return Ok(()) };
    let now = ended.at + ended.kind.lasts();
    for other in world.scenario.faults.iter().filter(|other| other.at <= now && now < other.at + other.kind.lasts()) {
        let order = match other.kind {
            FaultKind::ThrottledStore { rows_per_s, .. } => ChildOrder::Throttle(Some(rows_per_s)),
            FaultKind::SlowStore { delay, .. } => {
                ChildOrder::Delay(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX))
            }
            _ => continue,
        };
        world.processes.order(Part::Registry, Some(index), &order).await?;
    }
    Ok(())
}
