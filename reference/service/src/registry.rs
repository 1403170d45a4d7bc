//! The registry program: Kafka in, rows out, around one [`dmp_core::registry`] core.
//!
//! ```text
//! reader (thread) -> core -> writers -> store
//!                     |  \-> producer -> dead letters, commands
//!                     \-> commits, carried out by the reader between two polls
//! ```
//!
//! Each stage is supervised; the core's own task too: if it panics, a new core starts with a new group member at the
//! committed offsets. Beside it run the clean-up of the store and a gauge of the lag.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use dmp_core::{event::kafka_topic, registry::Registry};
use tokio::sync::mpsc;

use crate::{
    config::Checked,
    drive::{Clock, drive},
    http::{self, Health},
    kafka::topics,
    metrics::Metrics,
    program::{Running, Stop, chain},
    stage::restart_on_panic,
    store::{Access, Database, Store, StoreError},
};

mod adapter;
mod background;
mod config;
mod faults;
mod gauges;
mod writer;

use adapter::Adapter;
pub use config::{Clean, Config, Feedback, Pipeline, Store as StoreConfig};
pub use faults::Faults;
use gauges::Gauges;

/// Rest between two attempts at a store that is not there yet.
const STORE_REST: Duration = Duration::from_millis(200);

/// Starts a registry on an open store; ready when it returns: migrated, Kafka and its topics there, the group joining.
///
/// `faults` provokes failures of its stages from outside; `Faults::default()` provokes none.
///
/// # Errors
/// If the configuration is wrong, Kafka, its topics or the store are not there within `start_within`, or the health
/// endpoint cannot be bound.
pub async fn start<S: Store>(config: Config, store: S, faults: Faults) -> anyhow::Result<Running> {
    config.check().map_err(|fault| anyhow::anyhow!("registry configuration: {fault}"))?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let endpoint = http::serve(config.http.listen, health.clone(), metrics.clone()).await?;
    let (kafka_part, store_part, group_part) = (health.part("kafka"), health.part("store"), health.part("group"));
    let mut needed = vec![kafka_topic::EVENTS, kafka_topic::DEAD_LETTER];
    needed.extend(config.speaks().then_some(kafka_topic::COMMANDS));
    topics::wait_for(&config.kafka, &needed, config.start_within).await?;
    kafka_part.set(true);
    migrate(&store, &config).await.map_err(|error| {
        let by_owner = matches!(error, StoreError::Denied(_) | StoreError::Schema { found: None });
        let whose = if by_owner { ", which its owner has to do by `dmp-registry migrate`" } else { "" };
        anyhow::Error::new(error).context(format!("preparing the store{whose}"))
    })?;
    store_part.set(true);
    let address = endpoint.address;
    let gauges = Gauges::new(metrics);
    let shared = Shared { config: Arc::new(config), store: Arc::new(store), faults, gauges, group: group_part };
    Ok(Running::spawn(address, move |stop| async move {
        let ended = serve(shared, stop).await;
        drop(endpoint);
        ended
    }))
}

/// Runs a registry until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run<S: Store>(
    config: Config,
    store: S,
    faults: Faults,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(shutdown);
    let running = tokio::select! {
        running = start(config, store, faults) => running?,
        () = &mut shutdown => return Ok(()),
    };
    println!("dmp-registry http=http://{}", running.http());
    running.until(shutdown).await
}

/// Opens the store that the configuration names; one that is starting gets until `start_within`.
///
/// # Errors
/// For a URL that names no store, and whatever the store says.
pub async fn open_store(config: &Config) -> anyhow::Result<Database> {
    let url = config.store.full_url().context("key `store.url`")?;
    let until = Instant::now() + config.start_within;
    loop {
        match Database::open(&url, Access::Write).await {
            Err(StoreError::Unreachable { .. } | StoreError::Busy(_) | StoreError::Lost(_))
                if Instant::now() < until =>
            {
                tokio::time::sleep(STORE_REST).await;
            }
            ended => return ended.with_context(|| format!("opening the store {url}")),
        }
    }
}

/// What a core and the tasks beside it share.
struct Shared<S> {
    config: Arc<Config>,
    store: Arc<S>,
    faults: Faults,
    gauges: Gauges,
    group: http::Part,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Shared<S> {
        Shared {
            config: Arc::clone(&self.config),
            store: Arc::clone(&self.store),
            faults: self.faults.clone(),
            gauges: self.gauges.clone(),
            group: self.group.clone(),
        }
    }
}

/// A store that is starting, or busy with another's migration, gets until `start_within`.
async fn migrate<S: Store>(store: &S, config: &Config) -> Result<(), StoreError> {
    let until = Instant::now() + config.start_within;
    loop {
        match store.migrate(config.snapshot_period).await {
            Err(StoreError::Unreachable { .. } | StoreError::Busy(_) | StoreError::Lost(_))
                if Instant::now() < until =>
            {
                tokio::time::sleep(STORE_REST).await;
            }
            ended => return ended,
        }
    }
}

/// Runs the core until it has drained, or cannot go on.
async fn serve<S: Store>(shared: Shared<S>, stop: Stop) -> anyhow::Result<()> {
    let (fatal, mut failed) = mpsc::channel(1);
    let _beside = background::start(&shared);
    let (backoff, restarts) = (shared.config.backoff, shared.gauges.restarts("core"));
    let attempt = || {
        let (shared, stop, fatal) = (shared.clone(), stop.clone(), fatal.clone());
        async move {
            if let Err(error) = serve_core(&shared, stop).await {
                // There is one core, so there is room.
                let _told = fatal.try_send(error);
            }
        }
    };
    restart_on_panic("core", backoff.into(), attempt, move || restarts.increment()).await;
    failed.try_recv().map_or(Ok(()), Err)
}

async fn serve_core<S: Store>(shared: &Shared<S>, stop: Stop) -> anyhow::Result<()> {
    let mut core = Registry::new(shared.config.core(), rand::random());
    let mut adapter = Adapter::new(shared, stop)?;
    drive(&mut core, &mut adapter, Clock::start()).await;
    adapter.finish().await;
    Ok(())
}

/// One line per failure of a store, with its causes.
fn log_store_failure(doing: &'static str, error: &StoreError) {
    tracing::warn!(doing, "store: {}", chain(error));
}
