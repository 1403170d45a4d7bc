//! One partition: an unbroken run of offsets over a row of segments.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::{
    batch,
    producer::{Admission, Producers},
    segment::Segment,
};

/// Size at which a segment is closed: what is deleted is given back to the disk in pieces of this size.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What all partitions of a broker share.
#[derive(Debug)]
pub(super) struct Disk {
    /// Where the segments' files are made.
    pub(super) directory: Box<Path>,
    /// Largest batch taken.
    pub(super) batch_bytes_max: usize,
    bytes_max: u64,
    bytes: AtomicU64,
    full: AtomicBool,
}

impl Disk {
    /// A disk without any segment yet.
    pub(super) fn new(directory: Box<Path>, batch_bytes_max: usize, bytes_max: u64) -> Disk {
        Disk { directory, batch_bytes_max, bytes_max, bytes: AtomicU64::new(0), full: AtomicBool::new(false) }
    }

    /// Bytes in all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
        });
        if taken.is_err() && !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(bytes_max = self.bytes_max, "the embedded Kafka log is full and refuses records");
        }
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.full.store(false, Ordering::Relaxed);
    }
}

/// The records of one partition, and who wrote them.
#[derive(Debug)]
pub(super) struct Partition {
    disk: Arc<Disk>,
    /// Oldest first; together they hold at least `start..end`.
    segments: VecDeque<Segment>,
    start: i64,
    end: i64,
    producers: Producers,
}

impl Partition {
    /// An empty partition.
    pub(super) fn new(disk: Arc<Disk>) -> Partition {
        Partition { disk, segments: VecDeque::new(), start: 0, end: 0, producers: Producers::default() }
    }

    /// Offset of the oldest record that may be read.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Offset of the next record.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Appends one batch as received. Returns the offset of its first record; for a copy of a batch that is stored
    /// already, the offset where it is.
    ///
    /// # Errors
    /// What the producer is to be told. A full log and a failing disk are answered with errors that make it try again.
    pub(super) fn append(&mut self, received: &[u8]) -> Result<i64, ResponseError> {
        let header = batch::check(received, self.disk.batch_bytes_max)?;
        if let Some(stamp) = header.stamp
            && let Admission::Duplicate { base_offset } = self.producers.admit(stamp)?
        {
            return Ok(base_offset);
        }
        let bytes = received.len() as u64;
        if !self.disk.take(bytes) {
            return Err(ResponseError::NotEnoughReplicas);
        }
        let base_offset = self.end;
        let placed = header.placed(base_offset);
        let segment = self.open_segment();
        if let Err(error) = segment.and_then(|open| open.append(&placed, &batch::stamped(received, base_offset))) {
            self.disk.give_back(bytes);
            return Err(storage_error(&error));
        }
        self.end = placed.end_offset();
        if let Some(stamp) = placed.stamp {
            self.producers.stored(stamp, base_offset);
        }
        Ok(base_offset)
    }

    /// Whole batches from the one that holds `offset` on, about `bytes_max` of them but one at least; nothing at the end.
    ///
    /// # Errors
    /// The offset is outside of the log, or the disk failed.
    pub(super) fn read(&self, offset: i64, bytes_max: usize) -> Result<Bytes, ResponseError> {
        if !(self.start..=self.end).contains(&offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let holder = self.segments.partition_point(|segment| segment.end() <= offset);
        match self.segments.get(holder) {
            Some(segment) => segment.read(offset, bytes_max).map_err(|error| storage_error(&error)),
            None => Ok(Bytes::new()),
        }
    }

    /// Offset and timestamp of the first record at or after `timestamp`, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn first_since(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ResponseError> {
        for segment in &self.segments {
            let found = segment.first_since(self.start, timestamp).map_err(|error| storage_error(&error))?;
            if let Some((header, bytes)) = found {
                let (offset, at) = batch::first_since(&header, bytes, timestamp);
                return Ok(Some((offset.max(self.start), at)));
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the first record with the largest timestamp.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn newest(&self) -> Result<Option<(i64, i64)>, ResponseError> {
        let mut newest = None;
        for segment in &self.segments {
            newest = newest.max(segment.max_timestamp(self.start).map_err(|error| storage_error(&error))?);
        }
        newest.map_or(Ok(None), |timestamp| self.first_since(timestamp))
    }

    /// Makes `offset` the oldest that may be read, if it is not past that already. Returns the oldest.
    ///
    /// # Errors
    /// The offset lies beyond the end.
    pub(super) fn delete_before(&mut self, offset: i64) -> Result<i64, ResponseError> {
        if offset > self.end || offset < 0 {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self.segments.front().is_some_and(|oldest| oldest.end() <= self.start) {
            self.drop_oldest();
        }
        Ok(self.start)
    }

    fn open_segment(&mut self) -> io::Result<&mut Segment> {
        if self.segments.back().is_none_or(|open| open.bytes() >= SEGMENT_BYTES) {
            self.segments.push_back(Segment::create(&self.disk.directory, self.end)?);
        }
        Ok(self.segments.back_mut().expect("one was there, or was made"))
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.disk.give_back(oldest.bytes());
        }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        while !self.segments.is_empty() {
            self.drop_oldest();
        }
    }
}

fn storage_error(error: &io::Error) -> ResponseError {
    tracing::error!(%error, "the embedded Kafka log cannot use its disk");
    ResponseError::KafkaStorageError
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::batch_of;
    use super::*;

    fn partition(directory: &tempfile::TempDir, bytes_max: u64) -> Partition {
        Partition::new(Arc::new(Disk::new(directory.path().into(), 1 << 20, bytes_max)))
    }

    #[test]
    fn a_batch_sent_again_over_a_new_connection_is_stored_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = partition(&directory, 1 << 30);
        let (one, two) = (batch_of(&[b"a", b"b"], Some((5, 0, 0))), batch_of(&[b"c"], Some((5, 0, 2))));
        assert_eq!([log.append(&one), log.append(&two), log.append(&one)], [Ok(0), Ok(2), Ok(0)]);
        assert_eq!(log.end(), 3);
    }

    #[test]
    fn a_full_log_refuses_retriably_keeps_everything_and_takes_records_again_when_freed() {
        let directory = tempfile::tempdir().expect("a directory");
        let batch = batch_of(&[&[b'v'; 1_000]], None);
        let mut log = partition(&directory, 10 * batch.len() as u64);
        for offset in 0..10 {
            assert_eq!(log.append(&batch), Ok(offset));
        }
        assert_eq!(log.append(&batch), Err(ResponseError::NotEnoughReplicas));
        assert!(ResponseError::NotEnoughReplicas.is_retriable());
        assert_eq!((log.start(), log.end(), log.disk.bytes()), (0, 10, 10 * batch.len() as u64));
        assert!(!log.read(0, 1).expect("nothing was dropped").is_empty());

        assert_eq!(log.delete_before(10), Ok(10));
        assert_eq!(log.disk.bytes(), 0);
        assert_eq!(log.append(&batch), Ok(10));
    }

    #[test]
    fn a_batch_that_was_refused_for_want_of_room_is_not_taken_for_a_stored_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = batch_of(&[b"a"], Some((5, 0, 0)));
        let mut log = partition(&directory, first.len() as u64);
        assert_eq!(log.append(&first), Ok(0));
        let second = batch_of(&[b"b"], Some((5, 0, 1)));
        assert_eq!(log.append(&second), Err(ResponseError::NotEnoughReplicas));
        log.delete_before(1).expect("within the log");
        assert_eq!(log.append(&second), Ok(1));
    }

    #[test]
    fn reads_outside_of_the_log_are_out_of_range_and_its_end_is_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = partition(&directory, 1 << 30);
        for _ in 0..5 {
            log.append(&batch_of(&[b"a", b"b"], None)).expect("appended");
        }
        log.delete_before(3).expect("within the log");
        assert_eq!(log.read(2, 1), Err(ResponseError::OffsetOutOfRange));
        assert_eq!(log.read(11, 1), Err(ResponseError::OffsetOutOfRange));
        assert_eq!(log.read(10, 1), Ok(Bytes::new()));
        assert_eq!(log.delete_before(11), Err(ResponseError::OffsetOutOfRange));
    }

    #[test]
    fn a_time_leads_to_the_first_record_that_is_not_older() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = partition(&directory, 1 << 30);
        log.append(&batch_of(&[b"a", b"b", b"c"], None)).expect("appended");
        assert_eq!(log.first_since(0), Ok(Some((0, 1_000))));
        assert_eq!(log.first_since(1_002), Ok(Some((2, 1_002))));
        assert_eq!(log.first_since(1_003), Ok(None));
    }

    #[test]
    fn the_newest_record_is_found_among_those_that_are_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = partition(&directory, 1 << 30);
        assert_eq!(log.newest(), Ok(None));
        for values in [&[b"a".as_slice(), b"b", b"c"], &[b"d".as_slice(), b"e"][..], &[b"f"]] {
            log.append(&batch_of(values, None)).expect("appended");
        }
        assert_eq!(log.newest(), Ok(Some((2, 1_002))));
        log.delete_before(3).expect("within the log");
        assert_eq!(log.newest(), Ok(Some((4, 1_001))));
        log.delete_before(6).expect("within the log");
        assert_eq!(log.newest(), Ok(None));
    }

    #[test]
    fn a_log_leaves_nothing_in_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = partition(&directory, 1 << 30);
        log.append(&batch_of(&[b"a"], None)).expect("appended");
        let disk = log.disk.clone();
        drop(log);
        assert_eq!(disk.bytes(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }
}
