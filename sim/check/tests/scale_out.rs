//! Consumption after the number of processes changed.

use std::time::Duration;

use super::story::{QUIET, Story};
use crate::{
    check::verdict::{CheckId, Outcome},
    history::What,
};

/// Long enough for the limit, and for a change shortly before its end.
const LOAD: u64 = 20;

#[test]
fn consumption_that_follows_publication_after_a_change_passes() {
    let mut story = changed();
    story.lives_until(Duration::from_secs(13));
    story.passes_check(CheckId::C24);
}

#[test]
fn consumption_that_stops_and_is_back_in_time_passes_and_one_that_is_not_fails() {
    for (stands_for, passes) in [(4, true), (10, false)] {
        let mut story = changed();
        for second in 2..=12 {
            publishes(&mut story, second);
            if second > stands_for + 1 {
                story.read_all();
            } else {
                story.offsets();
            }
        }
        match passes {
            true => story.passes_check(CheckId::C24),
            false => story.fails_check(CheckId::C24, "are published"),
        }
    }
}

#[test]
fn a_change_without_time_to_judge_it_is_invalid() {
    let mut story = changed();
    story.lives_until(Duration::from_secs(3));
    let result = story.result(CheckId::C24);
    assert!(matches!(&result.outcome, Outcome::Invalid(why) if why.contains("too little time")), "{result:?}");
}

/// A second after the begin of the load, the number of registries has changed.
fn changed() -> Story {
    let text = QUIET.replace("lasts = \"10s\"", &format!("lasts = \"{LOAD}s\""));
    let fault = "[[fault]]\nat = \"steady + 1s\"\nscale = { part = \"registry\", to = 3 }\n";
    let mut story = Story::begun_of(&format!("{text}{fault}"));
    story.lives_until(Duration::from_secs(1));
    story.enter(What::FaultBegan(0));
    story.enter(What::FaultActed { fault: 0, times: 1 });
    story.enter(What::FaultEnded(0));
    story
}

/// A second in which every device publishes, and the log takes it.
fn publishes(story: &mut Story, second: u32) {
    for device in story.devices() {
        let snapshot = story.snapshot(device, second.min(2));
        story.leaves(&snapshot);
        story.crosses(&snapshot);
        story.logged(&snapshot);
        story.reflect(&snapshot);
    }
    story.at += Duration::from_secs(1);
}
