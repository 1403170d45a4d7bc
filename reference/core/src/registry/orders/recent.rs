//! Sessions that are remembered, within a bound.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{id::Session, time::Mono};

/// Sessions to which something was done, each until a time. When all are taken, nothing more is done: to forget one
/// early would be to do it twice.
#[derive(Debug)]
pub(super) struct Recent {
    most: usize,
    until: BTreeMap<Session, Mono>,
    order: BTreeSet<(Mono, Session)>,
}

impl Recent {
    pub(super) fn new(most: usize) -> Recent {
        Recent { most, until: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }

    /// Until when the session is remembered; `None` where it is not.
    pub(super) fn until(&mut self, now: Mono, session: Session) -> Option<Mono> {
        while let Some(&(until, old)) = self.order.first()
            && until <= now
        {
            self.order.pop_first();
            self.until.remove(&old);
        }
        self.until.get(&session).copied()
    }

    /// Remembers the session. Returns whether there was room.
    pub(super) fn note(&mut self, now: Mono, session: Session, until: Mono) -> bool {
        if self.until(now, session).is_none() && self.until.len() >= self.most {
            return false;
        }
        self.renew(session, until);
        true
    }

    /// Remembers the session until another time, whoever else is remembered.
    pub(super) fn renew(&mut self, session: Session, until: Mono) {
        self.forget(session);
        self.until.insert(session, until);
        self.order.insert((until, session));
    }

    pub(super) fn forget(&mut self, session: Session) {
        if let Some(until) = self.until.remove(&session) {
            self.order.remove(&(until, session));
        }
    }
}

/// Sessions that lost, which they do for good: the newest so many.
#[derive(Debug)]
pub(super) struct Lost {
    most: usize,
    sessions: BTreeSet<Session>,
    order: VecDeque<Session>,
}

impl Lost {
    pub(super) fn new(most: usize) -> Lost {
        Lost { most, sessions: BTreeSet::new(), order: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn contains(&self, session: Session) -> bool {
        self.sessions.contains(&session)
    }

    pub(super) fn insert(&mut self, session: Session) {
        if !self.sessions.insert(session) {
            return;
        }
        self.order.push_back(session);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }
}
