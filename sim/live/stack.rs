//! What a run drives and breaks: MQTT broker, Kafka and a store, and how bridge and registry are set to reach them.
//!
//! The servers are embedded in this process or run in containers. Around either the harness has the same: a proxy between
//! broker and bridges, a temporary directory, and a janitor, a child process that outlives this one and removes what is
//! left, however this one ended.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context;
use dmp_core::event::kafka_topic;
use dmp_service::{
    bridge, config,
    mqtt::{Dialer, Endpoint},
    registry,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

#[cfg(feature = "containers")]
use super::containers::Containers;
use super::{
    baseline,
    child::ChildConfig,
    embedded::Embedded,
    proxy::{Observed, Proxy},
};
use crate::{
    history::Process,
    run::Target,
    scenario::{FaultKind, Part, ReadFrom, Scenario},
};

/// Connection attempts of the fleet at a time: the embedded broker's listen backlog of 128 takes no more than about 80.
const CONNECTS_AT_A_TIME: usize = 80;

/// Observations between the proxy and the history; when it is full, the link waits.
const OBSERVATIONS: usize = 4_096;

/// Least time that a registry may take between two polls, as the Kafka client wants it: at least the session timeout.
const LEAST_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Group and store of the baseline consumer.
const BASELINE: &str = "baseline";

/// A topic and its number of partitions.
pub(super) type Topic = (&'static str, u32);

/// The servers of one run, and what the harness has around them.
pub(super) struct Stack {
    servers: Servers,
    proxy: Proxy,
    directory: TempDir,
    /// How often store and group have been new.
    incarnation: AtomicU32,
    /// Ends when this value is dropped, and cleans up after it.
    _janitor: tokio::process::Child,
}

enum Servers {
    Embedded(Embedded),
    #[cfg(feature = "containers")]
    Containers(Box<Containers>),
}

impl Stack {
    /// Starts servers and proxy. Bridge and registry are not started yet.
    pub(super) async fn start(
        target: Target,
        scenario: &Scenario,
        binary: &Path,
    ) -> anyhow::Result<(Stack, mpsc::Receiver<Observed>)> {
        let directory =
            tempfile::Builder::new().prefix("fleetproof-").tempdir().context("making a temporary directory")?;
        let janitor = janitor(binary, directory.path())?;
        let servers = Servers::start(target, &topics(scenario), directory.path()).await?;
        let (seen, observed) = mpsc::channel(OBSERVATIONS);
        let proxy = Proxy::start(&servers.mqtt(), seen).await.context("starting the proxy before the bridges")?;
        let incarnation = AtomicU32::new(1);
        let stack = Stack { servers, proxy, directory, incarnation, _janitor: janitor };
        stack.servers.make_store(&stack.store_name()).await?;
        if scenario.pipeline.baseline {
            stack.servers.make_store(BASELINE).await?;
        }
        Ok((stack, observed))
    }

    /// Whether every target can do such a fault.
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
        Ok(Dialer::new(self.servers.mqtt(), &Default::default())?.at_most(CONNECTS_AT_A_TIME))
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
        self.servers.mqtt().to_string()
    }

    /// How clients reach Kafka.
    pub(super) fn kafka(&self) -> config::Kafka {
        config::Kafka::at(self.servers.bootstrap())
    }

    /// The store.
    pub(super) fn store_url(&self) -> String {
        self.servers.store_url(&self.store_name())
    }

    /// Number of the store and group that are in use; the first is 1.
    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Removes the store, and with the next registry begins another one, under another group.
    ///
    /// # Errors
    /// If the store cannot be removed, or the next one not be made.
    pub(super) async fn renew(&self) -> anyhow::Result<()> {
        self.servers.remove_store(&self.store_name()).await?;
        // One of its own for each: a reader that still closes the old one must not touch the new one's.
        self.incarnation.fetch_add(1, Ordering::Relaxed);
        self.servers.make_store(&self.store_name()).await
    }

    /// How many records each client has put on the topic of commands, by its client id; empty where the servers do not
    /// tell.
    pub(super) fn commanded(&self) -> Vec<(String, u64)> {
        match &self.servers {
            Servers::Embedded(embedded) => embedded.stored_by_clients(kafka_topic::COMMANDS),
            #[cfg(feature = "containers")]
            Servers::Containers(_) => Vec::new(),
        }
    }

    fn store_name(&self) -> String {
        match self.incarnation() {
            1 => "store".to_owned(),
            number => format!("store_{number}"),
        }
    }

    /// The configuration of a bridge or registry; `repair` tells whether a registry is to repair gaps.
    pub(super) fn child(&self, process: Process, scenario: &Scenario, repair: bool) -> ChildConfig {
        match process.part {
            Part::Bridge => ChildConfig::Bridge(self.bridge(process.index, scenario)),
            Part::Registry => ChildConfig::Registry(self.registry(scenario, repair)),
            Part::Consumer => ChildConfig::Registry(self.consumer(process.index, scenario)),
            Part::Baseline => ChildConfig::Baseline(self.baseline(scenario)),
        }
    }

    /// The consumer group of consumer number `index`.
    pub(super) fn consumer_group(index: u8) -> String {
        format!("new-consumer-{index}")
    }

    /// Makes the store of consumer number `index`, which is empty.
    pub(super) async fn make_consumer_store(&self, index: u8) -> anyhow::Result<()> {
        self.servers.make_store(&consumer_store(index)).await
    }

    /// The store of consumer number `index`.
    pub(super) fn consumer_store_url(&self, index: u8) -> String {
        self.servers.store_url(&consumer_store(index))
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
            group: Stack::consumer_group(index),
            start,
            feedback: registry::Feedback { enabled: Some(false), ..registry.feedback },
            store: registry::StoreConfig { url: self.consumer_store_url(index), ..registry.store },
            ..registry
        }
    }

    /// The baseline consumer, with a group and a store of its own.
    pub(super) fn baseline(&self, scenario: &Scenario) -> baseline::Config {
        baseline::Config {
            kafka: self.registry(scenario, false).kafka,
            group: BASELINE.to_owned(),
            store: self.servers.store_url(BASELINE),
            snapshot_period: scenario.fleet.snapshot_every,
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

fn consumer_store(index: u8) -> String {
    format!("consumer_{index}")
}

fn topics(scenario: &Scenario) -> [Topic; 4] {
    let partitions = u32::from(scenario.pipeline.partitions);
    [
        (kafka_topic::EVENTS, partitions),
        (kafka_topic::COMMANDS, partitions),
        (kafka_topic::REPLIES, 1),
        (kafka_topic::DEAD_LETTER, 1),
    ]
}

impl Servers {
    async fn start(target: Target, topics: &[Topic], directory: &Path) -> anyhow::Result<Servers> {
        match target {
            Target::Embedded => Ok(Servers::Embedded(Embedded::start(topics, directory).await?)),
            #[cfg(feature = "containers")]
            Target::Containers(product) => {
                Ok(Servers::Containers(Box::new(Containers::start(product, topics, directory).await?)))
            }
            #[cfg(not(feature = "containers"))]
            Target::Containers(_) => {
                anyhow::bail!("this build has no containers: build with the cargo feature `containers`")
            }
        }
    }

    fn mqtt(&self) -> Endpoint {
        match self {
            Servers::Embedded(embedded) => embedded.mqtt(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.mqtt(),
        }
    }

    fn bootstrap(&self) -> String {
        match self {
            Servers::Embedded(embedded) => embedded.bootstrap(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.bootstrap(),
        }
    }

    fn store_url(&self, name: &str) -> String {
        match self {
            Servers::Embedded(embedded) => embedded.store_url(name),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.store_url(name),
        }
    }

    /// Makes an empty store; a file is made by who writes it first.
    async fn make_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(_) => Ok(()),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.make_store(name).await,
        }
    }

    async fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(embedded) => embedded.remove_store(name),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.remove_store(name).await,
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
