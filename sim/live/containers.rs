//! Mosquitto, Kafka and a database in containers, each for one run: started with ports on loopback, and removed at the end.
//!
//! All carry the label [`LABEL`] with the name of the run's directory as its value. Dropping the value removes them; where this
//! process was killed, or gave up while it started them, its janitor does. Bridges and registries reach Kafka and
//! the database through a link that can be broken where the scenario breaks it; the harness does not.

mod alone;
mod docker;
mod images;
mod kafka;
mod machine;
mod mosquitto;
mod store;

use std::path::Path;

use anyhow::Context;
use dmp_service::mqtt::Endpoint;

use self::{
    kafka::Kafka,
    mosquitto::{BrokersDisk, Mosquitto},
    store::DatabaseServer,
};
use super::{
    proxy::Proxy,
    stack::{ServerOrder, Topic},
};
use crate::{
    run::StoreProduct,
    scenario::{FaultKind, Scenario, Server},
};

pub use alone::{Alone, NotAlone, Product};
pub(super) use docker::remove_all;

/// Label of every container of a run.
const LABEL: &str = "fleetproof.run";

/// Servers in containers, and where they are.
pub(super) struct Containers {
    mqtt: Mosquitto,
    kafka: Kafka,
    store: DatabaseServer,
}

impl Containers {
    /// Starts all three beside each other, and waits until each answers by its own protocol.
    ///
    /// # Errors
    /// [`docker::DockerError`] where Docker or an image is missing; else what a server said that did not start.
    pub(super) async fn start(
        product: StoreProduct,
        topics: &[Topic],
        scenario: &Scenario,
        directory: &Path,
    ) -> anyhow::Result<Containers> {
        let docker = docker::Docker::connect(docker::label_of(directory)).await?;
        let (mqtt, kafka, store) = tokio::try_join!(
            Mosquitto::start(&docker, BrokersDisk::for_faults(scenario)),
            Kafka::start(&docker, topics, breaks_link_to(Server::Kafka, scenario)),
            DatabaseServer::start(&docker, product, breaks_link_to(Server::Store, scenario))
        )?;
        Ok(Containers { mqtt, kafka, store })
    }

    pub(super) fn mqtt(&self) -> Endpoint {
        self.mqtt.endpoint.clone()
    }

    /// Kafka's `bootstrap.servers`.
    pub(super) fn bootstrap(&self) -> String {
        self.kafka.bootstrap.clone()
    }

    /// The same on the pipeline's link, where there is one.
    pub(super) fn pipelines_bootstrap(&self) -> String {
        self.kafka.link.as_ref().map_or_else(|| self.bootstrap(), |link| link.endpoint().address())
    }

    pub(super) fn store_url(&self, name: &str) -> String {
        self.store.database.url(name)
    }

    /// The same on the pipeline's link, where there is one.
    pub(super) fn pipelines_store_url(&self, name: &str) -> String {
        let link = self.store.link.as_ref();
        link.map_or_else(|| self.store_url(name), |link| self.store.database.url_at(link.endpoint().port, name))
    }

    /// The pipeline's link to Kafka or the database; `None` where no fault of the scenario needs one.
    pub(super) fn link(&self, to: Server) -> Option<&Proxy> {
        match to {
            Server::Kafka => self.kafka.link.as_ref(),
            Server::Store => self.store.link.as_ref(),
            Server::Broker => unreachable!("the link to the broker is read, and belongs to the stack"),
        }
    }

    /// Makes an empty database.
    pub(super) async fn make_store(&self, name: &str) -> anyhow::Result<()> {
        self.store.database.make(name).await
    }

    /// Removes a database, whoever is connected to it.
    pub(super) async fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        self.store.database.remove(name).await
    }

    /// What breaks a server, or ends what broke it.
    pub(super) fn order(
        &self,
        server: Server,
        order: ServerOrder,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        let machine = match server {
            Server::Broker => &self.mqtt.machine,
            Server::Kafka => &self.kafka.machine,
            Server::Store => &self.store.machine,
        };
        let machine = machine.clone();
        async move { machine.carry_out(order).await }
    }
}

/// The pipeline's link to the server at `endpoint`, where it is to be broken: what copies every byte stands there only then.
async fn link(to_break: bool, endpoint: &Endpoint) -> anyhow::Result<Option<Proxy>> {
    if !to_break {
        return Ok(None);
    }
    let started = Proxy::unread(endpoint).await;
    started.map(Some).with_context(|| format!("starting the proxy before {}", endpoint.address()))
}

/// Whether a fault is to break the pipeline's link to `server`.
fn breaks_link_to(server: Server, scenario: &Scenario) -> bool {
    scenario.faults.iter().any(|fault| match &fault.kind {
        FaultKind::Server(kind) => kind.is_of_link() && kind.server() == server,
        _ => false,
    })
}
