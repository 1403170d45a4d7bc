//! What a run drives and breaks: MQTT broker, Kafka and a store, and how bridge and registry are set to reach them.
//!
//! The servers are embedded in this process, run in containers, or are somebody's own. Around each the harness has the
//! same: a proxy between broker and its own bridges, a temporary directory, and a janitor, a child process that outlives
//! this one and removes what is left, however this one ended.

mod children;
mod servers;

use std::{
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context;
use dmp_service::{config, mqtt::Dialer, registry};
use tempfile::TempDir;
use tokio::sync::mpsc;

use self::servers::Servers;
use super::{
    access::Access,
    allowed, clean, doctor,
    hooks::Hooked,
    process::all_processes,
    proxy::{Observed, Proxy},
};
use crate::{
    check::Observable,
    fleet::plan::Plan,
    history::Process,
    run::{RunError, Target},
    scenario::{FaultKind, Part, Scenario, Server},
    target::{Observe, Topics},
};

pub(super) use children::Settings;
pub(super) use servers::Topic;

/// Connection attempts of the fleet at a time: the embedded broker's listen backlog of 128 takes no more than about 80.
const CONNECTS_AT_A_TIME: usize = 80;

/// Observations between the proxy and the history; when it is full, the link waits.
const OBSERVATIONS: usize = 4_096;

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

impl Stack {
    /// Starts servers and proxy. Bridge and registry are not started yet.
    pub(super) async fn start(
        target: &Target,
        scenario: &Scenario,
        binary: Option<&Path>,
    ) -> anyhow::Result<(Stack, mpsc::Receiver<Observed>)> {
        let directory =
            tempfile::Builder::new().prefix("fleetproof-").tempdir().context("making a temporary directory")?;
        let janitor = binary.map(|binary| janitor(binary, directory.path(), target)).transpose()?;
        let servers = Servers::start(target, scenario, directory.path()).await?;
        let (seen, observed) = mpsc::channel(OBSERVATIONS);
        let proxy = match shows(target).wire {
            true => {
                let started = Proxy::start(&servers.bridges_mqtt(), seen).await;
                Some(started.context("starting the proxy before the bridges")?)
            }
            false => None,
        };
        let incarnation = AtomicU32::new(1);
        let stack = Stack { servers, proxy, directory, incarnation, _janitor: janitor };
        stack.servers.make_store(&stack.store_name()).await?;
        if scenario.pipeline.baseline {
            stack.servers.make_store(children::BASELINE).await?;
        }
        Ok((stack, observed))
    }

    /// Whether this build has such a target.
    ///
    /// # Errors
    /// [`RunError::Feature`] where it has not.
    pub(super) fn available(target: &Target) -> Result<(), RunError> {
        match target {
            Target::Containers(_) if cfg!(not(feature = "containers")) => {
                Err(RunError::Feature { target: "containers", feature: "containers" })
            }
            Target::Embedded | Target::Containers(_) | Target::Deployed(_) => Ok(()),
        }
    }

    /// Whether such a fault can be done on a target; `within` tells that bridge and registry are tasks of this process.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn supports(target: &Target, within: bool, fault: &FaultKind) -> Result<(), String> {
        match (target, fault) {
            (Target::Deployed(deployment), _) => allowed::can(deployment, fault)?,
            // Embedded servers are part of this process.
            (Target::Embedded, FaultKind::Server(fault)) if fault.needs_containers() => {
                return Err("its servers are part of the harness; --on containers can".to_owned());
            }
            // The fleet, the children of this process, and what is before servers and store are the harness's own.
            (Target::Embedded | Target::Containers(_), _) => {}
        }
        match within && allowed::needs_a_process(target, fault) {
            true => Err("bridge and registry are part of this process: give the binary's path".to_owned()),
            false => Ok(()),
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

    /// The link between bridges and registries and a server.
    ///
    /// # Errors
    /// If the harness is not on it, which [`Stack::supports`] has refused.
    pub(super) fn link(&self, to: Server) -> anyhow::Result<&Proxy> {
        match (to, &self.servers) {
            (Server::Broker, _) => self.proxy.as_ref().context("the harness is not on the wire to the broker"),
            (Server::Kafka | Server::Store, Servers::Embedded(_)) => {
                anyhow::bail!("nothing is before embedded servers")
            }
            (Server::Kafka | Server::Store, Servers::Deployed(_)) => {
                anyhow::bail!("nothing is before servers that are somebody's")
            }
            #[cfg(feature = "containers")]
            (Server::Kafka | Server::Store, Servers::Containers(containers)) => {
                containers.link(to).context("there is a link only where the scenario has a fault for it")
            }
        }
    }

    /// What breaks a server, or ends what broke it: to be awaited, here or in a task of its own.
    ///
    /// # Errors
    /// If it is not in a container of its own, which [`Stack::supports`] has refused.
    pub(super) fn order(&self, server: Server, order: ServerOrder) -> anyhow::Result<Ordered> {
        match &self.servers {
            Servers::Embedded(_) => anyhow::bail!("{order:?} to an embedded {server:?}, which is part of this process"),
            Servers::Deployed(_) => anyhow::bail!("{order:?} to a {server:?} that is somebody's"),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => Ok(Box::pin(containers.order(server, order))),
        }
    }

    /// The hooks with which a fault is done here; `None`: the harness does it itself.
    pub(super) fn by_hooks(&self, fault: &FaultKind) -> Option<Hooked> {
        match &self.servers {
            Servers::Deployed(deployed) => Hooked::of(&deployed.deployment, fault),
            _ => None,
        }
    }

    /// The processes that the harness starts.
    pub(super) fn processes(&self, scenario: &Scenario) -> Vec<Process> {
        let mut processes = all_processes(scenario);
        processes.retain(|process| self.brings(process.part));
        processes
    }

    /// Whether processes of a part are the harness's own.
    fn brings(&self, part: Part) -> bool {
        match &self.servers {
            Servers::Deployed(deployed) => deployed.deployment.bring.has(part),
            _ => true,
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

    /// How the harness reaches Kafka, whatever is done to the link of the pipeline.
    pub(super) fn kafka(&self) -> config::Kafka {
        self.servers.kafka()
    }

    /// The store, with what lets its user in, for the harness likewise.
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
}

/// What can be seen on a target.
pub(super) fn shows(target: &Target) -> Observable {
    match target {
        Target::Embedded | Target::Containers(_) => Observable::EVERYTHING,
        Target::Deployed(deployment) => allowed::shows(deployment),
    }
}

/// Starts the janitor of `directory`; it waits for its standard input to end.
fn janitor(binary: &Path, directory: &Path, target: &Target) -> anyhow::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(binary);
    // A group of its own, and not killed on drop: it has to outlive a parent that ends by Ctrl-C or SIGKILL.
    command.arg("janitor").arg(directory).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
    match target {
        Target::Embedded | Target::Deployed(_) => {}
        Target::Containers(_) => {
            command.arg("--containers");
        }
    }
    command.spawn().with_context(|| format!("starting the janitor, {} janitor", binary.display()))
}
