//! Configuration of the bridge program.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{
    Backoff, Checked, ConfigError, Fault, Http, Kafka, Mqtt,
    common::{check_positive, check_within},
    unit::duration,
};

/// Configuration of a bridge process: one or more shard groups, each one MQTT connection with its own core.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Identity of this process in the record header `bridge` and, after `shards.client_prefix`, in the client id of its
    /// way down: no two bridges on a broker may have the same.
    #[serde(default = "default_id")]
    pub id: String,
    /// Longest wait at start for Kafka and its topics; MQTT is retried for ever, with a clear log.
    #[serde(with = "duration", default = "thirty_seconds")]
    pub start_within: Duration,
    /// Bound of the drain when the process is told to stop.
    #[serde(with = "duration", default = "ten_seconds")]
    pub drain_within: Duration,
    /// Most messages per shard group that wait for Kafka at a time.
    #[serde(default = "default_window")]
    pub window: usize,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// How the shards are divided, and which part this process serves.
    #[serde(default)]
    pub shards: Shards,
    /// The way down.
    #[serde(default)]
    pub commands: Commands,
    /// Waits between connection attempts and between retries of a record.
    #[serde(default)]
    pub backoff: Backoff,
    /// Health and metrics.
    #[serde(default)]
    pub http: Http,
}

/// How the 16 shards are divided, once per deployment, and which groups one process serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shards {
    /// Groups of the deployment: 1, 2, 4, 8 or 16.
    #[serde(default = "one")]
    pub groups: u8,
    /// Groups that this process serves; absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Vec<u8>>,
    /// Prefix of the fixed client ids: `<prefix>-<group>of<groups>`.
    #[serde(default = "default_prefix")]
    pub client_prefix: String,
}

/// The way down: [`dmp_core::bridge::downlink::Config`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commands {
    /// Consumer group of all bridges of the deployment: each command goes down once.
    pub group: String,
    /// Most publishes that the broker has not acknowledged.
    pub window: u16,
    /// Most records buffered per partition.
    pub partition_credit: usize,
    /// Longest wait for an acknowledgement before the connection is given up.
    #[serde(with = "duration")]
    pub acknowledged_within: Duration,
    /// Offsets are committed after this many records...
    pub commit_records: u64,
    /// ... or this long after the last commit.
    #[serde(with = "duration")]
    pub commit_every: Duration,
}

impl Default for Commands {
    /// A window of 100: some ms on a broker's link, so far above the rate of commands. 100 records or 200 ms: what a
    /// bridge that is killed had not committed is published again, and costs its agents a look each.
    fn default() -> Commands {
        Commands {
            group: "dmp-bridge".to_owned(),
            window: 100,
            partition_credit: 1_000,
            acknowledged_within: ten_seconds(),
            commit_records: 100,
            commit_every: Duration::from_millis(200),
        }
    }
}

impl Commands {
    fn check(&self) -> Result<(), Fault> {
        if self.group.is_empty() {
            return Err(Fault::at("commands.group", "must not be empty"));
        }
        check_within("commands.window", self.window.into(), 1, 10_000)?;
        check_within("commands.partition_credit", self.partition_credit, 1, 100_000)?;
        check_positive("commands.acknowledged_within", self.acknowledged_within)?;
        check_positive("commands.commit_every", self.commit_every)?;
        if self.commit_records == 0 {
            return Err(Fault::at("commands.commit_records", "must be above zero"));
        }
        Ok(())
    }
}

impl Default for Shards {
    fn default() -> Shards {
        Shards { groups: one(), serve: None, client_prefix: default_prefix() }
    }
}

impl Shards {
    /// The groups that this process serves.
    #[must_use]
    pub fn served(&self) -> Vec<u8> {
        self.serve.clone().unwrap_or_else(|| (0..self.groups).collect())
    }

    /// The fixed client id of a group.
    #[must_use]
    pub fn client_id(&self, group: u8) -> String {
        format!("{}-{group}of{}", self.client_prefix, self.groups)
    }
}

impl Config {
    /// A bridge between `mqtt` and `kafka` with everything else as by default.
    #[must_use]
    pub fn between(mqtt: Mqtt, kafka: Kafka) -> Config {
        Config {
            id: default_id(),
            start_within: thirty_seconds(),
            drain_within: ten_seconds(),
            window: default_window(),
            mqtt,
            kafka,
            shards: Shards::default(),
            commands: Commands::default(),
            backoff: Backoff::default(),
            http: Http::default(),
        }
    }
}

impl Config {
    /// The client id of the way down.
    #[must_use]
    pub fn downlink_client_id(&self) -> String {
        format!("{}-down-{}", self.shards.client_prefix, self.id)
    }

    /// The settings of the way down's core.
    #[must_use]
    pub fn downlink(&self) -> dmp_core::bridge::downlink::Config {
        let Commands { group: _, window, partition_credit, acknowledged_within, commit_records, commit_every } =
            self.commands;
        dmp_core::bridge::downlink::Config {
            window,
            partition_credit,
            acknowledged_within,
            commit_records,
            commit_every,
            drain_within: self.drain_within,
            backoff: self.backoff.into(),
        }
    }
}

impl Checked for Config {
    const PREFIX: &'static str = "DMP_BRIDGE_";

    fn check(&self) -> Result<(), Fault> {
        if self.id.is_empty() || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::at("id", "must be printable ASCII without spaces: it travels in a header"));
        }
        check_within("window", self.window, 1, MAX_WINDOW)?;
        check_positive("start_within", self.start_within)?;
        check_positive("drain_within", self.drain_within)?;
        self.mqtt.check()?;
        self.kafka.check()?;
        self.backoff.check()?;
        self.commands.check()?;
        if self.drain_within >= self.kafka.max_poll_interval {
            return Err(Fault::at(
                "drain_within",
                "must be below `kafka.max_poll_interval`, else a drain is a defection",
            ));
        }
        let Shards { groups, serve, client_prefix } = &self.shards;
        if !matches!(groups, 1 | 2 | 4 | 8 | 16) {
            return Err(Fault::at("shards.groups", format!("{groups} is not 1, 2, 4, 8 or 16")));
        }
        if client_prefix.is_empty() {
            return Err(Fault::at("shards.client_prefix", "must not be empty"));
        }
        let Some(serve) = serve else { return Ok(()) };
        if let Some(group) = serve.iter().find(|group| *group >= groups) {
            return Err(Fault::at("shards.serve", format!("group {group} is not below `groups` = {groups}")));
        }
        let distinct: std::collections::BTreeSet<_> = serve.iter().collect();
        if serve.is_empty() || distinct.len() < serve.len() {
            return Err(Fault::at("shards.serve", "must name at least one group, and each once"));
        }
        Ok(())
    }

    fn load_secrets(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        self.mqtt.load_secret(environment)?;
        self.kafka.load_secret(environment)
    }
}

/// MQTT has 65,535 packet ids, and a broker keeps no more in flight.
const MAX_WINDOW: usize = 65_535;

fn default_id() -> String {
    "bridge".to_owned()
}

fn default_prefix() -> String {
    "dmp-bridge".to_owned()
}

fn default_window() -> usize {
    1_000
}

fn one() -> u8 {
    1
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
