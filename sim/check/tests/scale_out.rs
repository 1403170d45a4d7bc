//! Consumption after the number of processes changed.

use std::time::Duration;

use super::story::{QUIET, Story};
use crate::{
    check::verdict::{CheckId, Outcome},
    history::{Stage, What},
};

const REGISTRIES: &str = "[[fault]]\nat = \"steady + 1s\"\nscale = { part = \"registry\", to = 3 }\n";
const FEWER: &str = "[[fault]]\nat = \"steady + 3s\"\nscale = { part = \"registry\", to = 2 }\n";
const BRIDGES: &str = "[[fault]]\nat = \"steady + 1s\"\nscale = { part = \"bridge\", to = 2 }\n";

#[test]
fn consumption_that_follows_publication_after_a_change_passes() {
    let mut story = changed(REGISTRIES);
    story.lives_until(Duration::from_secs(13));
    story.passes_check(CheckId::C24);
}

#[test]
fn consumption_that_stops_and_is_back_in_time_passes_and_one_that_is_not_fails() {
    for (back_after, passes) in [(4, true), (10, false)] {
        let mut story = changed(REGISTRIES);
        for second in 1..=11 {
            publishes(&mut story);
            rests_or_reads(&mut story, second > back_after);
        }
        match passes {
            true => story.passes_check(CheckId::C24),
            false => story.fails_check(CheckId::C24, "0 records are reflected in 5s, and 20 are published"),
        }
    }
}

#[test]
fn consumption_that_stops_once_more_before_the_limit_is_over_fails_and_one_that_flickers_passes() {
    for (stops_after, passes) in [(7, false), (9, true)] {
        let mut story = changed(REGISTRIES);
        for second in 1..=11 {
            publishes(&mut story);
            rests_or_reads(&mut story, second <= stops_after);
        }
        match passes {
            true => story.passes_check(CheckId::C24),
            false => story.fails_check(CheckId::C24, "to = 3"),
        }
    }
}

#[test]
fn a_change_with_too_little_time_to_judge_it_is_invalid() {
    let unjudged = |story: &Story| match story.result(CheckId::C24).outcome {
        Outcome::Invalid(why) => why,
        other => panic!("{other:?}"),
    };
    let mut ended = changed(REGISTRIES);
    ended.lives_until(Duration::from_secs(3));
    assert!(unjudged(&ended).contains("too little time"), "{}", unjudged(&ended));
    let mut changed_again = changed(&format!("{REGISTRIES}{FEWER}"));
    changed_again.lives_until(Duration::from_secs(3));
    acts(&mut changed_again, 1);
    changed_again.lives_until(Duration::from_secs(15));
    assert!(unjudged(&changed_again).ends_with("to = 3 }` at \"steady + 1s\""), "{}", unjudged(&changed_again));
    let never = Story::begun_of(&format!("{}{REGISTRIES}", long()));
    assert!(unjudged(&never).contains("saw no change"), "{}", unjudged(&never));
}

#[test]
fn a_change_that_settle_cuts_short_is_judged_by_what_was_seen() {
    let mut story = changed(REGISTRIES);
    story.lives_until(Duration::from_secs(8));
    story.phase("settle", Stage::Settle);
    story.passes_check(CheckId::C24);
}

#[test]
fn changes_of_a_moment_are_judged_as_one() {
    let mut story = changed(&format!("{REGISTRIES}{BRIDGES}"));
    acts(&mut story, 1);
    story.lives_until(Duration::from_secs(13));
    let result = story.result(CheckId::C24);
    assert_eq!((&result.outcome, result.observed), (&Outcome::Pass, 1), "{result:?}");
}

/// The quiet scenario with time for the limit.
fn long() -> String {
    QUIET.replace("lasts = \"10s\"", "lasts = \"20s\"").replace("partitions = 2", "partitions = 2\nshard_groups = 2")
}

/// A second after the begin of the load, the first of these faults acts.
fn changed(faults: &str) -> Story {
    let mut story = Story::begun_of(&format!("{}{faults}", long()));
    story.lives_until(Duration::from_secs(1));
    acts(&mut story, 0);
    story
}

fn acts(story: &mut Story, fault: usize) {
    story.enter(What::FaultBegan(fault));
    story.enter(What::FaultActed { fault, times: 1 });
    story.enter(What::FaultEnded(fault));
}

/// A second in which every device publishes, and the log takes it.
fn publishes(story: &mut Story) {
    for device in story.devices() {
        let snapshot = story.snapshot(device, 0);
        story.passes(&snapshot);
    }
    story.at += Duration::from_secs(1);
}

/// What is in the log is read, or is left there.
fn rests_or_reads(story: &mut Story, reads: bool) {
    match reads {
        true => story.read_all(),
        false => story.offsets(),
    }
}
