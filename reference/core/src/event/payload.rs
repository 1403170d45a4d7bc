//! Payloads of the topics that travel up: state (deltas and snapshots) and status.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{AttributeName, MAX_PAYLOAD_BYTES, Topic, TopicError, Value, WIRE_VERSION};
use crate::{
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::Wall,
};

/// What a message on a `state` or `status` topic says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A delta or snapshot of one device.
    State(StateEvent),
    /// Presence of a RAE.
    Status(Rae, Presence),
}

/// A delta or snapshot of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    /// The RAE that the device is attached to; from the topic.
    pub rae: Rae,
    /// The device.
    pub device: Device,
    /// Orders this event among all events of the device; the session is from the topic.
    pub version: Version,
    /// The RAE's wall clock when the event was made: data, never an order.
    pub at: Wall,
    /// What it says.
    pub body: Body,
}

/// What a state event says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Some attributes changed.
    Delta {
        /// New values.
        set: BTreeMap<AttributeName, Value>,
        /// Removed attributes; disjoint from `set`.
        unset: BTreeSet<AttributeName>,
    },
    /// The whole record: an attribute that is not here is deleted.
    Snapshot {
        /// Value of each attribute, and the seq of its last change in this session, at most the snapshot's own.
        attributes: BTreeMap<AttributeName, (Value, Seq)>,
    },
}

/// Presence of a RAE, ordered by (boot, connection, online < offline).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Presence {
    /// Epoch of the boot.
    pub boot: Epoch,
    /// Connection counter within the boot, from 1.
    pub connection: Seq,
    /// What the RAE, or its will, says.
    pub state: PresenceState,
}

/// Whether a RAE is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// Connected.
    Online,
    /// Gone: said by the RAE itself or by its last will.
    Offline,
}

/// Why a message can never be applied. Each kind has its own reason word, which goes into the dead letter.
#[derive(Debug, thiserror::Error)]
pub enum Poison {
    /// Larger than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of {0} bytes is above {MAX_PAYLOAD_BYTES}")]
    Oversized(usize),
    /// The key of the record is missing or not UTF-8.
    #[error("record has no key that is a topic")]
    Key,
    /// Not a topic of the platform.
    #[error("topic is not one of the platform's")]
    Topic(#[from] TopicError),
    /// A topic that does not travel up into the registry.
    #[error("topic {0} does not carry state or status")]
    Direction(Topic),
    /// Not a JSON object of the contract's form.
    #[error("payload is not JSON of the contract's form")]
    Json(#[source] serde_json::Error),
    /// Another version of the contract.
    #[error("wire version {0} is not known; only {WIRE_VERSION} is")]
    WireVersion(u64),
    /// A kind that does not belong on this topic.
    #[error("kind {0:?} does not belong on this topic")]
    Kind(String),
    /// Set and unset in one delta.
    #[error("delta both sets and unsets {0}")]
    SetAndUnset(AttributeName),
    /// An attribute's seq above its snapshot's.
    #[error("attribute {name} has seq {seq}, above its snapshot's {snapshot}")]
    SeqAboveSnapshot {
        /// The attribute.
        name: AttributeName,
        /// Its seq.
        seq: Seq,
        /// The snapshot's.
        snapshot: Seq,
    },
}

impl Poison {
    /// One word per kind, for headers and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Poison::Oversized(_) => "oversized",
            Poison::Key => "key",
            Poison::Topic(_) => "topic",
            Poison::Direction(_) => "direction",
            Poison::Json(_) => "json",
            Poison::WireVersion(_) => "wire-version",
            Poison::Kind(_) => "kind",
            Poison::SetAndUnset(_) => "set-and-unset",
            Poison::SeqAboveSnapshot { .. } => "seq-above-snapshot",
        }
    }

    /// The whole chain of causes in one line, for a dead letter.
    #[must_use]
    pub fn detail(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Decodes a message that travelled up on `topic`.
///
/// # Errors
/// [`Poison`] for whatever is not of the contract; never panics, whatever the bytes.
pub fn decode(topic: &str, payload: &[u8]) -> Result<Event, Poison> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Poison::Oversized(payload.len()));
    }
    let topic = Topic::from_str(topic)?;
    let head: Head = from_json(payload)?;
    if head.v != WIRE_VERSION {
        return Err(Poison::WireVersion(head.v));
    }
    match (topic, head.kind.as_str()) {
        (Topic::State(rae, session), "delta") => delta(rae, session, from_json(payload)?),
        (Topic::State(rae, session), "snapshot") => snapshot(rae, session, from_json(payload)?),
        (Topic::Status(rae), "status") => Ok(Event::Status(rae, from_json(payload)?)),
        (Topic::State(..) | Topic::Status(_), kind) => Err(Poison::Kind(kind.chars().take(80).collect())),
        (topic @ (Topic::Command(..) | Topic::Reply(..)), _) => Err(Poison::Direction(topic)),
    }
}

impl StateEvent {
    /// The topic that this event travels on.
    #[must_use]
    pub fn topic(&self) -> Topic {
        Topic::State(self.rae.clone(), self.version.session)
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Version { epoch, seq, .. } = self.version;
        let at = self.at.to_string();
        let common = |kind| Common { v: WIRE_VERSION, kind, device: self.device, epoch, seq, at: &at };
        match &self.body {
            Body::Delta { set, unset } => to_json(&DeltaOut { common: common("delta"), set, unset }),
            Body::Snapshot { attributes } => to_json(&SnapshotOut { common: common("snapshot"), attributes }),
        }
    }
}

impl Presence {
    /// The payload on the RAE's `status` topic.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Out<'a> {
            v: u64,
            kind: &'static str,
            #[serde(flatten)]
            presence: &'a Presence,
        }
        to_json(&Out { v: WIRE_VERSION, kind: "status", presence: self })
    }
}

#[derive(Deserialize)]
struct Head {
    v: u64,
    kind: String,
}

#[derive(Deserialize)]
struct DeltaIn {
    device: Device,
    epoch: Epoch,
    seq: Seq,
    #[serde(deserialize_with = "wall")]
    at: Wall,
    #[serde(default)]
    set: BTreeMap<AttributeName, Value>,
    #[serde(default)]
    unset: BTreeSet<AttributeName>,
}

#[derive(Deserialize)]
struct SnapshotIn {
    device: Device,
    epoch: Epoch,
    seq: Seq,
    #[serde(deserialize_with = "wall")]
    at: Wall,
    attributes: BTreeMap<AttributeName, (Value, Seq)>,
}

#[derive(Serialize)]
struct Common<'a> {
    v: u64,
    kind: &'static str,
    device: Device,
    epoch: Epoch,
    seq: Seq,
    at: &'a str,
}

#[derive(Serialize)]
struct DeltaOut<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: &'a BTreeMap<AttributeName, Value>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unset: &'a BTreeSet<AttributeName>,
}

#[derive(Serialize)]
struct SnapshotOut<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    attributes: &'a BTreeMap<AttributeName, (Value, Seq)>,
}

fn delta(rae: Rae, session: Session, raw: DeltaIn) -> Result<Event, Poison> {
    if let Some(name) = raw.unset.iter().find(|name| raw.set.contains_key(*name)) {
        return Err(Poison::SetAndUnset(name.clone()));
    }
    let version = Version { epoch: raw.epoch, session, seq: raw.seq };
    let body = Body::Delta { set: raw.set, unset: raw.unset };
    Ok(Event::State(StateEvent { rae, device: raw.device, version, at: raw.at, body }))
}

fn snapshot(rae: Rae, session: Session, raw: SnapshotIn) -> Result<Event, Poison> {
    if let Some((name, &(_, seq))) = raw.attributes.iter().find(|(_, (_, seq))| *seq > raw.seq) {
        return Err(Poison::SeqAboveSnapshot { name: name.clone(), seq, snapshot: raw.seq });
    }
    let version = Version { epoch: raw.epoch, session, seq: raw.seq };
    let body = Body::Snapshot { attributes: raw.attributes };
    Ok(Event::State(StateEvent { rae, device: raw.device, version, at: raw.at, body }))
}

fn from_json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Poison> {
    serde_json::from_slice(payload).map_err(Poison::Json)
}

fn to_json(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).expect("payloads have string keys and finite numbers")
}

fn wall<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Wall, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}
