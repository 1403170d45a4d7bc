//! The embedded target: brokers inside this process and a store in a temporary directory, so that a run needs nothing
//! installed.
//!
//! Everything is on loopback, on ports that the system chooses, and gone when the value is dropped. If this process is
//! killed, its janitor, a child process, ends what is left and removes the directory.

pub mod kafka;
pub mod mqtt;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context;
use dmp_core::event::kafka_topic;
use dmp_service::{bridge, config, mqtt::Dialer, registry};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{
    child::ChildConfig,
    proxy::{Observed, Proxy},
};
use crate::{
    history::Process,
    scenario::{FaultKind, Part, ReadFrom, Scenario},
};

/// Connection attempts of the fleet at a time: the broker's listen backlog of 128 takes no more than about 80.
const CONNECTS_AT_A_TIME: usize = 80;

/// Observations between the proxy and the history; when it is full, the link waits.
const OBSERVATIONS: usize = 4_096;

/// Least time that a registry may take between two polls, as the Kafka client wants it: at least the session timeout.
const LEAST_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);

/// The brokers and the store of one run.
pub(super) struct Embedded {
    mqtt: mqtt::Broker,
    kafka: kafka::Broker,
    proxy: Proxy,
    directory: TempDir,
    /// How often store and group have been new.
    incarnation: AtomicU32,
    /// Ends when this value is dropped, and cleans up after it.
    _janitor: tokio::process::Child,
}

impl Embedded {
    /// Starts brokers and proxy. Bridge and registry are not started yet.
    pub(super) async fn start(
        scenario: &Scenario,
        binary: &Path,
    ) -> anyhow::Result<(Embedded, mpsc::Receiver<Observed>)> {
        let directory =
            tempfile::Builder::new().prefix("fleetproof-").tempdir().context("making a temporary directory")?;
        let janitor = janitor(binary, directory.path())?;
        let log = directory.path().join("kafka");
        std::fs::create_dir(&log).with_context(|| format!("making {}", log.display()))?;
        let topics = vec![
            (kafka_topic::EVENTS.to_owned(), u32::from(scenario.pipeline.partitions)),
            (kafka_topic::COMMANDS.to_owned(), u32::from(scenario.pipeline.partitions)),
            (kafka_topic::REPLIES.to_owned(), 1),
            (kafka_topic::DEAD_LETTER.to_owned(), 1),
        ];
        let kafka = kafka::Broker::start(kafka::Config { topics, ..kafka::Config::new(log) })?;
        let mqtt = mqtt::Broker::start().await?;
        let (seen, observed) = mpsc::channel(OBSERVATIONS);
        let proxy = Proxy::start(mqtt.endpoint(), seen).await.context("starting the proxy before the bridges")?;
        let incarnation = AtomicU32::new(1);
        Ok((Embedded { mqtt, kafka, proxy, directory, incarnation, _janitor: janitor }, observed))
    }

    /// Whether this target can do such a fault.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn supports(fault: &FaultKind) -> Result<(), &'static str> {
        match fault {
            // The fleet does these itself, on any target.
            FaultKind::MissedUpdates { .. }
            | FaultKind::Qos0Loss { .. }
            | FaultKind::Duplicates { .. }
            | FaultKind::DelayedTails { .. }
            | FaultKind::Poison { .. }
            | FaultKind::Reboot { .. }
            | FaultKind::Wipe { .. }
            | FaultKind::Gone { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::Disconnect { .. } => Ok(()),
            // Bridge and registry are children of this process.
            FaultKind::Kill { .. }
            | FaultKind::Pause { .. }
            | FaultKind::StageFailure { .. }
            | FaultKind::WipeStore { .. }
            | FaultKind::NewConsumer { .. } => Ok(()),
            // The harness is on the wire before the bridges, and around the store.
            FaultKind::CutLink { .. }
            | FaultKind::SlowLink { .. }
            | FaultKind::ThrottledStore { .. }
            | FaultKind::SlowStore { .. } => Ok(()),
        }
    }

    /// Connects to the broker directly, as the fleet does.
    pub(super) fn dialer(&self) -> anyhow::Result<Dialer> {
        Ok(Dialer::new(self.mqtt.endpoint().clone(), &Default::default())?.at_most(CONNECTS_AT_A_TIME))
    }

    /// The link between broker and bridges.
    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Where the run keeps its files.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where clients of MQTT connect.
    pub(super) fn mqtt_address(&self) -> String {
        self.mqtt.endpoint().to_string()
    }

    /// How clients reach Kafka.
    pub(super) fn kafka(&self) -> config::Kafka {
        config::Kafka::at(self.kafka.bootstrap())
    }

    /// The store.
    pub(super) fn store_url(&self) -> String {
        format!("sqlite:{}", self.store_file().display())
    }

    /// Number of the store and group that are in use; the first is 1.
    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Removes the store, and with the next registry begins another one, under another group.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn renew(&self) -> anyhow::Result<()> {
        // A file of its own for each: a reader that still closes the old one must not touch the new one's.
        let old = self.store_file();
        for ending in ["", "-wal", "-shm"] {
            let file = format!("{}{ending}", old.display());
            match std::fs::remove_file(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("removing {file}")),
            }
        }
        self.incarnation.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many records each client has put on the topic of commands, by its client id.
    pub(super) fn commanded(&self) -> BTreeMap<String, u64> {
        self.kafka.stored_by_clients(kafka_topic::COMMANDS)
    }

    fn store_file(&self) -> PathBuf {
        match self.incarnation() {
            1 => self.directory.path().join("store.db"),
            number => self.directory.path().join(format!("store-{number}.db")),
        }
    }

    /// The configuration of a bridge or registry; `repair` tells whether a registry is to repair gaps.
    pub(super) fn child(&self, process: Process, scenario: &Scenario, repair: bool) -> ChildConfig {
        match process.part {
            Part::Bridge => ChildConfig::Bridge(self.bridge(process.index, scenario)),
            Part::Registry => ChildConfig::Registry(self.registry(scenario, repair)),
            Part::Consumer => ChildConfig::Registry(self.consumer(process.index, scenario)),
        }
    }

    /// The consumer group of consumer number `index`.
    pub(super) fn consumer_group(index: u8) -> String {
        format!("new-consumer-{index}")
    }

    /// The store of consumer number `index`.
    pub(super) fn consumer_store_url(&self, index: u8) -> String {
        format!("sqlite:{}", self.directory.path().join(format!("consumer-{index}.db")).display())
    }

    /// The consumer group of the registries.
    pub(super) fn group(&self, scenario: &Scenario) -> String {
        self.registry(scenario, false).group
    }

    fn bridge(&self, index: u8, scenario: &Scenario) -> bridge::Config {
        let pipeline = &scenario.pipeline;
        let mqtt = self.proxy.endpoint();
        let mqtt = config::Mqtt::at(format!("{}:{}", mqtt.host, mqtt.port));
        let serve = (0..pipeline.shard_groups).filter(|group| group % pipeline.bridges == index).collect();
        bridge::Config {
            id: format!("bridge-{index}"),
            window: pipeline.bridge_window as usize,
            shards: bridge::Shards { groups: pipeline.shard_groups, serve: Some(serve), ..Default::default() },
            ..bridge::Config::between(mqtt, self.kafka())
        }
    }

    /// A registry with a group and a store of its own, that says nothing to any RAE.
    fn consumer(&self, index: u8, scenario: &Scenario) -> registry::Config {
        let from = scenario.consumers().nth(index.into()).map(|(_, from)| from);
        let start = match from {
            Some(ReadFrom::Latest) => config::Start::Latest,
            Some(ReadFrom::Earliest) | None => config::Start::Earliest,
        };
        let registry = self.registry(scenario, false);
        registry::Config {
            group: Embedded::consumer_group(index),
            start,
            feedback: registry::Feedback { enabled: Some(false), ..registry.feedback },
            store: registry::StoreConfig { url: self.consumer_store_url(index), ..registry.store },
            ..registry
        }
    }

    fn registry(&self, scenario: &Scenario, repair: bool) -> registry::Config {
        let pipeline = &scenario.pipeline;
        let kafka = config::Kafka {
            session_timeout: pipeline.session_timeout,
            max_poll_interval: LEAST_POLL_INTERVAL.max(pipeline.session_timeout),
            ..self.kafka()
        };
        let defaults = registry::Config::reading(kafka);
        let group = match self.incarnation() {
            1 => defaults.group,
            number => format!("{}-rebuilt-{number}", defaults.group),
        };
        registry::Config {
            group,
            snapshot_period: scenario.fleet.snapshot_every,
            store: registry::StoreConfig { url: self.store_url(), ..Default::default() },
            pipeline: registry::Pipeline {
                batch_rows: pipeline.batch_rows as usize,
                batch_wait: pipeline.batch_wait,
                commit_records: pipeline.commit_records.into(),
                commit_every: pipeline.commit_every,
                partition_credit: pipeline.partition_credit as usize,
                ..defaults.pipeline
            },
            clean: registry::Clean { every: pipeline.clean_every, ..defaults.clean },
            feedback: registry::Feedback {
                enabled: Some(true),
                repair,
                gap_wait: pipeline.gap_wait,
                ..defaults.feedback
            },
            ..defaults
        }
    }
}

/// Starts the janitor of `directory`; it waits for its standard input to end.
fn janitor(binary: &Path, directory: &Path) -> anyhow::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(binary);
    // A group of its own, and not killed on drop: it has to outlive a parent that ends by Ctrl-C or SIGKILL.
    command.arg("janitor").arg(directory).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().with_context(|| format!("starting the janitor, {} janitor", binary.display()))
}
