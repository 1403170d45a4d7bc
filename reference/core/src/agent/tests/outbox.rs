//! Window, resend, shedding.

use super::*;

fn unacknowledged(rig: &Rig) -> usize {
    rig.effects.iter().filter(|effect| matches!(effect, Effect::Publish { .. })).count()
}

#[test]
fn no_more_than_the_window_is_in_flight() {
    let mut rig = Rig::online(Config { window: 3, ..config() });
    rig.plug("SN-1", attributes([("a", 0)]));
    for value in 1..10 {
        rig.report("SN-1", [("a", value)]);
    }
    assert_eq!(unacknowledged(&rig), 3);
    rig.acknowledge_all();
    assert_eq!(rig.seqs(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn after_a_reconnect_everything_unacknowledged_comes_again_in_order_before_anything_new() {
    let mut rig = Rig::online(Config { window: 4, ..config() });
    rig.plug("SN-1", attributes([("a", 0)]));
    for value in 1..6 {
        rig.report("SN-1", [("a", value)]);
    }
    rig.cut();
    rig.effects.clear();
    rig.pass(Duration::from_secs(2));
    rig.accept();
    assert_eq!(unacknowledged(&rig), 4, "the status counts");
    rig.acknowledge_all();
    let sent: Vec<(u64, bool)> = rig.published().iter().map(|(event, dup)| (event.version.seq.get(), *dup)).collect();
    assert_eq!(sent, [(1, true), (2, true), (3, true), (4, true), (5, false), (6, false)]);
}

#[test]
fn packet_ids_in_flight_are_distinct_also_after_they_wrap() {
    let mut rig = Rig::online(Config { window: 5, ..config() });
    rig.plug("SN-1", attributes([("a", 0)]));
    let stuck = rig
        .effects
        .iter()
        .find_map(|effect| if let Effect::Publish { packet, .. } = effect { *packet } else { None })
        .unwrap();
    let connection = rig.connection.unwrap();
    for value in 1..=70_000 {
        rig.effects.clear();
        rig.report("SN-1", [("a", value)]);
        for effect in std::mem::take(&mut rig.effects) {
            if let Effect::Publish { packet: Some(packet), .. } = effect {
                assert_ne!(packet, stuck);
                rig.event(Event::Acknowledged(connection, packet));
            }
        }
    }
}

#[test]
fn qos_0_is_sent_once_while_connected_and_kept_while_not() {
    let mut rig = Rig::online(Config { qos: Qos::AtMostOnce, ..config() });
    rig.plug("SN-1", attributes([("a", 0)]));
    assert_eq!(rig.seqs(), [1]);
    rig.cut();
    rig.effects.clear();
    rig.report("SN-1", [("a", 1)]);
    rig.report("SN-1", [("a", 2)]);
    assert!(rig.seqs().is_empty());
    rig.pass(Duration::from_secs(2));
    rig.accept();
    assert_eq!(rig.seqs(), [2, 3]);
    rig.cut();
    rig.effects.clear();
    rig.pass(Duration::from_secs(2));
    rig.accept();
    assert!(rig.seqs().is_empty());
}

#[test]
fn a_full_outbox_sheds_the_busiest_device_and_a_snapshot_covers_it() {
    let mut rig = Rig::online(Config { outbox: 10, ..config() });
    let busy = rig.plug("busy", attributes([("a", 0)]));
    let quiet = rig.plug("quiet", attributes([("a", 0)]));
    rig.acknowledge_all();
    rig.cut();
    rig.effects.clear();
    rig.report("quiet", [("a", 1)]);
    for value in 1..=9 {
        rig.report("busy", [("a", value)]);
    }
    rig.report("quiet", [("a", 2)]);
    let shed: Vec<Device> = rig
        .facts()
        .into_iter()
        .filter_map(|fact| if let Fact::Shed(device, _) = fact { Some(device) } else { None })
        .collect();
    assert_eq!(shed, [busy; 9]);
    rig.pass(Duration::from_secs(2));
    rig.accept();
    rig.acknowledge_all();
    let published = rig.published();
    let last_of =
        |device| published.iter().rev().find(|(event, _)| event.device == device).map(|(event, _)| &event.body);
    assert!(matches!(last_of(busy), Some(Body::Snapshot { attributes }) if attributes["a"].0 == Value::Integer(9)));
    assert!(matches!(last_of(quiet), Some(Body::Delta { .. })));
}

#[test]
fn an_outage_of_any_length_costs_no_more_than_the_outbox() {
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        let mut rig = Rig::online(Config { outbox: 20, qos, ..config() });
        let names: Vec<String> = (0..12).map(|device| format!("SN-{device}")).collect();
        for hardware in &names {
            rig.plug(hardware, attributes([("a", 0)]));
        }
        rig.acknowledge_all();
        rig.cut();
        for step in 0..3_000 {
            let hardware = &names[step % names.len()];
            rig.report(hardware, [("a", i64::try_from(step).unwrap())]);
            if step % 7 == 0 {
                rig.event(Event::Detached { hardware: hardware.as_str().into() });
                rig.plug(hardware, attributes([("a", -1)]));
            }
            rig.effects.clear();
            rig.pass(Duration::from_secs(1));
            let found: BTreeMap<_, _> = rig
                .agent
                .devices
                .iter()
                .filter_map(|(device, slot)| Some((*device, slot.record.as_ref()?.saved().clone())))
                .collect();
            for (id, hardware) in std::mem::take(&mut rig.probes) {
                let record = &found[&Device::of_hardware(&hardware)].attributes;
                let plain = record.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
                rig.event(Event::Probed(id, Probe::Found(plain)));
            }
            assert!(rig.agent.outbox.len() <= 20);
            if rig.connection.is_some() {
                rig.cut();
            }
        }
        rig.pass(Duration::from_secs(31));
        rig.effects.clear();
        rig.accept();
        rig.acknowledge_all();
        let mut newest = BTreeMap::new();
        for (event, _) in rig.published() {
            if matches!(event.body, Body::Snapshot { .. }) {
                newest.insert(event.device, event.version);
            }
        }
        for (device, slot) in &rig.agent.devices {
            assert!(newest.contains_key(device), "{slot:?} was not healed by a snapshot");
        }
    }
}
