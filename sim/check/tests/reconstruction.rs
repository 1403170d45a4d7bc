//! Stores that begin empty in mid-run.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{event::CommandName, id::Device, merge::DeviceState};

use super::story::{QUIET, REGISTRY, Story};
use crate::{
    check::verdict::{CheckId, Outcome},
    history::{ConsumerSeen, What},
};

/// Longer than any bound of the quiet scenario.
const LONG: u64 = 9;

#[test]
fn a_consumer_that_shows_every_device_in_time_and_says_nothing_passes() {
    for from in ["earliest", "latest"] {
        let mut story = joined(from);
        story.lives_until(Duration::from_secs(3));
        let all = story.store.clone();
        shows(&mut story, &all);
        story.passes_check(CheckId::C22);
    }
}

#[test]
fn a_consumer_that_lacks_a_device_or_shows_it_as_it_was_long_ago_fails() {
    let mut story = joined("latest");
    story.lives_until(Duration::from_secs(LONG));
    let mut some = story.store.clone();
    some.pop_first();
    shows(&mut story, &some);
    story.fails_check(CheckId::C22, "is not shown as it is by new consumer 0");

    let mut story = joined("earliest");
    let old = story.store.clone();
    story.lives_until(Duration::from_secs(LONG));
    shows(&mut story, &old);
    story.fails_check(CheckId::C22, "from the begin of the log");
}

#[test]
fn a_device_whose_rae_is_offline_is_not_due_to_a_consumer_that_began_at_the_end_of_the_log() {
    for (from, due) in [("latest", false), ("earliest", true)] {
        let mut story = joined(from);
        story.enter(What::Offline(crate::fleet::plan::RaeIndex(0)));
        story.lives_until(Duration::from_secs(LONG));
        let mut some = story.store.clone();
        for device in 0..2 {
            some.remove(&story.plan.devices[device].id);
        }
        shows(&mut story, &some);
        if due {
            story.fails_check(CheckId::C22, "is not shown");
        } else {
            let failed = matches!(story.result(CheckId::C22).outcome, Outcome::Fail { .. });
            assert!(!failed, "{:?}", story.result(CheckId::C22));
        }
    }
}

#[test]
fn a_consumer_that_speaks_fails_and_the_registry_may() {
    let commanded = |issuer: Option<&str>| {
        let mut story = joined("latest");
        story.lives_until(Duration::from_secs(3));
        let all = story.store.clone();
        shows(&mut story, &all);
        for id in 1..=3 {
            story.somebody_sends(issuer, id, CommandName::Snapshot, id, 1_000);
        }
        story
    };
    commanded(Some("new-consumer-0")).fails_check(CheckId::C22, "sent 3 commands, the first a snapshot to session");
    commanded(Some("dmp-registry")).passes_check(CheckId::C22);
    commanded(None).fails_check(CheckId::C22, "that no registry signed");
    let mut shared = commanded(None);
    shared.observable.shared = true;
    shared.passes_check(CheckId::C22);
}

#[test]
fn a_registry_that_speaks_long_after_its_store_was_wiped_fails_unless_the_scenario_gives_it_a_reason() {
    let reason = "[[fault]]\nat = \"steady + 8s\"\nclock_step = { share = 1.0, by = \"1h\" }\n";
    for (more, may) in [("", false), (reason, true)] {
        let mut story = rebuilt_in(more, |_| {}, true);
        story.passes_check(CheckId::C22);
        story.somebody_sends(Some("rebuilt"), 1, CommandName::Reonboard, 5, 1_000);
        if may {
            story.passes_check(CheckId::C22);
        } else {
            story.fails_check(CheckId::C22, "sent 1 command, the first a reonboard to session");
            story.fails_check(CheckId::C22, "had no reason to");
        }
    }
}

#[test]
fn a_store_that_is_wiped_and_comes_back_whole_harms_no_other_check() {
    let story = rebuilt(|_| {}, true);
    story.passes_check(CheckId::C22);
    story.fails_only(&[]);
    assert!(story.result(CheckId::C5b).observed > 0, "the new group must start at the begin of the log");
}

#[test]
fn a_store_that_comes_back_without_a_record_of_the_log_fails() {
    let story = rebuilt(
        |store| {
            store.pop_first();
        },
        true,
    );
    story.fails_check(CheckId::C5, "was committed and never written");
    story.fails_check(CheckId::C5b, "was skipped");
}

#[test]
fn rows_and_offsets_that_fall_without_a_wipe_still_fail() {
    let story = rebuilt(|_| {}, false);
    story.fails_check(CheckId::C6, "fell from");
}

/// A story in which a consumer has joined.
fn joined(from: &str) -> Story {
    let fault = format!("[[fault]]\nat = \"steady + 1s\"\nnew_consumer = {{ from = {from:?} }}\n");
    let mut story = Story::begun_of(&format!("{QUIET}{fault}"));
    story.lives_until(Duration::from_secs(1));
    story.enter(What::FaultBegan(0));
    story.enter(What::ConsumerStarted { consumer: 0, group: "new-consumer-0".into() });
    story.enter(What::FaultActed { fault: 0, times: 1 });
    story.enter(What::FaultEnded(0));
    story
}

/// The consumer's store is read.
fn shows(story: &mut Story, store: &BTreeMap<Device, DeviceState>) {
    let rows = Some(story.records(store));
    let seen = ConsumerSeen { consumer: 0, began: story.at, feeds: Vec::new(), rows };
    story.enter(What::Consumer(Box::new(seen)));
}

/// A store is wiped, or falls back without anybody's word, and comes back as `harm` leaves it.
fn rebuilt(harm: impl FnOnce(&mut BTreeMap<Device, DeviceState>), told: bool) -> Story {
    rebuilt_in("", harm, told)
}

fn rebuilt_in(more: &str, harm: impl FnOnce(&mut BTreeMap<Device, DeviceState>), told: bool) -> Story {
    let fault = "[[fault]]\nat = \"steady + 1s\"\nwipe_store = { back_after = \"1s\" }\n";
    let mut story = Story::begun_of(&format!("{QUIET}{fault}{more}"));
    story.lives_until(Duration::from_secs(1));
    let mut whole = story.store.clone();
    harm(&mut whole);
    story.enter(What::FaultBegan(0));
    story.enter(What::ProcessEnded { process: REGISTRY, meant: true });
    if told {
        story.enter(What::StoreWiped { group: "rebuilt".into() });
    }
    story.enter(What::FaultActed { fault: 0, times: 1 });
    story.forgets();
    story.enter(What::ProcessStarted(REGISTRY));
    story.enter(What::FaultEnded(0));
    story.offsets();
    story.read();
    story.store = whole;
    story.lives_until(Duration::from_secs(10));
    story.lives_on_to_the_end();
    story
}
