//! Configuration of the registry program.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::adapter::PRODUCER_QUEUE;
use crate::config::{
    Backoff, Checked, ConfigError, Fault, Http, Kafka, Secret, Start,
    common::{check_positive, check_within},
    unit::{duration, optional_duration},
};
use crate::store::{StoreUrl, StoreUrlError};

/// Configuration of a registry process: one member of the consumer group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Consumer group. One of another name reads the whole feed by itself and needs its own store.
    #[serde(default = "default_group")]
    pub group: String,
    /// Where the group starts in a partition in which it has committed nothing.
    #[serde(default)]
    pub start: Start,
    /// Longest wait at start for Kafka, its topics and the store.
    #[serde(with = "duration", default = "thirty_seconds")]
    pub start_within: Duration,
    /// Bound of the drain when partitions are revoked, and when the process is told to stop.
    #[serde(with = "duration", default = "ten_seconds")]
    pub drain_within: Duration,
    /// Mean time between two snapshots of a device, as the agents have it: what `stale` and notices rest on.
    #[serde(with = "duration", default = "five_minutes")]
    pub snapshot_period: Duration,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// The store.
    pub store: Store,
    /// Batches, commits and credit.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// What goes down to the RAEs.
    #[serde(default)]
    pub feedback: Feedback,
    /// Background clean-up.
    #[serde(default)]
    pub clean: Clean,
    /// Waits between retries of a write, a quarantine or a commit, and before a failed stage is started again.
    #[serde(default)]
    pub backoff: Backoff,
    /// Health and metrics.
    #[serde(default)]
    pub http: Http,
}

/// Where the rows go. The library's [`super::start`] takes an open store instead and does not read this.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// URL of the store, without a password: `sqlite:PATH` or `postgresql://USER@HOST/DATABASE`.
    pub url: String,
    /// File that holds the password; the environment variable `DMP_REGISTRY_STORE_PASSWORD` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The password.
    #[serde(skip)]
    pub password: Secret,
}

/// Batches, commits and credit: [`dmp_core::registry::Config`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// A batch is written when it has this many rows...
    pub batch_rows: usize,
    /// ... or is this old.
    #[serde(with = "duration")]
    pub batch_wait: Duration,
    /// Offsets are committed after this many records...
    pub commit_records: u64,
    /// ... or this long after the last commit.
    #[serde(with = "duration")]
    pub commit_every: Duration,
    /// Most records buffered per partition.
    pub partition_credit: usize,
    /// Most sessions per partition whose last seq is remembered.
    pub tracked_sessions: usize,
    /// Most writes under way at a time, over all partitions.
    pub writers: usize,
}

impl Default for Pipeline {
    /// 200 rows or 10 ms: the knee of the measured throughput. 1,000 records or 1 s: one commit instead of 1,000.
    fn default() -> Pipeline {
        Pipeline {
            batch_rows: 200,
            batch_wait: Duration::from_millis(10),
            commit_records: 1_000,
            commit_every: Duration::from_secs(1),
            partition_credit: 1_000,
            tracked_sessions: 50_000,
            writers: 4,
        }
    }
}

/// What the registry sends down: notices to sessions that lost, and requests for snapshots;
/// [`dmp_core::registry::Feedback`].
///
/// Exactly one group of a deployment may speak. So whether it does has to be said (`enabled`) wherever it is not plain:
/// by a group that has not the default name, and by one that starts at the latest offset. A second consumer or a rebuild
/// that was forgotten to be silenced does not start, rather than replay history into notices.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Feedback {
    /// Whether anything is sent; absent: yes for the default group that starts at the earliest offset, refused for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether a gap in a session's seqs makes the registry ask for a snapshot.
    pub repair: bool,
    /// How long a gap may wait for its missing records before a snapshot is asked for.
    #[serde(with = "duration")]
    pub gap_wait: Duration,
    /// Most requests for snapshots per second, and at once.
    pub requests_per_s: u32,
    /// How long a command may be executed; absent: a snapshot period, but 5 s to 60 s.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<Duration>,
    /// Most commands handed to Kafka and not yet stored.
    pub under_way: usize,
    /// Most notices, and most requests, that wait for their turn.
    pub waiting: usize,
    /// Most sessions that are remembered as told, asked or lost.
    pub sessions: usize,
}

impl Default for Feedback {
    fn default() -> Feedback {
        let core = dmp_core::registry::Feedback::with_period(five_minutes());
        Feedback {
            enabled: None,
            repair: core.repair,
            gap_wait: core.gap_wait,
            requests_per_s: core.requests_per_s,
            expires_after: None,
            under_way: core.under_way,
            waiting: core.waiting,
            sessions: core.sessions,
        }
    }
}

impl Feedback {
    fn core(&self, group: &str, snapshot_period: Duration) -> dmp_core::registry::Feedback {
        let Feedback { enabled: _, repair, gap_wait, requests_per_s, expires_after, under_way, waiting, sessions } =
            *self;
        let defaults = dmp_core::registry::Feedback::with_period(snapshot_period);
        let expires_after = expires_after.unwrap_or(defaults.expires_after);
        dmp_core::registry::Feedback {
            issuer: group.into(),
            snapshot_period,
            repair,
            gap_wait,
            requests_per_s,
            expires_after,
            under_way,
            waiting,
            sessions,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        check_positive("feedback.gap_wait", self.gap_wait)?;
        check_within("feedback.requests_per_s", self.requests_per_s as usize, 1, 100_000)?;
        check_within("feedback.under_way", self.under_way, 1, PRODUCER_QUEUE / 2)?;
        check_within("feedback.waiting", self.waiting, 1, 1_000_000)?;
        check_within("feedback.sessions", self.sessions, 1, 10_000_000)?;
        match self.expires_after {
            Some(expires_after) => check_positive("feedback.expires_after", expires_after),
            None => Ok(()),
        }
    }
}

/// Background clean-up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clean {
    /// Time between two clean-ups.
    #[serde(with = "duration")]
    pub every: Duration,
    /// A device that is stale for longer is deleted whole. Must exceed the log's retention.
    #[serde(with = "duration")]
    pub retire_after: Duration,
    /// How long the events topic keeps a record, its `retention.ms`: to be said here, since a registry may not read it.
    #[serde(with = "duration")]
    pub log_retention: Duration,
}

impl Default for Clean {
    fn default() -> Clean {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        // A week is Kafka's own default.
        Clean { every: Duration::from_secs(60), retire_after: days(30), log_retention: days(7) }
    }
}

impl Store {
    /// The URL with its password in it.
    ///
    /// # Errors
    /// For a URL that names no store.
    pub fn full_url(&self) -> Result<StoreUrl, StoreUrlError> {
        let url: StoreUrl = self.url.parse()?;
        Ok(match self.password.reveal() {
            Some(password) => url.with_password(password),
            None => url,
        })
    }

    fn check(&self) -> Result<(), Fault> {
        // The library is handed an open store and needs no URL.
        if self.url.is_empty() {
            return Ok(());
        }
        let url: StoreUrl =
            self.url.parse().map_err(|error: StoreUrlError| Fault::at("store.url", error.to_string()))?;
        if url.has_password() {
            let reason = "must not hold a password; use `password_file` or DMP_REGISTRY_STORE_PASSWORD";
            return Err(Fault::at("store.url", reason));
        }
        Ok(())
    }
}

impl Config {
    /// A registry that reads `kafka`, with everything else as by default and no store named.
    #[must_use]
    pub fn reading(kafka: Kafka) -> Config {
        Config {
            group: default_group(),
            start: Start::default(),
            start_within: thirty_seconds(),
            drain_within: ten_seconds(),
            snapshot_period: five_minutes(),
            kafka,
            store: Store::default(),
            pipeline: Pipeline::default(),
            feedback: Feedback::default(),
            clean: Clean::default(),
            backoff: Backoff::default(),
            http: Http::default(),
        }
    }

    /// Whether this registry sends commands.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.feedback.enabled.unwrap_or_else(|| self.is_plainly_primary())
    }

    fn is_plainly_primary(&self) -> bool {
        self.group == default_group() && self.start == Start::Earliest
    }

    /// The settings of the core.
    #[must_use]
    pub fn core(&self) -> dmp_core::registry::Config {
        let Pipeline {
            batch_rows, batch_wait, commit_records, commit_every, partition_credit, tracked_sessions, ..
        } = self.pipeline;
        dmp_core::registry::Config {
            batch_rows,
            batch_wait,
            commit_records,
            commit_every,
            partition_credit,
            backoff: self.backoff.into(),
            tracked_sessions,
            drain_within: self.drain_within,
            feedback: self.speaks().then(|| self.feedback.core(&self.group, self.snapshot_period)),
        }
    }
}

impl Checked for Config {
    const PREFIX: &'static str = "DMP_REGISTRY_";

    fn check(&self) -> Result<(), Fault> {
        if self.group.is_empty() {
            return Err(Fault::at("group", "must not be empty"));
        }
        check_positive("start_within", self.start_within)?;
        check_positive("drain_within", self.drain_within)?;
        check_positive("snapshot_period", self.snapshot_period)?;
        if self.drain_within >= self.kafka.max_poll_interval {
            return Err(Fault::at(
                "drain_within",
                "must be below `kafka.max_poll_interval`, else a drain is a defection",
            ));
        }
        self.kafka.check()?;
        self.backoff.check()?;
        self.pipeline.check()?;
        self.feedback.check()?;
        if self.feedback.repair && self.feedback.gap_wait >= self.snapshot_period {
            return Err(Fault::at(
                "feedback.gap_wait",
                "must be below `snapshot_period`: a snapshot would come before it is asked for",
            ));
        }
        if self.feedback.enabled.is_none() && !self.is_plainly_primary() {
            let reason = format!(
                "must be said for a group other than {:?} and for start = \"latest\": false for a second consumer or a \
                 rebuild, true for the one group that speaks to the RAEs",
                default_group()
            );
            return Err(Fault::at("feedback.enabled", reason));
        }
        self.store.check()?;
        check_positive("clean.every", self.clean.every)?;
        if self.clean.retire_after <= self.clean.log_retention {
            let reason = "must exceed `clean.log_retention`: a registry that reads the log again would bring back, out of old \
                          records, what it has retired";
            return Err(Fault::at("clean.retire_after", reason));
        }
        if self.clean.retire_after < 4 * self.snapshot_period {
            return Err(Fault::at("clean.retire_after", "must be at least four snapshot periods"));
        }
        Ok(())
    }

    fn load_secrets(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let file = self.store.password_file.clone();
        self.store.password.load("store.password_file", environment("STORE_PASSWORD"), file.as_deref())?;
        self.kafka.load_secret(environment)
    }
}

impl Pipeline {
    fn check(&self) -> Result<(), Fault> {
        check_within("pipeline.batch_rows", self.batch_rows, 1, 10_000)?;
        check_within("pipeline.partition_credit", self.partition_credit, 1, 1_000_000)?;
        check_within("pipeline.tracked_sessions", self.tracked_sessions, 1, 10_000_000)?;
        check_within("pipeline.writers", self.writers, 1, 64)?;
        check_positive("pipeline.batch_wait", self.batch_wait)?;
        check_positive("pipeline.commit_every", self.commit_every)?;
        if self.commit_records == 0 {
            return Err(Fault::at("pipeline.commit_records", "must be above zero"));
        }
        Ok(())
    }
}

fn default_group() -> String {
    "dmp-registry".to_owned()
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}
