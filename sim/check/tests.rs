//! Every check is seen to pass, to fail, and to be INVALID when it saw nothing.

mod before_after;
mod down;
mod reconstruction;
mod scale_out;
mod story;

use std::{collections::BTreeSet, time::Duration};

use dmp_core::{
    event::{AttributeName, Value},
    id::{Device, Seq},
    merge::Offer,
    time::Wall,
};

use super::{
    bound,
    verdict::{CheckId, Class, Outcome, Verdict, verdict},
};
use crate::{
    fleet::plan::{DeviceIndex, RaeIndex},
    history::{Copy, Down, Entry, PayloadHash, Stage, StoreLimit, Tampered, What},
    scenario::Scenario,
};
use story::{BRIDGE, QUIET, REGISTRY, Sent, Story};

const FIRST: DeviceIndex = DeviceIndex(0);

fn name(text: &str) -> AttributeName {
    AttributeName::try_from(text).expect("a valid name")
}

#[test]
fn a_healthy_run_passes_every_check_that_can_be_observed() {
    let story = Story::healthy();
    for result in story.results() {
        match result.id {
            CheckId::C5b | CheckId::C16 | CheckId::C17 | CheckId::C21 | CheckId::C22 | CheckId::C23 | CheckId::C24 => {
                assert!(matches!(result.outcome, Outcome::NotObservable(_)), "{result:?}")
            }
            _ => assert_eq!(result.outcome, Outcome::Pass, "{result:#?}"),
        }
    }
    assert_eq!(verdict(&story.results()), Verdict::Pass);
}

#[test]
fn a_run_in_which_nothing_happens_is_invalid() {
    let results = Story::of(QUIET).results();
    for result in &results {
        let invalid = matches!(result.outcome, Outcome::Invalid(_) | Outcome::NotObservable(_));
        assert!(invalid, "{result:#?}");
    }
    assert_eq!(verdict(&results), Verdict::Invalid);
}

#[test]
fn what_a_target_cannot_show_is_not_observable() {
    let mut story = Story::healthy();
    story.observable.wire = false;
    story.observable.gauges = false;
    for id in [CheckId::C7, CheckId::C8] {
        assert!(matches!(story.result(id).outcome, Outcome::NotObservable(_)), "{id:?}");
    }
    story.passes_check(CheckId::C15);
}

#[test]
fn a_value_that_the_device_never_had_fails_provenance() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(9);
    let mut forged = story.delta(FIRST, 1);
    let dmp_core::event::Body::Delta { set, .. } = &mut forged.event.body else { panic!("a delta") };
    set.insert(name("firmware"), Value::Text("9.9.9".into()));
    story.passes(&forged);
    story.second();
    story.fails_check(CheckId::C1, "firmware");
}

#[test]
fn a_value_that_changes_at_its_version_fails_provenance_and_attribute_monotonicity() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    let row = story.store.get_mut(&id).and_then(|state| state.attributes.get_mut("ip")).expect("always there");
    row.value = Some(Value::Text("10.9.9.9".into()));
    story.second();
    story.fails_check(CheckId::C1, "ip");
    story.fails_check(CheckId::C2, "another value at the same version");
}

#[test]
fn a_value_of_a_change_that_has_not_happened_yet_fails_provenance() {
    let mut story = Story::begun();
    let last = story.plan.devices[0].changes.len() as u32;
    let early = story.delta(FIRST, last);
    story.passes(&early);
    story.second();
    story.fails_check(CheckId::C1, "never had by then");
}

#[test]
fn a_row_at_a_version_that_the_log_does_not_offer_fails_provenance() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    let state = story.store.get_mut(&id).expect("onboarded");
    let row = state.attributes.get_mut("ip").expect("always there");
    row.version.seq = Seq::try_from(77).expect("in range");
    story.second();
    story.fails_only(&[CheckId::C1]);
    story.fails_check(CheckId::C1, "offers nothing");
}

#[test]
fn a_device_that_nobody_has_fails_provenance_unless_the_target_is_shared() {
    let mut story = Story::healthy();
    let state = story.store[&story.plan.devices[0].id].clone();
    story.store.insert(Device::of_hardware("nobody's"), state);
    story.read();
    story.fails_only(&[CheckId::C1]);
    story.observable.shared = true;
    story.fails_only(&[]);
}

#[test]
fn an_older_version_over_a_newer_one_fails_attribute_monotonicity() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    let before = story.store[&id].attributes["rev"].clone();
    story.lives_until(Duration::from_secs(6));
    story.store.get_mut(&id).expect("onboarded").attributes.insert(name("rev"), before);
    story.second();
    story.fails_check(CheckId::C2, "fell from");
}

#[test]
fn a_late_duplicate_that_is_written_over_a_newer_offer_between_two_reads_fails_attribute_monotonicity() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(9);
    let (first, second) = (story.delta(FIRST, 1), story.delta(FIRST, 2));
    story.passes(&first);
    let old = story.store[&first.event.device].attributes["rev"].clone();
    story.passes(&second);
    story.enter(What::Sent(first.publish, Copy::Duplicate, first.payload));
    story.logged(&first);
    story.store.get_mut(&first.event.device).expect("onboarded").attributes.insert(name("rev"), old);
    story.second();
    story.fails_check(CheckId::C2, "a late offer");
    assert_eq!(story.result(CheckId::C5).outcome, Outcome::Pass);
}

#[test]
fn a_floor_that_falls_fails_floor_monotonicity() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    let before = story.store[&id].floor.clone();
    let snapshot = story.snapshot(FIRST, 0);
    story.passes(&snapshot);
    story.second();
    story.store.get_mut(&id).expect("onboarded").floor = before;
    story.second();
    story.fails_check(CheckId::C3, "fell from");
}

#[test]
fn a_visible_row_that_a_clean_up_takes_fails_floor_monotonicity() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    story.store.get_mut(&id).expect("onboarded").attributes.remove("mac");
    story.second();
    story.fails_check(CheckId::C3, "mac");
    assert_eq!(story.result(CheckId::C5).outcome, Outcome::Pass);
}

#[test]
fn a_device_that_vanishes_from_the_store_fails_floor_monotonicity() {
    let mut story = Story::begun();
    let id = story.plan.devices[0].id;
    story.store.remove(&id);
    story.second();
    story.fails_check(CheckId::C3, "gone from the store");
}

#[test]
fn records_of_one_topic_in_two_partitions_fail_key_and_order() {
    let mut story = Story::begun();
    let snapshot = story.snapshot(FIRST, 0);
    story.leaves(&snapshot);
    story.crosses(&snapshot);
    story.logged_in(1, &snapshot);
    story.reflect(&snapshot);
    story.second();
    story.fails_check(CheckId::C4, "outside partition 0");
}

#[test]
fn a_first_appearance_behind_a_later_seq_fails_key_and_order_and_a_duplicate_does_not() {
    let mut story = Story::begun();
    let (first, second) = (story.snapshot(FIRST, 0), story.snapshot(FIRST, 0));
    for sent in [&first, &second] {
        story.leaves(sent);
        story.crosses(sent);
        story.reflect(sent);
    }
    story.logged(&second);
    story.logged(&second);
    story.second();
    story.passes_check(CheckId::C4);
    story.logged(&first);
    story.second();
    story.fails_only(&[CheckId::C4]);
}

#[test]
fn a_changed_number_of_partitions_fails_key_and_order() {
    let mut story = Story::healthy();
    story.enter(What::Partitions(3));
    story.fails_only(&[CheckId::C4]);
}

#[test]
fn an_offset_committed_before_its_rows_fails_commit_safety_with_record_and_timeline() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(9);
    let delta = story.delta(FIRST, 1);
    story.leaves(&delta);
    story.crosses(&delta);
    let (partition, offset) = story.logged(&delta);
    story.read();
    story.passes_check(CheckId::C5);
    story.second();
    let result = story.result(CheckId::C5);
    let Outcome::Fail { witnesses, .. } = &result.outcome else { panic!("{result:?}") };
    let witness = &witnesses[0];
    assert!(witness.what.contains(&format!("record {partition}/{offset}")), "{}", witness.what);
    let told = |word: &str| witness.timeline.iter().any(|moment| moment.what.contains(word));
    for word in ["intended", "saved", "sent", "by the broker", "in the log at", "by the bridge", "store: rev"] {
        assert!(told(word), "{word}: {:#?}", witness.timeline);
    }
}

#[test]
fn a_removal_that_is_committed_and_still_shown_fails_commit_safety() {
    let mut story = Story::begun();
    let mut short = story.snapshot(FIRST, 0);
    let dmp_core::event::Body::Snapshot { attributes } = &mut short.event.body else { panic!("a snapshot") };
    attributes.remove("esn");
    story.leaves(&short);
    story.crosses(&short);
    story.logged(&short);
    let id = short.event.device;
    let esn = story.store[&id].attributes["esn"].clone();
    story.reflect(&short);
    let floor = story.store.get_mut(&id).and_then(|state| state.floor.as_mut()).expect("onboarded");
    floor.names.insert(name("esn"));
    assert!(esn.version <= floor.version);
    story.second();
    story.fails_check(CheckId::C5, "esn");
}

#[test]
fn a_record_that_is_quarantined_need_not_be_in_the_rows_however_late_its_letter_is_read() {
    for late in [false, true] {
        let mut story = Story::begun();
        let snapshot = story.snapshot(FIRST, 0);
        story.leaves(&snapshot);
        story.crosses(&snapshot);
        let place = story.logged(&snapshot);
        if late {
            story.second();
        }
        story.quarantine(place, snapshot.payload);
        story.second();
        story.passes_check(CheckId::C5);
        story.passes_check(CheckId::C15);
        assert!(story.result(CheckId::C15).figure.contains("1 quarantined"));
    }
}

#[test]
fn what_waited_for_an_owner_and_was_skipped_fails_start_position() {
    for skipped in [false, true] {
        let mut story = Story::begun();
        story.enter(What::ProcessEnded { process: REGISTRY, meant: true });
        story.offsets();
        let snapshot = story.snapshot(FIRST, 0);
        story.leaves(&snapshot);
        story.crosses(&snapshot);
        story.logged(&snapshot);
        story.offsets();
        story.enter(What::ProcessStarted(REGISTRY));
        if skipped {
            story.second();
            story.fails_check(CheckId::C5b, "skipped");
        } else {
            story.reflect(&snapshot);
            story.second();
            story.passes_check(CheckId::C5b);
        }
    }
}

#[test]
fn a_committed_offset_that_falls_fails_commit_monotonicity() {
    let mut story = Story::healthy();
    story.commit(0, 1);
    story.offsets();
    story.fails_check(CheckId::C6, "fell from");
}

#[test]
fn a_queue_above_its_cap_fails_boundedness() {
    let mut story = Story::healthy();
    story.gauge("queue", 11, Some(10));
    story.fails_only(&[CheckId::C7]);
}

#[test]
fn memory_that_grows_beyond_its_budget_fails_boundedness() {
    let mut story = Story::healthy();
    story.gauge("memory_bytes", 20 << 20, None);
    story.gauge("memory_bytes", 200 << 20, None);
    story.fails_only(&[]);
    story.gauge("memory_bytes", 2 << 30, None);
    story.fails_only(&[CheckId::C7]);
}

#[test]
fn what_a_broker_lost_is_its_kills_where_there_was_one_and_else_makes_the_run_invalid() {
    let run = |fault: &str| {
        let mut story = Story::begun_of(&format!("{QUIET}{fault}"));
        let lost = story.snapshot(FIRST, 0);
        story.leaves(&lost);
        if !fault.is_empty() {
            story.enter(What::FaultBegan(0));
            story.enter(What::FaultActed { fault: 0, times: 1 });
            story.enter(What::FaultEnded(0));
        }
        story.lives_until(Duration::from_secs(10));
        story.lives_on_to_the_end();
        story
    };
    let fault = |kind: &str| format!("[[fault]]\nat = \"steady + 1s\"\n{kind}\n");
    let killed = run(&fault("kill = { part = \"broker\", back_after = \"1s\" }"));
    killed.passes_check(CheckId::C15);
    killed.passes_check(CheckId::Generator);
    assert!(killed.result(CheckId::C15).figure.contains("1 lost with the MQTT broker that was killed"));
    // One that ended in order had saved its queue.
    for innocent in [fault("restart = { part = \"broker\", back_after = \"1s\" }"), String::new()] {
        run(&innocent).fails_check(CheckId::Generator, "the MQTT broker lost");
    }
}

#[test]
fn a_message_that_a_bridge_acknowledged_and_that_is_nowhere_fails_acknowledged_is_stored() {
    let mut story = Story::begun();
    let snapshot = story.snapshot(FIRST, 0);
    story.leaves(&snapshot);
    story.crosses(&snapshot);
    story.lives_until(Duration::from_secs(10));
    story.lives_on_to_the_end();
    story.fails_only(&[CheckId::C8]);
    assert!(story.result(CheckId::C15).figure.contains("1 lost by the bridge"));
}

#[test]
fn a_dead_lettered_message_counts_as_stored_and_other_messages_are_looked_for_too() {
    let topic: std::sync::Arc<str> = "dmp/v1/s00/RAE-0000000/status".into();
    let payload = PayloadHash::of(b"status");
    for stored in [true, false] {
        let mut story = Story::begun();
        story.enter(What::BridgeAcknowledged { topic: topic.clone(), payload, retain: false });
        if stored {
            let source = crate::history::DeadSource::Mqtt(topic.clone());
            story.enter(What::DeadLettered { source, reason: "kafka".into(), payload });
        }
        story.at += Duration::from_secs(9);
        story.second();
        if stored { story.passes_check(CheckId::C8) } else { story.fails_check(CheckId::C8, "status") }
    }
}

#[test]
fn what_the_broker_acknowledged_and_never_handed_on_makes_the_run_invalid() {
    let mut story = Story::begun();
    let snapshot = story.snapshot(FIRST, 0);
    story.leaves(&snapshot);
    story.lives_until(Duration::from_secs(10));
    story.lives_on_to_the_end();
    story.fails_only(&[CheckId::Generator]);
    assert_eq!(verdict(&story.results()), Verdict::Invalid);
}

#[test]
fn a_device_that_never_converges_fails_convergence_and_the_witness_says_where_it_is_stuck() {
    type End = fn(&mut Story, &Sent);
    let ends: [(&str, End); 6] = [
        ("the agent should act", |_, _| {}),
        ("the broker should act", |story, delta| story.leaves(delta)),
        ("the registry should act", |story, delta| {
            story.leaves(delta);
            story.crosses(delta);
            story.logged(delta);
        }),
        ("the store lost it", |story, delta| {
            story.leaves(delta);
            story.crosses(delta);
            story.logged(delta);
            story.commit_all();
        }),
        ("acknowledged by a bridge and is in no log", |story, delta| {
            story.leaves(delta);
            story.crosses(delta);
        }),
        ("never left the agent", |story, delta| {
            story.enter(What::Recorded(delta.publish));
            story.enter(What::Withheld(delta.publish));
        }),
    ];
    for (words, end) in ends {
        let mut story = Story::begun();
        let last = story.plan.devices[0].changes.len() as u32;
        story.at += Duration::from_secs(15);
        let delta = story.delta(FIRST, last);
        end(&mut story, &delta);
        for (stage, text) in [(Stage::Settle, "settle"), (Stage::Verify, "verify"), (Stage::VerifyAgain, "again")] {
            story.at += Duration::from_secs(20);
            story.phase(text, stage);
            story.read();
        }
        story.fails_check(CheckId::C9, words);
    }
}

#[test]
fn a_row_that_is_wrong_again_after_verify_fails_convergence() {
    let mut story = Story::healthy();
    let id = story.plan.devices[0].id;
    let state = story.store.get_mut(&id).expect("onboarded");
    let gone = Offer { value: None, ..state.attributes["mac"].clone() };
    state.attributes.insert(name("mac"), gone);
    story.read();
    story.fails_check(CheckId::C9, "lacks mac");
}

#[test]
fn a_run_that_is_never_read_again_after_verify_is_invalid() {
    let mut story = Story::begun();
    story.lives_until(Duration::from_secs(15));
    for (stage, text) in [(Stage::Settle, "settle"), (Stage::Verify, "verify")] {
        story.phase(text, stage);
        story.read_all();
    }
    story.phase("verify again", Stage::VerifyAgain);
    let result = story.result(CheckId::C9);
    assert_eq!(result.outcome, Outcome::Invalid("no whole read of the store in verify again".to_owned()));
}

#[test]
fn slow_changes_fail_staleness() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(9);
    story.enter(What::Reflected { device: FIRST, rev: 1 });
    story.fails_check(CheckId::C10, "1 % of ");
}

#[test]
fn a_high_peak_fails_lag() {
    let mut story = Story::begun();
    for _ in 0..21 {
        let snapshot = story.snapshot(FIRST, 0);
        story.passes(&snapshot);
    }
    story.offsets();
    story.fails_check(CheckId::C11, "above 20");
    story.fails_check(CheckId::C11, "end - reflected");
}

#[test]
fn a_lag_that_stays_after_a_fault_fails_lag() {
    let text =
        format!("{QUIET}drained_within = \"2s\"\n[[fault]]\nat = \"steady + 1s\"\ncut_link = {{ lasts = \"1s\" }}\n");
    for drained in [true, false] {
        let mut story = Story::begun_of(&text);
        story.enter(What::FaultBegan(0));
        story.at += Duration::from_secs(1);
        story.enter(What::FaultEnded(0));
        for _ in 0..5 {
            let snapshot = story.snapshot(FIRST, 0);
            story.passes(&snapshot);
        }
        story.offsets();
        if drained {
            story.second();
        }
        story.at += Duration::from_secs(3);
        story.offsets();
        if drained { story.passes_check(CheckId::C11) } else { story.fails_check(CheckId::C11, "cut_link") }
    }
}

#[test]
fn a_drain_that_the_next_fault_cuts_short_is_said_not_to_be_judged() {
    let cut = |at: &str| format!("[[fault]]\nat = \"steady + {at}\"\ncut_link = {{ lasts = \"1s\" }}\n");
    let mut story = Story::begun_of(&format!("{QUIET}drained_within = \"2s\"\n{}{}", cut("1s"), cut("3s")));
    for fault in 0..2 {
        story.second();
        story.enter(What::FaultBegan(fault));
        story.second();
        story.enter(What::FaultEnded(fault));
    }
    for _ in 0..3 {
        story.second();
    }
    story.passes_check(CheckId::C11);
    let figure = story.result(CheckId::C11).figure;
    assert!(figure.ends_with("not judged after cut_link"), "{figure}");
}

#[test]
fn a_partition_that_stands_still_fails_progress_unless_a_fault_holds_it() {
    let text = format!("{QUIET}[[fault]]\nat = \"steady + 1s\"\npause = {{ part = \"registry\", lasts = \"5s\" }}\n");
    for held in [true, false] {
        let mut story = Story::begun_of(&text);
        story.at += Duration::from_secs(60);
        story.offsets();
        if held {
            story.enter(What::FaultBegan(0));
        }
        let snapshot = story.snapshot(FIRST, 0);
        story.passes(&snapshot);
        story.offsets();
        story.at += Duration::from_secs(4);
        story.offsets();
        if held { story.passes_check(CheckId::C12) } else { story.fails_check(CheckId::C12, "stands still for 4") }
    }
}

#[test]
fn a_process_that_ends_by_itself_fails_progress() {
    let mut story = Story::healthy();
    story.enter(What::ProcessEnded { process: BRIDGE, meant: false });
    story.fails_only(&[CheckId::C12]);
}

#[test]
fn an_event_that_vanishes_fails_conservation() {
    let mut story = Story::begun();
    let lost = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(lost.publish));
    story.at += Duration::from_secs(9);
    let next = story.snapshot(FIRST, 0);
    story.passes(&next);
    story.second();
    story.fails_check(CheckId::C15, "nothing says what became of it");
}

#[test]
fn every_way_to_lose_an_event_in_the_open_is_a_fate_of_its_own() {
    let mut story = Story::begun();
    for what in [What::Withheld, What::LostAtQos0, What::Shed] {
        let event = story.snapshot(FIRST, 0);
        story.enter(What::Recorded(event.publish));
        story.enter(what(event.publish));
    }
    let last = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(last.publish));
    story.second();
    story.passes_check(CheckId::C15);
    let figure = story.result(CheckId::C15).figure;
    let expected = "8 recorded = 4 in the log + 1 withheld by faults + 1 lost at QoS 0 + 1 shed + 1 in flight";
    assert_eq!(figure, expected);
}

#[test]
fn a_record_that_nobody_sent_fails_conservation_and_poison_does_not_if_it_is_quarantined() {
    let topic: std::sync::Arc<str> = "dmp/v1/s00/RAE-0000000/x/state".into();
    let payload = PayloadHash::of(b"{");
    let mut story = Story::begun();
    let place = story.appended(0, &topic, payload, None);
    story.fails_check(CheckId::C15, "never recorded");
    story.enter(What::PoisonSent { fault: 0, topic, payload });
    story.fails_check(CheckId::C15, "was not quarantined");
    story.quarantine(place, payload);
    story.passes_check(CheckId::C15);
}

#[test]
fn a_late_generator_and_a_broken_surrounding_make_the_run_invalid() {
    let mut story = Story::healthy();
    story.enter(What::Lateness(Duration::from_secs(60)));
    story.fails_only(&[CheckId::Generator]);
    assert_eq!(verdict(&story.results()), Verdict::Invalid);
    let mut story = Story::healthy();
    story.enter(What::Broken("the broker has gone".into()));
    story.fails_check(CheckId::Generator, "the broker has gone");
}

#[test]
fn a_safety_failure_stands_in_an_invalid_run_and_invalid_comes_before_a_broken_promise() {
    let result = |id: CheckId, outcome| super::verdict::CheckResult {
        id,
        name: id.name(),
        class: id.class(),
        outcome,
        figure: String::new(),
        limit: String::new(),
        observed: 1,
    };
    let fail = || Outcome::Fail { witnesses: Vec::new(), count: 1 };
    let (safety, promise) = (result(CheckId::C2, fail()), result(CheckId::C9, fail()));
    let invalid = result(CheckId::C10, Outcome::Invalid(String::new()));
    let (late, good) = (result(CheckId::Generator, fail()), result(CheckId::C1, Outcome::Pass));
    let unseen = result(CheckId::C5b, Outcome::NotObservable(String::new()));
    assert_eq!(verdict(&[good.clone(), unseen]), Verdict::Pass);
    assert_eq!(verdict(&[good.clone(), promise.clone()]), Verdict::Fail);
    assert_eq!(verdict(&[promise.clone(), invalid.clone()]), Verdict::Invalid);
    assert_eq!(verdict(&[promise, late.clone()]), Verdict::Invalid);
    assert_eq!(verdict(&[safety, invalid, late]), Verdict::Fail);
    assert_eq!(CheckId::Generator.class(), Class::Validity);
    assert_eq!(verdict(&[good]), Verdict::Pass);
}

#[test]
fn a_read_in_the_midst_of_uncommitted_records_is_no_failure() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(9);
    let (first, second) = (story.delta(FIRST, 1), story.delta(FIRST, 2));
    for sent in [&first, &second] {
        story.leaves(sent);
        story.crosses(sent);
        story.logged(sent);
    }
    story.read();
    story.reflect(&second);
    story.read();
    story.reflect(&first);
    story.second();
    for id in [CheckId::C1, CheckId::C2, CheckId::C3, CheckId::C5] {
        story.passes_check(id);
    }
}

#[test]
fn the_bound_of_convergence_is_the_scenario_s_own_or_grows_with_its_settings() {
    let own = Story::of(QUIET);
    assert_eq!(bound(&own.scenario), Duration::from_secs(10));
    let mut computed = (*own.scenario).clone();
    computed.checks.converged_within = None;
    let short = bound(&computed);
    computed.fleet.snapshot_every *= 10;
    assert!(bound(&computed) > short + Duration::from_secs(18));
    assert!(short > Duration::from_secs(5));
}

#[test]
fn the_bound_grows_by_three_snapshot_periods_where_epochs_can_be_upset() {
    let with = |text: &str| {
        let mut scenario = (*Story::of(&QUIET.replace("raes = 2", text)).scenario).clone();
        scenario.checks.converged_within = None;
        bound(&scenario)
    };
    let (calm, periods) = (with("raes = 2"), Duration::from_millis(7_200));
    assert_eq!(with("raes = 2\nclock_offset = \"2h\""), calm + periods);
    let faulty = |fault: &str| {
        let mut scenario = (*Story::of(&format!("{QUIET}[[fault]]\nat = \"1s\"\n{fault}\n")).scenario).clone();
        scenario.checks.converged_within = None;
        bound(&scenario)
    };
    assert_eq!(faulty("wipe = { share = 0.5, down = \"1s\" }"), calm + periods);
    assert_eq!(faulty("move = { share = 0.5, over = \"2s\" }"), calm + periods);
    assert_eq!(faulty("clock_step = { share = 0.5, by = \"-3h\" }"), calm + periods);
    assert_eq!(faulty("reboot = { share = 0.5, down = \"1s\" }"), calm);
}

#[test]
fn an_event_in_the_outbox_of_a_rae_that_is_gone_is_lost_with_it() {
    let gone = format!("{QUIET}[[fault]]\nat = \"9s\"\ngone = {{ share = 1.0 }}\n");
    for (text, lost) in [(gone.as_str(), true), (QUIET, false)] {
        let mut story = Story::begun_of(text);
        story.lives_until(Duration::from_secs(3));
        let unsaid = story.snapshot(FIRST, story.plan.change_at(FIRST, Duration::from_secs(3)).0);
        story.enter(What::Recorded(unsaid.publish));
        story.lives_on_to_the_end();
        let result = story.result(CheckId::C15);
        assert_eq!(result.figure.contains("1 lost with a RAE that is gone"), lost, "{}", result.figure);
        assert_eq!(result.outcome == Outcome::Pass, lost, "{:?}", result.outcome);
    }
}

#[test]
fn what_one_rae_says_of_a_device_is_not_overtaken_by_what_another_says() {
    for (rae, overtaken) in [(RaeIndex(1), false), (RaeIndex(0), true)] {
        let mut story = Story::healthy();
        let mut unsaid = story.snapshot(FIRST, 0).publish;
        unsaid.version.session.0 = uuid::Uuid::from_u128(9);
        unsaid.rae = rae;
        // Opened before the device's other session, and still talking late in the load.
        story.entries.insert(0, Entry { at: Duration::from_secs(9), what: What::Recorded(unsaid) });
        let result = story.result(CheckId::C15);
        assert_eq!(result.figure.contains("1 vanished"), overtaken, "{}", result.figure);
        assert_eq!(result.figure.contains("1 in flight"), !overtaken, "{}", result.figure);
    }
}

#[test]
fn progress_counts_the_devices_behind_the_truth() {
    let story = Story::begun();
    let mut checks = super::Checks::new(story.scenario.clone(), story.plan.clone(), story.observable);
    assert!(!checks.progress().converged);
    story.entries.iter().for_each(|entry| checks.observe(entry));
    let progress = checks.progress();
    assert_eq!((progress.devices, progress.behind, progress.converged), (4, 0, true));
    let mut later = Story::begun();
    later.at += Duration::from_secs(9);
    later.read();
    later.entries[story.entries.len()..].iter().for_each(|entry| checks.observe(entry));
    let changed = |&device: &DeviceIndex| later.plan.change_at(device, Duration::from_secs(9)).0 > 0;
    let expected = later.devices().iter().filter(|device| changed(device)).count() as u64;
    assert!(expected > 0);
    assert_eq!(checks.progress().behind, expected);
}

#[test]
fn an_event_that_stays_in_its_agent_fails_conservation_after_an_orderly_end_and_is_in_flight_before() {
    for orderly in [true, false] {
        let mut story = Story::begun();
        for device in story.devices() {
            let last = story.snapshot(device, 0);
            if device == FIRST {
                story.enter(What::Recorded(last.publish));
            } else {
                story.passes(&last);
            }
        }
        story.at += Duration::from_secs(20);
        if orderly {
            story.ends_calmly();
            story.fails_check(CheckId::C15, "it never left its agent");
        } else {
            story.second();
            story.passes_check(CheckId::C15);
        }
    }
}

#[test]
fn an_outbox_that_was_lost_with_a_reboot_is_a_fate_of_its_own() {
    let text = format!("{QUIET}[[fault]]\nat = \"steady + 1s\"\nreboot = {{ share = 1.0, down = \"1s\" }}\n");
    let mut story = Story::begun_of(&text);
    let lost = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(lost.publish));
    story.enter(What::FaultBegan(0));
    story.at += Duration::from_secs(1);
    story.enter(What::FaultEnded(0));
    story.at += Duration::from_secs(20);
    story.ends_calmly();
    story.passes_check(CheckId::C15);
    assert!(story.result(CheckId::C15).figure.contains("1 lost with the reboot of its agent"));
}

#[test]
fn a_rae_that_never_comes_online_makes_the_run_invalid_and_so_do_its_events() {
    let mut story = Story::begun();
    let held = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(held.publish));
    story.entries.retain(|entry| !matches!(entry.what, What::Online(rae) if rae.0 == 0));
    story.at += Duration::from_secs(40);
    story.ends_calmly();
    story.fails_check(CheckId::Generator, "was not online");
    assert!(matches!(story.result(CheckId::C15).outcome, Outcome::Invalid(_)));
}

#[test]
fn a_start_that_had_to_be_seen_and_was_not_makes_start_position_invalid() {
    let kill = "kill = { part = \"registry\", back_after = \"1s\" }";
    let story = Story::begun_of(&format!("{QUIET}[[fault]]\nat = \"steady + 1s\"\n{kill}\n"));
    assert!(matches!(story.result(CheckId::C5b).outcome, Outcome::Invalid(_)));
}

#[test]
fn a_limit_of_the_drain_that_nothing_was_held_against_makes_lag_invalid() {
    let mut story = Story::begun_of(&format!("{QUIET}drained_within = \"2s\"\n"));
    story.second();
    assert!(matches!(story.result(CheckId::C11).outcome, Outcome::Invalid(_)));
}

#[test]
fn staleness_of_a_device_that_is_never_shown_again_fails_staleness() {
    let mut story = Story::begun();
    story.enter(What::Reflected { device: FIRST, rev: 0 });
    story.at += Duration::from_secs(9);
    story.enter(What::Lateness(Duration::ZERO));
    story.fails_check(CheckId::C10, "changes took above");
    story.fails_check(CheckId::C10, "the staleness of a sampled device");
}

/// A fault of the quiet scenario, from `steady + 1s` on.
fn with_fault(kind: &str) -> Story {
    let text = QUIET.replace("probe_every", "qos = 0\nprobe_every");
    let mut story = Story::begun_of(&format!("{text}[[fault]]\nat = \"steady + 1s\"\n{kind}\n"));
    story.at += Duration::from_secs(1);
    story.enter(What::FaultBegan(0));
    story
}

/// Lets a fault act.
type Act = fn(&mut Story);

/// Every kind that can be written in a scenario, by the words of its reader.
fn kinds() -> BTreeSet<String> {
    let text = format!("{}[[fault]]\nat = \"1s\"\nno_such_kind = {{}}\n", QUIET.trim_start());
    let error = Scenario::from_text("kinds", &text, &[], None).expect_err("there is no such kind").to_string();
    let (_, known) = error.split_once("known are `").expect("the reader names the kinds that it knows");
    let named = known.lines().next().expect("a line").trim_end_matches('`').split("`, `");
    named.filter(|key| *key != "at").map(str::to_owned).collect()
}

/// Of every kind: what shows that it acts.
fn signs() -> Vec<(&'static str, Act)> {
    vec![
        ("missed_updates = { share = 0.5, lasts = \"2s\" }", |story| withheld(story, What::Withheld)),
        ("qos0_loss = { share = 0.5, lasts = \"2s\" }", |story| withheld(story, What::LostAtQos0)),
        ("duplicates = { share = 0.5, delay = \"1s\", lasts = \"2s\" }", |story| sent_as(story, Copy::Duplicate)),
        ("delayed_tails = { share = 0.5, delay = \"1s\", lasts = \"2s\" }", |story| sent_as(story, Copy::Delayed)),
        ("command_loss = { share = 0.5, lasts = \"2s\" }", |story| tampered(story, Tampered::Lost)),
        ("command_duplicates = { share = 0.5, delay = \"1s\", lasts = \"2s\" }", |story| {
            tampered(story, Tampered::Doubled);
        }),
        ("late_commands = { share = 0.5, delay = \"1s\", lasts = \"2s\" }", |story| {
            tampered(story, Tampered::Delayed);
        }),
        ("poison = { kind = \"undecodable\", messages = 1, lasts = \"2s\" }", |story| {
            let (topic, payload) =
                (std::sync::Arc::<str>::from("dmp/v1/s00/RAE-0000000/x/state"), PayloadHash::of(b"{"));
            story.enter(What::PoisonSent { fault: 0, topic: topic.clone(), payload });
            let place = story.appended(0, &topic, payload, None);
            story.quarantine(place, payload);
        }),
        ("reboot = { share = 1.0, down = \"1s\" }", |story| story.enter(What::Offline(RaeIndex(1)))),
        ("wipe = { share = 1.0, down = \"1s\" }", |story| story.enter(What::Offline(RaeIndex(1)))),
        ("gone = { share = 1.0 }", |story| story.enter(What::Offline(RaeIndex(1)))),
        ("clock_step = { share = 1.0, by = \"-3h\" }", |story| tells_at(story, -3 * 3_600_000)),
        ("clock_drift = { share = 1.0, rate = 60, lasts = \"1s\" }", |story| {
            story.at += Duration::from_secs(1);
            tells_at(story, 60_000);
        }),
        ("move = { share = 1.0, over = \"2s\" }", |story| {
            story.at += Duration::from_secs(2);
            says_from(story, FIRST, RaeIndex(1));
        }),
        ("disconnect = { share = 1.0, lasts = \"1s\" }", |story| story.enter(What::Offline(RaeIndex(1)))),
        ("flapping = { share = 1.0, every = \"1s\", lasts = \"3s\" }", |story| {
            let mut unplugged = story.snapshot(FIRST, 0);
            let dmp_core::event::Body::Snapshot { attributes } = &mut unplugged.event.body else {
                panic!("a snapshot")
            };
            let seq = unplugged.event.version.seq;
            attributes.insert(name("connection"), (Value::Text("detached".into()), seq));
            story.passes(&unplugged);
        }),
        ("kill = { part = \"bridge\", back_after = \"1s\" }", |story| {
            story.enter(What::ProcessEnded { process: BRIDGE, meant: true });
        }),
        ("pause = { part = \"bridge\", lasts = \"1s\" }", acted),
        ("scale = { part = \"registry\", to = 2 }", acted),
        ("stage_failure = { times = 3 }", |story| story.enter(What::StageRestarts(REGISTRY, 3))),
        ("restart = { part = \"kafka\", back_after = \"1s\" }", acted),
        ("full_disk = { part = \"broker\", lasts = \"1s\" }", acted),
        ("half_open_link = { to = \"store\", lasts = \"1s\" }", acted),
        ("cut_link = { lasts = \"1s\" }", acted),
        ("slow_link = { bytes_per_s = \"64KiB\", lasts = \"1s\" }", acted),
        ("throttled_store = { rows_per_s = 9, lasts = \"1s\" }", |story| {
            story.enter(What::StoreSlowed(REGISTRY, StoreLimit::Rate));
        }),
        ("wipe_store = { back_after = \"1s\" }", acted),
        ("new_consumer = { from = \"latest\" }", acted),
        ("slow_store = { delay = \"9ms\", lasts = \"1s\" }", |story| {
            story.enter(What::StoreSlowed(REGISTRY, StoreLimit::Delay));
        }),
    ]
}

/// A device says something by a clock that is so far ahead.
fn tells_at(story: &mut Story, ahead_ms: i64) {
    story.stamped = true;
    let mut event = story.snapshot(FIRST, 0);
    event.event.at = Wall(story.at.as_millis() as i64 + ahead_ms);
    story.passes(&event);
}

/// A device says something from a RAE.
fn says_from(story: &mut Story, device: DeviceIndex, rae: RaeIndex) {
    let mut event = story.snapshot(device, 0);
    event.publish.rae = rae;
    story.enter(What::Recorded(event.publish));
}

fn withheld(story: &mut Story, how: fn(crate::history::Publish) -> What) {
    let event = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(event.publish));
    story.enter(how(event.publish));
}

fn sent_as(story: &mut Story, copy: Copy) {
    let event = story.snapshot(FIRST, 0);
    story.passes(&event);
    story.enter(What::Sent(event.publish, copy, event.payload));
}

fn tampered(story: &mut Story, how: Tampered) {
    story.enter(What::Down(Down::Tampered { rae: RaeIndex(0), id: uuid::Uuid::from_u128(7), how }));
}

fn acted(story: &mut Story) {
    story.enter(What::FaultActed { fault: 0, times: 2 });
}

#[test]
fn a_fault_that_did_nothing_makes_the_run_invalid_and_one_whose_sign_was_seen_does_not() {
    let tried: BTreeSet<_> = signs().iter().filter_map(|(kind, _)| kind.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(tried, kinds(), "one of every kind");
    for (kind, act) in signs() {
        for acts in [true, false] {
            let mut story = with_fault(kind);
            if acts {
                act(&mut story);
            }
            story.at += Duration::from_secs(1);
            story.enter(What::FaultEnded(0));
            story.second();
            if acts {
                let result = story.result(CheckId::Generator);
                assert_eq!(result.outcome, Outcome::Pass, "{kind}");
                assert!(result.figure.ends_with("1 of 1 faults acted"), "{}", result.figure);
            } else {
                story.fails_check(CheckId::Generator, "fault did nothing");
                story.fails_check(CheckId::Generator, "at \"steady + 1s\"");
                assert_eq!(verdict(&story.results()), Verdict::Invalid, "{kind}");
            }
        }
    }
}

#[test]
fn the_sign_of_another_fault_or_of_another_time_is_none() {
    let mut story = with_fault("kill = { part = \"bridge\", back_after = \"1s\" }");
    story.enter(What::ProcessEnded { process: REGISTRY, meant: true });
    story.fails_check(CheckId::Generator, "the process did not end by it");
    let mut story = with_fault("slow_store = { delay = \"9ms\", lasts = \"1s\" }");
    story.enter(What::StoreSlowed(REGISTRY, StoreLimit::Rate));
    story.enter(What::FaultEnded(0));
    story.at += Duration::from_secs(6);
    story.enter(What::StoreSlowed(REGISTRY, StoreLimit::Delay));
    story.fails_check(CheckId::Generator, "no registry slowed a write down");
}

#[test]
fn a_device_that_another_fault_has_moved_or_that_moves_while_its_old_rae_is_up_is_no_sign_of_a_move_from_one_that_is_down()
 {
    let raes = QUIET.replace("raes = 2", "raes = 8");
    let up = "[[fault]]\nat = \"steady\"\nmove = { share = 1.0, over = \"2s\" }\n";
    let down =
        "[[fault]]\nat = \"steady + 3s\"\nmove = { share = 0.5, over = \"4s\", old = \"down\", back_after = \"1s\" }\n";
    // By the first fault it says something where that took it, and by the second where the second took it.
    for (fault, cut_off, acts) in [(0, true, false), (1, false, false), (1, true, true)] {
        let mut story = Story::begun_of(&format!("{raes}{up}{down}"));
        let both = |device: &&DeviceIndex| story.plan.devices[device.0 as usize].moves.len() == 2;
        let device = *story.devices().iter().find(both).expect("half of the RAEs break down");
        let moves = story.plan.devices[device.0 as usize].moves.clone();
        story.enter(What::FaultBegan(0));
        story.at += Duration::from_secs(2);
        says_from(&mut story, device, moves[0].to);
        story.at += Duration::from_secs(1);
        story.enter(What::FaultEnded(0));
        story.enter(What::FaultBegan(1));
        if cut_off {
            story.enter(What::Offline(moves[0].to));
        }
        story.at += if fault == 0 { Duration::from_secs(1) } else { Duration::from_secs(4) };
        says_from(&mut story, device, moves[fault].to);
        story.at += Duration::from_secs(1);
        story.enter(What::FaultEnded(1));
        let figure = story.result(CheckId::Generator).figure;
        assert_eq!(figure.ends_with("2 of 2 faults acted"), acts, "{figure}");
    }
}

#[test]
fn what_a_rae_sends_once_its_devices_have_left_it_is_the_sign_of_one_that_was_isolated_if_they_had_said_it_before() {
    let raes = QUIET.replace("raes = 2", "raes = 8");
    let isolated = "move = { share = 0.5, over = \"4s\", old = \"isolated\", back_after = \"1s\" }";
    for (said_before, acts) in [(true, 1), (false, 0)] {
        let mut story = Story::begun_of(&format!("{raes}[[fault]]\nat = \"steady\"\n{isolated}\n"));
        let moved = |device: &&DeviceIndex| !story.plan.devices[device.0 as usize].moves.is_empty();
        let device = *story.devices().iter().find(moved).expect("half of the RAEs are isolated");
        story.enter(What::FaultBegan(0));
        story.enter(What::Offline(story.plan.devices[device.0 as usize].rae));
        story.at += Duration::from_secs(if said_before { 1 } else { 4 });
        let kept = story.snapshot(device, 0);
        story.enter(What::Recorded(kept.publish));
        story.at += Duration::from_secs(if said_before { 4 } else { 1 });
        story.enter(What::FaultEnded(0));
        story.enter(What::Sent(kept.publish, Copy::First, kept.payload));
        let figure = story.result(CheckId::Generator).figure;
        assert!(figure.ends_with(&format!("{acts} of 1 faults acted")), "{figure}");
    }
}

#[test]
fn a_clock_that_is_right_or_wrong_by_another_fault_or_an_event_that_waited_is_no_sign_of_a_wrong_clock() {
    let second = "[[fault]]\nat = \"steady + 1s\"\nclock_step = { share = 1.0, by = \"-3s\" }";
    // Both steps together are six seconds behind.
    for (ahead_ms, waits_s, acts) in [(0, 0, 0), (0, 9, 0), (-3_000, 0, 0), (-6_000, 0, 2), (-6_000, 9, 2)] {
        let mut story = with_fault(&format!("clock_step = {{ share = 1.0, by = \"-3s\" }}\n{second}"));
        story.enter(What::FaultBegan(1));
        story.stamped = true;
        let mut event = story.snapshot(FIRST, 0);
        event.event.at = Wall(story.at.as_millis() as i64 + ahead_ms);
        story.leaves(&event);
        story.at += Duration::from_secs(waits_s);
        story.crosses(&event);
        story.logged(&event);
        let figure = story.result(CheckId::Generator).figure;
        assert!(figure.ends_with(&format!("{acts} of 2 faults acted")), "{figure}");
    }
}

#[test]
fn a_stage_fails_as_often_as_it_is_told_to_over_all_lives_of_its_process() {
    for (restarts, words) in [(4, ""), (3, "acted 2 of 3 times"), (1, "fault did nothing: `stage_failure")] {
        let second = "[[fault]]\nat = \"steady + 2s\"\nstage_failure = { times = 3 }";
        let mut story = with_fault(&format!("stage_failure = {{ times = 2 }}\n{second}"));
        story.enter(What::StageRestarts(REGISTRY, 1));
        story.enter(What::FaultBegan(1));
        story.enter(What::ProcessEnded { process: REGISTRY, meant: true });
        story.enter(What::ProcessStarted(REGISTRY));
        story.enter(What::StageRestarts(REGISTRY, restarts));
        story.second();
        if words.is_empty() {
            story.passes_check(CheckId::Generator);
        } else {
            story.fails_check(CheckId::Generator, words);
        }
    }
}

#[test]
fn what_a_fault_could_not_do_to_a_system_that_fell_by_itself_does_not_hide_its_failure() {
    let mut story = with_fault("kill = { part = \"bridge\", back_after = \"1s\" }");
    story.enter(What::ProcessEnded { process: BRIDGE, meant: false });
    story.second();
    story.passes_check(CheckId::Generator);
    story.fails_check(CheckId::C12, "");
}

#[test]
fn overdue_events_fail_conservation_unless_the_generator_fell_short_and_then_they_make_it_invalid() {
    for late in [true, false] {
        let mut story = Story::begun();
        let held = story.snapshot(FIRST, 0);
        story.enter(What::Recorded(held.publish));
        if late {
            story.enter(What::Lateness(Duration::from_secs(60)));
        }
        story.at += Duration::from_secs(20);
        story.ends_calmly();
        if late {
            let result = story.result(CheckId::C15);
            let because = "1 events are overdue, and the generator fell short".to_owned();
            assert_eq!(result.outcome, Outcome::Invalid(because));
            assert!(result.figure.contains("1 overdue"), "{}", result.figure);
        } else {
            story.fails_check(CheckId::C15, "it never left its agent");
        }
    }
}

#[test]
fn what_vanished_fails_conservation_though_the_generator_fell_short() {
    let mut story = Story::begun();
    let lost = story.snapshot(FIRST, 0);
    story.enter(What::Recorded(lost.publish));
    story.enter(What::Lateness(Duration::from_secs(60)));
    story.at += Duration::from_secs(9);
    let next = story.snapshot(FIRST, 0);
    story.passes(&next);
    story.second();
    story.fails_check(CheckId::C15, "nothing says what became of it");
    assert_eq!(verdict(&story.results()), Verdict::Fail);
}
