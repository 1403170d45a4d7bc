//! Configuration of the agent program.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use dmp_core::{core::Qos, id::Rae};
use serde::{Deserialize, Serialize};

use crate::config::{
    Backoff, Checked, ConfigError, Fault, Http, Mqtt,
    common::{check_positive, check_within},
    unit::duration,
};

/// Configuration of an agent: one real RAE.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Serial of the RAE; also its MQTT client id.
    pub rae: Rae,
    /// SQLite file of its records; made where it is missing.
    pub records: PathBuf,
    /// Delivery quality of state events: `"0"` or `"1"`.
    #[serde(default)]
    pub qos: Qos,
    /// Bound of the drain when the process is told to stop.
    #[serde(with = "duration", default = "five_seconds")]
    pub drain_within: Duration,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// Intervals.
    #[serde(default)]
    pub intervals: Intervals,
    /// Bounds of what is under way.
    #[serde(default)]
    pub limits: Limits,
    /// The local API for devices.
    #[serde(default)]
    pub devices: Devices,
    /// Waits between connection attempts.
    #[serde(default)]
    pub backoff: Backoff,
    /// Health and metrics.
    #[serde(default)]
    pub http: Http,
}

/// Intervals of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// Mean time between two snapshots of a device.
    #[serde(with = "duration")]
    pub snapshot_every: Duration,
    /// Each interval is drawn from `snapshot_every` times 1 +- this, in thousandths.
    pub snapshot_jitter_permille: u16,
    /// Time between two probes of a device.
    #[serde(with = "duration")]
    pub probe_every: Duration,
    /// After how long without a successful probe a device is forgotten.
    #[serde(with = "duration")]
    pub forget_after: Duration,
    /// Longest wait for the RAE's own retained status.
    #[serde(with = "duration")]
    pub status_wait: Duration,
}

impl Default for Intervals {
    fn default() -> Intervals {
        Intervals {
            snapshot_every: Duration::from_secs(300),
            snapshot_jitter_permille: 200,
            probe_every: Duration::from_secs(30),
            forget_after: Duration::from_secs(7 * 86_400),
            status_wait: Duration::from_secs(2),
        }
    }
}

/// Bounds of what an agent has under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Unacknowledged QoS 1 publishes at a time.
    pub window: u16,
    /// Most state events that wait in the outbox.
    pub outbox: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { window: 20, outbox: 1_000 }
    }
}

/// The local API for devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// A device that was not heard for longer is taken for gone at its next probe.
    #[serde(with = "duration")]
    pub heard_within: Duration,
    /// How long a command's change waits until the device has fetched and answered it.
    #[serde(with = "duration")]
    pub answer_within: Duration,
}

impl Default for Devices {
    fn default() -> Devices {
        Devices {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            heard_within: Duration::from_secs(90),
            // Below what a command lives by default: its issuer hears of the refusal in time.
            answer_within: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The settings of the core.
    #[must_use]
    pub fn core(&self) -> dmp_core::agent::Config {
        dmp_core::agent::Config {
            rae: self.rae.clone(),
            qos: self.qos,
            snapshot_every: self.intervals.snapshot_every,
            snapshot_jitter_permille: self.intervals.snapshot_jitter_permille,
            probe_every: self.intervals.probe_every,
            forget_after: self.intervals.forget_after,
            window: self.limits.window,
            outbox: self.limits.outbox,
            status_wait: self.intervals.status_wait,
            backoff: self.backoff.into(),
        }
    }
}

impl Checked for Config {
    const PREFIX: &'static str = "DMP_AGENT_";

    fn check(&self) -> Result<(), Fault> {
        check_positive("drain_within", self.drain_within)?;
        check_positive("intervals.snapshot_every", self.intervals.snapshot_every)?;
        check_positive("intervals.probe_every", self.intervals.probe_every)?;
        check_positive("devices.heard_within", self.devices.heard_within)?;
        check_positive("devices.answer_within", self.devices.answer_within)?;
        check_within("intervals.snapshot_jitter_permille", self.intervals.snapshot_jitter_permille.into(), 0, 500)?;
        check_within("limits.window", self.limits.window.into(), 1, 1_000)?;
        check_within("limits.outbox", self.limits.outbox, self.limits.window.into(), 1_000_000)?;
        if self.intervals.forget_after < self.intervals.probe_every {
            return Err(Fault::at("intervals.forget_after", "must be at least `intervals.probe_every`"));
        }
        if !self.devices.listen.ip().is_loopback() {
            return Err(Fault::at("devices.listen", "must be a loopback address: the device API asks for no password"));
        }
        self.mqtt.check()?;
        self.backoff.check()
    }

    fn load_secrets(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        self.mqtt.load_secret(environment)
    }
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}
