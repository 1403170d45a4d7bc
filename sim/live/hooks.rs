//! Faults that are done by commands of the target: each runs in a shell within a bound, and what it began is ended, however
//! the run ends.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::target::{Hook, Hooks as Commands};

/// Most of what a failed command said that is told.
const WORDS: usize = 400;

/// The hooks of a run.
#[derive(Debug)]
pub(super) struct Hooks {
    commands: Commands,
    run: String,
    /// What is still to be ended, by the number of its fault.
    begun: Mutex<BTreeMap<usize, (Hook, u8)>>,
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

    /// Begins fault number `fault` by `hook`; `end` ends it, where it is given.
    ///
    /// # Errors
    /// If the command fails, or takes too long.
    pub(super) async fn begin(&self, fault: usize, hook: Hook, end: Hook, index: u8) -> anyhow::Result<()> {
        // Before the command: also what was begun half is to be ended.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(fault, (end, index));
        self.run(hook, index).await
    }

    /// Ends fault number `fault`.
    ///
    /// # Errors
    /// As [`Hooks::begin`].
    pub(super) async fn end(&self, fault: usize) -> anyhow::Result<()> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&fault);
        match begun {
            Some((end, index)) if self.commands.commands.contains_key(&end) => self.run(end, index).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Ends all that is begun, and tells what could not be.
    pub(super) async fn end_all(&self) -> Vec<anyhow::Error> {
        let begun: Vec<_> = self.begun.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let mut failed = Vec::new();
        for fault in begun {
            failed.extend(self.end(fault).await.err());
        }
        failed
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
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let within = self.commands.within;
        let Ok(ended) = tokio::time::timeout(within, child.wait_with_output()).await else {
            if let Some(group) = group {
                let _gone_already = killpg(group, Signal::SIGKILL);
            }
            bail!("{key} did not end within {within:?}, and was killed");
        };
        let ended = ended.with_context(|| format!("running {key}"))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said: String = said.trim().chars().take(WORDS).collect();
            bail!("{key} ended with {}: {said}", ended.status);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::scenario::Part;

    const KILL: Hook = Hook::Kill(Part::Registry);
    const START: Hook = Hook::Start(Part::Registry);

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
        hooks.begin(0, KILL, START, 2).await.expect("it runs");
        hooks.end(0).await.expect("it runs");
        hooks.begin(1, KILL, START, 0).await.expect("it runs");
        assert!(hooks.end_all().await.is_empty());
        assert!(hooks.end_all().await.is_empty());
        let said = std::fs::read_to_string(&file).expect("said");
        assert_eq!(said, "kill LAB1 2\nstart LAB1 2\nkill LAB1 0\nstart LAB1 0\n");
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why_and_one_that_hangs_is_ended_with_its_children() {
        let failing = hooks(&[(KILL, "echo no such pod >&2; exit 3".to_owned())]);
        let error = failing.begin(0, KILL, START, 0).await.expect_err("it fails").to_string();
        assert!(error.contains("hooks.registry.kill") && error.contains("no such pod"), "{error}");
        let began = Instant::now();
        let hanging = hooks(&[(KILL, "sleep 60 | sleep 60".to_owned())]);
        let error = hanging.begin(0, KILL, START, 0).await.expect_err("it hangs").to_string();
        assert!(error.contains("did not end within"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "bounded, however loaded the machine is");
    }
}
