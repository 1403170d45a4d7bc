//! The events that are sent, about 0.9 kB each, as Netflix's are.

use dmp_core::{
    core::{Publication, Qos},
    event::{AttributeName, Body, StateEvent, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::Wall,
};

/// Attributes of a record: with their values a snapshot of about 0.9 kB.
const ATTRIBUTES: u64 = 17;

/// Length of the text in a delta: with it a delta is as long as a snapshot.
const DELTA_TEXT: usize = 700;

/// Devices that change in turn. In each partition they have several times the rows of a batch: batches are full, and
/// have next to no key twice.
const CHANGING_DEVICES: u64 = 1_000;

/// A device of no other kind.
pub(crate) const WATCHED: u64 = 30_000_000;

/// Which devices the events are of; no two kinds share one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// An opening snapshot for each: every row is new.
    Cold,
    /// The same ones again and again: a snapshot, then deltas.
    Hot,
    /// A snapshot and nine deltas for each.
    Mixed,
}

impl Keys {
    /// The event of this number, from 0.
    pub(crate) fn event(self, number: u64) -> StateEvent {
        let (device, round) = (number % CHANGING_DEVICES, number / CHANGING_DEVICES);
        match self {
            Keys::Cold => state(number, 1),
            Keys::Hot => state(10_000_000 + device, 1 + round),
            Keys::Mixed => state(20_000_000 + round / 10 * CHANGING_DEVICES + device, 1 + round % 10),
        }
    }
}

/// The first events as messages.
pub(crate) fn publications(keys: Keys, count: u64) -> Vec<Publication> {
    (0..count).map(|number| publication(&keys.event(number))).collect()
}

/// The message of an event.
pub(crate) fn publication(event: &StateEvent) -> Publication {
    let (topic, payload) = (event.topic().to_string().into(), event.encode().into());
    Publication { topic, payload, qos: Qos::AtLeastOnce, retain: false }
}

/// Event `seq` of a device's first session: a snapshot at 1, deltas of two attributes after it.
pub(crate) fn state(device: u64, seq: u64) -> StateEvent {
    let name = |index: u64| AttributeName::try_from(format!("attribute_{index:02}").as_str()).expect("a name");
    let number = Seq::try_from(seq).expect("a seq");
    let body = if seq == 1 {
        let value = |index: u64| Value::Text(format!("value {index} of change {seq:06}").into());
        Body::Snapshot { attributes: (0..ATTRIBUTES).map(|index| (name(index), (value(index), number))).collect() }
    } else {
        let changed = Value::Integer(seq.cast_signed());
        let text = Value::Text("x".repeat(DELTA_TEXT).into());
        Body::Delta { set: [(name(seq % ATTRIBUTES), changed), (name(ATTRIBUTES), text)].into(), unset: [].into() }
    };
    StateEvent {
        rae: Rae::try_from(format!("RAE-{:07}", device / 12).as_str()).expect("a serial"),
        device: Device::of_hardware(&format!("hw-{device}")),
        version: Version {
            epoch: Epoch::FIRST,
            session: Session(uuid::Uuid::from_u128(u128::from(device) << 64)),
            seq: number,
        },
        at: Wall(1_700_000_000_000),
        body,
    }
}
