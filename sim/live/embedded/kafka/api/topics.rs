//! Requests for topics: what there is, to make, to grow, to remove.

use kafka_protocol::{
    ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
        DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::CreatableTopic,
        create_topics_response::CreatableTopicResult,
        delete_topics_response::DeletableTopicResult,
        describe_cluster_response::DescribeClusterBroker,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};

use super::{
    super::{HOST, NODE_ID, State},
    code,
};

/// The kind of resource that a topic is, where configurations are asked for (Kafka, `ConfigResource.Type`).
const TOPIC_RESOURCE: i8 = 2;
/// Where a value comes from that nobody set (Kafka, `ConfigSource.DEFAULT_CONFIG`).
const DEFAULT_CONFIG: i8 = 5;
/// The cluster's id.
const CLUSTER: StrBytes = StrBytes::from_static_str("fleetproof-embedded");
/// The kind of endpoint that brokers have; the other one is of controllers, which cannot be reached here.
const BROKER_ENDPOINTS: i8 = 1;

/// Says which broker there is, and which topics.
pub(super) fn metadata(state: &State, request: MetadataRequest, version: i16) -> MetadataResponse {
    let asked: Option<Vec<String>> =
        request.topics.map(|topics| topics.into_iter().filter_map(|topic| topic.name).map(|n| n.to_string()).collect());
    // In version 0 no names mean all topics, later they mean none.
    let named = asked.filter(|names| version > 0 || !names.is_empty());
    // Before version 4 the broker alone decided about making topics.
    let may_create = version < 4 || request.allow_auto_topic_creation;
    let topics = match named {
        Some(names) => names.iter().map(|name| describe(name, state.topics.find(name, may_create))).collect(),
        None => state.topics.names().iter().map(|name| describe(name, state.topics.find(name, false))).collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE_ID.into())
        .with_host(StrBytes::from_static_str(HOST))
        .with_port(state.advertised_port.into());
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(CLUSTER))
        .with_controller_id(NODE_ID.into())
        .with_topics(topics)
}

/// Says which broker there is, to those that do not care for topics.
pub(super) fn cluster(state: &State, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != BROKER_ENDPOINTS {
        return DescribeClusterResponse::default().with_error_code(ResponseError::UnsupportedEndpointType.code());
    }
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE_ID.into())
        .with_host(StrBytes::from_static_str(HOST))
        .with_port(state.advertised_port.into());
    DescribeClusterResponse::default()
        .with_endpoint_type(BROKER_ENDPOINTS)
        .with_cluster_id(CLUSTER)
        .with_controller_id(NODE_ID.into())
        .with_brokers(vec![broker])
}

fn describe(name: &str, partitions: Result<usize, ResponseError>) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(NODE_ID.into())
            .with_replica_nodes(vec![NODE_ID.into()])
            .with_isr_nodes(vec![NODE_ID.into()])
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_error_code(code(&partitions))
        .with_partitions((0..partitions.unwrap_or(0)).map(partition).collect())
}

/// Makes topics.
pub(super) fn create(state: &State, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let create = |topic: CreatableTopic| {
        let partitions = partitions_wanted(state, &topic);
        let outcome = match partitions {
            Ok(_) if request.validate_only => {
                state.topics.partitions_of(&topic.name).map_or(Ok(()), |_| Err(ResponseError::TopicAlreadyExists))
            }
            Ok(partitions) => state.topics.create(&topic.name, partitions),
            Err(error) => Err(error),
        };
        CreatableTopicResult::default()
            .with_error_code(code(&outcome))
            .with_error_message(words(&topic.name, &outcome))
            .with_num_partitions(partitions.map_or(-1, |count| count as i32))
            .with_replication_factor(1)
            .with_name(topic.name)
    };
    CreateTopicsResponse::default().with_topics(request.topics.into_iter().map(create).collect())
}

fn partitions_wanted(state: &State, topic: &CreatableTopic) -> Result<u32, ResponseError> {
    match (topic.num_partitions, topic.assignments.len()) {
        (-1, 0) => Ok(state.topics.default_partitions()),
        (-1, assigned) => u32::try_from(assigned).map_err(|_| ResponseError::InvalidPartitions),
        (count, _) => u32::try_from(count).map_err(|_| ResponseError::InvalidPartitions),
    }
}

/// Removes topics, with their records and committed offsets.
pub(super) fn delete(state: &State, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let delete = |name: TopicName| {
        let outcome = state.topics.delete(&name);
        if outcome.is_ok() {
            state.coordinator.forget_topic(&name);
        }
        let (code, words) = (code(&outcome), words(&name, &outcome));
        DeletableTopicResult::default().with_name(Some(name)).with_error_code(code).with_error_message(words)
    };
    DeleteTopicsResponse::default().with_responses(request.topic_names.into_iter().map(delete).collect())
}

/// Adds partitions to topics.
pub(super) fn grow(state: &State, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let wanted = u32::try_from(topic.count).map_err(|_| ResponseError::InvalidPartitions);
        let outcome = match wanted {
            Ok(_) if request.validate_only => Ok(()),
            Ok(count) => state.topics.grow(&topic.name, count),
            Err(error) => Err(error),
        };
        let (code, words) = (code(&outcome), words(&topic.name, &outcome));
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(result.with_error_code(code).with_error_message(words));
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// Lists the few properties that a topic has here; a broker has none.
pub(super) fn describe_configs(state: &State, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let is_topic = resource.resource_type == TOPIC_RESOURCE;
        let known = !is_topic || state.topics.partitions_of(&resource.resource_name).is_some();
        let configs = if is_topic && known { topic_configs(state) } else { Vec::new() };
        let error = if known { 0 } else { ResponseError::UnknownTopicOrPartition.code() };
        results.push(
            DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(error)
                .with_configs(configs),
        );
    }
    DescribeConfigsResponse::default().with_results(results)
}

fn topic_configs(state: &State) -> Vec<DescribeConfigsResourceResult> {
    let properties = [
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", state.topics.batch_bytes_max().to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "-1".to_owned()),
    ];
    let describe = |(name, value): (&'static str, String)| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(value.into()))
            .with_read_only(true)
            .with_config_source(DEFAULT_CONFIG)
    };
    properties.into_iter().map(describe).collect()
}

/// An outcome's error in words, which is all that Kafka's tools show of it.
fn words(topic: &str, outcome: &Result<impl Sized, ResponseError>) -> Option<StrBytes> {
    let words = match outcome.as_ref().err()? {
        ResponseError::TopicAlreadyExists => format!("Topic '{topic}' already exists."),
        ResponseError::UnknownTopicOrPartition => format!("Topic '{topic}' does not exist."),
        ResponseError::InvalidPartitions => format!("Topic '{topic}' cannot have this number of partitions."),
        other => format!("Topic '{topic}': {other}"),
    };
    Some(words.into())
}

fn topic_name(name: &str) -> TopicName {
    StrBytes::from_string(name.to_owned()).into()
}
