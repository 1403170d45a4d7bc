//! The producer: records are handed to librdkafka in order by one thread, and each is answered once.
//!
//! A full librdkafka buffer makes that thread wait, the bounded queue in front of it fills, and the core's window
//! stops reading: back-pressure. A fatal error of the idempotent producer (its sequence is lost) cannot be healed in
//! place: the thread makes a new producer, and what was under way is answered as unknown.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError as NativeError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc;

use super::{
    KafkaError,
    client::{self, Words},
};
use crate::config::Kafka;

/// Where answers go. Called on the producer's threads; may block.
type Answer = Arc<dyn Fn(EffectId, ProduceOutcome) + Send + Sync>;

/// A wait for room in librdkafka's buffer ends with a delivery, or after this, should one have been missed.
const ROOM_WAIT: Duration = Duration::from_millis(50);

/// Rest before a failed producer is made anew.
const REMAKE_REST: Duration = Duration::from_millis(200);

/// Stores records; see the module.
///
/// Dropping it gives up what is still under way: those records are answered, some as unknown.
#[derive(Debug)]
pub struct Producer {
    records: mpsc::Sender<(EffectId, OutgoingRecord)>,
}

impl Producer {
    /// Starts a producer that queues up to `queue` records in front of librdkafka's own buffer.
    ///
    /// `answer` is called once for each record, on the producer's own threads.
    ///
    /// # Errors
    /// [`KafkaError`] for refused settings, or when its thread cannot be started. A broker that is away is none.
    pub fn start(
        kafka: &Kafka,
        client_id: &str,
        queue: usize,
        answer: impl Fn(EffectId, ProduceOutcome) + Send + Sync + 'static,
    ) -> Result<Producer, KafkaError> {
        let config = client::producer(kafka, client_id)?;
        let answer: Answer = Arc::new(answer);
        let native = make(&config, &answer)?;
        let (records, queued) = mpsc::channel(queue);
        let name = "kafka-producer";
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || hand_over_supervised(native, &config, &answer, queued))
            .map_err(|source| KafkaError::Thread { name, source })?;
        Ok(Producer { records })
    }

    /// Hands over a record; never waits. Order of calls = order in the log, per partition.
    ///
    /// # Errors
    /// The outcome at once, and none later, with more records under way than `queue`: a core's window is smaller.
    pub fn produce(&self, id: EffectId, record: OutgoingRecord) -> Result<(), ProduceOutcome> {
        self.records
            .try_send((id, record))
            .map_err(|_full| ProduceOutcome::Failed { reason: "the producer's queue is full or gone".to_owned() })
    }

    /// Records that wait in front of librdkafka's buffer.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.records.max_capacity() - self.records.capacity()
    }
}

type Native = ThreadedProducer<Deliveries>;

fn make(config: &ClientConfig, answer: &Answer) -> Result<Native, KafkaError> {
    let context = Deliveries { answer: Arc::clone(answer), words: Words::default(), room: Arc::default() };
    ThreadedProducer::from_config_and_context(config, context).map_err(KafkaError::settings)
}

type Queue = mpsc::Receiver<(EffectId, OutgoingRecord)>;

/// Hands over until the queue is closed; after a fatal error or a panic with a new producer.
fn hand_over_supervised(native: Native, config: &ClientConfig, answer: &Answer, mut queue: Queue) {
    let mut native = Some(native);
    loop {
        let ended = match native.take().map_or_else(|| make(config, answer), Ok) {
            Ok(native) => catch_unwind(AssertUnwindSafe(|| hand_over(&native, answer, &mut queue)))
                .unwrap_or_else(|_panic| Ended::Broken("panic".to_owned())),
            Err(error) => Ended::Broken(error.to_string()),
        };
        match ended {
            Ended::Closed => return,
            Ended::Broken(reason) => tracing::error!(reason, "kafka producer is broken and made anew"),
        }
        std::thread::sleep(REMAKE_REST);
    }
}

enum Ended {
    Closed,
    Broken(String),
}

fn hand_over(native: &Native, answer: &Answer, queue: &mut Queue) -> Ended {
    while let Some((id, record)) = queue.blocking_recv() {
        if let Err(reason) = hand_over_one(native, answer, id, &record) {
            return Ended::Broken(reason);
        }
    }
    Ended::Closed
}

/// Fails only where the producer itself is broken; a record's own failure is its answer.
fn hand_over_one(native: &Native, answer: &Answer, id: EffectId, record: &OutgoingRecord) -> Result<(), String> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut outgoing = BaseRecord::with_opaque_to(record.topic, Box::new(id))
        .key(record.key.as_ref())
        .payload(record.value.as_ref())
        .timestamp(record.timestamp.0)
        .headers(headers);
    loop {
        let seen = native.context().deliveries_so_far();
        let Err((error, refused)) = native.send(outgoing) else { return Ok(()) };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => {
                native.context().wait_for_room(seen);
                outgoing = refused;
            }
            Some(RDKafkaErrorCode::Fatal) => {
                let reason = native.client().fatal_error().map_or_else(|| error.to_string(), |(_, words)| words);
                answer(id, ProduceOutcome::Failed { reason: reason.clone() });
                return Err(reason);
            }
            Some(_) | None => {
                answer(id, outcome_of(&error));
                return Ok(());
            }
        }
    }
}

/// What an error says of the record.
fn outcome_of(error: &NativeError) -> ProduceOutcome {
    use RDKafkaErrorCode as Code;
    let reason = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation,
        ) => ProduceOutcome::Refused { reason },
        // Sent or not, nobody knows any more.
        Some(Code::MessageTimedOut | Code::PurgeInflight | Code::Fatal | Code::OutOfOrderSequenceNumber) | None => {
            ProduceOutcome::Unknown { reason }
        }
        Some(_) => ProduceOutcome::Failed { reason },
    }
}

/// Answers each delivery report, and wakes a hand-over that waits for room.
struct Deliveries {
    answer: Answer,
    words: Words,
    room: Arc<(Mutex<u64>, Condvar)>,
}

impl Deliveries {
    fn deliveries_so_far(&self) -> u64 {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a delivery after the first `seen`.
    fn wait_for_room(&self, seen: u64) {
        let (deliveries, delivered) = &*self.room;
        let count = deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        let _either_way =
            delivered.wait_timeout_while(count, ROOM_WAIT, |count| *count == seen).map(|(_, timeout)| timeout);
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.words.log(level, facility, message);
    }
    fn error(&self, error: NativeError, reason: &str) {
        self.words.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<EffectId>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, id: Box<EffectId>) {
        let outcome = match delivery {
            Ok(stored) => ProduceOutcome::Stored { partition: stored.partition(), offset: stored.offset() },
            Err((error, _)) => outcome_of(error),
        };
        (self.answer)(*id, outcome);
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.room.1.notify_all();
    }
}
