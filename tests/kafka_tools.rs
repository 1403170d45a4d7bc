//! Kafka's own Java tools against `fleetproof up`: the embedded broker must be one that they work with, unchanged.
//!
//! Needs their jars, in the directory that `FLEETPROOF_KAFKA_TOOLS` names (`.ci/kafka-tools DIR` brings them), Java, and
//! `mosquitto_pub`; without the variable the test says that it was not run, and in CI it fails.

mod common;

use std::{
    process::{Command, Output},
    time::Duration,
};

use common::{Up, eventually, not_run};

const DEVICE: &str = "7c0e31d4-0000-5000-8000-000000000000";
const SESSION: &str = "7c0e31d4-0000-4000-8000-000000000001";
const GROUPS: &str = "consumer.group.ConsumerGroupCommand";
const TOPICS: &str = "TopicCommand";

#[test]
fn kafkas_own_tools_read_the_record_and_list_the_groups_lag() {
    let Some(tools) = Tools::find() else { return };
    let up = Up::start();
    let kafka = up.value("Kafka broker");
    let (topic, payload) = publish(up.value("MQTT broker"));

    let read = tools.ok(
        "consumer.ConsoleConsumer",
        kafka,
        &[
            "--topic",
            "dmp.events",
            "--from-beginning",
            "--max-messages=1",
            "--timeout-ms=60000",
            "--property=print.key=true",
            "--property=print.headers=true",
        ],
    );
    let headers = "mqtt-qos:1,mqtt-dup:0,mqtt-retain:0,bridge:bridge-0";
    assert_eq!(read.lines().next(), Some(format!("{headers}\t{topic}\t{payload}").as_str()));

    eventually("the group has committed the record, and has no lag", Duration::from_secs(120), || {
        let described = tools.ok(GROUPS, kafka, &["--describe", "--group", up.value("group")]);
        let lags = lags(&described);
        assert_eq!(lags.len(), 12, "each partition is listed: {described}");
        // "-" stands for a partition in which nothing was ever committed.
        let committed: Vec<_> = lags.iter().filter(|(committed, ..)| committed != "-").collect();
        !committed.is_empty() && committed.iter().all(|(committed, end, lag)| committed == end && lag == "0")
    });
}

#[test]
fn kafkas_own_tools_list_make_and_remove_topics_groups_and_offsets() {
    let Some(tools) = Tools::find() else { return };
    let up = Up::start();
    let kafka = up.value("Kafka broker");
    let group = up.value("group");

    // The registry reads events, and the bridge commands.
    let mut groups = ["dmp-bridge", group];
    groups.sort_unstable();
    let listed = tools.ok(GROUPS, kafka, &["--list"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, groups);
    let of_type = tools.ok(GROUPS, kafka, &["--list", "--type=classic", "--state=stable"]);
    let mut rows: Vec<Vec<&str>> = of_type.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    rows.sort_unstable();
    assert_eq!(rows, groups.map(|group| vec![group, "Classic", "Stable"]));

    assert!(tools.ok(TOPICS, kafka, &["--list"]).lines().any(|line| line == "dmp.dead-letter"));
    assert!(tools.ok(TOPICS, kafka, &["--create", "--topic=made", "--partitions=2"]).contains("Created topic made"));
    let again = tools.run(TOPICS, kafka, &["--create", "--topic=made", "--partitions=2"]);
    assert!(!again.status.success() && text(&again.stdout).contains("already exists"), "{again:?}");
    let described = tools.ok(TOPICS, kafka, &["--describe", "--topic=made"]);
    assert!(described.contains("PartitionCount: 2") && described.contains("Isr: 1"), "{described}");
    assert_eq!(tools.ok("GetOffsetShell", kafka, &["--topic=made"]), "made:0:0\nmade:1:0\n");

    // Offsets are set, lag behind nothing, and are removed: also the last one, whose group goes with it.
    let reset = ["--reset-offsets", "--group=other", "--topic=made", "--to-earliest", "--execute"];
    tools.ok(GROUPS, kafka, &reset);
    let lags = lags(&tools.ok(GROUPS, kafka, &["--describe", "--group=other"]));
    assert_eq!(lags, vec![("0".to_owned(), "0".to_owned(), "0".to_owned()); 2]);
    let removed = tools.ok(GROUPS, kafka, &["--delete-offsets", "--group=other", "--topic=made:0"]);
    assert!(removed.contains("Successful"), "{removed}");
    let read = tools.ok(GROUPS, kafka, &["--delete-offsets", &format!("--group={group}"), "--topic=dmp.events:0"]);
    assert!(read.contains("subscribed"), "{read}");
    tools.ok(GROUPS, kafka, &["--delete", "--group=other"]);
    tools.ok(TOPICS, kafka, &["--delete", "--topic=made"]);
    assert!(!tools.ok(TOPICS, kafka, &["--list"]).contains("made"));
}

/// Where the tools' jars are.
struct Tools(String);

impl Tools {
    fn find() -> Option<Tools> {
        let found = std::env::var("FLEETPROOF_KAFKA_TOOLS").ok();
        if found.is_none() {
            not_run("FLEETPROOF_KAFKA_TOOLS does not name the directory that .ci/kafka-tools has filled");
        }
        found.map(Tools)
    }

    fn run(&self, tool: &str, kafka: &str, arguments: &[&str]) -> Output {
        let mut java = Command::new("java");
        // They live for a second: the second compiler would cost more than it gives.
        java.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(format!("{}/*", self.0));
        java.arg(format!("org.apache.kafka.tools.{tool}")).arg("--bootstrap-server").arg(kafka).args(arguments);
        java.output().expect("Java is installed")
    }

    /// What a tool that succeeded printed. Some tell of errors and end with 0.
    fn ok(&self, tool: &str, kafka: &str, arguments: &[&str]) -> String {
        let output = self.run(tool, kafka, arguments);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && !stderr.contains("Exception"), "{tool} {arguments:?}: {stdout}{stderr}");
        stdout
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// CURRENT-OFFSET, LOG-END-OFFSET and LAG of each partition.
fn lags(described: &str) -> Vec<(String, String, String)> {
    let rows = described.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 9 && row[2] != "PARTITION")
        .map(|row| (row[3].to_owned(), row[4].to_owned(), row[5].to_owned()))
        .collect()
}

/// Publishes a snapshot; its topic and payload.
fn publish(broker: &str) -> (String, String) {
    let rae: dmp_core::id::Rae = "TOOLS-1".try_into().expect("a serial");
    let topic = format!("dmp/v1/{}/{rae}/{SESSION}/state", rae.shard());
    let payload = format!(
        r#"{{"v":1,"kind":"snapshot","device":"{DEVICE}","epoch":5,"seq":1,"at":"2026-01-01T00:00:00.000Z","attributes":{{"firmware":["7.1",1]}}}}"#
    );
    let port = broker.rsplit(':').next().expect("a port");
    let published = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", port, "-q", "1", "-t", &topic, "-m", &payload])
        .status();
    assert!(published.expect("mosquitto_pub is installed").success());
    (topic, payload)
}
