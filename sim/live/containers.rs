//! Mosquitto, Kafka and a database in containers, each for one run: started with ports on loopback, and removed at the end.
//!
//! All carry the label [`LABEL`] with the name of the run's directory as its value. Dropping the value removes them; where this
//! process was killed, or gave up while it started them, its janitor does. Bridges and registries reach Kafka and
//! the database through a link that can be broken, the harness does not.

mod alone;
mod docker;
mod images;
mod kafka;
mod machine;
mod mosquitto;
mod store;

use std::path::Path;

use dmp_service::mqtt::Endpoint;

use self::{kafka::Kafka, mosquitto::Mosquitto, store::DatabaseServer};
use super::{
    proxy::Proxy,
    stack::{ServerOrder, Topic},
};
use crate::{run::StoreProduct, scenario::Server};

pub use alone::{Alone, NotAlone, Product};
pub(super) use docker::remove_all;
pub(super) use mosquitto::BrokersDisk;

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
        disk: BrokersDisk,
        directory: &Path,
    ) -> anyhow::Result<Containers> {
        let docker = docker::Docker::connect(docker::label_of(directory)).await?;
        let (mqtt, kafka, store) = tokio::try_join!(
            Mosquitto::start(&docker, disk),
            Kafka::start(&docker, topics),
            DatabaseServer::start(&docker, product)
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

    /// The same on the pipeline's link.
    pub(super) fn pipelines_bootstrap(&self) -> String {
        self.kafka.link.endpoint().address()
    }

    pub(super) fn store_url(&self, name: &str) -> String {
        self.store.database.url(name)
    }

    /// The same on the pipeline's link.
    pub(super) fn pipelines_store_url(&self, name: &str) -> String {
        self.store.database.url_at(self.store.link.endpoint().port, name)
    }

    /// The pipeline's link to Kafka or the database.
    pub(super) fn link(&self, to: Server) -> &Proxy {
        match to {
            Server::Kafka => &self.kafka.link,
            Server::Store => &self.store.link,
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
