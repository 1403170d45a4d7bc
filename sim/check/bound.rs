//! The bound of convergence: how long after heal every row must equal its device.
//!
//! B = reconnect + session timeout + probe + snapshot period with jitter + re-onboarding + MQTT leg + drain + commit,
//! where drain = backlog / (capacity - arrival), and re-onboarding is due where a living session can have a lower version
//! than a dead one: a clock that was wrong, a disk that was wiped, a device that moved. No loss is left after heal, so that one snapshot period is enough at QoS 0 too.

use std::time::Duration;

use crate::{
    fleet::{BACKOFF, SNAPSHOT_JITTER_PERMILLE},
    scenario::{FaultKind, ReadFrom, Scenario},
};

/// Longest back-off of a bridge or registry, and the way through the brokers; an agent's comes on top.
const RECONNECT: Duration = Duration::from_secs(5);

/// A new group joins at once, for it waits for no other member; then its first rows are written, and are read.
const JOIN: Duration = Duration::from_secs(2);

/// A pipeline is built for twice its mean load, and at least for this many records per second on two cores.
const LEAST_CAPACITY: f64 = 2_000.0;

/// A log is read again at twice the mean load, and at least at this many records per second: beside a fleet that goes on,
/// on two cores that have more to do.
const LEAST_REREAD: f64 = 1_000.0;

/// Within so many snapshot periods all notices had ended, in 20,000 of 20,000 random histories of a model with moves, wiped
/// disks, RAEs that were down, and clocks hours apart and stepping.
const REONBOARDING_PERIODS: u32 = 3;

/// The bound: the scenario's own, or computed from its settings.
#[must_use]
pub fn bound(scenario: &Scenario) -> Duration {
    scenario.checks.converged_within.unwrap_or_else(|| {
        RECONNECT
            + BACKOFF.most
            + scenario.pipeline.session_timeout
            + scenario.fleet.probe_every
            + period(scenario)
            + reonboarding(scenario)
            + drain(scenario)
            + scenario.pipeline.batch_wait
            + scenario.pipeline.commit_every
    })
}

/// Within this a store that began empty shows every device, by snapshots alone or from a log of `backlog` records.
pub(super) fn rebuild(scenario: &Scenario, from: ReadFrom, backlog: u64) -> Duration {
    let learn = match from {
        ReadFrom::Latest => period(scenario),
        ReadFrom::Earliest => {
            let devices = f64::from(scenario.devices());
            let arrival =
                devices / seconds(scenario.fleet.snapshot_every) + devices / seconds(scenario.fleet.update_every);
            Duration::from_secs_f64(backlog as f64 / ((2.0 * arrival).max(LEAST_REREAD) - arrival))
        }
    };
    JOIN + learn + scenario.pipeline.batch_wait + scenario.pipeline.commit_every
}

/// Time in which notices to losing sessions, their probes and their new sessions end, where any can be needed.
#[must_use]
pub fn reonboarding(scenario: &Scenario) -> Duration {
    let upset = scenario.faults.iter().any(|fault| fault.kind.upsets_epochs());
    if upset || scenario.fleet.clock_offset.is_some() {
        period(scenario) * REONBOARDING_PERIODS
    } else {
        Duration::ZERO
    }
}

/// A snapshot period with its jitter.
fn period(scenario: &Scenario) -> Duration {
    scenario.fleet.snapshot_every.mul_f64(1.0 + f64::from(SNAPSHOT_JITTER_PERMILLE) / 1e3)
}

/// Time to drain what has piled up by the end of the load at worst.
fn drain(scenario: &Scenario) -> Duration {
    let devices = f64::from(scenario.devices());
    let snapshots = devices / seconds(scenario.fleet.snapshot_every);
    let changes = devices / seconds(scenario.fleet.update_every);
    let capacity = (2.0 * (changes + snapshots)).max(LEAST_CAPACITY);
    let bursts = scenario.phases.iter().map(|phase| {
        let excess = (changes * phase.rate + snapshots - capacity).max(0.0) * phase.lasts.as_secs_f64();
        excess + phase.canary.as_ref().map_or(0.0, |canary| f64::from(canary.clients) * f64::from(canary.messages))
    });
    let held = scenario.faults.iter().filter(|fault| holds_back(&fault.kind));
    let held = held.map(|fault| fault.kind.lasts().as_secs_f64() * (changes + snapshots));
    let backlog = bursts.sum::<f64>() + held.sum::<f64>();
    Duration::from_secs_f64(backlog / (capacity - snapshots))
}

/// Whether records pile up while the fault holds.
fn holds_back(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Kill { .. }
        | FaultKind::Pause { .. }
        | FaultKind::WipeStore { .. }
        | FaultKind::Disconnect { .. }
        | FaultKind::Server(_)
        | FaultKind::ThrottledStore { .. }
        | FaultKind::SlowStore { .. } => true,
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
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::NewConsumer { .. }
        | FaultKind::Scale { .. }
        | FaultKind::StageFailure { .. } => false,
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-3)
}
