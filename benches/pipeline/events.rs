//! The events that are sent: those of the default fleet, about 0.93 kB each.

use dmp_core::{
    event::{AttributeName, Body, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::Wall,
};

/// Attributes of a record: with their values a snapshot of about 0.93 kB.
const ATTRIBUTES: u64 = 17;

/// Devices whose records change again and again.
const HOT_DEVICES: u64 = 100;

/// Numbers of devices apart from those of the others, so that no set of events is a repetition of another one's.
const HOT_BASE: u64 = 10_000_000;
const MIXED_BASE: u64 = 20_000_000;

/// Length of the text in a delta: with it a delta is as long as a snapshot.
const DELTA_TEXT: usize = 640;

/// Opening snapshots of as many devices as there are events: every row is new.
pub fn cold(events: u64) -> Vec<StateEvent> {
    (0..events).map(|device| state(device, 1)).collect()
}

/// Changes of a few devices in turn: every row is written again and again.
pub fn hot(events: u64) -> Vec<StateEvent> {
    (0..events).map(|number| state(HOT_BASE + number % HOT_DEVICES, 1 + number / HOT_DEVICES)).collect()
}

/// A snapshot and nine deltas of each device in turn.
pub fn mixed(events: u64) -> Vec<StateEvent> {
    let devices = (events / 10).max(1);
    (0..events).map(|number| state(MIXED_BASE + number % devices, 1 + number / devices)).collect()
}

/// Event `seq` of a device's first session: a snapshot at 1, deltas of two attributes after it.
pub fn state(device: u64, seq: u64) -> StateEvent {
    let name = |index: u64| AttributeName::try_from(format!("attribute_{index:02}").as_str()).expect("a name");
    let number = Seq::try_from(seq).expect("a seq");
    let body = if seq == 1 {
        let value = |index: u64| Value::Text(format!("value {index} of change {seq:06}").into());
        Body::Snapshot { attributes: (0..ATTRIBUTES).map(|index| (name(index), (value(index), number))).collect() }
    } else {
        let set = [
            (name(seq % ATTRIBUTES), Value::Integer(i64::try_from(seq).expect("small"))),
            (name(ATTRIBUTES), Value::Text("x".repeat(DELTA_TEXT).into())),
        ];
        Body::Delta { set: set.into(), unset: [].into() }
    };
    let session = Session(uuid::Uuid::from_u128(u128::from(device) << 64 | 1));
    StateEvent {
        rae: Rae::try_from(format!("RAE-{:07}", device / 12 % 10_000_000).as_str()).expect("a serial"),
        device: Device::of_hardware(&format!("hw-{device}")),
        version: Version { epoch: Epoch::FIRST, session, seq: number },
        at: Wall(1_700_000_000_000),
        body,
    }
}
