//! The registry program: Kafka in, rows out, around one [`dmp_core::registry`] core.

use std::future::Future;

use crate::program::Running;

mod config;
mod faults;

pub use config::{Clean, Config, Pipeline, Store as StoreConfig};
pub use faults::Faults;

/// Starts a registry on an open store; ready when it returns: migrated, Kafka and its topics there, the group joining.
///
/// `faults` provokes failures of its stages from outside; `Faults::default()` provokes none.
///
/// # Errors
/// If Kafka, its topics or the store are not there within `start_within`, or the health endpoint cannot be bound.
pub async fn start<S>(_config: Config, _store: S, _faults: Faults) -> anyhow::Result<Running> {
    anyhow::bail!("the registry program is not wired up yet")
}

/// Runs a registry until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run<S>(
    config: Config,
    store: S,
    faults: Faults,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let running = start(config, store, faults).await?;
    println!("dmp-registry http=http://{}", running.http());
    running.until(shutdown).await
}
