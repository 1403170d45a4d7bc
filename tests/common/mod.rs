//! What the tests of the `fleetproof` program share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "deadlines of waits for processes that are real")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// The program under test, run at the top of the repository, without backtraces in its errors.
pub fn fleetproof() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetproof"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Says that a test was not run, past the test harness, which keeps what passing tests print. In CI that is a failure.
pub fn not_run(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must be able to run this test: {why}");
    let _stderr_closed = writeln!(std::io::stderr(), "NOT RUN: {why}");
}

/// What a `result.json` says of one check.
pub fn check<'a>(result: &'a Value, id: &str) -> &'a Value {
    let checks = result["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["id"] == id).expect("every check of the catalogue has a result")
}

/// How it ended.
pub fn outcome<'a>(result: &'a Value, id: &str) -> &'a str {
    check(result, id)["outcome"]["is"].as_str().expect("an outcome")
}

/// Whether nothing is left of the run in `directory`: neither a file nor a process.
pub fn nothing_left(directory: &Path) -> bool {
    !directory.exists() && processes_of(directory).is_empty()
}

/// Processes whose command line names something in `directory`, the janitor apart.
pub fn processes_of(directory: &Path) -> Vec<Pid> {
    let prefix = format!("{}/", directory.display());
    let entries = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let of_run = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let named = command.split(|&byte| byte == 0).any(|argument| argument.starts_with(prefix.as_bytes()));
        named.then(|| Pid::from_raw(pid))
    };
    entries.filter_map(of_run).collect()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// `fleetproof up`, ready.
pub struct Up {
    child: Child,
    lines: Vec<String>,
}

impl Up {
    pub fn start() -> Up {
        Up::with(&[])
    }

    /// With further arguments.
    pub fn with(arguments: &[&str]) -> Up {
        let mut child =
            fleetproof().arg("up").args(arguments).stdout(Stdio::piped()).spawn().expect("fleetproof starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for line in stdout.lines() {
            let line = line.expect("text");
            let ready = line.starts_with("ready");
            lines.push(line);
            if ready {
                return Up { child, lines };
            }
        }
        panic!("up ended before it was ready: {lines:?}, {:?}", child.wait());
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What stands behind `label` at the begin of a line.
    pub fn value(&self, label: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("no {label:?} in {:?}", self.lines)).trim()
    }

    /// The directory of its files.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(self.value("logs")).parent().expect("logs are in it").to_owned()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _gone_already = kill(self.pid(), Signal::SIGINT);
        let _ended = self.child.wait();
    }
}
