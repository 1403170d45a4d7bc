//! `dmp-registry` on a store that it cannot use: one line that names the path, exit code 1, no panic.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::disk;

#[test]
fn a_store_in_a_missing_directory_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("missing/store.db");
    assert_refused(&registry(folder.path(), &path), &folder.path().join("missing"), "does not exist");
}

#[test]
fn a_directory_in_place_of_the_store_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.db");
    std::fs::create_dir(&path).expect("made");
    assert_refused(&registry(folder.path(), &path), &path, "is a directory");
}

#[test]
fn a_store_below_a_plain_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plain");
    std::fs::write(&file, "no directory").expect("written");
    assert_refused(&registry(folder.path(), &file.join("store.db")), &file, "not a directory");
}

#[test]
fn a_store_in_a_read_only_directory_is_refused() {
    let Some(disk) = disk(4) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    disk.make_read_only();
    let path = disk.path().join("store.db");
    assert_refused(&registry(folder.path(), &path), &path, "read-only");
}

#[test]
fn a_store_that_is_there_and_read_only_is_refused() {
    let Some(disk) = disk(4) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = disk.path().join("store.db");
    // A database already, so that only its being read-only stands in the way.
    let made = rusqlite::Connection::open(&path).and_then(|file| file.execute_batch("CREATE TABLE other (a)"));
    made.expect("there is room");
    disk.make_read_only();
    assert_refused(&registry(folder.path(), &path), &path, "read-only");
}

#[test]
fn a_store_on_a_full_disk_is_refused() {
    let Some(disk) = disk(1) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    disk.fill();
    let path = disk.path().join("store.db");
    assert_refused(&registry(folder.path(), &path), &path, "full");
}

#[test]
fn a_standard_error_that_takes_nothing_changes_no_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut program = program(folder.path(), &folder.path().join("missing/store.db"));
    let ended = program.env("DMP_LOG", "trace").stderr(full).status().expect("it starts");
    assert_eq!(ended.code(), Some(1), "a panic would end it with 101");
}

/// `dmp-registry`, whose Kafka is nowhere: the store comes first.
fn program(folder: &Path, store: &Path) -> Command {
    let config: PathBuf = folder.join("registry.toml");
    let url = format!("sqlite:{}", store.display());
    let text = format!("start_within = \"100ms\"\n[kafka]\nbootstrap = \"127.0.0.1:1\"\n[store]\nurl = {url:?}\n");
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmp-registry"));
    command.arg(config).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

fn registry(folder: &Path, store: &Path) -> Output {
    program(folder, store).output().expect("it starts")
}

fn assert_refused(output: &Output, path: &Path, why: &str) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.is_empty() && !stderr.contains("panicked"), "{stdout}{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("dmp-registry: ") && last.contains(&path.display().to_string()), "{stderr}");
    assert!(last.to_lowercase().contains(why), "{why:?} is not in {last}");
}
