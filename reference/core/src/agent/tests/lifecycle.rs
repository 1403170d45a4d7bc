//! Detected, onboarded, reported, detached, re-attached, restarted, forgotten.

use super::*;

const HW: &str = "SN-1";

#[test]
fn a_session_opens_after_a_successful_probe_with_a_snapshot_of_everything_at_seq_1() {
    let mut rig = Rig::online(config());
    rig.event(Event::Detected { hardware: HW.into() });
    assert!(rig.published().is_empty(), "nothing is published before the probe");
    rig.answer_probes(&Probe::Found(attributes([("rev", 7), ("sdk", 3)])));
    let published = rig.published();
    let [(opening, false)] = published.as_slice() else { panic!("{published:?}") };
    let Body::Snapshot { attributes } = &opening.body else { panic!("{opening:?}") };
    assert_eq!(opening.version.seq, Seq::FIRST);
    assert!(attributes.values().all(|(_, seq)| *seq == Seq::FIRST));
    assert_eq!(attributes[CONNECTION].0, Value::Text("attached".into()));
    assert_eq!(attributes["rev"].0, Value::Integer(7));
    assert_eq!(rig.disk.devices[&opening.device].session, opening.version.session);
}

#[test]
fn a_device_that_is_absent_or_unknown_opens_no_session() {
    let mut rig = Rig::online(config());
    rig.event(Event::Detected { hardware: HW.into() });
    rig.answer_probes(&Probe::Unknown);
    assert!(rig.published().is_empty() && rig.disk.devices.is_empty());
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.probes.len(), 1, "an unknown outcome is tried again");
    rig.answer_probes(&Probe::Absent);
    rig.pass(Duration::from_secs(600));
    assert!(rig.published().is_empty() && rig.probes.is_empty());
}

#[test]
fn only_what_changed_travels_in_a_delta() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1), ("b", 2)]));
    rig.effects.clear();
    rig.report(HW, [("a", 1)]);
    assert!(rig.published().is_empty(), "an equal value is not a change");
    let unset = BTreeSet::from([name("b"), name("never_there")]);
    rig.event(Event::Reported { hardware: HW.into(), set: attributes([("a", 5)]), unset });
    let (delta, _) = rig.published().remove(0);
    let expected = Body::Delta { set: attributes([("a", 5)]), unset: BTreeSet::from([name("b")]) };
    assert_eq!((delta.version.seq.get(), delta.body), (2, expected));
}

#[test]
fn a_device_cannot_set_the_agents_own_attribute() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([]));
    rig.effects.clear();
    rig.report(HW, [(CONNECTION, 1)]);
    rig.event(Event::Reported { hardware: HW.into(), set: BTreeMap::new(), unset: BTreeSet::from([name(CONNECTION)]) });
    assert!(rig.published().is_empty());
}

#[test]
fn nothing_is_published_before_it_is_durable_and_a_failed_save_is_tried_again() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    rig.effects.clear();
    rig.disk_works = false;
    rig.report(HW, [("a", 2)]);
    rig.report(HW, [("a", 3)]);
    assert_eq!(rig.saves.len(), 1, "one save is under way at a time");
    for outcome in [SaveOutcome::Failed, SaveOutcome::Unknown] {
        let id = rig.saves.remove(0);
        rig.event(Event::Saved(id, outcome));
        assert!(rig.saves.is_empty(), "it waits before it tries again");
        rig.pass(Duration::from_secs(3));
        assert_eq!(rig.saves.len(), 1);
    }
    assert!(rig.published().is_empty());
    let last = rig
        .effects
        .iter()
        .rev()
        .find_map(|effect| if let Effect::Save(_, changes) = effect { Some(changes) } else { None });
    let [Change::Device(saved, record)] = last.unwrap().as_slice() else { panic!("{last:?}") };
    assert_eq!((*saved, record.seq.get()), (device, 3), "the retry carries the newest record");
    let id = rig.saves.remove(0);
    rig.event(Event::Saved(id, SaveOutcome::Durable));
    assert_eq!(rig.seqs(), [2, 3]);
}

#[test]
fn detaching_is_a_delta_and_snapshots_go_on() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1)]));
    rig.acknowledge_all();
    rig.effects.clear();
    rig.event(Event::Detached { hardware: HW.into() });
    let (delta, _) = rig.published().remove(0);
    let set = BTreeMap::from([(name(CONNECTION), Value::Text("detached".into()))]);
    assert_eq!(delta.body, Body::Delta { set, unset: BTreeSet::new() });
    for _ in 0..5 {
        rig.acknowledge_all();
        rig.effects.clear();
        rig.pass(Duration::from_secs(70));
        assert!(matches!(rig.published().as_slice(), [(StateEvent { body: Body::Snapshot { .. }, .. }, false), ..]));
        rig.answer_probes(&Probe::Absent);
    }
}

#[test]
fn a_device_that_comes_back_gets_a_new_session_above_the_old() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1)]));
    let (first, _) = rig.published().remove(0);
    rig.event(Event::Detached { hardware: HW.into() });
    rig.effects.clear();
    rig.now.wall.0 -= 3_600_000;
    rig.plug(HW, attributes([("a", 1)]));
    let (second, _) = rig.published().remove(0);
    assert_ne!(second.version.session, first.version.session);
    assert_eq!(second.version.epoch.get(), first.version.epoch.get() + 1, "also when the clock stepped back");
}

#[test]
fn detected_while_attached_opens_no_second_session() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1)]));
    rig.effects.clear();
    rig.plug(HW, attributes([("a", 1)]));
    assert!(rig.published().is_empty());
}

#[test]
fn a_probe_that_was_overtaken_by_the_unplugging_says_nothing() {
    let mut rig = Rig::online(config());
    rig.event(Event::Detected { hardware: HW.into() });
    rig.event(Event::Detached { hardware: HW.into() });
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert!(rig.published().is_empty());
}

#[test]
fn a_device_noticed_during_a_probe_is_probed_again_before_it_counts_as_absent() {
    let mut rig = Rig::online(config());
    rig.event(Event::Detected { hardware: HW.into() });
    rig.event(Event::Detected { hardware: HW.into() });
    rig.answer_probes(&Probe::Absent);
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.seqs(), [1]);
}

#[test]
fn a_report_during_a_probe_is_not_undone_by_its_older_answer() {
    let mut rig = Rig::online(config());
    rig.event(Event::Detected { hardware: HW.into() });
    rig.report(HW, [("a", 2)]);
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    let Body::Snapshot { attributes: opening } = rig.published().remove(0).0.body else { panic!() };
    assert_eq!(opening["a"].0, Value::Integer(2));
    rig.pass(Duration::from_secs(31));
    rig.effects.clear();
    rig.report(HW, [("a", 3)]);
    rig.answer_probes(&Probe::Found(attributes([("a", 2)])));
    assert_eq!(rig.published().len(), 1, "the report alone, and no way back");
}

#[test]
fn a_probe_tells_what_no_report_told() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1), ("b", 1)]));
    rig.pass(Duration::from_secs(31));
    rig.effects.clear();
    rig.answer_probes(&Probe::Found(attributes([("a", 2), ("c", 1)])));
    let expected = Body::Delta { set: attributes([("a", 2), ("c", 1)]), unset: BTreeSet::from([name("b")]) };
    assert_eq!(rig.published().remove(0).0.body, expected);
}

#[test]
fn a_restart_resumes_the_session_with_the_difference_and_a_snapshot() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1), ("b", 1)]));
    rig.report(HW, [("a", 2)]);
    let (last, _) = rig.published().pop().unwrap();
    let mut rig = Rig::new(config(), rig.disk, 2);
    rig.event(Event::Start);
    rig.accept();
    rig.answer_probes(&Probe::Found(attributes([("a", 3), ("b", 1)])));
    rig.acknowledge_all();
    let published = rig.published();
    let [(delta, _), (snapshot, _)] = published.as_slice() else { panic!("{published:?}") };
    assert_eq!(delta.version, Version { seq: last.version.seq.next().unwrap(), ..last.version });
    assert_eq!(delta.body, Body::Delta { set: attributes([("a", 3)]), unset: BTreeSet::new() });
    let Body::Snapshot { attributes } = &snapshot.body else { panic!("{snapshot:?}") };
    assert_eq!(attributes["a"], (Value::Integer(3), delta.version.seq));
    assert_eq!(attributes["b"], (Value::Integer(1), Seq::FIRST));
}

#[test]
fn a_restart_publishes_nothing_of_a_device_before_its_probe_has_ended() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1)]));
    let mut rig = Rig::new(config(), rig.disk, 2);
    rig.event(Event::Start);
    rig.accept();
    rig.acknowledge_all();
    rig.pass(Duration::from_secs(600));
    assert!(rig.published().is_empty());
    rig.answer_probes(&Probe::Absent);
    let states: Vec<Body> = rig.published().into_iter().map(|(event, _)| event.body).collect();
    assert!(
        matches!(states.as_slice(), [Body::Delta { set, .. }, Body::Snapshot { .. }] if set.contains_key(CONNECTION))
    );
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Lets the clocks pass without a timer, then one probe answer "absent".
fn stays_absent(rig: &mut Rig, time: Duration) {
    rig.advance(rig.now.mono + time);
    rig.pass(Duration::from_secs(31));
    rig.answer_probes(&Probe::Absent);
}

#[test]
fn a_device_that_is_gone_for_long_is_forgotten() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    rig.event(Event::Detached { hardware: HW.into() });
    stays_absent(&mut rig, 6 * DAY);
    assert!(rig.disk.devices.contains_key(&device));
    stays_absent(&mut rig, DAY);
    assert!(rig.facts().contains(&Fact::Forgotten(device)));
    assert!(rig.disk.devices.is_empty());
    rig.acknowledge_all();
    rig.effects.clear();
    rig.pass(Duration::from_secs(600));
    assert!(rig.published().is_empty() && rig.probes.is_empty());
}

#[test]
fn a_step_of_the_wall_clock_forgets_nobody_and_keeps_nobody() {
    for days in [-30, 30] {
        let mut rig = Rig::online(config());
        let device = rig.plug(HW, attributes([("a", 1)]));
        rig.now.wall.0 += days * 24 * 3_600_000;
        stays_absent(&mut rig, Duration::ZERO);
        assert!(rig.disk.devices.contains_key(&device), "absent for one probe, not for {days} days");
        stays_absent(&mut rig, 7 * DAY);
        assert!(rig.disk.devices.is_empty(), "absent for 7 days, whatever the clock says");
    }
}

#[test]
fn the_time_that_the_rae_was_off_counts_for_what_its_next_life_does_not_find() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    let (disk, off_for) = (rig.disk, |days: i64| Wall(1_700_000_000_000 + days * 24 * 3_600_000));
    for (days, is_there) in [(8, false), (6, true), (-30, true)] {
        let mut rig = Rig::new(config(), disk.clone(), 2);
        rig.now.wall = off_for(days);
        rig.event(Event::Start);
        rig.answer_probes(&Probe::Absent);
        assert_eq!(rig.disk.devices.contains_key(&device), is_there, "off for {days} days");
    }
    let mut rig = Rig::new(config(), disk, 2);
    rig.now.wall = off_for(8);
    rig.event(Event::Start);
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    stays_absent(&mut rig, Duration::ZERO);
    assert!(rig.disk.devices.contains_key(&device), "it was found in this life");
}

#[test]
fn a_report_that_would_make_the_snapshot_too_large_is_refused_whole() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    rig.effects.clear();
    let value = |bytes| {
        BTreeMap::from([(name("text"), Value::Text("\"".repeat(bytes).into())), (name("a"), Value::Bool(true))])
    };
    let report = |set| Event::Reported { hardware: HW.into(), set, unset: BTreeSet::new() };
    rig.event(report(value(MAX_PAYLOAD_BYTES / 2)));
    assert!(rig.published().is_empty());
    assert_eq!(rig.facts(), [Fact::RefusedReport(device)]);
    rig.event(report(value(MAX_PAYLOAD_BYTES / 2 - 400)));
    rig.acknowledge_all();
    rig.pass(Duration::from_secs(70));
    assert_eq!(rig.published().len(), 2, "delta and snapshot were decoded");
}

#[test]
fn values_that_no_decoder_takes_are_refused() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    for value in [Value::Float(f64::NAN), Value::Text("a\0b".into()), Value::Integer(i64::MAX)] {
        rig.effects.clear();
        let set = BTreeMap::from([(name("a"), value)]);
        rig.event(Event::Reported { hardware: HW.into(), set, unset: BTreeSet::new() });
        assert_eq!(rig.facts(), [Fact::RefusedReport(device)]);
    }
}

#[test]
fn first_snapshots_of_devices_that_came_together_fall_apart_in_time() {
    let mut rig = Rig::online(config());
    for device in 0..12 {
        rig.plug(&format!("SN-{device}"), attributes([("a", 1)]));
    }
    let mut busiest = 0;
    for _ in 0..60 {
        rig.acknowledge_all();
        rig.effects.clear();
        rig.pass(Duration::from_secs(1));
        busiest = busiest.max(rig.published().len());
    }
    assert!(busiest <= 4, "{busiest} snapshots within one second");
}

#[test]
fn a_session_that_has_no_seq_left_is_followed_by_another() {
    let mut rig = Rig::online(config());
    let device = rig.plug(HW, attributes([("a", 1)]));
    let mut disk = rig.disk;
    let saved = Arc::make_mut(disk.devices.get_mut(&device).unwrap());
    saved.seq = Seq::try_from(crate::id::MAX_EXACT).unwrap();
    let old = saved.session;
    let mut rig = Rig::new(config(), disk, 2);
    rig.event(Event::Start);
    rig.accept();
    rig.answer_probes(&Probe::Found(attributes([("a", 2)])));
    rig.acknowledge_all();
    let (opening, _) = rig.published().remove(0);
    assert_ne!(opening.version.session, old);
    assert_eq!(opening.version.seq, Seq::FIRST);
}

#[test]
fn a_full_rae_refuses_another_device() {
    let mut rig = Rig::online(config());
    for device in 0..MAX_DEVICES {
        rig.event(Event::Detected { hardware: format!("SN-{device}").into() });
    }
    rig.effects.clear();
    rig.event(Event::Detected { hardware: HW.into() });
    rig.event(Event::Detected { hardware: "one more".into() });
    assert_eq!(rig.facts(), [Fact::RefusedDevice(Device::of_hardware("one more"))]);
}
