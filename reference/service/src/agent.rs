//! The agent program: one real RAE around one [`dmp_core::agent`] core.
//!
//! Devices speak to it over a small local HTTP API ([`devices`]), and fetch from it what a command wants changed on them
//! ([`changes`]); its records are in a SQLite file, synced before what
//! they hold is published ([`records`]). A core that panics starts again from those records, as after a crash.

use std::{future::Future, sync::Arc};

use anyhow::Context;
use dmp_core::agent::Agent;
use tokio::sync::{Mutex, mpsc};

use crate::{
    config::Checked,
    drive::{Clock, drive},
    http::{self, Health},
    metrics::Metrics,
    mqtt::Dialer,
    program::{Running, Stop},
    stage::restart_on_panic,
};

mod adapter;
mod changes;
mod config;
mod devices;
mod gauges;
mod records;

use adapter::Adapter;
use changes::Board;
pub use config::{Config, Devices, Intervals, Limits};
use devices::Shelf;
use gauges::Gauges;
use records::Records;

/// Events of devices that wait for the core; beyond them a device's request waits.
const DEVICE_QUEUE: usize = 256;

/// An agent that runs, and where its devices find it.
#[derive(Debug)]
pub struct RunningAgent {
    /// The program.
    pub running: Running,
    /// Where the local API for devices is.
    pub devices: std::net::SocketAddr,
}

/// Starts an agent; ready when it returns: records open, APIs bound, MQTT being connected to.
///
/// # Errors
/// If the configuration is wrong, the records cannot be opened, or an endpoint cannot be bound.
pub async fn start(config: Config) -> anyhow::Result<RunningAgent> {
    config.check().map_err(|fault| anyhow::anyhow!("agent configuration: {fault}"))?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let dialer = Arc::new(config.mqtt.dialer().context("reading the MQTT settings")?);
    let records = Records::open(&config.records).await?;
    let endpoint = http::serve(config.http.listen, health.clone(), metrics.clone()).await?;
    let (events, said) = mpsc::channel(DEVICE_QUEUE);
    let (shelf, board) = (Shelf::new(config.devices.heard_within), Board::new(config.devices.answer_within));
    let api = http::serve_router(config.devices.listen, devices::router(shelf.clone(), board.clone(), events))
        .await
        .with_context(|| format!("listening for devices on {}", config.devices.listen))?;
    let (address, devices) = (endpoint.address, api.address);
    let gauges = Gauges::new(&metrics, config.limits.outbox);
    let said = Arc::new(Mutex::new(said));
    let mqtt = health.part("mqtt");
    let (config, records) = (Arc::new(config), Arc::new(records));
    let shared = Shared { config, dialer, records, shelf, board, said, gauges, mqtt };
    let running = Running::spawn(address, move |stop| async move {
        let ended = serve(shared, stop).await;
        drop((endpoint, api));
        ended
    });
    Ok(RunningAgent { running, devices })
}

/// Runs an agent until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let RunningAgent { running, devices } = start(config).await?;
    println!("dmp-agent http=http://{} devices=http://{devices}", running.http());
    running.until(shutdown).await
}

/// What one core after the other is built from.
#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    dialer: Arc<Dialer>,
    records: Arc<Records>,
    shelf: Shelf,
    board: Board,
    said: Arc<Mutex<mpsc::Receiver<dmp_core::agent::Event>>>,
    gauges: Gauges,
    mqtt: http::Part,
}

/// Runs the core until it has drained, or cannot go on.
async fn serve(shared: Shared, stop: Stop) -> anyhow::Result<()> {
    let (fatal, mut failed) = mpsc::channel(1);
    let (backoff, restarts) = (shared.config.backoff, shared.gauges.restarts.clone());
    let attempt = || {
        let (shared, stop, fatal) = (shared.clone(), stop.clone(), fatal.clone());
        async move {
            if let Err(error) = serve_core(&shared, stop, &fatal).await {
                // Full means that the reason was told before.
                let _first_wins = fatal.try_send(error);
            }
        }
    };
    let served = restart_on_panic("agent", backoff.into(), attempt, move || restarts.increment());
    tokio::select! {
        biased;
        Some(error) = failed.recv() => Err(error),
        () = served => Ok(()),
    }
}

async fn serve_core(shared: &Shared, stop: Stop, fatal: &mpsc::Sender<anyhow::Error>) -> anyhow::Result<()> {
    let saved = shared.records.load().await?;
    tracing::info!(rae = %shared.config.rae, devices = saved.devices.len(), "agent starts");
    let mut core = Agent::new(shared.config.core(), saved, rand::random());
    let said = shared.said.lock().await;
    let mut adapter = Adapter::new(shared, said, stop, fatal.clone());
    drive(&mut core, &mut adapter, Clock::start()).await;
    adapter.finish().await;
    Ok(())
}
