//! The child processes of a run: started, killed, paused, told what to do, and watched.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
};

use super::{
    child::{ChildConfig, ChildOrder, ready_line},
    journal::Journal,
};
use crate::{
    history::{Process, What},
    scenario::{Part, Scenario},
};

/// Longest wait for a child to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(40);

/// Longest wait for a child that was told to stop; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Starts children, and holds those that run.
#[derive(Debug)]
pub(super) struct Processes {
    binary: PathBuf,
    directory: PathBuf,
    logs: PathBuf,
    sabotage: Option<String>,
    journal: Journal,
    running: BTreeMap<Process, Running>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    http: SocketAddr,
    stdin: ChildStdin,
    meant: Arc<AtomicBool>,
    ended: JoinHandle<()>,
}

impl Processes {
    /// No children yet. Their configurations go to `directory`, their logs to `logs`.
    pub(super) fn new(
        binary: PathBuf,
        directory: &Path,
        logs: &Path,
        sabotage: Option<String>,
        journal: Journal,
    ) -> Processes {
        let (directory, logs) = (directory.to_owned(), logs.to_owned());
        Processes { binary, directory, logs, sabotage, journal, running: BTreeMap::new() }
    }

    /// Starts a child and waits until it is ready.
    pub(super) async fn start(&mut self, process: Process, config: &ChildConfig) -> anyhow::Result<()> {
        let name = name(process);
        let file = self.directory.join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(config)?).with_context(|| format!("writing {}", file.display()))?;
        let mut child = self.spawn(&name, &file).with_context(|| format!("starting {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id().context("the child has ended already")?)?);
        let stdin = child.stdin.take().expect("piped in spawn");
        let stdout = child.stdout.take().expect("piped in spawn");
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(http) = ready_line(&line) {
                    return Ok(http);
                }
            }
            bail!("{name} ended before it was ready; its last words:\n{}", self.last_words(&name))
        };
        let http = tokio::time::timeout(READY_WITHIN, ready)
            .await
            .with_context(|| format!("{name} was not ready within {READY_WITHIN:?}"))??;
        let meant = Arc::new(AtomicBool::new(false));
        let ended = tokio::spawn(watch(child, process, meant.clone(), self.journal.clone()));
        self.running.insert(process, Running { pid, http, stdin, meant, ended });
        self.journal.enter(What::ProcessStarted(process)).await;
        Ok(())
    }

    /// SIGKILL; returns once it is gone.
    pub(super) async fn kill(&mut self, process: Process) -> anyhow::Result<()> {
        let Some(running) = self.running.remove(&process) else { return Ok(()) };
        running.meant.store(true, Ordering::Relaxed);
        kill(running.pid, Signal::SIGKILL).with_context(|| format!("killing {}", name(process)))?;
        running.ended.await.context("watching a child")
    }

    /// SIGSTOP.
    pub(super) fn pause(&self, process: Process) -> anyhow::Result<()> {
        self.signal(process, Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub(super) fn resume(&self, process: Process) -> anyhow::Result<()> {
        self.signal(process, Signal::SIGCONT)
    }

    /// Gives an order to all children of `part`, or to one of them.
    pub(super) async fn order(&mut self, part: Part, index: Option<u8>, order: &ChildOrder) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(order)?);
        let to = |process: &Process| process.part == part && index.is_none_or(|index| index == process.index);
        for (process, running) in self.running.iter_mut().filter(|(process, _)| to(process)) {
            let sent = running.stdin.write_all(line.as_bytes()).await;
            sent.with_context(|| format!("giving an order to {}", name(*process)))?;
        }
        Ok(())
    }

    /// Children that run, with their process id and where their metrics are.
    pub(super) fn running(&self) -> Vec<(Process, Pid, SocketAddr)> {
        self.running.iter().map(|(process, running)| (*process, running.pid, running.http)).collect()
    }

    /// Tells all children to drain and end: bridges first, so that the registries get what they still send.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        // One that has ended by itself takes no order; its watcher has told.
        self.running.retain(|_, running| !running.ended.is_finished());
        for part in [Part::Bridge, Part::Registry] {
            for running in self.running.values() {
                running.meant.store(true, Ordering::Relaxed);
            }
            self.order(part, None, &ChildOrder::Stop).await?;
            let of_part: Vec<_> = self.running.keys().copied().filter(|process| process.part == part).collect();
            for process in of_part {
                let Some(mut running) = self.running.remove(&process) else { continue };
                if tokio::time::timeout(STOP_WITHIN, &mut running.ended).await.is_err() {
                    let _gone_already = kill(running.pid, Signal::SIGKILL);
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, name: &str, config: &Path) -> anyhow::Result<Child> {
        let log = self.logs.join(format!("{name}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(&self.binary);
        command.arg("child-process").arg(config);
        if let Some(bug) = &self.sabotage {
            command.args(["--sabotage", bug]);
        }
        // A group of its own: Ctrl-C is for the parent, which then ends its children itself.
        let child =
            command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        Ok(child.spawn()?)
    }

    fn signal(&self, process: Process, signal: Signal) -> anyhow::Result<()> {
        match self.running.get(&process) {
            Some(running) => {
                kill(running.pid, signal).with_context(|| format!("sending {signal} to {}", name(process)))
            }
            None => Ok(()),
        }
    }

    fn last_words(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

/// The processes of a scenario: registries first, so that bridges find their topics consumed.
pub(super) fn all_processes(scenario: &Scenario) -> Vec<Process> {
    let of = |part, count| (0..count).map(move |index| Process { part, index });
    of(Part::Registry, scenario.pipeline.registries).chain(of(Part::Bridge, scenario.pipeline.bridges)).collect()
}

/// `bridge-0`.
pub(super) fn name(process: Process) -> String {
    let part = match process.part {
        Part::Bridge => "bridge",
        Part::Registry => "registry",
    };
    format!("{part}-{}", process.index)
}

async fn watch(mut child: Child, process: Process, meant: Arc<AtomicBool>, journal: Journal) {
    if let Err(error) = child.wait().await {
        journal.enter(What::Broken(format!("waiting for {}: {error}", name(process)).into())).await;
    }
    journal.enter(What::ProcessEnded { process, meant: meant.load(Ordering::Relaxed) }).await;
}
