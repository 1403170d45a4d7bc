//! Faults that are done by commands of the target: each runs in a shell within a bound, and what it began is ended, however
//! the run ends.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::allowed;
use crate::{
    scenario::{FaultKind, Server, ServerFault},
    target::{Deployment, Hook, Hooks as Commands, Subject},
};

/// Most of what a failed command said that is told.
const WORDS: usize = 400;

/// A fault that is done by hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hooked {
    pub(super) begin: Hook,
    pub(super) end: Hook,
    /// Of the process; 0 for a server.
    pub(super) index: u8,
}

impl Hooked {
    /// The hooks of a fault on a deployment; `None` where the harness does it itself, or nobody can.
    pub(super) fn of(deployment: &Deployment, fault: &FaultKind) -> Option<Hooked> {
        let bring = deployment.bring;
        let (begin, end, index) = match *fault {
            FaultKind::Kill { part, index, .. } if !bring.has(part) => {
                (Hook::Kill(Subject::Part(part)), Hook::Start(Subject::Part(part)), index)
            }
            FaultKind::Pause { part, index, .. } if !bring.has(part) => {
                (Hook::Pause(Subject::Part(part)), Hook::Resume(Subject::Part(part)), index)
            }
            FaultKind::Server(ref fault) => {
                let (begin, end) = of_a_server(deployment, fault)?;
                (begin, end, 0)
            }
            _ => return None,
        };
        Some(Hooked { begin, end, index })
    }
}

fn of_a_server(deployment: &Deployment, fault: &ServerFault) -> Option<(Hook, Hook)> {
    let server = fault.server();
    let subject = Subject::Server(server);
    match fault {
        ServerFault::Kill { .. } => Some((Hook::Kill(subject), Hook::Start(subject))),
        ServerFault::Restart { .. } => Some((Hook::Stop(subject), Hook::Start(subject))),
        ServerFault::Pause { .. } => Some((Hook::Pause(subject), Hook::Resume(subject))),
        // The harness cuts the wire that it is on.
        ServerFault::CutLink { .. } if server == Server::Broker && allowed::shows(deployment).wire => None,
        ServerFault::CutLink { .. } => Some((Hook::CutLink(server), Hook::MendLink(server))),
        ServerFault::FullDisk { .. } | ServerFault::SlowLink { .. } | ServerFault::HalfOpenLink { .. } => None,
    }
}

/// The hooks of a run.
#[derive(Debug)]
pub(super) struct Hooks {
    commands: Commands,
    run: String,
    /// What is still to be ended, by the number of its fault.
    begun: Mutex<BTreeMap<usize, Hooked>>,
}

impl Hooks {
    /// The hooks of the run with this prefix.
    pub(super) fn new(commands: Commands, run: String) -> Hooks {
        Hooks { commands, run, begun: Mutex::default() }
    }

    /// A target that has none.
    pub(super) fn none() -> Hooks {
        let commands = Commands { within: Duration::ZERO, commands: BTreeMap::new() };
        Hooks::new(commands, String::new())
    }

    /// Begins fault number `fault`.
    ///
    /// # Errors
    /// If the command fails, or takes too long.
    pub(super) async fn begin(&self, fault: usize, hooked: Hooked) -> anyhow::Result<()> {
        // Before the command: also what was begun half is to be ended.
        self.begun().insert(fault, hooked);
        self.run(hooked.begin, hooked.index).await
    }

    /// Ends fault number `fault`, where it has begun and its end is anybody's but a supervisor's.
    ///
    /// # Errors
    /// As [`Hooks::begin`].
    pub(super) async fn end(&self, fault: usize) -> anyhow::Result<()> {
        let Some(Hooked { end, index, .. }) = self.begun().get(&fault).copied() else { return Ok(()) };
        if self.commands.commands.contains_key(&end) {
            self.run(end, index).await?;
        }
        // Behind the command: a run that is given up meanwhile has it ended once more, rather than not at all.
        self.begun().remove(&fault);
        Ok(())
    }

    /// Ends all that is begun, and tells what could not be: one line each, what it began and why it stays.
    pub(super) async fn end_all(&self) -> Vec<String> {
        let begun: Vec<_> = self.begun().iter().map(|(&fault, &hooked)| (fault, hooked)).collect();
        let mut left_behind = Vec::new();
        for (fault, Hooked { begin, index, .. }) in begun {
            if let Err(error) = self.end(fault).await {
                left_behind.push(format!("what hooks.{} began (index {index}): {error:#}", begin.key()));
            }
        }
        left_behind
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<usize, Hooked>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, hook: Hook, index: u8) -> anyhow::Result<()> {
        let key = format!("hooks.{}", hook.key());
        let command = self.commands.commands.get(&hook).with_context(|| format!("the target has no {key}"))?;
        let mut shell = tokio::process::Command::new("sh");
        // A group of its own, so that a command that takes too long is ended with all that it started.
        shell.args(["-c", command]).env("FLEETPROOF_RUN", &self.run).env("FLEETPROOF_INDEX", index.to_string());
        let child = shell
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {key}"))?;
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let within = self.commands.within;
        let Ok(ended) = tokio::time::timeout(within, child.wait_with_output()).await else {
            bail!("{key} did not end within {within:?}, and was killed");
        };
        group.ended();
        let ended = ended.with_context(|| format!("running {key}"))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let said: String = said.chars().take(WORDS).collect();
            bail!("{key} ended with {}: {said}", ended.status);
        }
        Ok(())
    }
}

/// A command with all that it started: killed when this is dropped before it has ended.
struct Group(Option<Pid>);

impl Group {
    /// What it leaves running from now on is meant to.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone_already = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::scenario::Part;

    const KILL: Hook = Hook::Kill(Subject::Part(Part::Registry));
    const START: Hook = Hook::Start(Subject::Part(Part::Registry));

    fn registry(index: u8) -> Hooked {
        Hooked { begin: KILL, end: START, index }
    }

    fn hooks(commands: &[(Hook, String)]) -> Hooks {
        let commands = commands.iter().cloned().collect();
        Hooks::new(Commands { within: Duration::from_millis(400), commands }, "LAB1".to_owned())
    }

    #[tokio::test]
    async fn what_a_hook_began_is_ended_once_also_where_the_run_ends_before_the_fault() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("said");
        let say = |word: &str| format!("echo {word} $FLEETPROOF_RUN $FLEETPROOF_INDEX >>{}", file.display());
        let hooks = hooks(&[(KILL, say("kill")), (START, say("start"))]);
        hooks.begin(0, registry(2)).await.expect("it runs");
        hooks.end(0).await.expect("it runs");
        hooks.begin(1, registry(0)).await.expect("it runs");
        assert!(hooks.end_all().await.is_empty());
        assert!(hooks.end_all().await.is_empty());
        let said = std::fs::read_to_string(&file).expect("said");
        assert_eq!(said, "kill LAB1 2\nstart LAB1 2\nkill LAB1 0\nstart LAB1 0\n");
    }

    #[tokio::test]
    async fn what_cannot_be_ended_is_told_with_what_began_it_and_why() {
        let hooks = hooks(&[(KILL, "true".to_owned()), (START, "echo no quota >&2; exit 1".to_owned())]);
        hooks.begin(0, registry(1)).await.expect("it runs");
        let [told] = hooks.end_all().await.try_into().expect("one thing is left");
        for words in ["hooks.registry.kill", "index 1", "hooks.registry.start", "no quota"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why_and_one_that_hangs_is_ended_with_its_children() {
        let failing = hooks(&[(KILL, "echo no such pod >&2; exit 3".to_owned())]);
        let error = failing.begin(0, registry(0)).await.expect_err("it fails").to_string();
        assert!(error.contains("hooks.registry.kill") && error.contains("no such pod"), "{error}");
        let began = Instant::now();
        let hanging = hooks(&[(KILL, "sleep 60 | sleep 60".to_owned())]);
        let error = hanging.begin(0, registry(0)).await.expect_err("it hangs").to_string();
        assert!(error.contains("did not end within"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "bounded, however loaded the machine is");
    }
}
