//! Roles of the store: who writes rows cannot change the schema, and who reads sees nothing but the view. The rights are
//! given by `dmp-registry migrate`, run as the schema's owner.

use std::{
    io::Write,
    process::{Command, Output},
    sync::Once,
    time::Duration,
};

use dmp_core::{
    event::{AttributeName, Body, Event, Presence, PresenceState, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::{Feed, Rows},
    time::Wall,
};
use dmp_service::{
    config::Kafka,
    registry::{self, Faults},
    store::{Access, Database, Rights, Role, Store, StoreError, WriteOutcome},
};
use rdkafka::mocking::MockCluster;
use tokio_postgres::{Client, NoTls, error::SqlState};
use uuid::Uuid;

use crate::not_run;

const POSTGRES: &str = "FLEETPROOF_TEST_POSTGRES";
const PASSWORD: &str = "of-a-role";
const TABLES: [&str; 6] = ["setting", "device", "device_attribute", "device_session", "rae", "feed"];

/// An empty schema and two roles that may do nothing yet, all of this test's own.
struct Stage {
    server: String,
    schema: String,
}

impl Stage {
    async fn set(test: &str) -> Option<Stage> {
        let server = std::env::var(POSTGRES).ok().filter(|url| !url.is_empty());
        let Some(server) = server else {
            static SAID: Once = Once::new();
            SAID.call_once(|| not_run(&format!("the roles of the store, for want of PostgreSQL: set {POSTGRES}")));
            return None;
        };
        let stage = Stage { server, schema: format!("roles_{test}") };
        let Stage { schema, .. } = &stage;
        let (writer, reader) = (stage.writer(), stage.reader());
        let fresh = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; DROP ROLE IF EXISTS {writer}, {reader}; \
             CREATE ROLE {writer} LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}';"
        );
        stage.raw(None).await.batch_execute(&fresh).await.expect("the user of the URL may make schemas and roles");
        Some(stage)
    }

    fn writer(&self) -> String {
        format!("{}_writer", self.schema)
    }

    fn reader(&self) -> String {
        format!("{}_reader", self.schema)
    }

    /// The URL with its schema; of the owner, or of a role.
    fn url(&self, role: Option<&str>) -> String {
        let (scheme, rest) = self.server.split_once("://").expect("a URL");
        let (user, place) = rest.split_once('@').expect("a URL with a user");
        let user = role.map_or_else(|| user.to_owned(), |role| format!("{role}:{PASSWORD}"));
        let sign = if place.contains('?') { '&' } else { '?' };
        format!("{scheme}://{user}@{place}{sign}options=-c%20search_path%3D{}", self.schema)
    }

    async fn open(&self, role: Option<&str>) -> Database {
        Database::open(&self.url(role).parse().expect("a URL"), Access::Write).await.expect("the server answers")
    }

    /// A connection past the code under test.
    async fn raw(&self, role: Option<&str>) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(role), NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        client
    }

    /// Runs `dmp-registry migrate` as the owner.
    fn migrate(&self, arguments: &[&str]) -> Output {
        let url = self.url(None);
        let (user, rest) = url.split_once('@').expect("a URL with a user");
        let (user, password) = user.rsplit_once(':').expect("a user with a password");
        migrate(&format!("{user}@{rest}"), password, arguments)
    }

    /// The same, with rights for both roles.
    fn migrate_for_both(&self) {
        let (writer, reader) = (self.writer(), self.reader());
        let done = self.migrate(&["--writer", &writer, "--reader", &reader]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains(&writer) && said.contains(&reader), "{said}");
    }
}

fn migrate(url: &str, password: &str, arguments: &[&str]) -> Output {
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    write!(config, "[kafka]\nbootstrap = \"127.0.0.1:1\"\n[store]\nurl = {url:?}\n").expect("written");
    Command::new(env!("CARGO_BIN_EXE_dmp-registry"))
        .args(["migrate".as_ref(), config.path()])
        .args(arguments)
        .env("DMP_REGISTRY_STORE_PASSWORD", password)
        .output()
        .expect("the program runs")
}

/// Of every kind: a device with an attribute, its session, a RAE and a feed.
fn rows(seq: u64, names: &[&str], received: i64) -> Rows {
    let rae = Rae::try_from("RAE-1").expect("a serial");
    let seq_of = |seq| Seq::try_from(seq).expect("small");
    let version =
        Version { epoch: Epoch::try_from(1).expect("small"), session: Session(Uuid::from_u128(1)), seq: seq_of(seq) };
    let attribute = |name: &&str| (AttributeName::try_from(*name).expect("a name"), (Value::Integer(1), seq_of(seq)));
    let body = Body::Snapshot { attributes: names.iter().map(attribute).collect() };
    let event = StateEvent { rae: rae.clone(), device: Device::of_hardware("1"), version, at: Wall(0), body };
    let mut rows = Rows::default();
    rows.apply(&Event::State(event), Wall(received));
    let presence =
        Presence { boot: Epoch::try_from(1).expect("small"), connection: seq_of(seq), state: PresenceState::Online };
    rows.apply(&Event::Status(rae, presence), Wall(received));
    rows.feed = Some(Feed { partition: 0, next_offset: 1, received: Wall(received) });
    rows
}

async fn written(store: &Database, rows: &Rows) {
    let outcome = store.write(rows).await;
    assert!(matches!(outcome, WriteOutcome::Committed { .. }), "{outcome:?}");
}

async fn denied(client: &Client, statement: &str) {
    let error = client.batch_execute(statement).await.expect_err(statement);
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error}");
}

#[tokio::test]
async fn the_registry_writes_cleans_up_and_retires_with_a_role_that_cannot_change_the_schema() {
    let Some(stage) = Stage::set("writer").await else { return };
    stage.migrate_for_both();
    let store = stage.open(Some(&stage.writer())).await;
    let period = Duration::from_secs(10);
    store.migrate(period).await.expect("there is nothing left to migrate");
    written(&store, &rows(1, &["a", "b"], 0)).await;
    written(&store, &rows(2, &["a"], 1)).await;
    assert_eq!(store.clean().await.expect("it may"), 1);
    assert!(matches!(store.records().await, Err(StoreError::Denied(_))), "it never reads the view");
    let feed = Some(Feed { partition: 0, next_offset: 2, received: Wall(1_000_000) });
    written(&store, &Rows { feed, ..Rows::default() }).await;
    assert_eq!(store.retire(period).await.expect("it may"), 1);

    let rights = store.rights().await.expect("it may ask").expect("a server has rights");
    assert!(rights.iter().all(Rights::let_write), "what the role has is what is asked for: {rights:?}");
    let kept: Vec<_> = rights.iter().filter(|rights| !rights.let_forget()).map(|rights| &*rights.table).collect();
    assert_eq!(kept, ["rae"], "a registry never removes one");

    let raw = stage.raw(Some(&stage.writer())).await;
    let forbidden = [
        "CREATE TABLE more (a INT8)",
        "CREATE INDEX more ON device (rae)",
        "ALTER TABLE device ADD COLUMN more TEXT",
        "ALTER TABLE device_attribute DROP CONSTRAINT device_attribute_value_length",
        "CREATE OR REPLACE VIEW device_record AS SELECT 1 AS device",
        "DROP TABLE feed",
        "DROP VIEW device_record",
        "TRUNCATE device",
        "DELETE FROM setting",
        "DELETE FROM rae",
        "DELETE FROM feed",
        "UPDATE device_session SET opened = 0",
    ];
    for statement in forbidden {
        denied(&raw, statement).await;
    }
}

#[tokio::test]
async fn a_reader_sees_the_view_and_no_table() {
    let Some(stage) = Stage::set("reader").await else { return };
    stage.migrate_for_both();
    written(&stage.open(Some(&stage.writer())).await, &rows(1, &["a"], 0)).await;
    let records = stage.open(Some(&stage.reader())).await.records().await.expect("it may read the view");
    assert_eq!(records.len(), 1);
    let rights =
        stage.open(Some(&stage.reader())).await.rights().await.expect("it may ask").expect("a server has rights");
    assert!(
        rights.iter().filter(|rights| rights.table != "device_record").all(|rights| !rights.let_write()),
        "{rights:?}"
    );

    let raw = stage.raw(Some(&stage.reader())).await;
    for table in TABLES {
        denied(&raw, &format!("SELECT 1 FROM {table}")).await;
        denied(&raw, &format!("DELETE FROM {table}")).await;
    }
    denied(&raw, "CREATE TABLE more (a INT8)").await;
    let outcome = stage.open(Some(&stage.reader())).await.write(&rows(2, &["a"], 0)).await;
    // Never taken for a fault of the rows, which would be put into quarantine for it.
    assert!(matches!(&outcome, WriteOutcome::Aborted { reason } if reason.contains("right")), "{outcome:?}");
}

#[tokio::test]
async fn rights_beyond_those_of_the_role_are_taken_away_by_the_next_migration() {
    let Some(stage) = Stage::set("again").await else { return };
    stage.migrate_for_both();
    let beyond = format!("GRANT ALL ON device, feed TO {}, {}", stage.writer(), stage.reader());
    stage.raw(None).await.batch_execute(&beyond).await.expect("the owner may");
    stage.migrate_for_both();
    denied(&stage.raw(Some(&stage.reader())).await, "SELECT 1 FROM device").await;
    denied(&stage.raw(Some(&stage.writer())).await, "DELETE FROM feed").await;
    written(&stage.open(Some(&stage.writer())).await, &rows(1, &["a"], 0)).await;
}

#[tokio::test]
async fn who_does_not_own_the_schema_cannot_give_rights_on_it_and_is_told() {
    let Some(stage) = Stage::set("owner").await else { return };
    let may = format!("GRANT USAGE, CREATE ON SCHEMA {} TO {}", stage.schema, stage.writer());
    stage.raw(None).await.batch_execute(&may).await.expect("the owner may");
    let store = stage.open(Some(&stage.writer())).await;
    store.migrate(Duration::from_secs(10)).await.expect("it may make tables");
    let Database::Server(server) = &store else { panic!("it is a server") };
    let error = server.grant(Role::Reader, &stage.reader()).await.expect_err("the schema is another's");
    assert!(matches!(&error, StoreError::Denied(words) if words.contains(&stage.schema)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_store_was_not_migrated_and_who_may_not_do_it_says_who_has_to() {
    let Some(stage) = Stage::set("unmigrated").await else { return };
    let grant = format!("GRANT USAGE ON SCHEMA {} TO {}", stage.schema, stage.writer());
    stage.raw(None).await.batch_execute(&grant).await.expect("the owner may");
    let store = stage.open(Some(&stage.writer())).await;
    let error = store.migrate(Duration::from_secs(10)).await.expect_err("it may not");
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");

    let cluster = MockCluster::new(1).expect("a mock cluster starts");
    for topic in ["dmp.events", "dmp.commands", "dmp.dead-letter"] {
        cluster.create_topic(topic, 1, 1).expect("the mock cluster takes a topic");
    }
    let config = registry::Config::reading(Kafka::at(cluster.bootstrap_servers()));
    let error = registry::start(config, store, Faults::default()).await.expect_err("it cannot");
    assert!(format!("{error:#}").contains("dmp-registry migrate"), "{error:#}");
}

#[tokio::test]
async fn a_role_that_is_not_there_and_a_store_without_roles_are_told() {
    let file = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", file.path().join("store.db").display());
    let done = migrate(&url, "", &["--reader", "somebody"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("has no roles"), "{said}");
    assert!(migrate(&url, "", &[]).status.success());

    let Some(stage) = Stage::set("missing").await else { return };
    let done = stage.migrate(&["--writer", "no_such_role"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("no_such_role") && !said.contains(PASSWORD), "{said}");
}
