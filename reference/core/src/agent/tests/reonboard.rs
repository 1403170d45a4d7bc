//! `reonboard`: a session that lost is followed by one above the winner, if the device is there.

use super::*;

const HW: &str = "SN-1";

fn epoch(number: u64) -> Epoch {
    Epoch::try_from(number).unwrap()
}

fn reonboard(by: u64) -> CommandKind {
    CommandKind::Reonboard { device: Device::of_hardware(HW), epoch: epoch(by) }
}

/// Far above the rig's clock: from a RAE whose clock is wrong by years.
const AHEAD: u64 = 1_900_000_000_000;

#[test]
fn a_device_that_is_found_gets_a_session_above_the_epoch_that_won_opened_by_a_snapshot() {
    let (mut rig, old) = Rig::with_device(HW);
    let id = rig.command(old, reonboard(AHEAD));
    assert!(rig.published().is_empty(), "not before the probe");
    rig.answer_probes(&Probe::Found(attributes([("a", 2)])));
    let published = rig.published();
    let [(opening, _)] = published.as_slice() else { panic!("{published:?}") };
    assert_ne!(opening.version.session, old);
    assert_eq!((opening.version.epoch, opening.version.seq), (epoch(AHEAD + 1), Seq::FIRST));
    assert!(matches!(&opening.body, Body::Snapshot { attributes } if attributes["a"].0 == Value::Integer(2)));
    assert_eq!(rig.replies(), [(id, ReplyOutcome::Ok)]);
    assert_eq!(rig.disk.devices[&Device::of_hardware(HW)].epoch, epoch(AHEAD + 1));
}

#[test]
fn the_new_epoch_is_above_the_winner_the_own_one_and_the_clock() {
    let clock_ms = 1_700_000_000_000;
    for step_ms in [-36_000_000_i64, 0, 36_000_000] {
        let (mut rig, old) = Rig::with_device(HW);
        rig.now.wall.0 += step_ms;
        rig.command(old, reonboard(clock_ms));
        rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
        let expected = if step_ms > 0 { clock_ms + 36_000_000 } else { clock_ms + 1 };
        assert_eq!(rig.published()[0].0.version.epoch, epoch(expected), "a step of {step_ms} ms");
    }
}

#[test]
fn at_an_equal_epoch_the_bytes_of_the_session_decided_and_a_new_session_is_above() {
    let (mut rig, old) = Rig::with_device(HW);
    let own = rig.disk.devices[&Device::of_hardware(HW)].epoch;
    rig.command(old, reonboard(own.get()));
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.published()[0].0.version.epoch, own.next().unwrap());
}

#[test]
fn a_device_that_is_not_there_is_forgotten_and_nothing_more_is_said_of_it() {
    let (mut rig, old) = Rig::with_device(HW);
    let id = rig.command(old, reonboard(AHEAD));
    rig.answer_probes(&Probe::Absent);
    assert_eq!(rig.replies(), [(id, ReplyOutcome::Ok)]);
    assert!(rig.facts().contains(&Fact::Forgotten(Device::of_hardware(HW))));
    assert!(rig.disk.devices.is_empty());
    rig.acknowledge_all();
    rig.effects.clear();
    rig.pass(Duration::from_secs(600));
    assert!(rig.published().is_empty() && rig.probes.is_empty());
    rig.plug(HW, attributes([("a", 1)]));
    assert_eq!(rig.published().len(), 1, "and when it comes it is onboarded");
}

#[test]
fn a_probe_that_does_not_end_leaves_the_session_as_it_is() {
    let (mut rig, old) = Rig::with_device(HW);
    let id = rig.command(old, reonboard(AHEAD));
    rig.answer_probes(&Probe::Unknown);
    assert_eq!(rig.replies(), [(id, ReplyOutcome::error("the probe did not end"))]);
    rig.pass(Duration::from_secs(2));
    rig.answer_probes(&Probe::Found(attributes([("a", 2)])));
    assert_eq!(rig.published()[0].0.version.session, old);
}

#[test]
fn a_session_that_is_not_current_not_of_the_device_or_above_the_epoch_does_not_act() {
    let (mut rig, current) = Rig::with_device(HW);
    rig.command(Session(Uuid::from_u128(1)), reonboard(AHEAD));
    rig.command(current, CommandKind::Reonboard { device: Device::of_hardware("SN-2"), epoch: epoch(AHEAD) });
    rig.command(current, reonboard(1_699_999_999_999));
    assert_eq!(rig.refusals(), ["gone", "device", "epoch"]);
    assert!(rig.probes.is_empty());
    assert_eq!(rig.replies().len(), 3);
}

#[test]
fn a_second_notice_for_the_old_session_is_answered_and_changes_nothing() {
    let (mut rig, old) = Rig::with_device(HW);
    rig.command(old, reonboard(AHEAD));
    let second = rig.command(old, reonboard(AHEAD + 7));
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.published()[0].0.version.epoch, epoch(AHEAD + 8), "above both");
    let late = rig.command(old, reonboard(AHEAD + 7));
    let replies = rig.replies();
    assert_eq!(replies[1], (second, ReplyOutcome::Ok));
    assert_eq!(replies[2], (late, ReplyOutcome::error("session is gone")));
    assert_eq!(rig.published().len(), 1);
}

#[test]
fn a_device_that_is_only_on_the_disk_is_probed_first() {
    let (rig, old) = Rig::with_device(HW);
    for is_there in [true, false] {
        let mut rig = Rig::new(config(), rig.disk.clone(), 2);
        rig.event(Event::Start);
        rig.accept();
        rig.command(old, reonboard(AHEAD));
        assert_eq!((rig.probes.len(), rig.replies().len()), (1, 0));
        rig.answer_probes(&if is_there { Probe::Found(attributes([("a", 1)])) } else { Probe::Absent });
        rig.acknowledge_all();
        assert_eq!(rig.replies()[0].1, ReplyOutcome::Ok);
        let epochs: Vec<u64> = rig.published().iter().map(|(event, _)| event.version.epoch.get()).collect();
        assert_eq!(epochs, if is_there { vec![AHEAD + 1] } else { vec![] });
    }
}

#[test]
fn other_commands_of_the_old_session_are_answered_too() {
    let (mut rig, old) = Rig::with_device(HW);
    rig.command(old, reonboard(AHEAD));
    let probe = rig.command(old, CommandKind::Probe);
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert!(rig.replies().contains(&(probe, ReplyOutcome::Ok)));
    assert!(rig.agent.commands.under_way.is_empty());
}

#[test]
fn the_largest_epoch_can_still_be_answered() {
    let (mut rig, old) = Rig::with_device(HW);
    rig.command(old, reonboard(crate::id::MAX_EXACT));
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    let (opening, _) = rig.published().remove(0);
    assert_eq!(opening.version.epoch, epoch(crate::id::MAX_EXACT));
    rig.command(opening.version.session, reonboard(crate::id::MAX_EXACT));
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.published().len(), 2, "each attempt draws a session anew");
}
