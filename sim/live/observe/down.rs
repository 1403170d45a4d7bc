//! Reads the topics of the way down as they grow: commands, whoever issued them, and replies.

use std::{collections::BTreeMap, sync::Arc};

use dmp_core::{
    event::{Command, Reply, ReplyOutcome, Topic, kafka_topic},
    registry::ISSUER,
};
use dmp_service::{
    config::Kafka,
    kafka::inspect::{Tail, Tailed},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    history::{Down, LoggedCommand, PayloadHash, What},
    live::journal::Journal,
};

/// Records between a reading thread and the history.
const RECORDS: usize = 4_096;

/// What a record of a topic means.
type Meaning = fn(&Tailed) -> Down;

/// Reads both topics into the history, by `observers`, until the returned tails are dropped.
pub(in crate::live) async fn start(
    kafka: &Kafka,
    journal: &Journal,
    observers: &mut JoinSet<()>,
) -> anyhow::Result<Vec<Tail>> {
    let mut tails = Vec::new();
    for (topic, read) in [(kafka_topic::COMMANDS, command as Meaning), (kafka_topic::REPLIES, reply)] {
        let (records_in, records) = mpsc::channel(RECORDS);
        tails.push(Tail::start(kafka, topic, BTreeMap::new(), records_in).await?);
        observers.spawn(enter(records, read, journal.clone()));
    }
    Ok(tails)
}

async fn enter(mut records: mpsc::Receiver<Tailed>, read: Meaning, journal: Journal) {
    while let Some(record) = records.recv().await {
        journal.enter(What::Down(read(&record))).await;
    }
}

fn command(record: &Tailed) -> Down {
    let key = record.key.as_deref().and_then(|key| str::from_utf8(key).ok()?.parse().ok());
    let command = Command::decode(record.value.as_deref().unwrap_or_default());
    match (key, command) {
        (Some(Topic::Command(rae, session)), Ok(command)) => Down::Logged(Box::new(LoggedCommand {
            id: command.id,
            name: command.kind.name(),
            rae,
            session,
            timestamp_ms: record.timestamp.0,
            issuer: super::log::header_of(record, ISSUER).map(Arc::from),
        })),
        (_, _) => Down::Malformed,
    }
}

fn reply(record: &Tailed) -> Down {
    let value = record.value.as_deref().unwrap_or_default();
    let key = record.key.as_deref().and_then(|key| str::from_utf8(key).ok());
    let Ok(Reply { id, outcome }) = Reply::decode(value) else { return Down::Malformed };
    let error = match outcome {
        ReplyOutcome::Ok => None,
        ReplyOutcome::Error(why) => Some(why.into()),
    };
    Down::Replied { id, error, topic: key.unwrap_or_default().into(), payload: PayloadHash::of(value) }
}
