//! Who moves where and when, and which RAEs are gone for ever.
//!
//! With the old RAE up, devices are drawn, each by itself. With the old RAE down or isolated, RAEs are drawn: all the
//! devices of a shelf that has broken down are carried to other shelves. Nobody moves to a RAE that will be gone, or to one
//! that the same fault takes off the network.

use std::time::Duration;

use rand::RngExt;

use super::{RaeIndex, changes::REATTACH_DOWN, hits};
use crate::{
    random::stream,
    scenario::{FaultKind, Scenario},
};

/// Destinations are drawn from this many numbers, until one is that of a RAE which can be moved to. So another RAE
/// takes those devices only that are drawn to it, and the others go where they went. Above the largest fleet.
const NUMBERS: u32 = 1 << 15;

/// Part of `over` after which an old RAE that goes down has lost its power: it has been off the network since the begin,
/// so that what its devices said meanwhile is on its disk and nowhere else. In one that is only isolated it waits to be sent.
const POWER_LASTS: f64 = 0.5;

/// Moves begin this much of `over` later, when the power is surely off.
const POWER_OFF_TAKES: f64 = 0.05;

/// When an old RAE that goes down loses its power, from the begin of the fault.
#[must_use]
pub fn power_off_after(over: Duration) -> Duration {
    over.mul_f64(POWER_LASTS)
}

/// The moves of a whole fleet.
#[derive(Debug)]
pub(super) struct Moves {
    seed: u64,
    faults: Vec<MoveFault>,
    /// By RAE.
    gone_at: Vec<Option<Duration>>,
}

#[derive(Debug)]
struct MoveFault {
    number: usize,
    at: Duration,
    over: Duration,
    share: f64,
    old_is_cut_off: bool,
    /// By RAE: whether it can be moved to.
    open: Vec<bool>,
}

/// The moves of one device.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Planned {
    /// When it is unplugged, where it is plugged in after that, and by which fault.
    pub(super) moves: Vec<(Duration, RaeIndex, usize)>,
    /// When its RAE is gone with it.
    pub(super) lost_from: Option<Duration>,
}

impl Moves {
    pub(super) fn new(scenario: &Scenario) -> Moves {
        let raes = 0..scenario.fleet.raes;
        let gone_at: Vec<_> = raes.clone().map(|rae| gone_at(scenario, rae)).collect();
        let faults = scenario.faults.iter().enumerate().filter_map(|(number, fault)| {
            let FaultKind::Move { share, over, back_after, .. } = fault.kind else { return None };
            let old_is_cut_off = back_after.is_some();
            let cut_off = |rae: u32| old_is_cut_off && hits(scenario.seed, number, rae.into(), share);
            let open = raes.clone().map(|rae| gone_at[rae as usize].is_none() && !cut_off(rae)).collect();
            Some(MoveFault { number, at: fault.at, over, share, old_is_cut_off, open })
        });
        Moves { seed: scenario.seed, faults: faults.collect(), gone_at }
    }

    /// When a standing RAE is gone for ever, if ever.
    pub(super) fn gone_at(&self, rae: RaeIndex) -> Option<Duration> {
        self.gone_at[rae.0 as usize]
    }

    /// The moves of device number `device`, which begins on `home`.
    pub(super) fn of(&self, device: u32, mut home: RaeIndex) -> Planned {
        let mut planned = Planned::default();
        let mut settled_at = Duration::ZERO;
        for fault in &self.faults {
            let drawn = if fault.old_is_cut_off { home.0 } else { device };
            // A device that is still to move by another fault is not carried away under it.
            if fault.at < settled_at || !hits(self.seed, fault.number, drawn.into(), fault.share) {
                continue;
            }
            let mut rng = stream(self.seed, &format!("fault {} moves", fault.number), device.into());
            let at = fault.unplugged_at(rng.random());
            if self.gone_at(home).is_some_and(|gone| gone <= at) {
                break;
            }
            let Some(to) = fault.destination(home, || rng.random_range(0..NUMBERS)) else { continue };
            planned.moves.push((at, to, fault.number));
            (home, settled_at) = (to, at + REATTACH_DOWN);
        }
        planned.lost_from = self.gone_at(home);
        planned
    }
}

impl MoveFault {
    /// A moment of the time in which devices move, `part` (0 to 1) into it.
    fn unplugged_at(&self, part: f64) -> Duration {
        let waits = if self.old_is_cut_off { POWER_LASTS + POWER_OFF_TAKES } else { 0.0 };
        let first = self.over.mul_f64(waits);
        self.at + first + self.over.saturating_sub(first + REATTACH_DOWN).mul_f64(part)
    }

    fn destination(&self, home: RaeIndex, mut draw: impl FnMut() -> u32) -> Option<RaeIndex> {
        let fits = |number: u32| number != home.0 && self.open.get(number as usize).is_some_and(|&open| open);
        if !(0..self.open.len() as u32).any(fits) {
            return None;
        }
        loop {
            let number = draw();
            if fits(number) {
                return Some(RaeIndex(number));
            }
        }
    }
}

fn gone_at(scenario: &Scenario, rae: u32) -> Option<Duration> {
    let mut faults = scenario.faults.iter().enumerate();
    faults.find_map(|(number, fault)| match fault.kind {
        FaultKind::Gone { share } => hits(scenario.seed, number, rae.into(), share).then_some(fault.at),
        _ => None,
    })
}
