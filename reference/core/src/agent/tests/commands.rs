//! Commands: taken once, executed once, answered; refused where they must be.

use super::*;

const HW: &str = "SN-1";

#[test]
fn the_agent_subscribes_to_its_commands_before_it_says_online() {
    let mut rig = Rig::new(config(), Saved { boot: Some(Epoch::FIRST), ..Saved::default() }, 1);
    rig.event(Event::Start);
    rig.accept();
    let at = |is: &dyn Fn(&Effect) -> bool| rig.effects.iter().position(is).unwrap();
    let filter = vec![event::commands_filter(&config().rae)];
    let subscribed = at(&|effect| matches!(effect, Effect::Subscribe { filters, .. } if *filters == filter));
    assert!(subscribed < at(&|effect| matches!(effect, Effect::Publish { of: Published::Status, .. })));
}

#[test]
fn an_id_is_durable_before_its_command_is_acknowledged_and_executed() {
    let (mut rig, session) = Rig::with_device(HW);
    rig.disk_works = false;
    let id = rig.command(session, CommandKind::Probe);
    assert!(rig.acknowledged.is_empty() && rig.probes.is_empty());
    rig.save_works();
    assert_eq!(rig.acknowledged, [PacketId(1)]);
    assert_eq!(rig.probes.len(), 1);
    assert!(rig.facts().contains(&Fact::TookCommand(id, CommandName::Probe)));
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.replies(), [(id, ReplyOutcome::Ok)]);
}

#[test]
fn the_outcome_is_durable_before_the_reply_goes_out() {
    let (mut rig, session) = Rig::with_device(HW);
    let id = rig.command(session, CommandKind::Probe);
    rig.disk_works = false;
    rig.answer_probes(&Probe::Absent);
    assert!(rig.replies().is_empty());
    rig.save_works();
    assert_eq!(rig.replies(), [(id, ReplyOutcome::error("the device is not there"))]);
    let saved = rig.disk.commands.values().next().unwrap();
    assert_eq!(saved.outcome, Some(ReplyOutcome::error("the device is not there")));
}

#[test]
fn a_repeat_is_not_executed_and_gets_the_same_reply() {
    let (mut rig, session) = Rig::with_device(HW);
    let message = rig.message(session, Uuid::from_u128(1), CommandKind::Probe);
    rig.send(message.clone());
    rig.send(message.clone());
    assert_eq!(rig.probes.len(), 1, "a repeat while it is executed");
    rig.answer_probes(&Probe::Absent);
    rig.acknowledge_all();
    assert_eq!(rig.replies().len(), 1, "one reply answers both");
    rig.send(message);
    assert!(rig.probes.is_empty());
    let replies = rig.replies();
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[0], replies[1]);
    assert_eq!(rig.acknowledged.len(), 3);
}

#[test]
fn a_repeat_is_acknowledged_no_sooner_than_the_id_is_durable() {
    let (mut rig, session) = Rig::with_device(HW);
    rig.disk_works = false;
    let message = rig.message(session, Uuid::from_u128(1), CommandKind::Probe);
    rig.send(message.clone());
    rig.send(message);
    rig.send_bytes(session, b"refused at once");
    assert!(rig.acknowledged.is_empty(), "in the order of arrival");
    rig.save_works();
    assert_eq!(rig.acknowledged, [PacketId(1), PacketId(2), PacketId(3)]);
}

#[test]
fn a_repeat_after_a_restart_gets_the_saved_reply_or_interrupted_and_nothing_is_executed() {
    let (mut rig, session) = Rig::with_device(HW);
    let done = rig.command(session, CommandKind::Snapshot);
    let begun = rig.command(session, CommandKind::Probe);
    let mut rig = Rig::new(config(), rig.disk, 2);
    rig.event(Event::Start);
    rig.accept();
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    rig.acknowledge_all();
    for (id, kind) in [(done, CommandKind::Snapshot), (begun, CommandKind::Probe)] {
        let message = rig.message(session, id, kind);
        rig.send(message);
    }
    assert!(rig.probes.is_empty());
    assert_eq!(rig.replies(), [(done, ReplyOutcome::Ok), (begun, ReplyOutcome::error("interrupted"))]);
    assert!(!rig.facts().iter().any(|fact| matches!(fact, Fact::TookCommand(..))));
}

#[test]
fn a_save_that_fails_or_may_have_is_tried_again_and_the_command_executed_once() {
    for outcome in [SaveOutcome::Failed, SaveOutcome::Unknown] {
        let (mut rig, session) = Rig::with_device(HW);
        rig.disk_works = false;
        rig.command(session, CommandKind::Probe);
        let id = rig.saves.remove(0);
        rig.event(Event::Saved(id, outcome));
        assert!(rig.probes.is_empty() && rig.acknowledged.is_empty());
        rig.disk_works = true;
        rig.pass(Duration::from_secs(2));
        assert_eq!((rig.probes.len(), rig.acknowledged.len()), (1, 1));
    }
}

#[test]
fn snapshot_publishes_the_whole_record_now_and_then_the_reply() {
    let (mut rig, session) = Rig::with_device(HW);
    let id = rig.command(session, CommandKind::Snapshot);
    let published: Vec<Published> = rig.published_as();
    let [Published::Snapshot(_, version, SnapshotCause::Requested), Published::Reply(reply)] = published.as_slice()
    else {
        panic!("{published:?}")
    };
    assert_eq!((version.session, *reply), (session, id));
    assert_eq!(rig.replies(), [(id, ReplyOutcome::Ok)]);
}

#[test]
fn a_snapshot_tells_why_it_was_made() {
    let mut rig = Rig::online(config());
    rig.plug(HW, attributes([("a", 1)]));
    rig.acknowledge_all();
    rig.pass(Duration::from_secs(61));
    let mut disk = rig.disk.clone();
    let causes = rig.causes();
    assert!(causes.starts_with(&[SnapshotCause::Opening, SnapshotCause::Periodic]), "{causes:?}");
    disk.boot = Some(Epoch::FIRST);
    let mut rig = Rig::new(config(), disk, 2);
    rig.event(Event::Start);
    rig.accept();
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    assert_eq!(rig.causes(), [SnapshotCause::Owed]);
}

#[test]
fn commands_for_a_device_that_is_only_on_the_disk_wait_for_its_probe() {
    let (rig, session) = Rig::with_device(HW);
    let kinds = || [CommandKind::Snapshot, CommandKind::Probe, set([("b", 2)])];
    for (probe, oks) in [(Probe::Found(attributes([("a", 1)])), 2), (Probe::Absent, 1), (Probe::Unknown, 0)] {
        let mut rig = Rig::new(config(), rig.disk.clone(), 2);
        rig.event(Event::Start);
        rig.accept();
        for kind in kinds() {
            rig.command(session, kind);
        }
        assert!(rig.replies().is_empty() && rig.published().is_empty() && rig.sets.is_empty());
        rig.answer_probes(&probe);
        let replies = rig.replies();
        assert_eq!(replies.iter().filter(|(_, outcome)| *outcome == ReplyOutcome::Ok).count(), oks, "{probe:?}");
        assert_eq!(replies.len() + rig.sets.len(), 3, "{probe:?}: {replies:?}");
    }
}

#[test]
fn set_changes_the_device_and_reports_it_like_the_device_itself() {
    let (mut rig, session) = Rig::with_device(HW);
    let id = rig.command(session, set([("a", 5), ("b", 6)]));
    let (set_id, hardware, sent) = rig.sets.remove(0);
    assert_eq!((hardware.as_ref(), sent), (HW, attributes([("a", 5), ("b", 6)])));
    assert!(rig.published().is_empty() && rig.replies().is_empty());
    rig.event(Event::SetDone(set_id, SetOutcome::Done));
    assert_eq!(
        rig.published().remove(0).0.body,
        Body::Delta { set: attributes([("a", 5), ("b", 6)]), unset: BTreeSet::new() }
    );
    assert_eq!(rig.replies(), [(id, ReplyOutcome::Ok)]);
}

#[test]
fn a_set_that_the_device_refused_or_may_have_taken_is_an_error_and_the_latter_is_looked_after() {
    let (mut rig, session) = Rig::with_device(HW);
    let refused = rig.command(session, set([("a", 5)]));
    let unknown = rig.command(session, set([("a", 6)]));
    let first = rig.sets.remove(0).0;
    assert!(rig.sets.is_empty(), "one at a time");
    rig.event(Event::SetDone(first, SetOutcome::Refused("read only".into())));
    let second = rig.sets.remove(0).0;
    rig.event(Event::SetDone(second, SetOutcome::Unknown));
    let replies = rig.replies();
    assert_eq!(replies[0], (refused, ReplyOutcome::error("the device refused: read only")));
    assert!(matches!(&replies[1], (id, ReplyOutcome::Error(_)) if *id == unknown));
    assert_eq!(rig.probes.len(), 1);
    rig.event(Event::SetDone(second, SetOutcome::Done));
    assert_eq!(rig.replies().len(), 2, "an answer that comes twice");
}

#[test]
fn a_set_that_would_make_the_snapshot_too_large_or_finds_the_device_detached_never_touches_it() {
    let (mut rig, session) = Rig::with_device(HW);
    let big = BTreeMap::from([(name("b"), Value::Text("x".repeat(MAX_PAYLOAD_BYTES - 600).into()))]);
    let fits = CommandKind::Set { set: big, unset: BTreeSet::new() };
    rig.command(session, fits);
    let id = rig.sets.remove(0).0;
    rig.event(Event::SetDone(id, SetOutcome::Done));
    rig.acknowledge_all();
    let more = BTreeMap::from([(name("c"), Value::Text("x".repeat(600).into()))]);
    rig.command(session, CommandKind::Set { set: more, unset: BTreeSet::new() });
    rig.event(Event::Detached { hardware: HW.into() });
    rig.command(session, set([("a", 2)]));
    assert!(rig.sets.is_empty());
    assert_eq!(rig.refusals(), ["size", "detached"]);
}

#[test]
fn a_probe_tells_whether_the_device_is_there() {
    let (mut rig, session) = Rig::with_device(HW);
    let answers = [
        Probe::Found(attributes([("a", 1)])),
        Probe::Unknown,
        Probe::Found(attributes([("a", i64::MAX)])),
        Probe::Absent,
    ];
    for probe in &answers {
        rig.command(session, CommandKind::Probe);
        rig.answer_probes(probe);
    }
    let oks: Vec<bool> = rig.replies().iter().map(|(_, outcome)| *outcome == ReplyOutcome::Ok).collect();
    assert_eq!(oks, [true, false, false, false]);
}

#[test]
fn unplugging_ends_a_probe_that_a_command_waits_for() {
    let (mut rig, session) = Rig::with_device(HW);
    let id = rig.command(session, CommandKind::Probe);
    rig.event(Event::Detached { hardware: HW.into() });
    assert_eq!(rig.replies(), [(id, ReplyOutcome::error("the device is not there"))]);
}

#[test]
fn a_command_for_a_session_that_is_gone_is_refused_and_so_is_what_waited_for_it() {
    let (mut rig, session) = Rig::with_device(HW);
    rig.command(Session(Uuid::from_u128(9)), CommandKind::Snapshot);
    assert_eq!(rig.refusals(), ["gone"]);
    for value in 0..25 {
        rig.report(HW, [("a", value)]);
    }
    // The window is full: the first one's snapshot has not left, and the second waits for that.
    rig.command(session, CommandKind::Snapshot);
    let waits = rig.command(session, CommandKind::Snapshot);
    assert_eq!(rig.agent.commands.under_way.len(), 1);
    rig.event(Event::Detached { hardware: HW.into() });
    rig.event(Event::Detected { hardware: HW.into() });
    rig.answer_probes(&Probe::Found(attributes([("a", 1)])));
    rig.acknowledge_all();
    assert!(rig.replies().contains(&(waits, ReplyOutcome::error("session is gone"))), "{:?}", rig.replies());
}

#[test]
fn what_has_an_id_gets_an_error_reply_and_what_has_none_only_a_fact() {
    let (mut rig, session) = Rig::with_device(HW);
    let id = Uuid::from_u128(7);
    rig.send_bytes(session, format!(r#"{{"v":1,"id":"{id}","kind":"novelty"}}"#).as_bytes());
    rig.send_bytes(session, b"not json");
    rig.send(Message { topic: "dmp/v1/nonsense".into(), ..rig.message(session, id, CommandKind::Probe) });
    let other = Topic::Command(Rae::try_from("RAE-1").unwrap(), session).to_string().into();
    rig.send(Message { topic: other, ..rig.message(session, id, CommandKind::Probe) });
    assert_eq!(rig.refusals(), ["kind", "json", "topic", "topic"]);
    let replies = rig.replies();
    assert!(matches!(replies.as_slice(), [(of, ReplyOutcome::Error(_))] if *of == id), "{replies:?}");
    assert_eq!(rig.acknowledged.len(), 4);
    assert!(rig.disk.commands.is_empty());
}

#[test]
fn a_retained_command_is_ignored_and_acknowledged() {
    let (mut rig, session) = Rig::with_device(HW);
    let message = rig.message(session, Uuid::from_u128(1), CommandKind::Probe);
    rig.send(Message { retain: true, ..message });
    assert_eq!((rig.acknowledged.len(), rig.probes.len(), rig.facts().len()), (1, 0, 0));
}

#[test]
fn more_commands_than_can_be_under_way_are_refused_as_busy_and_not_executed_later() {
    let (mut rig, session) = Rig::with_device(HW);
    rig.disk_works = false;
    for _ in 0..MAX_UNDER_WAY {
        rig.command(session, CommandKind::Probe);
    }
    let message = rig.message(session, Uuid::from_u128(999), CommandKind::Probe);
    rig.send(message.clone());
    rig.save_works();
    rig.answer_probes(&Probe::Absent);
    rig.send(message);
    assert_eq!(rig.refusals(), ["busy", "busy"]);
    assert!(rig.probes.is_empty());
    rig.acknowledge_all();
    assert_eq!(rig.replies().len(), MAX_UNDER_WAY + 2);
}

#[test]
fn replies_have_a_bound_and_survive_a_reconnect_in_order() {
    let (mut rig, session) = Rig::with_device(HW);
    let mut ids = Vec::new();
    for _ in 0..2 * MAX_REPLIES {
        ids.push(rig.command(session, CommandKind::Probe));
        rig.answer_probes(&Probe::Absent);
        assert!(rig.agent.outbox.replies() <= MAX_REPLIES);
    }
    let taken = rig.facts().iter().filter(|fact| matches!(fact, Fact::TookCommand(..))).count();
    assert_eq!(taken, MAX_REPLIES, "each had a place for its reply");
    let unanswered = Fact::RefusedCommand { id: ids.last().copied(), reason: "busy", replied: false };
    assert!(rig.facts().contains(&unanswered), "a refusal without a place is told as such");
    rig.cut();
    rig.effects.clear();
    rig.pass(Duration::from_secs(2));
    rig.accept();
    rig.acknowledge_all();
    let replies: Vec<Uuid> = rig.replies().into_iter().map(|(id, _)| id).collect();
    assert_eq!(replies, ids[..taken], "in order");
}

#[test]
fn the_oldest_ids_are_forgotten_beyond_the_bound_in_memory_and_on_disk() {
    let (mut rig, session) = Rig::with_device(HW);
    for _ in 0..MAX_REMEMBERED + 50 {
        rig.command(session, CommandKind::Probe);
        rig.answer_probes(&Probe::Absent);
        rig.acknowledge_all();
        rig.effects.clear();
    }
    assert_eq!(rig.disk.commands.len(), MAX_REMEMBERED);
    assert_eq!(rig.disk.commands.keys().next(), Some(&51));
}

#[test]
fn a_stop_answers_what_is_under_way_with_interrupted_and_takes_nothing_new() {
    let (mut rig, session) = Rig::with_device(HW);
    let begun = rig.command(session, CommandKind::Probe);
    rig.event(Event::Stop { within: Duration::from_secs(5) });
    let late = rig.command(session, CommandKind::Probe);
    assert_eq!(
        rig.replies(),
        [(begun, ReplyOutcome::error("interrupted")), (late, ReplyOutcome::error("the agent stops"))]
    );
    rig.acknowledge_all();
    assert!(rig.effects.contains(&Effect::Stopped));
}

#[test]
fn an_acknowledgement_of_a_connection_that_is_gone_is_not_sent() {
    let (mut rig, session) = Rig::with_device(HW);
    rig.disk_works = false;
    rig.command(session, CommandKind::Probe);
    rig.cut_and_back();
    rig.save_works();
    assert!(rig.acknowledged.is_empty());
    assert_eq!(rig.probes.len(), 1);
}
