//! The groups of a broker, and the requests that wait in them.
//!
//! A thin shell around [`Group`]: it holds the lock, reads the clock, and carries late answers to the connections that
//! wait. A connection that goes away while it waits takes its request with it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dmp_core::time::Mono;
use kafka_protocol::ResponseError;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::group::{Answer, Caller, Group, Join, Joined, Place, Ticket};

/// Groups of a broker, at about 200 bytes each while nobody is in them.
const GROUPS_MAX: usize = 10_000;

/// All groups of a broker.
#[derive(Debug)]
pub(super) struct Coordinator {
    began: Instant,
    first_delay: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<String, Group>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    tickets: u64,
}

impl Coordinator {
    /// A coordinator without groups; see [`Group::new`] for `first_delay`.
    pub(super) fn new(first_delay: Duration) -> Coordinator {
        Coordinator { began: Instant::now(), first_delay, state: Mutex::default(), changed: Notify::new() }
    }

    /// Keeps the groups' time: ends sessions and rounds that are over. Never returns.
    pub(super) async fn keep_time(&self) {
        loop {
            let changed = self.changed.notified();
            match self.wake() {
                Some(due) => {
                    let at = self.began + Duration::from_nanos(due.0);
                    // Either of both is a reason to look again.
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Joins a group; answered when the round is complete.
    pub(super) async fn join(&self, group: &str, join: Join) -> Joined {
        let member_id = join.member_id.clone();
        let (ticket, answer) = match self.submit(group, |one, now, ticket, out| one.join(now, join, ticket, out)) {
            Ok(submitted) => submitted,
            Err(error) => return Joined::refused(error, member_id),
        };
        match self.wait(group, ticket, answer).await {
            Some(Answer::Join(_, joined)) => joined,
            Some(Answer::Sync(..)) | None => Joined::refused(ResponseError::UnknownMemberId, member_id),
        }
    }

    /// Hands in assignments, or asks for one's own; answered when the leader has assigned.
    pub(super) async fn sync(
        &self,
        group: &str,
        caller: Caller<'_>,
        assignments: Vec<(String, Bytes)>,
    ) -> Result<Bytes, ResponseError> {
        let (ticket, answer) =
            self.submit(group, |one, now, ticket, out| one.sync(now, caller, assignments, ticket, out))?;
        match self.wait(group, ticket, answer).await {
            Some(Answer::Sync(_, assignment)) => assignment,
            Some(Answer::Join(..)) | None => Err(ResponseError::UnknownMemberId),
        }
    }

    /// Takes a member's sign of life.
    pub(super) fn heartbeat(&self, group: &str, caller: Caller<'_>) -> Result<(), ResponseError> {
        let now = self.now();
        let mut state = self.lock();
        state.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?.heartbeat(now, caller)
    }

    /// Lets a member go.
    pub(super) fn leave(&self, group: &str, member_id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        let now = self.now();
        let mut answers = Vec::new();
        let mut state = self.lock();
        let one = state.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        let left = one.leave(now, member_id, instance, &mut answers);
        state.deliver(answers);
        self.changed.notify_one();
        left
    }

    /// Looks at one group; a group that nobody used does not exist.
    pub(super) fn look<T>(&self, group: &str, look: impl FnOnce(Option<&Group>) -> T) -> T {
        look(self.lock().groups.get(group))
    }

    /// Looks at all groups, by name.
    pub(super) fn list<T>(&self, mut look: impl FnMut(&str, &Group) -> T) -> Vec<T> {
        self.lock().groups.iter().map(|(name, group)| look(name, group)).collect()
    }

    /// Works on one group, which begins to exist with it.
    ///
    /// # Errors
    /// There are too many groups, or the name is empty.
    pub(super) fn with<T>(&self, group: &str, work: impl FnOnce(&mut Group, Mono) -> T) -> Result<T, ResponseError> {
        let now = self.now();
        let mut state = self.lock();
        Ok(work(state.group(group, self.first_delay)?, now))
    }

    /// Removes a group with nobody in it, and its committed offsets.
    ///
    /// # Errors
    /// It does not exist, or somebody is in it.
    pub(super) fn delete(&self, group: &str) -> Result<(), ResponseError> {
        let mut state = self.lock();
        let one = state.groups.get(group).ok_or(ResponseError::GroupIdNotFound)?;
        if !one.members().is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        state.groups.remove(group);
        Ok(())
    }

    /// Removes a committed offset.
    ///
    /// # Errors
    /// The group does not exist, or reads the topic.
    pub(super) fn delete_offset(&self, group: &str, place: &Place) -> Result<(), ResponseError> {
        let mut state = self.lock();
        state.groups.get_mut(group).ok_or(ResponseError::GroupIdNotFound)?.delete_offset(place)
    }

    /// Forgets the offsets of a topic that was deleted.
    pub(super) fn forget_topic(&self, topic: &str) {
        self.lock().groups.values_mut().for_each(|group| group.forget_topic(topic));
    }

    fn submit(
        &self,
        group: &str,
        request: impl FnOnce(&mut Group, Mono, Ticket, &mut Vec<Answer>),
    ) -> Result<(Ticket, oneshot::Receiver<Answer>), ResponseError> {
        let now = self.now();
        let (sender, receiver) = oneshot::channel();
        let mut answers = Vec::new();
        let mut state = self.lock();
        state.tickets += 1;
        let ticket = Ticket(state.tickets);
        request(state.group(group, self.first_delay)?, now, ticket, &mut answers);
        state.waiting.insert(ticket, sender);
        state.deliver(answers);
        self.changed.notify_one();
        Ok((ticket, receiver))
    }

    async fn wait(&self, group: &str, ticket: Ticket, answer: oneshot::Receiver<Answer>) -> Option<Answer> {
        let _held = Held { coordinator: self, group, ticket };
        answer.await.ok()
    }

    fn wake(&self) -> Option<Mono> {
        let now = self.now();
        let mut answers = Vec::new();
        let mut state = self.lock();
        state.groups.values_mut().for_each(|group| group.wake(now, &mut answers));
        state.groups.retain(|_, group| !group.is_spent());
        state.deliver(answers);
        state.groups.values().filter_map(Group::deadline).min()
    }

    fn now(&self) -> Mono {
        Mono::default() + self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn group(&mut self, name: &str, first_delay: Duration) -> Result<&mut Group, ResponseError> {
        if name.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        if !self.groups.contains_key(name) && self.groups.len() >= GROUPS_MAX {
            self.groups.retain(|_, group| !group.is_spent());
            if self.groups.len() >= GROUPS_MAX {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
        }
        Ok(self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(first_delay)))
    }

    fn deliver(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            if let Some(waiter) = self.waiting.remove(ticket) {
                // Gone in this very moment: its session will end like any other silent member's.
                let _ = waiter.send(answer);
            }
        }
    }
}

/// Takes a waiting request back when its connection ends.
struct Held<'a> {
    coordinator: &'a Coordinator,
    group: &'a str,
    ticket: Ticket,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let now = self.coordinator.now();
        let mut state = self.coordinator.lock();
        if state.waiting.remove(&self.ticket).is_some()
            && let Some(group) = state.groups.get_mut(self.group)
        {
            group.hang_up(now, self.ticket);
            self.coordinator.changed.notify_one();
        }
    }
}
