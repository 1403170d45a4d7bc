//! How bridges and registries are set: by the scenario, for the servers that they work with.

use std::time::Duration;

use dmp_service::{bridge, config, registry};

use super::{Servers, Stack};
use crate::{
    history::Process,
    live::{baseline, child::ChildConfig, proxy::Proxy},
    scenario::{Part, ReadFrom, Scenario},
};

/// Least time that a consumer may take between two polls, as the Kafka client wants it: at least the session timeout.
const LEAST_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Group and store of the baseline consumer.
pub(super) const BASELINE: &str = "baseline";

/// What faults and phases change of the pipeline's settings.
#[derive(Debug, Clone, Copy)]
pub(in crate::live) struct Settings {
    /// Bridge processes, which divide the shard groups among themselves.
    pub(in crate::live) bridges: u8,
    /// Whether registries are to repair gaps.
    pub(in crate::live) repair: bool,
}

impl Settings {
    /// Those of a scenario, `at` from the begin of the load.
    pub(in crate::live) fn at(scenario: &Scenario, at: Duration) -> Settings {
        Settings { bridges: scenario.processes_at(Part::Bridge, at), repair: scenario.repairs_at(at) }
    }
}

impl Stack {
    /// The configuration of a bridge or registry.
    pub(in crate::live) fn child(&self, process: Process, scenario: &Scenario, settings: Settings) -> ChildConfig {
        match process.part {
            Part::Bridge => ChildConfig::Bridge(self.bridge(process.index, settings.bridges, scenario)),
            Part::Registry => ChildConfig::Registry(self.registry(scenario, settings.repair)),
            Part::Consumer => ChildConfig::Registry(self.consumer(process.index, scenario)),
            Part::Baseline => ChildConfig::Baseline(self.baseline(scenario)),
        }
    }

    /// The consumer group of consumer number `index`.
    pub(in crate::live) fn consumer_group(index: u8) -> String {
        format!("new-consumer-{index}")
    }

    /// Makes the store of consumer number `index`, which is empty.
    pub(in crate::live) async fn make_consumer_store(&self, index: u8) -> anyhow::Result<()> {
        self.servers.make_store(&consumer_store(index)).await
    }

    /// The store of consumer number `index`.
    pub(in crate::live) fn consumer_store(&self, index: u8) -> registry::StoreConfig {
        self.servers.store(&consumer_store(index))
    }

    /// The consumer group of the registries.
    pub(in crate::live) fn group(&self, scenario: &Scenario) -> String {
        self.registry(scenario, false).group
    }

    /// Bridge number `index` of so many.
    fn bridge(&self, index: u8, bridges: u8, scenario: &Scenario) -> bridge::Config {
        let pipeline = &scenario.pipeline;
        let proxy = self.proxy.as_ref().map(Proxy::endpoint);
        let mqtt = match &self.servers {
            Servers::Deployed(deployed) => deployed.bridge_mqtt(proxy),
            _ => config::Mqtt::at(proxy.unwrap_or(&self.servers.bridges_mqtt()).address()),
        };
        let serve = (0..pipeline.shard_groups).filter(|group| group % bridges == index).collect();
        bridge::Config {
            id: format!("bridge-{index}"),
            window: pipeline.bridge_window as usize,
            shards: bridge::Shards { groups: pipeline.shard_groups, serve: Some(serve), ..self.client_ids() },
            ..bridge::Config::between(mqtt, self.consuming(scenario))
        }
    }

    /// How bridges and registries, which are members of a consumer group, reach Kafka.
    fn consuming(&self, scenario: &Scenario) -> config::Kafka {
        let session_timeout = scenario.pipeline.session_timeout;
        let max_poll_interval = LEAST_POLL_INTERVAL.max(session_timeout);
        config::Kafka { session_timeout, max_poll_interval, ..self.servers.pipelines_kafka() }
    }

    /// On a broker that is somebody's the ids of this run alone, lest a bridge of his loses its sessions to ours.
    fn client_ids(&self) -> bridge::Shards {
        let Servers::Deployed(deployed) = &self.servers else { return bridge::Shards::default() };
        bridge::Shards { client_prefix: deployed.bridge_prefix(), ..Default::default() }
    }

    /// A registry with a group and a store of its own, that says nothing to any RAE.
    fn consumer(&self, index: u8, scenario: &Scenario) -> registry::Config {
        let from = scenario.consumers().nth(index.into()).map(|(_, from)| from);
        let start = match from {
            Some(ReadFrom::Latest) => config::Start::Latest,
            Some(ReadFrom::Earliest) | None => config::Start::Earliest,
        };
        let registry = self.registry(scenario, false);
        registry::Config {
            group: Stack::consumer_group(index),
            start,
            feedback: registry::Feedback { enabled: Some(false), ..registry.feedback },
            store: self.servers.pipelines_store(&consumer_store(index)),
            ..registry
        }
    }

    /// The baseline consumer, with a group and a store of its own.
    fn baseline(&self, scenario: &Scenario) -> baseline::Config {
        baseline::Config {
            kafka: self.registry(scenario, false).kafka,
            group: BASELINE.to_owned(),
            store: self.servers.pipelines_store(BASELINE),
            snapshot_period: scenario.fleet.snapshot_every,
        }
    }

    /// How the harness reaches what the baseline has made, whatever is done to the links of the pipeline.
    pub(in crate::live) fn baseline_seen(&self, scenario: &Scenario) -> baseline::Config {
        baseline::Config { kafka: self.kafka(), store: self.servers.store(BASELINE), ..self.baseline(scenario) }
    }

    fn registry(&self, scenario: &Scenario, repair: bool) -> registry::Config {
        let pipeline = &scenario.pipeline;
        let defaults = registry::Config::reading(self.consuming(scenario));
        let group = match (&self.servers, self.incarnation()) {
            (Servers::Deployed(deployed), _) => deployed.deployment.kafka.group.clone(),
            (_, 1) => defaults.group,
            (_, number) => format!("{}-rebuilt-{number}", defaults.group),
        };
        // What was there before the run is nobody's here.
        let start = if self.is_deployed() { config::Start::Latest } else { defaults.start };
        registry::Config {
            group,
            start,
            snapshot_period: scenario.fleet.snapshot_every,
            store: self.servers.pipelines_store(&self.store_name()),
            pipeline: registry::Pipeline {
                batch_rows: pipeline.batch_rows as usize,
                batch_wait: pipeline.batch_wait,
                commit_records: pipeline.commit_records.into(),
                commit_every: pipeline.commit_every,
                partition_credit: pipeline.partition_credit as usize,
                ..defaults.pipeline
            },
            clean: registry::Clean { every: pipeline.clean_every, ..defaults.clean },
            feedback: registry::Feedback {
                enabled: Some(true),
                repair,
                gap_wait: pipeline.gap_wait,
                ..defaults.feedback
            },
            ..defaults
        }
    }
}

fn consumer_store(index: u8) -> String {
    format!("consumer_{index}")
}
