//! Waiting for topics, and making them.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use super::{
    KafkaError,
    client::{self, Words},
};
use crate::config::Kafka;

/// Bound of one attempt, so that a broker that comes up in between is noticed soon.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Rest between two attempts that were answered at once.
const REST: Duration = Duration::from_millis(100);

/// Waits until brokers answer and `topics` are there, no longer than `within`.
///
/// # Errors
/// [`KafkaError::Unreachable`] or [`KafkaError::MissingTopics`] when the time is up.
pub async fn wait_for(kafka: &Kafka, topics: &[&'static str], within: Duration) -> Result<(), KafkaError> {
    let (kafka, topics) = (kafka.clone(), topics.to_vec());
    blocking(move || wait_blocking(&kafka, &topics, within)).await
}

/// Makes topics that are not there yet: (name, partitions). One that is there is left as it is.
///
/// # Errors
/// [`KafkaError::CreateTopic`], or [`KafkaError::Request`] if no broker answers.
pub async fn create(kafka: &Kafka, topics: &[(&str, i32)], replicas: i32) -> Result<(), KafkaError> {
    let config = client::admin(kafka, "dmp-topics")?;
    let admin = AdminClient::from_config_and_context(&config, Words::default()).map_err(KafkaError::settings)?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(replicas)))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(kafka.request_timeout));
    let doing = || format!("making kafka topics at {}", kafka.bootstrap);
    let made = admin.create_topics(&new, &options).await.map_err(|source| KafkaError::request(doing(), source))?;
    for result in made {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(KafkaError::CreateTopic { topic, reason: code.to_string() }),
        }
    }
    Ok(())
}

fn wait_blocking(kafka: &Kafka, topics: &[&'static str], within: Duration) -> Result<(), KafkaError> {
    let config = client::admin(kafka, "dmp-topics")?;
    let started = Instant::now();
    let consumer: BaseConsumer<LoggedConsumer> =
        BaseConsumer::from_config_and_context(&config, LoggedConsumer(Words::default()))
            .map_err(KafkaError::settings)?;
    loop {
        let found = look(&consumer, kafka, topics, started);
        match found {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() >= within => return Err(error),
            Err(error) => tracing::debug!(%error, "waiting for kafka"),
        }
        // Also serves the events in which librdkafka tells why a broker refuses.
        let _no_assignment = consumer.poll(REST);
    }
}

fn look(
    consumer: &BaseConsumer<LoggedConsumer>,
    kafka: &Kafka,
    topics: &[&'static str],
    started: Instant,
) -> Result<(), KafkaError> {
    // All topics: asking for one by name may create it.
    let metadata = consumer.fetch_metadata(None, ATTEMPT).map_err(|source| KafkaError::Unreachable {
        bootstrap: kafka.bootstrap.clone(),
        waited: started.elapsed(),
        last_words: consumer.context().0.last(),
        source: Box::new(source),
    })?;
    let there = |topic: &str| metadata.topics().iter().any(|t| t.name() == topic && !t.partitions().is_empty());
    let missing: Vec<String> = topics.iter().filter(|topic| !there(topic)).map(|&topic| topic.to_owned()).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KafkaError::MissingTopics { bootstrap: kafka.bootstrap.clone(), topics: missing })
    }
}

/// A consumer context that only logs.
pub(super) struct LoggedConsumer(pub(super) Words);

impl rdkafka::ClientContext for LoggedConsumer {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }
    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for LoggedConsumer {}

/// Runs what blocks on tokio's threads for that; a panic in it goes on in the caller.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
