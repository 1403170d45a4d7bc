//! The whole pipeline on real servers in containers: runs pass, planted bugs are caught, nothing stays behind however a run
//! ends, and what is missing is said.
//!
//! Needs the cargo feature `containers`, a Docker engine (`.ci/docker start`) and the images, or such as
//! `eval "$(tests/images/build)"` makes.

mod common;

use common::fleetproof;

/// A run that is refused, or that finds nothing to run on: its exit code, and what it says.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let out = tempfile::tempdir().expect("a temporary directory");
    let mut command = fleetproof();
    command.args(["run", "scenarios/quick.toml", "--quiet", "--out"]).arg(out.path()).args(arguments);
    let output = command.envs(environment.iter().copied()).output().expect("fleetproof starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "one error, in one line: {said}");
    (output.status.code(), said)
}

#[cfg(not(feature = "containers"))]
#[test]
fn a_build_without_containers_says_which_feature_brings_them() {
    let (code, said) = refused(&["--on", "containers"], &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--features containers"), "{said}");
}

#[test]
fn a_database_is_chosen_only_where_there_is_a_choice() {
    let (code, said) = refused(&["--store", "postgres"], &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--on containers"), "{said}");
}

#[test]
fn a_fault_of_a_server_is_refused_where_servers_are_part_of_the_harness() {
    let out = tempfile::tempdir().expect("a temporary directory");
    let run = ["run", "scenarios/broker-killed.toml", "--out"];
    let output = fleetproof().args(run).arg(out.path()).output().expect("fleetproof starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("fault kill is not possible on this target") && said.contains("--on containers"), "{said}");
    let left = std::fs::read_dir(out.path().join("broker-killed")).expect("a directory").count();
    assert_eq!(left, 0, "a refused run has no result");
}

#[cfg(feature = "containers")]
mod with_the_feature {
    use std::{
        path::Path,
        process::{Child, Command, Stdio},
        sync::{Mutex, MutexGuard, PoisonError},
        time::Duration,
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use serde_json::Value;

    use super::{
        common::{check, eventually, fleetproof, not_run, nothing_left, outcome},
        refused,
    };

    /// Longest wait for three servers to be up, on a machine that does much else.
    const UP_WITHIN: Duration = Duration::from_secs(180);

    /// Longest wait for everything to be gone.
    const GONE_WITHIN: Duration = Duration::from_secs(60);

    const SMALL: &str = r#"# Does a small fleet converge on real servers, with updates missed and repeated, and bridge and registry killed?
seed = 7
[fleet]
raes = 10
devices_per_rae = 4
update_every = "1s"
snapshot_every = "4s"
reattach_every = "8s"
[pipeline]
session_timeout = "3s"
[[phase]]
name = "load"
lasts = "14s"
[[fault]]
at = "load"
missed_updates = { share = 0.2, lasts = "6s" }
[[fault]]
at = "load"
duplicates = { share = 0.5, delay = "2s", lasts = "8s" }
[[fault]]
at = "load + 1s"
delayed_tails = { share = 1.0, delay = "3s", lasts = "8s" }
[[fault]]
at = "load + 2s"
kill = { part = "bridge", back_after = "1s" }
[[fault]]
at = "load + 5s"
kill = { part = "registry", back_after = "1s" }
[[fault]]
at = "load + 9s"
cut_link = { lasts = "1s" }
[checks]
converged_within = "60s"
stalled_at_most = "30s"
lateness_at_most = "5s"
"#;

    const OUTAGES: &str = r#"# Is a loss told where it happens, when database, Kafka and broker are killed, and bridges cut off?
seed = 8
[fleet]
raes = 10
devices_per_rae = 4
update_every = "1s"
snapshot_every = "4s"
[pipeline]
session_timeout = "3s"
[[phase]]
name = "load"
lasts = "30s"
[[fault]]
at = "load + 1s"
half_open_link = { to = "store", lasts = "1s" }
[[fault]]
at = "load + 3s"
kill = { part = "store", back_after = "1s" }
[[fault]]
at = "load + 9s"
kill = { part = "kafka", back_after = "1s" }
# The bridge is away, so that the broker has a queue to lose.
[[fault]]
at = "load + 24s"
kill = { part = "bridge", back_after = "3s" }
[[fault]]
at = "load + 26s"
kill = { part = "broker", back_after = "1s" }
[checks]
converged_within = "90s"
stalled_at_most = "60s"
lateness_at_most = "5s"
"#;

    /// One stack at a time: three of them and their load are more than a small machine has.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn docker(arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether an engine and the images are here; else it is said which are not.
    fn can_run() -> bool {
        if docker(&["info"]).is_none() {
            not_run("no Docker engine answers: .ci/docker start");
            return false;
        }
        let images = [
            ("FLEETPROOF_IMAGE_MOSQUITTO", "eclipse-mosquitto:2.0.22"),
            ("FLEETPROOF_IMAGE_KAFKA", "apache/kafka:4.1.0"),
            ("FLEETPROOF_IMAGE_POSTGRES", "postgres:17.6"),
        ];
        for (variable, image) in images {
            let image = std::env::var(variable).unwrap_or_else(|_unset| image.to_owned());
            if docker(&["image", "inspect", &image]).is_none() {
                not_run(&format!("the image {image} is not here: eval \"$(tests/images/build)\""));
                return false;
            }
        }
        true
    }

    /// Containers of the run in `directory`, whatever their state.
    fn containers_of(directory: &Path) -> Vec<String> {
        let run = directory.file_name().expect("a run's directory has a name").to_string_lossy();
        let label = format!("label=fleetproof.run={run}");
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &label]).expect("the engine answers");
        listed.lines().map(str::to_owned).collect()
    }

    /// A run that goes on in directories of its own.
    struct Run {
        child: Child,
        directories: tempfile::TempDir,
    }

    impl Run {
        fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
            Run::of(SMALL, arguments, environment)
        }

        fn of(scenario: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
            let directories = tempfile::tempdir().expect("a temporary directory");
            let file = directories.path().join("small.toml");
            std::fs::write(&file, scenario).expect("written");
            let (out, temporary) = (directories.path().join("out"), directories.path().join("temporary"));
            std::fs::create_dir(&temporary).expect("made");
            let mut command = fleetproof();
            command.arg("run").arg(&file).args(["--on", "containers", "--quiet", "--out"]).arg(out);
            command.args(arguments).envs(environment.iter().copied()).env("TMPDIR", temporary);
            Run { child: command.spawn().expect("fleetproof starts"), directories }
        }

        fn signal(&self, signal: Signal) {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
        }

        /// Its directory, once there.
        fn directory(&self) -> Option<std::path::PathBuf> {
            let mut entries = std::fs::read_dir(self.directories.path().join("temporary")).expect("readable").flatten();
            entries.next().map(|entry| entry.path())
        }

        /// Waits for its end: the exit code and `result.json`. Nothing is left of it by then, or shortly after.
        fn end(mut self) -> (Option<i32>, Value) {
            eventually("it has a directory", UP_WITHIN, || self.directory().is_some());
            let directory = self.directory().expect("seen just now");
            let code = self.child.wait().expect("it ends").code();
            eventually("nothing is left", GONE_WITHIN, || {
                nothing_left(&directory) && containers_of(&directory).is_empty()
            });
            let runs = std::fs::read_dir(self.directories.path().join("out/small")).expect("the run has a directory");
            let result = runs.flatten().find_map(|run| std::fs::read(run.path().join("result.json")).ok());
            (code, result.map_or(Value::Null, |text| serde_json::from_slice(&text).expect("it is JSON")))
        }
    }

    /// A run to its verdict. INVALID says nothing of the pipeline, only that the machine was too busy to tell: once more.
    fn judged(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, Value) {
        let (code, result) = Run::start(arguments, environment).end();
        match code {
            Some(3) => Run::start(arguments, environment).end(),
            Some(_) | None => (code, result),
        }
    }

    #[test]
    fn a_small_run_with_faults_passes_under_read_committed_and_serializable() {
        let _alone = alone();
        if !can_run() {
            return;
        }
        for isolation in ["", "-c default_transaction_isolation=serializable"] {
            let (code, result) = judged(&[], &[("FLEETPROOF_POSTGRES_ARGUMENTS", isolation)]);
            assert_eq!((code, &result["verdict"]), (Some(0), &Value::from("PASS")), "{isolation:?}");
            assert_eq!(result["target"], "containers, postgres");
            for check in ["C2", "C5", "C8", "C9", "C15"] {
                assert_eq!(outcome(&result, check), "pass", "{check}, {isolation:?}");
            }
        }
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn a_store_without_a_guard_is_caught_by_c2() {
        let _alone = alone();
        if !can_run() {
            return;
        }
        let (code, result) = judged(&["--sabotage", "store-without-guard"], &[]);
        assert_eq!((code, &result["verdict"]), (Some(1), &Value::from("FAIL")));
        assert_eq!(outcome(&result, "C2"), "fail");
    }

    #[test]
    fn a_killed_broker_loses_its_queue_which_is_told_and_healed_and_kafka_and_database_lose_nothing() {
        let _alone = alone();
        if !can_run() {
            return;
        }
        let run = || Run::of(OUTAGES, &[], &[]).end();
        let (code, result) = match run() {
            (Some(3), _) => run(),
            judged => judged,
        };
        assert_eq!((code, &result["verdict"]), (Some(0), &Value::from("PASS")));
        let balance = check(&result, "C15")["figure"].as_str().expect("text");
        assert!(balance.contains("lost with the MQTT broker that was killed"), "{balance}");
        assert_eq!(result["figures"]["healed_by"]["never"], 0);
    }

    #[test]
    fn ctrl_c_and_sigkill_leave_nothing_behind() {
        let _alone = alone();
        if !can_run() {
            return;
        }
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            let run = Run::start(&[], &[]);
            let servers = || run.directory().map_or(0, |directory| containers_of(&directory).len());
            eventually("its three servers are there", UP_WITHIN, || servers() == 3);
            run.signal(signal);
            let (code, _) = run.end();
            assert_eq!(code, (signal == Signal::SIGINT).then_some(3), "{signal}");
        }
    }

    #[test]
    fn without_an_engine_it_says_so_and_what_to_do() {
        let nowhere = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
        let (code, said) = refused(&["--on", "containers"], &nowhere);
        assert_eq!(code, Some(3), "{said}");
        for words in ["no Docker engine answers", "docker info", "DOCKER_HOST"] {
            assert!(said.contains(words), "{words:?} in {said}");
        }
    }

    #[test]
    fn without_an_image_it_names_the_image_and_the_variable_and_leaves_nothing() {
        let _alone = alone();
        if !can_run() {
            return;
        }
        let absent = "127.0.0.1:1/fleetproof/absent:1";
        for (variable, store) in [("FLEETPROOF_IMAGE_KAFKA", "postgres"), ("FLEETPROOF_IMAGE_COCKROACH", "cockroach")] {
            let (code, said) = refused(&["--on", "containers", "--store", store], &[(variable, absent)]);
            assert_eq!(code, Some(3), "{said}");
            for words in [absent, variable, "tests/images/build"] {
                assert!(said.contains(words), "{words:?} in {said}");
            }
        }
    }
}
