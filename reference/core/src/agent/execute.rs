//! What each command does, once its id is durable.
//!
//! A command concerns a session. One whose device this life of the agent has not found yet waits for the probe that is
//! under way since the start. `snapshot` ends with the next snapshot of the session, `probe` and `reonboard` with the
//! device's probe, `set` with the device's answer; the sets of one device follow each other. Every end of a probe, a
//! session or the agent's life ends what waited for it: nothing waits for ever.

use super::{
    Agent, Effect, Fact, SetOutcome, SnapshotCause,
    commands::{Refusal, Step},
    record::is_acceptable,
};
use crate::{
    event::{CommandKind, ReplyOutcome},
    id::{Device, Epoch, Session},
    sabotage::{Bug, planted},
    time::Now,
};

/// How a device's probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there.
    Found,
    /// It is not.
    Absent,
    /// It is there, and what it says cannot travel.
    Refused,
    /// Nothing was learnt.
    Unknown,
}

impl Agent {
    /// Whether the command can be executed on what the agent knows now; its device.
    fn check_command(&self, session: Session, kind: &CommandKind) -> Result<Device, Refusal> {
        let of_session =
            |(device, slot): (&Device, &super::devices::Slot)| (slot.session() == Some(session)).then_some(*device);
        let device = self.devices.iter().find_map(of_session).ok_or_else(gone)?;
        let Some((slot, record)) = self.devices.get(&device).and_then(|slot| Some((slot, slot.record.as_ref()?)))
        else {
            return Err(gone());
        };
        match kind {
            CommandKind::Snapshot | CommandKind::Probe => {}
            CommandKind::Set { set, unset } => {
                if slot.is_confirmed() && !record.is_attached() {
                    return Err(("detached", "the device is detached".to_owned()));
                }
                if !is_acceptable(set) || !record.would_fit(&record.changed(set.clone(), unset.clone())) {
                    return Err(("size", "the device's snapshot would be too large".to_owned()));
                }
            }
            CommandKind::Reonboard { device: named, .. } if *named != device => {
                return Err(("device", format!("the session is not of device {named}")));
            }
            // At an equal epoch the session's bytes have decided, and only a session above heals that.
            CommandKind::Reonboard { epoch, .. } if record.saved().epoch > *epoch => {
                return Err(("epoch", format!("the session's epoch is above {epoch}")));
            }
            CommandKind::Reonboard { .. } => {}
        }
        Ok(device)
    }

    /// Begins what the command asks for.
    pub(super) fn execute(&mut self, now: Now, number: u64, effects: &mut Vec<Effect>) {
        let Some(under_way) = self.commands.under_way.get(&number) else { return };
        let kind = under_way.kind.clone();
        let device = match self.check_command(under_way.session, &kind) {
            Ok(device) => device,
            Err(refusal) => {
                self.refuse_taken(number, refusal, effects);
                return;
            }
        };
        if let Some(under_way) = self.commands.under_way.get_mut(&number) {
            (under_way.device, under_way.step) = (Some(device), Step::Probe);
        }
        if let Some(saved) = self.commands.saved(number) {
            effects.push(Effect::Fact(Fact::TookCommand(saved.id, kind.name())));
        }
        let confirmed = self.devices.get(&device).is_some_and(super::devices::Slot::is_confirmed);
        match kind {
            CommandKind::Snapshot if confirmed => self.await_snapshot(number, device),
            CommandKind::Set { .. } if confirmed => self.await_turn(number, device, effects),
            CommandKind::Reonboard { .. } if planted(Bug::NoReonboard) => {
                self.end_command(number, ReplyOutcome::Ok, effects);
            }
            CommandKind::Reonboard { .. } if planted(Bug::ReonboardUnprobed) => {
                self.reonboard_unprobed(now, number, device, effects);
            }
            CommandKind::Snapshot | CommandKind::Set { .. } | CommandKind::Probe | CommandKind::Reonboard { .. } => {
                self.begin_probe(device, effects);
            }
        }
    }

    /// The greatest epoch that a `reonboard` for this session names; `None` where none waits for the device's probe.
    pub(super) fn reonboard_above(&self, device: Device) -> Option<Epoch> {
        let session = self.devices.get(&device)?.session()?;
        let waiting = self.commands.under_way.values().filter(|command| {
            command.device == Some(device) && command.session == session && command.step == Step::Probe
        });
        let named = waiting.filter_map(|command| match command.kind {
            CommandKind::Reonboard { epoch, .. } => Some(epoch),
            CommandKind::Snapshot | CommandKind::Probe | CommandKind::Set { .. } => None,
        });
        named.max()
    }

    /// The device's probe has ended, and what it changed is done: sessions may have opened, the device may be forgotten.
    pub(super) fn probe_ended(&mut self, device: Device, verdict: Verdict, effects: &mut Vec<Effect>) {
        for number in
            self.commands.numbers_where(|command| command.device == Some(device) && command.step == Step::Probe)
        {
            self.after_probe(number, device, verdict, effects);
        }
        self.end_commands_of_former_sessions(device, effects);
    }

    /// A snapshot of the device was numbered: it is saved together with the outcomes of those that asked for it.
    pub(super) fn snapshot_is_numbered(&mut self, device: Device, effects: &mut Vec<Effect>) {
        self.end_commands_of_former_sessions(device, effects);
        self.end_awaiting_snapshot(device, &ReplyOutcome::Ok, effects);
    }

    /// No snapshot of the session can be made any more.
    pub(super) fn snapshot_is_impossible(&mut self, device: Device, effects: &mut Vec<Effect>) {
        self.end_awaiting_snapshot(device, &ReplyOutcome::error("the session has no seq left"), effects);
    }

    /// The device answered to a `set`. What it took is reported as if it had said so itself.
    pub(super) fn set_ended(&mut self, now: Now, number: u64, outcome: &SetOutcome, effects: &mut Vec<Effect>) {
        let Some(under_way) = self.commands.under_way.get(&number) else { return };
        let (Some(device), kind) = (under_way.device, under_way.kind.clone()) else { return };
        let hardware = self.devices.get(&device).map(|slot| slot.hardware.clone());
        let outcome = match (outcome, kind, hardware) {
            (SetOutcome::Done, CommandKind::Set { set, unset }, Some(hardware)) => {
                self.reported(now, &hardware, set, unset, effects);
                ReplyOutcome::Ok
            }
            (SetOutcome::Done, _, _) => ReplyOutcome::Ok,
            (SetOutcome::Refused(why), _, _) => ReplyOutcome::error(format_args!("the device refused: {why}")),
            (SetOutcome::Unknown, _, _) => {
                self.begin_probe(device, effects);
                ReplyOutcome::error("it is unknown whether the device took the change")
            }
        };
        self.end_command(number, outcome, effects);
        self.next_set(device, effects);
    }

    fn after_probe(&mut self, number: u64, device: Device, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(under_way) = self.commands.under_way.get(&number) else { return };
        let is_current = self.devices.get(&device).and_then(super::devices::Slot::session) == Some(under_way.session);
        let outcome = match (&under_way.kind, verdict) {
            (_, Verdict::Unknown) => ReplyOutcome::error("the probe did not end"),
            (_, Verdict::Refused) => ReplyOutcome::error("what the device said is refused"),
            (CommandKind::Snapshot, Verdict::Found | Verdict::Absent) if is_current => {
                self.await_snapshot(number, device);
                return;
            }
            (CommandKind::Set { .. }, Verdict::Found) if is_current => {
                self.await_turn(number, device, effects);
                return;
            }
            (CommandKind::Set { .. } | CommandKind::Probe, Verdict::Absent) => {
                ReplyOutcome::error("the device is not there")
            }
            (CommandKind::Snapshot | CommandKind::Set { .. }, Verdict::Found | Verdict::Absent) => {
                ReplyOutcome::error(gone().1)
            }
            (CommandKind::Probe, Verdict::Found)
            | (CommandKind::Reonboard { .. }, Verdict::Found | Verdict::Absent) => ReplyOutcome::Ok,
        };
        self.end_command(number, outcome, effects);
    }

    fn await_snapshot(&mut self, number: u64, device: Device) {
        if let Some(under_way) = self.commands.under_way.get_mut(&number) {
            under_way.step = Step::Snapshot;
            self.owe_snapshot(device, SnapshotCause::Requested);
        }
    }

    fn await_turn(&mut self, number: u64, device: Device, effects: &mut Vec<Effect>) {
        if let Some(under_way) = self.commands.under_way.get_mut(&number) {
            under_way.step = Step::Turn;
            self.next_set(device, effects);
        }
    }

    /// Begins the next change of the device, where none is under way.
    fn next_set(&mut self, device: Device, effects: &mut Vec<Effect>) {
        let of_device = |step: fn(Step) -> bool| {
            move |command: &super::commands::UnderWay| command.device == Some(device) && step(command.step)
        };
        if !self.commands.numbers_where(of_device(|step| matches!(step, Step::Setting(_)))).is_empty() {
            return;
        }
        for number in self.commands.numbers_where(of_device(|step| step == Step::Turn)) {
            let id = self.next_effect();
            let Some(under_way) = self.commands.under_way.get(&number) else { continue };
            // The record may have changed since the command was taken.
            if let Err((_, why)) = self.check_command(under_way.session, &under_way.kind) {
                self.end_command(number, ReplyOutcome::error(why), effects);
                continue;
            }
            let hardware = self.devices.get(&device).map(|slot| slot.hardware.clone());
            if let (Some(under_way), Some(hardware)) = (self.commands.under_way.get_mut(&number), hardware)
                && let CommandKind::Set { set, unset } = &under_way.kind
            {
                under_way.step = Step::Setting(id);
                effects.push(Effect::Set { id, hardware, set: set.clone(), unset: unset.clone() });
            }
            return;
        }
    }

    fn end_awaiting_snapshot(&mut self, device: Device, outcome: &ReplyOutcome, effects: &mut Vec<Effect>) {
        for number in
            self.commands.numbers_where(|command| command.device == Some(device) && command.step == Step::Snapshot)
        {
            self.end_command(number, outcome.clone(), effects);
        }
    }

    /// Ends what waits for a session that is no more. What the device is changing already ends with its answer.
    fn end_commands_of_former_sessions(&mut self, device: Device, effects: &mut Vec<Effect>) {
        let current = self.devices.get(&device).and_then(super::devices::Slot::session);
        let former = self.commands.numbers_where(|command| {
            let waits = matches!(command.step, Step::Snapshot | Step::Turn);
            command.device == Some(device) && waits && current != Some(command.session)
        });
        for number in former {
            self.end_command(number, ReplyOutcome::error(gone().1), effects);
        }
    }

    fn reonboard_unprobed(&mut self, now: Now, number: u64, device: Device, effects: &mut Vec<Effect>) {
        let last_known = self.devices.get(&device).and_then(|slot| slot.record.as_ref()).map(|record| record.plain());
        let opened = self.open_session(now, device, last_known.unwrap_or_default(), effects);
        let outcome = if opened { ReplyOutcome::Ok } else { ReplyOutcome::error("there is no room for a snapshot") };
        self.end_command(number, outcome, effects);
    }
}

fn gone() -> Refusal {
    ("gone", "session is gone".to_owned())
}
