//! What a run drives and breaks: MQTT broker, Kafka and a store, and how bridge and registry are set to reach them.
//!
//! The servers are embedded in this process, run in containers, or are somebody's own. Around each the harness has the same: a proxy between
//! broker and its own bridges, a temporary directory, and a janitor, a child process that outlives this one and removes what is
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
    access::Access,
    allowed,
    child::ChildConfig,
    clean,
    deployed::Deployed,
    doctor,
    embedded::Embedded,
    process::all_processes,
    proxy::{Observed, Proxy},
};
use crate::{
    check::Observable,
    fleet::plan::Plan,
    history::Process,
    run::Target,
    scenario::{FaultKind, Part, ReadFrom, Scenario},
    target::{Observe, Topics},
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
    /// Where bridges are the harness's own, and speak to the broker without TLS.
    proxy: Option<Proxy>,
    directory: TempDir,
    /// How often store and group have been new.
    incarnation: AtomicU32,
    /// Ends when this value is dropped, and cleans up after it; none where there is no binary to run it.
    _janitor: Option<tokio::process::Child>,
}

enum Servers {
    Embedded(Box<Embedded>),
    Deployed(Box<Deployed>),
    #[cfg(feature = "containers")]
    Containers(Box<Containers>),
}

impl Stack {
    /// Starts servers and proxy. Bridge and registry are not started yet.
    pub(super) async fn start(
        target: &Target,
        scenario: &Scenario,
        binary: Option<&Path>,
    ) -> anyhow::Result<(Stack, mpsc::Receiver<Observed>)> {
        let directory =
            tempfile::Builder::new().prefix("fleetproof-").tempdir().context("making a temporary directory")?;
        let janitor = binary.map(|binary| janitor(binary, directory.path())).transpose()?;
        let servers = Servers::start(target, &topics(scenario), directory.path()).await?;
        let (seen, observed) = mpsc::channel(OBSERVATIONS);
        let proxy = match shows(target).wire {
            true => Some(Proxy::start(&servers.mqtt(), seen).await.context("starting the proxy before the bridges")?),
            false => None,
        };
        let incarnation = AtomicU32::new(1);
        let stack = Stack { servers, proxy, directory, incarnation, _janitor: janitor };
        stack.servers.make_store(&stack.store_name()).await?;
        Ok((stack, observed))
    }

    /// Whether such a fault can be done on a target; `within` tells that bridge and registry are tasks of this process.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn supports(target: &Target, within: bool, fault: &FaultKind) -> Result<(), String> {
        if let Target::Deployed(deployment) = target {
            allowed::can(deployment, fault)?;
        }
        if within && allowed::needs_a_process(target, fault) {
            return Err("bridge and registry are part of this process: give the binary's path".to_owned());
        }
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

    /// How the fleet is let in by the broker, to which it connects directly.
    pub(super) fn access(&self, plan: &Plan) -> anyhow::Result<Access> {
        match &self.servers {
            Servers::Deployed(deployed) => Access::of_deployment(&deployed.deployment, plan, CONNECTS_AT_A_TIME),
            _ => {
                let dialer = Dialer::new(self.servers.mqtt(), &Default::default())?;
                Ok(Access::open(dialer.at_most(CONNECTS_AT_A_TIME)))
            }
        }
    }

    /// The link between broker and bridges.
    ///
    /// # Errors
    /// If the harness is not on it, which rules its faults out.
    pub(super) fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy.as_ref().context("the harness is not on the wire between broker and bridges")
    }

    /// The processes that the harness starts.
    pub(super) fn processes(&self, scenario: &Scenario) -> Vec<Process> {
        let mut processes = all_processes(scenario);
        processes.retain(|process| self.brings(process.part));
        processes
    }

    /// Whether processes of a part are the harness's own.
    pub(super) fn brings(&self, part: Part) -> bool {
        match (&self.servers, part) {
            (Servers::Deployed(deployed), Part::Bridge) => deployed.deployment.bring.bridge,
            (Servers::Deployed(deployed), Part::Registry | Part::Consumer) => deployed.deployment.bring.registry,
            (_, Part::Bridge | Part::Registry | Part::Consumer) => true,
        }
    }

    /// Whether servers that are somebody's are as a run needs them; its own have said so themselves.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub(super) async fn is_there(&self) -> anyhow::Result<()> {
        match &self.servers {
            Servers::Deployed(deployed) => doctor::essentials(deployed).await,
            _ => Ok(()),
        }
    }

    /// Leaves nothing that grows: the sessions of bridges that were brought.
    pub(super) async fn leave(&self) -> anyhow::Result<()> {
        match &self.servers {
            Servers::Deployed(deployed) if deployed.deployment.bring.bridge => clean::drop_sessions(deployed).await,
            _ => Ok(()),
        }
    }

    /// Whether what is there before the run is somebody else's.
    pub(super) fn is_deployed(&self) -> bool {
        matches!(self.servers, Servers::Deployed(_))
    }

    /// What the configurations of children leave out, as their environment.
    pub(super) fn secrets(&self) -> Vec<(&'static str, config::Secret)> {
        match &self.servers {
            Servers::Deployed(deployed) => deployed.secrets(),
            _ => Vec::new(),
        }
    }

    /// The topics to look at.
    pub(super) fn topics(&self) -> Topics {
        match &self.servers {
            Servers::Deployed(deployed) => deployed.deployment.kafka.topics.clone(),
            _ => Topics::default(),
        }
    }

    /// What of them is there.
    pub(super) fn observe(&self) -> Observe {
        match &self.servers {
            Servers::Deployed(deployed) => deployed.deployment.observe,
            _ => Observe { dead_letters: true, commands: true },
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

    /// How clients reach Kafka.
    pub(super) fn kafka(&self) -> config::Kafka {
        self.servers.kafka()
    }

    /// The store, with what lets its user in.
    pub(super) fn store(&self) -> registry::StoreConfig {
        self.servers.store(&self.store_name())
    }

    /// The view that is read in place of the reference's.
    pub(super) fn view(&self) -> Option<&str> {
        match &self.servers {
            Servers::Deployed(deployed) => deployed.deployment.store.view.as_deref(),
            _ => None,
        }
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
    pub(super) fn consumer_store(&self, index: u8) -> registry::StoreConfig {
        self.servers.store(&consumer_store(index))
    }

    /// The consumer group of the registries.
    pub(super) fn group(&self, scenario: &Scenario) -> String {
        self.registry(scenario, false).group
    }

    fn bridge(&self, index: u8, scenario: &Scenario) -> bridge::Config {
        let pipeline = &scenario.pipeline;
        let proxy = self.proxy.as_ref().map(Proxy::endpoint);
        let mqtt = match &self.servers {
            Servers::Deployed(deployed) => deployed.bridge_mqtt(proxy),
            _ => config::Mqtt::at(address(proxy.unwrap_or(&self.servers.mqtt()))),
        };
        let serve = (0..pipeline.shard_groups).filter(|group| group % pipeline.bridges == index).collect();
        bridge::Config {
            id: format!("bridge-{index}"),
            window: pipeline.bridge_window as usize,
            shards: bridge::Shards { groups: pipeline.shard_groups, serve: Some(serve), ..self.client_ids() },
            ..bridge::Config::between(mqtt, self.consuming(scenario))
        }
    }

    /// How members of a consumer group reach Kafka.
    fn consuming(&self, scenario: &Scenario) -> config::Kafka {
        let session_timeout = scenario.pipeline.session_timeout;
        let max_poll_interval = LEAST_POLL_INTERVAL.max(session_timeout);
        config::Kafka { session_timeout, max_poll_interval, ..self.kafka() }
    }

    /// On a broker that is somebody's the ids of this run alone, lest a bridge of his loses its sessions to ours.
    fn client_ids(&self) -> bridge::Shards {
        let Servers::Deployed(deployed) = &self.servers else { return bridge::Shards::default() };
        bridge::Shards { client_prefix: deployed.bridge_prefix(), ..Default::default() }
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
            store: self.consumer_store(index),
            ..registry
        }
    }

    fn registry(&self, scenario: &Scenario, repair: bool) -> registry::Config {
        let pipeline = &scenario.pipeline;
        let defaults = registry::Config::reading(self.consuming(scenario));
        let group = match (&self.servers, self.incarnation()) {
            (Servers::Deployed(deployed), _) => deployed.deployment.kafka.group.clone(),
            (_, 1) => defaults.group,
            (_, number) => format!("{}-rebuilt-{number}", defaults.group),
        };
        // What was there before the run is nobody's here.
        let start = if self.is_deployed() { config::Start::Latest } else { defaults.start };
        registry::Config {
            group,
            start,
            snapshot_period: scenario.fleet.snapshot_every,
            store: self.store(),
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

/// What can be seen on a target.
pub(super) fn shows(target: &Target) -> Observable {
    match target {
        Target::Embedded | Target::Containers(_) => Observable::EVERYTHING,
        Target::Deployed(deployment) => allowed::shows(deployment),
    }
}

fn address(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, endpoint.port)
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
    async fn start(target: &Target, topics: &[Topic], directory: &Path) -> anyhow::Result<Servers> {
        match target {
            Target::Embedded => Ok(Servers::Embedded(Box::new(Embedded::start(topics, directory).await?))),
            Target::Deployed(deployment) => Ok(Servers::Deployed(Box::new(Deployed::new((**deployment).clone())?))),
            #[cfg(feature = "containers")]
            Target::Containers(product) => {
                Ok(Servers::Containers(Box::new(Containers::start(*product, topics, directory).await?)))
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
            Servers::Deployed(deployed) => deployed.mqtt(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.mqtt(),
        }
    }

    fn kafka(&self) -> config::Kafka {
        match self {
            Servers::Embedded(embedded) => config::Kafka::at(embedded.bootstrap()),
            Servers::Deployed(deployed) => deployed.kafka(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => config::Kafka::at(containers.bootstrap()),
        }
    }

    fn store(&self, name: &str) -> registry::StoreConfig {
        let at = |url| registry::StoreConfig { url, ..Default::default() };
        match self {
            Servers::Embedded(embedded) => at(embedded.store_url(name)),
            Servers::Deployed(deployed) => deployed.store(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => at(containers.store_url(name)),
        }
    }

    /// Makes an empty store; a file is made by who writes it first.
    async fn make_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(_) => Ok(()),
            // It is there, and stays.
            Servers::Deployed(_) => Ok(()),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.make_store(name).await,
        }
    }

    async fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(embedded) => embedded.remove_store(name),
            Servers::Deployed(_) => anyhow::bail!("a store that is somebody's is never removed"),
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
