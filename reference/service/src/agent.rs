//! The agent program: one real RAE around one [`dmp_core::agent`] core.

use std::future::Future;

use crate::program::Running;

mod config;

pub use config::{Config, Devices, Intervals, Limits};

/// Starts an agent.
///
/// # Errors
/// If its records cannot be opened, or an endpoint cannot be bound.
pub async fn start(_config: Config) -> anyhow::Result<Running> {
    anyhow::bail!("the agent program is not wired up yet")
}

/// Runs an agent until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let running = start(config).await?;
    println!("dmp-agent http=http://{}", running.http());
    running.until(shutdown).await
}
