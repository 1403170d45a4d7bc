//! Apache Kafka, broker and controller in one, and its topics.

use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use testcontainers::{ContainerAsync, GenericImage, ImageExt, core::WaitFor};

use super::{
    docker::{Docker, Port},
    images::KAFKA,
};
use crate::live::stack::Topic;

/// Longest wait for the topics to be made.
const TOPICS_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Kafka {
    pub(super) bootstrap: String,
    pub(super) container: ContainerAsync<GenericImage>,
}

pub(super) async fn start(docker: &Docker, topics: &[Topic]) -> anyhow::Result<Kafka> {
    let (port, container) = serve(docker, None).await?;
    let bootstrap = format!("127.0.0.1:{port}");
    make_topics(&bootstrap, topics).await?;
    Ok(Kafka { bootstrap, container })
}

/// A broker without topics, and its port; clients are told to come to `advertised_port`, if something stands before it.
pub(super) async fn serve(
    docker: &Docker,
    advertised_port: Option<u16>,
) -> anyhow::Result<(u16, ContainerAsync<GenericImage>)> {
    // Clients go where the broker says that it is: the port must be known before it starts.
    let port = Port::free(9092).context("looking for a free port for Kafka")?;
    let advertised = format!("PLAINTEXT://127.0.0.1:{}", advertised_port.unwrap_or(port.outside));
    let environment = [
        ("KAFKA_NODE_ID", "1"),
        ("KAFKA_PROCESS_ROLES", "broker,controller"),
        ("KAFKA_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("KAFKA_ADVERTISED_LISTENERS", &advertised),
        ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
        ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093"),
        ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
        ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
        // Scenarios may ask for a session timeout of a second; by default the broker refuses any below six.
        ("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000"),
        ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
        ("KAFKA_HEAP_OPTS", "-Xms256m -Xmx768m"),
    ];
    let container = docker
        .start(&KAFKA, port, |image| {
            let request = image.with_wait_for(WaitFor::message_on_either_std("Kafka Server started"));
            environment.iter().fold(
                request.into(),
                |request: testcontainers::ContainerRequest<GenericImage>, (name, value)| {
                    request.with_env_var(*name, *value)
                },
            )
        })
        .await?;
    Ok((port.outside, container))
}

async fn make_topics(bootstrap: &str, topics: &[Topic]) -> anyhow::Result<()> {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "300")
        .create()
        .context("making an administrator of Kafka")?;
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|&(name, partitions)| {
            let partitions = i32::try_from(partitions).expect("scenarios have at most 256");
            // Append time would hide when the bridge received a message.
            NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "CreateTime")
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TOPICS_WITHIN)).request_timeout(Some(TOPICS_WITHIN));
    for made in client.create_topics(&wanted, &options).await.context("making topics")? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("making the topic {topic}: {code}"),
        }
    }
    Ok(())
}
