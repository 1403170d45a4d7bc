//! Commands in the small world: what was issued, and what the agents say became of it.

use std::collections::{BTreeMap, BTreeSet};

use dmp_core::{
    agent::Fact,
    core::{Publication, Qos},
    event::{Command, CommandKind, ReplyOutcome, Topic},
    id::{Rae, Session},
    time::Wall,
};
use rand::RngExt;
use uuid::Uuid;

use crate::{
    device::name,
    faults::Fault,
    world::{Item, World},
};

/// What became of the commands, by id.
#[derive(Debug, Default)]
pub(crate) struct CommandBook {
    pub(crate) issued: BTreeSet<Uuid>,
    pub(crate) taken: BTreeSet<Uuid>,
    pub(crate) refused: BTreeSet<Uuid>,
}

impl CommandBook {
    /// # Panics
    /// If a command is executed twice.
    pub(crate) fn tell(&mut self, fact: &Fact) {
        match fact {
            Fact::TookCommand(id, _) => assert!(self.taken.insert(*id), "{id} is executed twice"),
            Fact::RefusedCommand { id: Some(id), .. } => {
                self.refused.insert(*id);
            }
            _ => {}
        }
    }
}

impl World {
    /// Somebody sends a command to a session: mostly the current one of a device, sometimes one that never was. It may be
    /// lost, late, and come again.
    pub(crate) fn issue_command(&mut self) {
        let index = self.rng.random_range(0..self.raes.len());
        let sessions: Vec<Session> = self.raes[index].disk.devices.values().map(|saved| saved.session).collect();
        let dead = Session(Uuid::from_u128(self.rng.random()));
        let session = match sessions.len() {
            known if known > 0 && self.rng.random_bool(0.9) => sessions[self.rng.random_range(0..known)],
            _ => dead,
        };
        let id = Uuid::from_u128(self.rng.random());
        let number = i64::try_from(self.commands.issued.len()).unwrap();
        let kind = match self.rng.random_range(0..4) {
            0 => CommandKind::Snapshot,
            1 => CommandKind::Probe,
            _ => CommandKind::Set {
                set: [(name("note"), dmp_core::event::Value::Integer(-1 - number))].into(),
                unset: BTreeSet::new(),
            },
        };
        self.commands.issued.insert(id);
        let message = command(&self.raes[index].config.rae, session, id, kind);
        for repeat in 0..3 {
            let comes = if repeat == 0 { !self.chance(Fault::Loss, 20) } else { self.chance(Fault::Repeats, 30) };
            if comes {
                self.after_ms(0, 1 + repeat * 2000, Item::Repeat(message.clone()));
            }
        }
    }

    /// The replies that reached Kafka, by id.
    ///
    /// # Panics
    /// If two replies to one command differ.
    pub(crate) fn replies(&self) -> BTreeMap<Uuid, ReplyOutcome> {
        let mut replies = BTreeMap::new();
        for (_, reply) in &self.log.replies {
            let first = replies.entry(reply.id).or_insert_with(|| reply.outcome.clone());
            // "Not now" is no outcome.
            let not_now = ["busy", "the agent stops"].map(ReplyOutcome::error);
            if not_now.contains(first) {
                *first = reply.outcome.clone();
            }
            let same = *first == reply.outcome || not_now.contains(&reply.outcome);
            assert!(same, "two replies to {}: {first:?} and {:?}", reply.id, reply.outcome);
        }
        replies
    }
}

/// A command as the bridge publishes it.
pub(crate) fn command(rae: &Rae, session: Session, id: Uuid, kind: CommandKind) -> Publication {
    let payload = Command { id, expires_at: Wall(0), kind }.encode().into();
    Publication {
        topic: Topic::Command(rae.clone(), session).to_string().into(),
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
    }
}
