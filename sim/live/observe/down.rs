//! Reads the topics of the way down as they grow: commands, whoever issued them, and replies.

use std::sync::Arc;

use dmp_core::{
    event::{Command, Reply, ReplyOutcome, Topic},
    registry::ISSUER,
};
use dmp_service::kafka::inspect::{Tail, Tailed};
use tokio::{sync::mpsc, task::JoinSet};

use super::Feed;
use crate::{
    fleet::RunPrefix,
    history::{Down, LoggedCommand, PayloadHash, What},
    live::journal::Journal,
};

/// Records between a reading thread and the history.
const RECORDS: usize = 4_096;

/// What a record of a topic means.
type Meaning = fn(&Tailed) -> Down;

/// Reads both topics into the history, by `observers`, until the returned tails are dropped.
pub(in crate::live) async fn start(
    feed: &Feed,
    journal: &Journal,
    observers: &mut JoinSet<()>,
) -> anyhow::Result<Vec<Tail>> {
    let mut tails = Vec::new();
    if !feed.observe.commands {
        return Ok(tails);
    }
    for (topic, read) in [(&feed.topics.commands, command as Meaning), (&feed.topics.replies, reply)] {
        let (records_in, records) = mpsc::channel(RECORDS);
        tails.push(Tail::start(&feed.kafka, topic, feed.begins(topic).await?, records_in).await?);
        observers.spawn(enter(records, feed.run.clone(), read, journal.clone()));
    }
    Ok(tails)
}

async fn enter(mut records: mpsc::Receiver<Tailed>, run: Option<RunPrefix>, read: Meaning, journal: Journal) {
    while let Some(record) = records.recv().await {
        if super::is_of(run.as_ref(), &record) {
            journal.enter(What::Down(read(&record))).await;
        }
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
