//! An entry of a partition's buffer: a record, and how far it has come.

use super::{Class, Record};
use crate::{
    bridge::OutgoingRecord,
    dead_letter::{Letter, Source, dead_letter},
    event::{Event, Poison, Topic, decode, kafka_topic},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    Batched(Class),
    Quarantining { reason: &'static str, detail: String, failures: u32 },
    Done,
}

/// What a record says; `None` for a replay of a retained message, which only `status` may be.
pub(super) fn read(record: &Record) -> Result<Option<Event>, Poison> {
    let topic = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).ok_or(Poison::Key)?;
    if record.retained && !matches!(topic.parse(), Ok(Topic::Status(_))) {
        return Ok(None);
    }
    decode(topic, record.value.as_deref().unwrap_or_default()).map(Some)
}

pub(super) fn letter(record: &Record, reason: &str, detail: &str) -> OutgoingRecord {
    let source = Source::Record { topic: kafka_topic::EVENTS, partition: record.partition, offset: record.offset };
    let key = record.key.clone().unwrap_or_default();
    let value = record.value.clone().unwrap_or_default();
    dead_letter(source, &Letter { reason, detail, key: &key, value: &value, received: record.timestamp })
}

pub(super) fn bytes_of(record: &Record) -> usize {
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len())
}
