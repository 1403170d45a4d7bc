//! Mosquitto, Kafka and PostgreSQL in containers, for all benches of a run.

use std::{cell::Cell, path::Path, process::Command, sync::Arc};

use anyhow::Context;
use dmp_service::{
    config,
    mqtt::{Dialer, Endpoint},
    store::{Access, Database},
};
use fleetproof::{
    live::Pipeline,
    run::{StoreProduct, Target},
    scenario::Scenario,
};
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::NoTls;

/// What each server says of its version when it starts.
const VERSIONS: [(&str, &str); 3] =
    [("Mosquitto", "mosquitto version "), ("Kafka", "Kafka version: "), ("PostgreSQL", "starting PostgreSQL ")];

/// The servers, and the runtime on which they are used; to be dropped within it, since containers are removed through it.
pub(crate) struct Servers {
    pub(crate) mqtt: config::Mqtt,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) kafka: config::Kafka,
    /// A database of the server in which others can be made.
    store: String,
    /// Databases, groups and sessions so far.
    named: Cell<u32>,
    pipeline: Pipeline,
    runtime: Handle,
}

impl Servers {
    /// Starts them, without a bridge or a registry.
    pub(crate) fn start(runtime: &Runtime) -> anyhow::Result<Servers> {
        eprintln!("starting Mosquitto, Kafka and PostgreSQL in containers");
        let scenario = Scenario::asking("What is to be started?").phase("none", "1s", 0.0).build()?;
        let target = Target::Containers(StoreProduct::Postgres);
        let binary = Some(env!("CARGO_BIN_EXE_fleetproof").into());
        let pipeline = runtime.block_on(Pipeline::start(&target, &scenario, binary, false))?;
        let endpoints = pipeline.endpoints();
        let endpoint: Endpoint = endpoints.mqtt.parse()?;
        Ok(Servers {
            mqtt: config::Mqtt::at(endpoint.address()),
            dialer: Arc::new(Dialer::new(endpoint, &Default::default())?),
            kafka: config::Kafka::at(&endpoints.kafka),
            store: endpoints.store.clone(),
            named: Cell::new(0),
            pipeline,
            runtime: runtime.handle().clone(),
        })
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A name that nothing has yet.
    pub(crate) fn name(&self, what: &str) -> String {
        self.named.set(self.named.get() + 1);
        format!("{what}_{}", self.named.get())
    }

    /// Product and version of each.
    pub(crate) fn versions(&self) -> anyhow::Result<Vec<String>> {
        // The directory of a run is the label of its containers.
        let run =
            self.pipeline.endpoints().logs.parent().and_then(Path::file_name).context("logs are in a directory")?;
        let label = format!("label=fleetproof.run={}", run.display());
        let mut logs = String::new();
        for container in docker(&["ps", "--quiet", "--filter", &label])?.lines() {
            logs += &docker(&["logs", container])?;
        }
        let version = |(product, said): (&str, &str)| {
            let version = logs.split_once(said).and_then(|(_, rest)| rest.split_whitespace().next());
            format!("{product} {}", version.unwrap_or("of unknown version"))
        };
        Ok(VERSIONS.map(version).to_vec())
    }

    /// A new, empty database.
    pub(crate) async fn make_database(&self) -> NewDatabase {
        let name = self.name("bench");
        self.execute(&format!("CREATE DATABASE {name}")).await;
        let (server, options) = self.store.split_once('?').unwrap_or((&self.store, ""));
        let (server, _) = server.rsplit_once('/').expect("a URL with a database");
        NewDatabase { url: format!("{server}/{name}?{options}"), name }
    }

    /// Removes one that is done with.
    pub(crate) async fn remove_database(&self, database: NewDatabase) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", database.name)).await;
    }

    async fn execute(&self, statement: &str) {
        let done = connect(&self.store).await.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// A database of one run of a step.
pub(crate) struct NewDatabase {
    pub(crate) url: String,
    name: String,
}

impl NewDatabase {
    pub(crate) async fn open(&self, access: Access) -> Database {
        Database::open(&self.url.parse().expect("made so"), access).await.expect("PostgreSQL answers")
    }
}

/// A connection of its own.
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// What Docker's command says, on either stream: logs come on both.
fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).output().context("running docker")?;
    Ok([output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}
