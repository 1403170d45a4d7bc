//! The comparison with a baseline consumer.

use std::time::Duration;

use super::story::{QUIET, REGISTRY, Story};
use crate::{
    check::verdict::{CheckId, Outcome},
    history::{BaselineSeen, Process, Stage, What},
    scenario::Part,
};

const BASELINE: Process = Process { part: Part::Baseline, index: 0 };

/// How both sides fare, per second of a quiet load of 18 s.
#[derive(Clone, Copy)]
struct Fare {
    /// Records by which the baseline falls behind.
    falls_behind: i64,
    /// Commits of the registry.
    commits: u64,
    /// Whether the baseline shows every device as it was in the beginning.
    stuck: bool,
}

const AS_MEANT: Fare = Fare { falls_behind: 1, commits: 0, stuck: true };

#[test]
fn a_baseline_that_shows_what_is_wrong_with_it_passes() {
    let story = compared(AS_MEANT);
    story.passes_check(CheckId::C23);
    story.fails_only(&[]);
    let figures = story.figures().before_after.expect("both were there");
    assert_eq!((figures.before.commits_per_record(), figures.after.wrong_rows), (Some(1.0), 0));
    assert_eq!((figures.before.windows.len(), figures.after.windows.len()), (1, 1));
    assert_eq!((figures.before.queue, figures.before.queue_cap), (18, None));
    // The baseline has not come to the first record of every device.
    assert_eq!((figures.after.devices, figures.before.wrong_rows), (4, figures.before.devices), "{figures:?}");
    assert!(figures.before.wrong_rows > 0, "{figures:?}");
}

#[test]
fn a_comparison_that_does_not_show_what_it_must_fails() {
    compared(Fare { falls_behind: 0, ..AS_MEANT }).fails_check(CheckId::C23, "the baseline keeps up");
    compared(Fare { commits: 1, ..AS_MEANT }).fails_check(CheckId::C23, "not 5 times as often");
    compared(Fare { stuck: false, ..AS_MEANT }).fails_check(CheckId::C23, "0 rows of the baseline are wrong");
}

#[test]
fn registries_that_do_not_follow_what_is_published_fail() {
    let mut story = begun();
    for second in 1..=18 {
        // What is published is in the log and not reflected.
        for device in story.devices() {
            let delta = story.delta(device, 1);
            story.leaves(&delta);
            story.crosses(&delta);
            story.logged(&delta);
        }
        story.at += Duration::from_secs(1);
        story.offsets();
        seen(&mut story, second, AS_MEANT);
    }
    story.fails_check(CheckId::C23, "and 40 are published");
    story.fails_check(CheckId::C23, "quiet lag has a p99 of");
}

#[test]
fn a_comparison_without_a_whole_quiet_window_or_with_a_baseline_that_ended_is_invalid() {
    let invalid = |story: &Story| matches!(story.result(CheckId::C23).outcome, Outcome::Invalid(_));
    let mut ended = compared(AS_MEANT);
    ended.enter(What::ProcessEnded { process: BASELINE, meant: false });
    assert!(invalid(&ended));
    ended.passes_check(CheckId::C12);
    let mut short = begun();
    short.lives_until(Duration::from_secs(3));
    assert!(invalid(&short));
}

fn begun() -> Story {
    let text = QUIET.replace("[pipeline]", "[pipeline]\nbaseline = true").replace("lasts = \"10s\"", "lasts = \"18s\"");
    let mut story =
        Story::of(&format!("{text}before_after = {{ fewer_commits = 5, follows_within = 0.05, wrong_rows = 1 }}\n"));
    story.begin();
    story
}

/// A whole run beside a baseline.
fn compared(fare: Fare) -> Story {
    let mut story = begun();
    for second in 1..=18 {
        story.lives_until(Duration::from_secs(second));
        seen(&mut story, second, fare);
    }
    story.phase("heal", Stage::Heal);
    story.lives_until(Duration::from_secs(23));
    story.ends_calmly();
    story
}

/// What is seen of both sides after so many seconds.
fn seen(story: &mut Story, second: u64, fare: Fare) {
    let behind = fare.falls_behind * i64::try_from(second).expect("a few");
    let ends: Vec<(i32, i64)> = story.ends.clone().into_iter().collect();
    let committed: Vec<(i32, i64)> = ends.iter().map(|&(partition, end)| (partition, (end - behind).max(0))).collect();
    let commits = committed.iter().map(|(_, offset)| offset.unsigned_abs()).sum();
    let mut store = story.store.clone();
    if fare.stuck {
        // Nothing after the first record of each device.
        store.values_mut().for_each(|state| {
            state.attributes.retain(|name, _| name.as_str() != "rev");
        });
    }
    let rows = Some(story.records(&store));
    let commits_of_registry = 1 + second / 18 + fare.commits * second;
    story.enter(What::Baseline(Box::new(BaselineSeen { committed, rows, ends })));
    story.enter(What::Commits(BASELINE, commits));
    story.enter(What::Commits(REGISTRY, commits_of_registry));
    let queue = crate::history::Gauge { name: "baseline_queue".into(), value: behind.unsigned_abs(), cap: None };
    story.enter(What::Gauges(BASELINE, vec![queue]));
}
