//! A consumer group as a pure state machine: members, generations, rebalances, committed offsets.
//!
//! The classic protocol (Kafka protocol guide, "Group Membership"), eager and cooperative alike, since the difference lies
//! in the clients: everybody joins, the leader assigns, everybody is told. Joining and syncing wait for others, so their
//! answers come later, by [`Ticket`]. Time is handed in; [`Group::wake`] is due at [`Group::deadline`].

mod member;
mod offsets;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use dmp_core::time::Mono;
use kafka_protocol::ResponseError;

pub(super) use self::{
    member::{Member, Waiting},
    offsets::{Committed, Place},
};

/// Members of one group, those included that were only given an id.
const MEMBERS_MAX: usize = 1_000;
/// Longest session and rebalance timeouts that are taken (Kafka, `group.max.session.timeout.ms`).
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);

/// Ties a later answer to the request that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// The answer to a request that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// To [`Group::join`].
    Join(Ticket, Joined),
    /// To [`Group::sync`]: the member's assignment.
    Sync(Ticket, Result<Bytes, ResponseError>),
}

/// A request to join.
#[derive(Debug, Clone)]
pub(super) struct Join {
    /// Empty on the first attempt.
    pub(super) member_id: String,
    /// The id to be given to a member without one.
    pub(super) new_id: String,
    /// Whether a new member must come again with the id that it is given (KIP-394), so that an answer that is lost
    /// leaves no ghost behind.
    pub(super) id_required: bool,
    /// Name of a static member (KIP-345).
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocol_type: String,
    /// Assignors that the member knows, best first, with its subscription for each.
    pub(super) protocols: Vec<(String, Bytes)>,
}

/// The outcome of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) error: Option<ResponseError>,
    pub(super) generation: i32,
    pub(super) protocol: String,
    pub(super) leader: String,
    pub(super) member_id: String,
    /// Id, instance and subscription of everybody; for the leader only.
    pub(super) members: Vec<(String, Option<String>, Bytes)>,
}

/// Who asks: the part that heartbeats, syncs and commits have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) member_id: &'a str,
    pub(super) generation: i32,
    pub(super) instance: Option<&'a str>,
}

/// Where a group is in its round of joining, assigning and working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody is in it.
    Empty,
    /// Waits for members to join, until this time at the latest.
    Preparing { until: Mono, first: bool },
    /// Waits for the leader's assignment.
    Completing,
    /// Everybody knows the assignment.
    Stable,
}

/// One consumer group.
#[derive(Debug)]
pub(super) struct Group {
    first_delay: Duration,
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids that were given out, and until when their owners may come with them.
    promised: BTreeMap<String, Mono>,
    committed: BTreeMap<Place, Committed>,
}

impl Group {
    /// An empty group that waits `first_delay` for more members when the first one joins.
    pub(super) fn new(first_delay: Duration) -> Group {
        Group {
            first_delay,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Takes a member in, or back. The answer comes when the round is complete, or at once where it is refused.
    pub(super) fn join(&mut self, now: Mono, join: Join, ticket: Ticket, answers: &mut Vec<Answer>) {
        match self.admit(now, &join) {
            Err(error) => answers.push(Answer::Join(ticket, Joined::refused(error, join.member_id))),
            Ok(Admitted::Promised) => {
                self.promised.insert(join.new_id.clone(), now + join.session_timeout);
                let error = ResponseError::MemberIdRequired;
                answers.push(Answer::Join(ticket, Joined::refused(error, join.new_id)));
            }
            Ok(Admitted::Again) if self.needs_no_round(&join) => {
                let member = self.members.get_mut(&join.member_id).expect("admitted as one of them");
                member.seen(now);
                member.release(ResponseError::RebalanceInProgress, answers);
                answers.push(Answer::Join(ticket, self.joined(&join.member_id)));
            }
            Ok(Admitted::Again | Admitted::New) => {
                let id = if join.member_id.is_empty() { join.new_id.clone() } else { join.member_id.clone() };
                self.promised.remove(&id);
                self.protocol_type.clone_from(&join.protocol_type);
                let owner = join.instance.as_deref().and_then(|name| self.instance_owner(name));
                if let Some(mut before) = owner.and_then(|owner| self.members.remove(&owner)) {
                    before.release(ResponseError::FencedInstanceId, answers);
                }
                self.prepare(now, answers);
                if let Some(mut before) = self.members.insert(id, Member::new(now, join, ticket)) {
                    before.release(ResponseError::RebalanceInProgress, answers);
                }
                self.complete_if_due(now, answers);
            }
        }
    }

    /// Takes the leader's assignments, or a follower's question for its own.
    pub(super) fn sync(
        &mut self,
        now: Mono,
        caller: Caller<'_>,
        assignments: Vec<(String, Bytes)>,
        ticket: Ticket,
        answers: &mut Vec<Answer>,
    ) {
        let checked = self.check(caller);
        let (Ok(()), Some(member)) = (checked, self.members.get_mut(caller.member_id)) else {
            let error = checked.err().unwrap_or(ResponseError::UnknownMemberId);
            return answers.push(Answer::Sync(ticket, Err(error)));
        };
        member.seen(now);
        match self.phase {
            Phase::Empty => answers.push(Answer::Sync(ticket, Err(ResponseError::UnknownMemberId))),
            Phase::Preparing { .. } => answers.push(Answer::Sync(ticket, Err(ResponseError::RebalanceInProgress))),
            Phase::Stable => answers.push(Answer::Sync(ticket, Ok(member.assignment.clone()))),
            Phase::Completing => {
                member.release(ResponseError::RebalanceInProgress, answers);
                member.waiting = Waiting::Sync(ticket);
                if caller.member_id == self.leader {
                    self.assign(now, assignments, answers);
                }
            }
        }
    }

    /// Takes a sign of life.
    ///
    /// # Errors
    /// The member is not in this generation, or is to join again.
    pub(super) fn heartbeat(&mut self, now: Mono, caller: Caller<'_>) -> Result<(), ResponseError> {
        self.check(caller)?;
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.seen(now);
        }
        match self.phase {
            Phase::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// Lets a member go: by its id, or a static one by its instance's name.
    ///
    /// # Errors
    /// No such member.
    pub(super) fn leave(
        &mut self,
        now: Mono,
        member_id: &str,
        instance: Option<&str>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), ResponseError> {
        if self.promised.remove(member_id).is_some() {
            return Ok(());
        }
        let id = match instance.and_then(|name| self.instance_owner(name)) {
            Some(owner) if member_id.is_empty() || owner == member_id => owner,
            Some(_other) => return Err(ResponseError::FencedInstanceId),
            None => member_id.to_owned(),
        };
        if !self.members.contains_key(&id) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.expel(now, &id, answers);
        Ok(())
    }

    /// Forgets that somebody waits: its connection is gone. The member stays until its session ends.
    pub(super) fn hang_up(&mut self, now: Mono, ticket: Ticket) {
        for member in self.members.values_mut() {
            if member.waiting.ticket() == Some(ticket) {
                member.waiting = Waiting::Nothing;
                member.seen(now);
            }
        }
    }

    /// Takes the passing of time: expels who was silent too long, and completes a round that waited long enough.
    pub(super) fn wake(&mut self, now: Mono, answers: &mut Vec<Answer>) {
        self.promised.retain(|_, until| *until > now);
        let silent = |member: &Member| member.expires().is_some_and(|at| at <= now);
        let expired: Vec<String> =
            self.members.iter().filter(|(_, member)| silent(member)).map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.expel(now, &id, answers);
        }
        self.complete_if_due(now, answers);
    }

    /// When [`Group::wake`] is due; `None` where nothing waits on time.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let round = match self.phase {
            Phase::Preparing { until, .. } => Some(until),
            Phase::Empty | Phase::Completing | Phase::Stable => None,
        };
        let sessions = self.members.values().filter_map(Member::expires);
        round.into_iter().chain(sessions).chain(self.promised.values().copied()).min()
    }

    /// Whether nothing is lost by forgetting the group.
    pub(super) fn is_spent(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty() && self.committed.is_empty()
    }

    /// Where the group is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// What kind of group it is; "consumer" for consumers.
    pub(super) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The assignor in use.
    pub(super) fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Members by id.
    pub(super) fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    fn admit(&self, now: Mono, join: &Join) -> Result<Admitted, ResponseError> {
        if join.session_timeout.is_zero() || join.session_timeout.max(join.rebalance_timeout) > TIMEOUT_MAX {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        if !self.speaks_with_all(join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if self.members.contains_key(&join.member_id) {
            self.check_instance(&join.member_id, join.instance.as_deref())?;
            return Ok(Admitted::Again);
        }
        if self.promised.get(&join.member_id).is_some_and(|until| *until > now) {
            return Ok(Admitted::New);
        }
        if !join.member_id.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        if self.members.len() + self.promised.len() >= MEMBERS_MAX {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        Ok(if join.id_required && join.instance.is_none() { Admitted::Promised } else { Admitted::New })
    }

    /// Whether one assignor is known to the newcomer and to all others.
    fn speaks_with_all(&self, join: &Join) -> bool {
        let mut others = self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        let same_type = self.protocol_type == join.protocol_type || others.clone().next().is_none();
        let shared = join.protocols.iter().any(|(name, _)| others.all(|other| other.subscription(name).is_some()));
        same_type && shared
    }

    /// Whether a member that joins again changes nothing: it only missed its answer.
    fn needs_no_round(&self, join: &Join) -> bool {
        let unchanged = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        match self.phase {
            Phase::Completing => unchanged,
            // The leader joins again to have the partitions assigned anew.
            Phase::Stable => unchanged && join.member_id != self.leader,
            Phase::Empty | Phase::Preparing { .. } => false,
        }
    }

    /// Begins a round, unless one has begun.
    fn prepare(&mut self, now: Mono, answers: &mut Vec<Answer>) {
        self.phase = match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty => Phase::Preparing { until: now + self.first_delay, first: true },
            Phase::Completing | Phase::Stable => {
                let patience = self.members.values().map(|member| member.rebalance_timeout).max();
                Phase::Preparing { until: now + patience.unwrap_or(self.first_delay), first: false }
            }
        };
        for member in self.members.values_mut().filter(|member| member.waiting != Waiting::Nothing) {
            member.seen(now);
            member.release(ResponseError::RebalanceInProgress, answers);
        }
    }

    /// Ends the joining when everybody is there, or when its time is over: who has not come is out.
    fn complete_if_due(&mut self, now: Mono, answers: &mut Vec<Answer>) {
        let Phase::Preparing { until, first } = self.phase else { return };
        let joined = |member: &Member| matches!(member.waiting, Waiting::Join(_));
        if now < until && (first || !self.members.values().all(joined)) {
            return;
        }
        self.members.retain(|_, member| joined(member));
        self.generation += 1;
        let Some(any) = self.members.keys().next() else {
            self.phase = Phase::Empty;
            return;
        };
        if !self.members.contains_key(&self.leader) {
            self.leader.clone_from(any);
        }
        self.protocol = self.common_protocol();
        self.phase = Phase::Completing;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.joined(now, answer, answers);
            }
        }
    }

    /// The first assignor of the leader's list that everybody knows.
    fn common_protocol(&self) -> String {
        let known_to_all = |name: &str| self.members.values().all(|member| member.subscription(name).is_some());
        let wanted = self.members.get(&self.leader).map(|leader| leader.protocols.as_slice()).unwrap_or_default();
        wanted.iter().map(|(name, _)| name).find(|name| known_to_all(name)).cloned().unwrap_or_default()
    }

    fn joined(&self, id: &str) -> Joined {
        let list = |(id, member): (&String, &Member)| {
            (id.clone(), member.instance.clone(), member.subscription(&self.protocol).cloned().unwrap_or_default())
        };
        Joined {
            error: None,
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member_id: id.to_owned(),
            members: if id == self.leader { self.members.iter().map(list).collect() } else { Vec::new() },
        }
    }

    fn assign(&mut self, now: Mono, assignments: Vec<(String, Bytes)>, answers: &mut Vec<Answer>) {
        self.phase = Phase::Stable;
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        for member in self.members.values_mut() {
            member.assigned(now, answers);
        }
    }

    fn expel(&mut self, now: Mono, id: &str, answers: &mut Vec<Answer>) {
        let Some(mut member) = self.members.remove(id) else { return };
        member.release(ResponseError::UnknownMemberId, answers);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.generation += 1;
            return;
        }
        self.prepare(now, answers);
        self.complete_if_due(now, answers);
    }

    fn check(&self, caller: Caller<'_>) -> Result<(), ResponseError> {
        self.check_instance(caller.member_id, caller.instance)?;
        if !self.members.contains_key(caller.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        if caller.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    fn check_instance(&self, member_id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        match instance.and_then(|name| self.instance_owner(name)) {
            Some(owner) if owner != member_id => Err(ResponseError::FencedInstanceId),
            Some(_) | None => Ok(()),
        }
    }

    fn instance_owner(&self, instance: &str) -> Option<String> {
        let owns = |member: &Member| member.instance.as_deref() == Some(instance);
        self.members.iter().find(|(_, member)| owns(member)).map(|(id, _)| id.clone())
    }
}

/// How a join is taken.
enum Admitted {
    /// It is to come again, with an id.
    Promised,
    New,
    Again,
}

impl Joined {
    pub(super) fn refused(error: ResponseError, member_id: String) -> Joined {
        Joined {
            error: Some(error),
            generation: -1,
            protocol: String::new(),
            leader: String::new(),
            member_id,
            members: Vec::new(),
        }
    }
}
