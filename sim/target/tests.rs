//! Targets that are right, and each mistake with its line, its key and its words.

use std::path::Path;

use super::{Deployment, Hook, Password, Subject, TargetError};
use crate::scenario::{
    Part,
    parse::{Problem, tests::the_only_problem},
};

/// A correct target, of which each test breaks something. Its lines are counted from 1.
const CORRECT: &str = r#"[mqtt]
url = "mqtt://127.0.0.1:1883"
username = "{serial}"
password_env = "RAE"
[kafka]
bootstrap = "127.0.0.1:9092"
[store]
url = "postgres://reader@localhost:5432/dmp"
[run]
prefix = "LAB1"
[hooks]
registry.kill = "true"
"#;

fn read(text: &str) -> Result<Deployment, TargetError> {
    let set = |name: &str| (name == "RAE").then(|| "hunter2".to_owned());
    Deployment::from_text("target.toml", text, Path::new("beside"), &set)
}

fn problems(text: &str) -> Vec<Problem> {
    match read(text) {
        Ok(target) => panic!("accepted: {target:#?}"),
        Err(TargetError::Invalid(problems)) => problems.0,
        Err(error @ TargetError::Read { .. }) => panic!("{error}"),
    }
}

/// The correct target with `from` replaced by `to` has exactly one problem: on this line, at this key, in these words.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, key: &str, words: &str) {
    assert!(CORRECT.contains(from), "{from:?} is not in the correct target");
    the_only_problem(&problems(&CORRECT.replacen(from, to, 1)), line, key, words);
}

#[test]
fn a_correct_target_is_read_with_its_defaults_and_no_secret_is_shown() {
    let target = read(CORRECT).unwrap_or_else(|error| panic!("{error}"));
    assert!(target.is_loopback());
    assert!(target.mqtt.rae.individual());
    assert_eq!(target.mqtt.bridge_door, target.mqtt.door);
    assert_eq!((target.kafka.group.as_str(), target.kafka.topics.events.as_str()), ("dmp-registry", "dmp.events"));
    assert_eq!(target.hooks.commands.keys().collect::<Vec<_>>(), [&Hook::Kill(Subject::Part(Part::Registry))]);
    assert_eq!(target.mqtt.rae.password, Some(Password::Held("hunter2".to_owned())));
    assert!(!format!("{target:?}").contains("hunter2"), "{target:?}");
}

#[test]
fn the_examples_are_correct_targets_once_their_files_and_variables_are_there() {
    example("staging.toml", &["secrets/ca.pem", "secrets/rae-password"], false);
    let secrets = ["authority/ca", "bridge/mqtt", "observer/ca", "observer/kafka", "migrate/ca", "migrate/store"];
    let files = secrets.map(|file| match file.strip_suffix("/ca") {
        Some(_) => format!("../reference/secrets/{file}.pem"),
        None => format!("../reference/secrets/{file}-password"),
    });
    example("compose.toml", &files.each_ref().map(String::as_str), true);
}

#[track_caller]
fn example(name: &str, files: &[&str], loopback: bool) {
    let top = tempfile::tempdir().expect("a directory");
    let beside = top.path().join("targets");
    std::fs::create_dir(&beside).expect("made");
    for file in files.iter().map(|file| beside.join(file)) {
        std::fs::create_dir_all(file.parent().expect("in a directory")).expect("made");
        std::fs::write(file, "x").expect("written");
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets").join(name);
    let text = std::fs::read_to_string(shipped).expect("it is shipped");
    let read = Deployment::from_text(name, &text, &beside, &|_| Some("x".to_owned()));
    match (cfg!(feature = "kafka-tls"), read) {
        (true, Ok(target)) => assert_eq!(target.is_loopback(), loopback),
        (false, Err(error)) => {
            assert_eq!(error.to_string().matches("error: ").count(), 1, "{error}");
            assert!(error.to_string().contains("cargo feature `kafka-tls`"), "{error}");
        }
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn unknown_keys_wrong_types_and_lists_are_named_at_their_place() {
    refused("bootstrap =", "bootstap =", 6, "kafka.bootstap", "did you mean `bootstrap`?");
    refused("prefix = \"LAB1\"", "prefix = 1", 10, "run.prefix", "expected a string");
    refused("[run]", "[bring]\nbridge = [true]\n[run]", 10, "bring.bridge", "nothing here is a list");
    refused("registry.kill", "registry.kil", 12, "hooks.registry.kil", "did you mean `kill`?");
}

#[test]
fn wrong_endpoints_are_named_at_their_place() {
    refused("mqtt://127.0.0.1:1883", "127.0.0.1:1883", 2, "mqtt.url", "neither mqtt:// nor mqtts://");
    refused("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1", 2, "mqtt.url", "needs a port");
    refused("127.0.0.1:9092", "127.0.0.1:9092,:9093", 6, "kafka.bootstrap", "names no host");
    refused("postgres://", "mysql://", 8, "store.url", "must start with sqlite: or postgres://");
    refused("url = \"mqtt://127.0.0.1:1883\"\n", "", 1, "mqtt.url", "missing");
    refused("[run]", "[mqtt.bridge]\nurl = \"tcp://localhost:1\"\n[run]", 10, "mqtt.bridge.url", "neither mqtt://");
}

#[test]
fn secrets_that_are_not_at_hand_or_do_not_fit_are_named_at_their_place() {
    refused("\"RAE\"", "\"OTHER\"", 4, "mqtt.password_env", "the environment variable OTHER is not set");
    refused("password_env = \"RAE\"", "password_file = \"gone\"", 4, "mqtt.password_file", "cannot be read");
    refused("username = \"{serial}\"\n", "", 3, "mqtt.username", "a password is somebody's");
    refused("reader@", "reader:hunter2@", 8, "store.url", "must not hold a password");
    refused("/dmp\"", "/dmp?password=hunter2\"", 8, "store.url", "must not hold a password");
    refused("/dmp\"", "/dmp?%70assword=hunter2\"", 8, "store.url", "without %");
    refused("/dmp\"", "/dmp?sslmode=require&%68ost=db.example\"", 8, "store.url", "without %");
    refused("/dmp\"", "/dmp?hostaddr=10.0.0.7\"", 8, "store.url", "names several servers");
    refused("reader@localhost:5432", "", 8, "store.url", "names no server");
    let file = "sqlite://dmp.db\"\npassword_env = \"RAE\"";
    refused("postgres://reader@localhost:5432/dmp\"", file, 8, "store.url", "a file has no password");
    refused("localhost:5432", "localhost:5432,db.example:5432", 8, "store.url", "names several servers");
    refused(
        "reader@localhost:5432/dmp\"",
        "localhost:5432/dmp\"\npassword_env = \"RAE\"",
        8,
        "store.url",
        "names no user",
    );
    refused("[run]", "[mqtt.bridge]\nusername = \"{serial}\"\n[run]", 10, "mqtt.bridge.username", "not a RAE's");
    refused("username = \"{serial}\"", "username = \"x\"\nca = \"{serial}.pem\"", 4, "mqtt.ca", "not a RAE's");
    refused("\"RAE\"", "\"RAE\"\ncertificate = \"{serial}.pem\"", 5, "mqtt.key", "a certificate needs its key");
    for problem in problems(&CORRECT.replacen("reader@", "reader:hunter2@", 1)) {
        assert!(!problem.what.contains("hunter2") && !problem.help.unwrap_or_default().contains("hunter2"));
    }
}

#[test]
fn a_target_off_loopback_says_how_much_a_run_may_do() {
    refused("127.0.0.1:9092", "kafka.example:9092", 1, "limits", "not on loopback");
    refused("localhost:5432", "db.example", 1, "limits", "not on loopback");
    refused("reader@localhost:5432/dmp", "/dmp?host=db.example", 1, "limits", "not on loopback");
    let door = "[mqtt.bridge]\nurl = \"mqtt://broker.example:1884\"\n[run]";
    refused("[run]", door, 1, "limits", "not on loopback");
    let limited = CORRECT.replace("127.0.0.1:1883", "10.0.0.7:1883") + "[limits]\nmax_messages_per_s = 100\n";
    let problems = problems(&limited);
    assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["limits.max_connections"]);
    let limited = read(&(limited + "max_connections = 10\n")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((limited.limits.max_messages_per_s, limited.limits.max_connections), (Some(100), Some(10)));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let topics = "[kafka.topics]\nevents = \"other\"\n[bring]\nbridge = true\n[run]";
    refused("[run]", topics, 9, "kafka.topics", "know only their own topics");
    refused("dmp\"", "dmp\"\nview = \"shown\"\n[bring]\nregistry = true", 9, "store.view", "writes its own tables");
    refused("dmp\"", "dmp\"\nview = \"a; DROP TABLE b\"", 9, "store.view", "no name of a view");
    refused("registry.kill = \"true\"", "registry.pause = \"true\"", 11, "hooks.registry.resume", "nothing would end");
    refused("registry.kill = \"true\"", "kafka.stop = \"true\"", 11, "hooks.kafka.start", "nothing would end");
    refused("registry.kill = \"true\"", "store.cut_link = \"true\"", 11, "hooks.store.mend_link", "nothing would end");
    refused("LAB1", "lab-1", 10, "run.prefix", "capital letters and digits");
    refused("[run]", "[abort_if]\nlag = 0\n[run]", 10, "abort_if.lag", "out of range");
}
