//! Where results and temporary files cannot go: refused at the start, and a disk that runs full in mid-run ends the run
//! as INVALID, with a report, without a panic, and with nothing left.
//!
//! Needs root, to mount a tmpfs; where that is not possible the tests say that they were not run, and in CI they fail.

mod common;
#[path = "common/tmpfs.rs"]
mod tmpfs;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use common::{eventually, fleetproof, not_run, nothing_left, processes_of};
use tmpfs::Tmpfs;

/// Longest wait for a pipeline to be up, and for a run to end after its disk is full: stopping takes up to 30 s of it.
const WITHIN: Duration = Duration::from_secs(120);

/// Less than a run asks for, in MiB.
const TOO_SMALL: u32 = 16;

/// What a run asks for, and some, in MiB.
const ENOUGH: u32 = 96;

/// Devices of [`LONG`].
const DEVICES: i64 = 40;

/// Far longer than a test has patience for: only the full disk ends it in time.
const LONG: &str = r#"# Does a run end in good order when its disk is full?
seed = 7
[fleet]
raes = 10
devices_per_rae = 4
update_every = "100ms"
snapshot_every = "2s"
record_bytes = "4KiB"
[[phase]]
name = "load"
lasts = "10m"
[checks]
lateness_at_most = "10s"
"#;

#[test]
fn results_below_a_plain_file_are_refused_before_anything_is_started() {
    let place = Place::new();
    let file = place.file("plain", "no directory");
    let refused = run(&place, &file.join("results"), place.temporary.path()).output().expect("fleetproof starts");
    assert_refused(&refused, 2, &["writing to", "plain/results", "Not a directory"]);
    assert!(is_empty(place.temporary.path()));
}

#[test]
fn results_in_a_read_only_directory_are_refused_before_anything_is_started() {
    let Some(disk) = mount(ENOUGH) else { return };
    let place = Place::new();
    disk.make_read_only();
    let refused = run(&place, disk.path(), place.temporary.path()).output().expect("fleetproof starts");
    assert_refused(&refused, 2, &["writing to", &disk.path().display().to_string(), "Read-only file system"]);
    assert!(is_empty(place.temporary.path()));
}

#[test]
fn too_little_room_for_temporary_files_or_for_results_is_refused_and_leaves_nothing() {
    let Some(disk) = mount(TOO_SMALL) else { return };
    let place = Place::new();
    let named = disk.path().display().to_string();
    let told = [named.as_str(), "has 16 MiB free", "needs at least 64 MiB"];
    let out = place.results.path().join("results");
    let refused = run(&place, &out, disk.path()).output().expect("fleetproof starts");
    assert_refused(&refused, 3, &told);
    assert!(!out.exists() && is_empty(disk.path()));

    let refused = run(&place, &disk.path().join("results"), place.temporary.path()).output().expect("starts");
    assert_refused(&refused, 3, &told);
    assert!(is_empty(disk.path()) && is_empty(place.temporary.path()));

    let refused = fleetproof().arg("up").env("TMPDIR", disk.path()).output().expect("fleetproof starts");
    assert_refused(&refused, 3, &told);
    assert!(is_empty(disk.path()));
}

#[test]
fn a_disk_of_the_pipeline_that_runs_full_ends_the_run_as_invalid_with_a_report_and_nothing_left() {
    let Some(disk) = mount(ENOUGH) else { return };
    let place = Place::new();
    let output = fill_in_mid_run(&disk, &place, place.results.path(), disk.path());
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("INVALID") && stdout.contains("No space left on device"), "{stdout}{stderr}");
    assert!(!stdout.contains("lost by the"), "nobody is blamed for what was on its way: {stdout}");
    let run = only_run(place.results.path());
    let result = std::fs::read_to_string(run.join("result.json")).expect("results are on another disk");
    assert!(result.contains(r#""verdict": "INVALID""#), "the verdict is in the file");
    no_panic(&output, &run);
}

#[test]
fn a_disk_of_the_results_that_runs_full_ends_the_run_as_invalid_with_a_report_and_nothing_left() {
    let Some(disk) = mount(ENOUGH) else { return };
    let place = Place::new();
    let output = fill_in_mid_run(&disk, &place, disk.path(), place.temporary.path());
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("INVALID") && stdout.contains("No space left on device"), "{stdout}{stderr}");
    assert!(stderr.contains("error: writing") && stderr.contains("result.json"), "{stderr}");
    no_panic(&output, &only_run(disk.path()));
}

/// Where a test keeps what it does not fill.
struct Place {
    results: tempfile::TempDir,
    temporary: tempfile::TempDir,
    scenario: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = || tempfile::tempdir().expect("a temporary directory");
        let mut place = Place { results: directory(), temporary: directory(), scenario: PathBuf::new() };
        place.scenario = place.file("long.toml", LONG);
        place
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.results.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn mount(mib: u32) -> Option<Tmpfs> {
    let disk = Tmpfs::mount(mib);
    if disk.is_none() {
        not_run("no tmpfs can be mounted here, which needs root");
    }
    disk
}

fn run(place: &Place, out: &Path, temporary: &Path) -> Command {
    let mut command = fleetproof();
    command.arg("run").arg(&place.scenario).arg("--out").arg(out).env("TMPDIR", temporary);
    command
}

/// Starts a run, fills `disk` when every device is in the store, and sees that nothing is left when the run has ended.
fn fill_in_mid_run(disk: &Tmpfs, place: &Place, out: &Path, temporary: &Path) -> Output {
    let mut command = run(place, out, temporary);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fleetproof starts");
    let run_in = || std::fs::read_dir(temporary).expect("readable").flatten().map(|entry| entry.path()).next();
    eventually("every device is in the store", WITHIN, || run_in().is_some_and(|run| devices(&run) == Some(DEVICES)));
    let directory = run_in().expect("seen just now");
    assert!(processes_of(&directory).len() >= 2, "bridge and registry run");
    disk.fill();
    let output = running.wait_with_output().expect("it ends");
    eventually("the directory and all processes are gone", WITHIN, || nothing_left(&directory));
    output
}

fn devices(run: &Path) -> Option<i64> {
    let store = rusqlite::Connection::open_with_flags(
        run.join("store.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    );
    store.ok()?.query_row("SELECT count(*) FROM device", [], |row| row.get(0)).ok()
}

/// One line that says it all, and nothing else.
fn assert_refused(output: &Output, code: i32, told: &[&str]) {
    let (stdout, stderr) = texts(output);
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert!(stdout.is_empty() && stderr.lines().count() == 1 && stderr.starts_with("error: "), "{stdout}{stderr}");
    for words in told {
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
    }
}

/// Neither the program nor bridge or registry, whose panics would be in their logs, if these had room.
fn no_panic(output: &Output, run: &Path) {
    let (stdout, stderr) = texts(output);
    assert!(!stdout.contains("panicked") && !stderr.contains("panicked"), "{stdout}{stderr}");
    for log in std::fs::read_dir(run.join("logs")).expect("there are logs").flatten() {
        let text = std::fs::read_to_string(log.path()).expect("text");
        assert!(!text.contains("panicked"), "{}: {text}", log.path().display());
    }
}

fn only_run(results: &Path) -> PathBuf {
    let mut runs = std::fs::read_dir(results.join("long")).expect("the scenario has a directory").flatten();
    runs.next().expect("the run has a directory").path()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("readable").next().is_none()
}
