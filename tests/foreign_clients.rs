//! MQTT and Kafka clients that are not ours, against `fleetproof up`.
//!
//! Needs `mosquitto_pub` and `kcat`; where they are absent the test says that it was not run, and in CI it fails.

mod common;

use std::{process::Command, time::Duration};

use common::{Up, eventually, not_run};

const DEVICE: &str = "2f1c9a52-0000-5000-8000-000000000000";
const SESSION: &str = "2f1c9a52-0000-4000-8000-000000000001";

#[test]
fn a_foreign_publisher_shows_in_the_store_and_a_foreign_consumer_reads_the_record_and_the_lag() {
    if !(there("mosquitto_pub", "--help") && there("kcat", "-V")) {
        return not_run("mosquitto_pub and kcat are not installed (Debian: mosquitto-clients, kcat)");
    }
    let up = Up::start();
    let port = up.value("MQTT broker").rsplit(':').next().expect("a port").to_owned();
    let kafka = up.value("Kafka broker").to_owned();
    let rae: dmp_core::id::Rae = "FOREIGN-1".try_into().expect("a serial");
    let topic = format!("dmp/v1/{}/{rae}/{SESSION}/state", rae.shard());
    let payload = format!(
        r#"{{"v":1,"kind":"snapshot","device":"{DEVICE}","epoch":5,"seq":1,"at":"2026-01-01T00:00:00.000Z","attributes":{{"firmware":["7.1",1]}}}}"#
    );
    output(Command::new("mosquitto_pub").args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-q",
        "1",
        "-t",
        &topic,
        "-m",
        &payload,
    ]));

    let within = Duration::from_secs(20);
    eventually("the record is in the store", within, || shown(up.value("store")) == Some("\"7.1\"".to_owned()));
    let format = "%k|%h|%s";
    let record = output(Command::new("kcat").args(["-b", &kafka, "-C", "-t", "dmp.events", "-e", "-q", "-f", format]));
    let (key, rest) = record.split_once('|').expect("key and headers");
    let (headers, value) = rest.split_once('|').expect("headers and value");
    assert_eq!((key, value), (topic.as_str(), payload.as_str()));
    assert_eq!(headers, "mqtt-qos=1,mqtt-dup=0,mqtt-retain=0,bridge=bridge-0");

    // A group's lag is its end offset less its committed one: the registry's own, as a foreign consumer of it sees them.
    eventually("nothing is left to read for the registry's group", within, || {
        let group = up.value("group").to_owned();
        let metrics = metrics(up.value("registry-0"));
        let lag: Vec<_> = metrics.lines().filter(|line| line.starts_with("dmp_registry_lag{")).collect();
        !group.is_empty() && !lag.is_empty() && lag.iter().all(|line| line.ends_with(" 0"))
    });
}

fn there(program: &str, flag: &str) -> bool {
    Command::new(program).arg(flag).output().is_ok()
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The value that a reader of the view sees.
fn shown(store: &str) -> Option<String> {
    let file = store.strip_prefix("sqlite:").expect("the embedded store is a file");
    let store = rusqlite::Connection::open(file).ok()?;
    store.query_row("SELECT value FROM device_record WHERE name = 'firmware'", [], |row| row.get(0)).ok()
}

fn metrics(url: &str) -> String {
    use std::io::{Read, Write};
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = std::net::TcpStream::connect(address).expect("the registry answers");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}
