//! Apache Kafka, broker and controller in one, and its topics.

use std::time::Duration;

use anyhow::{Context, bail};
use dmp_core::event::kafka_topic;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    types::RDKafkaErrorCode,
};
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use super::{
    docker::{Docker, Port},
    images::KAFKA,
    link,
    machine::{Asked, Machine},
};
use crate::live::{proxy::Proxy, stack::Topic};

/// Options of the Java machine, split at blanks.
const HEAP: &str = "FLEETPROOF_KAFKA_HEAP_OPTS";

/// By default: it lives for a minute or two, much of which the optimizing compiler would take, and never pay back.
const SHORT_LIVED: &str = "-Xms256m -Xmx768m -XX:TieredStopAtLevel=1";

/// Longest wait for the topics to be made.
const TOPICS_WITHIN: Duration = Duration::from_secs(30);

/// Longest wait for an answer to one question whether it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Kafka {
    /// Where the harness reaches it.
    pub(super) bootstrap: String,
    /// Bridges' and registries' way to it, where it is to be broken.
    pub(super) link: Option<Proxy>,
    pub(super) machine: Machine,
    /// Removed when it is dropped.
    _container: ContainerAsync<GenericImage>,
}

impl Kafka {
    pub(super) async fn start(docker: &Docker, topics: &[Topic], to_break: bool) -> anyhow::Result<Kafka> {
        let ports = Ports::free()?;
        let link = link(to_break, &ports.pipeline.endpoint()).await?;
        let advertised = link.as_ref().map_or(ports.pipeline.outside, |link| link.endpoint().port);
        let (machine, container) = serve(docker, ports, advertised).await?;
        let bootstrap = ports.bootstrap();
        make_topics(&bootstrap, topics).await?;
        Ok(Kafka { bootstrap, link, machine, _container: container })
    }
}

/// A broker without topics, and its port; its clients are told to come to `advertised_port`, where something stands
/// before it.
pub(super) async fn alone(
    docker: &Docker,
    advertised_port: u16,
) -> anyhow::Result<(u16, ContainerAsync<GenericImage>)> {
    let ports = Ports::free()?;
    let (_machine, container) = serve(docker, ports, advertised_port).await?;
    Ok((ports.pipeline.outside, container))
}

/// Clients go where the broker says that it is: what it says must be known before it starts, and depends on the port at
/// which they have asked.
#[derive(Clone, Copy)]
struct Ports {
    /// For who comes to the broker itself.
    harness: Port,
    /// For who comes by a link.
    pipeline: Port,
}

impl Ports {
    fn free() -> anyhow::Result<Ports> {
        let free = |inside| Port::free(inside).context("looking for a free port for Kafka");
        Ok(Ports { harness: free(9094)?, pipeline: free(9092)? })
    }

    fn bootstrap(self) -> String {
        format!("127.0.0.1:{}", self.harness.outside)
    }
}

/// Starts it, and waits until it answers.
async fn serve(
    docker: &Docker,
    ports: Ports,
    links_port: u16,
) -> anyhow::Result<(Machine, ContainerAsync<GenericImage>)> {
    let bootstrap = ports.bootstrap();
    let advertised = format!("HARNESS://{bootstrap},PIPELINE://127.0.0.1:{links_port}");
    let heap = std::env::var(HEAP).unwrap_or_else(|_| SHORT_LIVED.to_owned());
    let environment = environment(&advertised, &heap);
    let container = docker
        .start(&KAFKA, &[ports.harness, ports.pipeline], |image| {
            environment.into_iter().fold(image.into(), |request: ContainerRequest<GenericImage>, (name, value)| {
                request.with_env_var(name, value)
            })
        })
        .await?;
    let (docker, server) = (docker.clone(), Asked::Kafka(bootstrap));
    let machine = Machine { docker, container: container.id().to_owned(), server };
    machine.answers().await?;
    Ok((machine, container))
}

fn environment<'a>(advertised: &'a str, heap: &'a str) -> [(&'static str, &'a str); 17] {
    [
        ("KAFKA_NODE_ID", "1"),
        ("KAFKA_PROCESS_ROLES", "broker,controller"),
        ("KAFKA_LISTENERS", "HARNESS://:9094,PIPELINE://:9092,CONTROLLER://:9093"),
        ("KAFKA_ADVERTISED_LISTENERS", advertised),
        (
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
            "CONTROLLER:PLAINTEXT,HARNESS:PLAINTEXT,PIPELINE:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        ),
        ("KAFKA_INTER_BROKER_LISTENER_NAME", "HARNESS"),
        ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093"),
        ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
        // Fifty files each by default, which take a busy machine a minute to make.
        ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
        ("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "1"),
        ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
        // Scenarios may ask for a session timeout of a second; by default the broker refuses any below six.
        ("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000"),
        ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
        ("KAFKA_HEAP_OPTS", heap),
    ]
}

/// Whether it knows of groups: that comes last, seconds after it has begun to listen, and makes a topic of its own for it.
pub(super) async fn ask(bootstrap: &str) -> anyhow::Result<()> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "fleetproof-is-it-there").create()?;
    let asking = move || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(kafka_topic::EVENTS, 0);
        consumer.committed_offsets(asked, ANSWER_WITHIN).map(drop)
    };
    Ok(tokio::task::spawn_blocking(asking).await??)
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "300");
    config
}

async fn make_topics(bootstrap: &str, topics: &[Topic]) -> anyhow::Result<()> {
    let client: AdminClient<DefaultClientContext> =
        client(bootstrap).create().context("making an administrator of Kafka")?;
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
