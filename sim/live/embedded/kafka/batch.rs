//! Record batches as they travel: checked and stamped, never taken apart.
//!
//! A batch (format v2, Kafka protocol guide, "Record Batch") is kept as its producer framed and compressed it. Its
//! checksum covers neither base offset nor leader epoch, which is why the broker may write both without touching the rest.

use bytes::{Buf, Bytes};
use kafka_protocol::{ResponseError, records::RecordBatchDecoder};

/// Bytes before the first record of a batch.
pub(super) const HEADER_BYTES: usize = 61;
/// Bytes before the field that the length field counts from.
const LENGTH_PREFIX: usize = 12;
/// Where the part that the checksum covers begins.
const CHECKED_FROM: usize = 21;
/// Size of a record without key, value and headers.
const RECORD_BYTES_MIN: usize = 7;
const COMPRESSION: i16 = 0b111;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// What the broker needs to know about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Offset of its first record.
    pub(super) base_offset: i64,
    /// Size of the whole batch, in bytes.
    pub(super) size: usize,
    /// Number of records less one.
    pub(super) last_delta: i32,
    /// Latest timestamp of its records, in milliseconds since the Unix epoch.
    pub(super) max_timestamp: i64,
    /// Who wrote it, and as which of its batches; `None` from a producer without idempotence.
    pub(super) stamp: Option<Stamp>,
    attributes: i16,
    checksum: u32,
    records: i32,
    magic: i8,
}

/// An idempotent producer's mark on a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) producer: i64,
    pub(super) epoch: i16,
    /// Sequence number of its first record.
    pub(super) first: i32,
    /// Sequence number of its last record.
    pub(super) last: i32,
}

impl Header {
    /// Reads a header; `None` where the bytes hold no whole header, or one that contradicts itself.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Header> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let base_offset = bytes.get_i64();
        let length = usize::try_from(bytes.get_i32()).ok()?;
        let _leader_epoch = bytes.get_i32();
        let magic = bytes.get_i8();
        let checksum = bytes.get_u32();
        let attributes = bytes.get_i16();
        let last_delta = bytes.get_i32();
        let _first_timestamp = bytes.get_i64();
        let max_timestamp = bytes.get_i64();
        let (producer, epoch, first) = (bytes.get_i64(), bytes.get_i16(), bytes.get_i32());
        let records = bytes.get_i32();
        let stamp = (producer >= 0).then(|| Stamp {
            producer,
            epoch,
            first,
            // Sequence numbers wrap to 0 after the largest i32.
            last: first.wrapping_add(last_delta) & i32::MAX,
        });
        let size = length + LENGTH_PREFIX;
        (size >= HEADER_BYTES && last_delta >= 0).then_some(Header {
            base_offset,
            size,
            last_delta,
            max_timestamp,
            stamp,
            attributes,
            checksum,
            records,
            magic,
        })
    }

    /// The same batch, beginning at `base_offset`.
    pub(super) fn placed(self, base_offset: i64) -> Header {
        Header { base_offset, ..self }
    }

    /// Offset after its last record.
    pub(super) fn end_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_delta) + 1
    }
}

/// Checks what a producer sent for one partition: exactly one whole, intact batch of at most `bytes_max`.
///
/// # Errors
/// What the producer is to be told.
pub(super) fn check(bytes: &[u8], bytes_max: usize) -> Result<Header, ResponseError> {
    let header = Header::parse(bytes).ok_or(ResponseError::CorruptMessage)?;
    if header.magic != 2 {
        return Err(ResponseError::UnsupportedForMessageFormat);
    }
    if header.size > bytes_max {
        return Err(ResponseError::MessageTooLarge);
    }
    if header.size > bytes.len() || crc32c::crc32c(&bytes[CHECKED_FROM..header.size]) != header.checksum {
        return Err(ResponseError::CorruptMessage);
    }
    let plain = header.attributes & (TRANSACTIONAL | CONTROL) == 0;
    let counted = header.records == header.last_delta.wrapping_add(1);
    let sequenced = header.stamp.is_none_or(|stamp| stamp.epoch >= 0 && stamp.first >= 0);
    if header.size != bytes.len() || !plain || !counted || !sequenced {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(header)
}

/// A copy of a checked batch that begins at `base_offset`.
pub(super) fn stamped(batch: &[u8], base_offset: i64) -> Vec<u8> {
    let mut copy = batch.to_vec();
    copy[..8].copy_from_slice(&base_offset.to_be_bytes());
    // "No leader epoch": leadership never moves here, and a client that knows none asks for no validation.
    copy[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    copy
}

/// Offset and timestamp of the first record of a batch at or after `timestamp`.
///
/// A batch that cannot be opened here, because it is compressed, answers with its beginning: earlier than asked, never later.
pub(super) fn first_since(batch: &Header, mut bytes: Bytes, timestamp: i64) -> (i64, i64) {
    // The codec makes room for as many records as the header claims: believe no more than the bytes can hold.
    let credible = batch.attributes & COMPRESSION == 0
        && usize::try_from(batch.records).is_ok_and(|count| count <= batch.size / RECORD_BYTES_MIN);
    let exact = credible
        .then(|| RecordBatchDecoder::decode(&mut bytes).ok())
        .flatten()
        .and_then(|set| set.records.into_iter().find(|record| record.timestamp >= timestamp));
    exact.map_or((batch.base_offset, batch.max_timestamp), |record| (record.offset, record.timestamp))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A whole batch of `values`, one record each, with timestamps 1,000, 1,001, ...
    pub(in super::super) fn batch_of(values: &[&[u8]], stamp: Option<(i64, i16, i32)>) -> Vec<u8> {
        use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
        let (producer_id, producer_epoch, first) = stamp.unwrap_or((-1, -1, -1));
        let records: Vec<Record> = (0i32..)
            .zip(values)
            .map(|(index, value)| Record {
                transactional: false,
                control: false,
                partition_leader_epoch: -1,
                producer_id,
                producer_epoch,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(index),
                sequence: first.wrapping_add(index),
                timestamp: 1_000 + i64::from(index),
                key: None,
                value: Some(Bytes::copy_from_slice(value)),
                headers: Default::default(),
                delete_horizon: false,
            })
            .collect();
        let mut bytes = bytes::BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("records of one batch");
        bytes.to_vec()
    }

    #[test]
    fn stamping_moves_the_offset_and_keeps_the_batch_intact() {
        let received = batch_of(&[b"a", b"b", b"c"], Some((7, 0, 40)));
        let moved = stamped(&received, 1_000);
        let header = check(&moved, 1 << 20).expect("the checksum still holds");
        assert_eq!((header.base_offset, header.end_offset()), (1_000, 1_003));
        assert_eq!(header.stamp, Some(Stamp { producer: 7, epoch: 0, first: 40, last: 42 }));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_or_harmless() {
        let whole = batch_of(&[b"value"], None);
        for at in 8..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            let harmless = (12..16).contains(&at); // the leader epoch, which the broker writes anew
            assert_eq!(check(&broken, 1 << 20).is_ok(), harmless, "byte {at}");
        }
    }

    #[test]
    fn no_prefix_of_a_batch_is_taken_for_a_batch() {
        let whole = batch_of(&[b"value"], None);
        for cut in 0..whole.len() {
            assert_eq!(check(&whole[..cut], 1 << 20), Err(ResponseError::CorruptMessage), "{cut} bytes");
        }
    }

    #[test]
    fn two_batches_and_oversized_batches_are_refused() {
        let one = batch_of(&[b"value"], None);
        assert_eq!(check(&one.repeat(2), 1 << 20), Err(ResponseError::InvalidRecord));
        assert_eq!(check(&one, one.len() - 1), Err(ResponseError::MessageTooLarge));
        assert!(check(&one, one.len()).is_ok());
    }

    #[test]
    fn a_record_is_found_by_its_time_inside_a_batch() {
        let bytes = Bytes::from(stamped(&batch_of(&[b"a", b"b", b"c"], None), 500));
        let header = Header::parse(&bytes).expect("a header");
        assert_eq!(first_since(&header, bytes.clone(), 1_001), (501, 1_001));
        assert_eq!(first_since(&header, bytes, 0), (500, 1_000));
    }
}
