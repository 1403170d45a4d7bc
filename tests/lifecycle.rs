//! Whatever way a run ends, nothing is left: no process, no file, no port.

mod common;

use std::time::Duration;

use common::{Up, eventually, fleetproof, nothing_left, processes_of};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest wait for everything to be gone: children that drain take some seconds.
const GONE_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn ctrl_c_ends_everything_that_up_started() {
    let up = Up::start();
    let directory = up.directory();
    assert!(directory.exists());
    kill(up.pid(), Signal::SIGINT).expect("it runs");
    eventually("the directory and all processes are gone", GONE_WITHIN, || nothing_left(&directory));
}

#[test]
fn a_parent_that_is_killed_leaves_nothing_behind_even_with_a_stopped_child() {
    let up = Up::start();
    let directory = up.directory();
    let children = processes_of(&directory);
    assert!(children.len() >= 2, "bridge and registry run: {children:?}");
    kill(children[0], Signal::SIGSTOP).expect("it runs");
    kill(up.pid(), Signal::SIGKILL).expect("it runs");
    eventually("the directory and all processes are gone", GONE_WITHIN, || nothing_left(&directory));
}

#[test]
fn an_interrupted_run_says_so_and_exits_with_3() {
    let out = tempfile::tempdir().expect("a temporary directory");
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut run = fleetproof()
        .args(["run", "scenarios/quick.toml", "--set", "fleet.raes=5", "--quiet", "--out"])
        .arg(out.path())
        .env("TMPDIR", temporary.path())
        .spawn()
        .expect("fleetproof starts");
    let directories = || std::fs::read_dir(temporary.path()).expect("readable").flatten().map(|entry| entry.path());
    eventually("its pipeline runs", GONE_WITHIN, || directories().any(|directory| processes_of(&directory).len() >= 2));
    let directory = directories().next().expect("seen just now");
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGINT).expect("it runs");
    assert_eq!(run.wait().expect("it ends").code(), Some(3));
    eventually("the directory and all processes are gone", GONE_WITHIN, || nothing_left(&directory));
}
