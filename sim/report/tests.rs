//! A made-up outcome, laid out and written.

use std::{path::Path, time::Duration};

use super::{Terminal, brief, directory, summary, write};
use crate::{
    check::verdict::{CheckId, CheckResult, Class, Moment, Outcome, Verdict, Witness},
    history::Stage,
    observe::{
        BeforeAfterFigures, FaultFigures, Figures, Healed, HealedBy, Percentiles, PhaseFigures, Point, SideFigures,
        WindowFigures,
    },
    run::{Environment, Progress, RunOutcome, Sabotage},
    scenario::Scenario,
};

const SCENARIO: &str = "# Does the registry catch up after a burst, with updates missed and the bridge killed?
[[phase]]
name = \"burst\"
lasts = \"10s\"
";

fn check(id: CheckId, name: &'static str, class: Class, outcome: Outcome, figure: &str, limit: &str) -> CheckResult {
    CheckResult { id, name, class, outcome, figure: figure.to_owned(), limit: limit.to_owned(), observed: 1 }
}

fn failed() -> Outcome {
    let moment = |ms, what: &str| Moment { at: Duration::from_millis(ms), what: what.to_owned() };
    let witness = Witness {
        what: "device 6f1c1a2e-3d21-5b7a-9d55-0d7f53c1a001: partition 4 was committed up to 1,204, and record 1,198 \
               (epoch 1785, seq 17, availability) was in no row when the offset moved"
            .to_owned(),
        at: Duration::from_millis(18_204),
        timeline: vec![
            moment(17_950, "change 12 intended: availability = in_test"),
            moment(17_952, "published as seq 17"),
            moment(17_955, "acknowledged by the broker"),
            moment(17_961, "record 1,198 of partition 4"),
            moment(18_204, "offset 1,204 committed, and the row still at seq 16"),
        ],
    };
    Outcome::Fail { witnesses: vec![witness], count: 37 }
}

fn outcome() -> RunOutcome {
    let scenario = Scenario::from_text("quick", SCENARIO, &[], Some(7)).expect("correct");
    let percentiles = |p50, p99, max| Percentiles { count: 900, p50, p99, p999: max, max };
    let phase = |name: &str, stage, begins_s, ends_s| PhaseFigures {
        name: name.to_owned(),
        stage,
        begins_s,
        ends_s,
        published: 8_120,
        appended: 8_120,
        latency_ms: percentiles(21.0, 184.0, 1_460.0),
        staleness_ms: percentiles(0.0, 140.0, 2_210.0),
        lag_committed: percentiles(320.0, 2_900.0, 12_004.0),
        lag_reflected: percentiles(3.0, 120.0, 11_020.0),
        command_ms: percentiles(8.0, 31.0, 40.0),
    };
    let series = (0..=40u32).map(|second| Point {
        at_s: f64::from(second),
        lag_committed: if (15..25).contains(&second) { u64::from(25 - second) * 1_200 } else { 300 },
        ..Point::default()
    });
    let figures = Figures {
        phases: vec![phase("warm-up", Stage::WarmUp, 0.0, 4.0), phase("burst", Stage::Load, 4.0, 14.0)],
        series: series.collect(),
        healed_by: HealedBy {
            own_update: 23_040,
            snapshot: Healed { count: 400, after_ms: percentiles(14_900.0, 29_000.0, 31_000.0) },
            requested_snapshot: Healed { count: 12, after_ms: percentiles(2_300.0, 3_100.0, 3_200.0) },
            ..HealedBy::default()
        },
        repaired_ms: Percentiles::default(),
        unrepaired_ms: Percentiles::default(),
        faults: vec![
            FaultFigures { what: "missed_updates share 0.02".to_owned(), began_s: 5.0, ended_s: Some(15.0) },
            FaultFigures { what: "kill bridge 0".to_owned(), began_s: 15.0, ended_s: None },
        ],
        memory_bytes: [("bridge-0".to_owned(), 41 << 20), ("registry-0".to_owned(), 58 << 20)].into(),
        lateness_ms_max: 12.4,
        converged_after_s: Some(2.31),
        reconstructions: Vec::new(),
        before_after: None,
    };
    let not_seen = Outcome::NotObservable("start positions are not visible from outside".to_owned());
    let unclear = Outcome::Invalid("nothing was observed: no offset was committed twice".to_owned());
    let checks = vec![
        check(CheckId::C1, "provenance", Class::Safety, Outcome::Pass, "43,210 attributes", ""),
        check(CheckId::C5, "commit safety", Class::Safety, failed(), "37 of 23,452 records", "none"),
        check(CheckId::C5b, "start position", Class::Safety, not_seen, "", ""),
        check(CheckId::C6, "commit monotonicity", Class::Safety, unclear, "0 commits", ""),
        check(CheckId::C10, "staleness", Class::Liveness, Outcome::Pass, "p99 184 ms", "at most 500 ms"),
        check(
            CheckId::C11,
            "lag",
            Class::Liveness,
            Outcome::Pass,
            "peak 12004, p99 760 committed, 84 reflected, quiet again after 210.9ms",
            "peak at most 20000, quiet (300) within 10s",
        ),
        check(CheckId::Generator, "generator", Class::Validity, Outcome::Pass, "12 ms late", "at most 500 ms"),
    ];
    RunOutcome {
        verdict: Verdict::Fail,
        checks,
        figures,
        scenario,
        target: "embedded".to_owned(),
        began_at: "2026-01-02T03:04:05Z".to_owned(),
        took_s: 41.23,
        left_behind: vec!["what hooks.kafka.cut_link began (index 0): hooks.kafka.mend_link ended with 1".to_owned()],
        sabotage: Some(Sabotage { name: "registry-commits-early".to_owned(), hits: None }),
        environment: Environment {
            fleetproof: "0.1.0".to_owned(),
            cores: 2,
            optimized: true,
            ..Environment::default()
        },
        reproduce: "fleetproof run scenarios/quick.toml --seed 7".to_owned(),
    }
}

#[test]
fn a_summary_names_verdict_checks_witness_timeline_file_and_how_to_see_it_again() {
    let text = summary(&outcome(), Path::new("reports/quick/x-7/result.json"), Terminal::new(100, false));
    println!("{}", summary(&outcome(), Path::new("reports/quick/x-7/result.json"), Terminal::new(100, true)));
    for words in [
        "FAIL  quick · seed 7 · embedded · 41.2 s",
        "Does the registry catch up after a burst",
        "planted bug registry-commits-early",
        "not as it was, end this by hand: what hooks.kafka.cut_link began",
        "C5b  start position       not seen",
        "37 in all, the first 1",
        "17.950 s  change 12 intended",
        "23,452, of which 412 (1.76 %) were missed at first",
        "snapshot 400 (median 14.9 s, p99 29.0 s), requested snapshot 12 (median 2.3 s, p99 3.1 s)",
        "burst 900: p50 8 ms, p99 31 ms, max 40 ms",
        "peak 12,004 records",
        "reports/quick/x-7/result.json",
        "fleetproof run scenarios/quick.toml --seed 7",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours where none were asked for");
}

#[test]
fn a_summary_keeps_to_the_width_of_the_terminal() {
    for width in [80, 100, 120] {
        let text = summary(&outcome(), Path::new("result.json"), Terminal::new(width, false));
        let longest = text.lines().max_by_key(|line| line.chars().count()).expect("lines");
        assert!(longest.chars().count() <= width, "{width}: {longest}\n{text}");
    }
}

#[test]
fn a_comparison_shows_both_sides_and_how_each_follows_what_is_published() {
    let window = |reflected, lag_ends| {
        let (begins_s, ends_s, published, lag_begins) = (12.0, 22.0, 3_000, 40);
        WindowFigures { begins_s, ends_s, published, reflected, lag_begins, lag_ends }
    };
    let before = SideFigures {
        queue: 12_345,
        records: 6_000,
        commits: 6_000,
        wrong_rows: 180,
        devices: 600,
        windows: vec![window(1_500, 1_540)],
        ..SideFigures::default()
    };
    let after = SideFigures {
        queue: 31,
        queue_cap: Some(2_128),
        records: 12_000,
        commits: 40,
        devices: 600,
        windows: vec![window(2_994, 46)],
        ..SideFigures::default()
    };
    let mut outcome = outcome();
    outcome.figures.before_after = Some(BeforeAfterFigures { before, after });
    let text = summary(&outcome, Path::new("result.json"), Terminal::new(100, false));
    for words in ["12,345 no bound", "31 of 2,128", "1.0000", "0.0033", "180 of 600", "0 of 600"] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let followed = text.lines().find(|line| line.contains("12 to 22 s: 300/s published")).expect("a window");
    assert!(followed.contains("150/s, 50.0 %") && followed.contains("299/s, 99.8 %"), "{followed}");
}

#[test]
fn a_quiet_run_ends_in_one_line_with_the_checks_that_did_not_pass() {
    let line = brief(&outcome(), Path::new("r/result.json"), Terminal::new(100, false));
    let expected =
        "FAIL  quick · seed 7 · embedded · 41.2 s: C5 commit safety, C6 commit monotonicity  r/result.json\n";
    assert_eq!(line, expected);
}

#[test]
fn progress_is_one_line_with_rates_lag_and_faults() {
    let progress = Progress {
        phase: "burst".to_owned(),
        elapsed: Duration::from_secs(12),
        expected: Duration::from_secs(41),
        published_per_s: 1_912.4,
        reflected_per_s: 899.0,
        lag: 1_204,
        devices_behind: 3,
        devices: 2_400,
        faults: vec!["kill".to_owned()],
        ..Progress::default()
    };
    let expected = "burst     12/41 s  in 1,912/s  out 899/s  lag 1,204  behind 3 of 2,400  [kill]";
    assert_eq!(super::progress::line(&progress), expected);
}

#[test]
fn a_result_file_holds_the_whole_outcome_and_each_run_has_a_directory_of_its_own() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let began = "2026-01-02T03:04:05Z".parse().expect("a time");
    let first = directory(root.path(), "quick", 7, began).expect("made");
    let second = directory(root.path(), "quick", 7, began).expect("made");
    assert_eq!(first, root.path().join("quick/20260102T030405Z-7"));
    assert_ne!(first, second);
    let path = write(&first, &outcome()).expect("written");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON");
    assert_eq!((&json["format"], &json["verdict"]), (&2.into(), &"FAIL".into()));
    assert_eq!(json["checks"][1]["id"], "C5");
    assert_eq!(json["checks"][1]["outcome"]["is"], "fail");
    assert_eq!(json["checks"][1]["outcome"]["because"]["witnesses"][0]["timeline"][0]["at"], 17.95);
    assert_eq!(json["scenario"]["phases"][0]["lasts"], "10s");
    assert_eq!(json["figures"]["series"].as_array().expect("a series").len(), 41);
}
