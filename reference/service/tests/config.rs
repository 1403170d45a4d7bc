//! Configuration: the examples are right, the environment comes before the file, and every error is at its key.

use std::{path::Path, time::Duration};

use dmp_service::{
    agent, bridge,
    config::{Checked, ConfigError, parse},
    registry,
};
use serde::de::DeserializeOwned;

const BRIDGE: &str = "[mqtt]\naddress = \"h:1883\"\n[kafka]\nbootstrap = \"k:9092\"\n";

fn read<T: DeserializeOwned + Checked>(text: &str, environment: &[(&str, &str)]) -> Result<T, ConfigError> {
    let owned = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    parse(Path::new("some.toml"), text, owned)
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    std::fs::read_to_string(path).expect("the example is there")
}

/// The examples with every commented-out key in force, less what this build or machine does not have.
fn uncommented(name: &str) -> String {
    let keeps = |line: &str| !line.contains("password_file") && !line.contains("security") && !line.contains("extra");
    let mut skipping = false;
    let mut text = String::new();
    for line in example(name).lines() {
        let bare = line.strip_prefix("# ").filter(|bare| bare.starts_with('[') || bare.contains(" = ")).unwrap_or(line);
        if bare.starts_with('[') {
            skipping = !keeps(bare);
        }
        if !skipping && keeps(bare) {
            text.push_str(bare);
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_examples_are_right_as_they_are_and_with_every_default_spelt_out() {
    for text in [example("bridge.toml"), uncommented("bridge.toml")] {
        let bridge: bridge::Config = read(&text, &[]).expect("the example is right");
        assert_eq!(bridge.shards.served(), [0, 1, 2, 3]);
        assert_eq!(bridge.shards.client_id(2), "dmp-bridge-2of4");
        assert_eq!(bridge.kafka.message_timeout, Duration::from_secs(300));
        assert_eq!((bridge.downlink().window, bridge.downlink_client_id().as_str()), (100, "dmp-bridge-down-bridge-1"));
    }
    for text in [example("registry.toml"), uncommented("registry.toml")] {
        let registry: registry::Config = read(&text, &[]).expect("the example is right");
        assert_eq!(registry.clean.retire_after, Duration::from_secs(30 * 86_400));
        assert_eq!(registry.core().batch_rows, 200);
        assert_eq!(
            registry.core().feedback,
            Some(dmp_core::registry::Feedback::with_period(Duration::from_secs(300))),
            "the defaults"
        );
    }
    for text in [example("agent.toml"), uncommented("agent.toml")] {
        let agent: agent::Config = read(&text, &[]).expect("the example is right");
        assert_eq!(agent.core().rae.as_str(), "RAE-0000042");
    }
}

#[test]
fn a_configuration_that_was_written_is_read_back_the_same() {
    let bridge: bridge::Config = read(&example("bridge.toml"), &[]).expect("right");
    let written = toml::to_string(&bridge).expect("it can be written");
    let again: bridge::Config = read(&written, &[]).expect("what was written is right");
    assert_eq!(written, toml::to_string(&again).expect("it can be written"));
}

#[test]
fn the_environment_comes_before_the_file() {
    let environment = [
        ("DMP_BRIDGE_MQTT__ADDRESS", "other:1884"),
        ("DMP_BRIDGE_SHARDS__GROUPS", "8"),
        ("DMP_BRIDGE_SHARDS__SERVE", "[1, 2]"),
        ("DMP_BRIDGE_MQTT_PASSWORD", "hunter2"),
        ("DMP_REGISTRY_GROUP", "not ours"),
    ];
    let bridge: bridge::Config = read(BRIDGE, &environment).expect("right");
    assert_eq!(bridge.mqtt.address, "other:1884");
    assert_eq!(bridge.shards.served(), [1, 2]);
    assert_eq!(bridge.mqtt.password.reveal(), Some("hunter2"));
    assert!(!format!("{bridge:?}").contains("hunter2"));
}

#[test]
fn a_secret_comes_from_its_file_and_a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "hunter2\n").expect("it is written");
    let with = |path: &Path| BRIDGE.replace("[kafka]", &format!("password_file = {path:?}\n[kafka]"));
    let bridge: bridge::Config = read(&with(&path), &[]).expect("right");
    assert_eq!(bridge.mqtt.password.reveal(), Some("hunter2"));
    let error = read::<bridge::Config>(&with(&folder.path().join("none")), &[]).expect_err("the file is missing");
    assert!(error.to_string().contains("mqtt.password_file") && error.to_string().contains("none"), "{error}");
}

/// Each: a file, what is wrong with it, and the line, the key and the words that the error must hold.
#[test]
fn every_wrong_bridge_configuration_is_an_error_at_its_line_and_key() {
    let with = |more: &str| format!("{BRIDGE}{more}");
    let cases = [
        ("[mqtt\naddress = 1", 1, "mqtt", "", "a broken table"),
        (&*with("[shards]\ngruops = 4\n"), 6, "shards.gruops", "unknown field", "a misspelt key"),
        (&*with("[shards]\ngroups = \"four\"\n"), 6, "shards.groups", "invalid type", "a text for a number"),
        (&*with("[shards]\ngroups = 3\n"), 6, "shards.groups", "1, 2, 4, 8 or 16", "a number that cannot be"),
        (&*with("[shards]\ngroups = 300\n"), 6, "shards.groups", "300", "a number out of range"),
        (&*with("[shards]\ngroups = 2\nserve = [0, 2]\n"), 7, "shards.serve", "not below", "a group too many"),
        (&*with("[shards]\ngroups = 2\nserve = [1, 1]\n"), 7, "shards.serve", "each once", "a group twice"),
        ("[mqtt]\naddress = \"h:1\"\n", 1, "kafka", "missing", "a missing table"),
        ("[mqtt]\n[kafka]\nbootstrap = \"k:1\"\n", 1, "mqtt.address", "missing", "a missing key"),
        (&*BRIDGE.replace("h:1883", "h"), 2, "mqtt.address", "host:port", "an address without a port"),
        (&*BRIDGE.replace("k:9092", "k:9092,k"), 4, "kafka.bootstrap", "host:port", "a second address without a port"),
        (&*with("linger = \"5\"\n"), 5, "kafka.linger", "250ms", "a duration without a unit"),
        (&*with("linger = 5\n"), 5, "kafka.linger", "invalid type", "a number for a duration"),
        (&*with("producer_buffer = \"64MB\"\n"), 5, "kafka.producer_buffer", "64KiB", "a size of no unit of ours"),
        (&*with("producer_buffer = \"1KiB\"\n"), 5, "kafka.producer_buffer", "1MiB", "a size too small"),
        (&*with("[commands]\nwindow = 0\n"), 6, "commands.window", "not within", "a way down of nothing"),
        (&*with("[commands]\ngroup = \"\"\n"), 6, "commands.group", "empty", "a group without a name"),
        (&*with("[commands]\ncommit_records = 0\n"), 6, "commands.commit_records", "above zero", "no commit"),
        (&*with("[commands]\nwindwo = 1\n"), 6, "commands.windwo", "unknown field", "a misspelt key"),
        (&*format!("drain_within = \"301s\"\n{BRIDGE}"), 1, "drain_within", "max_poll_interval", "a drain too long"),
        (&*with("session_timeout = \"400s\"\n"), 3, "kafka.max_poll_interval", "session_timeout", "two that disagree"),
        (&*with("[backoff]\nfirst = \"2s\"\nmost = \"1s\"\n"), 7, "backoff.most", "backoff.first", "a cap below"),
        (&*with("[backoff]\nfirst = \"0s\"\nmost = \"1s\"\n"), 6, "backoff.first", "above zero", "no first wait"),
        (&*with("[backoff]\nfirst = \"1s\"\nmost = \"0ms\"\n"), 7, "backoff.most", "above zero", "no wait at all"),
        (&*format!("window = 0\n{BRIDGE}"), 1, "window", "not within", "a window of nothing"),
        (&*with("[http]\nlisten = \"localhost\"\n"), 6, "http.listen", "socket address", "a listen address of no port"),
        (&*with("extra = { acks = \"0\" }\n"), 5, "kafka.extra", "acks", "a setting that delivery rests on"),
        (&*with("[mqtt]\naddress = \"h:2\"\n"), 5, "mqtt", "", "a table twice"),
    ];
    for (text, line, key, words, what) in cases {
        let error = read::<bridge::Config>(text, &[]).expect_err(what).to_string();
        assert!(error.starts_with(&format!("some.toml:{line}: key `{key}`: ")), "{what}: {error}");
        assert!(error.contains(words) && !error.contains('\n'), "{what}: {error}");
    }
}

#[test]
fn wrong_registry_and_agent_configurations_are_errors_at_their_keys() {
    let registry = example("registry.toml");
    for (from, to, key) in [
        ("sqlite:registry.db", "mysql:registry.db", "store.url"),
        ("sqlite:registry.db", "postgres://u:secret@h/db", "store.url"),
        ("sqlite:registry.db", "postgres://u@h/db?password=secret@", "store.url"),
        ("commit_records = 1000", "commit_records = 0", "pipeline.commit_records"),
        ("\"30d\"", "\"60s\"", "clean.retire_after"),
        ("\"30d\"", "\"7d\"", "clean.retire_after"),
        ("writers = 4", "writers = 0", "pipeline.writers"),
        ("start = \"earliest\"", "start = \"newest\"", "start"),
        ("gap_wait = \"2s\"", "gap_wait = \"0s\"", "feedback.gap_wait"),
        ("requests_per_s = 100", "requests_per_s = 0", "feedback.requests_per_s"),
        ("under_way = 100", "under_way = 4096", "feedback.under_way"),
    ] {
        let error = read::<registry::Config>(&registry.replace(from, to), &[]).expect_err(key).to_string();
        let line = 1 + registry.lines().position(|line| line.contains(from)).expect("the example has it");
        assert!(error.starts_with(&format!("some.toml:{line}: key `{key}`")) && !error.contains("secret@"), "{error}");
    }
    let agent = example("agent.toml");
    for (from, to, key) in [
        ("\"RAE-0000042\"\nrecords", "\"RAE 42\"\nrecords", "rae"),
        ("127.0.0.1:8080", "0.0.0.0:8080", "devices.listen"),
        ("window = 20", "window = 0", "limits.window"),
        ("answer_within = \"10s\"", "answer_within = \"0s\"", "devices.answer_within"),
        ("outbox = 1000", "outbox = 10", "limits.outbox"),
        ("permille = 200", "permille = 501", "intervals.snapshot_jitter_permille"),
    ] {
        let error = read::<agent::Config>(&agent.replace(from, to), &[]).expect_err(key).to_string();
        assert!(error.contains(&format!(": key `{key}`")), "{error}");
    }
}

#[test]
fn whether_a_registry_speaks_to_the_raes_has_to_be_said_where_it_is_not_plainly_the_primary_one() {
    let example = example("registry.toml").replace("enabled = true", "# enabled");
    let with = |change: (&str, &str), more: &str| {
        assert!(example.contains(change.0), "the example has {}", change.0);
        let text = example.replace(change.0, change.1).replace("[feedback]", &format!("[feedback]\n{more}\n"));
        read::<registry::Config>(&text, &[])
    };
    let plain = with(("[store]", "[store]"), "").expect("the default group");
    assert!(plain.speaks() && plain.core().feedback.is_some());
    for change in [("\"dmp-registry\"", "\"late\""), ("\"earliest\"", "\"latest\"")] {
        let error = with(change, "").expect_err("it does not say").to_string();
        assert!(error.contains("key `feedback.enabled`: must be said for a group other than"), "{error}");
        let silent = with(change, "enabled = false").expect("it says so");
        assert!(!silent.speaks() && silent.core().feedback.is_none());
        assert!(with(change, "enabled = true").expect("it says so").speaks());
    }
}

#[test]
fn a_wrong_variable_is_named_and_not_the_file() {
    for (variable, value, key) in [
        ("DMP_BRIDGE_SHARDS__GRUOPS", "4", "shards.gruops"),
        ("DMP_BRIDGE_SHARDS__GROUPS", "many", "shards.groups"),
        ("DMP_BRIDGE_SHARDS__GROUPS", "3", "shards.groups"),
        ("DMP_BRIDGE_MQTT__ADDRESS", "nowhere", "mqtt.address"),
    ] {
        let error = read::<bridge::Config>(BRIDGE, &[("DMP_BRIDGE_WINDOW", "10"), (variable, value)]);
        let error = error.expect_err(variable).to_string();
        assert!(error.starts_with(&format!("environment variable {variable}: key `{key}`: ")), "{error}");
    }
}
