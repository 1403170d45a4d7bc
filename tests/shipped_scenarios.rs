//! What ships in `scenarios/` is read without a mistake, asks a question, and fits into a run of CI.

use std::{path::PathBuf, time::Duration};

use fleetproof::scenario::Scenario;

fn shipped() -> Vec<(PathBuf, Scenario)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(directory).expect("there").map(|entry| entry.expect("readable").path());
    let read = |path: PathBuf| {
        let scenario = Scenario::from_file(&path, &[], None).unwrap_or_else(|error| panic!("{error}"));
        (path, scenario)
    };
    entries.map(read).collect()
}

#[test]
fn every_shipped_scenario_is_correct_and_asks_a_question() {
    let shipped = shipped();
    assert!(shipped.len() >= 10, "{}", shipped.len());
    for (path, scenario) in shipped {
        assert!(scenario.question.ends_with('?'), "{}: {}", path.display(), scenario.question);
    }
}

#[test]
fn every_shipped_scenario_is_short_enough_to_run_with_all_others() {
    for (path, scenario) in shipped() {
        assert!(scenario.load() <= Duration::from_secs(60), "{}: {:?} of load", path.display(), scenario.load());
        assert!(scenario.fleet.snapshot_every <= Duration::from_secs(30), "{}: settling is slow", path.display());
    }
}
