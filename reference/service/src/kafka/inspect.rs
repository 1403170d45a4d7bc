//! A reader for tools: offsets of topics and groups, and a tail of a whole topic. Joins no group and commits nothing.
//!
//! For a lag that is never negative read the committed offsets first and the end offsets last.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dmp_core::{
    registry::{Offset, Partition},
    time::Wall,
};
use rdkafka::{
    Message, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError as NativeError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tokio::sync::mpsc;

use super::{
    Fetch, KafkaError,
    client::{self, Words},
    topics::{LoggedConsumer, blocking},
};
use crate::config::Kafka;

/// How long a tail sleeps in librdkafka before it looks whether it is still wanted.
const TAIL_POLL: Duration = Duration::from_millis(100);

/// Offsets of a topic, and those that a group has committed in it.
#[derive(Clone)]
pub struct Inspector {
    consumer: Arc<BaseConsumer<LoggedConsumer>>,
    kafka: Arc<Kafka>,
}

/// What is set for a topic, as far as its brokers tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Largest record batch: `max.message.bytes`.
    pub max_message_bytes: Option<u64>,
    /// `CreateTime` or `LogAppendTime`: `message.timestamp.type`.
    pub timestamp_type: Option<String>,
    /// `delete`, `compact`, or both with a comma: `cleanup.policy`.
    pub cleanup_policy: Option<String>,
}

/// A record as a tail sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tailed {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp: create or append time, as the topic is configured.
    pub timestamp: Wall,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Inspector {
    /// Looks at topics, and at what `group` commits.
    ///
    /// # Errors
    /// [`KafkaError`] for refused settings.
    pub fn new(kafka: &Kafka, group: &str) -> Result<Inspector, KafkaError> {
        let config = client::consumer(kafka, "dmp-inspector", group, Fetch::Prompt)?;
        let consumer = BaseConsumer::from_config_and_context(&config, LoggedConsumer(Words::default()))
            .map_err(KafkaError::settings)?;
        Ok(Inspector { consumer: Arc::new(consumer), kafka: Arc::new(kafka.clone()) })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// [`KafkaError::MissingTopics`], or [`KafkaError::Request`] if no broker answers in time.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<Partition>, KafkaError> {
        let (this, topic) = (self.clone(), topic.to_owned());
        blocking(move || this.partitions_blocking(&topic)).await
    }

    /// The oldest and the end offset per partition: (low, offset of the next record).
    ///
    /// # Errors
    /// As [`Inspector::partitions`].
    pub async fn watermarks(&self, topic: &str) -> Result<BTreeMap<Partition, (Offset, Offset)>, KafkaError> {
        let (this, topic) = (self.clone(), topic.to_owned());
        blocking(move || {
            let timeout = this.kafka.request_timeout;
            let one = |partition| {
                let marks = this.consumer.fetch_watermarks(&topic, partition, timeout);
                Ok((partition, marks.map_err(|source| failed("asking for end offsets of", &topic, source))?))
            };
            this.partitions_blocking(&topic)?.into_iter().map(one).collect()
        })
        .await
    }

    /// The offset of the next record, per partition.
    ///
    /// # Errors
    /// As [`Inspector::partitions`].
    pub async fn end_offsets(&self, topic: &str) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        Ok(self.watermarks(topic).await?.into_iter().map(|(partition, (_low, end))| (partition, end)).collect())
    }

    /// What the group has committed, per partition: the next offset to be read; partitions without are left out.
    ///
    /// # Errors
    /// As [`Inspector::partitions`].
    pub async fn committed(&self, topic: &str) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        let (this, topic) = (self.clone(), topic.to_owned());
        blocking(move || {
            let partitions = this.partitions_blocking(&topic)?;
            let mut asked = TopicPartitionList::with_capacity(partitions.len());
            for partition in partitions {
                asked.add_partition(&topic, partition);
            }
            let answered = this
                .consumer
                .committed_offsets(asked, this.kafka.request_timeout)
                .map_err(|source| failed("asking for committed offsets in", &topic, source))?;
            let known = answered.elements();
            Ok(known.iter().filter_map(|one| Some((one.partition(), real_offset(one.offset())?))).collect())
        })
        .await
    }

    /// What is set for a topic.
    ///
    /// # Errors
    /// [`KafkaError::Request`], also where this client may not know.
    pub async fn settings(&self, topic: &str) -> Result<TopicSettings, KafkaError> {
        let config = client::admin(&self.kafka, "dmp-inspector")?;
        let admin = AdminClient::from_config_and_context(&config, Words::default()).map_err(KafkaError::settings)?;
        let options = AdminOptions::new().request_timeout(Some(self.kafka.request_timeout));
        let refused = |source| failed("asking for the settings of", topic, source);
        let answered = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await.map_err(refused)?;
        let mut settings = TopicSettings::default();
        for described in answered {
            let described = described.map_err(|code| refused(NativeError::AdminOp(code)))?;
            let value = |name| described.get(name).and_then(|entry| entry.value.clone());
            settings.max_message_bytes = value("max.message.bytes").and_then(|bytes| bytes.parse().ok());
            settings.timestamp_type = value("message.timestamp.type");
            settings.cleanup_policy = value("cleanup.policy");
        }
        Ok(settings)
    }

    /// Sees whether records of a topic may be read: one that comes, or the end behind the last, says so.
    ///
    /// # Errors
    /// [`KafkaError::Request`] where they may not, or no broker answers in time.
    pub async fn read(&self, topic: &str) -> Result<(), KafkaError> {
        let (ends, topic) = (self.end_offsets(topic).await?, topic.to_owned());
        let kafka = Arc::clone(&self.kafka);
        blocking(move || {
            let mut config = client::reader(&kafka, "dmp-inspector", Fetch::Prompt)?;
            config.set("enable.partition.eof", "true");
            let reader: BaseConsumer<LoggedConsumer> =
                BaseConsumer::from_config_and_context(&config, LoggedConsumer(Words::default()))
                    .map_err(KafkaError::settings)?;
            let refused = |source| failed("reading", &topic, source);
            let partitions: Vec<_> = ends.keys().copied().collect();
            assign(&reader, &topic, &partitions, &ends).map_err(refused)?;
            let until = Instant::now() + kafka.request_timeout;
            let mut last = NativeError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
            while Instant::now() < until {
                match reader.poll(TAIL_POLL) {
                    None => {}
                    Some(Ok(_) | Err(NativeError::PartitionEOF(_))) => return Ok(()),
                    // One address of a broker may be reached where another is not.
                    Some(Err(error)) if may_pass(&error) => last = error,
                    Some(Err(error)) => return Err(refused(error)),
                }
            }
            Err(refused(last))
        })
        .await
    }

    fn partitions_blocking(&self, topic: &str) -> Result<Vec<Partition>, KafkaError> {
        // Serves librdkafka's own events; without a subscription there are no records.
        let _no_record = self.consumer.poll(Duration::ZERO);
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), self.kafka.request_timeout)
            .map_err(|source| failed("asking for partitions of", topic, source))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.and_then(|found| found.error()).map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
            // A topic that this client may not look at, for one.
            Some(code) => return Err(failed("asking for partitions of", topic, NativeError::MetadataFetch(code))),
        }
        let partitions: Vec<Partition> =
            found.map(|found| found.partitions().iter().map(|partition| partition.id()).collect()).unwrap_or_default();
        if partitions.is_empty() {
            let topics = vec![topic.to_owned()];
            return Err(KafkaError::MissingTopics { bootstrap: self.kafka.bootstrap.clone(), topics });
        }
        Ok(partitions)
    }
}

/// A tail of all partitions of a topic, in order per partition. Dropping it ends it.
#[derive(Debug)]
pub struct Tail {
    wanted: Arc<AtomicBool>,
}

impl Tail {
    /// Reads `topic` from the given offset of each partition, from the oldest record in those not given, into
    /// `records`; a full channel holds the tail back. Ends when the receiver or the tail is dropped.
    ///
    /// # Errors
    /// [`KafkaError`] for refused settings or a missing topic, or if no broker answers in time.
    pub async fn start(
        kafka: &Kafka,
        topic: &str,
        from: BTreeMap<Partition, Offset>,
        records: mpsc::Sender<Tailed>,
    ) -> Result<Tail, KafkaError> {
        Tail::start_with(kafka, topic, from, records, Fetch::Prompt).await
    }

    /// As [`Tail::start`], with the broker's answers as `fetch` says.
    ///
    /// # Errors
    /// As [`Tail::start`].
    pub async fn start_with(
        kafka: &Kafka,
        topic: &str,
        from: BTreeMap<Partition, Offset>,
        records: mpsc::Sender<Tailed>,
        fetch: Fetch,
    ) -> Result<Tail, KafkaError> {
        let config = client::reader(kafka, "dmp-tail", fetch)?;
        let consumer: BaseConsumer<LoggedConsumer> =
            BaseConsumer::from_config_and_context(&config, LoggedConsumer(Words::default()))
                .map_err(KafkaError::settings)?;
        let inspector = Inspector { consumer: Arc::new(consumer), kafka: Arc::new(kafka.clone()) };
        let partitions = inspector.partitions(topic).await?;
        assign(&inspector.consumer, topic, &partitions, &from)
            .map_err(|source| failed("assigning partitions of", topic, source))?;
        let wanted = Arc::new(AtomicBool::new(true));
        let name = "kafka-tail";
        let thread_wanted = Arc::clone(&wanted);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || read(&inspector.consumer, &thread_wanted, &records))
            .map_err(|source| KafkaError::Thread { name, source })?;
        Ok(Tail { wanted })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

/// Whether another try, which the client makes by itself, may do better.
fn may_pass(error: &NativeError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                // The client looks for the coordinator of its group, which a reader that commits nothing does not need.
                | RDKafkaErrorCode::GroupAuthorizationFailed
        )
    )
}

fn assign(
    consumer: &BaseConsumer<LoggedConsumer>,
    topic: &str,
    partitions: &[Partition],
    from: &BTreeMap<Partition, Offset>,
) -> Result<(), NativeError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        let start = from.get(partition).map_or(rdkafka::Offset::Beginning, |&offset| rdkafka::Offset::Offset(offset));
        list.add_partition_offset(topic, *partition, start)?;
    }
    consumer.assign(&list)
}

fn read(consumer: &BaseConsumer<LoggedConsumer>, wanted: &AtomicBool, records: &mpsc::Sender<Tailed>) {
    while wanted.load(Ordering::Relaxed) && !records.is_closed() {
        match consumer.poll(TAIL_POLL) {
            None => {}
            Some(Ok(message)) if records.blocking_send(tailed(&message)).is_err() => return,
            Some(Ok(_handed_over)) => {}
            // librdkafka heals these by itself.
            Some(Err(error)) => tracing::warn!(%error, "tailing kafka"),
        }
    }
}

fn tailed(message: &BorrowedMessage<'_>) -> Tailed {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.map(Bytes::copy_from_slice))).collect());
    Tailed {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: Wall(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
    }
}

fn real_offset(offset: rdkafka::Offset) -> Option<Offset> {
    match offset {
        rdkafka::Offset::Offset(offset) => Some(offset),
        rdkafka::Offset::Beginning
        | rdkafka::Offset::End
        | rdkafka::Offset::Stored
        | rdkafka::Offset::Invalid
        | rdkafka::Offset::OffsetTail(_) => None,
    }
}

fn failed(doing: &str, topic: &str, source: NativeError) -> KafkaError {
    match source.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            KafkaError::request(format!("{doing} kafka topic {topic}, which is not there"), source)
        }
        Some(_) | None => KafkaError::request(format!("{doing} kafka topic {topic}"), source),
    }
}
