//! The embedded servers: brokers inside this process and stores in a directory, so that a run needs nothing installed.
//!
//! Everything is on loopback, on ports that the system chooses, and gone when the value is dropped.

pub mod kafka;
pub mod mqtt;

use std::path::{Path, PathBuf};

use anyhow::Context;
use dmp_service::mqtt::Endpoint;

use super::stack::Topic;

/// The brokers, and where the stores are.
pub(super) struct Embedded {
    mqtt: mqtt::Broker,
    kafka: kafka::Broker,
    directory: PathBuf,
}

impl Embedded {
    /// Starts the brokers; files go below `directory`.
    pub(super) async fn start(topics: &[Topic], directory: &Path) -> anyhow::Result<Embedded> {
        let log = directory.join("kafka");
        std::fs::create_dir(&log).with_context(|| format!("making {}", log.display()))?;
        let topics = topics.iter().map(|&(name, partitions)| (name.to_owned(), partitions)).collect();
        let kafka = kafka::Broker::start(kafka::Config { topics, ..kafka::Config::new(log) })?;
        let mqtt = mqtt::Broker::start().await?;
        Ok(Embedded { mqtt, kafka, directory: directory.to_owned() })
    }

    pub(super) fn mqtt(&self) -> Endpoint {
        self.mqtt.endpoint().clone()
    }

    /// Kafka's `bootstrap.servers`.
    pub(super) fn bootstrap(&self) -> String {
        self.kafka.bootstrap()
    }

    pub(super) fn store_url(&self, name: &str) -> String {
        format!("sqlite:{}", self.file(name, "").display())
    }

    /// Makes room for an empty store: its file is made by who writes it first.
    ///
    /// # Errors
    /// If a store of this name is there.
    pub(super) fn make_store(&self, name: &str) -> anyhow::Result<()> {
        let file = self.file(name, "");
        anyhow::ensure!(!file.exists(), "{} is there already", file.display());
        Ok(())
    }

    /// Removes the files of a store.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub(super) fn remove_store(&self, name: &str) -> anyhow::Result<()> {
        for ending in ["", "-wal", "-shm"] {
            let file = self.file(name, ending);
            match std::fs::remove_file(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("removing {}", file.display())),
            }
        }
        Ok(())
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{name}.db{ending}"))
    }
}
