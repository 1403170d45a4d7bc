//! Every offered version of every request has an answer that a client of that version can read.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        create_partitions_request::CreatePartitionsTopic, create_topics_request::CreatableTopic,
        delete_records_request::*, describe_configs_request::DescribeConfigsResource, fetch_request::*,
        join_group_request::JoinGroupRequestProtocol, leave_group_request::MemberIdentity, list_offsets_request::*,
        metadata_request::MetadataRequestTopic, offset_commit_request::*, offset_delete_request::*,
        offset_fetch_request::*, produce_request::*, *,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use super::{super::api, *};

fn topic() -> TopicName {
    text("t").into()
}

fn group() -> GroupId {
    text("g").into()
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// Sends a request in all offered versions, and hands each answer to `look`.
fn ask<R: Request>(state: &State, request: impl Fn(i16) -> R, look: impl Fn(i16, R::Response)) {
    let key = ApiKey::try_from(R::KEY).expect("a known request");
    let (_, oldest, newest) = *api::SUPPORTED.iter().find(|(one, ..)| *one == key).expect("an offered request");
    for version in oldest..=newest {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(text("test")));
        header.encode(&mut frame, R::header_version(version)).expect("a header");
        request(version).encode(&mut frame, version).expect("a request of this version");
        let answer = run(api::answer(state, frame.freeze())).unwrap_or_else(|error| {
            panic!("{key:?} {version}: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
        });
        let mut answer = answer.expect("an answer").freeze();
        let length = answer.split_to(4);
        assert_eq!(length[..], (answer.len() as u32).to_be_bytes());
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, 77);
        look(version, R::Response::decode(&mut answer, version).expect("an answer of this version"));
        assert!(answer.is_empty(), "{key:?} {version} leaves bytes over");
    }
}

#[test]
fn every_version_on_offer_is_answered_in_kind() {
    let bench = Bench::start(|config| config.initial_rebalance_delay = Duration::ZERO);
    let state = &*bench.broker.state;
    ask(
        state,
        |_| ApiVersionsRequest::default().with_client_software_name(text("a")).with_client_software_version(text("1")),
        |_, r| {
            assert_eq!(r.api_keys.len(), api::SUPPORTED.len());
        },
    );
    ask(
        state,
        |_| {
            MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic()))]))
        },
        |_, r| {
            assert_eq!((r.brokers.len(), r.topics[0].partitions.len()), (1, 4));
        },
    );
    records(state);
    groups(state);
    admin(state);
}

fn records(state: &State) {
    let batch = Bytes::from(batch::tests::batch_of(&[b"v"], None));
    ask(
        state,
        |_| {
            let data = PartitionProduceData::default().with_records(Some(batch.clone()));
            let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
            ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic])
        },
        |version, r| {
            let stored = &r.responses[0].partition_responses[0];
            assert_eq!((stored.error_code, stored.base_offset), (0, i64::from(version - 3)));
        },
    );
    ask(
        state,
        |_| {
            let partition = FetchPartition::default().with_fetch_offset(2).with_partition_max_bytes(1);
            let topic = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
            FetchRequest::default().with_max_bytes(1).with_topics(vec![topic])
        },
        |_, r| {
            let found = &r.responses[0].partitions[0];
            assert_eq!((found.error_code, found.high_watermark), (0, 7));
            assert_eq!(found.records.as_ref().map(Bytes::len), Some(batch.len()));
        },
    );
    ask(
        state,
        |_| {
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic])
        },
        |_, r| assert_eq!(r.topics[0].partitions[0].offset, 7),
    );
    ask(
        state,
        |_| {
            let partition = DeleteRecordsPartition::default().with_offset(3);
            let topic = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        },
        |_, r| assert_eq!(r.topics[0].partitions[0].low_watermark, 3),
    );
    ask(state, |_| InitProducerIdRequest::default().with_transactional_id(None), |_, r| assert_eq!(r.error_code, 0));
}

fn groups(state: &State) {
    ask(
        state,
        |version| match version {
            ..4 => FindCoordinatorRequest::default().with_key(text("g")),
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
        },
        |version, r| {
            assert_eq!(if version < 4 { r.port } else { r.coordinators[0].port }, i32::from(state.advertised_port))
        },
    );
    ask(
        state,
        |version| {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            JoinGroupRequest::default()
                .with_group_id(StrBytes::from(format!("joined-{version}")).into())
                .with_session_timeout_ms(60_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
        },
        |version, r| match version {
            ..4 => assert_eq!((r.error_code, r.generation_id, r.members.len()), (0, 1, 1)),
            4.. => assert_eq!(r.error_code, ResponseError::MemberIdRequired.code()),
        },
    );
    let unknown = ResponseError::UnknownMemberId.code();
    ask(state, |_| SyncGroupRequest::default().with_group_id(group()), |_, r| assert_eq!(r.error_code, unknown));
    ask(state, |_| HeartbeatRequest::default().with_group_id(group()), |_, r| assert_eq!(r.error_code, unknown));
    ask(
        state,
        |version| match version {
            ..3 => LeaveGroupRequest::default().with_group_id(group()).with_member_id(text("m")),
            3.. => {
                let member = MemberIdentity::default().with_member_id(text("m"));
                LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member])
            }
        },
        |version, r| assert_eq!(if version < 3 { r.error_code } else { r.members[0].error_code }, unknown),
    );
    offsets(state);
    ask(
        state,
        |_| DescribeGroupsRequest::default().with_groups(vec![group(), text("joined-0").into()]),
        |_, r| {
            assert_eq!(
                (r.groups[0].group_state.as_str(), r.groups[1].group_state.as_str()),
                ("Empty", "CompletingRebalance")
            );
            assert_eq!(r.groups[1].members[0].client_id.as_str(), "test");
        },
    );
    ask(state, |_| ListGroupsRequest::default(), |_, r| assert!(r.groups.iter().any(|one| one.group_id == group())));
    // The last of it: a group with neither members nor offsets is soon forgotten.
    ask(
        state,
        |_| {
            let indexes = [0, 9].map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
            let topic = OffsetDeleteRequestTopic::default().with_name(topic()).with_partitions(indexes.to_vec());
            OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])
        },
        |_, r| {
            let codes: Vec<i16> = r.topics[0].partitions.iter().map(|one| one.error_code).collect();
            assert_eq!(codes, [0, ResponseError::UnknownTopicOrPartition.code()]);
        },
    );
    ask(
        state,
        |_| DeleteGroupsRequest::default().with_groups_names(vec![text("joined-0").into()]),
        |_, r| assert_eq!(r.results[0].error_code, ResponseError::NonEmptyGroup.code()),
    );
}

fn offsets(state: &State) {
    ask(
        state,
        |version| {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(i64::from(version));
            let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
            OffsetCommitRequest::default()
                .with_group_id(group())
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic])
        },
        |_, r| assert_eq!(r.topics[0].partitions[0].error_code, 0),
    );
    ask(
        state,
        |version| match version {
            ..8 => {
                let topic = OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
                OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]))
            }
            8.. => {
                let topic = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
                let group = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
                OffsetFetchRequest::default().with_groups(vec![group])
            }
        },
        |version, r| {
            let offsets: Vec<i64> = match version {
                ..8 => r.topics[0].partitions.iter().map(|one| one.committed_offset).collect(),
                8.. => r.groups[0].topics[0].partitions.iter().map(|one| one.committed_offset).collect(),
            };
            assert_eq!(offsets, [8, -1]);
        },
    );
}

fn admin(state: &State) {
    ask(
        state,
        |version| {
            let name = StrBytes::from(format!("made-{version}")).into();
            let topic = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic])
        },
        |_, r| assert_eq!(r.topics[0].error_code, 0),
    );
    ask(
        state,
        |version| {
            let topic = CreatePartitionsTopic::default().with_name(text("made-2").into());
            CreatePartitionsRequest::default().with_topics(vec![topic.with_count(2 + i32::from(version))])
        },
        |_, r| assert_eq!(r.results[0].error_code, 0),
    );
    ask(
        state,
        |_| {
            let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            DescribeConfigsRequest::default().with_resources(vec![topic])
        },
        |_, r| assert!(r.results[0].configs.iter().any(|one| one.name.as_str() == "max.message.bytes")),
    );
    ask(
        state,
        |_| DescribeClusterRequest::default(),
        |_, r| assert_eq!((r.error_code, r.brokers[0].port), (0, i32::from(state.advertised_port))),
    );
    ask(
        state,
        |version| {
            let name = StrBytes::from(format!("made-{}", version + 1)).into();
            DeleteTopicsRequest::default().with_topic_names(vec![name])
        },
        |_, r| assert_eq!(r.responses[0].error_code, 0),
    );
}

#[test]
fn what_is_not_on_offer_is_refused_and_a_newer_hello_is_told_what_is() {
    let bench = Bench::start(|_| {});
    let state = &*bench.broker.state;
    let frame = |key: i16, version: i16, rest: &[u8]| {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_slice(rest);
        frame.freeze()
    };
    for (key, version) in [(0, 2), (0, 99), (24, 0), (-1, 0), (9_999, 0)] {
        assert!(matches!(run(api::answer(state, frame(key, version, &[]))), Err(api::Refused::NotOffered { .. })));
    }
    for cut in [0, 3, 7] {
        let short = frame(3, 1, &[]).slice(..cut);
        assert!(matches!(run(api::answer(state, short)), Err(api::Refused::Malformed(_))));
    }
    assert!(matches!(run(api::answer(state, frame(3, 1, &[0, 9, 1]))), Err(api::Refused::Malformed(_))));
    let answer = run(api::answer(state, frame(18, 99, b"of the future"))).expect("an answer").expect("one with bytes");
    let told = ApiVersionsResponse::decode(&mut answer.freeze().slice(8..), 0).expect("version 0");
    assert_eq!((told.error_code, told.api_keys.len()), (35, api::SUPPORTED.len()));
}
