//! Reads the events topic and the dead-letter topic as they grow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dmp_core::{
    dead_letter::header,
    event::{Poison, decode},
};
use dmp_service::kafka::{
    Fetch,
    inspect::{Tail, Tailed},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::Feed;
use crate::{
    fleet::RunPrefix,
    history::{Appended, DeadSource, Down, PayloadHash, What},
    live::journal::Journal,
};

/// Records between the reading thread and the history.
const RECORDS: usize = 4_096;

/// How far the log has been entered into the history: the next offset per partition.
#[derive(Debug, Clone)]
pub(in crate::live) struct Entered(watch::Receiver<Arc<Mutex<BTreeMap<i32, i64>>>>);

impl Entered {
    /// Waits until every record below `offsets` is in the history; `false` if that takes longer than `within`.
    pub(in crate::live) async fn wait(&mut self, offsets: &[(i32, i64)], within: Duration) -> bool {
        let there = |entered: &Arc<Mutex<BTreeMap<i32, i64>>>| {
            let entered = entered.lock().expect("nothing panics while it is held");
            offsets.iter().all(|(partition, offset)| entered.get(partition).copied().unwrap_or(0) >= *offset)
        };
        tokio::time::timeout(within, self.0.wait_for(there)).await.is_ok_and(|seen| seen.is_ok())
    }
}

/// Reads both topics into the history, by `observers`, until the returned tails are dropped.
pub(in crate::live) async fn start(
    feed: &Feed,
    journal: Journal,
    observers: &mut JoinSet<()>,
) -> anyhow::Result<(Vec<Tail>, Entered)> {
    let (events_in, events) = mpsc::channel(RECORDS);
    let from = feed.begins(&feed.topics.events).await?;
    let (progress, entered) = watch::channel(Arc::new(Mutex::new(from.clone())));
    let mut tails = vec![Tail::start_with(&feed.kafka, &feed.topics.events, from, events_in, Fetch::Bulk).await?];
    observers.spawn(enter_events(events, feed.run.clone(), progress, journal.clone()));
    if feed.observe.dead_letters {
        let (letters_in, letters) = mpsc::channel(RECORDS);
        let from = feed.begins(&feed.topics.dead_letter).await?;
        tails.push(Tail::start(&feed.kafka, &feed.topics.dead_letter, from, letters_in).await?);
        observers.spawn(enter_letters(letters, feed.topics.commands.clone(), journal));
    }
    Ok((tails, Entered(entered)))
}

async fn enter_events(
    mut records: mpsc::Receiver<Tailed>,
    run: Option<RunPrefix>,
    progress: watch::Sender<Arc<Mutex<BTreeMap<i32, i64>>>>,
    journal: Journal,
) {
    while let Some(record) = records.recv().await {
        let (partition, next) = (record.partition, record.offset + 1);
        if super::is_of(run.as_ref(), &record) {
            journal.enter(What::Appended(Box::new(appended(record)))).await;
        }
        progress.send_modify(|entered| {
            entered.lock().expect("nothing panics while it is held").insert(partition, next);
        });
    }
}

async fn enter_letters(mut records: mpsc::Receiver<Tailed>, commands: String, journal: Journal) {
    while let Some(record) = records.recv().await {
        journal.enter(dead_letter(&record, &commands)).await;
    }
}

fn appended(record: Tailed) -> Appended {
    let value = record.value.as_deref().unwrap_or_default();
    let key = record.key.as_deref().map(str::from_utf8);
    let decoded = match key {
        Some(Ok(key)) => decode(key, value),
        Some(Err(_)) | None => Err(Poison::Key),
    };
    let (event, poison) = match decoded {
        Ok(event) => (Some(Arc::new(event)), None),
        Err(poison) => (None, Some(poison.reason())),
    };
    Appended {
        partition: record.partition,
        offset: record.offset,
        key: key.and_then(Result::ok).unwrap_or_default().into(),
        payload: PayloadHash::of(value),
        timestamp_ms: record.timestamp.0,
        retained: header_of(&record, "mqtt-retain") == Some("1"),
        event,
        poison,
    }
}

fn dead_letter(record: &Tailed, commands: &str) -> What {
    let number = |name| header_of(record, name).and_then(|text| text.parse::<i64>().ok());
    let topic = header_of(record, header::SOURCE_TOPIC).unwrap_or_default();
    if topic == commands {
        return What::Down(Down::Malformed);
    }
    let source = match (number(header::SOURCE_PARTITION), number(header::SOURCE_OFFSET)) {
        (Some(partition), Some(offset)) => DeadSource::Log(i32::try_from(partition).unwrap_or(-1), offset),
        (_, _) => DeadSource::Mqtt(topic.into()),
    };
    let reason = header_of(record, header::REASON).unwrap_or_default().into();
    What::DeadLettered { source, reason, payload: PayloadHash::of(record.value.as_deref().unwrap_or_default()) }
}

/// A header of a record, where it has that one and it is text.
pub(super) fn header_of<'a>(record: &'a Tailed, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    str::from_utf8(value.as_deref()?).ok()
}
