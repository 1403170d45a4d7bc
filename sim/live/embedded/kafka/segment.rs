//! One append-only file of a partition, and a sparse index of it.
//!
//! The file has no name: it goes with the process, however the process ends. Memory holds one index entry per 16 KiB of
//! file, 24 bytes each, however small the batches are.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;

use super::batch::{HEADER_BYTES, Header};

/// Distance between two index entries: little enough to read over, and a 1:700 ratio of index to log.
const INDEX_EVERY_BYTES: u64 = 16 << 10;

/// Consecutive batches in one file.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// Offset after the last record.
    end: i64,
    bytes: u64,
    index: Vec<Entry>,
}

/// The batches that begin within one stretch of the file.
#[derive(Debug)]
struct Entry {
    base_offset: i64,
    position: u64,
    max_timestamp: i64,
}

impl Segment {
    /// An empty segment in `directory`, whose first record will have offset `base_offset`.
    pub(super) fn create(directory: &Path, base_offset: i64) -> io::Result<Segment> {
        Ok(Segment { file: tempfile::tempfile_in(directory)?, end: base_offset, bytes: 0, index: Vec::new() })
    }

    /// Offset after its last record.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Size of its file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends one batch, which begins where the last one ended. After an error the segment is as it was.
    pub(super) fn append(&mut self, header: &Header, batch: &[u8]) -> io::Result<()> {
        assert_eq!(header.base_offset, self.end, "a batch follows the one before");
        self.file.write_all_at(batch, self.bytes)?;
        match self.index.last_mut() {
            Some(last) if self.bytes < last.position + INDEX_EVERY_BYTES => {
                last.max_timestamp = last.max_timestamp.max(header.max_timestamp);
            }
            Some(_) | None => self.index.push(Entry {
                base_offset: header.base_offset,
                position: self.bytes,
                max_timestamp: header.max_timestamp,
            }),
        }
        self.bytes += batch.len() as u64;
        self.end = header.end_offset();
        Ok(())
    }

    /// Whole batches from the one that holds `offset` on, about `bytes_max` of them but one at least.
    ///
    /// Nothing where `offset` is not below [`Segment::end`].
    pub(super) fn read(&self, offset: i64, bytes_max: usize) -> io::Result<Bytes> {
        let Some(nearest) = self.index.partition_point(|entry| entry.base_offset <= offset).checked_sub(1) else {
            return Ok(Bytes::new());
        };
        if offset >= self.end {
            return Ok(Bytes::new());
        }
        // Every batch of an entry begins within the entry's stretch, so the wanted header is in what is read.
        let position = self.index[nearest].position;
        let chunk = self.chunk(position, INDEX_EVERY_BYTES + HEADER_BYTES as u64 + bytes_max as u64)?;
        let mut from = 0;
        while header_at(&chunk, from)?.end_offset() <= offset {
            from += header_at(&chunk, from)?.size;
        }
        let first = header_at(&chunk, from)?.size;
        if from + first > chunk.len() {
            return self.chunk(position + from as u64, first as u64);
        }
        let mut to = from + first;
        while let Some(next) = Header::parse(&chunk[to..])
            && to + next.size <= chunk.len()
            && to + next.size - from <= bytes_max
        {
            to += next.size;
        }
        Ok(chunk.slice(from..to))
    }

    /// The first batch, from `offset` on, that has a record at or after `timestamp`.
    pub(super) fn first_since(&self, offset: i64, timestamp: i64) -> io::Result<Option<(Header, Bytes)>> {
        let nearest = self.index.partition_point(|entry| entry.base_offset <= offset).saturating_sub(1);
        let Some(stretch) = self.index[nearest..].iter().position(|entry| entry.max_timestamp >= timestamp) else {
            return Ok(None);
        };
        let mut at = self.index[nearest + stretch].base_offset.max(offset);
        while at < self.end {
            let bytes = self.read(at, 1)?;
            let header = header_at(&bytes, 0)?;
            if header.max_timestamp >= timestamp {
                return Ok(Some((header, bytes)));
            }
            at = header.end_offset();
        }
        Ok(None)
    }

    /// The largest timestamp from `offset` on; `None` where there is no record.
    pub(super) fn max_timestamp(&self, offset: i64) -> io::Result<Option<i64>> {
        let nearest = self.index.partition_point(|entry| entry.base_offset <= offset).saturating_sub(1);
        let whole = self.index.get(nearest + 1..).unwrap_or_default();
        let mut newest = whole.iter().map(|entry| entry.max_timestamp).max();
        // The stretch that holds `offset` may begin before it.
        let until = whole.first().map_or(self.end, |entry| entry.base_offset);
        let mut at = self.index.get(nearest).map_or(until, |entry| entry.base_offset.max(offset));
        while at < until {
            let header = header_at(&self.read(at, 1)?, 0)?;
            newest = newest.max(Some(header.max_timestamp));
            at = header.end_offset();
        }
        Ok(newest)
    }

    fn chunk(&self, position: u64, bytes: u64) -> io::Result<Bytes> {
        let mut chunk = vec![0; bytes.min(self.bytes - position) as usize];
        self.file.read_exact_at(&mut chunk, position)?;
        Ok(chunk.into())
    }
}

fn header_at(chunk: &Bytes, at: usize) -> io::Result<Header> {
    chunk
        .get(at..)
        .and_then(Header::parse)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no record batch where the index says"))
}

#[cfg(test)]
mod tests {
    use super::super::batch::{check, stamped, tests::batch_of};
    use super::*;

    /// A segment from offset 10 on, with one batch per given number of records, each value of `value_bytes`.
    fn segment_of(directory: &Path, batches: &[usize], value_bytes: usize) -> Segment {
        let mut segment = Segment::create(directory, 10).expect("a file");
        let value = vec![b'v'; value_bytes];
        for &records in batches {
            let batch = stamped(&batch_of(&vec![&value[..]; records], None), segment.end());
            let header = check(&batch, usize::MAX).expect("a whole batch");
            segment.append(&header, &batch).expect("appended");
        }
        segment
    }

    fn offsets(bytes: &Bytes) -> Vec<(i64, i64)> {
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let header = header_at(bytes, at).expect("whole batches only");
            found.push((header.base_offset, header.end_offset()));
            at += header.size;
        }
        assert_eq!(at, bytes.len());
        found
    }

    #[test]
    fn every_offset_reads_from_the_batch_that_holds_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment_of(directory.path(), &[3, 1, 40, 2].repeat(60), 500);
        assert!(segment.index.len() > 10, "the index is exercised");
        for offset in 10..segment.end() {
            let (base, end) = offsets(&segment.read(offset, 1).expect("readable"))[0];
            assert!((base..end).contains(&offset), "{offset} in {base}..{end}");
        }
        assert!(segment.read(segment.end(), 1 << 20).expect("readable").is_empty());
    }

    #[test]
    fn reading_on_from_each_answer_sees_every_record_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment_of(directory.path(), &[1, 7, 2].repeat(50), 300);
        for bytes_max in [1, 700, 5_000, 1 << 20] {
            let mut at = 10;
            while at < segment.end() {
                for (base, end) in offsets(&segment.read(at, bytes_max).expect("readable")) {
                    assert_eq!(base, at);
                    at = end;
                }
            }
            assert_eq!(at, 10 + 500);
        }
    }

    #[test]
    fn a_batch_larger_than_asked_for_is_given_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment_of(directory.path(), &[1, 1], 200_000);
        assert_eq!(offsets(&segment.read(11, 10).expect("readable")), [(11, 12)]);
    }
}
