//! Servers of somebody's own as a target: `fleetproof up` stands in for them, and a real PostgreSQL where there is one.
//!
//! Whole runs on them, what is left there and removed again; and every kind of wrong target, which `doctor` and `run` must
//! name within seconds.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use common::{Up, eventually, fleetproof, not_run};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

const SCENARIO: &str = "# Does it run on servers that are there already?
[fleet]
raes = 8
devices_per_rae = 3
snapshot_every = \"2s\"
update_every = \"2s\"
connects_per_s = 20
[[phase]]
name = \"load\"
lasts = \"6s\"
";

/// A directory with a scenario, and room for targets.
struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().expect("a directory"));
        desk.write("load.toml", SCENARIO);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn run(&self, target: &str) -> Output {
        let target = self.write("target.toml", target);
        let mut run = fleetproof();
        run.arg("run").arg(self.path("load.toml")).arg("--on").arg(target).arg("--out").arg(self.path("out"));
        run.arg("--quiet").output().expect("it runs")
    }

    fn doctor(&self, target: &str) -> Output {
        let target = self.write("target.toml", target);
        fleetproof().arg("doctor").arg("--on").arg(target).output().expect("it runs")
    }

    fn clean(&self, target: &str, more: &[&str]) -> String {
        let target = self.write("target.toml", target);
        let output = fleetproof().arg("clean").arg("--on").arg(target).args(more).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        said(&output)
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[track_caller]
fn passes(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    said(output)
}

/// A target file that names what `up` has started, with `more` behind.
fn target(up: &Up, more: &str) -> String {
    format!(
        "[mqtt]\nurl = \"{}\"\n[kafka]\nbootstrap = \"{}\"\n[store]\nurl = \"{}\"\n{more}",
        up.value("MQTT broker"),
        up.value("Kafka broker"),
        up.value("store"),
    )
}

fn store(up: &Up) -> rusqlite::Connection {
    let file = up.value("store").strip_prefix("sqlite:").expect("the embedded store is a file").to_owned();
    rusqlite::Connection::open(file).expect("it is there")
}

fn count(up: &Up, sql: &str) -> i64 {
    store(up).query_row(sql, [], |row| row.get(0)).expect("it can be read")
}

#[test]
fn runs_on_servers_that_are_there_pass_and_what_one_has_left_is_removed_and_nothing_else() {
    let (up, desk) = (Up::start(), Desk::new());
    let lab = |prefix: &str| target(&up, &format!("[run]\nprefix = \"{prefix}\"\n"));
    let healthy = passes(&desk.doctor(&target(&up, "")));
    assert!(healthy.contains("ready") && healthy.contains("is shown in the store"), "{healthy}");
    assert!(passes(&desk.run(&lab("LAB1"))).contains("PASS"));

    // The same devices once more would be another's: a second run has serials of its own, beside what is there.
    let shown = "CREATE VIEW shown AS SELECT device, name AS attribute, value, attribute_epoch AS epoch, \
                 attribute_session AS session, attribute_seq AS seq FROM device_record WHERE name IS NOT NULL";
    store(&up).execute_batch(shown).expect("a view over the tables");
    let mapped = lab("LAB2").replace("[run]", "view = \"shown\"\n[run]");
    assert!(passes(&desk.run(&mapped)).contains("PASS"));
    assert_eq!(count(&up, "SELECT count(*) FROM device"), 48, "24 of each run");

    let looked = desk.clean(&lab("LAB1"), &["--run", "LAB1"]);
    assert!(looked.contains("8 RAEs, 24 devices") && looked.contains("nothing was removed"), "{looked}");
    assert!(looked.contains("mqtt: 8 retained messages"), "{looked}");
    assert_eq!(count(&up, "SELECT count(*) FROM device"), 48);
    let removed = desk.clean(&lab("LAB1"), &["--run", "LAB1", "--yes"]);
    assert!(removed.contains("8 RAEs, 24 devices") && removed.contains("8 retained messages removed"), "{removed}");
    for table in ["rae", "device", "device_session"] {
        let of = |run: &str| count(&up, &format!("SELECT count(*) FROM {table} WHERE rae LIKE '{run}-%'"));
        assert!(of("LAB1") == 0 && of("LAB2") > 0, "{table}: {} of LAB1, {} of LAB2", of("LAB1"), of("LAB2"));
    }
    let orphans = "SELECT count(*) FROM device_attribute WHERE device NOT IN (SELECT device FROM device)";
    assert_eq!(count(&up, orphans), 0);
    assert!(desk.clean(&lab("LAB1"), &["--run", "LAB1"]).contains("nothing to remove"));
    assert!(desk.clean(&lab("LAB2"), &["--run", "LAB2"]).contains("mqtt: 8 retained messages"));
}

#[test]
fn a_bridge_and_a_registry_are_brought_to_a_real_database_where_there_are_none() {
    let Some(postgres) = Postgres::new() else { return };
    let (up, desk) = (Up::with(&["--servers-only"]), Desk::new());
    desk.write("password", &postgres.password);
    let brought = format!(
        "[mqtt]\nurl = \"{}\"\n[kafka]\nbootstrap = \"{}\"\n[store]\nurl = \"{}\"\npassword_file = \"password\"\n\
         [bring]\nbridge = true\nregistry = true\n[run]\nprefix = \"LAB3\"\n",
        up.value("MQTT broker"),
        up.value("Kafka broker"),
        postgres.url,
    );
    let healthy = passes(&desk.doctor(&brought));
    assert!(healthy.contains("a registry may make, read and change its tables"), "{healthy}");
    assert!(healthy.contains("its clock is") && healthy.contains("records may be written"), "{healthy}");
    let told = passes(&desk.run(&brought));
    assert!(told.contains("PASS") && !told.contains(&postgres.password), "{told}");
    let removed = desk.clean(&brought, &["--run", "LAB3", "--yes"]);
    assert!(removed.contains("8 RAEs, 24 devices"), "{removed}");
    assert!(desk.clean(&brought, &["--run", "LAB3"]).contains("nothing to remove"));

    desk.write("wrong", "not the password");
    both(&desk, &brought.replace("\"password\"", "\"wrong\""), "refuses user");
    both(&desk, &brought.replace(&postgres.database, "no_such_database"), "no_such_database");
    let as_reader = |text: &str| text.replace(&postgres.url, &postgres.reader_url);
    both(&desk, &as_reader(&brought), "a registry needs");
    let reading =
        |view: &str| brought.replace("[bring]\nbridge = true\nregistry = true\n", &format!("view = \"{view}\"\n"));
    both(&desk, &reading("no_such_view"), "view no_such_view does not exist");
    both(&desk, &reading("without_epoch"), "view without_epoch has no column epoch");
    both(&desk, &reading("with_words"), "wrong type");
    both(&desk, &as_reader(&reading("with_words")), "may not be read");
}

#[test]
fn faults_are_done_by_hooks_and_what_they_began_is_ended_or_told_however_the_run_ends() {
    let (up, desk) = (Up::start(), Desk::new());
    let registry = format!("$(pgrep -f {}/registry-$FLEETPROOF_INDEX.json)", up.directory().display());
    let hooks = format!(
        "[hooks]\nwithin = \"5s\"\nregistry.pause = \"kill -STOP {registry}\"\nregistry.resume = \"kill -CONT {registry}\"\n"
    );
    let pause = |lasts: &str| {
        format!("{SCENARIO}[[fault]]\nat = \"load + 1s\"\npause = {{ part = \"registry\", lasts = \"{lasts}\" }}\n")
    };
    desk.write("load.toml", &pause("1s"));
    let missing = said(&desk.run(&target(&up, "")));
    assert!(missing.contains("hooks.registry.pause"), "{missing}");
    assert!(passes(&desk.run(&target(&up, &hooks))).contains("PASS"));

    desk.write("load.toml", &pause("4s").replace("\"2s\"\nconnects", "\"100ms\"\nconnects"));
    let given_up = desk.run(&target(&up, &format!("{hooks}[abort_if]\nlag = 600\n")));
    assert_eq!(given_up.status.code(), Some(3), "{}", said(&given_up));
    assert!(said(&given_up).contains("above abort_if.lag = 600"), "{}", said(&given_up));
    let stopped = || {
        common::processes_of(&up.directory()).into_iter().any(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("State:\tT")
        })
    };
    eventually("the registry goes on", Duration::from_secs(5), || !stopped());

    let left = desk.run(&target(&up, &hooks.replace("kill -CONT", "echo no quota >&2; false")));
    for pid in common::processes_of(&up.directory()) {
        kill(pid, Signal::SIGCONT).expect("by hand");
    }
    assert_eq!(left.status.code(), Some(3), "{}", said(&left));
    for words in ["end this by hand: what hooks.registry.pause began", "no quota"] {
        assert!(said(&left).contains(words), "{words}: {}", said(&left));
    }
}

#[test]
fn a_run_that_plans_more_than_its_target_allows_is_refused_before_it_begins() {
    let (up, desk) = (Up::with(&["--servers-only"]), Desk::new());
    for (limit, words) in [
        ("max_messages_per_s = 10", "limits.max_messages_per_s of"),
        ("max_connections = 5", "MQTT connections, and limits.max_connections of"),
    ] {
        let output = desk.run(&target(&up, &format!("[limits]\n{limit}\n")));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    assert_eq!(count_files(&desk.path("out").join("load")), 0, "a refused run leaves no result");
}

#[test]
fn every_kind_of_wrong_target_is_named_by_doctor_and_by_run() {
    let (up, desk) = (Up::start(), Desk::new());
    let right = target(&up, "");
    let (mqtt, kafka) = (up.value("MQTT broker").to_owned(), up.value("Kafka broker").to_owned());
    let instead_of = |right_part: &str, wrong: &str| {
        assert!(right.contains(right_part));
        right.replace(right_part, wrong)
    };
    let nobody = free_port();

    // Endpoints.
    both(&desk, &instead_of(&mqtt, &format!("mqtt://{nobody}")), "cannot be reached");
    both(&desk, &(instead_of(&mqtt, "mqtt://no-such-host.invalid:1883") + LIMITS), "cannot be reached");
    both(&desk, &instead_of(&mqtt, &mqtt.replace("mqtt://", "mqtts://")), "TLS");
    both(&desk, &instead_of(&kafka, &nobody.to_string()), "no kafka broker answers");
    both(&desk, &instead_of(&kafka, &mqtt.replace("mqtt://", "")), "no kafka broker answers");
    both(&desk, &instead_of(up.value("store"), "sqlite:gone.db"), "gone.db does not exist");
    desk.write("words.db", &"not a database. ".repeat(100));
    both(&desk, &instead_of(up.value("store"), "sqlite:words.db"), "not a database");

    // Credentials.
    let refusing = broker(&[0x20, 2, 0, 5], &[]);
    let user = format!("mqtt://{refusing}\"\nusername = \"{{serial}}");
    both(&desk, &instead_of(&mqtt, &user), "refused the credentials of user");
    both(
        &desk,
        &instead_of(&mqtt, &format!("mqtt://{}", broker(&[], &[]))),
        "closed the connection instead of answering",
    );
    both(&desk, &right.replace("[store]", "sasl = \"PLAIN\"\n[store]"), "`kafka.sasl`: needs a user and a password");
    let file = format!("{mqtt}\"\nusername = \"{{serial}}\"\npassword_file = \"gone");
    both(&desk, &instead_of(&mqtt, &file), "gone cannot be read");
    let secret = format!("{mqtt}\"\nusername = \"{{serial}}\"\npassword_env = \"FLEETPROOF_TEST_UNSET");
    both(&desk, &instead_of(&mqtt, &secret), "FLEETPROOF_TEST_UNSET is not set");

    // Rights: a broker that grants no subscription to a bridge.
    let granting_nothing = broker(&[0x20, 2, 0, 0], &[0x90, 5, 0, 1, 0x80, 0x80, 0x80]);
    let bridge = instead_of(&mqtt, &format!("mqtt://{granting_nothing}")) + "[bring]\nbridge = true\n";
    both(&desk, &bridge, "may not subscribe");

    // Topics.
    for topic in ["events", "commands", "replies", "dead_letter"] {
        let other = format!("[kafka.topics]\n{topic} = \"no.such.topic\"\n[store]");
        both(&desk, &right.replace("[store]", &other), "no.such.topic");
    }

    // Tables and views.
    rusqlite::Connection::open(desk.path("empty.db"))
        .and_then(|db| db.execute_batch("CREATE TABLE other (a)"))
        .expect("made");
    both(&desk, &instead_of(up.value("store"), "sqlite:empty.db"), "schema is missing");
    both(&desk, &(right.clone() + "view = \"no_such_view\"\n"), "view no_such_view does not exist");
    store(&up)
        .execute_batch("CREATE VIEW lacking AS SELECT device, name AS attribute, value FROM device_record")
        .expect("made");
    both(&desk, &(right.clone() + "view = \"lacking\"\n"), "has no columns epoch, session, seq");

    // What may be done to it.
    both(&desk, &instead_of(&kafka, "kafka.example:9092"), "not on loopback");

    // The right one is right, after all that.
    passes(&desk.doctor(&right));
}

const LIMITS: &str = "[limits]\nmax_messages_per_s = 1_000\nmax_connections = 100\n";

/// Doctor and run both end with an error that says this, in time, without a panic.
#[track_caller]
fn both(desk: &Desk, target: &str, words: &str) {
    for (name, output) in [("doctor", desk.doctor(target)), ("run", desk.run(target))] {
        let text = said(&output);
        let code = output.status.code();
        assert!(matches!(code, Some(1..=3)), "{name} ended with {code:?}:\n{target}\n{text}");
        assert!(text.contains(words), "{name} does not say {words:?}:\n{target}\n{text}");
        assert!(!text.contains("panicked"), "{name}:\n{text}");
    }
}

/// A broker that answers the first packet of each connection with the one, the second with the other, and no further.
fn broker(first: &'static [u8], second: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut connection = connection;
            let mut packet = [0; 4096];
            for answer in [first, second] {
                let asked = matches!(connection.read(&mut packet), Ok(1..));
                if !asked || answer.is_empty() || connection.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// A loopback address on which nobody listens.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn count_files(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .map_or(0, |entries| entries.flatten().filter(|entry| entry.path().join("result.json").exists()).count())
}

/// A database of its own on a real PostgreSQL, with a user who may read nothing there.
struct Postgres {
    url: String,
    reader_url: String,
    password: String,
    database: String,
}

impl Postgres {
    fn new() -> Option<Postgres> {
        let Ok(server) = std::env::var("FLEETPROOF_TEST_POSTGRES") else {
            not_run("FLEETPROOF_TEST_POSTGRES names no PostgreSQL server (.ci/postgres start prints one)");
            return None;
        };
        let (database, reader) = ("fleetproof_staging", "fleetproof_staging_reader");
        let psql = |database: &str, sql: &str| {
            let (base, query) = server.split_once('?').unwrap_or((&server, ""));
            let base = base.rsplit_once('/').expect("a database").0;
            let url = format!("{base}/{database}?{query}");
            let done = std::process::Command::new("psql")
                .args(["-v", "ON_ERROR_STOP=1", "-qc", sql, &url])
                .output()
                .expect("psql");
            assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let own = server.split('?').next().and_then(|url| url.rsplit_once('/')).expect("a database").1.to_owned();
        psql(&own, &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"));
        psql(&own, &format!("CREATE DATABASE {database}"));
        let (_, rest) = server.split_once("://").expect("a URL");
        let (user, place) = rest.split_once('@').expect("a user");
        let (user, password) = user.split_once(':').expect("a password");
        let place = place.split('/').next().expect("host and port");
        psql(&own, &format!("DROP ROLE IF EXISTS {reader}"));
        psql(&own, &format!("CREATE ROLE {reader} LOGIN PASSWORD '{password}'"));
        psql(
            database,
            "CREATE VIEW without_epoch AS SELECT 1 AS device, 1 AS attribute, 1 AS value, 1 AS session, 1 AS seq",
        );
        psql(
            database,
            "CREATE VIEW with_words AS SELECT 'x'::text AS device, 'x'::text AS attribute, '1'::text AS value, \
             'x'::text AS session, 1 AS epoch, 1 AS seq",
        );
        psql(database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        Some(Postgres {
            url: format!("postgres://{user}@{place}/{database}?sslmode=disable"),
            reader_url: format!("postgres://{reader}@{place}/{database}?sslmode=disable"),
            password: password.to_owned(),
            database: database.to_owned(),
        })
    }
}
