//! What goes down: notices to sessions that lost, and requests for snapshots.
//!
//! Everything here is bounded, and nothing of it is durable: a command that is dropped or lost is made up for by the next
//! snapshot, which is told again, or heals. What was sent is remembered across assignments of this process, so that a
//! rebalance does not repeat it; what still waits is dropped with its assignment.

mod budget;
mod recent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::{Dropped, Effect, Fact, Feedback, FeedbackGauges, ISSUER, Order};
use crate::{
    agent::Backoff,
    bridge::{OutgoingRecord, ProduceOutcome},
    event::{Command, CommandKind, Topic, kafka_topic},
    id::{Device, Epoch, Rae, Session},
    time::{Mono, Now, Wall},
};
use budget::Budget;
use recent::{Lost, Recent};

/// Until when a session counts as told, or asked, while the command waits for its turn.
const NEVER: Mono = Mono(u64::MAX);

/// Names a command; counts them.
pub(super) type Serial = u64;

#[derive(Debug)]
pub(super) struct Orders {
    settings: Feedback,
    backoff: Backoff,
    rng: Pcg64,
    /// Sessions told, and sessions asked, within the last period, those included whose command waits for its turn.
    told: Recent,
    asked: Recent,
    /// Sessions known to have lost: what they miss is nobody's concern.
    lost: Lost,
    notices: VecDeque<Wish>,
    requests: BTreeMap<Serial, Wish>,
    /// The session of each request that waits.
    requested: BTreeMap<Session, Serial>,
    budget: Budget,
    last: Serial,
    under_way: BTreeMap<Serial, Sent>,
    retries: BTreeSet<(Mono, Serial)>,
}

/// A command that waits for its turn.
#[derive(Debug)]
struct Wish {
    rae: Rae,
    device: Device,
    session: Session,
    kind: CommandKind,
}

#[derive(Debug)]
struct Sent {
    session: Session,
    order: Order,
    record: OutgoingRecord,
    /// When it expires.
    until: Mono,
    failures: u32,
}

/// What became of a wish to ask a session for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is, or will be, asked.
    Yes,
    /// It was asked a short while ago.
    NotBefore(Mono),
    /// It is not.
    No,
}

impl Orders {
    pub(super) fn new(settings: Feedback, backoff: Backoff, rng: &mut Pcg64) -> Orders {
        let limits = [settings.under_way, settings.waiting, settings.sessions];
        assert!(limits.iter().all(|&limit| limit > 0), "a limit of zero takes nothing");
        Orders {
            backoff,
            rng: Pcg64::from_rng(rng),
            told: Recent::new(settings.sessions),
            asked: Recent::new(settings.sessions),
            lost: Lost::new(settings.sessions),
            notices: VecDeque::new(),
            requests: BTreeMap::new(),
            requested: BTreeMap::new(),
            budget: Budget::new(settings.requests_per_s),
            last: 0,
            under_way: BTreeMap::new(),
            retries: BTreeSet::new(),
            settings,
        }
    }

    pub(super) fn gauges(&self) -> FeedbackGauges {
        FeedbackGauges {
            notices: self.notices.len(),
            requests: self.requests.len(),
            waiting_cap: self.settings.waiting,
            under_way: self.under_way.len(),
            under_way_cap: self.settings.under_way,
            sessions: self.told.len().max(self.asked.len()).max(self.lost.len()),
            sessions_cap: self.settings.sessions,
        }
    }

    /// Whether a record that was received at `received` is younger than one period: not from a backlog, nor from a log
    /// that is read again.
    pub(super) fn is_young(&self, now: Wall, received: Wall) -> bool {
        u128::from(now.0.abs_diff(received.0)) < self.settings.snapshot_period.as_millis()
    }

    /// A snapshot of `session`, received at `received`, lost to a session of `epoch`.
    pub(super) fn lost(
        &mut self,
        now: Now,
        (device, session, rae): (Device, Session, Rae),
        epoch: Epoch,
        received: Wall,
        effects: &mut Vec<Effect>,
    ) {
        self.lost.insert(session);
        self.cancel(session);
        if !self.is_young(now.wall, received) || self.told.until(now.mono, session).is_some() {
            return;
        }
        let full = self.notices.len() >= self.settings.waiting;
        // Its period begins when the command is sent.
        if full || !self.told.note(now.mono, session, NEVER) {
            let why = if full { Dropped::Full } else { Dropped::Crowded };
            effects.push(dropped(session, Order::Notice, why));
            return;
        }
        let kind = CommandKind::Reonboard { device, epoch };
        self.notices.push_back(Wish { rae, device, session, kind });
    }

    /// `session` misses something that has not come in time.
    pub(super) fn ask(
        &mut self,
        now: Mono,
        (device, session, rae): (Device, Session, Rae),
        effects: &mut Vec<Effect>,
    ) -> Asked {
        if self.lost.contains(session) {
            return Asked::No;
        }
        if self.requested.contains_key(&session) {
            return Asked::Yes;
        }
        if let Some(until) = self.asked.until(now, session) {
            return Asked::NotBefore(until);
        }
        let full = self.requests.len() >= self.settings.waiting;
        if full || !self.asked.note(now, session, NEVER) {
            let why = if full { Dropped::Full } else { Dropped::Crowded };
            effects.push(dropped(session, Order::Repair, why));
            return Asked::No;
        }
        self.last += 1;
        self.requests.insert(self.last, Wish { rae, device, session, kind: CommandKind::Snapshot });
        self.requested.insert(session, self.last);
        Asked::Yes
    }

    /// Nothing is missing of `session` any more. Returns whether a request was still waiting.
    pub(super) fn cancel(&mut self, session: Session) -> bool {
        let waited = self.requested.remove(&session).is_some_and(|serial| self.requests.remove(&serial).is_some());
        if waited {
            self.asked.forget(session);
        }
        waited
    }

    /// The commands to hand to Kafka now.
    pub(super) fn pump(&mut self, now: Now, effects: &mut Vec<Effect>) -> Vec<(Serial, OutgoingRecord)> {
        let mut commands = Vec::new();
        while let Some(&(at, serial)) = self.retries.first()
            && at <= now.mono
        {
            self.retries.pop_first();
            effects.push(Effect::Fact(Fact::RetriedCommand));
            commands.push((serial, self.under_way[&serial].record.clone()));
        }
        while self.under_way.len() < self.settings.under_way {
            let wish = match self.notices.pop_front() {
                Some(notice) => notice,
                None if self.requests.is_empty() || !self.budget.take(now.mono) => break,
                None => {
                    let (_, request) = self.requests.pop_first().expect("there is one");
                    self.requested.remove(&request.session);
                    request
                }
            };
            commands.push(self.send(now, &wish, effects));
        }
        commands
    }

    pub(super) fn answered(&mut self, now: Mono, serial: Serial, outcome: &ProduceOutcome, effects: &mut Vec<Effect>) {
        let Some(sent) = self.under_way.get_mut(&serial) else { return };
        let why = match outcome {
            ProduceOutcome::Stored { .. } => {
                self.under_way.remove(&serial);
                return;
            }
            ProduceOutcome::Refused { .. } => Dropped::Refused,
            ProduceOutcome::Failed { .. } | ProduceOutcome::Unknown { .. } => {
                let at = now + self.backoff.wait(sent.failures, &mut self.rng);
                sent.failures = sent.failures.saturating_add(1);
                if at < sent.until {
                    self.retries.insert((at, serial));
                    return;
                }
                Dropped::Expired
            }
        };
        if let Some(Sent { session, order, .. }) = self.under_way.remove(&serial) {
            self.give_up(session, order, why, effects);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let room = self.under_way.len() < self.settings.under_way;
        let request = (room && !self.requests.is_empty()).then(|| self.budget.ready_at());
        self.retries.first().map(|&(at, _)| at).into_iter().chain(request).min()
    }

    /// The assignment is over: whoever has its partitions next sees the next snapshots.
    pub(super) fn end(&mut self, effects: &mut Vec<Effect>) {
        self.retries.clear();
        self.requested.clear();
        let waited = [(Order::Notice, std::mem::take(&mut self.notices).into_iter().collect::<Vec<_>>())]
            .into_iter()
            .chain([(Order::Repair, std::mem::take(&mut self.requests).into_values().collect())]);
        let waited = waited.flat_map(|(order, wishes)| wishes.into_iter().map(move |wish| (wish.session, order)));
        let under_way = std::mem::take(&mut self.under_way).into_values().map(|sent| (sent.session, sent.order));
        for (session, order) in waited.chain(under_way).collect::<Vec<_>>() {
            self.give_up(session, order, Dropped::Unassigned, effects);
        }
    }

    fn send(&mut self, now: Now, wish: &Wish, effects: &mut Vec<Effect>) -> (Serial, OutgoingRecord) {
        let Wish { rae, device, session, kind } = wish;
        let order = match kind {
            CommandKind::Reonboard { epoch, .. } => {
                let (device, session, epoch) = (*device, *session, *epoch);
                effects.push(Effect::Fact(Fact::NoticeSent { device, session, epoch }));
                Order::Notice
            }
            CommandKind::Snapshot | CommandKind::Probe | CommandKind::Set { .. } => {
                effects.push(Effect::Fact(Fact::RepairRequested(*device, *session)));
                Order::Repair
            }
        };
        let life = i64::try_from(self.settings.expires_after.as_millis()).unwrap_or(i64::MAX);
        let id = uuid::Builder::from_random_bytes(self.rng.random::<u128>().to_be_bytes()).into_uuid();
        let command = Command { id, expires_at: Wall(now.wall.0.saturating_add(life)), kind: kind.clone() };
        let record = OutgoingRecord {
            topic: kafka_topic::COMMANDS,
            key: Topic::Command(rae.clone(), *session).to_string().into(),
            value: command.encode().into(),
            timestamp: now.wall,
            headers: vec![(ISSUER, self.settings.issuer.to_string())],
        };
        let sent = match order {
            Order::Notice => &mut self.told,
            Order::Repair => &mut self.asked,
        };
        sent.renew(*session, now.mono + self.settings.snapshot_period);
        self.last += 1;
        let until = now.mono + self.settings.expires_after;
        let sent = Sent { session: *session, order, record: record.clone(), until, failures: 0 };
        self.under_way.insert(self.last, sent);
        (self.last, record)
    }

    /// It was never said, as far as we know: the next snapshot may make us say it again.
    fn give_up(&mut self, session: Session, order: Order, why: Dropped, effects: &mut Vec<Effect>) {
        match order {
            Order::Notice => self.told.forget(session),
            Order::Repair => self.asked.forget(session),
        }
        effects.push(dropped(session, order, why));
    }
}

fn dropped(session: Session, order: Order, why: Dropped) -> Effect {
    Effect::Fact(Fact::CommandDropped { session, order, why })
}
