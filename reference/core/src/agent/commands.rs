//! What comes down: each command is taken once, executed once, and answered.
//!
//! ```text
//!   message -> decoded -> known id?  its reply again, or nothing while it is under way
//!                      -> malformed, or too many: an error reply, and nothing is kept
//!                      -> taken:     id saved -> acknowledged, executed or refused -> outcome saved -> reply
//! ```
//!
//! An id is durable before its command is executed, so a restart in between answers a repeat with "interrupted" instead of
//! executing it twice. Each command under way has a place for its reply, so a reply is never shed; without a place the
//! command is refused as "busy" before anything is done. Messages are acknowledged in the order of their arrival.

use std::{
    collections::{BTreeMap, VecDeque},
    str::FromStr,
};

use uuid::Uuid;

use super::{Agent, Effect, Fact, MAX_REMEMBERED, Message, SavedCommand, SetOutcome, machine::Life};
use crate::{
    core::{EffectId, PacketId},
    event::{BadCommand, Command, CommandKind, CommandName, Reply, ReplyOutcome, Topic},
    id::{Device, Session},
    time::Now,
};

/// Most commands under way at a time. A `set` holds up to a payload of 256 KiB: 8 MiB at worst.
pub const MAX_UNDER_WAY: usize = 32;

/// Most replies that wait for the broker, places of commands under way included: some, so that repeats and refusals are
/// answered too, through an outage of the broker.
pub const MAX_REPLIES: usize = 128;

/// Why a command ended without an outcome of its own: nobody knows how far it came.
pub(super) const INTERRUPTED: &str = "interrupted";

/// The commands that the agent remembers, and those under way.
#[derive(Debug)]
pub(super) struct Commands {
    /// By number, in the order in which they were taken.
    memory: BTreeMap<u64, SavedCommand>,
    numbers: BTreeMap<Uuid, u64>,
    next: u64,
    pub(super) under_way: BTreeMap<u64, UnderWay>,
    /// Refused as busy in this life: told "not executed", so not to be executed; at most [`MAX_REMEMBERED`].
    turned_away: VecDeque<Uuid>,
    /// Messages of this connection that are not acknowledged, each with the command whose save it waits for. No more
    /// than there are packet ids.
    arrivals: VecDeque<(PacketId, Option<u64>)>,
}

/// A command that was taken and has not ended.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) session: Session,
    /// The session's device, as the agent knew it when the command was taken.
    pub(super) device: Option<Device>,
    pub(super) kind: CommandKind,
    pub(super) step: Step,
}

/// What a command under way waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its id is not durable.
    Saving,
    /// The end of the device's probe.
    Probe,
    /// The device's next snapshot.
    Snapshot,
    /// The end of those that change the device before it.
    Turn,
    /// The device.
    Setting(EffectId),
}

/// Why a command is not executed: in one word, and in a sentence.
pub(super) type Refusal = (&'static str, String);

impl Commands {
    /// What was found on the disk. What had no outcome ended with the last life.
    pub(super) fn remembered(mut memory: BTreeMap<u64, SavedCommand>) -> Commands {
        for command in memory.values_mut() {
            command.outcome.get_or_insert_with(|| ReplyOutcome::error(INTERRUPTED));
        }
        Commands {
            numbers: memory.iter().map(|(&number, command)| (command.id, number)).collect(),
            next: memory.keys().next_back().map_or(1, |last| last.saturating_add(1)),
            memory,
            under_way: BTreeMap::new(),
            turned_away: VecDeque::new(),
            arrivals: VecDeque::new(),
        }
    }

    /// What is to be saved of a command; `None` once it is forgotten.
    pub(super) fn saved(&self, number: u64) -> Option<&SavedCommand> {
        self.memory.get(&number)
    }

    /// The connection is gone, and with it what could be acknowledged.
    pub(super) fn disconnected(&mut self) {
        self.arrivals.clear();
    }

    /// The commands under way that `is` is true of, in the order in which they were taken.
    pub(super) fn numbers_where(&self, is: impl Fn(&UnderWay) -> bool) -> Vec<u64> {
        self.under_way.iter().filter(|(_, under_way)| is(under_way)).map(|(&number, _)| number).collect()
    }

    fn is_saving(&self, number: u64) -> bool {
        self.under_way.get(&number).is_some_and(|under_way| under_way.step == Step::Saving)
    }

    fn turn_away(&mut self, id: Uuid) {
        if self.turned_away.contains(&id) {
            return;
        }
        if self.turned_away.len() >= MAX_REMEMBERED {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back(id);
    }

    /// The oldest that has ended, where too many are remembered.
    fn to_forget(&self) -> Option<u64> {
        let ended = |number: &&u64| !self.under_way.contains_key(*number);
        (self.memory.len() > MAX_REMEMBERED).then(|| self.memory.keys().find(ended).copied()).flatten()
    }
}

impl Agent {
    /// A message on the way down. Whatever it holds, it is acknowledged: what is refused once is refused for ever.
    pub(super) fn command_came(&mut self, message: &Message, effects: &mut Vec<Effect>) {
        let waits_for = if message.retain { None } else { self.take_command(message, effects) };
        if let Some(packet) = message.packet {
            self.commands.arrivals.push_back((packet, waits_for));
            self.acknowledge_arrivals(effects);
        }
    }

    /// These commands' ids are on the disk.
    pub(super) fn commands_are_durable(&mut self, now: Now, numbers: &[u64], effects: &mut Vec<Effect>) {
        for &number in numbers {
            if self.commands.is_saving(number) {
                self.execute(now, number, effects);
            }
        }
        self.acknowledge_arrivals(effects);
    }

    /// A command has ended: the outcome is saved, and the reply goes out when it is.
    pub(super) fn end_command(&mut self, number: u64, outcome: ReplyOutcome, effects: &mut Vec<Effect>) {
        let ok = outcome == ReplyOutcome::Ok;
        if let Some((id, name)) = self.answer_command(number, outcome) {
            effects.push(Effect::Fact(Fact::ExecutedCommand { id, name, ok }));
        }
    }

    /// A command that was taken is not executed: that is its outcome, also for a repeat in better times.
    pub(super) fn refuse_taken(&mut self, number: u64, (reason, why): Refusal, effects: &mut Vec<Effect>) {
        if let Some((id, _)) = self.answer_command(number, ReplyOutcome::error(why)) {
            effects.push(Effect::Fact(Fact::RefusedCommand { id: Some(id), reason, replied: true }));
        }
    }

    /// The agent stops: what is under way has no time to end.
    pub(super) fn interrupt_commands(&mut self, effects: &mut Vec<Effect>) {
        for number in self.commands.numbers_where(|_| true) {
            if self.commands.is_saving(number) {
                self.refuse_taken(number, stopping(), effects);
            } else {
                self.end_command(number, ReplyOutcome::error(INTERRUPTED), effects);
            }
        }
        self.acknowledge_arrivals(effects);
    }

    /// The device answered to [`Effect::Set`].
    pub(super) fn set_done(&mut self, now: Now, id: EffectId, outcome: SetOutcome, effects: &mut Vec<Effect>) {
        let setting = self.commands.numbers_where(|under_way| under_way.step == Step::Setting(id));
        for number in setting {
            self.set_ended(now, number, &outcome, effects);
        }
    }

    /// Takes a command; returns the number of the command whose save its acknowledgement waits for.
    fn take_command(&mut self, message: &Message, effects: &mut Vec<Effect>) -> Option<u64> {
        let unanswered = |reason| Effect::Fact(Fact::RefusedCommand { id: None, reason, replied: false });
        let session = match Topic::from_str(&message.topic) {
            Ok(Topic::Command(rae, session)) if rae == self.config.rae => session,
            Ok(Topic::Command(..) | Topic::State(..) | Topic::Reply(..) | Topic::Status(_)) | Err(_) => {
                effects.push(unanswered("topic"));
                return None;
            }
        };
        let (id, kind) = match Command::decode(&message.payload) {
            Ok(command) => (command.id, Ok(command.kind)),
            Err(BadCommand { id: Some(id), error }) => (id, Err((error.reason(), error.detail()))),
            Err(BadCommand { id: None, error }) => {
                effects.push(unanswered(error.reason()));
                return None;
            }
        };
        if let Some(&number) = self.commands.numbers.get(&id) {
            return self.command_came_again(number, session, effects);
        }
        match kind.and_then(|kind| self.admit(id).map(|()| kind)) {
            Ok(kind) => Some(self.begin_command(id, UnderWay { session, device: None, kind, step: Step::Saving })),
            Err(refusal) => {
                self.refuse_command(id, session, refusal, effects);
                None
            }
        }
    }

    /// Whether a new command can be taken. What is refused here is refused for now: another life may take a repeat.
    fn admit(&mut self, id: Uuid) -> Result<(), Refusal> {
        if self.life != Life::Running {
            return Err(stopping());
        }
        let is_full = self.commands.under_way.len() >= MAX_UNDER_WAY || !self.has_reply_room();
        if is_full || self.commands.turned_away.contains(&id) {
            self.commands.turn_away(id);
            return Err(("busy", "busy".to_owned()));
        }
        Ok(())
    }

    fn begin_command(&mut self, id: Uuid, under_way: UnderWay) -> u64 {
        let number = self.commands.next;
        self.commands.next += 1;
        self.commands.memory.insert(number, SavedCommand { id, outcome: None });
        self.commands.numbers.insert(id, number);
        self.commands.under_way.insert(number, under_way);
        self.saves.command(number);
        self.forget_commands();
        number
    }

    fn answer_command(&mut self, number: u64, outcome: ReplyOutcome) -> Option<(Uuid, CommandName)> {
        let under_way = self.commands.under_way.remove(&number)?;
        let command = self.commands.memory.get_mut(&number)?;
        command.outcome = Some(outcome.clone());
        let id = command.id;
        self.saves.command(number);
        self.outbox.push_reply(&self.config.rae, under_way.session, &Reply { id, outcome });
        self.forget_commands();
        Some((id, under_way.kind.name()))
    }

    fn command_came_again(&mut self, number: u64, session: Session, effects: &mut Vec<Effect>) -> Option<u64> {
        let SavedCommand { id, outcome } = self.commands.memory.get(&number)?.clone();
        effects.push(Effect::Fact(Fact::RepeatedCommand(id)));
        match outcome {
            // One that still waits answers both.
            Some(outcome) if self.has_reply_room() && !self.outbox.holds_reply(id) => {
                self.outbox.push_reply(&self.config.rae, session, &Reply { id, outcome });
                None
            }
            Some(_) => None,
            None => self.commands.is_saving(number).then_some(number),
        }
    }

    fn refuse_command(&mut self, id: Uuid, session: Session, (reason, why): Refusal, effects: &mut Vec<Effect>) {
        let replied = self.has_reply_room();
        if replied {
            let reply = Reply { id, outcome: ReplyOutcome::error(why) };
            self.outbox.push_reply(&self.config.rae, session, &reply);
        }
        effects.push(Effect::Fact(Fact::RefusedCommand { id: Some(id), reason, replied }));
    }

    fn has_reply_room(&self) -> bool {
        self.outbox.replies() + self.commands.under_way.len() < MAX_REPLIES
    }

    fn forget_commands(&mut self) {
        while let Some(number) = self.commands.to_forget() {
            if let Some(command) = self.commands.memory.remove(&number) {
                self.commands.numbers.remove(&command.id);
            }
            self.saves.command(number);
        }
    }

    fn acknowledge_arrivals(&mut self, effects: &mut Vec<Effect>) {
        let Some(connection) = self.connection.serving() else { return };
        while let Some(&(packet, waits_for)) = self.commands.arrivals.front() {
            if waits_for.is_some_and(|number| self.commands.is_saving(number)) {
                return;
            }
            self.commands.arrivals.pop_front();
            effects.push(Effect::Acknowledge(connection, packet));
        }
    }
}

fn stopping() -> Refusal {
    ("stopping", "the agent stops".to_owned())
}
