//! Requests for groups: to find, to join, to commit, to look.

use std::collections::BTreeMap;

use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
        JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
        ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use super::{
    super::{
        HOST, NODE_ID, State,
        group::{Caller, Committed, Group, Join, Member, Phase, Place},
    },
    code, milliseconds,
};

/// The kind of coordinator that groups have; the other one is for transactions (Kafka, `CoordinatorType`).
const GROUP_COORDINATOR: i8 = 0;
/// The protocol of all groups here (Kafka, `GroupType`).
const GROUP_TYPE: &str = "classic";

/// Names this broker as every group's coordinator.
pub(super) fn find_coordinator(
    state: &State,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let port = i32::from(state.advertised_port);
    let host = StrBytes::from_static_str(HOST);
    let error = match request.key_type {
        GROUP_COORDINATOR => 0,
        _transactions => ResponseError::InvalidRequest.code(),
    };
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error)
            .with_node_id(NODE_ID.into())
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key: StrBytes| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(error)
            .with_node_id(NODE_ID.into())
            .with_host(host.clone())
            .with_port(port)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}

/// Takes a member in.
pub(super) async fn join(state: &State, request: JoinGroupRequest, version: i16, client_id: &str) -> JoinGroupResponse {
    let session_timeout = milliseconds(request.session_timeout_ms);
    let join = Join {
        member_id: request.member_id.to_string(),
        new_id: format!("{client_id}-{}", state.new_id()),
        id_required: version >= 4,
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        client_id: client_id.to_owned(),
        session_timeout,
        // Version 0 has one timeout for both.
        rebalance_timeout: if version >= 1 { milliseconds(request.rebalance_timeout_ms) } else { session_timeout },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|one| (one.name.to_string(), one.metadata)).collect(),
    };
    let protocol_type = request.protocol_type;
    let joined = state.coordinator.join(&request.group_id, join).await;
    let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
        JoinGroupResponseMember::default()
            .with_member_id(id.into())
            .with_group_instance_id(instance.map(StrBytes::from))
            .with_metadata(metadata)
    };
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type((version >= 7).then_some(protocol_type))
        .with_protocol_name(Some(joined.protocol.into()))
        .with_leader(joined.leader.into())
        .with_member_id(joined.member_id.into())
        .with_members(joined.members.into_iter().map(member).collect())
}

/// Exchanges assignments.
pub(super) async fn sync(state: &State, request: SyncGroupRequest) -> SyncGroupResponse {
    let caller = Caller {
        member_id: &request.member_id,
        generation: request.generation_id,
        instance: request.group_instance_id.as_deref(),
    };
    let assignments = request.assignments.into_iter().map(|one| (one.member_id.to_string(), one.assignment)).collect();
    let assigned = state.coordinator.sync(&request.group_id, caller, assignments).await;
    SyncGroupResponse::default()
        .with_error_code(code(&assigned))
        .with_protocol_type(request.protocol_type)
        .with_protocol_name(request.protocol_name)
        .with_assignment(assigned.unwrap_or_default())
}

/// Takes a sign of life.
pub(super) fn heartbeat(state: &State, request: &HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        generation: request.generation_id,
        instance: request.group_instance_id.as_deref(),
    };
    HeartbeatResponse::default().with_error_code(code(&state.coordinator.heartbeat(&request.group_id, caller)))
}

/// Lets members go: one before version 3, several since.
pub(super) fn leave(state: &State, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let leave = |member: &str, instance: Option<&str>| state.coordinator.leave(&request.group_id, member, instance);
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(code(&leave(&request.member_id, None)));
    }
    let mut left = Vec::with_capacity(request.members.len());
    for member in &request.members {
        let outcome = leave(&member.member_id, member.group_instance_id.as_deref());
        left.push(
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(code(&outcome)),
        );
    }
    LeaveGroupResponse::default().with_members(left)
}

/// Stores committed offsets.
pub(super) fn commit(state: &State, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let caller = Caller {
        member_id: &request.member_id,
        generation: request.generation_id_or_member_epoch,
        instance: request.group_instance_id.as_deref(),
    };
    let allowed = state.coordinator.with(&request.group_id, |group, now| group.may_commit(now, caller)).flatten();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for one in topic.partitions {
            let place = Place { topic: topic.name.to_string(), partition: one.partition_index };
            let metadata = one.committed_metadata.map(|note| note.to_string()).unwrap_or_default();
            let committed = Committed { offset: one.committed_offset, metadata };
            let outcome = allowed
                .and_then(|()| state.topics.log(&topic.name, one.partition_index))
                .and_then(|_| state.coordinator.with(&request.group_id, |group, _| group.commit(place, committed)))
                .flatten();
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(one.partition_index)
                    .with_error_code(code(&outcome)),
            );
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// Tells committed offsets: of one group before version 8, of several since.
pub(super) fn committed(state: &State, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version < 8 {
        let asked = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
        let found = state.coordinator.look(&request.group_id, |group| committed_in(group, asked));
        return OffsetFetchResponse::default().with_topics(found.into_iter().map(topic_before_8).collect());
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let asked = group
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
        let found = state.coordinator.look(&group.group_id, |one| committed_in(one, asked));
        let topics = found.into_iter().map(topic_since_8).collect();
        groups.push(OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics));
    }
    OffsetFetchResponse::default().with_groups(groups)
}

type Partitions = Vec<(i32, Option<Committed>)>;

/// The offsets of the partitions asked for, or of all that have one.
fn committed_in(group: Option<&Group>, asked: Option<Vec<(String, Vec<i32>)>>) -> Vec<(String, Partitions)> {
    let all = || {
        let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for place in group.into_iter().flat_map(Group::places) {
            topics.entry(place.topic.clone()).or_default().push(place.partition);
        }
        topics.into_iter().collect()
    };
    let offset = |topic: &str, partition: i32| {
        let place = Place { topic: topic.to_owned(), partition };
        (partition, group.and_then(|group| group.committed(&place)).cloned())
    };
    let topic = |(name, partitions): (String, Vec<i32>)| {
        let offsets = partitions.into_iter().map(|partition| offset(&name, partition)).collect();
        (name, offsets)
    };
    asked.unwrap_or_else(all).into_iter().map(topic).collect()
}

fn topic_before_8((name, partitions): (String, Partitions)) -> OffsetFetchResponseTopic {
    let partition = |(index, committed): (i32, Option<Committed>)| {
        let (offset, metadata) = offset_and_note(committed);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(name))
        .with_partitions(partitions.into_iter().map(partition).collect())
}

fn topic_since_8((name, partitions): (String, Partitions)) -> OffsetFetchResponseTopics {
    let partition = |(index, committed): (i32, Option<Committed>)| {
        let (offset, metadata) = offset_and_note(committed);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopics::default()
        .with_name(topic_name(name))
        .with_partitions(partitions.into_iter().map(partition).collect())
}

/// -1 stands for "nothing committed".
fn offset_and_note(committed: Option<Committed>) -> (i64, StrBytes) {
    committed.map_or((-1, StrBytes::new()), |committed| (committed.offset, committed.metadata.into()))
}

/// Shows groups and their members.
pub(super) fn describe(state: &State, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let describe = |id: GroupId| {
        state.coordinator.look(&id, |group| {
            let described = DescribedGroup::default().with_group_id(id.clone());
            let Some(group) = group else { return described.with_group_state(StrBytes::from_static_str("Dead")) };
            let member = |(id, member): (&String, &Member)| described_member(id, member, group.protocol());
            described
                .with_group_state(StrBytes::from_static_str(phase_name(group.phase())))
                .with_protocol_type(group.protocol_type().to_owned().into())
                .with_protocol_data(group.protocol().to_owned().into())
                .with_members(group.members().iter().map(member).collect())
        })
    };
    DescribeGroupsResponse::default().with_groups(request.groups.into_iter().map(describe).collect())
}

fn described_member(id: &str, member: &Member, protocol: &str) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(id.to_owned().into())
        .with_group_instance_id(member.instance.clone().map(StrBytes::from))
        .with_client_id(member.client_id.clone().into())
        .with_client_host(StrBytes::from_static_str("/127.0.0.1"))
        .with_member_metadata(member.subscription(protocol).cloned().unwrap_or_default())
        .with_member_assignment(member.assignment.clone())
}

/// Lists groups: all, or those of certain states and types.
pub(super) fn list(state: &State, request: &ListGroupsRequest) -> ListGroupsResponse {
    let listed = state.coordinator.list(|name, group| {
        ListedGroup::default()
            .with_group_id(GroupId::from(StrBytes::from(name.to_owned())))
            .with_protocol_type(group.protocol_type().to_owned().into())
            .with_group_state(StrBytes::from_static_str(phase_name(group.phase())))
            .with_group_type(StrBytes::from_static_str(GROUP_TYPE))
    });
    let passes =
        |filter: &[StrBytes], is: &str| filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(is));
    let wanted = |group: &ListedGroup| {
        passes(&request.states_filter, &group.group_state) && passes(&request.types_filter, &group.group_type)
    };
    ListGroupsResponse::default().with_groups(listed.into_iter().filter(wanted).collect())
}

/// Removes groups with nobody in them.
pub(super) fn delete(state: &State, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let delete = |id: GroupId| {
        let outcome = state.coordinator.delete(&id);
        DeletableGroupResult::default().with_group_id(id).with_error_code(code(&outcome))
    };
    DeleteGroupsResponse::default().with_results(request.groups_names.into_iter().map(delete).collect())
}

/// Removes committed offsets, but not those of topics that the group reads.
pub(super) fn delete_offsets(state: &State, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for one in topic.partitions {
            let place = Place { topic: topic.name.to_string(), partition: one.partition_index };
            let known = state.topics.log(&topic.name, one.partition_index);
            let outcome = match known.and_then(|_| state.coordinator.delete_offset(&request.group_id, &place)) {
                // It is the answer to the whole request.
                Err(error @ ResponseError::GroupIdNotFound) => {
                    return OffsetDeleteResponse::default().with_error_code(error.code());
                }
                outcome => outcome,
            };
            partitions.push(
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(one.partition_index)
                    .with_error_code(code(&outcome)),
            );
        }
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetDeleteResponse::default().with_topics(topics)
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "Empty",
        Phase::Preparing { .. } => "PreparingRebalance",
        Phase::Completing => "CompletingRebalance",
        Phase::Stable => "Stable",
    }
}

fn topic_name(name: String) -> TopicName {
    StrBytes::from(name).into()
}
