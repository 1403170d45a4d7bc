//! One partition: records in order, one write in flight, a durable prefix.
//!
//! Every record becomes an entry and part of a batch, also one that is poison or changes nothing, so that
//! [`Rows::feed`](crate::merge::Rows) tells how far the partition is read. An entry is done when its rows, or its dead
//! letter, are durable; the durable offset moves over the entries that are done at the front.

mod write;

use std::collections::{BTreeSet, VecDeque};

use super::{
    Awaited, Class, Config, Context, Effect, Fact, GapEnd, Generation, Offset, Partition, PartitionGauges, Record,
    batch::Batch,
    entry::{Entry, Stage, read},
    gaps::Closed,
    orders::Asked,
    track::{Key, Sessions, Standing},
};
use crate::{
    bridge::ProduceOutcome,
    consume::Progress,
    event::{Event, kafka_topic},
    merge::Feed,
    sabotage::{Bug, planted},
    time::{Mono, Wall},
};
use write::Write;

/// Names an entry; counts the records that were taken.
pub(super) type Serial = u64;

/// Payload bytes at which a partition is paused, whatever its records: 100 records of the largest size.
const BYTE_CREDIT: usize = 25 * 1024 * 1024;

/// How far ahead of the registry's clock a receive time is believed, in milliseconds: more than clocks that are kept differ,
/// and far below a lease. One record from a clock that is days ahead would make every device of its partition look dead.
const AHEAD_MS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct PartitionState {
    number: Partition,
    generation: Generation,
    next: Offset,
    durable: Offset,
    committed: Offset,
    newest: Wall,
    sessions: Sessions,
    entries: VecDeque<Entry>,
    /// Serial of the first entry.
    first: Serial,
    bytes: usize,
    open: Option<Batch>,
    closed: VecDeque<Batch>,
    write: Write,
    quarantine_retries: BTreeSet<(Mono, Serial)>,
    quarantining: usize,
    paused: bool,
    draining: bool,
}

impl PartitionState {
    pub(super) fn new(number: Partition, generation: Generation, start: Offset, config: &Config) -> PartitionState {
        let gap_wait = config.feedback.as_ref().filter(|feedback| feedback.repair).map(|feedback| feedback.gap_wait);
        PartitionState {
            number,
            generation,
            next: start,
            durable: start,
            committed: start,
            newest: Wall(i64::MIN),
            sessions: Sessions::new(config.tracked_sessions, gap_wait),
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            open: None,
            closed: VecDeque::new(),
            write: Write::Idle,
            quarantine_retries: BTreeSet::new(),
            quarantining: 0,
            paused: false,
            draining: false,
        }
    }

    pub(super) fn gauges(&self, config: &Config) -> PartitionGauges {
        let writing = match &self.write {
            Write::InFlight(job) => usize::try_from(job.range.end - job.range.start).unwrap_or(usize::MAX),
            Write::Idle | Write::Waiting { .. } => 0,
        };
        PartitionGauges {
            partition: self.number,
            buffered: self.entries.len(),
            buffered_cap: config.partition_credit,
            buffered_bytes: self.bytes,
            buffered_bytes_cap: BYTE_CREDIT,
            writing,
            quarantining: self.quarantining,
            sessions: self.sessions.len(),
            sessions_cap: self.sessions.cap(),
            gaps: self.sessions.gaps(),
            paused: self.paused,
            next: self.next,
            durable: self.durable,
            committed: self.committed,
        }
    }

    /// Takes a record that was read. One below the position was fetched again, and is taken already.
    pub(super) fn take(&mut self, mut record: Record, context: &mut Context<'_>) {
        if record.offset < self.next {
            return;
        }
        record.timestamp = record.timestamp.min(Wall(context.now.wall.0.saturating_add(AHEAD_MS)));
        self.next = record.offset + 1;
        self.newest = if planted(Bug::LeaseByClock) { context.now.wall } else { self.newest.max(record.timestamp) };
        let serial = self.first + self.entries.len() as Serial;
        let poison = match read(&record) {
            Ok(event) => {
                let class = self.merge(&record, event.as_ref(), context);
                self.push(record, Stage::Batched(class));
                None
            }
            Err(poison) => {
                self.batch(&record, None, context);
                self.push(record, Stage::Done);
                Some(poison)
            }
        };
        if let Some(poison) = poison {
            self.quarantine(serial, poison.reason(), poison.detail(), context);
        }
        self.regulate(context);
        self.start_write(context);
    }

    pub(super) fn quarantined(&mut self, serial: Serial, outcome: ProduceOutcome, context: &mut Context<'_>) {
        let index = self.index(serial);
        let entry = &mut self.entries[index];
        let Stage::Quarantining { reason, failures, .. } = &mut entry.stage else { return };
        match outcome {
            ProduceOutcome::Stored { .. } => {
                let (partition, offset, reason) = (self.number, entry.record.offset, *reason);
                entry.stage = Stage::Done;
                self.quarantining -= 1;
                context.fact(Fact::Quarantined { partition, offset, reason });
                self.settle(context);
            }
            // A refused letter has no other place to go, and the record is not to be lost: it waits until it is taken.
            ProduceOutcome::Refused { .. } | ProduceOutcome::Failed { .. } | ProduceOutcome::Unknown { .. } => {
                let at = context.retry_at(*failures);
                *failures = failures.saturating_add(1);
                self.quarantine_retries.insert((at, serial));
            }
        }
    }

    /// From now on nothing is waited for that is not under way, and nothing taken.
    pub(super) fn drain(&mut self, context: &mut Context<'_>) {
        self.draining = true;
        self.start_write(context);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.entries.is_empty() && self.open.is_none() && self.closed.is_empty() && matches!(self.write, Write::Idle)
    }

    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        while let Some(&(at, serial)) = self.quarantine_retries.first()
            && at <= now
        {
            self.quarantine_retries.pop_first();
            context.fact(Fact::RetriedQuarantine(self.number));
            self.send_letter(serial, context);
        }
        self.retry_write(context);
        if !self.draining {
            self.ask(context);
        }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Mono> {
        let write = match (&self.write, &self.open) {
            (Write::Waiting { until, .. }, _) => Some(*until),
            (Write::Idle, Some(open)) => Some(open.opened + config.batch_wait),
            (Write::Idle, None) | (Write::InFlight(_), _) => None,
        };
        let quarantine = self.quarantine_retries.first().map(|&(at, _)| at);
        let gap = if self.draining { None } else { self.sessions.deadline() };
        [write, quarantine, gap].into_iter().flatten().min()
    }

    /// Merges a record that could be decoded into the open batch.
    fn merge(&mut self, record: &Record, event: Option<&Event>, context: &mut Context<'_>) -> Class {
        let replaced = self.batch(record, event, context);
        let Some(Event::State(state)) = event else { return Class::Other };
        let mut closed = Vec::new();
        let standing = self.sessions.observe(context.now, state, record.timestamp, &mut closed);
        if let Standing::Gap { after } = standing {
            context.fact(Fact::GapOpened { device: state.device, after, before: state.version });
        }
        self.close(closed, context);
        if standing == Standing::Duplicate {
            return Class::Duplicate;
        }
        if replaced { Class::Applied } else { Class::Superseded }
    }

    /// Tells of gaps that ended; a request for a session that misses nothing any more need not be sent.
    fn close(&mut self, closed: Vec<(Key, Closed)>, context: &mut Context<'_>) {
        let mut unsent = None;
        for (key, closed) in closed {
            let (device, session) = key;
            let healed = self.sessions.gaps_of(key).is_none();
            if healed && context.orders.as_mut().is_some_and(|orders| orders.cancel(session)) {
                unsent = Some(key);
            }
            let by = match closed.by {
                GapEnd::RequestedSnapshot if unsent == Some(key) => GapEnd::Snapshot,
                by => by,
            };
            let after = context.now.mono.since(closed.opened);
            context.fact(Fact::GapClosed { device, session, by, after });
        }
    }

    /// Asks the sessions for a snapshot whose gaps have lasted long enough.
    fn ask(&mut self, context: &mut Context<'_>) {
        let Some(orders) = context.orders.as_mut() else { return };
        let now = context.now;
        while let Some(((device, session), rae)) = self.sessions.take_due(now.mono, |at| orders.is_young(now.wall, at))
        {
            match orders.ask(now.mono, (device, session, rae), context.effects) {
                Asked::Yes => self.sessions.set_asked((device, session)),
                Asked::NotBefore(at) => self.sessions.schedule((device, session), at),
                Asked::No => {}
            }
        }
    }

    fn batch(&mut self, record: &Record, event: Option<&Event>, context: &mut Context<'_>) -> bool {
        let serial = self.first + self.entries.len() as Serial;
        let feed = Feed { partition: self.number, next_offset: record.offset, received: self.newest };
        let open = self.open.get_or_insert_with(|| Batch::new(serial, context.now.mono, feed));
        let replaced = open.push(record.offset, record.timestamp, record.bytes(), event);
        if open.is_full(context.config.batch_rows) {
            self.closed.extend(self.open.take());
        }
        replaced
    }

    fn push(&mut self, record: Record, stage: Stage) {
        self.bytes += record.bytes();
        self.entries.push_back(Entry { record, stage });
    }

    fn quarantine(&mut self, serial: Serial, reason: &'static str, detail: String, context: &mut Context<'_>) {
        let index = self.index(serial);
        self.entries[index].stage = Stage::Quarantining { reason, detail, failures: 0 };
        self.quarantining += 1;
        self.send_letter(serial, context);
    }

    fn send_letter(&mut self, serial: Serial, context: &mut Context<'_>) {
        let Entry { record, stage } = &self.entries[self.index(serial)];
        if let Stage::Quarantining { reason, detail, .. } = stage {
            let letter = record.letter(kafka_topic::EVENTS, reason, detail);
            let id = context.await_answer(Awaited::Quarantine(self.number, serial));
            context.effects.push(Effect::Quarantine(id, letter));
        }
    }

    /// Moves the durable offset over what is done at the front.
    fn settle(&mut self, context: &mut Context<'_>) {
        while let Some(entry) = self.entries.pop_front_if(|entry| matches!(entry.stage, Stage::Done)) {
            self.first += 1;
            self.bytes -= entry.record.bytes();
            self.durable = entry.record.offset + 1;
        }
        self.regulate(context);
    }

    fn regulate(&mut self, context: &mut Context<'_>) {
        let credit = context.config.partition_credit;
        if !self.paused && (self.entries.len() >= credit || self.bytes >= BYTE_CREDIT) {
            self.paused = true;
            context.effects.push(Effect::Pause(self.generation, self.number));
            context.fact(Fact::Paused(self.number));
        } else if self.paused && !self.draining && self.entries.len() <= credit / 2 && self.bytes <= BYTE_CREDIT / 2 {
            self.paused = false;
            context.effects.push(Effect::Resume(self.generation, self.number));
            context.fact(Fact::Resumed(self.number));
        }
    }

    fn index(&self, serial: Serial) -> usize {
        usize::try_from(serial - self.first).expect("the buffer fits into memory")
    }
}

impl Progress for PartitionState {
    fn committable(&self) -> Offset {
        if self.next > self.durable && planted(Bug::RegistryCommitsEarly) { self.next } else { self.durable }
    }

    fn committed(&self) -> Offset {
        self.committed
    }

    fn set_committed(&mut self, offset: Offset) {
        self.committed = offset;
    }
}
