//! The bridges and registries of a run: started, killed, paused, told what to do, and watched. They are child processes of
//! the `fleetproof` binary; of a program that does not know where that is they are tasks, which nobody can kill or pause.

use std::{
    collections::BTreeMap,
    fmt,
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
use dmp_service::config::Secret;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    child::{ChildConfig, ChildOrder, begin, ready_line, slowed_line},
    http,
    journal::Journal,
};
use crate::{
    history::{Process, StoreLimit, What},
    scenario::{Part, Scenario},
};

/// Longest wait for a child to say that it is ready, and for all to say that they work.
const READY_WITHIN: Duration = Duration::from_secs(40);

/// Longest wait for a child that was told to stop; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Longest wait for the kernel to show a process as stopped.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Time between two questions whether all its parts work.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Orders that wait for a part of this process.
const ORDERS: usize = 8;

/// Limits of a store, each of which is told once at a time.
const LIMITS: usize = 8;

/// An order that nobody could take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) struct NotRunning {
    process: Process,
    /// It ended by itself: the system's doing, told by its watcher. Else a fault had taken it down, and the scenario
    /// contradicts itself.
    pub(super) by_itself: bool,
}

impl fmt::Display for NotRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.by_itself { "it has ended by itself" } else { "another fault has taken it down" };
        write!(f, "{} is not running: {why}", name(self.process))
    }
}

/// Starts children, and holds those that run.
#[derive(Debug)]
pub(super) struct Processes {
    /// `None`: within this process.
    binary: Option<PathBuf>,
    directory: PathBuf,
    logs: PathBuf,
    sabotage: Option<String>,
    journal: Journal,
    secrets: Vec<(&'static str, Secret)>,
    running: BTreeMap<Process, Running>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    http: SocketAddr,
    orders: Orders,
    meant: Arc<AtomicBool>,
    ended: JoinHandle<()>,
}

/// The way of orders.
#[derive(Debug)]
enum Orders {
    /// To a child process.
    Pipe(ChildStdin),
    /// To a task of this process.
    Channel(mpsc::Sender<ChildOrder>),
}

impl Processes {
    /// No children yet. Their configurations go to `directory`, their logs to `logs`.
    pub(super) fn new(
        binary: Option<PathBuf>,
        directory: &Path,
        logs: &Path,
        sabotage: Option<String>,
        journal: Journal,
    ) -> Processes {
        let (directory, logs) = (directory.to_owned(), logs.to_owned());
        Processes { binary, directory, logs, sabotage, journal, secrets: Vec::new(), running: BTreeMap::new() }
    }

    /// Children find these in their environment.
    #[must_use]
    pub(super) fn with_secrets(self, secrets: Vec<(&'static str, Secret)>) -> Processes {
        Processes { secrets, ..self }
    }

    /// Starts a child and waits until it is ready.
    pub(super) async fn start(&mut self, process: Process, config: &ChildConfig) -> anyhow::Result<()> {
        let Some(binary) = &self.binary else { return self.start_within(process, config.clone()).await };
        let name = name(process);
        let file = self.directory.join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(config)?).with_context(|| format!("writing {}", file.display()))?;
        let mut child = self.spawn(binary, &name, &file).with_context(|| format!("starting {name}"))?;
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
        let said = tokio::spawn(listen(lines, process, self.journal.clone()));
        let ended = tokio::spawn(watch(child, said, process, meant.clone(), self.journal.clone()));
        self.running.insert(process, Running { pid, http, orders: Orders::Pipe(stdin), meant, ended });
        self.journal.enter(What::ProcessStarted(process)).await;
        Ok(())
    }

    /// Starts a part as a task, and waits until it is ready.
    async fn start_within(&mut self, process: Process, config: ChildConfig) -> anyhow::Result<()> {
        let (slowed, limits) = mpsc::channel(LIMITS);
        let tell = move |limit| {
            // The first write under each limit is told; there is room for all of them.
            let _listener_gone = slowed.try_send(limit);
        };
        let began = tokio::time::timeout(READY_WITHIN, begin(config, tell)).await;
        let began = began.with_context(|| format!("{} was not ready within {READY_WITHIN:?}", name(process)))?;
        let (program, obey) = began.with_context(|| format!("starting {}", name(process)))?;
        let (http, meant) = (program.http(), Arc::new(AtomicBool::new(false)));
        let (orders, given) = mpsc::channel(ORDERS);
        tokio::spawn(listen_within(limits, process, self.journal.clone()));
        let task = program.until(obeyed(given, obey));
        let ended = tokio::spawn(watch_within(task, process, meant.clone(), self.journal.clone()));
        let running = Running { pid: Pid::this(), http, orders: Orders::Channel(orders), meant, ended };
        self.running.insert(process, running);
        self.journal.enter(What::ProcessStarted(process)).await;
        Ok(())
    }

    /// Waits until each child says that all its parts work: bridges have subscribed, registries have joined their group.
    pub(super) async fn all_work(&self) -> anyhow::Result<()> {
        let working = async {
            for (process, running) in &self.running {
                while !http::get(running.http, "/readyz").await.with_context(|| name(*process))?.ok {
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
            Ok(())
        };
        let within = tokio::time::timeout(READY_WITHIN, working).await;
        within.with_context(|| format!("bridges and registries did not work within {READY_WITHIN:?}"))?
    }

    /// SIGKILL; returns once it is gone.
    ///
    /// # Errors
    /// [`NotRunning`], as for every order to one process.
    pub(super) async fn kill(&mut self, process: Process) -> anyhow::Result<()> {
        // Before the signal, so that its watcher knows.
        self.alive(process)?.meant.store(true, Ordering::Relaxed);
        self.signal(process, Signal::SIGKILL)?;
        let running = self.running.remove(&process).expect("signalled just now");
        running.ended.await.context("watching a child")
    }

    /// Lets a child drain and end, and starts it with another configuration.
    pub(super) async fn restart(&mut self, process: Process, config: &ChildConfig) -> anyhow::Result<()> {
        self.end(process).await?;
        self.start(process, config).await
    }

    /// Lets a child drain and end; returns once it is gone.
    pub(super) async fn end(&mut self, process: Process) -> anyhow::Result<()> {
        self.alive(process)?.meant.store(true, Ordering::Relaxed);
        self.order(process, &ChildOrder::Stop).await?;
        if let Some(running) = self.running.remove(&process) {
            let ended = tokio::time::timeout(STOP_WITHIN, running.ended).await;
            ended.with_context(|| format!("{} did not stop within {STOP_WITHIN:?}", name(process)))??;
        }
        Ok(())
    }

    /// SIGSTOP; returns once the kernel shows it as stopped.
    pub(super) async fn pause(&self, process: Process) -> anyhow::Result<()> {
        let pid = self.signal(process, Signal::SIGSTOP)?;
        let stopped = async {
            while !is_stopped(pid)? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(STOPPED_WITHIN, stopped)
            .await
            .with_context(|| format!("{} was not stopped within {STOPPED_WITHIN:?} of SIGSTOP", name(process)))?
    }

    /// SIGCONT.
    pub(super) fn resume(&self, process: Process) -> anyhow::Result<()> {
        self.signal(process, Signal::SIGCONT).map(drop)
    }

    /// Gives an order to one child.
    pub(super) async fn order(&mut self, process: Process, order: &ChildOrder) -> anyhow::Result<()> {
        self.alive(process)?;
        let running = self.running.get_mut(&process).expect("alive just now");
        let stdin = match &mut running.orders {
            Orders::Pipe(stdin) => stdin,
            Orders::Channel(orders) => {
                let gone = |_| NotRunning { process, by_itself: true }.into();
                return orders.send(order.clone()).await.map_err(gone);
            }
        };
        let line = format!("{}\n", serde_json::to_string(order)?);
        stdin.write_all(line.as_bytes()).await.map_err(|error| match error.kind() {
            // Its end of the pipe is gone, and so is it.
            std::io::ErrorKind::BrokenPipe => NotRunning { process, by_itself: true }.into(),
            _ => anyhow::Error::new(error).context(format!("giving an order to {}", name(process))),
        })
    }

    /// Gives an order to those children of `part` that run: whoever is down must be given it on its return.
    pub(super) async fn order_running(&mut self, part: Part, order: &ChildOrder) -> anyhow::Result<()> {
        let of_part: Vec<_> = self.running.keys().copied().filter(|process| process.part == part).collect();
        for process in of_part {
            match self.order(process, order).await {
                Err(error) if error.is::<NotRunning>() => {}
                given => given?,
            }
        }
        Ok(())
    }

    /// Where the metrics of a child are, if it runs.
    pub(super) fn metrics_of(&self, process: Process) -> Option<(Pid, SocketAddr)> {
        self.running.get(&process).map(|running| (running.pid, running.http))
    }

    /// Children that run, with their process id and where their metrics are.
    pub(super) fn running(&self) -> Vec<(Process, Pid, SocketAddr)> {
        self.running.iter().map(|(process, running)| (*process, running.pid, running.http)).collect()
    }

    /// Tells all children to drain and end: bridges first, so that the registries get what they still send.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        // One that has ended by itself takes no order; its watcher has told.
        self.running.retain(|_, running| !running.ended.is_finished());
        for part in [Part::Bridge, Part::Registry, Part::Consumer, Part::Baseline] {
            for running in self.running.values() {
                running.meant.store(true, Ordering::Relaxed);
            }
            self.order_running(part, &ChildOrder::Stop).await?;
            let of_part: Vec<_> = self.running.keys().copied().filter(|process| process.part == part).collect();
            for process in of_part {
                let Some(mut running) = self.running.remove(&process) else { continue };
                if tokio::time::timeout(STOP_WITHIN, &mut running.ended).await.is_err() {
                    match running.orders {
                        Orders::Pipe(_) => {
                            let _gone_already = kill(running.pid, Signal::SIGKILL);
                        }
                        Orders::Channel(_) => running.ended.abort(),
                    }
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, binary: &Path, name: &str, config: &Path) -> anyhow::Result<Child> {
        let log = self.logs.join(format!("{name}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(binary);
        command.arg("child-process").arg(config);
        if let Some(bug) = &self.sabotage {
            command.args(["--sabotage", bug]);
        }
        command.envs(self.secrets.iter().filter_map(|(name, secret)| Some((name, secret.reveal()?))));
        // A group of its own: Ctrl-C is for the parent, which then ends its children itself.
        let child =
            command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        Ok(child.spawn()?)
    }

    fn signal(&self, process: Process, signal: Signal) -> anyhow::Result<Pid> {
        let Running { pid, orders: Orders::Pipe(_), .. } = *self.alive(process)? else {
            bail!("{} is part of this process, which cannot be sent {signal}", name(process));
        };
        match kill(pid, signal) {
            Ok(()) => Ok(pid),
            Err(nix::Error::ESRCH) => Err(NotRunning { process, by_itself: true }.into()),
            Err(error) => Err(anyhow::Error::new(error).context(format!("sending {signal} to {}", name(process)))),
        }
    }

    fn alive(&self, process: Process) -> Result<&Running, NotRunning> {
        match self.running.get(&process) {
            Some(running) if running.ended.is_finished() => Err(NotRunning { process, by_itself: true }),
            Some(running) => Ok(running),
            None => Err(NotRunning { process, by_itself: false }),
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
    let pipeline = &scenario.pipeline;
    let readers = of(Part::Registry, pipeline.registries).chain(of(Part::Baseline, pipeline.baseline.into()));
    readers.chain(of(Part::Bridge, pipeline.bridges)).collect()
}

/// `bridge-0`.
pub(super) fn name(process: Process) -> String {
    let part = match process.part {
        Part::Bridge => "bridge",
        Part::Registry => "registry",
        Part::Consumer => "new-consumer",
        Part::Baseline => "baseline",
    };
    format!("{part}-{}", process.index)
}

/// Whether the kernel shows a process as stopped by a signal.
fn is_stopped(pid: Pid) -> anyhow::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().any(|line| line.strip_prefix("State:").is_some_and(|state| state.trim().starts_with('T'))))
}

/// Enters the limits that a part of this process is slowed down by; ends when it does.
async fn listen_within(mut limits: mpsc::Receiver<StoreLimit>, process: Process, journal: Journal) {
    while let Some(limit) = limits.recv().await {
        journal.enter(What::StoreSlowed(process, limit)).await;
    }
}

/// Obeys until told to stop, or until nobody gives orders any more.
async fn obeyed(mut given: mpsc::Receiver<ChildOrder>, mut obey: impl FnMut(ChildOrder)) {
    while let Some(order) = given.recv().await {
        match order {
            ChildOrder::Stop => return,
            order => obey(order),
        }
    }
}

async fn watch_within(
    task: impl Future<Output = anyhow::Result<()>>,
    process: Process,
    meant: Arc<AtomicBool>,
    journal: Journal,
) {
    if let Err(error) = task.await {
        journal.enter(What::Broken(format!("{} ended: {error:#}", name(process)).into())).await;
    }
    journal.enter(What::ProcessEnded { process, meant: meant.load(Ordering::Relaxed) }).await;
}

/// Enters what a child says of the limits that it was given; ends when the child does.
async fn listen(mut lines: Lines<BufReader<ChildStdout>>, process: Process, journal: Journal) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(limit) = slowed_line(&line) {
            journal.enter(What::StoreSlowed(process, limit)).await;
        }
    }
}

async fn watch(mut child: Child, said: JoinHandle<()>, process: Process, meant: Arc<AtomicBool>, journal: Journal) {
    if let Err(error) = said.await {
        journal.enter(What::Broken(format!("listening to {}: {error}", name(process)).into())).await;
    }
    if let Err(error) = child.wait().await {
        journal.enter(What::Broken(format!("waiting for {}: {error}", name(process)).into())).await;
    }
    journal.enter(What::ProcessEnded { process, meant: meant.load(Ordering::Relaxed) }).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::clock::RunClock;

    const REGISTRY: Process = Process { part: Part::Registry, index: 0 };

    /// A child that is none of ours, but obeys signals as ours do.
    fn with_child(command: &str) -> (Processes, mpsc::Receiver<crate::history::Entry>) {
        let (journal, entries) = Journal::new(Arc::new(RunClock::start()));
        let here = Path::new(".");
        let mut processes = Processes::new(None, here, here, None, journal.clone());
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", command]).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("there is a shell");
        let pid = Pid::from_raw(child.id().expect("it runs").cast_signed());
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let meant = Arc::new(AtomicBool::new(false));
        let said = tokio::spawn(listen(lines, REGISTRY, journal.clone()));
        let ended = tokio::spawn(watch(child, said, REGISTRY, meant.clone(), journal));
        let http = SocketAddr::from(([127, 0, 0, 1], 1));
        processes.running.insert(REGISTRY, Running { pid, http, orders: Orders::Pipe(stdin), meant, ended });
        (processes, entries)
    }

    #[tokio::test]
    async fn a_process_is_seen_stopped_and_killed_and_every_order_to_one_that_is_down_is_an_error() {
        let (mut processes, mut entries) = with_child("exec cat >/dev/null");
        processes.pause(REGISTRY).await.expect("it stops");
        assert!(is_stopped(processes.running[&REGISTRY].pid).expect("it is there"));
        processes.resume(REGISTRY).expect("it goes on");
        processes.order(REGISTRY, &ChildOrder::PanicWriter(1)).await.expect("it takes orders");
        processes.kill(REGISTRY).await.expect("it ends");
        let ended = entries.recv().await.expect("told").what;
        assert!(matches!(ended, What::ProcessEnded { process: REGISTRY, meant: true }), "{ended:?}");
        let errors = [
            processes.kill(REGISTRY).await,
            processes.pause(REGISTRY).await,
            processes.resume(REGISTRY),
            processes.order(REGISTRY, &ChildOrder::PanicWriter(1)).await,
        ];
        for error in errors {
            let error = error.expect_err("it is down");
            assert_eq!(error.downcast_ref(), Some(&NotRunning { process: REGISTRY, by_itself: false }));
            assert_eq!(error.to_string(), "registry-0 is not running: another fault has taken it down");
        }
        processes.order_running(Part::Registry, &ChildOrder::Delay(5)).await.expect("nobody is there to take it");
    }

    #[tokio::test]
    async fn a_process_that_is_told_to_end_is_waited_for_and_was_meant_to() {
        let (mut processes, mut entries) = with_child("read order; test \"$order\" = '\"stop\"'");
        processes.end(REGISTRY).await.expect("it ends");
        let ended = entries.recv().await.expect("told").what;
        assert!(matches!(ended, What::ProcessEnded { process: REGISTRY, meant: true }), "{ended:?}");
        assert!(processes.end(REGISTRY).await.expect_err("it is gone").is::<NotRunning>());
    }

    #[tokio::test]
    async fn an_order_to_a_process_that_ended_by_itself_says_so() {
        let (mut processes, mut entries) = with_child("exit 3");
        let ended = entries.recv().await.expect("told").what;
        assert!(matches!(ended, What::ProcessEnded { meant: false, .. }), "{ended:?}");
        let error = processes.order(REGISTRY, &ChildOrder::PanicWriter(1)).await.expect_err("it is gone");
        assert_eq!(error.downcast_ref(), Some(&NotRunning { process: REGISTRY, by_itself: true }));
        processes.order_running(Part::Registry, &ChildOrder::Stop).await.expect("whoever is gone needs no order");
    }

    #[tokio::test]
    async fn what_a_child_says_of_a_limit_is_entered() {
        let (_processes, mut entries) = with_child("echo slowed rate; echo other; echo slowed delay");
        for limit in [StoreLimit::Rate, StoreLimit::Delay] {
            let said = entries.recv().await.expect("told").what;
            assert!(matches!(said, What::StoreSlowed(REGISTRY, of) if of == limit), "{said:?}");
        }
    }
}
