//! A fresh, empty store per test, opened as often as the test likes, and a look at its tables past the code under test.

use std::{collections::BTreeMap, io::Write, str::FromStr, sync::Once, time::Duration};

use dmp_core::{
    event::{AttributeName, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::{DeviceState, Floor, Offer, Rows},
    time::Wall,
};
use dmp_service::store::{Access, Database, Store, StoreUrl, WriteOutcome};
use tempfile::TempDir;
use uuid::Uuid;

/// Names the environment variable with the URL of the server to test on.
pub(crate) const POSTGRES: &str = "FLEETPROOF_TEST_POSTGRES";

/// The snapshot period with which stages are migrated.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Bound of the wait for a lock to be waited for.
const WAITS_WITHIN: Duration = Duration::from_secs(10);

/// Tries of one write before a test gives up.
const WRITE_TRIES: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    Sqlite,
    ReadCommitted,
    Serializable,
}

/// What a write does that meets another transaction at its rows: in this the arms differ.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meeting {
    /// It waits for the other, and then goes on.
    Waits,
    /// It fails with this state when the other has committed.
    Fails(&'static str),
}

pub(crate) struct Stage {
    arm: Arm,
    url: String,
    /// Of the server; also the name that every connection of the stage gives.
    schema: String,
    /// Holds the file of an embedded store.
    _directory: Option<TempDir>,
}

impl Stage {
    /// `None` where the arm needs a server and none is given.
    pub(crate) async fn set(arm: Arm, test: &str) -> Option<Stage> {
        let isolation = match arm {
            Arm::Sqlite => {
                let directory = tempfile::tempdir().expect("a temporary directory can be made");
                let url = format!("sqlite:{}", directory.path().join("store.db").display());
                return Some(Stage { arm, url, schema: String::new(), _directory: Some(directory) });
            }
            Arm::ReadCommitted => "read\\ committed",
            Arm::Serializable => "serializable",
        };
        let server = server_url()?;
        // A schema of its own, so that tests run side by side; 63 bytes is the longest name.
        let schema = format!("{}_{}", if arm == Arm::Serializable { "s" } else { "r" }, &test[..test.len().min(60)]);
        let admin = raw_server(&server).await;
        let fresh = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        admin.batch_execute(&fresh).await.expect("the user of the URL may create schemas");
        let options = format!("-c search_path={schema} -c default_transaction_isolation={isolation}");
        let options = options.replace(' ', "%20").replace('=', "%3D").replace('\\', "%5C");
        let sign = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{sign}application_name={schema}&options={options}");
        Some(Stage { arm, url, schema, _directory: None })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn meeting(&self) -> Meeting {
        match self.arm {
            Arm::Sqlite | Arm::ReadCommitted => Meeting::Waits,
            Arm::Serializable => Meeting::Fails("40001"),
        }
    }

    /// A transaction past the code under test that has done this and stays open.
    pub(crate) async fn hold(&self, sql: &str) -> Held {
        match self.url.strip_prefix("sqlite:") {
            Some(path) => {
                let file = raw_file(path);
                file.execute_batch(&format!("BEGIN IMMEDIATE; {sql}")).expect("test SQL is right");
                Held::File(file)
            }
            None => {
                let server = raw_server(&self.url).await;
                server.batch_execute(&format!("BEGIN; {sql}")).await.expect("test SQL is right");
                Held::Server(server)
            }
        }
    }

    /// Waits until a connection of the stage waits for a lock of another. Who waits for a file only tries again and
    /// again: nobody can see it, so there it is taken for granted.
    pub(crate) async fn until_somebody_waits(&self) {
        if self.arm == Arm::Sqlite {
            return;
        }
        let waiting = format!(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            self.schema
        );
        let look = raw_server(&self.url).await;
        let seen = async {
            while look.query(&waiting, &[]).await.expect("test SQL is right").is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(WAITS_WITHIN, seen).await.expect("somebody waits");
    }

    /// Opens the store as it is.
    pub(crate) async fn open(&self) -> Database {
        let url = StoreUrl::from_str(&self.url).expect("stages have right URLs");
        Database::open(&url, Access::Write).await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    /// Opens the store and migrates it.
    pub(crate) async fn migrated(&self) -> Database {
        let store = self.open().await;
        store.migrate(PERIOD).await.expect("a fresh store migrates");
        store
    }

    /// What the tables `device` and `device_attribute` hold, hidden and tombstones included.
    pub(crate) async fn stored(&self) -> BTreeMap<Device, DeviceState> {
        let (floors, offers) = match self.url.strip_prefix("sqlite:") {
            Some(path) => stored_in_file(path),
            None => stored_on_server(&self.url).await,
        };
        let mut states = BTreeMap::<Device, DeviceState>::new();
        for (device, version, names, rae, seen_at) in floors {
            let names = names.split('|').filter(|name| !name.is_empty()).map(name_of).collect();
            let rae = Rae::try_from(rae.as_str()).expect("stored serials are right");
            let floor = Floor { version: version_of(version), names, rae, seen_at: Wall(seen_at) };
            states.entry(Device(device)).or_default().floor = Some(floor);
        }
        for (device, name, version, value) in offers {
            let value = value.map(|json| serde_json::from_str::<Value>(&json).expect("stored values are JSON"));
            let offer = Offer { version: version_of(version), value };
            states.entry(Device(device)).or_default().attributes.insert(name_of(&name), offer);
        }
        states
    }

    /// Runs SQL past the code under test.
    pub(crate) async fn execute(&self, sql: &str) {
        match self.url.strip_prefix("sqlite:") {
            Some(path) => raw_file(path).execute_batch(sql).expect("test SQL is right"),
            None => raw_server(&self.url).await.batch_execute(sql).await.expect("test SQL is right"),
        }
    }
}

/// An open transaction.
pub(crate) enum Held {
    File(rusqlite::Connection),
    Server(tokio_postgres::Client),
}

impl Held {
    pub(crate) async fn commit(self) {
        match self {
            Held::File(file) => file.execute_batch("COMMIT").expect("it commits"),
            Held::Server(server) => server.batch_execute("COMMIT").await.expect("it commits"),
        }
    }
}

/// How often a write did not come through at once.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) aborted: Vec<String>,
    pub(crate) ambiguous: Vec<String>,
}

/// Does what the registry does: writes until the rows are durable.
pub(crate) async fn write(store: &Database, rows: &Rows) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..WRITE_TRIES {
        match store.write(rows).await {
            WriteOutcome::Committed { .. } => return tally,
            WriteOutcome::Aborted { reason } => tally.aborted.push(reason),
            WriteOutcome::Ambiguous { reason } => tally.ambiguous.push(reason),
            WriteOutcome::Refused { reason } => panic!("good rows were refused: {reason}"),
        }
    }
    panic!(
        "not committed in {WRITE_TRIES} tries; last reasons: {:?} {:?}",
        tally.aborted.last(),
        tally.ambiguous.last()
    )
}

/// The URL of the server; says once, past the capture of output, that there is none.
pub(crate) fn server_url() -> Option<String> {
    static SAID: Once = Once::new();
    let url = std::env::var(POSTGRES).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{POSTGRES} is not set: in CI the server arms must run");
        SAID.call_once(|| {
            let said = format!("\nNOT RUN: the arms of the store's tests on PostgreSQL; set {POSTGRES} to run them\n");
            let _ = std::io::stderr().write_all(said.as_bytes());
        });
    }
    url
}

/// A connection past the code under test.
pub(crate) async fn raw_server(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

type RawVersion = (i64, Uuid, i64);
type RawFloor = (Uuid, RawVersion, String, String, i64);
type RawOffer = (Uuid, String, RawVersion, Option<String>);

fn raw_file(path: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).expect("the file is there");
    connection.busy_timeout(Duration::from_secs(5)).expect("the timeout can be set");
    connection
}

fn stored_in_file(path: &str) -> (Vec<RawFloor>, Vec<RawOffer>) {
    let connection = raw_file(path);
    let mut floors = connection.prepare("SELECT device, epoch, session, seq, names, rae, seen_at FROM device").unwrap();
    let mut offers =
        connection.prepare("SELECT device, name, epoch, session, seq, value FROM device_attribute").unwrap();
    let id = |row: &rusqlite::Row<'_>, at| row.get(at).map(Uuid::from_bytes);
    let floors = floors.query_map([], |row| {
        let version = (row.get(1)?, id(row, 2)?, row.get(3)?);
        Ok((id(row, 0)?, version, row.get(4)?, row.get(5)?, row.get(6)?))
    });
    let offers = offers
        .query_map([], |row| Ok((id(row, 0)?, row.get(1)?, (row.get(2)?, id(row, 3)?, row.get(4)?), row.get(5)?)));
    (floors.unwrap().map(Result::unwrap).collect(), offers.unwrap().map(Result::unwrap).collect())
}

async fn stored_on_server(url: &str) -> (Vec<RawFloor>, Vec<RawOffer>) {
    let client = raw_server(url).await;
    let floors = "SELECT device, epoch, session, seq, array_to_string(names, '|'), rae, seen_at FROM device";
    let offers = "SELECT device, name, epoch, session, seq, value FROM device_attribute";
    let floors = client.query(floors, &[]).await.unwrap();
    let offers = client.query(offers, &[]).await.unwrap();
    let floors =
        floors.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)), row.get(4), row.get(5), row.get(6)));
    let offers = offers.iter().map(|row| (row.get(0), row.get(1), (row.get(2), row.get(3), row.get(4)), row.get(5)));
    (floors.collect(), offers.collect())
}

fn name_of(text: &str) -> AttributeName {
    AttributeName::try_from(text).expect("stored names are right")
}

fn version_of((epoch, session, seq): RawVersion) -> Version {
    let exact = |number: i64| u64::try_from(number).expect("stored numbers are positive");
    Version {
        epoch: Epoch::try_from(exact(epoch)).unwrap(),
        session: Session(session),
        seq: Seq::try_from(exact(seq)).unwrap(),
    }
}
