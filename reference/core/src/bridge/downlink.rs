//! The way down: each record of `dmp.commands` becomes one MQTT publish at QoS 1, in order per key; its offset is
//! committed only after the broker has acknowledged it.
//!
//! A consumer of its own, with its own connection and a clean session. Reading is credit-based, the window of publishes
//! bounded; what is unacknowledged when a connection ends is sent again in order, with DUP, on the next.
//!
//! A command that has expired is not published: its issuer gets an error reply instead. What is no command goes to the
//! dead-letter topic. So every record ends in exactly one of: published and acknowledged, expired, dead-lettered.
//!
//! When partitions are taken away, what is published is waited for, and the rest left to their next owner; an agent that
//! gets a command twice tells by its id.

mod interface;
mod lane;
mod order;
mod window;

pub use interface::*;
pub use order::{EXPIRED, EXPIRED_IN_DOUBT};

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::{
    bridge::ProduceOutcome,
    consume::{Answered, CommitOutcome, CommitSettings, Commits, Generation, Offset, Partition, Record, pending},
    core::{ConnectionId, Core, EffectId, PacketId, Publication, Qos},
    event::kafka_topic,
    time::{Mono, Now, Wall},
};
use lane::{Flow, Lane, Serial, Stage};
use order::Order;
use window::Window;

/// A consumer of `dmp.commands` that publishes them.
#[derive(Debug)]
pub struct Downlink {
    config: Config,
    rng: Pcg64,
    phase: Phase,
    link: Link,
    last_connection: u64,
    failed_connects: u32,
    window: Window,
    assignment: Option<Assignment>,
    last_id: u64,
    awaited: BTreeMap<EffectId, Awaited>,
    /// The newest generation of which [`Effect::Drained`] was said.
    drained: Option<Generation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Stopping,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Waiting { until: Mono },
    Connecting(ConnectionId),
    Up(ConnectionId),
}

#[derive(Debug)]
struct Assignment {
    generation: Generation,
    lanes: BTreeMap<Partition, Lane>,
    commits: Commits,
    /// Commands that wait to be published, by arrival, and how many have arrived.
    queue: BTreeMap<u64, Queued>,
    arrived: u64,
    /// When each of them expires, as far as the clocks tell.
    expiring: BTreeSet<(Mono, u64)>,
    retries: BTreeSet<(Mono, Partition, Serial)>,
    /// When a drain that is under way ends, whatever is left.
    drain_until: Option<Mono>,
    /// Whether the driver waits for [`Effect::Drained`].
    revoked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    partition: Partition,
    serial: Serial,
    due: Mono,
}

/// Who waits for the answer to an effect.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Produce(Partition, Serial),
    Commit,
}

impl Downlink {
    /// A downlink that has not started; `seed` drives its back-off.
    ///
    /// # Panics
    /// If a limit in `config` is zero.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Downlink {
        let limits = [config.window > 0, config.partition_credit > 0, config.commit_records > 0];
        assert!(limits.iter().all(|&is_positive| is_positive), "a limit of zero takes nothing");
        Downlink {
            rng: Pcg64::seed_from_u64(seed),
            phase: Phase::New,
            link: Link::Down,
            last_connection: 0,
            failed_connects: 0,
            window: Window::new(config.window),
            assignment: None,
            last_id: 0,
            awaited: BTreeMap::new(),
            drained: None,
            config,
        }
    }

    /// The downlink's queues and their bounds.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let gauges = Gauges {
            window: self.window.len(),
            window_cap: self.config.window.into(),
            connected: self.up().is_some(),
            ..Gauges::default()
        };
        let Some(assignment) = &self.assignment else { return gauges };
        Gauges {
            partitions: assignment.lanes.values().map(|lane| lane.gauges(self.config.partition_credit)).collect(),
            waiting: assignment.queue.len(),
            producing: assignment.lanes.values().map(Lane::producing).sum(),
            committing: assignment.commits.is_under_way(),
            draining: assignment.drain_until.is_some(),
            ..gauges
        }
    }

    fn connect(&mut self, effects: &mut Vec<Effect>) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.link = Link::Connecting(connection);
        effects.push(Effect::Connect(connection));
    }

    /// What the broker owed on the last connection is sent again, in order, before anything new.
    fn connected(&mut self, now: Now, connection: ConnectionId, effects: &mut Vec<Effect>) {
        if self.link != Link::Connecting(connection) {
            return;
        }
        self.link = Link::Up(connection);
        for mut flight in self.window.take_all() {
            let Some((partition, serial)) = flight.of else { continue };
            let Some((offset, order)) = self.published(partition, serial) else { continue };
            if now.wall >= order.expires_at {
                self.expire(now.wall, partition, serial, effects);
                continue;
            }
            flight.sent = now.mono;
            self.window.put_back(flight);
            self.publish(connection, flight.packet, true, partition, serial, effects);
            effects.push(Effect::Fact(Fact::Resent(partition, offset)));
        }
    }

    fn disconnected(&mut self, now: Now, connection: ConnectionId) {
        let current = match self.link {
            Link::Connecting(current) | Link::Up(current) => Some(current),
            Link::Down | Link::Waiting { .. } => None,
        };
        if current != Some(connection) {
            return;
        }
        self.link = if self.phase == Phase::Running {
            let wait = self.config.backoff.wait(self.failed_connects, &mut self.rng);
            self.failed_connects = self.failed_connects.saturating_add(1);
            Link::Waiting { until: now.mono + wait }
        } else {
            Link::Down
        };
    }

    fn acknowledged(&mut self, connection: ConnectionId, packet: PacketId, effects: &mut Vec<Effect>) {
        if self.up() != Some(connection) {
            return;
        }
        // Only now: a broker that accepts and then throws out must not be met without back-off.
        self.failed_connects = 0;
        let flight = self.window.acknowledged(packet);
        if let Some((partition, serial)) = flight.and_then(|flight| flight.of) {
            self.ended(partition, serial, End::Delivered, effects);
        }
    }

    fn assigned(
        &mut self,
        now: Now,
        generation: Generation,
        starts: &[(Partition, Offset)],
        effects: &mut Vec<Effect>,
    ) {
        // A driver that assigns without having revoked has lost what it had.
        self.end(effects);
        if matches!(self.phase, Phase::Stopping | Phase::Stopped) {
            return;
        }
        let lane = |&(partition, start): &(Partition, Offset)| (partition, Lane::new(partition, generation, start));
        self.assignment = Some(Assignment {
            generation,
            lanes: starts.iter().map(lane).collect(),
            commits: Commits::new(now.mono + self.config.commit_every),
            queue: BTreeMap::new(),
            arrived: 0,
            expiring: BTreeSet::new(),
            retries: BTreeSet::new(),
            drain_until: None,
            revoked: false,
        });
    }

    fn revoked(&mut self, now: Now, generation: Generation, effects: &mut Vec<Effect>) {
        match &mut self.assignment {
            Some(assignment) if assignment.generation == generation => {
                assignment.revoked = true;
                assignment.drain(now.mono + self.config.drain_within);
            }
            // It was lost or found to be stale: nothing is left to drain, but the driver waits for a word.
            Some(_) | None if self.drained < Some(generation) => {
                self.drained = Some(generation);
                effects.push(Effect::Drained(generation));
            }
            Some(_) | None => {}
        }
    }

    fn lost(&mut self, generation: Generation, effects: &mut Vec<Effect>) {
        if self.assignment.as_ref().is_some_and(|assignment| assignment.generation == generation) {
            self.end(effects);
        }
    }

    /// Drops the assignment with all that it buffers.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        self.awaited.clear();
        self.window.let_go(|_, _| false);
        if let Some(Assignment { generation, revoked: true, .. }) = self.assignment.take() {
            self.drained = Some(generation);
            effects.push(Effect::Drained(generation));
        }
    }

    fn take(&mut self, now: Now, generation: Generation, record: Record, effects: &mut Vec<Effect>) {
        let Some(assignment) = &mut self.assignment else { return };
        if assignment.generation != generation || assignment.drain_until.is_some() {
            return;
        }
        let partition = record.partition;
        let Some(lane) = assignment.lanes.get_mut(&partition) else { return };
        let Some(serial) = lane.push(record, stage_of) else { return };
        match lane.entry(serial).map(|entry| &entry.stage) {
            Some(Stage::Waiting(order)) => {
                let due = due(now, order.expires_at);
                assignment.enqueue(Queued { partition, serial, due });
            }
            Some(Stage::Published(_) | Stage::Producing { .. } | Stage::Done) | None => {
                self.produce(partition, serial, effects);
            }
        }
    }

    /// Publishes what is next in turn, as long as there is room.
    fn pump(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(connection) = self.up() else { return };
        while self.window.has_room()
            && let Some(Queued { partition, serial, .. }) = self.assignment.as_mut().and_then(Assignment::next)
        {
            let Some(entry) = self.entry(partition, serial) else { continue };
            let offset = entry.record.offset;
            let Stage::Waiting(order) = &entry.stage else { continue };
            if now.wall >= order.expires_at {
                self.expire(now.wall, partition, serial, effects);
                continue;
            }
            entry.stage = Stage::Published(order.clone());
            let packet = self.window.send(now.mono, (partition, serial));
            self.publish(connection, packet, false, partition, serial, effects);
            effects.push(Effect::Fact(Fact::Published(partition, offset)));
        }
    }

    fn publish(
        &mut self,
        connection: ConnectionId,
        packet: PacketId,
        dup: bool,
        partition: Partition,
        serial: Serial,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.entry(partition, serial) else { return };
        let Stage::Published(order) = &entry.stage else { return };
        let (topic, payload) = (order.topic.clone(), entry.record.value.clone().unwrap_or_default());
        let message = Publication { topic, payload, qos: Qos::AtLeastOnce, retain: false };
        effects.push(Effect::Publish { connection, packet, dup, message });
    }

    /// What has expired while it waited.
    fn expire_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(assignment) = &mut self.assignment
            && let Some((turn, queued)) = assignment.take_due(now.mono)
        {
            let Queued { partition, serial, .. } = queued;
            let Some(Stage::Waiting(order)) = self.entry(partition, serial).map(|entry| &entry.stage) else { continue };
            let expires_at = order.expires_at;
            if now.wall >= expires_at {
                self.expire(now.wall, partition, serial, effects);
            } else if let Some(assignment) = &mut self.assignment {
                // The wall clock was set back meanwhile.
                assignment.put(turn, Queued { due: due(now, expires_at), ..queued });
            }
        }
    }

    fn expire(&mut self, now: Wall, partition: Partition, serial: Serial, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entry(partition, serial) else { return };
        let (record, end) = match &entry.stage {
            Stage::Waiting(order) => (order.expired(now, EXPIRED), End::Expired),
            Stage::Published(order) => (order.expired(now, EXPIRED_IN_DOUBT), End::ExpiredInDoubt),
            Stage::Producing { .. } | Stage::Done => return,
        };
        entry.stage = Stage::Producing { record, end, failures: 0 };
        self.produce(partition, serial, effects);
    }

    fn produce(&mut self, partition: Partition, serial: Serial, effects: &mut Vec<Effect>) {
        self.last_id += 1;
        let id = EffectId(self.last_id);
        let Some(entry) = self.entry(partition, serial) else { return };
        let Stage::Producing { record, .. } = &entry.stage else { return };
        effects.push(Effect::Produce(id, record.clone()));
        self.awaited.insert(id, Awaited::Produce(partition, serial));
    }

    fn produced(&mut self, now: Now, id: EffectId, outcome: ProduceOutcome, effects: &mut Vec<Effect>) {
        let Some(Awaited::Produce(partition, serial)) = self.awaited.remove(&id) else { return };
        let backoff = self.config.backoff;
        let Downlink { assignment: Some(assignment), rng, .. } = self else { return };
        let Some(entry) = assignment.lanes.get_mut(&partition).and_then(|lane| lane.entry(serial)) else { return };
        let Stage::Producing { record, end, failures } = &mut entry.stage else { return };
        match outcome {
            ProduceOutcome::Stored { .. } => {
                let end = *end;
                self.ended(partition, serial, end, effects);
            }
            ProduceOutcome::Refused { reason } if record.topic != kafka_topic::DEAD_LETTER => {
                *record = entry.record.letter(kafka_topic::COMMANDS, "kafka", &reason);
                (*end, *failures) = (End::DeadLettered("kafka"), 0);
                self.produce(partition, serial, effects);
            }
            // A refused dead letter has no other place to go, and is not to be lost: it waits until Kafka takes it.
            ProduceOutcome::Refused { .. } | ProduceOutcome::Failed { .. } | ProduceOutcome::Unknown { .. } => {
                let at = now.mono + backoff.wait(*failures, rng);
                *failures = failures.saturating_add(1);
                assignment.retries.insert((at, partition, serial));
            }
        }
    }

    fn retry(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(assignment) = &mut self.assignment
            && let Some(&(at, partition, serial)) = assignment.retries.first()
            && at <= now.mono
        {
            assignment.retries.pop_first();
            effects.push(Effect::Fact(Fact::Retried));
            self.produce(partition, serial, effects);
        }
    }

    fn ended(&mut self, partition: Partition, serial: Serial, end: End, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entry(partition, serial) else { return };
        entry.stage = Stage::Done;
        effects.push(Effect::Fact(Fact::Ended(partition, entry.record.offset, end)));
    }

    fn committed(&mut self, now: Now, id: EffectId, outcome: CommitOutcome, effects: &mut Vec<Effect>) {
        let Some(Awaited::Commit) = self.awaited.remove(&id) else { return };
        let settings = self.config.commits();
        let Downlink { assignment: Some(Assignment { commits, lanes, .. }), rng, .. } = self else { return };
        match commits.answered(now.mono, outcome, lanes, settings, rng) {
            Answered::Committed(offsets) => {
                let fact = |(partition, offset)| Effect::Fact(Fact::Committed(partition, offset));
                effects.extend(offsets.into_iter().map(fact));
            }
            Answered::Failed => effects.push(Effect::Fact(Fact::FailedCommit)),
            Answered::Stale => self.end(effects),
        }
    }

    fn stop(&mut self, until: Mono) {
        self.phase = Phase::Stopping;
        if let Link::Waiting { .. } = self.link {
            self.link = Link::Down;
        }
        if let Some(assignment) = &mut self.assignment {
            assignment.drain(until);
        }
    }

    /// A connection on which the broker has fallen silent is given up: nothing may wait for ever.
    fn give_up_silent(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let (Some(connection), Some(at)) = (self.up(), self.silent_at())
            && at <= now.mono
        {
            effects.push(Effect::Fact(Fact::Unacknowledged));
            effects.push(Effect::Disconnect(connection));
            self.disconnected(now, connection);
        }
    }

    /// When the patience with the broker ends.
    fn silent_at(&self) -> Option<Mono> {
        self.up()?;
        self.window.oldest().map(|sent| sent + self.config.acknowledged_within)
    }

    /// What every event may bring about: publishes in turn, the credit, a commit, the end of a drain.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.let_go();
        self.pump(now, effects);
        if let Some(assignment) = &mut self.assignment {
            assignment.settle(self.config.partition_credit, effects);
        }
        self.commit(now, effects);
        let over = self.assignment.as_ref().is_some_and(|assignment| assignment.is_over(now.mono));
        if over {
            self.end(effects);
        }
        if self.phase == Phase::Stopping && self.assignment.is_none() {
            if let Link::Connecting(connection) | Link::Up(connection) = self.link {
                effects.push(Effect::Disconnect(connection));
            }
            self.link = Link::Down;
            self.phase = Phase::Stopped;
            effects.push(Effect::Stopped);
        }
    }

    /// In a drain, what is not published is left to the next owner; without a connection, what is published too.
    fn let_go(&mut self) {
        let is_up = self.up().is_some();
        let Some(assignment) = &mut self.assignment else { return };
        if assignment.drain_until.is_none() {
            return;
        }
        for lane in assignment.lanes.values_mut() {
            lane.let_go(|stage| match stage {
                Stage::Waiting(_) => true,
                Stage::Published(_) => !is_up,
                Stage::Producing { .. } | Stage::Done => false,
            });
        }
        (assignment.queue, assignment.expiring) = (BTreeMap::new(), BTreeSet::new());
        let Assignment { lanes, retries, .. } = assignment;
        let mut ours = |partition, serial| lanes.get_mut(&partition).is_some_and(|lane| lane.entry(serial).is_some());
        retries.retain(|&(_, partition, serial)| ours(partition, serial));
        self.window.let_go(ours);
    }

    fn commit(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let settings = self.config.commits();
        let Some(assignment) = &mut self.assignment else { return };
        let drained = assignment.lanes.values().all(Lane::is_empty);
        let last = assignment.drain_until.is_some_and(|until| drained || now.mono >= until);
        if let Some(offsets) = assignment.commits.start_if_due(now.mono, last, &assignment.lanes, settings) {
            self.last_id += 1;
            let id = EffectId(self.last_id);
            self.awaited.insert(id, Awaited::Commit);
            effects.push(Effect::Commit(id, assignment.generation, offsets));
        }
    }

    fn entry(&mut self, partition: Partition, serial: Serial) -> Option<&mut lane::Entry> {
        self.assignment.as_mut()?.lanes.get_mut(&partition)?.entry(serial)
    }

    /// Offset and order of what is published.
    fn published(&mut self, partition: Partition, serial: Serial) -> Option<(Offset, Order)> {
        let entry = self.entry(partition, serial)?;
        match &entry.stage {
            Stage::Published(order) => Some((entry.record.offset, order.clone())),
            Stage::Waiting(_) | Stage::Producing { .. } | Stage::Done => None,
        }
    }

    fn up(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Up(connection) => Some(connection),
            Link::Down | Link::Waiting { .. } | Link::Connecting(_) => None,
        }
    }
}

impl Assignment {
    fn enqueue(&mut self, queued: Queued) {
        self.arrived += 1;
        self.put(self.arrived, queued);
    }

    fn put(&mut self, turn: u64, queued: Queued) {
        self.queue.insert(turn, queued);
        self.expiring.insert((queued.due, turn));
    }

    /// Takes the next in turn.
    fn next(&mut self) -> Option<Queued> {
        let (turn, queued) = self.queue.pop_first()?;
        self.expiring.remove(&(queued.due, turn));
        Some(queued)
    }

    /// Takes the first that is due by now, and its turn.
    fn take_due(&mut self, now: Mono) -> Option<(u64, Queued)> {
        let &(due, turn) = self.expiring.first().filter(|(due, _)| *due <= now)?;
        self.expiring.remove(&(due, turn));
        Some((turn, self.queue.remove(&turn)?))
    }

    fn drain(&mut self, until: Mono) {
        self.drain_until = Some(self.drain_until.map_or(until, |earlier| earlier.min(until)));
    }

    fn settle(&mut self, credit: usize, effects: &mut Vec<Effect>) {
        let draining = self.drain_until.is_some();
        for lane in self.lanes.values_mut() {
            lane.settle();
            let number = lane.number;
            match lane.regulate(credit, draining) {
                Some(Flow::Pause(generation)) => {
                    effects.push(Effect::Pause(generation, number));
                    effects.push(Effect::Fact(Fact::Paused(number)));
                }
                Some(Flow::Resume(generation)) => {
                    effects.push(Effect::Resume(generation, number));
                    effects.push(Effect::Fact(Fact::Resumed(number)));
                }
                None => {}
            }
        }
    }

    /// Whether a drain has ended. At its bound the last commit is sent, but its answer not awaited.
    fn is_over(&self, now: Mono) -> bool {
        let drained = self.lanes.values().all(Lane::is_empty);
        let committed = !self.commits.is_under_way() && pending(&self.lanes) == 0;
        self.drain_until.is_some_and(|until| now >= until || (drained && committed))
    }
}

impl Config {
    fn commits(&self) -> CommitSettings {
        CommitSettings { records: self.commit_records, every: self.commit_every, backoff: self.backoff }
    }
}

fn stage_of(record: &Record) -> Stage {
    match Order::read(record) {
        Ok(order) => Stage::Waiting(order),
        Err(malformed) => {
            let (reason, detail) = (malformed.reason(), malformed.detail());
            let record = record.letter(kafka_topic::COMMANDS, reason, &detail);
            Stage::Producing { record, end: End::DeadLettered(reason), failures: 0 }
        }
    }
}

/// When it expires by the monotonic clock, if both clocks go alike.
fn due(now: Now, expires_at: Wall) -> Mono {
    now.mono + Duration::from_millis(u64::try_from(expires_at.0.saturating_sub(now.wall.0)).unwrap_or(0))
}

impl Core for Downlink {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            Event::Start if self.phase == Phase::New => {
                self.phase = Phase::Running;
                self.connect(effects);
            }
            Event::Start => {}
            Event::Connected(connection) => self.connected(now, connection, effects),
            Event::Disconnected(connection) => self.disconnected(now, connection),
            Event::Acknowledged(connection, packet) => self.acknowledged(connection, packet, effects),
            Event::Assigned(generation, starts) => self.assigned(now, generation, &starts, effects),
            Event::Revoked(generation) => self.revoked(now, generation, effects),
            Event::Lost(generation) => self.lost(generation, effects),
            Event::Record(generation, record) => self.take(now, generation, record, effects),
            Event::Produced(id, outcome) => self.produced(now, id, outcome, effects),
            Event::Committed(id, outcome) => self.committed(now, id, outcome, effects),
            Event::Stop { within } => self.stop(now.mono + within),
        }
        self.settle(now, effects);
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        if let Link::Waiting { until } = self.link
            && now.mono >= until
        {
            self.connect(effects);
        }
        self.give_up_silent(now, effects);
        self.expire_due(now, effects);
        self.retry(now, effects);
        self.settle(now, effects);
    }

    fn deadline(&self) -> Option<Mono> {
        let connect = match self.link {
            Link::Waiting { until } => Some(until),
            Link::Down | Link::Connecting(_) | Link::Up(_) => None,
        };
        let own = [connect, self.silent_at()];
        let Some(assignment) = &self.assignment else { return own.into_iter().flatten().min() };
        let assigned = [
            assignment.expiring.first().map(|&(due, _)| due),
            assignment.retries.first().map(|&(at, ..)| at),
            assignment.commits.deadline(&assignment.lanes),
            assignment.drain_until,
        ];
        own.into_iter().chain(assigned).flatten().min()
    }
}

#[cfg(test)]
mod tests;
