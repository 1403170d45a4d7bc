//! Boot, presence, back-off, stop.

use super::*;

fn retained(boot: u64) -> Message {
    let boot = Epoch::try_from(boot).unwrap();
    let presence = Presence { boot, connection: Seq::FIRST, state: PresenceState::Online };
    let topic = Topic::Status(config().rae).to_string().into();
    Message { topic, payload: presence.encode().into(), packet: Some(PacketId(9)), dup: false, retain: true }
}

#[test]
fn a_wiped_rae_takes_its_boot_above_the_one_that_the_broker_remembers() {
    let mut rig = Rig::new(config(), Saved::default(), 1);
    rig.event(Event::Start);
    assert_eq!(rig.will, None, "the first connection only reads");
    rig.accept();
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::Subscribe { .. })));
    let (reading, remembered) = (rig.connection.unwrap(), (1 << 52) + 5);
    rig.event(Event::Message(reading, retained(remembered)));
    assert!(rig.effects.contains(&Effect::Acknowledge(reading, PacketId(9))));
    assert!(rig.effects.contains(&Effect::Disconnect(reading)));
    assert_eq!(rig.disk.boot.unwrap().get(), remembered + 1);
    assert_ne!(rig.connection, Some(reading));
    rig.accept();
    let online = rig.presences().remove(0);
    assert_eq!((online.boot.get(), online.state), (remembered + 1, PresenceState::Online));
    assert_eq!(presence(rig.will.as_ref().unwrap()), Presence { state: PresenceState::Offline, ..online });
}

#[test]
fn a_wiped_rae_that_nobody_remembers_takes_the_clock_after_a_bounded_wait() {
    let mut rig = Rig::new(config(), Saved::default(), 1);
    rig.event(Event::Start);
    rig.accept();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.disk.boot, None);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.disk.boot.map(Epoch::get), u64::try_from(rig.now.wall.0).ok());
    assert!(rig.will.is_some());
}

#[test]
fn the_will_waits_until_the_boot_is_durable() {
    let mut rig = Rig::new(config(), Saved { boot: Some(Epoch::FIRST), ..Saved::default() }, 1);
    rig.disk_works = false;
    rig.event(Event::Start);
    assert_eq!(rig.connection, None);
    let id = rig.saves.remove(0);
    rig.event(Event::Saved(id, SaveOutcome::Durable));
    assert!(rig.will.is_some());
}

#[test]
fn each_connection_says_online_first_with_its_own_number() {
    let mut rig = Rig::online(config());
    rig.plug("SN-1", attributes([("a", 1)]));
    for number in 2..5 {
        rig.cut();
        rig.effects.clear();
        rig.pass(Duration::from_secs(60));
        rig.accept();
        let first = rig.effects.iter().find(|effect| matches!(effect, Effect::Publish { .. }));
        assert!(matches!(first, Some(Effect::Publish { of: Published::Status, message, .. }) if message.retain));
        assert_eq!(rig.presences()[0].connection.get(), number);
        assert_eq!(presence(rig.will.as_ref().unwrap()).connection.get(), number);
    }
}

#[test]
fn reconnecting_backs_off_to_its_cap_and_goes_on_for_ever() {
    let mut rig = Rig::online(config());
    let mut waits = Vec::new();
    for _ in 0..40 {
        rig.cut();
        let cut_at = rig.now.mono;
        while rig.connection.is_none() {
            rig.pass(Duration::from_millis(100));
            rig.answer_probes(&Probe::Absent);
        }
        waits.push(rig.now.mono.since(cut_at));
        rig.accept();
    }
    assert!(waits[0] <= Duration::from_millis(1100), "{waits:?}");
    assert!(waits[10..].iter().all(|&wait| (Duration::from_secs(15)..=Duration::from_millis(30_100)).contains(&wait)));
}

#[test]
fn an_acknowledged_online_ends_the_back_off() {
    let mut rig = Rig::online(config());
    for _ in 0..8 {
        rig.cut();
        rig.pass(Duration::from_secs(40));
    }
    rig.accept();
    rig.acknowledge_all();
    rig.cut();
    rig.pass(Duration::from_secs(1));
    assert!(rig.connection.is_some());
}

#[test]
fn events_of_an_old_connection_are_ignored() {
    let mut rig = Rig::online(config());
    let old = rig.connection.unwrap();
    rig.plug("SN-1", attributes([("a", 1)]));
    rig.cut();
    rig.pass(Duration::from_secs(2));
    rig.accept();
    rig.acknowledge_all();
    rig.effects.clear();
    rig.report("SN-1", [("a", 2)]);
    let packet =
        rig.effects.iter().find_map(|effect| if let Effect::Publish { packet, .. } = effect { *packet } else { None });
    rig.effects.clear();
    rig.event(Event::Acknowledged(old, packet.unwrap()));
    rig.event(Event::Disconnected(old));
    assert!(rig.effects.is_empty());
}

#[test]
fn stop_drains_says_offline_and_disconnects() {
    let mut rig = Rig::online(config());
    rig.plug("SN-1", attributes([("a", 1)]));
    rig.event(Event::Stop { within: Duration::from_secs(5) });
    assert!(rig.presences().is_empty(), "the outbox first");
    rig.acknowledge_all();
    assert_eq!(rig.presences().iter().map(|said| said.state).collect::<Vec<_>>(), [PresenceState::Offline]);
    let ends = &rig.effects[rig.effects.len() - 3..];
    assert!(matches!(
        ends,
        [Effect::Disconnect(_), Effect::Stopped, Effect::Fact(Fact::Acknowledged(Published::Status))]
    ));
    assert_eq!(rig.agent.deadline(), None);
}

#[test]
fn stop_is_bounded_when_nothing_answers() {
    let mut rig = Rig::online(config());
    rig.plug("SN-1", attributes([("a", 1)]));
    rig.disk_works = false;
    rig.report("SN-1", [("a", 2)]);
    rig.event(Event::Stop { within: Duration::from_secs(5) });
    rig.pass(Duration::from_millis(4999));
    assert!(!rig.effects.contains(&Effect::Stopped));
    rig.pass(Duration::from_millis(1));
    let offline = rig.presences();
    assert!(matches!(offline.as_slice(), [Presence { state: PresenceState::Offline, .. }]));
    assert!(matches!(rig.effects.as_slice(), [.., Effect::Disconnect(_), Effect::Stopped]));
}

#[test]
fn stop_without_a_connection_ends_at_once() {
    let mut rig = Rig::online(config());
    rig.plug("SN-1", attributes([("a", 1)]));
    rig.cut();
    rig.event(Event::Stop { within: Duration::from_secs(5) });
    assert_eq!(rig.effects.last(), Some(&Effect::Stopped));
}
