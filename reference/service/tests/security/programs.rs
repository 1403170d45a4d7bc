//! The programs need no more rights than they are given: agents and a bridge of the shipped configuration at work.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use dmp_core::{
    event::{Command, CommandKind, ReplyOutcome, Topic, kafka_topic},
    id::{Rae, Session},
    time::Wall,
};
use dmp_service::{
    agent, bridge, command,
    config::{Kafka, parse},
    drive::wall,
    kafka::inspect::Tail,
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;

use crate::{
    broker::{Broker, Door},
    lab::{LAB, Lab},
};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, Kafka) {
    let cluster = MockCluster::new(1).expect("a mock cluster starts");
    for topic in [kafka_topic::EVENTS, kafka_topic::COMMANDS, kafka_topic::REPLIES, kafka_topic::DEAD_LETTER] {
        cluster.create_topic(topic, 1, 1).expect("the mock cluster takes a topic");
    }
    let kafka = Kafka::at(cluster.bootstrap_servers());
    (cluster, kafka)
}

fn bridge_config(broker: &Broker, lab: &Lab, password: &str, kafka: &Kafka) -> bridge::Config {
    let text = format!(
        "[mqtt]\naddress = \"localhost:{}\"\nusername = \"bridge\"\npassword_file = {:?}\n[mqtt.tls]\nca = {:?}\n\
         [kafka]\nbootstrap = {:?}\n",
        broker.port(Door::Bridge),
        lab.path(password),
        lab.path("bridge/ca.pem"),
        kafka.bootstrap,
    );
    parse("bridge.toml".as_ref(), &text, []).expect("right")
}

/// An agent that comes in by its password, or shows its certificate.
fn agent_config(broker: &Broker, serial: &str, door: Door, records: &std::path::Path) -> agent::Config {
    let file = |name: &str| LAB.path(&format!("raes/{serial}/{name}"));
    let (password, certificate) = match door {
        Door::RaeCertificate => {
            let (certificate, key) = (file("certificate.pem"), file("key.pem"));
            (String::new(), format!("certificate = {certificate:?}\nkey = {key:?}\n"))
        }
        Door::RaePassword | Door::Bridge | Door::Operator => {
            (format!("username = {serial:?}\npassword_file = {:?}\n", file("mqtt-password")), String::new())
        }
    };
    let text = format!(
        "rae = {serial:?}\nrecords = {records:?}\n[mqtt]\naddress = \"localhost:{}\"\n{password}[mqtt.tls]\nca = {:?}\n\
         {certificate}[intervals]\nstatus_wait = \"10ms\"\n",
        broker.port(door),
        file("ca.pem"),
    );
    parse("agent.toml".as_ref(), &text, []).expect("right")
}

async fn attach(devices: SocketAddr, hardware: &str) {
    let mut connection = TcpStream::connect(devices).await.expect("the API is there");
    let body = r#"{"record":{"firmware":"1.2"}}"#;
    let request = format!(
        "POST /devices/{hardware}/attached HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_a_bridge_carry_events_up_and_commands_down_with_their_own_rights() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let (_cluster, kafka) = cluster();
    let config = bridge_config(&broker, &LAB, "bridge/mqtt-password", &kafka);
    let mut bridge = bridge::start(config).await.expect("kafka is there");
    let (sender, mut records) = mpsc::channel(100);
    let _tail = Tail::start(&kafka, kafka_topic::EVENTS, BTreeMap::new(), sender).await.expect("the topic is there");
    for (serial, door) in [("RAE-1", Door::RaePassword), ("RAE-2", Door::RaeCertificate)] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = agent_config(&broker, serial, door, &folder.path().join("agent.db"));
        let mut agent = agent::start(config).await.expect("it starts");
        attach(agent.devices, "SN-1").await;
        let (rae, session) = state_of(&mut records, serial).await;
        let probe = Command { id: Uuid::from_u128(7), expires_at: Wall(wall().0 + 60_000), kind: CommandKind::Probe };
        let answered = command::send(&kafka, &rae, session, &probe, |_| {}).await.expect("kafka takes it");
        assert_eq!(answered.expect("a reply").reply.outcome, ReplyOutcome::Ok, "of {serial}");
        agent.running.stop();
        agent.running.wait().await.expect("it was told to stop");
    }
    bridge.stop();
    bridge.wait().await.expect("it was told to stop");
}

/// Waits for state of this RAE in the log.
async fn state_of(records: &mut mpsc::Receiver<dmp_service::kafka::inspect::Tailed>, serial: &str) -> (Rae, Session) {
    loop {
        let record = timeout(PATIENCE, records.recv()).await.expect("in time").expect("the tail goes on");
        let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("a topic");
        if let Ok(Topic::State(rae, session)) = key.parse()
            && rae.as_str() == serial
        {
            return (rae, session);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_a_wrong_password_ends_and_says_why() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let (_cluster, kafka) = cluster();
    let config = bridge_config(&broker, &LAB, "bridge/kafka-password", &kafka);
    let mut bridge = bridge::start(config).await.expect("kafka is there");
    let error = timeout(PATIENCE, bridge.wait()).await.expect("in time").expect_err("it cannot go on");
    let words = format!("{error:#}");
    let endpoint = broker.endpoint(Door::Bridge).to_string();
    assert!(words.contains(&format!("{endpoint} refused the credentials of user \"bridge\"")), "{words}");
}
