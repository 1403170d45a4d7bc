//! The history of a run: everything between the running system and the verdict, typed and in one order.
//!
//! Sources (fleet, wire, log, group, store, gauges) put entries in; checks see nothing else. An entry's `at` is taken
//! where it happened; the order is that of arrival, which holds: an event is recorded before it is sent, a log append is
//! entered before any read of the store that could reflect it, and a [`What::Read`] comes after every append below the
//! offsets that it names.

mod down;

pub use down::{Down, Issued, LoggedCommand, Tampered};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{
    agent::SnapshotCause,
    event::{AttributeName, Event, Presence, Value},
    id::{Device, Rae, Version},
    record::Record,
};

use crate::fleet::plan::{DeviceIndex, RaeIndex};

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it happened, from the begin of the run (warm-up).
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// A phase begins; [`Stage`] tells which kind.
    Phase {
        /// Its name.
        name: Arc<str>,
        /// Its place in every run.
        stage: Stage,
    },
    /// Fault number `fault` of the scenario begins.
    FaultBegan(usize),
    /// Fault number `fault` of the scenario has ended: what it held is released.
    FaultEnded(usize),
    /// Fault number `fault` of the scenario was seen to act, so many times: a process was stopped, connections were cut,
    /// bytes passed a slow link. What acts through other entries has none of these.
    FaultActed {
        /// Which.
        fault: usize,
        /// How often.
        times: u64,
    },
    /// The generator is behind its plan: the largest lateness since the last such entry.
    Lateness(Duration),

    /// An agent numbered and saved an event.
    Recorded(Publish),
    /// Why the snapshot that is recorded next was made.
    Cause(Publish, SnapshotCause),
    /// The fleet put an event on the wire; its payload's identity ties it to what is seen between broker and bridge.
    Sent(Publish, Copy, PayloadHash),
    /// A fault swallowed an event: it was saved, and never sent.
    Withheld(Publish),
    /// A fault lost an event on its way at QoS 0.
    LostAtQos0(Publish),
    /// An agent's full outbox shed an event.
    Shed(Publish),
    /// The broker acknowledged an event to its agent.
    Acknowledged(Publish),
    /// The broker acknowledged, or the harness sent at QoS 0, a poison message.
    PoisonSent {
        /// Number of the fault that it is of.
        fault: usize,
        /// Its MQTT topic.
        topic: Arc<str>,
        /// Identity of its payload.
        payload: PayloadHash,
    },
    /// The connection of a RAE came up.
    Online(RaeIndex),
    /// The connection of a RAE ended.
    Offline(RaeIndex),

    /// The broker handed a message to a bridge, seen on the wire.
    Delivered {
        /// Its topic.
        topic: Arc<str>,
        /// Identity of its payload.
        payload: PayloadHash,
        /// Whether the broker said that it had sent it before.
        dup: bool,
        /// Whether it is a retained replay.
        retain: bool,
    },
    /// A bridge acknowledged a message, seen on the wire.
    BridgeAcknowledged {
        /// Its topic.
        topic: Arc<str>,
        /// Identity of its payload.
        payload: PayloadHash,
        /// Whether it was a retained replay.
        retain: bool,
    },

    /// A record is in the log of the events topic.
    Appended(Box<Appended>),
    /// A record is in the dead-letter topic.
    DeadLettered {
        /// Where it came from.
        source: DeadSource,
        /// The reason word.
        reason: Arc<str>,
        /// Identity of its (uncut) value.
        payload: PayloadHash,
    },
    /// Number of partitions of the events topic, as read.
    Partitions(u32),

    /// A committed offset of the group, as read.
    Committed {
        /// Its partition.
        partition: i32,
        /// The next offset to be read.
        offset: i64,
    },
    /// A visible attribute is new or other than at the last read of the store.
    Row {
        /// The device.
        device: Device,
        /// The attribute.
        name: AttributeName,
        /// Its value.
        value: Value,
        /// The version that it is stored at.
        version: Version,
    },
    /// An attribute that was visible at the last read of the store is not visible now.
    RowGone {
        /// The device.
        device: Device,
        /// The attribute.
        name: AttributeName,
    },
    /// The floor of a device is new or other than at the last read.
    Floor {
        /// The device.
        device: Device,
        /// Version of its newest snapshot.
        version: Version,
        /// The RAE shown.
        rae: Rae,
    },
    /// A device is marked as stale, or no longer, other than at the last read; new devices count as not marked before.
    Stale {
        /// The device.
        device: Device,
        /// Whether it is marked.
        stale: bool,
    },
    /// The presence of a RAE is new or other than at the last read.
    Presence {
        /// The RAE.
        rae: Rae,
        /// What is shown.
        presence: Presence,
    },
    /// A device that was shown at the last read is gone.
    DeviceGone(Device),
    /// A whole read of the store has ended: the [`What::Row`], [`What::RowGone`], [`What::Floor`] and
    /// [`What::DeviceGone`] entries since the last one are its differences.
    Read(Read),
    /// The sample shows that a device's `rev` is now this.
    Reflected {
        /// The device.
        device: DeviceIndex,
        /// The `rev` shown.
        rev: i64,
    },
    /// How far the store says that it reflects a partition (table `feed`).
    Feed {
        /// The partition.
        partition: i32,
        /// The offset after the newest record reflected.
        next_offset: i64,
    },
    /// The end of a partition, read after all else of its round.
    End {
        /// The partition.
        partition: i32,
        /// The offset of the next record.
        offset: i64,
    },

    /// A step of a command, on the way down or back.
    Down(Down),
    /// The store of the registries is gone with all its rows, and so is their group with its offsets. What is read of
    /// either from here on is of the next ones, which begin empty.
    StoreWiped {
        /// The group as which they come back.
        group: Arc<str>,
    },
    /// A consumer that joined in mid-run is ready: a registry with a group and a store of its own.
    ConsumerStarted {
        /// Its number, from 0 in the order of the faults that start consumers.
        consumer: u8,
        /// Its group.
        group: Arc<str>,
    },
    /// The store of such a consumer, as read.
    Consumer(Box<ConsumerSeen>),
    /// What the baseline consumer has come to, as read.
    Baseline(Box<BaselineSeen>),

    /// A process of the pipeline started.
    ProcessStarted(Process),
    /// A process of the pipeline ended: by a fault, or by itself.
    ProcessEnded {
        /// Which.
        process: Process,
        /// Whether a fault, or the end of the run, meant it to.
        meant: bool,
    },
    /// A write of a registry was the first that a limit of its store slowed down since the limit was given.
    StoreSlowed(Process, StoreLimit),
    /// How often the writer stage of a registry has failed and was started again, in this life of its process.
    StageRestarts(Process, u64),
    /// Offset commits that Kafka took from a process, in this life of it.
    Commits(Process, u64),
    /// Queues and memory of a process.
    Gauges(Process, Vec<Gauge>),
    /// Memory of the harness itself in bytes: fleet, checks and, on the embedded target, the brokers with their logs.
    OwnMemory(u64),
    /// Something outside the system under test failed, so that nothing can be said: makes the run INVALID.
    Broken(Arc<str>),
}

/// A limit of the store that a fault sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreLimit {
    /// So many rows per second.
    Rate,
    /// So much longer per write.
    Delay,
}

/// The place of a phase in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The fleet connects; no changes, no faults.
    WarmUp,
    /// Changes and faults.
    Load,
    /// All faults are over; changes go on.
    Heal,
    /// No new changes; snapshots and probes go on.
    Settle,
    /// The verdict is taken.
    Verify,
    /// One more snapshot period, then the verdict is taken again.
    VerifyAgain,
}

/// An event on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publish {
    /// Its device.
    pub device: DeviceIndex,
    /// The RAE that says it.
    pub rae: RaeIndex,
    /// Its version.
    pub version: Version,
    /// Whether it is a snapshot.
    pub snapshot: bool,
}

/// Which copy of an event was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copy {
    /// The first.
    First,
    /// Resent after a reconnect.
    Resent,
    /// Sent again by a fault.
    Duplicate,
    /// The first, later than the agent meant, by a fault.
    Delayed,
}

/// Identity of a payload: CRC-32C and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadHash {
    /// CRC-32C.
    pub crc: u32,
    /// Length in bytes.
    pub bytes: u32,
}

impl PayloadHash {
    /// The identity of `payload`.
    #[must_use]
    pub fn of(payload: &[u8]) -> PayloadHash {
        PayloadHash { crc: crc32c::crc32c(payload), bytes: payload.len() as u32 }
    }
}

/// Identity of a value: its type, CRC-32C and length. What is kept of tens of thousands of devices, to be compared again
/// and again, is this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    /// The digest of `value`.
    pub(crate) fn of(value: &Value) -> Digest {
        let text = |kind: u64, bytes: &[u8]| kind << 62 ^ (bytes.len() as u64) << 32 ^ u64::from(crc32c::crc32c(bytes));
        Digest(match value {
            Value::Text(value) => text(0, value.as_bytes()),
            Value::Bool(value) => text(1, &[u8::from(*value)]),
            Value::Integer(value) => text(2, &value.to_le_bytes()),
            Value::Float(value) => text(3, &value.to_bits().to_le_bytes()),
        })
    }

    /// The digest as a value, where one has to stand for the value itself.
    pub(crate) fn as_value(self) -> Value {
        Value::Integer(self.0.cast_signed())
    }
}

/// A record in the log.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key; empty where it has none.
    pub key: Arc<str>,
    /// Identity of its value.
    pub payload: PayloadHash,
    /// Its timestamp: receive time at the bridge, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whether it is a replay of a retained message.
    pub retained: bool,
    /// What it says; `None` where it is poison, or once the checks have seen the entry.
    pub event: Option<Arc<Event>>,
    /// The reason word of poison.
    pub poison: Option<&'static str>,
}

/// Where a dead letter came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadSource {
    /// The bridge: the MQTT topic.
    Mqtt(Arc<str>),
    /// The registry: partition and offset of the events topic.
    Log(i32, i64),
}

/// A whole read of the store.
#[derive(Debug, Clone)]
pub struct Read {
    /// When the reading of rows began; `at` of the entry is its end.
    pub began: Duration,
    /// Committed offsets per partition, read before the rows; absent where none is committed.
    pub committed: Vec<(i32, i64)>,
    /// End offsets per partition, read after the rows.
    pub ends: Vec<(i32, i64)>,
    /// Devices shown.
    pub devices: usize,
}

/// The store of a consumer that joined in mid-run.
#[derive(Debug, Clone)]
pub struct ConsumerSeen {
    /// Its number.
    pub consumer: u8,
    /// When the reading began; `at` of the entry is its end.
    pub began: Duration,
    /// How far it says that it reflects each partition.
    pub feeds: Vec<(i32, i64)>,
    /// Its rows, where all of them were read.
    pub rows: Option<BTreeMap<Device, Record>>,
}

/// The group and the store of the baseline consumer.
#[derive(Debug, Clone)]
pub struct BaselineSeen {
    /// Committed offsets per partition, read first.
    pub committed: Vec<(i32, i64)>,
    /// Its rows, where all of them were read.
    pub rows: Option<BTreeMap<Device, Record>>,
    /// End offsets per partition, read last.
    pub ends: Vec<(i32, i64)>,
}

/// A process of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Which part.
    pub part: crate::scenario::Part,
    /// Which of its processes, from 0.
    pub index: u8,
}

/// A queue of a process, or its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Its name.
    pub name: Arc<str>,
    /// How much is in it.
    pub value: u64,
    /// Its bound, where it has one.
    pub cap: Option<u64>,
}
