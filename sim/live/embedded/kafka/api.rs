//! The requests that the broker answers, and at which versions.
//!
//! The versions are those that librdkafka 2.12, kcat and Kafka's own Java tools agree on, less what needs topic ids, fetch
//! sessions, leader epochs or transactions: the broker has none of these and says so by its versions, so that clients
//! do without.

mod groups;
mod records;
mod topics;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, RequestHeader,
        ResponseHeader, api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable, HeaderVersion},
};

use super::State;

/// Request, oldest and newest version.
pub(super) const SUPPORTED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 9),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 8),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 6),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 2),
];

/// Stands for a version of ApiVersions that is newer than what is known here.
const VERSION_UNKNOWN: i16 = i16::MAX;

/// Why a connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Not a request of this protocol, or of a version that was not offered.
    #[error("request {key} version {version} is not offered")]
    NotOffered {
        /// Number of the request's kind.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// The bytes are not what they say they are.
    #[error("reading a request")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer has no form in the request's version.
    #[error("writing an answer")]
    Unanswerable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A producer that wants no answers could not be told of an error in another way (Kafka does the same).
    #[error("a produce request without answer failed")]
    Silent,
}

/// Answers one request; with nothing where the client wants no answer.
///
/// # Errors
/// The connection is to be closed.
pub(super) async fn answer(state: &State, frame: Bytes) -> Result<Option<BytesMut>, Refused> {
    let mut call = Call::read(frame)?;
    match call.key {
        ApiKey::Produce => {
            let request: ProduceRequest = call.request()?;
            let wants_answer = request.acks != 0;
            let (response, all_stored) = records::produce(state, request);
            match (wants_answer, all_stored) {
                (true, _) => call.respond(&response),
                (false, true) => Ok(None),
                (false, false) => Err(Refused::Silent),
            }
        }
        ApiKey::Fetch => call.respond(&records::fetch(state, call.request()?).await),
        ApiKey::ListOffsets => call.respond(&records::list_offsets(state, call.request()?)),
        ApiKey::DeleteRecords => call.respond(&records::delete_records(state, call.request()?)),
        ApiKey::InitProducerId => call.respond(&init_producer(state, &call.request()?)),
        ApiKey::DescribeCluster => call.respond(&topics::cluster(state, &call.request()?)),
        ApiKey::Metadata => call.respond(&topics::metadata(state, call.request()?, call.version)),
        ApiKey::CreateTopics => call.respond(&topics::create(state, call.request()?)),
        ApiKey::DeleteTopics => call.respond(&topics::delete(state, call.request()?)),
        ApiKey::CreatePartitions => call.respond(&topics::grow(state, call.request()?)),
        ApiKey::DescribeConfigs => call.respond(&topics::describe_configs(state, call.request()?)),
        ApiKey::FindCoordinator => call.respond(&groups::find_coordinator(state, call.request()?, call.version)),
        ApiKey::JoinGroup => {
            let request = call.request()?;
            call.respond(&groups::join(state, request, call.version, &call.client_id).await)
        }
        ApiKey::SyncGroup => call.respond(&groups::sync(state, call.request()?).await),
        ApiKey::Heartbeat => call.respond(&groups::heartbeat(state, &call.request()?)),
        ApiKey::LeaveGroup => call.respond(&groups::leave(state, call.request()?, call.version)),
        ApiKey::OffsetCommit => call.respond(&groups::commit(state, call.request()?)),
        ApiKey::OffsetFetch => call.respond(&groups::committed(state, call.request()?, call.version)),
        ApiKey::DescribeGroups => call.respond(&groups::describe(state, call.request()?)),
        ApiKey::ListGroups => call.respond(&groups::list(state, &call.request()?)),
        ApiKey::DeleteGroups => call.respond(&groups::delete(state, call.request()?)),
        ApiKey::OffsetDelete => call.respond(&groups::delete_offsets(state, call.request()?)),
        ApiKey::ApiVersions if call.version == VERSION_UNKNOWN => {
            call.version = 0;
            call.respond(&versions(Some(ResponseError::UnsupportedVersion)))
        }
        ApiKey::ApiVersions => call.respond(&versions(None)),
        other => Err(Refused::NotOffered { key: other as i16, version: call.version }),
    }
}

/// A request whose header is read.
struct Call {
    key: ApiKey,
    version: i16,
    client_id: String,
    correlation_id: i32,
    body: Bytes,
}

impl Call {
    fn read(mut frame: Bytes) -> Result<Call, Refused> {
        let mut start = frame.clone();
        if start.len() < 8 {
            return Err(Refused::Malformed("a request begins with eight bytes of header".into()));
        }
        let (number, version, correlation_id) = (start.get_i16(), start.get_i16(), start.get_i32());
        let not_offered = Refused::NotOffered { key: number, version };
        let Ok(key) = ApiKey::try_from(number) else { return Err(not_offered) };
        let Some((_, oldest, newest)) = SUPPORTED.iter().find(|(offered, ..)| *offered == key) else {
            return Err(not_offered);
        };
        if key == ApiKey::ApiVersions && version > *newest {
            // Kafka answers a version of ApiVersions that it does not know in version 0, with its own versions in it.
            let client_id = String::new();
            return Ok(Call { key, version: VERSION_UNKNOWN, client_id, correlation_id, body: Bytes::new() });
        }
        if !(*oldest..=*newest).contains(&version) {
            return Err(not_offered);
        }
        let header = RequestHeader::decode(&mut frame, key.request_header_version(version))
            .map_err(|error| Refused::Malformed(error.into()))?;
        let client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
        Ok(Call { key, version, client_id, correlation_id, body: frame })
    }

    fn request<R: Decodable>(&self) -> Result<R, Refused> {
        R::decode(&mut self.body.clone(), self.version).map_err(|error| Refused::Malformed(error.into()))
    }

    fn respond<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Option<BytesMut>, Refused> {
        let mut frame = BytesMut::with_capacity(256);
        frame.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        header
            .encode(&mut frame, R::header_version(self.version))
            .and_then(|()| response.encode(&mut frame, self.version))
            .map_err(|error| Refused::Unanswerable(error.into()))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| Refused::Unanswerable(error.into()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(frame))
    }
}

fn versions(error: Option<ResponseError>) -> ApiVersionsResponse {
    let offer = |&(key, oldest, newest): &(ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(oldest).with_max_version(newest)
    };
    ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_api_keys(SUPPORTED.iter().map(offer).collect())
}

fn init_producer(state: &State, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        return InitProducerIdResponse::default().with_error_code(error.code());
    }
    InitProducerIdResponse::default().with_producer_id(state.new_id().into()).with_producer_epoch(0)
}

/// The number that the protocol has for an outcome.
fn code<T>(outcome: &Result<T, ResponseError>) -> i16 {
    outcome.as_ref().map_or_else(ResponseError::code, |_| 0)
}

/// A wire timeout; negative ones count as none.
fn milliseconds(count: i32) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
