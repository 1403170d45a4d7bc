//! One partition: records in order, each on its way to one end, and a prefix in which all have come to theirs.

use std::collections::VecDeque;

use super::{End, Generation, Offset, Partition, PartitionGauges, order::Order};
use crate::{
    bridge::OutgoingRecord,
    consume::{Progress, Record},
};

/// Names an entry; counts the records that were taken.
pub(super) type Serial = u64;

/// Bytes at which a partition is paused, whatever its records: 16 commands of the largest size.
const BYTE_CREDIT: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) number: Partition,
    generation: Generation,
    next: Offset,
    ended: Offset,
    committed: Offset,
    entries: VecDeque<Entry>,
    /// Serial of the first entry.
    first: Serial,
    bytes: usize,
    paused: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// To be published in its turn.
    Waiting(Order),
    /// Owed an acknowledgement.
    Published(Order),
    /// On its way to Kafka: a reply or a dead letter, after which it has come to `end`.
    Producing { record: OutgoingRecord, end: End, failures: u32 },
    /// Come to its end.
    Done,
}

/// What is to happen to the reading of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Pause(Generation),
    Resume(Generation),
}

impl Lane {
    pub(super) fn new(number: Partition, generation: Generation, start: Offset) -> Lane {
        let entries = VecDeque::new();
        let (next, ended, committed) = (start, start, start);
        Lane { number, generation, next, ended, committed, entries, first: 0, bytes: 0, paused: false }
    }

    pub(super) fn gauges(&self, credit: usize) -> PartitionGauges {
        PartitionGauges {
            partition: self.number,
            buffered: self.entries.len(),
            buffered_cap: credit,
            buffered_bytes: self.bytes,
            buffered_bytes_cap: BYTE_CREDIT,
            paused: self.paused,
            next: self.next,
            ended: self.ended,
            committed: self.committed,
        }
    }

    /// Takes a record that was read; one below the position was fetched again, and is taken already.
    pub(super) fn push(&mut self, record: Record, stage: impl FnOnce(&Record) -> Stage) -> Option<Serial> {
        if record.offset < self.next {
            return None;
        }
        self.next = record.offset + 1;
        self.bytes += record.bytes();
        let stage = stage(&record);
        self.entries.push_back(Entry { record, stage });
        Some(self.first + self.entries.len() as Serial - 1)
    }

    /// The entry, unless it was let go.
    pub(super) fn entry(&mut self, serial: Serial) -> Option<&mut Entry> {
        let index = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn producing(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.stage, Stage::Producing { .. })).count()
    }

    /// Moves the offset over what came to its end at the front.
    pub(super) fn settle(&mut self) {
        while let Some(entry) = self.entries.pop_front_if(|entry| matches!(entry.stage, Stage::Done)) {
            self.first += 1;
            self.bytes -= entry.record.bytes();
            self.ended = entry.record.offset + 1;
        }
    }

    /// Leaves to the next owner of the partition what is `not_ours` to bring to its end, and all behind it.
    pub(super) fn let_go(&mut self, not_ours: impl Fn(&Stage) -> bool) {
        if let Some(at) = self.entries.iter().position(|entry| not_ours(&entry.stage)) {
            self.bytes -= self.entries.drain(at..).map(|entry| entry.record.bytes()).sum::<usize>();
        }
    }

    /// Pauses at the credit, resumes at half of it.
    pub(super) fn regulate(&mut self, credit: usize, draining: bool) -> Option<Flow> {
        let held = self.entries.len();
        if !self.paused && (held >= credit || self.bytes >= BYTE_CREDIT) {
            self.paused = true;
            Some(Flow::Pause(self.generation))
        } else if self.paused && !draining && held <= credit / 2 && self.bytes <= BYTE_CREDIT / 2 {
            self.paused = false;
            Some(Flow::Resume(self.generation))
        } else {
            None
        }
    }
}

impl Progress for Lane {
    fn committable(&self) -> Offset {
        self.ended
    }

    fn committed(&self) -> Offset {
        self.committed
    }

    fn set_committed(&mut self, offset: Offset) {
        self.committed = offset;
    }
}
