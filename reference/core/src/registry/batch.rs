//! A batch: a run of records of one partition, merged into rows while it waits for its write.

use std::ops::Range;

use super::partition::Serial;
use crate::{
    event::Event,
    merge::{Feed, Rows},
    time::{Mono, Wall},
};

/// Payload bytes at which a batch is closed whatever its rows: transactions of many megabytes stall a store, and
/// records of 256 KiB reach this after 16.
const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Batch {
    /// The records in it, those included that have no rows.
    pub(super) range: Range<Serial>,
    /// When its first record came.
    pub(super) opened: Mono,
    rows: Rows,
    feed: Feed,
    row_count: usize,
    bytes: usize,
}

impl Batch {
    /// A batch without records, in front of the record `first`.
    pub(super) fn new(first: Serial, opened: Mono, feed: Feed) -> Batch {
        Batch { range: first..first, opened, rows: Rows::default(), feed, row_count: 0, bytes: 0 }
    }

    /// Takes the next record; `event` is `None` where it changes nothing. Returns whether anything was replaced.
    pub(super) fn push(&mut self, offset: i64, received: Wall, bytes: usize, event: Option<&Event>) -> bool {
        self.range.end += 1;
        self.bytes += bytes;
        self.feed.next_offset = offset + 1;
        self.feed.received = self.feed.received.max(received);
        let Some(event) = event else { return false };
        let before = self.rows_of(event);
        let replaced = self.rows.apply(event, received);
        self.row_count += self.rows_of(event) - before;
        replaced
    }

    pub(super) fn is_full(&self, batch_rows: usize) -> bool {
        self.row_count >= batch_rows || self.bytes >= MAX_BYTES
    }

    pub(super) fn into_rows(self) -> (Range<Serial>, Rows) {
        (self.range, Rows { feed: Some(self.feed), ..self.rows })
    }

    /// Rows of the event's device or RAE: counting all of them for each record would be quadratic.
    fn rows_of(&self, event: &Event) -> usize {
        match event {
            Event::State(event) => self
                .rows
                .devices
                .get(&event.device)
                .map_or(0, |state| usize::from(state.floor.is_some()) + state.attributes.len()),
            Event::Status(rae, _) => usize::from(self.rows.raes.contains_key(rae)),
        }
    }
}
