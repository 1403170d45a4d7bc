//! C12: a partition with lag and a live owner advances while no fault holds it, and no process ends by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    history::{Entry, Stage, What},
    scenario::{FaultKind, Part, Scenario, Server},
};

/// After a fault that stops a registry: time for its start, a rebalance and the first write, beyond the session timeout.
const RECOVERY: Duration = Duration::from_secs(5);

/// C12.
#[derive(Debug)]
pub(super) struct Progress {
    tally: Tally,
    partitions: BTreeMap<i32, Partition>,
    holding: BTreeSet<usize>,
    /// Until then the owners are not expected to be back.
    held_until: Duration,
    loaded: bool,
    longest: Duration,
}

#[derive(Debug, Default)]
struct Partition {
    end: i64,
    committed: Mark,
    reflected: Mark,
}

/// One of the two offsets that must advance.
#[derive(Debug, Default)]
struct Mark {
    offset: Option<i64>,
    /// Since when it stands still with lag.
    still: Option<Duration>,
    told: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            tally: Tally::new(CheckId::C12),
            partitions: BTreeMap::new(),
            holding: BTreeSet::new(),
            held_until: Duration::ZERO,
            loaded: false,
            longest: Duration::ZERO,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        let hold = models.scenario.pipeline.session_timeout + RECOVERY;
        match &entry.what {
            What::Phase { stage, .. } => self.loaded |= *stage == Stage::Load,
            What::FaultBegan(fault) if holds(&models.scenario, *fault) => {
                self.holding.insert(*fault);
                self.held_until = self.held_until.max(entry.at + hold);
            }
            What::FaultEnded(fault) if holds(&models.scenario, *fault) => {
                self.holding.remove(fault);
                self.held_until = self.held_until.max(entry.at + hold);
            }
            What::ProcessStarted(process) if process.part == Part::Registry => {
                self.held_until = self.held_until.max(entry.at + hold);
            }
            What::ProcessEnded { process, meant } => {
                if process.part == Part::Registry {
                    self.held_until = self.held_until.max(entry.at + hold);
                }
                // The baseline may run out of memory; then there is nothing to compare with, which is for C23.
                if !meant && process.part != Part::Baseline {
                    let what = format!("{:?} {} ended by itself", process.part, process.index).to_lowercase();
                    self.tally.fail(entry.at, || (what, Vec::new()));
                }
            }
            What::StoreWiped { .. } => self.partitions.clear(),
            What::Committed { partition, offset } => self.moved(entry.at, *partition, *offset, |p| &mut p.committed),
            What::Feed { partition, next_offset } => {
                self.moved(entry.at, *partition, *next_offset, |p| &mut p.reflected);
            }
            What::End { partition, offset } => self.end(models, entry.at, *partition, *offset),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        let figure = format!(
            "longest standstill {:.1?} (not judged while a fault of registry, Kafka or store holds, nor a session timeout longer)",
            self.longest
        );
        let limit = format!("at most {:?}", models.scenario.checks.stalled_at_most);
        self.tally.result(figure, limit, "advance of a partition")
    }

    fn moved(&mut self, at: Duration, partition: i32, offset: i64, mark: impl Fn(&mut Partition) -> &mut Mark) {
        let partition = self.partitions.entry(partition).or_default();
        let lag = partition.end > offset;
        let mark = mark(partition);
        if mark.offset != Some(offset) {
            self.tally.saw();
            *mark = Mark { offset: Some(offset), still: lag.then_some(at), told: false };
        }
    }

    fn end(&mut self, models: &Models, at: Duration, number: i32, end: i64) {
        let held = !self.loaded || !self.holding.is_empty() || at < self.held_until;
        let partition = self.partitions.entry(number).or_default();
        partition.end = end;
        let committed = partition.committed.offset;
        let marks = [("committed", &mut partition.committed), ("reflected", &mut partition.reflected)];
        for (name, mark) in marks {
            // A store that does not say how far it reflects is judged by commits alone.
            let Some(offset) = mark.offset.or((name == "committed").then_some(0)) else { continue };
            let behind = end > offset.max(if name == "reflected" { committed.unwrap_or(0) } else { 0 });
            if held || !behind {
                mark.still = behind.then_some(at);
                continue;
            }
            let still = at - *mark.still.get_or_insert(at);
            self.longest = self.longest.max(still);
            if still > models.scenario.checks.stalled_at_most && !std::mem::replace(&mut mark.told, true) {
                let what = format!(
                    "partition {number} stands still for {still:.1?}: {name} is {offset}, its end is {end}, and no fault \
                     holds it"
                );
                self.tally.fail(at, || (what, Vec::new()));
            }
        }
    }
}

/// Whether a fault can keep a partition from advancing.
fn holds(scenario: &Scenario, fault: usize) -> bool {
    scenario.faults.get(fault).is_some_and(|fault| match fault.kind {
        FaultKind::Kill { part, .. } | FaultKind::Pause { part, .. } | FaultKind::Scale { part, .. } => {
            part == Part::Registry
        }
        // What is in the log has left the broker behind.
        FaultKind::Server(ref fault) => fault.server() != Server::Broker,
        FaultKind::StageFailure { .. }
        | FaultKind::ThrottledStore { .. }
        | FaultKind::SlowStore { .. }
        | FaultKind::WipeStore { .. } => true,
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
        | FaultKind::NewConsumer { .. } => false,
    })
}
