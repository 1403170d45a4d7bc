//! One member of a group, and what it waits for.

use std::time::Duration;

use bytes::Bytes;
use dmp_core::time::Mono;
use kafka_protocol::ResponseError;

use super::{Answer, Join, Joined, Ticket};

/// A member of a group.
#[derive(Debug)]
pub(in super::super) struct Member {
    pub(in super::super) client_id: String,
    pub(in super::super) instance: Option<String>,
    /// Its part of the partitions, in the words of the clients' assignor.
    pub(in super::super) assignment: Bytes,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) rebalance_timeout: Duration,
    pub(super) waiting: Waiting,
    session_timeout: Duration,
    last_seen: Mono,
}

/// The request of a member that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Waiting {
    Nothing,
    /// For the round to be complete.
    Join(Ticket),
    /// For the leader's assignments.
    Sync(Ticket),
}

impl Waiting {
    pub(super) fn ticket(self) -> Option<Ticket> {
        match self {
            Waiting::Nothing => None,
            Waiting::Join(ticket) | Waiting::Sync(ticket) => Some(ticket),
        }
    }
}

impl Member {
    /// A member that has just joined and waits for its answer.
    pub(super) fn new(now: Mono, join: Join, ticket: Ticket) -> Member {
        Member {
            client_id: join.client_id,
            instance: join.instance,
            assignment: Bytes::new(),
            protocols: join.protocols,
            rebalance_timeout: join.rebalance_timeout,
            waiting: Waiting::Join(ticket),
            session_timeout: join.session_timeout,
            last_seen: now,
        }
    }

    /// What it subscribes to, in the words of one assignor; `None` if it does not know that assignor.
    pub(in super::super) fn subscription(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, subscription)| subscription)
    }

    /// When its session ends; never while it waits for the group.
    pub(super) fn expires(&self) -> Option<Mono> {
        (self.waiting == Waiting::Nothing).then(|| self.last_seen + self.session_timeout)
    }

    pub(super) fn seen(&mut self, now: Mono) {
        self.last_seen = now;
    }

    /// Ends its waiting, if it waits, with an error.
    pub(super) fn release(&mut self, error: ResponseError, answers: &mut Vec<Answer>) {
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Nothing => {}
            Waiting::Join(ticket) => answers.push(Answer::Join(ticket, Joined::refused(error, String::new()))),
            Waiting::Sync(ticket) => answers.push(Answer::Sync(ticket, Err(error))),
        }
    }

    /// Begins a generation: it is answered, and has no partitions yet.
    pub(super) fn joined(&mut self, now: Mono, joined: Joined, answers: &mut Vec<Answer>) {
        self.seen(now);
        self.assignment = Bytes::new();
        if let Waiting::Join(ticket) = std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            answers.push(Answer::Join(ticket, joined));
        }
    }

    /// Tells it its partitions, if it waits for them.
    pub(super) fn assigned(&mut self, now: Mono, answers: &mut Vec<Answer>) {
        self.seen(now);
        if let Waiting::Sync(ticket) = self.waiting {
            self.waiting = Waiting::Nothing;
            answers.push(Answer::Sync(ticket, Ok(self.assignment.clone())));
        }
    }
}
