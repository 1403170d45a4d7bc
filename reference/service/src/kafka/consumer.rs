//! One member of a consumer group, as the cores that read Kafka see it: registry and downlink.
//!
//! A thread of its own polls librdkafka, hands records over in order and carries out commits between two polls
//! ([`super::reader`]). It is supervised: when it fails or panics, the core is told that its generation is lost, and the
//! thread starts again with a new member after a capped back-off.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use dmp_core::{
    bridge::downlink,
    consume::{CommitOutcome, Generation, Offset, Partition, Record},
    core::EffectId,
    registry,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Fetch, KafkaError, client,
    mailbox::{CommitRequest, Flow, Mailbox},
    reader::{Reader, Stopped},
};
use crate::config::{Backoff, Kafka, Start};

/// Settings of a group member.
pub struct ConsumerConfig {
    /// The cluster.
    pub kafka: Kafka,
    /// Consumer group.
    pub group: String,
    /// Client id.
    pub client_id: String,
    /// The topic to read.
    pub topic: &'static str,
    /// When the broker answers.
    pub fetch: Fetch,
    /// Where to start in a partition in which the group has no committed offset.
    pub start: Start,
    /// How long the core may take to drain a revoked generation. The thread waits a little longer, for the answer.
    pub drain_within: Duration,
    /// Waits before a failed reader is started again.
    pub backoff: Backoff,
    /// Asked before each poll: whether to fail. For tests of supervision from outside.
    pub fault: Box<dyn Fn() -> bool + Send>,
    /// Told each time the reader is started again, with the reason.
    pub restarted: Box<dyn Fn(&str) + Send>,
}

/// What a group member tells its core.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Partitions were assigned, each with the offset at which reading starts. None of them is paused.
    Assigned(Generation, Vec<(Partition, Offset)>),
    /// Partitions are about to be taken away: [`Consumer::drained`] is waited for.
    Revoked(Generation),
    /// Partitions were lost without a chance to commit.
    Lost(Generation),
    /// A record was read.
    Record(Generation, Record),
    /// Answer to [`Consumer::commit`].
    Committed(EffectId, CommitOutcome),
}

impl From<Event> for registry::Event {
    fn from(event: Event) -> registry::Event {
        match event {
            Event::Assigned(generation, starts) => registry::Event::Assigned(generation, starts),
            Event::Revoked(generation) => registry::Event::Revoked(generation),
            Event::Lost(generation) => registry::Event::Lost(generation),
            Event::Record(generation, record) => registry::Event::Record(generation, record),
            Event::Committed(id, outcome) => registry::Event::Committed(id, outcome),
        }
    }
}

impl From<Event> for downlink::Event {
    fn from(event: Event) -> downlink::Event {
        match event {
            Event::Assigned(generation, starts) => downlink::Event::Assigned(generation, starts),
            Event::Revoked(generation) => downlink::Event::Revoked(generation),
            Event::Lost(generation) => downlink::Event::Lost(generation),
            Event::Record(generation, record) => downlink::Event::Record(generation, record),
            Event::Committed(id, outcome) => downlink::Event::Committed(id, outcome),
        }
    }
}

/// A group member; its events go into the channel that it was started with.
///
/// Dropping it makes the member leave its group; [`Consumer::stop`] also waits for that.
#[derive(Debug)]
pub struct Consumer {
    mailbox: Arc<Mailbox>,
    events: mpsc::Sender<Event>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Consumer {
    /// Starts a group member on a thread of its own. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`KafkaError`] for refused settings, or when the thread cannot be started. A broker that is away is none.
    pub fn start(config: ConsumerConfig, events: mpsc::Sender<Event>) -> Result<Consumer, KafkaError> {
        let native = client::consumer(&config.kafka, &config.client_id, &config.group, config.fetch)?;
        native.create_native_config().map_err(KafkaError::settings)?;
        let mailbox = Arc::new(Mailbox::default());
        let (end, ended) = oneshot::channel();
        let name = "kafka-reader";
        let runtime = tokio::runtime::Handle::current();
        let (thread_mailbox, thread_events) = (Arc::clone(&mailbox), events.clone());
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let generations = AtomicU64::new(0);
                let reader = Reader::new(config, native, thread_mailbox, thread_events, runtime, &generations);
                supervise(&reader);
                drop(reader);
                let _nobody_waits = end.send(());
            })
            .map_err(|source| KafkaError::Thread { name, source })?;
        Ok(Consumer { mailbox, events, ended: Some(ended) })
    }

    /// Asks for a commit, to be answered with [`Event::Committed`]; never waits.
    pub fn commit(&self, id: EffectId, generation: Generation, offsets: Vec<(Partition, Offset)>) {
        let request = CommitRequest { id, generation, offsets };
        let displaced = self.mailbox.post(|requests| requests.commit.replace(request));
        if let Some(displaced) = displaced {
            let reason = "displaced by a newer commit".to_owned();
            // A core has one commit under way, so this is not reached; were it, the channel has room for one answer.
            let answer = Event::Committed(displaced.id, CommitOutcome::Failed { reason });
            if self.events.try_send(answer).is_err() {
                tracing::error!("a displaced commit could not be answered");
            }
        }
    }

    /// Stops reading a partition; what librdkafka had fetched of it is fetched again later.
    pub fn pause(&self, generation: Generation, partition: Partition) {
        self.mailbox.post(|requests| requests.flows.insert(partition, (generation, Flow::Pause)));
    }

    /// Reads a partition again.
    pub fn resume(&self, generation: Generation, partition: Partition) {
        self.mailbox.post(|requests| requests.flows.insert(partition, (generation, Flow::Resume)));
    }

    /// Tells that a revoked generation is drained, so that its partitions can be given away.
    pub fn drained(&self, generation: Generation) {
        self.mailbox.post(|requests| requests.drained = requests.drained.max(Some(generation)));
    }

    /// Leaves the group and waits until that is done. Nothing is committed on the way.
    pub async fn stop(mut self) {
        self.mailbox.post(|requests| requests.stop = true);
        if let Some(ended) = self.ended.take() {
            let _thread_gone = ended.await;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.mailbox.post(|requests| requests.stop = true);
    }
}

/// Runs the reader until it is told to stop; again after each failure.
fn supervise(reader: &Reader<'_>) {
    let mut failures = 0;
    loop {
        let reason = match catch_unwind(AssertUnwindSafe(|| reader.run(&mut failures))) {
            Ok(Ok(Stopped)) => return,
            Ok(Err(error)) => crate::program::chain(&error),
            Err(panic) => format!("panic: {}", crate::stage::panic_text(panic.as_ref())),
        };
        failures += 1;
        tracing::error!(reason, failures, "kafka reader failed and is started again");
        if reader.rest(&reason, failures).is_err() {
            return;
        }
    }
}
