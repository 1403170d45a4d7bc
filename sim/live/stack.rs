//! What a run drives and breaks: MQTT broker, Kafka and a store, and how bridge and registry are set to reach them.
//!
//! The servers are embedded in this process or run in containers. Around either the harness has the same: a proxy between
//! broker and bridges, a temporary directory, and a janitor, a child process that outlives this one and removes what is
//! left, however this one ended.

use std::{
    path::Path,
    pin::Pin,
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
use super::containers::{self, Containers};
use super::{
    child::ChildConfig,
    embedded::Embedded,
    proxy::{Observed, Proxy},
};
use crate::{
    history::Process,
    run::{RunError, Target},
    scenario::{FaultKind, Part, ReadFrom, Scenario, Server},
};

/// Connection attempts of the fleet at a time: the embedded broker's listen backlog of 128 takes no more than about 80.
const CONNECTS_AT_A_TIME: usize = 80;

/// Observations between the proxy and the history; when it is full, the link waits.
const OBSERVATIONS: usize = 4_096;

/// Least time that a consumer may take between two polls, as the Kafka client wants it: at least the session timeout.
const LEAST_POLL_INTERVAL: Duration = Duration::from_secs(30);

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

/// What can be done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerOrder {
    /// SIGKILL.
    Kill,
    /// SIGTERM, or what its image wants in its place; returns once it has ended.
    End,
    /// Start it again on its disk, and wait until it answers.
    Start,
    /// Stand still, connections open.
    Pause,
    /// Go on.
    Resume,
    /// Take the room on its disk.
    FillDisk,
    /// Give it back.
    FreeDisk,
}

/// An order that is carried out when it is awaited.
pub(super) type Ordered = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

enum Servers {
    Embedded(Box<Embedded>),
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
        let janitor = janitor(binary, directory.path(), target)?;
        let servers = Servers::start(target, scenario, directory.path()).await?;
        let (seen, observed) = mpsc::channel(OBSERVATIONS);
        let proxy = Proxy::start(&servers.mqtt(), seen).await.context("starting the proxy before the bridges")?;
        let incarnation = AtomicU32::new(1);
        let stack = Stack { servers, proxy, directory, incarnation, _janitor: janitor };
        stack.servers.make_store(&stack.store_name()).await?;
        Ok((stack, observed))
    }

    /// Whether this build has such a target.
    ///
    /// # Errors
    /// [`RunError::Feature`] where it has not.
    pub(super) fn available(target: Target) -> Result<(), RunError> {
        match target {
            Target::Containers(_) if cfg!(not(feature = "containers")) => {
                Err(RunError::Feature { target: "containers", feature: "containers" })
            }
            Target::Embedded | Target::Containers(_) => Ok(()),
        }
    }

    /// Whether `target` can do such a fault.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn supports(target: Target, fault: &FaultKind) -> Result<(), &'static str> {
        match fault {
            // Embedded servers are part of this process.
            FaultKind::Server(fault) if fault.needs_containers() && target == Target::Embedded => {
                Err("its servers are part of the harness; --on containers can")
            }
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
            FaultKind::Server(_) | FaultKind::ThrottledStore { .. } | FaultKind::SlowStore { .. } => Ok(()),
        }
    }

    /// Connects to the broker directly, as the fleet does.
    pub(super) fn dialer(&self) -> anyhow::Result<Dialer> {
        Ok(Dialer::new(self.servers.mqtt(), &Default::default())?.at_most(CONNECTS_AT_A_TIME))
    }

    /// The link between bridges and registries and a server.
    ///
    /// # Errors
    /// If the harness is not on it, which [`Stack::supports`] has refused.
    pub(super) fn link(&self, to: Server) -> anyhow::Result<&Proxy> {
        match (to, &self.servers) {
            (Server::Broker, _) => Ok(&self.proxy),
            (Server::Kafka | Server::Store, Servers::Embedded(_)) => {
                anyhow::bail!("nothing is before embedded servers")
            }
            #[cfg(feature = "containers")]
            (Server::Kafka | Server::Store, Servers::Containers(containers)) => Ok(containers.link(to)),
        }
    }

    /// What breaks a server, or ends what broke it: to be awaited, here or in a task of its own.
    ///
    /// # Errors
    /// If it is not in a container of its own, which [`Stack::supports`] has refused.
    pub(super) fn order(&self, server: Server, order: ServerOrder) -> anyhow::Result<Ordered> {
        match &self.servers {
            Servers::Embedded(_) => anyhow::bail!("{order:?} to an embedded {server:?}, which is part of this process"),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => Ok(Box::pin(containers.order(server, order))),
        }
    }

    /// Where the run keeps its files.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where clients of MQTT connect.
    pub(super) fn mqtt_address(&self) -> String {
        self.servers.mqtt().to_string()
    }

    /// How the harness reaches Kafka, whatever is done to the link of the pipeline.
    pub(super) fn kafka(&self) -> config::Kafka {
        config::Kafka::at(self.servers.bootstrap())
    }

    /// The store, for the harness likewise.
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
            ..bridge::Config::between(mqtt, self.consuming(scenario))
        }
    }

    /// How bridges and registries, which are members of a consumer group, reach Kafka.
    fn consuming(&self, scenario: &Scenario) -> config::Kafka {
        let session_timeout = scenario.pipeline.session_timeout;
        let max_poll_interval = LEAST_POLL_INTERVAL.max(session_timeout);
        config::Kafka { session_timeout, max_poll_interval, ..config::Kafka::at(self.servers.pipelines_bootstrap()) }
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
            store: registry::StoreConfig {
                url: self.servers.pipelines_store_url(&consumer_store(index)),
                ..registry.store
            },
            ..registry
        }
    }

    fn registry(&self, scenario: &Scenario, repair: bool) -> registry::Config {
        let pipeline = &scenario.pipeline;
        let defaults = registry::Config::reading(self.consuming(scenario));
        let group = match self.incarnation() {
            1 => defaults.group,
            number => format!("{}-rebuilt-{number}", defaults.group),
        };
        registry::Config {
            group,
            snapshot_period: scenario.fleet.snapshot_every,
            store: registry::StoreConfig {
                url: self.servers.pipelines_store_url(&self.store_name()),
                ..Default::default()
            },
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
    async fn start(target: Target, scenario: &Scenario, directory: &Path) -> anyhow::Result<Servers> {
        let topics = topics(scenario);
        match target {
            Target::Embedded => Ok(Servers::Embedded(Box::new(Embedded::start(&topics, directory).await?))),
            #[cfg(feature = "containers")]
            Target::Containers(product) => {
                let disk = containers::BrokersDisk::for_faults(scenario);
                Ok(Servers::Containers(Box::new(Containers::start(product, &topics, disk, directory).await?)))
            }
            #[cfg(not(feature = "containers"))]
            Target::Containers(_) => unreachable!("refused before, by Stack::available"),
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

    /// `bootstrap.servers` of bridges and registries, on a link that can be broken.
    fn pipelines_bootstrap(&self) -> String {
        match self {
            Servers::Embedded(embedded) => embedded.bootstrap(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.pipelines_bootstrap(),
        }
    }

    /// The store of registries, likewise.
    fn pipelines_store_url(&self, name: &str) -> String {
        match self {
            Servers::Embedded(embedded) => embedded.store_url(name),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.pipelines_store_url(name),
        }
    }

    /// Makes an empty store; a file is made by who writes it first.
    #[cfg_attr(not(feature = "containers"), expect(unused_variables, reason = "only a database has to be made"))]
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
fn janitor(binary: &Path, directory: &Path, target: Target) -> anyhow::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(binary);
    // A group of its own, and not killed on drop: it has to outlive a parent that ends by Ctrl-C or SIGKILL.
    command.arg("janitor").arg(directory).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
    match target {
        Target::Embedded => {}
        Target::Containers(_) => {
            command.arg("--containers");
        }
    }
    command.spawn().with_context(|| format!("starting the janitor, {} janitor", binary.display()))
}
