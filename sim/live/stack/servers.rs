//! The three kinds of servers, behind which nothing else of a run differs: embedded in this process, in containers, or
//! somebody's own.

use std::path::Path;

use dmp_core::event::kafka_topic;
use dmp_service::{config, mqtt::Endpoint, registry};

#[cfg(feature = "containers")]
use crate::live::containers::Containers;
use crate::{
    live::{deployed::Deployed, embedded::Embedded},
    run::Target,
    scenario::Scenario,
};

/// A topic and its number of partitions.
pub(in crate::live) type Topic = (&'static str, u32);

/// Where MQTT broker, Kafka and store are.
pub(super) enum Servers {
    Embedded(Box<Embedded>),
    Deployed(Box<Deployed>),
    #[cfg(feature = "containers")]
    Containers(Box<Containers>),
}

impl Servers {
    pub(super) async fn start(target: &Target, scenario: &Scenario, directory: &Path) -> anyhow::Result<Servers> {
        let topics = topics(scenario);
        match target {
            Target::Embedded => Ok(Servers::Embedded(Box::new(Embedded::start(&topics, directory).await?))),
            Target::Deployed(deployment) => Ok(Servers::Deployed(Box::new(Deployed::new((**deployment).clone())?))),
            #[cfg(feature = "containers")]
            Target::Containers(product) => {
                Ok(Servers::Containers(Box::new(Containers::start(*product, &topics, scenario, directory).await?)))
            }
            #[cfg(not(feature = "containers"))]
            Target::Containers(_) => unreachable!("refused before, by Stack::available"),
        }
    }

    pub(super) fn mqtt(&self) -> Endpoint {
        match self {
            Servers::Embedded(embedded) => embedded.mqtt(),
            Servers::Deployed(deployed) => deployed.mqtt(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.mqtt(),
        }
    }

    /// Where bridges come in.
    pub(super) fn bridges_mqtt(&self) -> Endpoint {
        match self {
            Servers::Embedded(_) => self.mqtt(),
            Servers::Deployed(deployed) => deployed.bridges_mqtt(),
            #[cfg(feature = "containers")]
            Servers::Containers(_) => self.mqtt(),
        }
    }

    pub(super) fn kafka(&self) -> config::Kafka {
        match self {
            Servers::Embedded(embedded) => config::Kafka::at(embedded.bootstrap()),
            Servers::Deployed(deployed) => deployed.kafka(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => config::Kafka::at(containers.bootstrap()),
        }
    }

    pub(super) fn store(&self, name: &str) -> registry::StoreConfig {
        match self {
            Servers::Embedded(embedded) => at(embedded.store_url(name)),
            Servers::Deployed(deployed) => deployed.store(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => at(containers.store_url(name)),
        }
    }

    /// How bridges and registries reach Kafka, on a link that can be broken where there is one.
    pub(super) fn pipelines_kafka(&self) -> config::Kafka {
        match self {
            Servers::Embedded(_) | Servers::Deployed(_) => self.kafka(),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => config::Kafka::at(containers.pipelines_bootstrap()),
        }
    }

    /// The store of registries, likewise.
    pub(super) fn pipelines_store(&self, name: &str) -> registry::StoreConfig {
        match self {
            Servers::Embedded(_) | Servers::Deployed(_) => self.store(name),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => at(containers.pipelines_store_url(name)),
        }
    }

    /// Makes an empty store.
    pub(super) async fn make_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(embedded) => embedded.make_store(name),
            // It is there, and stays.
            Servers::Deployed(_) => Ok(()),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.make_store(name).await,
        }
    }

    pub(super) async fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Servers::Embedded(embedded) => embedded.remove_store(name),
            Servers::Deployed(_) => anyhow::bail!("a store that is somebody's is never removed"),
            #[cfg(feature = "containers")]
            Servers::Containers(containers) => containers.remove_store(name).await,
        }
    }
}

fn at(url: String) -> registry::StoreConfig {
    registry::StoreConfig { url, ..Default::default() }
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
