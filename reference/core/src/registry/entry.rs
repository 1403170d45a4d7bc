//! An entry of a partition's buffer: a record, and how far it has come.

use super::{Class, Record};
use crate::event::{Event, Poison, Topic, decode};

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
