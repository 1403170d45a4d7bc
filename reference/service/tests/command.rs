//! `dmp-registry command` as a process, against librdkafka's mock cluster and an agent of a few lines.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
    time::Duration,
};

use dmp_core::{
    bridge::OutgoingRecord,
    core::EffectId,
    event::{self, Reply, ReplyOutcome, kafka_topic},
};
use dmp_service::{
    config::Kafka,
    drive::wall,
    kafka::{
        Producer,
        inspect::{Tail, Tailed},
    },
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);
const SESSION: &str = "6f1c1a2e-3d21-4b7a-9d55-0d7f53c1a001";

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, Kafka) {
    let cluster = MockCluster::new(1).expect("a mock cluster starts");
    for topic in [kafka_topic::COMMANDS, kafka_topic::REPLIES] {
        cluster.create_topic(topic, 2, 1).expect("the mock cluster takes a topic");
    }
    let kafka = Kafka::at(cluster.bootstrap_servers());
    (cluster, kafka)
}

async fn run(kafka: &Kafka, rest: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmp-registry"));
    command.args(["command", "RAE-0000042", SESSION, "--kafka", &kafka.bootstrap]).args(rest);
    let ran = spawn_blocking(move || command.output().expect("it runs"));
    timeout(PATIENCE, ran).await.expect("it ends").expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Answers each command so; also with a reply to another one's id, and with what is no reply.
async fn answer(kafka: &Kafka, with: ReplyOutcome) -> (Tail, mpsc::Receiver<Tailed>) {
    let (sender, mut commands) = mpsc::channel::<Tailed>(10);
    let tail = Tail::start(kafka, kafka_topic::COMMANDS, BTreeMap::new(), sender).await.expect("the topic is there");
    let (seen, saw) = mpsc::channel(10);
    let producer = Producer::start(kafka, "test-agent", 10, |_, _| {}).expect("good settings");
    tokio::spawn(async move {
        while let Some(record) = commands.recv().await {
            let command = event::Command::decode(record.value.as_deref().expect("a value")).expect("a command");
            let stranger = Reply { id: uuid::Uuid::from_u128(1), outcome: ReplyOutcome::Ok }.encode();
            let ours = Reply { id: command.id, outcome: with.clone() }.encode();
            for (number, value) in (0..).zip([stranger, b"{".to_vec(), ours]) {
                let (topic, key) = (kafka_topic::REPLIES, "reply".into());
                let record = OutgoingRecord { topic, key, value: value.into(), timestamp: wall(), headers: vec![] };
                producer.produce(EffectId(number), record).expect("the queue has room");
            }
            // A test that is over listens no more.
            let _over = seen.send(record).await;
        }
    });
    (tail, saw)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stored_under_its_topic_and_its_own_reply_is_shown_with_its_round_trip() {
    let (_cluster, kafka) = cluster();
    let (_tail, mut commands) = answer(&kafka, ReplyOutcome::Ok).await;
    let output = run(&kafka, &["set", "--set", "rate=5", "--unset", "error"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let record = timeout(PATIENCE, commands.recv()).await.expect("in time").expect("a command");
    let key = text(&record.key.expect("a key"));
    assert!(key.starts_with("dmp/v1/s") && key.ends_with(&format!("/RAE-0000042/{SESSION}/cmd")), "{key}");
    let id = event::Command::decode(&record.value.expect("a value")).expect("a command").id;
    let shown = text(&output.stdout);
    assert!(shown.starts_with(&format!("{id} ok in ")) && shown.ends_with(" ms\n"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_reply_is_told_and_is_exit_code_1() {
    let (_cluster, kafka) = cluster();
    let _agent = answer(&kafka, ReplyOutcome::error("session is gone")).await;
    let output = run(&kafka, &["probe"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).ends_with(": session is gone\n"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_reply_it_waits_until_the_command_has_expired_says_so_and_exits_with_4() {
    let (_cluster, kafka) = cluster();
    let output = run(&kafka, &["snapshot", "--expires-after", "4s"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(text(&output.stdout).ends_with(" no reply within 4000 ms\n"), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("waiting for the reply: 2 s of 4 s"), "{output:?}");
    assert_eq!(told.matches("waiting for the reply").count(), 1, "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_exit_code_2_with_a_word_of_what_would_be_right() {
    let kafka = Kafka::at("127.0.0.1:1");
    for (rest, words) in [
        (&["reboot"][..], "snapshot, probe, set, reonboard"),
        (&["set"], "--set NAME=VALUE"),
        (&["probe", "--expires-after", "soon"], "250ms"),
    ] {
        let output = run(&kafka, rest).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
}

#[test]
fn help_says_first_what_the_program_does() {
    for (program, words) in [
        (env!("CARGO_BIN_EXE_dmp-agent"), "Keeps the records of the devices on one RAE"),
        (env!("CARGO_BIN_EXE_dmp-bridge"), "Stores every message of a fleet from MQTT in Kafka"),
        (env!("CARGO_BIN_EXE_dmp-registry"), "Reads the feed of a fleet from Kafka"),
    ] {
        let output = Command::new(program).arg("--help").output().expect("it runs");
        assert!(text(&output.stdout).starts_with(words), "{output:?}");
    }
}
