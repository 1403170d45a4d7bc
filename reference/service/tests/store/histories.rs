//! Events of made-up devices: by hand, and random histories as an honest agent tells them.

use std::collections::{BTreeMap, BTreeSet};

use dmp_core::{
    event::{AttributeName, Body, Event, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    merge::Rows,
    time::Wall,
};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use uuid::Uuid;

pub(crate) type Record = BTreeMap<AttributeName, Value>;

pub(crate) fn name(text: &str) -> AttributeName {
    AttributeName::try_from(text).unwrap()
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

pub(crate) fn rae(serial: &str) -> Rae {
    Rae::try_from(serial).unwrap()
}

pub(crate) fn device(number: u64) -> Device {
    Device::of_hardware(&number.to_string())
}

/// Sessions of one epoch differ by their bytes: `session` is their last one.
pub(crate) fn version(epoch: u64, session: u8, seq: u64) -> Version {
    Version {
        epoch: Epoch::try_from(epoch).unwrap(),
        session: Session(Uuid::from_u128(session.into())),
        seq: Seq::try_from(seq).unwrap(),
    }
}

pub(crate) fn delta(device: Device, version: Version, set: &[(&str, Value)], unset: &[&str]) -> StateEvent {
    let set = set.iter().map(|(key, value)| (name(key), value.clone())).collect();
    let unset = unset.iter().map(|key| name(key)).collect::<BTreeSet<_>>();
    StateEvent { rae: rae("RAE-1"), device, version, at: Wall(0), body: Body::Delta { set, unset } }
}

pub(crate) fn snapshot(device: Device, version: Version, attributes: &[(&str, Value, u64)]) -> StateEvent {
    let attributes =
        attributes.iter().map(|(key, value, seq)| (name(key), (value.clone(), Seq::try_from(*seq).unwrap())));
    let body = Body::Snapshot { attributes: attributes.collect() };
    StateEvent { rae: rae("RAE-1"), device, version, at: Wall(0), body }
}

/// A batch of the given events, received at `received`.
pub(crate) fn rows(events: &[StateEvent], received: i64) -> Rows {
    let mut rows = Rows::default();
    for event in events {
        rows.apply(&Event::State(event.clone()), Wall(received));
    }
    rows
}

/// A history of one device: sessions of rising epoch, each opened by a snapshot; its last snapshot; what is true then.
pub(crate) fn history(random: &mut StdRng, device: Device) -> (Vec<StateEvent>, StateEvent, Record) {
    let (mut events, mut record, mut epoch) = (Vec::new(), BTreeMap::<&str, (Value, u64)>::new(), 0);
    let mut version_now = version(1, 0, 1);
    let whole = |version: Version, record: &BTreeMap<&str, (Value, u64)>| {
        let attributes: Vec<_> = record.iter().map(|(key, (value, seq))| (*key, value.clone(), *seq)).collect();
        snapshot(device, version, &attributes)
    };
    for _ in 0..random.random_range(1..=3) {
        epoch += random.random_range(1..=3);
        let session = random.random();
        record.values_mut().for_each(|(_, seq)| *seq = 1);
        version_now = version(epoch, session, 1);
        events.push(whole(version_now, &record));
        for seq in 2..2 + random.random_range(0..=8) {
            version_now = version(epoch, session, seq);
            let key = ["a", "b.c", "d_1", "e"][random.random_range(0..4)];
            events.push(match random.random_range(0..4) {
                0 => whole(version_now, &record),
                1 if record.remove(key).is_some() => delta(device, version_now, &[], &[key]),
                _ => {
                    let value = text(&format!("{epoch}.{seq}"));
                    record.insert(key, (value.clone(), seq));
                    delta(device, version_now, &[(key, value)], &[])
                }
            });
        }
    }
    version_now.seq = version_now.seq.next().unwrap();
    let last = whole(version_now, &record);
    (events, last, record.into_iter().map(|(key, (value, _))| (name(key), value)).collect())
}

/// Histories of many devices as they may arrive: some events lost, some repeated, all shuffled; each last snapshot there.
pub(crate) fn arrivals(random: &mut StdRng, devices: u64) -> (Vec<StateEvent>, BTreeMap<Device, Record>) {
    let (mut all, mut truth) = (Vec::new(), BTreeMap::new());
    for number in 0..devices {
        let (events, last, record) = history(random, device(number));
        let kept: Vec<_> = events.into_iter().filter(|_| random.random_bool(0.8)).collect();
        let repeated: Vec<_> = kept.iter().filter(|_| random.random_bool(0.3)).cloned().collect();
        all.extend(kept.into_iter().chain(repeated).chain([last]));
        truth.insert(device(number), record);
    }
    all.shuffle(random);
    (all, truth)
}
