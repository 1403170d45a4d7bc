//! Mosquitto.

use anyhow::{Context, bail};
use dmp_core::core::ConnectionId;
use dmp_service::{
    config,
    mqtt::{Client, Dialer, Endpoint, Incoming},
};
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, core::Mount};

use super::{
    docker::{Docker, Port},
    images::MOSQUITTO,
    machine::{Asked, Machine},
};
use crate::scenario::{FaultKind, Scenario, ServerFault};

/// Where it keeps what it saves.
const DATA: &str = "/mosquitto/data";

/// What takes the room there.
pub(super) const FILL: &str = "/mosquitto/data/fill";

/// Its configuration, and its access lists where it has some.
const CONFIG_FILE: &str = "/mosquitto/config/mosquitto.conf";
const ACCESS_FILE: &str = "/mosquitto/config/access";

/// Queues without a bound: by default a broker drops what a slow subscriber has not taken, at QoS 1 too
/// (mosquitto.conf(5), `max_queued_messages`).
const CONFIG: &str = "\
listener 1883
allow_anonymous true
persistence true
persistence_location /mosquitto/data/
log_dest stderr
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 1000
max_packet_size 2097152
set_tcp_nodelay true
";

/// Where the disk is to be full, the broker writes to it all the time: by default it saves twice an hour.
const SAVES_EVERY_SECOND: &str = "autosave_interval 1\n";

/// A disk that is filled in no time.
const SMALL_BYTES: i64 = 16 << 20;

/// What the broker saves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokersDisk {
    /// Its container's, which a restart leaves as it was.
    Large,
    /// One of 16 MiB in memory, which is gone when the container ends.
    Small,
}

impl BrokersDisk {
    /// The disk that a scenario needs.
    pub(super) fn for_faults(scenario: &Scenario) -> BrokersDisk {
        let fills = |kind: &FaultKind| matches!(kind, FaultKind::Server(ServerFault::FullDisk { .. }));
        match scenario.faults.iter().any(|fault| fills(&fault.kind)) {
            true => BrokersDisk::Small,
            false => BrokersDisk::Large,
        }
    }
}

pub(super) struct Mosquitto {
    pub(super) endpoint: Endpoint,
    pub(super) machine: Machine,
    /// Removed when it is dropped.
    pub(super) container: ContainerAsync<GenericImage>,
}

impl Mosquitto {
    pub(super) async fn start(docker: &Docker, disk: BrokersDisk) -> anyhow::Result<Mosquitto> {
        match disk {
            BrokersDisk::Large => serve(docker, CONFIG.to_owned(), |request| request).await,
            BrokersDisk::Small => {
                let mount = Mount::tmpfs_mount(DATA).with_size_bytes(SMALL_BYTES);
                serve(docker, format!("{CONFIG}{SAVES_EVERY_SECOND}"), |request| request.with_mount(mount)).await
            }
        }
    }

    /// One with access lists.
    pub(super) async fn with_access(docker: &Docker, access: String) -> anyhow::Result<Mosquitto> {
        let config = format!("{CONFIG}acl_file {ACCESS_FILE}\n");
        serve(docker, config, |request| request.with_copy_to(ACCESS_FILE, access.into_bytes())).await
    }
}

/// Starts it, and waits until it answers; `settled` adds what it needs beside its configuration.
async fn serve(
    docker: &Docker,
    config: String,
    settled: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage>,
) -> anyhow::Result<Mosquitto> {
    let port = Port::free(1883).context("looking for a free port for Mosquitto")?;
    let container = docker
        .start(&MOSQUITTO, &[port], |image| settled(image.with_copy_to(CONFIG_FILE, config.into_bytes())))
        .await?;
    let endpoint = port.endpoint();
    let (docker, server) = (docker.clone(), Asked::Mosquitto(endpoint.clone()));
    let machine = Machine { docker, container: container.id().to_owned(), server };
    machine.answers().await?;
    Ok(Mosquitto { endpoint, machine, container })
}

/// Whether it lets a client in.
pub(super) async fn ask(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = Client::new(Dialer::new(endpoint.clone(), &Default::default())?.into());
    client.connect(ConnectionId(1), config::Mqtt::at("").options("fleetproof-is-it-there", true));
    match client.next().await.1 {
        Incoming::Connected { .. } => Ok(()),
        other => bail!("it said {other:?}"),
    }
}
