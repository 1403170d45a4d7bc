//! The life of every command that the harness issued, and what became of it: exactly one end each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{agent::MAX_UNDER_WAY, event::CommandName};
use uuid::Uuid;

use super::{Life, Models};
use crate::{
    fleet::plan::{DeviceIndex, RaeIndex, hits},
    history::{Down, Issued, Tampered},
    scenario::{Addressee, FaultKind, Part, Server},
};

/// How long after it expired a command may still be answered: through the brokers, after a restart of the bridge.
pub(in crate::check) const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A RAE that is to lose its connection or power does so when its task gets its turn.
const TURN: Duration = Duration::from_secs(1);

/// What is known of one command of the harness.
#[derive(Debug)]
pub(in crate::check) struct CommandLife {
    pub(in crate::check) issued: Issued,
    /// Copies in the commands topic.
    pub(in crate::check) logged: u32,
    /// When a fault did something to it on its way.
    pub(in crate::check) tampered: Vec<(Duration, Tampered)>,
    /// When an agent took it.
    pub(in crate::check) taken: Vec<Duration>,
    /// When its execution ended, and whether well.
    pub(in crate::check) executed: Vec<(Duration, bool)>,
    /// When a device did what it says.
    pub(in crate::check) changed: Vec<Duration>,
    /// When it reached its agent again.
    pub(in crate::check) repeated: Vec<Duration>,
    /// When an agent refused it, and why.
    pub(in crate::check) refused: Vec<(Duration, &'static str)>,
    /// When a reply was in the log, and what it says.
    pub(in crate::check) replied: Vec<(Duration, Option<Arc<str>>)>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::check) enum CommandEnd {
    /// Executed once, and replied to.
    Replied,
    /// Executed once, and the reply died with the RAE's memory.
    ReplyLost,
    /// Not executed: its time was over, or it could not reach its agent.
    Expired,
    /// Not executed: its agent said why.
    Refused,
    /// Its time is not over.
    Open,
    /// Executed more than once.
    Twice,
    /// A reply says that it was executed, and it was not.
    Pretended,
    /// Executed, or refused, and no reply came, although nothing kept it.
    Unanswered,
    /// Not executed, although nothing kept it from its agent, nor its agent from doing it.
    Unexecuted,
    /// Nothing was ever heard of it, although nothing kept it from its agent.
    Lost,
}

impl CommandEnd {
    /// Every end, in the order in which they are told.
    pub(in crate::check) const ALL: [CommandEnd; 10] = [
        CommandEnd::Replied,
        CommandEnd::ReplyLost,
        CommandEnd::Expired,
        CommandEnd::Refused,
        CommandEnd::Open,
        CommandEnd::Twice,
        CommandEnd::Pretended,
        CommandEnd::Unanswered,
        CommandEnd::Unexecuted,
        CommandEnd::Lost,
    ];

    /// In words, after a number.
    pub(in crate::check) fn text(self) -> &'static str {
        match self {
            CommandEnd::Replied => "executed and replied to",
            CommandEnd::ReplyLost => "executed, reply lost with a RAE",
            CommandEnd::Expired => "expired unexecuted",
            CommandEnd::Refused => "refused",
            CommandEnd::Open => "open",
            CommandEnd::Twice => "executed twice",
            CommandEnd::Pretended => "said to be executed and not executed",
            CommandEnd::Unanswered => "executed or refused and never replied to",
            CommandEnd::Unexecuted => "not executed without a reason",
            CommandEnd::Lost => "lost",
        }
    }

    /// Whether somebody must answer for it.
    pub(in crate::check) fn is_wrong(self) -> bool {
        self >= CommandEnd::Twice
    }
}

/// The way down.
#[derive(Debug, Default)]
pub(in crate::check) struct Commands {
    lives: BTreeMap<Uuid, CommandLife>,
    /// What each device was told to be by commands, oldest first.
    changed: BTreeMap<DeviceIndex, Vec<Uuid>>,
    /// Per RAE: when it was last seen to come or go, and whether it is there.
    online: BTreeMap<RaeIndex, (Duration, bool)>,
    /// Times at which a RAE was offline: begin, and end where it has one.
    offline: BTreeMap<RaeIndex, Vec<(Duration, Option<Duration>)>>,
}

impl Commands {
    /// The commands of the harness.
    pub(in crate::check) fn all(&self) -> impl Iterator<Item = &CommandLife> {
        self.lives.values()
    }

    /// Whether the harness issued a command of this id.
    pub(in crate::check) fn is_issued(&self, id: Uuid) -> bool {
        self.lives.contains_key(&id)
    }

    /// Whether a device was ever changed by this command.
    pub(super) fn has_changed(&self, device: DeviceIndex, id: Uuid) -> bool {
        self.changed.get(&device).is_some_and(|ids| ids.contains(&id))
    }

    /// The command that last changed a device.
    pub(in crate::check) fn last_change(&self, device: DeviceIndex) -> Option<Uuid> {
        self.changed.get(&device)?.last().copied()
    }

    /// Whether the RAE has a connection, and since when it is so; `None` where it never had one.
    pub(in crate::check) fn is_online(&self, rae: RaeIndex) -> Option<(bool, Duration)> {
        self.online.get(&rae).map(|&(since, online)| (online, since))
    }

    pub(super) fn came(&mut self, rae: RaeIndex, at: Duration) {
        self.online.insert(rae, (at, true));
        if let Some((_, ended)) = self.offline.entry(rae).or_default().last_mut() {
            ended.get_or_insert(at);
        }
    }

    pub(super) fn went(&mut self, rae: RaeIndex, at: Duration) {
        self.online.insert(rae, (at, false));
        let gaps = self.offline.entry(rae).or_default();
        if gaps.last().is_none_or(|(_, ended)| ended.is_some()) {
            gaps.push((at, None));
        }
    }

    /// Takes one step of a command. Returns the device that it changed.
    pub(super) fn observe(&mut self, down: &Down, at: Duration) -> Option<DeviceIndex> {
        match down {
            Down::Issued(issued) => {
                self.lives.insert(issued.id, CommandLife::new((**issued).clone()));
            }
            Down::Logged(logged) => self.of(logged.id, |life| life.logged += 1),
            Down::Replied { id, error, .. } => self.of(*id, |life| life.replied.push((at, error.clone()))),
            Down::Tampered { id, how, .. } => self.of(*id, |life| life.tampered.push((at, *how))),
            Down::Taken { id, .. } => self.of(*id, |life| life.taken.push(at)),
            Down::Executed { id, ok, .. } => self.of(*id, |life| life.executed.push((at, *ok))),
            Down::Repeated { id, .. } => self.of(*id, |life| life.repeated.push(at)),
            Down::Refused { id: Some(id), reason, .. } => self.of(*id, |life| life.refused.push((at, reason))),
            Down::Changed { device, id } => {
                self.of(*id, |life| life.changed.push(at));
                self.changed.entry(*device).or_default().push(*id);
                return Some(*device);
            }
            Down::Refused { id: None, .. } | Down::Malformed => {}
        }
        None
    }

    fn of(&mut self, id: Uuid, note: impl FnOnce(&mut CommandLife)) {
        // Others are of a registry.
        if let Some(life) = self.lives.get_mut(&id) {
            note(life);
        }
    }
}

impl CommandLife {
    fn new(issued: Issued) -> CommandLife {
        CommandLife {
            issued,
            logged: 0,
            tampered: Vec::new(),
            taken: Vec::new(),
            executed: Vec::new(),
            changed: Vec::new(),
            repeated: Vec::new(),
            refused: Vec::new(),
            replied: Vec::new(),
        }
    }
}

impl Models {
    /// How a command ended; to be asked once the history has ended.
    pub(in crate::check) fn command_end(&self, life: &CommandLife) -> CommandEnd {
        let replied = !life.replied.is_empty();
        let ok = life.replied.iter().any(|(_, error)| error.is_none());
        match life.taken.len() {
            // A disk that was wiped in between takes the memory of it along.
            2.. if !self.wiped_between(life) => CommandEnd::Twice,
            _ if life.changed.len() > life.taken.len() => CommandEnd::Twice,
            0 if ok => CommandEnd::Pretended,
            0 => self.end_of_untaken(life),
            _ if ok && !self.took_effect(life) => CommandEnd::Pretended,
            _ if replied && !ok && self.could_be_executed(life) => CommandEnd::Unexecuted,
            _ if replied => CommandEnd::Replied,
            _ if self.powered_off_since(life) => CommandEnd::ReplyLost,
            _ if self.is_open(life) => CommandEnd::Open,
            _ => CommandEnd::Unanswered,
        }
    }

    /// Whether what a command asks for was done once its agent had taken it.
    fn took_effect(&self, life: &CommandLife) -> bool {
        let Some(&taken) = life.taken.first() else { return false };
        let since = |event: &Life| event.recorded.get().is_some_and(|at| at.as_millis() >= taken.as_millis());
        let sessions = self.ledger.sessions(life.issued.device);
        match life.issued.name {
            CommandName::Set => !life.changed.is_empty(),
            CommandName::Snapshot => {
                sessions.iter().any(|session| session.events.iter().any(|event| event.snapshot() && since(event)))
            }
            // Its probe may have found that the device is not there: nothing is to be done then.
            CommandName::Reonboard if self.devices_leave() => true,
            CommandName::Reonboard => sessions.iter().any(|session| session.events.first().is_some_and(since)),
            CommandName::Probe => true,
        }
    }

    /// Whether devices leave their RAEs by this scenario, for a while or for ever.
    fn devices_leave(&self) -> bool {
        let leave = |kind: &FaultKind| matches!(kind, FaultKind::Move { .. } | FaultKind::Flapping { .. });
        self.scenario.faults.iter().any(|fault| leave(&fault.kind))
    }

    fn end_of_untaken(&self, life: &CommandLife) -> CommandEnd {
        let (refused, replied) = (!life.refused.is_empty(), !life.replied.is_empty());
        let kept = life.issued.to == Addressee::AbsentRae || is_tampered(life) || self.was_offline(life);
        match () {
            () if replied && self.could_be_executed(life) => CommandEnd::Unexecuted,
            () if replied && refused => CommandEnd::Refused,
            () if replied => CommandEnd::Expired,
            () if self.is_open(life) => CommandEnd::Open,
            () if kept => CommandEnd::Expired,
            () if refused => CommandEnd::Unanswered,
            () => CommandEnd::Lost,
        }
    }

    /// Whether nothing kept the command from its agent, nor the agent from executing it.
    fn could_be_executed(&self, life: &CommandLife) -> bool {
        life.issued.to == Addressee::Living
            && !is_tampered(life)
            && !self.was_offline(life)
            && !self.was_held_up(life)
            && !self.has_another_session(life)
            && !self.devices_leave()
            && !self.is_crowded(life)
    }

    /// Whether faults of the way down left the command less than [`ANSWERED_WITHIN`] of its time. A consumer that died
    /// holds its partitions until its session times out.
    fn was_held_up(&self, life: &CommandLife) -> bool {
        let (due, expires) = (life.issued.due, life.issued.expires);
        let held = self.faults.windows.iter().filter(|(fault, ..)| {
            self.scenario.faults.get(*fault).is_some_and(|fault| holds_the_way_down(&fault.kind))
        });
        let held: Duration = held
            .map(|&(_, began, ended)| {
                let until = ended.map_or(expires, |ended| ended + self.scenario.pipeline.session_timeout);
                until.min(expires).saturating_sub(began.max(due))
            })
            .sum();
        held > Duration::ZERO && (expires - due).saturating_sub(held) < ANSWERED_WITHIN
    }

    /// Whether the device got a session while the command was for the one before.
    fn has_another_session(&self, life: &CommandLife) -> bool {
        let while_it_waits = life.issued.due.as_millis()..=(life.issued.expires + ANSWERED_WITHIN).as_millis();
        let opened = |event: &Life| event.recorded.get().is_some_and(|at| while_it_waits.contains(&at.as_millis()));
        self.ledger.sessions(life.issued.device).iter().any(|session| session.events.first().is_some_and(opened))
    }

    /// Whether so many commands were under way to its RAE that the agent may have been busy.
    fn is_crowded(&self, life: &CommandLife) -> bool {
        let beside = |other: &&CommandLife| {
            let (one, other) = (&life.issued, &other.issued);
            one.rae == other.rae && one.due <= other.expires && other.due <= one.expires
        };
        self.commands.all().filter(beside).count() > MAX_UNDER_WAY
    }

    fn is_open(&self, life: &CommandLife) -> bool {
        life.issued.expires + ANSWERED_WITHIN >= self.clock.now
    }

    /// Whether the RAE was without a connection at any time while the command could have reached it.
    fn was_offline(&self, life: &CommandLife) -> bool {
        let (from, until) = (life.issued.due, life.issued.expires + ANSWERED_WITHIN);
        let overlaps = |&(began, ended): &(Duration, Option<Duration>)| {
            began <= until && ended.is_none_or(|ended| ended + TURN >= from)
        };
        self.commands.offline.get(&life.issued.rae).is_some_and(|gaps| gaps.iter().any(overlaps))
    }

    fn powered_off_since(&self, life: &CommandLife) -> bool {
        let taken = life.taken.first().copied().unwrap_or_default();
        let until = taken + ANSWERED_WITHIN;
        let overlaps =
            |began, ended: Option<Duration>| began <= until && ended.is_none_or(|ended| ended + TURN >= taken);
        self.power_faults(life.issued.rae).any(|(_, began, ended)| overlaps(began, ended))
    }

    fn wiped_between(&self, life: &CommandLife) -> bool {
        let (Some(&first), Some(&last)) = (life.taken.first(), life.taken.last()) else { return false };
        self.power_faults(life.issued.rae)
            .any(|(kind, began, _)| matches!(kind, FaultKind::Wipe { .. }) && first <= began + TURN && began <= last)
    }

    /// The faults that took the power of a RAE: kind, begin and end.
    fn power_faults(&self, rae: RaeIndex) -> impl Iterator<Item = (&FaultKind, Duration, Option<Duration>)> {
        self.faults.windows.iter().filter_map(move |&(fault, began, ended)| {
            let kind = &self.scenario.faults.get(fault)?.kind;
            let hit = hits(self.scenario.seed, fault, rae.0.into(), kind.powers_off()?);
            hit.then_some((kind, began, ended))
        })
    }
}

/// Whether a fault took, or held back, the command on its last leg.
fn is_tampered(life: &CommandLife) -> bool {
    life.tampered.iter().any(|&(_, how)| how != Tampered::Doubled)
}

/// Whether commands wait while the fault holds.
fn holds_the_way_down(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Kill { part: Part::Bridge, .. }
        | FaultKind::Pause { part: Part::Bridge, .. }
        | FaultKind::Scale { part: Part::Bridge, .. } => true,
        FaultKind::Server(fault) => fault.server() != Server::Store,
        FaultKind::Kill { part: Part::Registry | Part::Consumer | Part::Baseline, .. }
        | FaultKind::Pause { part: Part::Registry | Part::Consumer | Part::Baseline, .. }
        | FaultKind::Scale { part: Part::Registry | Part::Consumer | Part::Baseline, .. }
        | FaultKind::MissedUpdates { .. }
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
        | FaultKind::Disconnect { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::StageFailure { .. }
        | FaultKind::ThrottledStore { .. }
        | FaultKind::SlowStore { .. }
        | FaultKind::WipeStore { .. }
        | FaultKind::NewConsumer { .. } => false,
    }
}
