//! Mosquitto, Kafka and a database in containers, each for one run: started with ports on loopback, and removed at the end.
//!
//! All carry the label [`LABEL`] with the run's directory as its value. Dropping the value removes them; where this
//! process was killed, its janitor does, which finds the label in [`LABEL_FILE`].

mod alone;
mod docker;
mod images;
mod kafka;
mod mosquitto;
mod store;

use std::path::Path;

use anyhow::Context;
use dmp_service::mqtt::Endpoint;
use testcontainers::{ContainerAsync, GenericImage};

use self::store::Database;
use super::stack::Topic;
use crate::run::StoreProduct;

pub use alone::{Alone, NotAlone, Product};
pub(super) use docker::remove_all;

/// Label of every container of a run.
const LABEL: &str = "fleetproof.run";

/// File in the run's directory that holds the label's value.
const LABEL_FILE: &str = "containers";

/// Servers in containers, and where they are.
pub(super) struct Containers {
    mqtt: Endpoint,
    bootstrap: String,
    database: Database,
    /// Removed when they are dropped.
    _running: [ContainerAsync<GenericImage>; 3],
}

impl Containers {
    /// Starts all three beside each other, and waits until each answers by its own protocol.
    ///
    /// # Errors
    /// [`docker::DockerError`] where Docker or an image is missing; else what a server said that did not start.
    pub(super) async fn start(product: StoreProduct, topics: &[Topic], directory: &Path) -> anyhow::Result<Containers> {
        let label = directory.file_name().and_then(|name| name.to_str()).context("the run's directory has a name")?;
        // Before the first container: whatever happens from here on, the janitor finds them.
        std::fs::write(directory.join(LABEL_FILE), label).context("leaving word for the janitor")?;
        let docker = docker::Docker::connect(label).await?;
        let (mqtt, kafka, database) =
            tokio::try_join!(mosquitto::start(&docker), kafka::start(&docker, topics), store::start(&docker, product))?;
        Ok(Containers {
            mqtt: mqtt.endpoint,
            bootstrap: kafka.bootstrap,
            database: database.database,
            _running: [mqtt.container, kafka.container, database.container],
        })
    }

    pub(super) fn mqtt(&self) -> Endpoint {
        self.mqtt.clone()
    }

    /// Kafka's `bootstrap.servers`.
    pub(super) fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    pub(super) fn store_url(&self, name: &str) -> String {
        self.database.url(name)
    }

    /// Makes an empty database.
    pub(super) async fn make_store(&self, name: &str) -> anyhow::Result<()> {
        self.database.make(name).await
    }

    /// Removes a database, whoever is connected to it.
    pub(super) async fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        self.database.remove(name).await
    }
}
