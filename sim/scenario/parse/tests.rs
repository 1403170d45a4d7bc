//! Malformed scenarios, each with the line, the key and the words of its error; and what a correct one comes out as.

use std::time::Duration;

use super::{Override, Problem, ScenarioError};
use crate::scenario::{Addressee, Ask, FaultKind, OldRae, Part, Scenario, Server, ServerFault, quantity::Shift};

/// A correct scenario, of which each test breaks something. Its lines are counted from 1.
const CORRECT: &str = r#"# Does the registry catch up after a burst?
seed = 7
[fleet]
raes = 200
update_every = "10s"
[pipeline]
shard_groups = 2
bridges = 2
[[phase]]
name = "steady"
lasts = "5s"
[[phase]]
name = "burst"
lasts = "10s"
rate = 8.0
[[fault]]
at = "burst + 5s"
kill = { part = "bridge", index = 1, back_after = "2s" }
[checks]
converged_within = "20s"
lag_peak = { at_most = 20_000 }
"#;

fn problems(text: &str, overrides: &[&str]) -> Vec<Problem> {
    let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().expect("key=value")).collect();
    match Scenario::from_text("test", text, &overrides, None) {
        Ok(scenario) => panic!("accepted: {scenario:#?}"),
        Err(ScenarioError::Invalid(problems)) => problems.0,
        Err(error @ ScenarioError::Read { .. }) => panic!("{error}"),
    }
}

/// The correct scenario with `from` replaced by `to` has exactly one problem: on this line, at this key, in these words.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, key: &str, words: &str) {
    assert!(CORRECT.contains(from), "{from:?} is not in the correct scenario");
    the_only_problem(&problems(&CORRECT.replacen(from, to, 1), &[]), line, key, words);
}

/// There is exactly one problem: on this line, at this key, in these words.
#[track_caller]
pub(crate) fn the_only_problem(problems: &[Problem], line: usize, key: &str, words: &str) {
    let shown = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n");
    assert_eq!(problems.len(), 1, "{shown}");
    assert_eq!((problems[0].line, problems[0].key.as_str()), (line, key), "{shown}");
    assert!(shown.contains(words), "no {words:?} in:\n{shown}");
}

#[test]
fn a_correct_scenario_is_read_with_its_defaults() {
    let scenario = Scenario::from_text("burst", CORRECT, &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(scenario.name, "burst");
    assert_eq!(scenario.question, "Does the registry catch up after a burst?");
    assert_eq!((scenario.seed, scenario.fleet.raes, scenario.fleet.devices_per_rae), (7, 200, 12));
    assert_eq!((scenario.pipeline.partitions, scenario.pipeline.registries), (12, 1));
    assert_eq!(scenario.phases[1].rate, 8.0);
    let fault = &scenario.faults[0];
    assert_eq!((fault.at, fault.at_text.as_str()), (Duration::from_secs(10), "burst + 5s"));
    assert_eq!(fault.kind, FaultKind::Kill { part: Part::Bridge, index: 1, back_after: Duration::from_secs(2) });
    assert_eq!(scenario.checks.lag_peak, Some(20_000));
    assert_eq!(scenario.checks.quiet_lag, 300);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    refused("raes = 200", "raess = 200", 4, "fleet.raess", "did you mean `raes`?");
    refused("[checks]", "[check]", 19, "check", "did you mean `checks`?");
    refused("rate = 8.0", "rates = 8.0", 15, "phase[1].rates", "did you mean `rate`?");
    refused("index = 1", "indx = 1", 18, "fault[0].kill.indx", "did you mean `index`?");
    refused("at_most = 20_000", "atmost = 20_000", 21, "checks.lag_peak.atmost", "did you mean `at_most`?");
    refused("seed = 7", "sed = 7", 2, "sed", "did you mean `seed`?");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_the_right_one() {
    refused("raes = 200", "raes = \"many\"", 4, "fleet.raes", "expected a whole number");
    refused("raes = 200", "raes = 2.5", 4, "fleet.raes", "expected a whole number");
    refused("rate = 8.0", "rate = true", 15, "phase[1].rate", "expected a number");
    refused("lasts = \"5s\"", "lasts = 5", 11, "phase[0].lasts", "expected a duration such as");
    refused("{ at_most = 20_000 }", "20_000", 21, "checks.lag_peak", "such as { at_most = 20_000 }");
    refused("[fleet]\nraes", "[[fleet]]\nraes", 3, "fleet", "only [[phase]], [[fault]] and [[command]] are lists");
    let positional = "kill = [\"bridge\", 1, \"2s\"]";
    let kill = "kill = { part = \"bridge\", index = 1, back_after = \"2s\" }";
    refused(kill, positional, 18, "fault[0].kill", "a list where");
    refused("[[fault]]", "[fault]", 16, "fault", "write it as [[fault]]");
}

#[test]
fn a_duration_or_size_that_is_none_is_refused_at_its_key() {
    refused("lasts = \"5s\"", "lasts = \"5 s\"", 11, "phase[0].lasts", "\"250ms\"");
    refused("lasts = \"5s\"", "lasts = \"10x\"", 11, "phase[0].lasts", "\"250ms\"");
    refused("back_after = \"2s\"", "back_after = \"2.5s\"", 18, "fault[0].kill.back_after", "\"250ms\"");
    refused("raes = 200", "record_bytes = \"1 KB\"", 4, "fleet.record_bytes", "\"64KiB\"");
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    refused("raes = 200", "raes = 0", 4, "fleet.raes", "1 to 20,000");
    refused("raes = 200", "raes = -5", 4, "fleet.raes", "-5 is out of range");
    refused("raes = 200", "record_bytes = \"1MiB\"", 4, "fleet.record_bytes", "400 bytes to 65,536 bytes");
    refused("raes = 200", "unset_share = 1.5", 4, "fleet.unset_share", "0 to 1");
    refused("raes = 200", "qos = 2", 4, "fleet.qos", "0 to 1");
    refused("rate = 8.0", "rate = -1", 15, "phase[1].rate", "0 to 1000");
    refused("rate = 8.0", "rate = nan", 15, "phase[1].rate", "0 to 1000");
    refused("lasts = \"5s\"", "lasts = \"0s\"", 11, "phase[0].lasts", "\"100ms\" to \"24h\"");
    refused("seed = 7", "seed = -1", 2, "seed", "-1 is out of range");
    refused("shard_groups = 2", "shard_groups = 3", 7, "pipeline.shard_groups", "1, 2, 4, 8 or 16");
    refused("raes = 200", "raes = 20_000\ndevices_per_rae = 1_000", 4, "fleet.raes", "at most 1,000,000");
}

#[test]
fn a_fault_must_hit_something_that_exists() {
    refused("\"burst + 5s\"", "\"brust + 5s\"", 17, "fault[0].at", "did you mean `burst`?");
    refused("\"burst + 5s\"", "\"burst + 5\"", 17, "fault[0].at", "\"5\" is no duration");
    refused("\"burst + 5s\"", "\"burst - 5s\"", 17, "fault[0].at", "there is no phase");
    refused("index = 1", "index = 2", 18, "fault[0].kill.index", "bridges = 2, counted from 0");
    refused("part = \"bridge\"", "part = \"brigde\"", 18, "fault[0].kill.part", "did you mean `bridge`?");
    refused("part = \"bridge\"", "part = \"registry\"", 18, "fault[0].kill.index", "registries = 1");
}

#[test]
fn a_fault_has_one_known_kind_with_all_it_needs() {
    refused("kill = {", "kil = {", 18, "fault[0].kil", "did you mean `kill`?");
    refused("kill = {", "kil = {", 18, "fault[0].kil", "unknown fault kind");
    refused("[checks]", "cut_link = { lasts = \"1s\" }\n[checks]", 19, "fault[0].cut_link", "one kind per [[fault]]");
    refused("kill = { part = \"bridge\", index = 1, back_after = \"2s\" }\n", "", 16, "fault[0]", "add one kind");
    refused(", back_after = \"2s\"", "", 18, "fault[0].kill.back_after", "missing");
    refused(
        "part = \"bridge\", index = 1, ",
        "",
        18,
        "fault[0].kill.part",
        "part = \"bridge\", \"registry\", \"broker\"",
    );
    refused("at = \"burst + 5s\"\n", "", 16, "fault[0].at", "at = \"burst + 5s\"");
}

#[test]
fn a_comparison_without_a_baseline_or_one_of_its_limits_is_refused() {
    let limits = |limits: &str| format!("before_after = {{ {limits} }}\nlag_peak");
    let all = "fewer_commits = 100, follows_within = 0.05, wrong_rows = 1";
    refused("lag_peak", &limits(all), 21, "checks.before_after", "runs no baseline");
    let compared = CORRECT.replace("bridges = 2", "bridges = 2\nbaseline = true");
    let with = |all: &str| compared.replace("lag_peak", &limits(all));
    let found = problems(&with("fewer_commits = 0.5, follows_within = 0.05"), &[]);
    let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["checks.before_after.wrong_rows", "checks.before_after.fewer_commits"], "{found:?}");
    let scenario = Scenario::from_text("test", &with(all), &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert!(scenario.pipeline.baseline && scenario.checks.before_after.is_some());
}

#[test]
fn a_fault_that_could_do_nothing_or_harm_another_is_refused() {
    let kill = "kill = { part = \"bridge\", index = 1, back_after = \"2s\" }";
    let lossy = "qos0_loss = { share = 0.1, lasts = \"2s\" }";
    refused(kill, lossy, 18, "fault[0].qos0_loss", "set qos = 0");
    let too_much = "missed_updates = { share = 1.1, lasts = \"2s\" }";
    refused(kill, too_much, 18, "fault[0].missed_updates.share", "0 to 1");
    let nothing = "missed_updates = { share = 0.0, lasts = \"2s\" }";
    refused(kill, nothing, 18, "fault[0].missed_updates.share", "would hit nothing");
    refused(kill, "gone = { share = 0 }", 18, "fault[0].gone.share", "would hit nothing");
    refused("burst + 5s", "burst + 9s", 17, "fault[0].at", "the load ends at 15s");
    let pause = "[[fault]]\nat = \"11s\"\npause = { part = \"bridge\", index = 1, lasts = \"1s\" }\n[checks]";
    refused("[checks]", pause, 19, "fault[1].pause", "what fault[0] (`kill`) holds");
}

/// What the correct scenario's fault is replaced by.
const KILL: &str = "kill = { part = \"bridge\", index = 1, back_after = \"2s\" }";

#[test]
fn faults_of_raes_their_clocks_and_places_are_read_and_shown_as_a_file_has_them() {
    let seconds = Duration::from_secs;
    let (up, down, isolated) = (OldRae::Up, OldRae::Down, OldRae::Isolated);
    let kinds = [
        ("wipe = { down = \"2s\", share = 0.5 }", FaultKind::Wipe { share: 0.5, down: seconds(2) }),
        ("gone = { share = 0.5 }", FaultKind::Gone { share: 0.5 }),
        (
            "clock_step = { by = \"-3h\", share = 0.5 }",
            FaultKind::ClockStep { share: 0.5, by: Shift::back(seconds(3 * 3600)), lasts: None },
        ),
        (
            "clock_step = { by = \"5h\", lasts = \"2s\", share = 0.5 }",
            FaultKind::ClockStep { share: 0.5, by: seconds(5 * 3600).into(), lasts: Some(seconds(2)) },
        ),
        (
            "clock_drift = { lasts = \"2s\", rate = -1.5, share = 0.5 }",
            FaultKind::ClockDrift { share: 0.5, rate: -1.5, lasts: seconds(2) },
        ),
        (
            "move = { old = \"up\", over = \"4s\", share = 0.5 }",
            FaultKind::Move { share: 0.5, over: seconds(4), old: up, back_after: None },
        ),
        (
            "move = { back_after = \"1s\", old = \"down\", over = \"4s\", share = 0.5 }",
            FaultKind::Move { share: 0.5, over: seconds(4), old: down, back_after: Some(seconds(1)) },
        ),
        (
            "move = { back_after = \"1s\", old = \"isolated\", over = \"4s\", share = 0.5 }",
            FaultKind::Move { share: 0.5, over: seconds(4), old: isolated, back_after: Some(seconds(1)) },
        ),
    ];
    for (text, kind) in kinds {
        let scenario = CORRECT.replace(KILL, text).replace("raes = 200", "raes = 200\nclock_offset = \"2h\"");
        let scenario = Scenario::from_text("test", &scenario, &[], None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((&scenario.faults[0].kind, scenario.faults[0].kind.to_string().as_str()), (&kind, text));
        assert_eq!(scenario.fleet.clock_offset, Some(seconds(7200)));
    }
}

#[test]
fn faults_of_servers_and_of_the_ways_to_them_are_read_and_shown_as_a_file_has_them() {
    let (seconds, server) = (Duration::from_secs, |fault| FaultKind::Server(fault));
    let kinds = [
        (
            "kill = { back_after = \"2s\", part = \"kafka\" }",
            server(ServerFault::Kill { part: Server::Kafka, back_after: seconds(2) }),
        ),
        (
            "restart = { back_after = \"2s\", part = \"broker\" }",
            server(ServerFault::Restart { part: Server::Broker, back_after: seconds(2) }),
        ),
        (
            "pause = { lasts = \"2s\", part = \"store\" }",
            server(ServerFault::Pause { part: Server::Store, lasts: seconds(2) }),
        ),
        (
            "full_disk = { lasts = \"2s\", part = \"broker\" }",
            server(ServerFault::FullDisk { part: Server::Broker, lasts: seconds(2) }),
        ),
        (
            "cut_link = { lasts = \"2s\", to = \"kafka\" }",
            server(ServerFault::CutLink { to: Server::Kafka, lasts: seconds(2) }),
        ),
        (
            "slow_link = { bytes_per_s = 65536, delay = \"20ms\", lasts = \"2s\", to = \"store\" }",
            server(ServerFault::SlowLink {
                to: Server::Store,
                delay: Some(Duration::from_millis(20)),
                bytes_per_s: Some(65_536),
                lasts: seconds(2),
            }),
        ),
        (
            "half_open_link = { lasts = \"2s\", to = \"broker\" }",
            server(ServerFault::HalfOpenLink { to: Server::Broker, lasts: seconds(2) }),
        ),
    ];
    for (text, kind) in kinds {
        let scenario = Scenario::from_text("test", &CORRECT.replace(KILL, text), &[], None);
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((&scenario.faults[0].kind, scenario.faults[0].kind.to_string().as_str()), (&kind, text));
        // The harness is on its own way to the broker whatever the target.
        assert_eq!(scenario.needs_containers(), !text.starts_with("half_open_link"), "{text}");
    }
    let default = CORRECT.replace(KILL, "cut_link = { lasts = \"2s\" }");
    let default = Scenario::from_text("test", &default, &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(default.faults[0].kind.to_string(), "cut_link = { lasts = \"2s\", to = \"broker\" }");
}

#[test]
fn a_fault_of_a_server_that_cannot_be_is_refused_at_its_key() {
    let one = |fault: &str, key: &str, words: &str| refused(KILL, fault, 18, &format!("fault[0].{key}"), words);
    one("kill = { part = \"kafka\", index = 0, back_after = \"2s\" }", "kill.index", "there is one of this server");
    one("restart = { part = \"bridge\", back_after = \"2s\" }", "restart.part", "known are `broker`, `kafka`, `store`");
    one("full_disk = { part = \"kafka\", lasts = \"2s\" }", "full_disk.part", "only the broker's disk");
    one("slow_link = { to = \"store\", lasts = \"2s\" }", "slow_link.bytes_per_s", "or delay");
    let again = "[[fault]]\nat = \"11s\"\npause = { part = \"kafka\", lasts = \"1s\" }\n[checks]";
    let both = CORRECT.replace(KILL, "kill = { part = \"kafka\", back_after = \"2s\" }").replace("[checks]", again);
    let problems = problems(&both, &[]);
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "fault[1].pause"));
}

#[test]
fn a_fault_of_clocks_or_places_that_cannot_be_is_refused_at_its_key() {
    let one = |fault: &str, key: &str, words: &str| refused(KILL, fault, 18, &format!("fault[0].{key}"), words);
    one("clock_step = { share = 0.5, by = \"3 h\" }", "clock_step.by", "such as \"-3h\"");
    one("clock_step = { share = 0.5, by = \"-25h\" }", "clock_step.by", "\"-24h\" to \"24h\"");
    one("clock_step = { share = 0.5, by = \"0s\" }", "clock_step.by", "would do nothing");
    one("clock_step = { share = 0.5 }", "clock_step.by", "missing");
    one("clock_drift = { share = 0.5, rate = 0, lasts = \"2s\" }", "clock_drift.rate", "would do nothing");
    one("clock_drift = { share = 0.5, rate = 2000, lasts = \"2s\" }", "clock_drift.rate", "-1000 to 1000");
    one("wipe = { share = 0.5 }", "wipe.down", "missing");
    one("gone = { share = 0.5, lasts = \"2s\" }", "gone.lasts", "known are `share`");
    one("move = { share = 0.5, over = \"1s\" }", "move.over", "\"2s\" to");
    one("move = { share = 0.5, over = \"2s\", old = \"off\" }", "move.old", "known are `up`, `down`, `isolated`");
    one("move = { share = 0.5, over = \"2s\", old = \"down\" }", "move.back_after", "missing");
    one("move = { share = 0.5, over = \"2s\", back_after = \"1s\" }", "move.back_after", "old = \"down\"");
    refused("raes = 200", "clock_offset = \"-2h\"", 4, "fleet.clock_offset", "a duration such as");
    let moves = CORRECT.replace(KILL, "move = { share = 0.5, over = \"2s\" }");
    for (raes, words) in [("raes = 1", "at least raes = 2"), ("devices_per_rae = 201", "devices_per_rae = 200 where")] {
        let problems = problems(&moves.replace("raes = 200", raes), &[]);
        assert_eq!((problems.len(), problems[0].key.as_str()), (1, "fault[0].move"));
        assert!(problems[0].to_string().contains(words), "{}", problems[0]);
    }
}

/// A registry fault and one more, in this order: refused at this key of the second one, in these words.
#[track_caller]
fn contradicts(first: (&str, &str), second: (&str, &str), key: &str, words: &str) {
    refused("[checks]", &two_faults(first, second), 23, key, words);
}

fn two_faults(first: (&str, &str), second: (&str, &str)) -> String {
    let fault = |(at, kind): (&str, &str)| format!("[[fault]]\nat = {at:?}\n{kind}\n\n");
    format!("{}{}[checks]", fault(first), fault(second))
}

const KILL_REGISTRY: &str = "kill = { part = \"registry\", back_after = \"2s\" }";
const PAUSE: &str = "pause = { part = \"registry\", lasts = \"2s\" }";
const FAILS: &str = "stage_failure = { times = 3 }";

#[test]
fn two_faults_that_take_the_same_process_down_at_a_time_are_refused_at_the_later_one() {
    for (first, second, key) in
        [(KILL_REGISTRY, KILL_REGISTRY, "kill"), (KILL_REGISTRY, PAUSE, "pause"), (PAUSE, KILL_REGISTRY, "kill")]
    {
        let key = format!("fault[2].{key}");
        contradicts(("5s", first), ("6s", second), &key, "holds at that time");
        contradicts(("6s", first), ("5s", second), &key, "let one begin when the other is over");
    }
}

#[test]
fn a_number_of_processes_that_cannot_be_or_changes_nothing_is_refused_at_its_key() {
    let scale = |part: &str, to: &str| format!("scale = {{ part = {part:?}, to = {to} }}");
    let one = |fault: &str, key: &str, words: &str| refused(KILL, fault, 18, &format!("fault[0].scale.{key}"), words);
    one(&scale("registry", "0"), "to", "from 1 to 16");
    one(&scale("bridge", "0"), "to", "from 1 to 16");
    one(&scale("registry", "17"), "to", "from 1 to 16");
    one(&scale("bridge", "3"), "to", "only 2 shard_groups");
    one(&scale("kafka", "2"), "part", "known are `bridge`, `registry`");
    one(&scale("registry", "1"), "to", "registries = 1 then: this fault would do nothing");
    one(&scale("bridge", "2"), "to", "bridges = 2 then: this fault would do nothing");
    one("scale = { part = \"registry\" }", "to", "missing");
    one("scale = { to = 2 }", "part", "part = \"bridge\" or \"registry\"");
    let limit = "converged_within = \"20s\"\nscaled_within = \"5s\"";
    refused("converged_within = \"20s\"", limit, 21, "checks.scaled_within", "from \"7s\"");
}

#[test]
fn a_fault_names_a_process_that_is_there_at_its_time() {
    let (more, fewer) = ("scale = { part = \"registry\", to = 3 }", "scale = { part = \"registry\", to = 2 }");
    let third = "kill = { part = \"registry\", index = 2, back_after = \"2s\" }";
    let with = |faults: &[(&str, &str)]| {
        let faults: String = faults.iter().map(|(at, kind)| format!("[[fault]]\nat = {at:?}\n{kind}\n")).collect();
        Scenario::from_text("test", &CORRECT.replace("[checks]", &format!("{faults}[checks]")), &[], None)
    };
    let scenario = with(&[("8s", fewer), ("1s", more), ("6s", third)]).unwrap_or_else(|error| panic!("{error}"));
    let counts = [0, 1, 2, 8, 9].map(|at| scenario.processes_at(Part::Registry, Duration::from_secs(at)));
    assert_eq!((counts, scenario.most_processes(Part::Registry)), ([1, 1, 3, 3, 2], 3));
    assert_eq!(scenario.processes_at(Part::Bridge, Duration::from_secs(9)), 2);
    let early = format!("[[fault]]\nat = \"1s\"\n{third}\n[[fault]]\nat = \"6s\"\n{more}\n[checks]");
    refused("[checks]", &early, 21, "fault[1].kill.index", "registries = 1, counted from 0");
    let late = "[[fault]]\nat = \"1s\"\nscale = { part = \"bridge\", to = 1 }\n[checks]";
    refused("[checks]", late, 18, "fault[0].kill.index", "bridges = 1, counted from 0");
}

#[test]
fn processes_are_not_scaled_while_another_fault_holds_one_of_them() {
    let scale = "scale = { part = \"registry\", to = 2 }";
    contradicts(("5s", KILL_REGISTRY), ("6s", scale), "fault[2].scale", "what fault[1] (`kill`) holds");
    contradicts(("6s", scale), ("5s", PAUSE), "fault[2].pause", "what fault[1] (`scale`) holds");
    contradicts(("5s", scale), ("5s", KILL_REGISTRY), "fault[2].kill", "holds at that time");
    contradicts(("5s", "wipe_store = { back_after = \"2s\" }"), ("6s", scale), "fault[2].scale", "holds at that time");
    contradicts(("5s", scale), ("5s", FAILS), "fault[2].stage_failure", "no stage fails in a process");
    let after = two_faults(("4s", KILL_REGISTRY), ("6s", scale));
    let scenario = Scenario::from_text("test", &CORRECT.replacen("[checks]", &after, 1), &[], None);
    scenario.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_stage_failure_in_a_registry_that_is_down_is_refused_at_the_later_one() {
    for down in [KILL_REGISTRY, PAUSE] {
        for at in ["5s", "6s", "6999ms"] {
            contradicts(("5s", down), (at, FAILS), "fault[2].stage_failure", "no stage fails in a process that");
        }
        let key = format!("fault[2].{}", &down[..down.find(' ').expect("a key")]);
        contradicts(("6s", FAILS), ("5s", down), &key, "takes down the registry whose stage is to fail by fault[1]");
    }
    contradicts(("5s", FAILS), ("5s", FAILS), "fault[2].stage_failure", "the sum of both `times`");
}

#[test]
fn faults_of_one_process_may_follow_each_other_and_faults_of_several_may_overlap() {
    let bridge = "kill = { part = \"bridge\", back_after = \"9s\" }";
    let slow = "slow_store = { delay = \"5ms\", lasts = \"8s\" }";
    let pairs = [
        (("5s", KILL_REGISTRY), ("7s", PAUSE)),
        (("5s", PAUSE), ("7s", FAILS)),
        (("4s", FAILS), ("5s", KILL_REGISTRY)),
        (("5s", FAILS), ("6s", FAILS)),
        (("5s", bridge), ("6s", KILL_REGISTRY)),
        (("5s", bridge), ("6s", FAILS)),
        (("5s", slow), ("6s", KILL_REGISTRY)),
    ];
    for (first, second) in pairs {
        let text = CORRECT.replace("[checks]", &two_faults(first, second));
        Scenario::from_text("test", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn phases_are_there_and_have_names_of_their_own() {
    let phases = CORRECT.split("[[phase]]").collect::<Vec<_>>();
    let without = phases[0].to_owned() + "[checks]\n";
    let problems = problems(&without, &[]);
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "phase"));
    refused("name = \"steady\"", "name = \"burst\"", 13, "phase[1].name", "phase[0] is called");
    refused("name = \"steady\"", "name = \"settle\"", 10, "phase[0].name", "a phase of every run");
    refused("name = \"steady\"", "name = \"Steady state\"", 10, "phase[0].name", "a-z, 0-9");
    refused("name = \"steady\"\n", "", 9, "phase[0].name", "missing");
    refused("lasts = \"10s\"\n", "", 12, "phase[1].lasts", "missing");
}

#[test]
fn canaries_are_done_when_the_load_is() {
    let canary = "rate = 8.0\ncanary = { clients = 10, over = \"9s\", messages = 20 }";
    refused("rate = 8.0", canary, 16, "phase[1].canary", "still be sending");
    let canary = "rate = 8.0\ncanary = { clients = 0, over = \"1s\", messages = 20 }";
    refused("rate = 8.0", canary, 16, "phase[1].canary.clients", "1 to 20,000");
}

#[test]
fn settings_of_the_pipeline_fit_together() {
    refused("bridges = 2", "bridges = 4", 8, "pipeline.bridges", "only 2 shard_groups");
}

#[test]
fn the_first_line_says_what_is_asked() {
    refused("# Does the registry catch up after a burst?\n", "\n", 1, "question", "the first line must be a comment");
    refused("# Does the registry catch up after a burst?", "#", 1, "question", "the first line must be a comment");
}

#[test]
fn what_is_no_toml_is_refused_at_its_place() {
    refused("raes = 200", "raes = ", 4, "fleet.raes", "not TOML");
    refused("raes = 200", "raes = 200\nraes = 100", 5, "fleet.raes", "duplicate key");
    refused("[pipeline]", "[pipeline", 6, "pipeline", "not TOML");
}

#[test]
fn several_mistakes_are_reported_at_once_in_the_order_of_the_text() {
    let text = CORRECT
        .replace("raes = 200", "raess = 200")
        .replace("lasts = \"5s\"", "lasts = \"5 s\"")
        .replace("rate = 8.0", "rate = -8.0")
        .replace("kill", "kil");
    let found: Vec<_> = problems(&text, &[]).into_iter().map(|problem| (problem.line, problem.key)).collect();
    let expected = [(4, "fleet.raess"), (11, "phase[0].lasts"), (15, "phase[1].rate"), (18, "fault[0].kil")];
    assert_eq!(found, expected.map(|(line, key)| (line, key.to_owned())));
}

#[test]
fn a_problem_is_shown_with_its_line_and_a_caret_below_the_place() {
    let problem = &problems(&CORRECT.replace("raes = 200", "raess = 200"), &[])[0];
    let lines: Vec<String> = problem.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines[..5],
        ["error: `fleet.raess`: unknown key", " --> test:4:1", "  |", "4 | raess = 200", "  | ^^^^^"]
    );
}

#[test]
fn overrides_take_the_place_of_the_files_values() {
    let overrides = ["fleet.raes=500", "fleet.update_every=2s", "phase.burst.rate=2", "phase.0.lasts=\"6s\""];
    let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().expect("key=value")).collect();
    let scenario = Scenario::from_text("test", CORRECT, &overrides, Some(99)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((scenario.seed, scenario.fleet.raes), (99, 500));
    assert_eq!(scenario.fleet.update_every, Duration::from_secs(2));
    assert_eq!((scenario.phases[1].rate, scenario.phases[0].lasts), (2.0, Duration::from_secs(6)));
    assert_eq!(scenario.faults[0].at, Duration::from_secs(11), "the moment follows the lengthened phase");
}

#[test]
fn a_wrong_override_is_named_as_one() {
    let of = |text| {
        let problem = problems(CORRECT, &[text]).remove(0);
        (problem.file, problem.key, problem.column)
    };
    let set = |key: &str, column| ("--set".to_owned(), key.to_owned(), column);
    assert_eq!(of("fleet.raess=500"), set("fleet.raess", 7));
    assert_eq!(of("fleet.raes=0"), set("fleet.raes", 14));
    assert_eq!(of("fleet.update_every=fast"), set("fleet.update_every", 22));
    assert_eq!(of("phase.brust.rate=2"), set("phase.brust", 7));
    assert!("fleet.raes".parse::<Override>().is_err());
    assert!("=5".parse::<Override>().is_err());
}

#[test]
fn the_resolved_scenario_shows_durations_as_a_file_has_them() {
    let scenario = Scenario::from_text("test", CORRECT, &[], None).unwrap_or_else(|error| panic!("{error}"));
    let json = serde_json::to_value(&scenario).expect("plain data");
    assert_eq!(json["fleet"]["update_every"], "10s");
    assert_eq!(json["faults"][0]["kind"]["kill"]["back_after"], "2s");
}

#[test]
fn a_fault_is_shown_as_a_file_has_it() {
    let scenario = Scenario::from_text("test", CORRECT, &[], None).unwrap_or_else(|error| panic!("{error}"));
    let shown = scenario.faults[0].kind.to_string();
    assert_eq!(shown, "kill = { back_after = \"2s\", index = 1, part = \"bridge\" }");
    let again = CORRECT.replace("kill = { part = \"bridge\", index = 1, back_after = \"2s\" }", &shown);
    let again = Scenario::from_text("test", &again, &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.faults, scenario.faults);
}

/// A command in the place of the correct scenario's fault.
#[track_caller]
fn command_refused(command: &str, key: &str, words: &str) {
    let text = CORRECT.replace("[[fault]]\nat = \"burst + 5s\"\nkill", "[[command]]\nkill");
    let text = text.replace("kill = { part = \"bridge\", index = 1, back_after = \"2s\" }", command);
    let problems = problems(&text, &[]);
    let shown = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n");
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, &*format!("command[0].{key}")), "{shown}");
    assert!(shown.contains(words), "no {words:?} in:\n{shown}");
}

#[test]
fn commands_are_read_with_their_defaults_and_repair_is_a_matter_of_phases() {
    let commands = "[[command]]\nat = \"burst\"\nkind = \"set\"\ncount = 4\nover = \"2s\"\n[checks]\n";
    let text = CORRECT.replace("[checks]\n", &format!("{commands}command_p99 = {{ at_most = \"250ms\" }}\n"));
    let text =
        text.replace("rate = 8.0", "rate = 8.0\nrepair = true").replace("bridges = 2", "bridges = 2\nrepair = false");
    let scenario = Scenario::from_text("test", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
    let seconds = Duration::from_secs;
    let commands = &scenario.commands[0];
    assert_eq!((commands.kind, commands.to, commands.expires_after), (Ask::Set, Addressee::Living, seconds(10)));
    assert_eq!([0, 1, 3].map(|number| commands.due(number).as_millis()), [5_000, 5_500, 6_500]);
    assert_eq!(scenario.checks.command_p99, Some(Duration::from_millis(250)));
    let moments = [seconds(0), seconds(4), seconds(5), seconds(60)];
    assert_eq!(moments.map(|at| scenario.repairs_at(at)), [false, false, true, true]);
}

#[test]
fn a_command_that_cannot_be_is_refused_at_its_key() {
    let rest = "count = 4\nover = \"2s\"";
    command_refused(&format!("at = \"burst\"\nkind = \"format\"\n{rest}"), "kind", "known are `snapshot`");
    command_refused(&format!("at = \"burst\"\n{rest}"), "kind", "missing");
    command_refused(&format!("at = \"later\"\nkind = \"set\"\n{rest}"), "at", "no phase \"later\"");
    command_refused(&format!("at = \"14s\"\nkind = \"set\"\n{rest}"), "at", "the load ends at 15s");
    let slow = format!("at = \"13s\"\nkind = \"set\"\nexpires_after = \"20s\"\n{rest}");
    command_refused(&slow, "at", "the last expires at 35s, and heal ends at 20s");
    command_refused(&format!("at = \"1s\"\nkind = \"set\"\nto = \"nobody\"\n{rest}"), "to", "known are `living`");
    command_refused("at = \"1s\"\nkind = \"set\"\nover = \"1s\"", "count", "missing");
}

#[test]
fn a_store_that_begins_empty_is_said_whole_and_hinders_no_other_fault() {
    refused(KILL, "new_consumer = { from = \"lates\" }", 18, "fault[0].new_consumer.from", "did you mean `latest`?");
    refused(KILL, "new_consumer = {}", 18, "fault[0].new_consumer.from", "\"earliest\" or \"latest\"");
    refused(KILL, "wipe_store = {}", 18, "fault[0].wipe_store.back_after", "missing");
    let wipe = "wipe_store = { back_after = \"2s\" }";
    contradicts(("5s", wipe), ("6s", KILL_REGISTRY), "fault[2].kill", "holds at that time");
    contradicts(("5s", KILL_REGISTRY), ("6s", wipe), "fault[2].wipe_store", "holds at that time");
    contradicts(("5s", wipe), ("6s", FAILS), "fault[2].stage_failure", "no stage fails in a process");
    let join = "[[fault]]\nat = \"5s\"\nnew_consumer = { from = \"latest\" }\n";
    let text = CORRECT.replace("[checks]", &format!("{}[checks]", join.repeat(4)));
    let scenario = Scenario::from_text("four", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(scenario.consumers().count(), 4);
    let too_many = problems(&CORRECT.replace("[checks]", &format!("{}[checks]", join.repeat(5))), &[]);
    assert_eq!((too_many.len(), too_many[0].key.as_str()), (1, "fault[5].new_consumer"));
}

#[test]
fn a_ratio_of_repair_needs_updates_that_are_missed_with_repair_and_without() {
    let limit = "repair_ratio = { at_most = 0.2 }\nconverged_within";
    refused("converged_within", limit, 20, "checks.repair_ratio", "nothing to compare");
    let missed = "missed_updates = { share = 0.5, lasts = \"2s\" }";
    let ratio = CORRECT.replace("converged_within", limit).replace(KILL, missed);
    let only_with = problems(&ratio, &[]);
    assert_eq!((only_with.len(), only_with[0].key.as_str()), (1, "checks.repair_ratio"));
    let both = ratio.replace("rate = 8.0", "rate = 8.0\nrepair = false");
    let both = format!("{both}[[fault]]\nat = \"1s\"\n{missed}\n");
    Scenario::from_text("test", &both, &[], None).unwrap_or_else(|error| panic!("{error}"));
}
