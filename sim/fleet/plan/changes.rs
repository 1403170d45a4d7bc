//! How the changes of a device are drawn: updates as a Poisson process, plugs by churn and faults, moves as planned.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::{
    Change, ChangeKind, ChangeNumber, Move, Names, RaeIndex,
    attributes::{ATTRIBUTES, OPTIONAL, REPORT, REV},
    hits,
    moves::{Moves, Planned},
};
use crate::{
    random::stream,
    scenario::{FaultKind, HEAL, Scenario},
};

/// Time for which a device that re-attaches, or moves, is unplugged.
pub(super) const REATTACH_DOWN: Duration = Duration::from_millis(500);

/// What becomes of a device.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) changes: Vec<Change>,
    pub(super) moves: Vec<Move>,
    pub(super) lost_from: Option<Duration>,
}

/// Something that is to happen to a device; whether it does depends on its plug. At the same moment in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Intent {
    Update,
    Unplug,
    PlugIn,
    /// By the fault of this number.
    PlugInAt(RaeIndex, usize),
}

/// The life of device number `device` of the standing fleet, which begins on `home`.
pub(super) fn standing(scenario: &Scenario, moves: &Moves, device: u32, home: RaeIndex) -> Life {
    let Planned { moves: planned, lost_from } = moves.of(device, home);
    let mut intents = updates(scenario, device);
    intents.extend(plugs(scenario, device));
    for (at, to, fault) in planned {
        intents.extend([(at, Intent::Unplug), (at + REATTACH_DOWN, Intent::PlugInAt(to, fault))]);
    }
    intents.retain(|&(at, _)| lost_from.is_none_or(|lost| at < lost));
    intents.sort_by_key(|&intent| intent);
    let mut life = carried_out(scenario, device, intents);
    life.lost_from = lost_from;
    life
}

/// What the intents come to: nothing updates while it is unplugged, and nothing is plugged in twice.
fn carried_out(scenario: &Scenario, device: u32, intents: Vec<(Duration, Intent)>) -> Life {
    let mut rng = stream(scenario.seed, "values", u64::from(device));
    let (mut attached, mut present) = (true, Names::all());
    let mut life = Life { changes: Vec::with_capacity(intents.len()), ..Life::default() };
    for (at, intent) in intents {
        let kind = match intent {
            Intent::Update if attached => update(&mut rng, scenario.fleet.unset_share, &mut present),
            Intent::Unplug if attached => ChangeKind::Detach,
            Intent::PlugIn if !attached => ChangeKind::Attach,
            Intent::PlugInAt(to, fault) => {
                if attached {
                    // Plugged in again meanwhile where it was.
                    life.changes.push(Change { at, kind: ChangeKind::Detach });
                }
                life.moves.push(Move { fault, change: ChangeNumber(life.changes.len() as u32 + 1), to });
                ChangeKind::Attach
            }
            Intent::Update | Intent::Unplug | Intent::PlugIn => continue,
        };
        attached = kind != ChangeKind::Detach;
        life.changes.push(Change { at, kind });
    }
    life
}

/// Times at which attributes change: a Poisson process whose rate follows the phases.
fn updates(scenario: &Scenario, device: u32) -> Vec<(Duration, Intent)> {
    let mut rng = stream(scenario.seed, "updates", u64::from(device));
    let mut times = Vec::new();
    let phases = scenario.phases.iter().enumerate();
    let phases = phases.map(|(index, phase)| (scenario.phase_begins(index), phase.lasts, phase.rate));
    for (begins, lasts, rate) in phases.chain([(scenario.load(), HEAL, 1.0)]).filter(|&(_, _, rate)| rate > 0.0) {
        let mean = scenario.fleet.update_every.div_f64(rate);
        let mut at = begins + exponential(&mut rng, mean);
        while at < begins + lasts {
            times.push((at, Intent::Update));
            at += exponential(&mut rng, mean);
        }
    }
    times
}

/// Times at which the device is unplugged and plugged in where it is; it always ends plugged in.
fn plugs(scenario: &Scenario, device: u32) -> Vec<(Duration, Intent)> {
    let mut rng = stream(scenario.seed, "plug", u64::from(device));
    let mut times = Vec::new();
    let again = |at| [(at, Intent::Unplug), (at + REATTACH_DOWN, Intent::PlugIn)];
    if let Some(mean) = scenario.fleet.reattach_every {
        let mut at = exponential(&mut rng, mean);
        while at + REATTACH_DOWN < scenario.load() {
            times.extend(again(at));
            at += REATTACH_DOWN + exponential(&mut rng, mean);
        }
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        let hit = |share| hits(scenario.seed, index, device.into(), share);
        match &fault.kind {
            FaultKind::Flapping { share, every, lasts } if hit(*share) => {
                let (mut at, mut attached) = (fault.at, true);
                loop {
                    at += exponential(&mut rng, *every);
                    if at >= fault.at + *lasts {
                        break;
                    }
                    attached = !attached;
                    times.push((at, if attached { Intent::PlugIn } else { Intent::Unplug }));
                }
                times.push((fault.at + *lasts, Intent::PlugIn));
            }
            FaultKind::DelayedTails { share, lasts, .. } if hit(*share) => {
                // A tail can only be late if the device has gone on to a new session meanwhile.
                times.extend(again(fault.at + lasts.mul_f64(0.5 + 0.4 * rng.random::<f64>())));
            }
            _ => {}
        }
    }
    times
}

/// An update that changes one or two attributes beside `rev` and `report`, and sometimes removes or brings back one.
pub(super) fn update(rng: &mut Pcg64Mcg, unset_share: f64, present: &mut Names) -> ChangeKind {
    let mut set = Names(1 << REV | 1 << REPORT);
    for _ in 0..rng.random_range(1..=2) {
        set.0 |= 1 << rng.random_range(REPORT + 1..ATTRIBUTES.len());
    }
    let mut unset = Names::default();
    if rng.random::<f64>() < unset_share {
        let index = rng.random_range(OPTIONAL);
        set.0 &= !(1 << index);
        if present.contains(index) {
            unset.0 = 1 << index;
        } else {
            set.0 |= 1 << index;
        }
    }
    present.0 = (present.0 | set.0) & !unset.0;
    ChangeKind::Update { set, unset }
}

fn exponential(rng: &mut Pcg64Mcg, mean: Duration) -> Duration {
    // Capped at 20 means, which one draw in 5 * 10^8 exceeds.
    mean.mul_f64((-(1.0 - rng.random::<f64>()).ln()).min(20.0))
}
