//! Bridge and registry as child processes of this binary, so that they can be killed and paused; or within the process of
//! a program that is not this binary. And the janitor.
//!
//! A child is given its configuration as a file, says on its standard output where its metrics are and when a limit of
//! its store first acts, takes orders on its standard input, and ends when that does: its parent is gone then, however it
//! went.

use std::{io::Write, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use dmp_service::{bridge, config::Checked, program::Running, registry, store};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{
    baseline,
    faulty_store::{Brake, FaultyStore},
};
use crate::history::StoreLimit;

/// What a child is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChildConfig {
    /// A bridge.
    Bridge(bridge::Config),
    /// A registry.
    Registry(registry::Config),
    /// The baseline consumer: what not to do.
    Baseline(baseline::Config),
}

/// An order to a child, one JSON line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChildOrder {
    /// The store takes only so many rows per second.
    Throttle(Option<u32>),
    /// Each write takes so many microseconds longer.
    Delay(u64),
    /// The writer stage panics on each of its next so many writes.
    PanicWriter(u32),
    /// Drain and end.
    Stop,
}

/// Before the address on the line that says that a child is ready.
const READY: &str = "ready http=";

/// The line that says that a child is ready, taken apart.
pub(super) fn ready_line(line: &str) -> Option<SocketAddr> {
    line.trim().strip_prefix(READY)?.parse().ok()
}

/// Before the limit on the line that says that a write was slowed down.
const SLOWED: &str = "slowed ";

/// The line that says that a limit of the store acts, taken apart.
pub(super) fn slowed_line(line: &str) -> Option<StoreLimit> {
    let limit = line.trim().strip_prefix(SLOWED)?;
    [StoreLimit::Rate, StoreLimit::Delay].into_iter().find(|&of| limit_name(of) == limit)
}

fn limit_name(limit: StoreLimit) -> &'static str {
    match limit {
        StoreLimit::Rate => "rate",
        StoreLimit::Delay => "delay",
    }
}

fn tell_slowed(limit: StoreLimit) {
    // A parent that is gone ends this process by its standard input.
    let _nobody_listens = writeln!(std::io::stdout(), "{SLOWED}{}", limit_name(limit));
}

/// What does with a part what an order says, [`ChildOrder::Stop`] apart.
type Obey = Box<dyn FnMut(ChildOrder) + Send>;

/// Starts a part, wherever; `slowed` is told when a limit of its store first acts.
///
/// # Errors
/// If it cannot start.
pub(super) async fn begin(
    config: ChildConfig,
    slowed: impl Fn(StoreLimit) + Send + Sync + 'static,
) -> anyhow::Result<(Running, Obey)> {
    match config {
        ChildConfig::Bridge(config) => Ok((bridge::start(config).await?, Box::new(|_| {}))),
        ChildConfig::Registry(config) => {
            let url = config.store.full_url().context("parsing the store's URL")?;
            let (brake, faults) = (Brake::new(slowed), registry::Faults::default());
            let database = store::Database::open(&url, store::Access::Write).await?;
            let running = registry::start(config, FaultyStore::new(database, brake.clone()), faults.clone()).await?;
            Ok((running, obeying(brake, move |times| faults.panic_writer(times))))
        }
        ChildConfig::Baseline(config) => {
            let brake = Brake::new(slowed);
            let running = baseline::start(config, brake.clone()).await?;
            Ok((running, obeying(brake, |_| {})))
        }
    }
}

/// What a part with a store does.
fn obeying(brake: Brake, mut panic_writer: impl FnMut(u32) + Send + 'static) -> Obey {
    Box::new(move |order| match order {
        ChildOrder::Throttle(rows_per_s) => brake.throttle(rows_per_s),
        ChildOrder::Delay(us) => brake.delay(Duration::from_micros(us)),
        ChildOrder::PanicWriter(times) => panic_writer(times),
        ChildOrder::Stop => {}
    })
}

/// Runs a child process: what the hidden subcommand does.
///
/// # Errors
/// If the configuration cannot be read, the part cannot start, or it ends by itself.
pub async fn child_process(config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(config).with_context(|| format!("reading {}", config.display()))?;
    let mut config = serde_json::from_slice(&text).with_context(|| format!("parsing {}", config.display()))?;
    match &mut config {
        ChildConfig::Bridge(config) => config.load_secrets(&secret::<bridge::Config>)?,
        ChildConfig::Registry(config) => config.load_secrets(&secret::<registry::Config>)?,
        ChildConfig::Baseline(_) => {}
    }
    let (running, obey) = begin(config, tell_slowed).await?;
    println!("{READY}{}", running.http());
    running.until(orders(obey)).await
}

/// A password is in no file of the run: its parent leaves it in the environment, where the programs look for it.
fn secret<T: Checked>(name: &str) -> Option<String> {
    std::env::var(format!("{}{name}", T::PREFIX)).ok()
}

/// Takes orders until told to stop. A standard input that ends is a parent that is gone: then the process ends at once.
async fn orders(mut obey: impl FnMut(ChildOrder)) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(ChildOrder::Stop) => return,
            Ok(order) => obey(order),
            Err(error) => tracing::error!(%error, line, "not an order"),
        }
    }
    std::process::exit(1);
}

/// Waits until the parent is gone, then kills what is left of the run in `directory` and removes it: what the hidden
/// subcommand does. Covers a parent that was killed, and children that were stopped at that moment.
///
/// `containers` tells that it may have had some.
pub fn janitor(directory: &Path, containers: bool) {
    let _parent_gone = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    for pid in processes_of(directory) {
        let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    if containers {
        remove_containers(directory);
    }
    let _removed_already = std::fs::remove_dir_all(directory);
}

#[cfg(feature = "containers")]
fn remove_containers(directory: &Path) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(super::containers::remove_all(directory));
    }
}

/// A build without containers has none.
#[cfg(not(feature = "containers"))]
fn remove_containers(_: &Path) {}

/// Child processes of the run in `directory`: their configuration is there, and named in their command line.
fn processes_of(directory: &Path) -> Vec<nix::unistd::Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let prefix = format!("{}/", directory.display());
    let of_run = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let named = command.split(|&byte| byte == 0).any(|argument| argument.starts_with(prefix.as_bytes()));
        named.then(|| nix::unistd::Pid::from_raw(pid))
    };
    entries.flatten().filter_map(of_run).collect()
}
