//! The bridge program: MQTT in, Kafka out, one [`dmp_core::bridge`] core per shard group; and one way down per process
//! ([`downlink`]).
//!
//! A group is one MQTT connection with a persistent session, one core and one producer. A group that panics is started
//! again with a new core: what it had not acknowledged is sent again by the broker. Kafka has to be there at the start;
//! MQTT is retried for ever, but credentials or settings that the broker refuses before it ever took them end the program.

use std::{future::Future, sync::Arc};

use anyhow::Context;
use dmp_core::{
    bridge::Bridge,
    event::{kafka_topic, subscriptions},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    config::Checked,
    drive::{Clock, drive},
    http::{self, Health},
    kafka::topics,
    metrics::Metrics,
    mqtt::Dialer,
    program::{Running, Stop},
    stage::restart_on_panic,
};

mod adapter;
mod config;
mod downlink;
mod gauges;

use adapter::Adapter;
pub use config::{Commands, Config, Shards};
use gauges::Gauges;

/// Starts a bridge; ready when it returns: Kafka and its topics are there, MQTT is being connected to.
///
/// # Errors
/// If the configuration is wrong, Kafka or its topics are not there within `start_within`, or the health endpoint
/// cannot be bound.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    config.check().map_err(|fault| anyhow::anyhow!("bridge configuration: {fault}"))?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let dialer = Arc::new(config.mqtt.dialer().context("reading the MQTT settings")?);
    let endpoint = http::serve(config.http.listen, health.clone(), metrics.clone()).await?;
    let kafka = health.part("kafka");
    let needed = [kafka_topic::EVENTS, kafka_topic::COMMANDS, kafka_topic::REPLIES, kafka_topic::DEAD_LETTER];
    topics::wait_for(&config.kafka, &needed, config.start_within).await?;
    kafka.set(true);
    let address = endpoint.address;
    let shared = Shared { config: Arc::new(config), dialer, health, metrics };
    Ok(Running::spawn(address, move |stop| async move {
        let ended = serve(shared, stop).await;
        drop(endpoint);
        ended
    }))
}

/// Runs a bridge until `shutdown` ends, then drains. Prints one line with its endpoints once it is ready.
///
/// # Errors
/// Those of [`start`], and why it ended where it was not told to.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::pin!(shutdown);
    let running = tokio::select! {
        running = start(config) => running?,
        () = &mut shutdown => return Ok(()),
    };
    println!("dmp-bridge http=http://{}", running.http());
    running.until(shutdown).await
}

/// What the groups share.
#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    dialer: Arc<Dialer>,
    health: Health,
    metrics: Metrics,
}

/// Runs all groups and the way down until each has drained, or one cannot go on.
async fn serve(shared: Shared, stop: Stop) -> anyhow::Result<()> {
    let (fatal, mut failed) = mpsc::channel(1);
    let mut ways = JoinSet::new();
    for group in shared.config.shards.served() {
        ways.spawn(supervise(shared.clone(), group, stop.clone(), fatal.clone()));
    }
    ways.spawn(downlink::supervise(shared, stop, fatal));
    tokio::select! {
        biased;
        Some(error) = failed.recv() => Err(error),
        () = async { while ways.join_next().await.is_some() {} } => Ok(()),
    }
}

async fn supervise(shared: Shared, group: u8, stop: Stop, fatal: mpsc::Sender<anyhow::Error>) {
    let gauges = Gauges::new(&shared.metrics, group);
    let (name, backoff, restarts) = (format!("group {group}"), shared.config.backoff, gauges.restarts.clone());
    let attempt = || {
        let (shared, stop, fatal, gauges) = (shared.clone(), stop.clone(), fatal.clone(), gauges.clone());
        async move {
            if let Err(error) = serve_group(&shared, group, stop, &fatal, gauges).await {
                // Full means that another group, or the way down, told why it is over before.
                let _first_wins = fatal.try_send(error);
            }
        }
    };
    restart_on_panic(&name, backoff.into(), attempt, move || restarts.increment()).await;
}

async fn serve_group(
    shared: &Shared,
    group: u8,
    stop: Stop,
    fatal: &mpsc::Sender<anyhow::Error>,
    gauges: Gauges,
) -> anyhow::Result<()> {
    let Config { id, window, backoff, shards, .. } = &*shared.config;
    let settings = dmp_core::bridge::Config {
        id: id.as_str().into(),
        filters: subscriptions(group, shards.groups),
        window: *window,
        backoff: (*backoff).into(),
    };
    let mut core = Bridge::new(settings, rand::random());
    let health = shared.health.part(format!("mqtt group {group}"));
    let mut adapter = Adapter::new(shared, group, stop, fatal.clone(), gauges, health)?;
    drive(&mut core, &mut adapter, Clock::start()).await;
    adapter.finish().await;
    Ok(())
}
