//! One command from outside: stored in `dmp.commands`, and its reply waited for on `dmp.replies`.
//!
//! The replies' end offsets are read before the command is stored, so its reply cannot be missed, and no old one is read.

use std::time::{Duration, Instant};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::{Command, Reply, Topic, kafka_topic},
    id::{Rae, Session},
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    config::Kafka,
    drive::wall,
    kafka::{
        KafkaError, Producer,
        inspect::{Inspector, Tail, Tailed},
        topics,
    },
};

/// Client id, and the group that is looked at and never joined.
const NAME: &str = "dmp-command";

/// Longest wait for Kafka and its topics.
const KAFKA_WITHIN: Duration = Duration::from_secs(10);

/// A reply that says "expired" is made when the command has expired, and needs a moment.
const GRACE: Duration = Duration::from_secs(1);

/// Between two tellings that the reply is still waited for.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Replies that wait to be looked at; the tail waits beyond that.
const REPLIES: usize = 1_000;

/// Why a command was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Kafka cannot be used.
    #[error("sending a command through kafka")]
    Kafka(#[from] KafkaError),
    /// Kafka did not take it, or may not have.
    #[error("storing the command in kafka: {0}")]
    NotStored(String),
}

/// A reply, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The reply.
    pub reply: Reply,
    /// From handing the command to Kafka to reading the reply there.
    pub round_trip: Duration,
}

/// Sends a command and waits for its reply until the command has expired; `None` if there is none by then. `waiting` is
/// told each second how long the reply has been waited for.
///
/// # Errors
/// [`SendError`] if the command was not sent, or the replies cannot be read.
pub async fn send(
    kafka: &Kafka,
    rae: &Rae,
    session: Session,
    command: &Command,
    waiting: impl FnMut(Duration),
) -> Result<Option<Answered>, SendError> {
    topics::wait_for(kafka, &[kafka_topic::COMMANDS, kafka_topic::REPLIES], KAFKA_WITHIN).await?;
    let ends = Inspector::new(kafka, NAME)?.end_offsets(kafka_topic::REPLIES).await?;
    let began = Instant::now();
    store(kafka, rae, session, command).await?;
    let (records, replies) = mpsc::channel(REPLIES);
    let _tail = Tail::start(kafka, kafka_topic::REPLIES, ends, records).await?;
    let left = Duration::from_millis(u64::try_from(command.expires_at.0.saturating_sub(wall().0)).unwrap_or(0));
    Ok(await_reply(command, replies, began, left + GRACE, waiting).await)
}

async fn store(kafka: &Kafka, rae: &Rae, session: Session, command: &Command) -> Result<(), SendError> {
    let (answer, mut answered) = mpsc::channel(1);
    let producer = Producer::start(kafka, NAME, 1, move |_id, outcome| {
        // Nobody waits for a command that was given up.
        let _given_up = answer.blocking_send(outcome);
    })?;
    let record = OutgoingRecord {
        topic: kafka_topic::COMMANDS,
        key: Topic::Command(rae.clone(), session).to_string().into(),
        value: command.encode().into(),
        timestamp: wall(),
        headers: Vec::new(),
    };
    let outcome = match producer.produce(EffectId(1), record) {
        Ok(()) => answered.recv().await,
        Err(outcome) => Some(outcome),
    };
    match outcome {
        Some(ProduceOutcome::Stored { .. }) => Ok(()),
        Some(
            ProduceOutcome::Refused { reason } | ProduceOutcome::Failed { reason } | ProduceOutcome::Unknown { reason },
        ) => Err(SendError::NotStored(reason)),
        None => Err(SendError::NotStored("the producer ended".to_owned())),
    }
}

async fn await_reply(
    command: &Command,
    mut replies: mpsc::Receiver<Tailed>,
    began: Instant,
    within: Duration,
    mut waiting: impl FnMut(Duration),
) -> Option<Answered> {
    let until = Instant::now() + within;
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        match timeout(left.min(TELL_EVERY), replies.recv()).await {
            Err(_not_yet) => waiting(began.elapsed()),
            // The tail has ended.
            Ok(None) => return None,
            Ok(Some(record)) => {
                let reply = record.value.as_deref().and_then(|value| Reply::decode(value).ok());
                if let Some(reply) = reply.filter(|reply| reply.id == command.id) {
                    return Some(Answered { reply, round_trip: began.elapsed() });
                }
            }
        }
    }
}
