//! The bridge program: MQTT in, Kafka out, one [`dmp_core::bridge`] core per shard group.

use std::future::Future;

use crate::program::Running;

mod config;

pub use config::{Config, Shards};

/// Starts a bridge; ready when it returns: Kafka and its topics are there, MQTT is being connected to.
///
/// # Errors
/// If Kafka or its topics are not there within `start_within`, or the health endpoint cannot be bound.
pub async fn start(_config: Config) -> anyhow::Result<Running> {
    anyhow::bail!("the bridge program is not wired up yet")
}

/// Runs a bridge until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let running = start(config).await?;
    println!("dmp-bridge http=http://{}", running.http());
    running.until(shutdown).await
}
