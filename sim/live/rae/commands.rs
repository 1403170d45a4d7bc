//! The way down at a RAE: what faults do to a command before its agent sees it, and what a `set` does to a device.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Event, Message, SetOutcome},
    core::ConnectionId,
    event::{AttributeName, Command, Value},
};
use uuid::Uuid;

use super::LiveRae;
use crate::{
    faults::CommandHandling,
    fleet::plan::COMMANDED,
    history::{Down, Tampered, What},
};

impl LiveRae {
    /// A message came; a command may be lost, late or doubled by a fault before the agent gets it.
    pub(super) fn message(&mut self, connection: ConnectionId, message: Message) {
        let handling = self.command_handling(&message);
        let (id, how, later) = match handling {
            None => {
                self.step(Some(Event::Message(connection, message)));
                return;
            }
            Some((id, CommandHandling::Lose)) => (id, Tampered::Lost, None),
            Some((id, CommandHandling::Twice(later))) => (id, Tampered::Doubled, Some(later)),
            Some((id, CommandHandling::Late(later))) => (id, Tampered::Delayed, Some(later)),
        };
        self.enter(What::Down(Down::Tampered { rae: self.index, id, how }));
        if let Some(later) = later {
            self.delay(later, message.clone());
        }
        match how {
            Tampered::Doubled => self.step(Some(Event::Message(connection, message))),
            // What the agent does not see now is not the broker's to send again.
            Tampered::Lost | Tampered::Delayed => {
                if let Some(packet) = message.packet {
                    self.client.acknowledge(connection, packet);
                }
            }
        }
    }

    /// Hands on the late commands that are due, if there is a connection to have come by.
    pub(super) fn late_commands(&mut self) {
        let Some(connection) = self.connection.filter(|_| self.online && self.stays) else { return };
        while let Some(entry) = self.late.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let message = entry.remove();
            self.step(Some(Event::Message(connection, message)));
        }
    }

    /// A device is to change: what only commands change takes the command's id, and nothing else is a command's to say.
    pub(super) fn set(
        &mut self,
        hardware: &str,
        set: &BTreeMap<AttributeName, Value>,
        unset: &BTreeSet<AttributeName>,
    ) -> SetOutcome {
        let here = self.here().find(|&(device, _)| *self.shared.plan.devices[device.0 as usize].hardware == *hardware);
        let Some((device, _)) = here else { return SetOutcome::Refused("it is not plugged in here".to_owned()) };
        let id = match set.first_key_value() {
            Some((name, Value::Text(id))) if name.as_str() == COMMANDED && set.len() == 1 && unset.is_empty() => {
                Uuid::try_parse(id).ok()
            }
            Some(_) | None => None,
        };
        let Some(id) = id else { return SetOutcome::Refused("a planned device changes by its plan".to_owned()) };
        self.shared.directory.changed(device, id);
        self.enter(What::Down(Down::Changed { device, id }));
        SetOutcome::Done
    }

    fn command_handling(&self, message: &Message) -> Option<(Uuid, CommandHandling)> {
        if !message.topic.ends_with("/cmd") {
            return None;
        }
        let id = match Command::decode(&message.payload) {
            Ok(command) => command.id,
            Err(bad) => bad.id?,
        };
        Some((id, self.shared.tampering.handle_command(self.shared.clock.in_load()?, id)?))
    }

    fn delay(&mut self, by: Duration, message: Message) {
        self.delayed += 1;
        // The broker's packet is settled with the first copy.
        self.late.insert((Instant::now() + by, self.delayed), Message { packet: None, ..message });
    }
}
