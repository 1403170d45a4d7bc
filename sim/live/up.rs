//! The embedded target alone, with bridge and registry, for anybody's MQTT and Kafka clients.

use std::{path::PathBuf, sync::Arc};

use super::{
    clock::RunClock,
    disk,
    journal::Journal,
    process::{Processes, all_processes},
    stack::Stack,
};
use crate::{
    run::{RunError, Target},
    scenario::Scenario,
};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// MQTT broker: `mqtt://127.0.0.1:PORT`.
    pub mqtt: String,
    /// Kafka's `bootstrap.servers`.
    pub kafka: String,
    /// Consumer group of the registry.
    pub group: String,
    /// URL of the store; the view `device_record` is the reader's interface.
    pub store: String,
    /// Metrics of bridge and registry, by name of the process.
    pub metrics: Vec<(String, String)>,
    /// Logs of bridge and registry.
    pub logs: PathBuf,
}

/// Starts brokers, store, bridges and registries as `scenario` says, tells `ready` where they are, and stays until
/// Ctrl-C or SIGTERM; then all is gone.
///
/// # Errors
/// [`RunError::Target`] if something does not start, or a process ends by itself.
pub async fn up(scenario: Scenario, binary: PathBuf, ready: impl FnOnce(&Endpoints)) -> Result<(), RunError> {
    let interrupted = dmp_service::program::signals().map_err(|error| RunError::Harness(error.into()))?;
    disk::has_room(&std::env::temp_dir())?;
    let stay = async {
        let clock = Arc::new(RunClock::start());
        let (journal, mut entries) = Journal::new(clock);
        let (target, mut observed) = Stack::start(Target::Embedded, &scenario, &binary).await?;
        let logs = target.directory().join("logs");
        std::fs::create_dir(&logs)?;
        let mut processes = Processes::new(binary, target.directory(), &logs, None, journal);
        for process in all_processes(&scenario) {
            processes.start(process, &target.child(process, &scenario, scenario.pipeline.repair)).await?;
        }
        // What is published before a bridge has subscribed reaches nobody.
        processes.all_work().await?;
        ready(&endpoints(&target, &processes, &scenario, logs));
        loop {
            tokio::select! {
                // Nobody judges here; what is seen is only taken, so that nothing waits.
                Some(_) = observed.recv() => {}
                Some(entry) = entries.recv() => {
                    if let crate::history::What::ProcessEnded { process, .. } = entry.what {
                        anyhow::bail!("{} ended by itself; its log is in {}", super::process::name(process), target.directory().display());
                    }
                }
            }
        }
    };
    tokio::select! {
        ended = stay => ended.map_err(RunError::Target),
        () = interrupted => Ok(()),
    }
}

fn endpoints(target: &Stack, processes: &Processes, scenario: &Scenario, logs: PathBuf) -> Endpoints {
    let metrics = processes.running().into_iter();
    Endpoints {
        mqtt: target.mqtt_address(),
        kafka: target.kafka().bootstrap,
        group: target.group(scenario),
        store: target.store_url(),
        metrics: metrics
            .map(|(process, _, http)| (super::process::name(process), format!("http://{http}/metrics")))
            .collect(),
        logs,
    }
}
