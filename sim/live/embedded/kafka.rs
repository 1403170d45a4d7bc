//! A Kafka-protocol broker inside this process: a **stand-in**, and its figures are never Kafka's.
//!
//! It lets a run need no JVM and no container: unchanged clients (librdkafka, kcat, Kafka's own tools) connect to it on
//! loopback. It models what the pipeline relies on: order within a partition, records that stay once they are
//! acknowledged, idempotent producers, consumer groups with generations, committed offsets. It has one node and no
//! replication, transactions, security or retention by time; records are deleted only when a client asks for it. A full
//! log answers with a retriable error.
//!
//! Logs are files without names in a directory that the caller gives; they, the port and the threads go with the
//! [`Broker`], or with the process. Groups and offsets live in memory.

mod api;
mod batch;
mod coordinator;
mod group;
mod partition;
mod producer;
mod segment;
mod server;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

pub use kafka_protocol::ResponseError;
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    sync::{oneshot, watch},
};

use self::{coordinator::Coordinator, partition::Disk, topics::Topics};

/// Loopback only: the broker knows no security.
const HOST: &str = "127.0.0.1";
/// The only broker's id.
const NODE_ID: i32 = 1;
/// One thread could carry the load; the second one keeps heartbeats going while the first writes to a slow disk.
const THREADS: usize = 2;
/// How long a stop waits for connections to be closed, which takes no longer than one read or write of a file.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How a broker is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the logs are written; must exist.
    pub directory: PathBuf,
    /// Topics to begin with, and their numbers of partitions.
    pub topics: Vec<(String, u32)>,
    /// Number of partitions of a topic that a client asks for and that does not exist; `None` refuses it.
    pub auto_create: Option<u32>,
    /// How long the first member of an empty group waits for others (Kafka, `group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// Bytes in all logs at which records are refused, retriably. The index takes a 700th of it in memory.
    pub bytes_max: u64,
    /// Largest record batch (Kafka, `message.max.bytes`).
    pub batch_bytes_max: usize,
    /// The port to listen on; `None` lets the system choose.
    pub port: Option<u16>,
    /// The port that clients are told to connect to, where something on loopback stands before the broker.
    pub advertised_port: Option<u16>,
}

impl Config {
    /// No topics, none made on demand, on a port that the system chooses; 8 GiB of logs, batches of up to 1 MiB.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            directory: directory.into(),
            topics: Vec::new(),
            auto_create: None,
            initial_rebalance_delay: Duration::from_millis(100),
            bytes_max: 8 << 30,
            batch_bytes_max: 1 << 20,
            port: None,
            advertised_port: None,
        }
    }
}

/// Why a broker did not start, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is missing, or cannot be written to.
    #[error("making a file in {directory}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The port is taken, or may not be used.
    #[error("listening on {HOST}:{port}")]
    Listen {
        /// The port; 0 where the system was to choose.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// No threads to be had.
    #[error("starting the broker's threads")]
    Threads(#[source] io::Error),
    /// The topic exists, or its name or number of partitions is not allowed.
    #[error("creating topic {topic:?}")]
    Topic {
        /// The topic.
        topic: String,
        /// What a client would have been told.
        source: ResponseError,
    },
}

/// A running broker. Dropping it stops it.
#[derive(Debug)]
pub struct Broker {
    state: Arc<State>,
    port: u16,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    stopped: mpsc::Receiver<()>,
}

/// What all connections share.
#[derive(Debug)]
struct State {
    topics: Topics,
    coordinator: Coordinator,
    advertised_port: u16,
    next_id: AtomicI64,
    cuts: watch::Sender<()>,
}

impl State {
    /// A number that was never given out, for producers and members.
    fn new_id(&self) -> i64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Broker {
    /// Starts a broker on threads of its own; may be called from anywhere. It listens when this returns.
    ///
    /// # Errors
    /// The directory cannot be written to, the port cannot be had, or a topic cannot be made.
    pub fn start(config: Config) -> Result<Broker, Error> {
        tempfile::tempfile_in(&config.directory)
            .map_err(|source| Error::Directory { directory: config.directory.clone(), source })?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("embedded-kafka")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let (listener, port) = listen(&runtime, config.port.unwrap_or(0))?;
        let disk = Disk::new(config.directory.into(), config.batch_bytes_max, config.bytes_max);
        let state = Arc::new(State {
            topics: Topics::new(disk, config.auto_create),
            coordinator: Coordinator::new(config.initial_rebalance_delay),
            advertised_port: config.advertised_port.unwrap_or(port),
            next_id: AtomicI64::new(1),
            cuts: watch::Sender::new(()),
        });
        let (stop, stop_told) = oneshot::channel();
        let (stopped_told, stopped) = mpsc::sync_channel(1);
        let serving = state.clone();
        runtime.spawn(async move {
            server::serve(listener, serving, stop_told).await;
            // Nobody may be waiting for it.
            let _ = stopped_told.try_send(());
        });
        let broker = Broker { state, port, runtime: Some(runtime), stop: Some(stop), stopped };
        for (topic, partitions) in &config.topics {
            broker.create_topic(topic, *partitions)?;
        }
        Ok(broker)
    }

    /// What clients need as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// It exists, or its name or number of partitions is not allowed.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), Error> {
        let created = self.state.topics.create(name, partitions);
        created.map_err(|source| Error::Topic { topic: name.to_owned(), source })
    }

    /// Bytes in all logs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.topics.bytes()
    }

    /// Cuts all connections; clients may connect again at once.
    pub fn cut_connections(&self) {
        self.state.cuts.send_replace(());
    }

    /// Stops the broker: when this returns, port and connections are closed, and the logs are gone.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has stopped already.
            let _ = stop.send(());
        }
        if self.stopped.recv_timeout(STOP_WITHIN).is_err() {
            tracing::error!("the embedded Kafka broker did not stop in time; its threads are left to themselves");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(runtime: &Runtime, port: u16) -> Result<(TcpListener, u16), Error> {
    let listen = || {
        let listener = std::net::TcpListener::bind((HOST, port))?;
        listener.set_nonblocking(true)?;
        let chosen = listener.local_addr()?.port();
        let _context = runtime.enter();
        Ok((TcpListener::from_std(listener)?, chosen))
    };
    listen().map_err(|source| Error::Listen { port, source })
}
