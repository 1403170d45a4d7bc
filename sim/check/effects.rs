//! Whether each fault that was ordered was seen to act: a run whose fault did nothing answers another question.
//!
//! [`sign`] is the one table of what a fault must leave in the history. A sign is of the injection, never of the system's
//! right answer to it: that is for the other checks. Signs are looked for from a fault's planned begin until shortly after
//! its end; those that travel through the log, whenever they arrive. Two faults of a kind that overlap share theirs, moves
//! and wrong clocks apart: the plan knows whose each is. Where a process ended by itself, nothing is held against the
//! faults: the system failed before they could act on it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::event::{Body, CONNECTION, Event, Value};

use super::model::Models;
use crate::{
    fleet::plan::{ChangeNumber, hits},
    history::{Appended, Copy, Down, Entry, PayloadHash, Process, Publish, StoreLimit, Tampered, What},
    scenario::{FaultKind, OldRae, Part},
};

/// How long after a fault's end its sign may still be told: a copy that waits for its connection, a line on its way.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What has been seen of the faults.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// How often each fault was seen to act.
    acted: BTreeMap<usize, u64>,
    /// Poison by its fault; counted at the end.
    poison: Vec<(usize, Arc<str>, PayloadHash)>,
    /// Failures of the writer stage of each registry: in its earlier lives, and in this one.
    restarts: BTreeMap<Process, (u64, u64)>,
    /// Whether a process ended by itself.
    fell: bool,
}

/// What shows that a fault acts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sign {
    /// An event was withheld.
    Withheld,
    /// An event was lost at QoS 0.
    Lost,
    /// Such a copy was sent.
    Sent(Copy),
    /// Poison is in the log or in the dead letters.
    Poisoned,
    /// One of this share of RAEs went offline.
    Offline(f64),
    /// A RAE said something at a time that its clock shows by this fault only.
    WrongClock,
    /// A device said something from the RAE that this fault took it to; the one that it left had no network, if it is to go
    /// down.
    Moved(OldRae),
    /// A RAE that devices have left by this fault sent something that they had said before.
    Replayed,
    /// The log says that one of this share of devices was unplugged.
    Detached(f64),
    /// The process was killed.
    Killed(Process),
    /// The writer stage of this registry failed so many times.
    StageFailed(Process, u64),
    /// A registry slowed a write down for this limit.
    Slowed(StoreLimit),
    /// This was done to a command.
    Tampered(Tampered),
    /// The driver saw it act.
    Told,
}

/// What each kind of fault must show.
fn sign(kind: &FaultKind) -> Sign {
    match *kind {
        FaultKind::MissedUpdates { .. } => Sign::Withheld,
        FaultKind::Qos0Loss { .. } => Sign::Lost,
        FaultKind::Duplicates { .. } => Sign::Sent(Copy::Duplicate),
        FaultKind::DelayedTails { .. } => Sign::Sent(Copy::Delayed),
        FaultKind::Poison { .. } => Sign::Poisoned,
        FaultKind::Reboot { share, .. }
        | FaultKind::Wipe { share, .. }
        | FaultKind::Gone { share }
        | FaultKind::Disconnect { share, .. } => Sign::Offline(share),
        FaultKind::ClockStep { .. } | FaultKind::ClockDrift { .. } => Sign::WrongClock,
        FaultKind::Move { old: OldRae::Isolated, .. } => Sign::Replayed,
        FaultKind::Move { old, .. } => Sign::Moved(old),
        FaultKind::Flapping { share, .. } => Sign::Detached(share),
        FaultKind::Kill { part, index, .. } => Sign::Killed(Process { part, index }),
        FaultKind::StageFailure { index, times } => {
            Sign::StageFailed(Process { part: Part::Registry, index }, times.into())
        }
        FaultKind::ThrottledStore { .. } => Sign::Slowed(StoreLimit::Rate),
        FaultKind::SlowStore { .. } => Sign::Slowed(StoreLimit::Delay),
        FaultKind::CommandLoss { .. } => Sign::Tampered(Tampered::Lost),
        FaultKind::CommandDuplicates { .. } => Sign::Tampered(Tampered::Doubled),
        FaultKind::LateCommands { .. } => Sign::Tampered(Tampered::Delayed),
        FaultKind::Pause { .. }
        | FaultKind::Scale { .. }
        | FaultKind::Server(_)
        | FaultKind::WipeStore { .. }
        | FaultKind::NewConsumer { .. } => Sign::Told,
    }
}

impl Effects {
    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            What::FaultActed { fault, times } => *self.acted.entry(*fault).or_default() += times,
            What::PoisonSent { fault, topic, payload } => self.poison.push((*fault, topic.clone(), *payload)),
            What::ProcessStarted(process) => {
                let (before, life) = self.restarts.entry(*process).or_default();
                (*before, *life) = (*before + *life, 0);
            }
            What::StageRestarts(process, restarts) => {
                let (_, life) = self.restarts.entry(*process).or_default();
                *life = (*life).max(*restarts);
            }
            What::ProcessEnded { meant: false, .. } => self.fell = true,
            What::Recorded(_)
            | What::Withheld(_)
            | What::LostAtQos0(_)
            | What::Sent(..)
            | What::Offline(_)
            | What::Down(Down::Tampered { .. })
            | What::ProcessEnded { .. }
            | What::StoreSlowed(..)
            | What::Appended(_) => self.look(models, entry),
            _ => {}
        }
    }

    /// How many faults have begun, and what is to be said of those that did not act as they should.
    pub(super) fn finish(&mut self, models: &Models) -> (usize, Vec<(Duration, String)>) {
        let windows = &models.faults.windows;
        for (fault, topic, payload) in std::mem::take(&mut self.poison) {
            let letters = &models.letters;
            let arrived = letters.strangers.contains_key(&(topic.clone(), payload));
            *self.acted.entry(fault).or_default() += u64::from(arrived || letters.has_message(&topic, payload));
        }
        if self.fell {
            return (windows.len(), Vec::new());
        }
        let said = windows.iter().filter_map(|&(fault, began, _)| Some((began, self.shortfall(models, fault)?)));
        (windows.len(), said.collect())
    }

    /// Takes an entry for each fault whose first sign it is.
    fn look(&mut self, models: &Models, entry: &Entry) {
        let Some(planned) = models.clock.in_plan(entry.at) else { return };
        for (index, fault) in models.scenario.faults.iter().enumerate().filter(|(_, fault)| fault.at <= planned) {
            if self.acted.contains_key(&index) {
                continue;
            }
            let sign = sign(&fault.kind);
            let ended = models.faults.windows.iter().find(|(of, ..)| *of == index).and_then(|&(.., ended)| ended);
            let late = ended.is_some_and(|ended| ended + TOLD_WITHIN < entry.at);
            let whenever = matches!(sign, Sign::Detached(_) | Sign::WrongClock | Sign::Replayed);
            if (whenever || !late) && shows(models, index, sign, entry) {
                self.acted.insert(index, 1);
            }
        }
    }

    /// What there is to say of a fault that did not act as often as it should; takes the restarts that it accounts for.
    fn shortfall(&mut self, models: &Models, index: usize) -> Option<String> {
        let fault = models.scenario.faults.get(index)?;
        let sign = sign(&fault.kind);
        let observable = models.observable;
        let (acted, wanted) = match sign {
            Sign::Killed(_) if !observable.processes => return None,
            Sign::StageFailed(..) if !observable.gauges => return None,
            // Failures of one stage add up, whichever fault they are of.
            Sign::StageFailed(process, wanted) => {
                let (before, life) = self.restarts.entry(process).or_default();
                let acted = wanted.min(*before + *life);
                (*before, *life) = (*before + *life - acted, 0);
                (acted, wanted)
            }
            Sign::Withheld
            | Sign::Lost
            | Sign::Sent(_)
            | Sign::Poisoned
            | Sign::Offline(_)
            | Sign::WrongClock
            | Sign::Moved(_)
            | Sign::Replayed
            | Sign::Detached(_)
            | Sign::Killed(_)
            | Sign::Slowed(_)
            | Sign::Tampered(_)
            | Sign::Told => (self.acted.get(&index).copied().unwrap_or(0), 1),
        };
        let name = format!("`{}` at {:?}", fault.kind, fault.at_text);
        match acted {
            0 => Some(format!("fault did nothing: {name}: {}", missing(sign))),
            _ if acted < wanted => Some(format!("fault {name} acted {acted} of {wanted} times")),
            _ => None,
        }
    }
}

/// Whether an entry is the sign of fault number `index`.
fn shows(models: &Models, index: usize, sign: Sign, entry: &Entry) -> bool {
    let hit = |entity, share| hits(models.scenario.seed, index, entity, share);
    match (sign, &entry.what) {
        (Sign::Withheld, What::Withheld(_)) | (Sign::Lost, What::LostAtQos0(_)) => true,
        (Sign::Sent(wanted), What::Sent(_, copy, _)) => wanted == *copy,
        (Sign::Offline(share), What::Offline(rae)) => hit(rae.0.into(), share),
        (Sign::WrongClock, What::Appended(record)) => told_by(models, index, record, entry.at).unwrap_or(false),
        (Sign::Moved(old), What::Recorded(publish)) => moved_by(models, index, old, publish, entry.at),
        (Sign::Replayed, What::Sent(publish, Copy::First | Copy::Resent, _)) => {
            replayed_by(models, index, publish, entry.at).unwrap_or(false)
        }
        (Sign::Killed(wanted), What::ProcessEnded { process, meant: true }) => wanted == *process,
        (Sign::Tampered(wanted), What::Down(Down::Tampered { how, .. })) => wanted == *how,
        (Sign::Slowed(wanted), What::StoreSlowed(process, limit)) => process.part == Part::Registry && wanted == *limit,
        (Sign::Detached(share), What::Appended(record)) if detached(record) => {
            let Some(Event::State(event)) = record.event.as_deref() else { return false };
            models.plan.device(event.device).is_some_and(|device| hit(device.0.into(), share))
        }
        _ => false,
    }
}

/// Whether a record was told by a clock that was wrong by fault number `fault`: whether its time is nearer to what the RAE's
/// clock showed then than to what it would have shown without this fault. `None` where its RAE's clock is unknown.
fn told_by(models: &Models, fault: usize, record: &Appended, at: Duration) -> Option<bool> {
    let Some(Event::State(event)) = record.event.as_deref() else { return None };
    let device = models.plan.device(event.device)?;
    let clock = &models.plan.raes[models.plan.rae(&event.rae)?.0 as usize].clock;
    let recorded = models.ledger.life(device, event.version)?.recorded.get()?;
    let planned = models.clock.in_plan(recorded)?;
    let (ahead, by_fault) = (clock.ahead(Some(planned)).millis(), clock.ahead_by(fault, planned).millis());
    // Its receive time, less what it took to get there: however long it waited, that is no wrong clock.
    let on_its_way = i64::try_from(at.saturating_sub(recorded).as_millis()).ok()?;
    let told = event.at.0 - (record.timestamp_ms - on_its_way);
    Some(told.abs_diff(ahead) < told.abs_diff(ahead - by_fault))
}

/// Whether a device that says something was brought there by fault number `fault`.
fn moved_by(models: &Models, fault: usize, old: OldRae, publish: &Publish, at: Duration) -> bool {
    let planned = &models.plan.devices[publish.device.0 as usize];
    let Some((moved, left)) = planned.last_move(models.change_by(publish.device, at)) else { return false };
    let cut_off = || models.commands.is_online(left).is_some_and(|(online, _)| !online);
    moved.fault == fault && moved.to == publish.rae && (old == OldRae::Up || cut_off())
}

/// Whether what is sent of a device was said before fault number `fault` took it away, and is sent by the RAE that it left.
fn replayed_by(models: &Models, fault: usize, publish: &Publish, at: Duration) -> Option<bool> {
    let (moved, left) =
        models.plan.devices[publish.device.0 as usize].last_move(models.change_by(publish.device, at))?;
    let unplugged = models.plan.intended(publish.device, ChangeNumber(moved.change.0 - 1));
    let recorded = models.ledger.life(publish.device, publish.version)?.recorded.get()?;
    Some(moved.fault == fault && left == publish.rae && recorded < models.clock.in_run(unplugged))
}

/// Whether a record says that a device was unplugged.
fn detached(record: &Appended) -> bool {
    let Some(Event::State(event)) = record.event.as_deref() else { return false };
    let value = match &event.body {
        Body::Delta { set, .. } => set.get(CONNECTION),
        Body::Snapshot { attributes } => attributes.get(CONNECTION).map(|(value, _)| value),
    };
    matches!(value, Some(Value::Text(text)) if &**text == "detached")
}

/// What was looked for in vain.
fn missing(sign: Sign) -> &'static str {
    match sign {
        Sign::Withheld => "no event was withheld",
        Sign::Lost => "no event was lost",
        Sign::Sent(_) => "no such copy was sent",
        Sign::Poisoned => "no poison reached the log or the dead letters",
        Sign::Offline(_) => "no RAE that it hits went offline",
        Sign::WrongClock => "no RAE that it hits said anything by its wrong clock",
        Sign::Moved(OldRae::Up) => "no device that it moves said anything from its new RAE",
        Sign::Moved(OldRae::Down) => {
            "no device that it moves said anything from its new RAE while the old one had no network"
        }
        Sign::Moved(OldRae::Isolated) | Sign::Replayed => {
            "no RAE that it isolates sent anything that a device had said before it was taken away"
        }
        Sign::Detached(_) => "no device that it hits was unplugged",
        Sign::Killed(_) => "the process did not end by it",
        Sign::StageFailed(..) => "the stage was never restarted for it",
        Sign::Slowed(_) => "no registry slowed a write down",
        Sign::Tampered(_) => "no command was lost, doubled or late by it",
        Sign::Told => "nothing was stopped, cut, slowed, wiped or started",
    }
}
