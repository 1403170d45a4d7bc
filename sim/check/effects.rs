//! Whether each fault that was ordered was seen to act: a run whose fault did nothing answers another question.
//!
//! [`sign`] is the one table of what a fault must leave in the history. A sign is of the injection, never of the system's
//! right answer to it: that is for the other checks. Signs are looked for from a fault's planned begin until shortly after
//! its end; those that travel through the log, whenever they arrive. Two faults of a kind that overlap share theirs. Where
//! a process ended by itself, nothing is held against the faults: the system failed before they could act on it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::event::{Body, CONNECTION, Event, Value};

use super::model::Models;
use crate::{
    fleet::plan::hits,
    history::{Appended, Copy, Down, Entry, PayloadHash, Process, StoreLimit, Tampered, What},
    scenario::{FaultKind, Part},
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
    /// One of this share of RAEs said something by its wrong clock.
    WrongClock(f64, Holds),
    /// A device said something from a RAE that it was not on first.
    Moved,
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

/// How long a clock stays wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    UntilItsEnd,
    ForEver,
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
        FaultKind::ClockStep { share, lasts: Some(_), .. } => Sign::WrongClock(share, Holds::UntilItsEnd),
        FaultKind::ClockStep { share, lasts: None, .. } | FaultKind::ClockDrift { share, .. } => {
            Sign::WrongClock(share, Holds::ForEver)
        }
        FaultKind::Move { .. } => Sign::Moved,
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
        | FaultKind::CutLink { .. }
        | FaultKind::SlowLink { .. }
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
            | What::Sent(_, Copy::Duplicate | Copy::Delayed, _)
            | What::Offline(_)
            | What::Down(Down::Tampered { .. })
            | What::ProcessEnded { .. }
            | What::StoreSlowed(..) => self.look(models, entry),
            What::Appended(record) if detached(record) => self.look(models, entry),
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
            let whenever = matches!(sign, Sign::Detached(_) | Sign::WrongClock(_, Holds::ForEver));
            if (whenever || !late) && shows(models, index, sign, &entry.what) {
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
            | Sign::WrongClock(..)
            | Sign::Moved
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
fn shows(models: &Models, index: usize, sign: Sign, what: &What) -> bool {
    let hit = |entity, share| hits(models.scenario.seed, index, entity, share);
    match (sign, what) {
        (Sign::Withheld, What::Withheld(_)) | (Sign::Lost, What::LostAtQos0(_)) => true,
        (Sign::Sent(wanted), What::Sent(_, copy, _)) => wanted == *copy,
        (Sign::Offline(share), What::Offline(rae)) => hit(rae.0.into(), share),
        (Sign::WrongClock(share, _), What::Recorded(publish)) => hit(publish.rae.0.into(), share),
        (Sign::Moved, What::Recorded(publish)) => models.plan.devices[publish.device.0 as usize].rae != publish.rae,
        (Sign::Killed(wanted), What::ProcessEnded { process, meant: true }) => wanted == *process,
        (Sign::Tampered(wanted), What::Down(Down::Tampered { how, .. })) => wanted == *how,
        (Sign::Slowed(wanted), What::StoreSlowed(process, limit)) => {
            process.part == Part::Registry && wanted == *limit
        }
        (Sign::Detached(share), What::Appended(record)) => {
            let Some(Event::State(event)) = record.event.as_deref() else { return false };
            models.plan.device(event.device).is_some_and(|device| hit(device.0.into(), share))
        }
        _ => false,
    }
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
        Sign::WrongClock(..) => "no RAE that it hits said anything by its wrong clock",
        Sign::Moved => "no device said anything from another RAE",
        Sign::Detached(_) => "no device that it hits was unplugged",
        Sign::Killed(_) => "the process did not end by it",
        Sign::StageFailed(..) => "the stage was never restarted for it",
        Sign::Slowed(_) => "no registry slowed a write down",
        Sign::Tampered(_) => "no command was lost, doubled or late by it",
        Sign::Told => "nothing was stopped, cut, slowed, wiped or started",
    }
}
