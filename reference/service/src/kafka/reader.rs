//! The polling thread of a group member.
//!
//! One loop: requests of the core, then one record. It never blocks on the core without serving its commits, because a
//! core that drains needs them: so at most one record is held while the core's channel is full, and a revoked
//! generation is drained between two polls, outside of librdkafka's callback.
//!
//! Every `TopicPartitionList` is dropped in the function that made it: one that is alive when the consumer is dropped
//! blocks that for ever.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dmp_core::{
    consume::{CommitOutcome, Generation, Offset, Partition, Record},
    time::Wall,
};
use rdkafka::{
    ClientConfig, ClientContext, Message, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError as NativeError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    types::RDKafkaRespErr,
};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    KafkaError,
    client::Words,
    consumer::{ConsumerConfig, Event},
    mailbox::{CommitRequest, Flow, Mailbox},
};
use crate::config::Start;

/// With nothing to read the loop wakes at least this often: librdkafka's own events have no bell.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// The drain is bounded by the core; the thread waits this much longer for its answer.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// The reader was told to stop.
pub(super) struct Stopped;

/// The reading thread's state that outlives one group member.
pub(super) struct Reader<'a> {
    config: ConsumerConfig,
    native: ClientConfig,
    mailbox: Arc<Mailbox>,
    events: mpsc::Sender<Event>,
    runtime: Handle,
    generations: &'a AtomicU64,
}

/// One group member.
struct Member<'a> {
    reader: &'a Reader<'a>,
    consumer: BaseConsumer<Rebalances>,
    /// The generation whose partitions are assigned.
    generation: Option<Generation>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        config: ConsumerConfig,
        native: ClientConfig,
        mailbox: Arc<Mailbox>,
        events: mpsc::Sender<Event>,
        runtime: Handle,
        generations: &'a AtomicU64,
    ) -> Reader<'a> {
        Reader { config, native, mailbox, events, runtime, generations }
    }

    /// Joins the group and reads until told to stop; `failures` is set to zero once records flow again.
    pub(super) fn run(&self, failures: &mut u32) -> Result<Stopped, KafkaError> {
        let context = Rebalances::default();
        let mut consumer: BaseConsumer<Rebalances> =
            BaseConsumer::from_config_and_context(&self.native, context).map_err(KafkaError::settings)?;
        let mailbox = Arc::clone(&self.mailbox);
        consumer.set_nonempty_callback(move || mailbox.bell.notify_one());
        consumer.subscribe(&[self.config.topic]).map_err(|source| self.failed("subscribing to", source))?;
        Member { reader: self, consumer, generation: None }.read(failures)
    }

    /// Tells the core that what it had is lost, answers its commit, and waits out the back-off.
    pub(super) fn rest(&self, reason: &str, failures: u32) -> Result<(), Stopped> {
        (self.config.restarted)(reason);
        let lost = Generation(self.generations.load(Ordering::Relaxed));
        if lost > Generation(0) {
            self.tell(Event::Lost(lost))?;
        }
        let until = Instant::now() + wait_of(self.config.backoff, failures);
        loop {
            self.refuse_requests()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.wait_for_bell(left);
        }
    }

    /// While there is no group member, every commit is of a generation that is gone.
    fn refuse_requests(&self) -> Result<(), Stopped> {
        if self.mailbox.stopping() {
            return Err(Stopped);
        }
        let (commit, _flows) = self.mailbox.take();
        match commit {
            Some(commit) => self.tell(Event::Committed(commit.id, CommitOutcome::Stale)),
            None => Ok(()),
        }
    }

    /// The core's loop always takes events, so this wait is short; a core that is gone means stop.
    fn tell(&self, event: Event) -> Result<(), Stopped> {
        self.events.blocking_send(event).map_err(|_core_gone| Stopped)
    }

    fn wait_for_bell(&self, at_most: Duration) {
        self.runtime.block_on(async {
            let _rung_or_late = tokio::time::timeout(at_most, self.mailbox.bell.notified()).await;
        });
    }

    fn failed(&self, doing: &str, source: NativeError) -> KafkaError {
        KafkaError::request(format!("{doing} kafka topic {}", self.config.topic), source)
    }
}

/// The `failures`-th wait: doubled each time, capped. Not jittered: one reader per process.
fn wait_of(backoff: crate::config::Backoff, failures: u32) -> Duration {
    backoff.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(backoff.most)
}

impl Drop for Member<'_> {
    /// The consumer's own drop polls until the group is left: from here on a rebalance is answered within its callback,
    /// and one that still waits for an answer is answered now. Also when a panic unwinds.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "giving away partitions of a closing consumer");
        }
    }
}

/// How one turn of the loop ended early.
enum Break {
    Stopped,
    Failed(KafkaError),
}

impl From<Stopped> for Break {
    fn from(Stopped: Stopped) -> Break {
        Break::Stopped
    }
}

impl From<KafkaError> for Break {
    fn from(error: KafkaError) -> Break {
        Break::Failed(error)
    }
}

impl Member<'_> {
    fn read(mut self, failures: &mut u32) -> Result<Stopped, KafkaError> {
        loop {
            match self.turn(failures) {
                Ok(()) => {}
                Err(Break::Stopped) => return Ok(Stopped),
                Err(Break::Failed(error)) => return Err(error),
            }
        }
    }

    /// Requests, then at most one message or rebalance; waits where there is neither.
    fn turn(&mut self, failures: &mut u32) -> Result<(), Break> {
        self.serve_requests()?;
        if (self.reader.config.fault)() {
            return Err(self.reader.failed("reading (provoked failure)", NativeError::Canceled).into());
        }
        let polled = match self.consumer.poll(Duration::ZERO) {
            None => Polled::Nothing,
            Some(Ok(message)) => Polled::Record(record_of(&message)),
            Some(Err(error)) => Polled::Error(error),
        };
        if let Some(rebalance) = self.consumer.context().take() {
            return self.rebalance(rebalance);
        }
        match (polled, self.generation) {
            (Polled::Record(record), Some(generation)) => {
                *failures = 0;
                self.deliver(generation, record)
            }
            // Of a generation that was just given away.
            (Polled::Record(_), None) => Ok(()),
            (Polled::Nothing, _) => {
                self.reader.wait_for_bell(IDLE_WAIT);
                Ok(())
            }
            (Polled::Error(error), _) => self.complain(error),
        }
    }

    fn complain(&self, error: NativeError) -> Result<(), Break> {
        match error {
            NativeError::MessageConsumptionFatal(_) => Err(self.reader.failed("reading", error).into()),
            // Everything else librdkafka heals by itself: a broker that is away, a leader that moved.
            error => {
                tracing::warn!(%error, topic = self.reader.config.topic, "reading kafka");
                Ok(())
            }
        }
    }

    /// Hands over the one held record; serves the core's requests while its channel is full.
    fn deliver(&mut self, generation: Generation, record: Record) -> Result<(), Break> {
        let mut event = Event::Record(generation, record);
        loop {
            event = match self.reader.events.try_send(event) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Break::Stopped),
                Err(mpsc::error::TrySendError::Full(event)) => event,
            };
            let (mailbox, events) = (&self.reader.mailbox, &self.reader.events);
            self.reader.runtime.block_on(async {
                tokio::select! {
                    _room = events.reserve() => {}
                    () = mailbox.bell.notified() => {}
                }
            });
            self.serve_requests()?;
        }
    }

    fn serve_requests(&mut self) -> Result<(), Break> {
        if self.reader.mailbox.stopping() {
            return Err(Break::Stopped);
        }
        let (commit, flows) = self.reader.mailbox.take();
        for (partition, (generation, flow)) in flows {
            if Some(generation) == self.generation {
                self.set_flow(partition, flow)?;
            }
        }
        if let Some(commit) = commit {
            let id = commit.id;
            let outcome = self.commit(commit);
            self.reader.tell(Event::Committed(id, outcome))?;
        }
        Ok(())
    }

    fn set_flow(&self, partition: Partition, flow: Flow) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.reader.config.topic, partition);
        match flow {
            Flow::Pause => self.consumer.pause(&list),
            Flow::Resume => self.consumer.resume(&list),
        }
        .map_err(|source| self.reader.failed("pausing or resuming a partition of", source))
    }

    /// Commits synchronously: an asynchronous commit would never tell how it ended.
    fn commit(&self, request: CommitRequest) -> CommitOutcome {
        if Some(request.generation) != self.generation {
            return CommitOutcome::Stale;
        }
        let failed = |error: NativeError| CommitOutcome::Failed { reason: error.to_string() };
        let list = match self.offsets(&request.offsets) {
            Ok(list) => list,
            Err(error) => return failed(error),
        };
        match self.consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => match error.rdkafka_error_code() {
                // Nothing newer than what is committed.
                Some(RDKafkaErrorCode::NoOffset) => CommitOutcome::Committed,
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::FencedInstanceId
                    | RDKafkaErrorCode::AssignmentLost,
                ) => CommitOutcome::Stale,
                Some(_) | None => failed(error),
            },
        }
    }

    fn offsets(&self, offsets: &[(Partition, Offset)]) -> Result<TopicPartitionList, NativeError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(self.reader.config.topic, *partition, rdkafka::Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    fn rebalance(&mut self, rebalance: Rebalance) -> Result<(), Break> {
        match rebalance {
            Rebalance::Assign(partitions) => self.assign(&partitions),
            Rebalance::Revoke => self.revoke(),
            Rebalance::Lose => {
                if let Some(lost) = self.generation.take() {
                    self.reader.tell(Event::Lost(lost))?;
                }
                self.unassign()
            }
        }
    }

    /// Starts a generation at the committed offsets, or as `start` says where there is none.
    fn assign(&mut self, partitions: &[Partition]) -> Result<(), Break> {
        let Starts { starts, ends } = self.find_starts(partitions)?;
        let list = self.offsets(&starts).map_err(|source| self.reader.failed("assigning partitions of", source))?;
        self.consumer.assign(&list).map_err(|source| self.reader.failed("assigning partitions of", source))?;
        drop(list);
        self.commit_ends(&ends)?;
        let generation = Generation(self.reader.generations.fetch_add(1, Ordering::Relaxed) + 1);
        self.generation = Some(generation);
        tracing::info!(generation = generation.0, ?starts, "partitions assigned");
        self.reader.tell(Event::Assigned(generation, starts))?;
        Ok(())
    }

    /// The end is where it was first found: without this, a member that ends before its first commit would leave its
    /// successor to find a later one, and what came in between would be skipped.
    fn commit_ends(&self, ends: &[(Partition, Offset)]) -> Result<(), Break> {
        if ends.is_empty() {
            return Ok(());
        }
        let list = self.offsets(ends).map_err(|source| self.reader.failed("committing the start in", source))?;
        let committed = self.consumer.commit(&list, CommitMode::Sync);
        committed.map_err(|source| self.reader.failed("committing the start in", source).into())
    }

    /// A start that is guessed could skip records: this asks until it knows, or until it is told to stop.
    fn find_starts(&mut self, partitions: &[Partition]) -> Result<Starts, Break> {
        let mut tries = 0;
        loop {
            match self.try_find_starts(partitions) {
                Ok(starts) => return Ok(starts),
                Err(error) => tracing::warn!(%error, "asking where to start in the assigned partitions"),
            }
            tries += 1;
            let until = Instant::now() + wait_of(self.reader.config.backoff, tries);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.serve_requests()?;
                self.reader.wait_for_bell(left);
            }
        }
    }

    fn try_find_starts(&self, partitions: &[Partition]) -> Result<Starts, NativeError> {
        let (topic, timeout) = (self.reader.config.topic, self.reader.config.kafka.request_timeout);
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked.add_partition(topic, *partition);
        }
        let committed: BTreeMap<Partition, rdkafka::Offset> = {
            let answered = self.consumer.committed_offsets(asked, timeout)?;
            answered.elements().iter().map(|element| (element.partition(), element.offset())).collect()
        };
        let mut found = Starts::default();
        for (partition, offset) in committed {
            let start = match (offset, self.reader.config.start) {
                (rdkafka::Offset::Offset(offset), _) => offset,
                (_no_committed_offset, Start::Earliest) => self.consumer.fetch_watermarks(topic, partition, timeout)?.0,
                (_no_committed_offset, Start::Latest) => {
                    let end = self.consumer.fetch_watermarks(topic, partition, timeout)?.1;
                    found.ends.push((partition, end));
                    end
                }
            };
            found.starts.push((partition, start));
        }
        Ok(found)
    }

    /// Lets the core drain and commit, then gives the partitions away.
    fn revoke(&mut self) -> Result<(), Break> {
        let Some(generation) = self.generation else { return self.unassign() };
        tracing::info!(generation = generation.0, "partitions revoked");
        self.reader.tell(Event::Revoked(generation))?;
        let until = Instant::now() + self.reader.config.drain_within + DRAIN_GRACE;
        while !self.reader.mailbox.drained(generation) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!(generation = generation.0, "revoked partitions were not drained in time");
                self.reader.tell(Event::Lost(generation))?;
                break;
            }
            self.serve_requests()?;
            // What came with the last request may have been the answer.
            if !self.reader.mailbox.drained(generation) {
                self.reader.wait_for_bell(left.min(IDLE_WAIT));
            }
        }
        // A commit that was posted right before the answer.
        self.serve_requests()?;
        self.generation = None;
        self.unassign()
    }

    fn unassign(&self) -> Result<(), Break> {
        self.consumer.unassign().map_err(|source| self.reader.failed("giving away partitions of", source).into())
    }
}

/// Where to start in each partition of a generation.
#[derive(Default)]
struct Starts {
    starts: Vec<(Partition, Offset)>,
    /// Those of them that are the end, for want of a committed offset.
    ends: Vec<(Partition, Offset)>,
}

enum Polled {
    Nothing,
    Record(Record),
    Error(NativeError),
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let retained = message.headers().is_some_and(|headers| {
        headers.iter().any(|header| header.key == "mqtt-retain" && header.value == Some(b"1".as_slice()))
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: Wall(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        retained,
    }
}

/// A rebalance that librdkafka waits for; answered by `assign` or `unassign`, outside of its callback.
enum Rebalance {
    Assign(Vec<Partition>),
    Revoke,
    Lose,
}

/// Notes a rebalance for the loop; there is at most one until it is answered.
#[derive(Default)]
struct Rebalances {
    words: Words,
    pending: Mutex<Option<Rebalance>>,
    closing: AtomicBool,
}

impl Rebalances {
    fn take(&self) -> Option<Rebalance> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.words.log(level, facility, message);
    }
    fn error(&self, error: NativeError, reason: &str) {
        self.words.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "giving away partitions of a closing consumer");
            }
            return;
        }
        let assigns = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let rebalance = if assigns {
            Rebalance::Assign(list.elements().iter().map(|element| element.partition()).collect())
        } else if consumer.assignment_lost() {
            Rebalance::Lose
        } else {
            Rebalance::Revoke
        };
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(rebalance);
    }
}
