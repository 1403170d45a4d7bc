//! Requests for records: to store, to read, to find, to delete.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest, FetchResponse, ListOffsetsRequest,
        ListOffsetsResponse, ProduceRequest, ProduceResponse, TopicName,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
        fetch_request::FetchPartition,
        fetch_response::{FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};
use tokio::time::Instant;

use super::{State, code, milliseconds};

/// Most that one answer to a fetch holds, whatever the client would take (Kafka, `fetch.max.bytes`, is 55 MiB).
const FETCH_BYTES_MAX: usize = 16 << 20;
/// What clients ask for in place of a timestamp (Kafka, `ListOffsetsRequest`).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Asks for the record with the largest timestamp (Kafka, `ListOffsetsRequest.MAX_TIMESTAMP`).
const MAX_TIMESTAMP: i64 = -3;

/// Stores batches. Also says whether all were stored.
pub(super) fn produce(state: &State, request: ProduceRequest) -> (ProduceResponse, bool) {
    let mut all_stored = true;
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let records = data.records.unwrap_or_default();
            let outcome = state.topics.log(&topic.name, data.index).and_then(|log| {
                let mut partition = log.lock();
                let base_offset = partition.append(&records)?;
                Ok((base_offset, partition.start()))
            });
            all_stored &= outcome.is_ok();
            let (base_offset, start) = outcome.unwrap_or((-1, -1));
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code(&outcome))
                    .with_base_offset(base_offset)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(start),
            );
        }
        responses.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    state.topics.tell_appended();
    (ProduceResponse::default().with_responses(responses), all_stored)
}

/// Reads batches; waits, as long as the client allows, until there are as many bytes as it wants.
pub(super) async fn fetch(state: &State, request: FetchRequest) -> FetchResponse {
    let deadline = Instant::now() + milliseconds(request.max_wait_ms);
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut appended = std::pin::pin!(state.topics.appended().notified());
    loop {
        let held = state.topics.bytes();
        appended.set(state.topics.appended().notified());
        appended.as_mut().enable();
        let found = gather(state, &request);
        if found.bytes >= wanted || found.failed || Instant::now() >= deadline {
            return FetchResponse::default().with_responses(found.topics);
        }
        // Files are read to answer: not before enough has come, to whatever partition.
        let missing = (wanted - found.bytes) as u64;
        while tokio::time::timeout_at(deadline, appended.as_mut()).await.is_ok() {
            appended.set(state.topics.appended().notified());
            appended.as_mut().enable();
            if state.topics.bytes().saturating_sub(held) >= missing {
                break;
            }
        }
    }
}

struct Found {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

fn gather(state: &State, request: &FetchRequest) -> Found {
    let room = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let mut found = Found { topics: Vec::with_capacity(request.topics.len()), bytes: 0, failed: false };
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            // The first batch comes whole whatever its size, or a client could never get past it (KIP-74).
            let left = room.saturating_sub(found.bytes);
            let bytes_max = left.min(usize::try_from(wanted.partition_max_bytes).unwrap_or(0));
            let read = read(state, &topic.topic, wanted, (left > 0 || found.bytes == 0).then_some(bytes_max));
            found.failed |= read.error_code != 0;
            found.bytes += read.records.as_ref().map_or(0, Bytes::len);
            partitions.push(read);
        }
        found
            .topics
            .push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
    }
    found
}

/// What one partition has; without `bytes_max`, only where it ends.
fn read(state: &State, topic: &TopicName, wanted: &FetchPartition, bytes_max: Option<usize>) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_aborted_transactions(Some(Vec::new()))
        .with_records(Some(Bytes::new()));
    let log = match state.topics.log(topic, wanted.partition) {
        Ok(log) => log,
        Err(error) => return data.with_error_code(error.code()).with_high_watermark(-1),
    };
    let partition = log.lock();
    let records = match bytes_max {
        Some(bytes_max) => partition.read(wanted.fetch_offset, bytes_max),
        None => Ok(Bytes::new()),
    };
    data.with_error_code(code(&records))
        .with_high_watermark(partition.end())
        .with_last_stable_offset(partition.end())
        .with_log_start_offset(partition.start())
        .with_records(Some(records.unwrap_or_default()))
}

/// Finds offsets: the oldest, the next, or the first at or after a time.
pub(super) fn list_offsets(state: &State, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let find = |index: i32, timestamp: i64| {
            let found = state.topics.log(&topic.name, index).and_then(|log| offset_at(&log.lock(), timestamp));
            let (offset, at) = found.unwrap_or((-1, -1));
            ListOffsetsPartitionResponse::default()
                .with_partition_index(index)
                .with_error_code(code(&found))
                .with_offset(offset)
                .with_timestamp(at)
        };
        let partitions = topic.partitions.iter().map(|one| find(one.partition_index, one.timestamp)).collect();
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn offset_at(partition: &super::super::partition::Partition, timestamp: i64) -> Result<(i64, i64), ResponseError> {
    match timestamp {
        LATEST => Ok((partition.end(), -1)),
        EARLIEST => Ok((partition.start(), -1)),
        MAX_TIMESTAMP => Ok(partition.newest()?.unwrap_or((-1, -1))),
        // The other negative ones ask for tiered logs.
        ..0 => Err(ResponseError::UnsupportedVersion),
        0.. => Ok(partition.first_since(timestamp)?.unwrap_or((-1, -1))),
    }
}

/// Deletes the oldest records of partitions.
pub(super) fn delete_records(state: &State, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let delete = |index: i32, before: i64| {
            let start = state.topics.log(&topic.name, index).and_then(|log| {
                let mut partition = log.lock();
                // -1 means: everything there is.
                let before = if before == -1 { partition.end() } else { before };
                partition.delete_before(before)
            });
            DeleteRecordsPartitionResult::default()
                .with_partition_index(index)
                .with_error_code(code(&start))
                .with_low_watermark(start.unwrap_or(-1))
        };
        let partitions = topic.partitions.iter().map(|one| delete(one.partition_index, one.offset)).collect();
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}
