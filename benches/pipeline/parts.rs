//! What is measured: MQTT broker, Kafka and store, real or embedded.

use std::{
    cell::Cell,
    path::Path,
    sync::Arc,
    time::Duration,
};

use dmp_core::event::kafka_topic;
use dmp_service::{
    config,
    kafka::topics,
    mqtt::{Dialer, Endpoint},
    store::{Access, Database},
};
use fleetproof::live::embedded;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::bare;

/// `mqtt://host:port` of a broker that takes anonymous clients.
const MQTT: &str = "FLEETPROOF_BENCH_MQTT";

/// `bootstrap.servers` of a Kafka in which topics can be made.
const KAFKA: &str = "FLEETPROOF_BENCH_KAFKA";

/// URL of a PostgreSQL or CockroachDB in which databases can be made.
const STORE: &str = "FLEETPROOF_BENCH_STORE";

/// As the harness has it.
const PARTITIONS: i32 = 12;

/// The parts, and a runtime to use them on.
pub struct Parts {
    runtime: Runtime,
    pub mqtt: config::Mqtt,
    pub dialer: Arc<Dialer>,
    pub kafka: config::Kafka,
    server: Option<String>,
    /// Stores, groups and sessions made so far.
    made: Cell<u32>,
    directory: TempDir,
    _mqtt: Option<embedded::mqtt::Broker>,
    _kafka: Option<embedded::kafka::Broker>,
}

/// A store that is new and empty.
pub enum NewStore {
    /// A file.
    File(String),
    /// A database on a server.
    Database(String),
}

impl Parts {
    /// Starts what is not named by the environment, and says what is.
    pub fn start() -> Parts {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let runtime = Runtime::new().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let (mqtt, kafka, server) = (named(MQTT), named(KAFKA), named(STORE));
        let say = |part: &str, name: &str, real: bool| {
            let which = if real { format!("real, by {name}") } else { format!("embedded stand-in; {name} names a real one") };
            eprintln!("{part}: {which}");
        };
        say("MQTT broker", MQTT, mqtt.is_some());
        say("Kafka", KAFKA, kafka.is_some());
        say("store", STORE, server.is_some());
        let (endpoint, own_mqtt) = match mqtt {
            Some(text) => (text.parse::<Endpoint>().expect("an endpoint such as mqtt://127.0.0.1:1883"), None),
            None => {
                let broker = runtime.block_on(embedded::mqtt::Broker::start()).expect("the embedded broker starts");
                (broker.endpoint().clone(), Some(broker))
            }
        };
        let (bootstrap, own_kafka) = match kafka {
            Some(bootstrap) => (bootstrap, None),
            None => {
                let broker = embedded_kafka(directory.path());
                (broker.bootstrap(), Some(broker))
            }
        };
        let kafka = config::Kafka::at(bootstrap);
        let all = [
            (kafka_topic::EVENTS, PARTITIONS),
            (kafka_topic::COMMANDS, PARTITIONS),
            (kafka_topic::REPLIES, 1),
            (kafka_topic::DEAD_LETTER, 1),
        ];
        runtime.block_on(topics::create(&kafka, &all, 1)).expect("the topics can be made");
        Parts {
            mqtt: config::Mqtt::at(format!("{}:{}", endpoint.host, endpoint.port)),
            dialer: Arc::new(Dialer::new(endpoint, &Default::default()).expect("no TLS to go wrong")),
            kafka,
            server,
            made: Cell::new(0),
            directory,
            runtime,
            _mqtt: own_mqtt,
            _kafka: own_kafka,
        }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The time that `step` says it took, so many times.
    pub fn repeat<F: Future<Output = Duration>>(&self, times: u64, step: impl Fn() -> F) -> Duration {
        (0..times).map(|_| self.block_on(step())).sum()
    }

    /// A name that nothing had before, on a server that is used again too.
    pub fn name(&self, what: &str) -> String {
        self.made.set(self.made.get() + 1);
        let since_epoch = dmp_service::drive::wall().0;
        format!("bench_{what}_{since_epoch}_{}", self.made.get())
    }

    pub async fn new_store(&self) -> NewStore {
        let name = self.name("store");
        let Some(server) = &self.server else {
            return NewStore::File(self.directory.path().join(name).display().to_string());
        };
        self.execute(&format!("CREATE DATABASE {name}")).await;
        let (front, query) = server.split_once('?').map_or((server.as_str(), ""), |(front, query)| (front, query));
        let (address, _database) = front.rsplit_once('/').expect("a URL with a database");
        NewStore::Database(format!("{address}/{name}?{query}"))
    }

    /// Removes a store that is done with.
    pub async fn remove(&self, store: NewStore) {
        match store {
            NewStore::File(path) => {
                for ending in ["", "-wal", "-shm"] {
                    let _never_made = std::fs::remove_file(format!("{path}{ending}"));
                }
            }
            NewStore::Database(url) => {
                let (_, name) = url.split('?').next().and_then(|front| front.rsplit_once('/')).expect("made so");
                self.execute(&format!("DROP DATABASE {name}")).await;
            }
        }
    }

    async fn execute(&self, statement: &str) {
        let server = self.server.as_ref().expect("only asked where there is one");
        bare::connect(server).await.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

impl NewStore {
    pub fn url(&self) -> String {
        match self {
            NewStore::File(path) => format!("sqlite:{path}"),
            NewStore::Database(url) => url.clone(),
        }
    }

    pub async fn open(&self, access: Access) -> Database {
        Database::open(&self.url().parse().expect("made so"), access).await.expect("the store opens")
    }
}

fn embedded_kafka(directory: &Path) -> embedded::kafka::Broker {
    let log = directory.join("kafka");
    std::fs::create_dir(&log).expect("the directory is ours");
    embedded::kafka::Broker::start(embedded::kafka::Config::new(log)).expect("the embedded Kafka starts")
}
