//! A target alone, with bridge and registry, for anybody's MQTT and Kafka clients.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    clock::RunClock,
    disk,
    journal::Journal,
    process::Processes,
    proxy::Observed,
    stack::{Settings, Stack},
};
use crate::{
    history::{Entry, What},
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

/// The pipeline on servers of its own, running, with nobody to drive or judge it. Dropped, it is gone.
pub struct Pipeline {
    endpoints: Endpoints,
    /// Told when a part ends by itself.
    ended: oneshot::Receiver<String>,
    /// Takes what would otherwise be judged.
    taken: JoinHandle<()>,
    _processes: Processes,
    _stack: Stack,
}

impl Pipeline {
    /// Starts brokers and store, and with `parts` bridges and registries as `scenario` says; all of them work when this
    /// returns. Without a `binary` bridges and registries are tasks of this process.
    ///
    /// # Errors
    /// [`RunError::Target`] if something does not start.
    pub async fn start(
        target: &Target,
        scenario: &Scenario,
        binary: Option<PathBuf>,
        parts: bool,
    ) -> Result<Pipeline, RunError> {
        disk::has_room(&std::env::temp_dir())?;
        Pipeline::started(target, scenario, binary, parts).await.map_err(RunError::Target)
    }

    /// Where everything is.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Waits until a part ends by itself, which none should, and says which.
    ///
    /// # Panics
    /// If it is awaited once more after that.
    pub async fn ended(&mut self) -> String {
        (&mut self.ended).await.expect("awaited once, and told before its sender ends")
    }

    async fn started(
        target: &Target,
        scenario: &Scenario,
        binary: Option<PathBuf>,
        parts: bool,
    ) -> anyhow::Result<Pipeline> {
        let (journal, entries) = Journal::new(Arc::new(RunClock::start()));
        let (stack, observed) = Stack::start(target, scenario, binary.as_deref()).await?;
        let logs = stack.directory().join("logs");
        std::fs::create_dir(&logs)?;
        let (tell, ended) = oneshot::channel();
        let taken = tokio::spawn(take(observed, entries, tell));
        let mut processes = Processes::new(binary, stack.directory(), &logs, None, journal);
        let settings = Settings { bridges: scenario.pipeline.bridges, repair: scenario.pipeline.repair };
        for process in stack.processes(scenario).into_iter().filter(|_| parts) {
            processes.start(process, &stack.child(process, scenario, settings)).await?;
        }
        // What is published before a bridge has subscribed reaches nobody.
        processes.all_work().await?;
        let endpoints = endpoints(&stack, &processes, scenario, logs);
        Ok(Pipeline { endpoints, ended, taken, _processes: processes, _stack: stack })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.taken.abort();
    }
}

/// Starts the embedded pipeline, tells `ready` where everything is, and stays until Ctrl-C or SIGTERM; then all is gone.
///
/// # Errors
/// [`RunError::Target`] if something does not start, or a process ends by itself.
pub async fn up(
    scenario: Scenario,
    binary: PathBuf,
    parts: bool,
    ready: impl FnOnce(&Endpoints),
) -> Result<(), RunError> {
    let interrupted = dmp_service::program::signals().map_err(|error| RunError::Harness(error.into()))?;
    let stay = async {
        let mut pipeline = Pipeline::start(&Target::Embedded, &scenario, Some(binary), parts).await?;
        ready(pipeline.endpoints());
        let (ended, logs) = (pipeline.ended().await, pipeline.endpoints().logs.display());
        Err(RunError::Target(anyhow::anyhow!("{ended} ended by itself; its log is in {logs}")))
    };
    tokio::select! {
        ended = stay => ended,
        () = interrupted => Ok(()),
    }
}

/// Takes what is seen, so that nothing waits, until a part ends.
async fn take(
    mut observed: mpsc::Receiver<Observed>,
    mut entries: mpsc::Receiver<Entry>,
    tell: oneshot::Sender<String>,
) {
    let mut tell = Some(tell);
    loop {
        tokio::select! {
            Some(_) = observed.recv() => {}
            Some(entry) = entries.recv() => {
                if let What::ProcessEnded { process, .. } = entry.what
                    && let Some(tell) = tell.take()
                {
                    let _nobody_waits = tell.send(super::process::name(process));
                }
            }
            else => return,
        }
    }
}

fn endpoints(target: &Stack, processes: &Processes, scenario: &Scenario, logs: PathBuf) -> Endpoints {
    let metrics = processes.running().into_iter();
    Endpoints {
        mqtt: target.mqtt_address(),
        kafka: target.kafka().bootstrap,
        group: target.group(scenario),
        store: target.store().url,
        metrics: metrics
            .map(|(process, _, http)| (super::process::name(process), format!("http://{http}/metrics")))
            .collect(),
        logs,
    }
}
