//! Kafka by rdkafka: what the bridge, downlink and registry cores ask of it, and a reader for tools.
//!
//! - [`Producer`]: idempotent, in the order of hand-over, every record answered
//! - [`Consumer`]: one group member on its own thread; explicit synchronous commits, generations, drain on revoke
//! - [`inspect`]: end offsets, committed offsets, and a tail of a whole topic, outside of any group
//! - [`topics`]: waiting for topics, and making them
//!
//! No retry, dedupe or ordering logic of the platform is here: an outcome is told, and the core decides.

use std::time::Duration;

use rdkafka::error::KafkaError as NativeError;

mod client;
mod consumer;
pub mod inspect;
mod mailbox;
mod producer;
mod reader;
pub mod topics;

pub use consumer::{Consumer, ConsumerConfig, Event};
pub use producer::Producer;

/// When the broker answers a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// As soon as there is a record: for topics on which somebody waits for one.
    Prompt,
    /// When there are 64 KiB, or after 20 ms: for the events topic, where a broker that answers for each record does
    /// little else.
    Bulk,
}

/// Why Kafka could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka refuses the settings.
    #[error("kafka settings are refused")]
    Settings(#[source] Box<NativeError>),
    /// TLS or SCRAM is asked for, and this build has neither.
    #[error("kafka.security needs a build with the cargo feature `kafka-tls`")]
    WithoutTls,
    /// No broker answers.
    #[error("no kafka broker answers at {bootstrap} after {} ms{}", waited.as_millis(), hint(last_words))]
    Unreachable {
        /// The bootstrap addresses.
        bootstrap: String,
        /// How long it was tried.
        waited: Duration,
        /// What librdkafka said last, for example that the credentials are refused.
        last_words: Option<String>,
        /// The answer to the last attempt.
        #[source]
        source: Box<NativeError>,
    },
    /// Brokers answer, but topics are not there.
    #[error("kafka at {bootstrap} has no topic {}, or does not show it to this client", topics.join(", "))]
    MissingTopics {
        /// The bootstrap addresses.
        bootstrap: String,
        /// The missing topics.
        topics: Vec<String>,
    },
    /// A topic could not be made.
    #[error("making kafka topic {topic}: {reason}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// Kafka's words.
        reason: String,
    },
    /// A request failed.
    #[error("{doing}")]
    Request {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<NativeError>,
    },
    /// A thread could not be started.
    #[error("starting thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl KafkaError {
    fn settings(source: NativeError) -> KafkaError {
        KafkaError::Settings(Box::new(source))
    }

    fn request(doing: String, source: NativeError) -> KafkaError {
        KafkaError::Request { doing, source: Box::new(source) }
    }
}

fn hint(last_words: &Option<String>) -> String {
    last_words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default()
}
