//! The program's verdicts and exit codes, on small runs of the whole embedded pipeline.

mod common;

use std::path::Path;

use common::{fleetproof, outcome};
use serde_json::Value;

/// A run of a scenario given as text: its exit code and `result.json`.
fn run(scenario: &str, sets: &[&str]) -> (Option<i32>, Value) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("small.toml");
    std::fs::write(&file, scenario).expect("written");
    let mut command = fleetproof();
    command.arg("run").arg(&file).args(["--quiet", "--out"]).arg(directory.path());
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().expect("fleetproof starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), result_in(&directory.path().join("small")))
}

fn result_in(runs: &Path) -> Value {
    let run = std::fs::read_dir(runs).expect("the run has a directory").next().expect("one run").expect("readable");
    let text = std::fs::read(run.path().join("result.json")).expect("there is a result.json");
    serde_json::from_slice(&text).expect("result.json is JSON")
}

const SMALL: &str = r#"# Does a small fleet converge after a burst with missed updates and a killed bridge?
seed = 7
[fleet]
raes = 10
devices_per_rae = 4
update_every = "1s"
snapshot_every = "2s"
[[phase]]
name = "burst"
lasts = "6s"
rate = 2.0
[[fault]]
at = "burst"
missed_updates = { share = 0.2, lasts = "4s" }
[[fault]]
at = "burst + 2s"
kill = { part = "bridge", back_after = "1s" }
[checks]
converged_within = "30s"
lateness_at_most = "5s"
"#;

#[test]
fn a_small_run_passes_and_its_result_holds_what_a_report_needs() {
    let (code, result) = run(SMALL, &[]);
    assert_eq!((code, &result["verdict"]), (Some(0), &Value::from("PASS")));
    let figures = &result["figures"];
    assert!(figures["series"].as_array().is_some_and(|series| series.len() > 5), "a point per second");
    for key in ["published_per_s", "reflected_per_s", "lag_committed", "lag_reflected", "staleness_ms", "queues"] {
        assert!(!figures["series"][3][key].is_null(), "{key}");
    }
    assert_eq!(figures["faults"].as_array().map(Vec::len), Some(2));
    assert!(figures["healed_by"]["own_update"].as_u64().is_some_and(|updates| updates > 0));
    assert_eq!(figures["healed_by"]["never"], 0);
}

#[test]
fn a_run_in_which_nothing_changes_is_invalid_since_its_checks_saw_nothing() {
    let (code, result) = run(SMALL, &["fleet.update_every=24h"]);
    assert_eq!((code, &result["verdict"]), (Some(3), &Value::from("INVALID")));
    assert_eq!(outcome(&result, "C10"), "invalid");
}

#[test]
fn a_run_whose_generator_cannot_keep_its_schedule_is_invalid() {
    // 30,000 changes a second, each saved and published: more than one process can say on any machine of today, and not so
    // many that catching up with them takes minutes.
    let sets = ["fleet.update_every=40ms", "fleet.raes=30", "fleet.devices_per_rae=20", "checks.lateness_at_most=20ms"];
    let (code, result) = run(SMALL, &sets);
    assert_eq!((code, &result["verdict"]), (Some(3), &Value::from("INVALID")));
    assert_eq!(outcome(&result, "Generator"), "fail");
}
