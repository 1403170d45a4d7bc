//! C5b: an owner starts at or before the committed offset.
//!
//! From outside the start itself is not seen. But while no registry is alive nothing can be committed, so offsets read
//! then are those at which the next owner must start, and what is in the log behind them must come to be reflected: a
//! committed record of that range that is missing in the rows was skipped by the start.

use std::collections::BTreeMap;

use super::{
    model::{Gap, GapKind, Models, Step, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    history::{Entry, Process, What},
    scenario::{FaultKind, Part, Scenario},
};

/// C5b.
#[derive(Debug)]
pub(super) struct StartPosition {
    tally: Tally,
    alive: BTreeMap<Process, bool>,
    /// Committed offsets read while no registry is alive.
    asleep: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    /// Records that waited for an owner: partition, from, to.
    waited: Vec<(i32, i64, i64)>,
    starts: u64,
}

impl StartPosition {
    pub(super) fn new() -> StartPosition {
        StartPosition {
            tally: Tally::new(CheckId::C5b),
            alive: BTreeMap::new(),
            asleep: BTreeMap::new(),
            ends: BTreeMap::new(),
            waited: Vec::new(),
            starts: 0,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match &entry.what {
            What::ProcessStarted(process) if process.part == Part::Registry => self.started(*process),
            What::ProcessEnded { process, .. } if process.part == Part::Registry => {
                self.alive.insert(*process, false);
            }
            What::Committed { partition, offset } if self.all_down() => {
                self.asleep.insert(*partition, *offset);
            }
            // The next owner has committed nothing: it must start at the begin of the log.
            What::StoreWiped { .. } => self.asleep = self.ends.keys().map(|&partition| (partition, 0)).collect(),
            What::Appended(record) => {
                self.ends.insert(record.partition, record.offset + 1);
            }
            _ => {}
        }
        if let Step::Read { gaps, .. } = step {
            gaps.iter()
                .filter(|gap| gap.kind == GapKind::NeverWritten)
                .for_each(|gap| self.skipped(models, entry, gap));
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        let hopeless = self.tally.observed == 0 && !stops_every_owner(&models.scenario);
        if !models.observable.processes || hopeless {
            return self.tally.not_observable("no owner started while the offsets it must start at were known");
        }
        let figure = format!("{} records waited for {} starts", self.tally.observed, self.starts);
        self.tally.result(figure, String::new(), "record that waited for an owner")
    }

    fn all_down(&self) -> bool {
        !self.alive.is_empty() && self.alive.values().all(|alive| !alive)
    }

    fn started(&mut self, process: Process) {
        if self.all_down() {
            let waited = std::mem::take(&mut self.asleep).into_iter().filter_map(|(partition, from)| {
                let to = self.ends.get(&partition).copied().unwrap_or(0);
                (to > from).then_some((partition, from, to))
            });
            self.waited.extend(waited.inspect(|(_, from, to)| self.tally.observed += (to - from).unsigned_abs()));
            self.starts += 1;
        }
        self.alive.insert(process, true);
    }

    fn skipped(&mut self, models: &Models, entry: &Entry, gap: &Gap) {
        let Some(life) = models.ledger.life(gap.device, gap.expected).filter(|life| life.in_log()) else { return };
        let (partition, offset) = (i32::from(life.partition), i64::from(life.offset));
        let inside = |&&(p, from, to): &&(i32, i64, i64)| p == partition && (from..to).contains(&offset);
        let Some((_, from, _)) = self.waited.iter().find(inside) else { return };
        if models.letters.records.contains_key(&(partition, offset)) {
            return;
        }
        self.tally.fail(entry.at, || {
            let what = format!(
                "record {partition}/{offset} ({} of device {}) lay behind the committed offset {from} when an owner \
                 started, and was skipped",
                brief(gap.expected),
                models.id(gap.device)
            );
            (what, models.timeline(gap.device, entry.at))
        });
    }
}

/// Whether faults of the scenario kill registries so that none is alive at some moment: then a start is to be seen.
fn stops_every_owner(scenario: &Scenario) -> bool {
    let kills: Vec<_> = scenario
        .faults
        .iter()
        .filter_map(|fault| match fault.kind {
            FaultKind::Kill { part: Part::Registry, index, back_after } => {
                Some((index, fault.at, fault.at + back_after))
            }
            _ => None,
        })
        .collect();
    let down = |index, at| kills.iter().any(|&(of, from, to)| of == index && from <= at && at < to);
    kills.iter().any(|&(_, at, _)| (0..scenario.processes_at(Part::Registry, at)).all(|index| down(index, at)))
}
