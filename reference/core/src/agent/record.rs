//! One device's record in its current session, and the cheap bound of its snapshot's size.
//!
//! The bound is kept up to date with each change, so that a report that would make the snapshot too large is refused
//! without encoding one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::SavedDevice;
use crate::{
    event::{AttributeName, Body, CONNECTION, MAX_PAYLOAD_BYTES, StateEvent, Topic, Value},
    id::{Device, Rae, Seq, Session, Version},
    time::Wall,
};

/// More than the part of a snapshot around its attributes: the six common fields at their longest, and braces.
const SNAPSHOT_FRAME_BYTES: usize = 256;

/// More than what surrounds name and value of an attribute: quotes, colon, brackets, commas and a seq of 16 digits.
const ATTRIBUTE_FRAME_BYTES: usize = 24;

/// What a record consists of, without seqs.
pub(super) type Attributes = BTreeMap<AttributeName, Value>;

/// The record of an onboarded device.
#[derive(Debug)]
pub(super) struct Record {
    saved: Arc<SavedDevice>,
    topic: Arc<str>,
    /// Bound of the attributes' part of a snapshot.
    bytes: usize,
}

/// What makes one record out of another.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Difference {
    /// New values.
    pub(super) set: Attributes,
    /// Removed attributes.
    pub(super) unset: BTreeSet<AttributeName>,
}

impl Difference {
    /// The difference that plugging in or out makes.
    pub(super) fn connection(state: &str) -> Difference {
        Difference { set: BTreeMap::from([(connection(), Value::Text(state.into()))]), unset: BTreeSet::new() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty()
    }
}

/// The name of the agent's own attribute.
pub(super) fn connection() -> AttributeName {
    AttributeName::try_from(CONNECTION).expect("a constant of the contract's form")
}

/// Whether these attributes can travel, and a record of them fits into a snapshot.
pub(super) fn is_acceptable(attributes: &Attributes) -> bool {
    let bytes: usize = attributes.iter().map(|(name, value)| attribute_bytes(name, value)).sum();
    attributes.values().all(|value| value.check().is_ok()) && fits(bytes + CONNECTION_BYTES)
}

/// Bound of the part that the agent's own attribute takes.
const CONNECTION_BYTES: usize = CONNECTION.len() + "\"attached\"".len() + ATTRIBUTE_FRAME_BYTES;

fn fits(attribute_bytes: usize) -> bool {
    attribute_bytes + SNAPSHOT_FRAME_BYTES <= MAX_PAYLOAD_BYTES
}

fn attribute_bytes(name: &AttributeName, value: &Value) -> usize {
    name.as_str().len() + value.json_len_at_most() + ATTRIBUTE_FRAME_BYTES
}

impl Record {
    /// The record of a session that opens: every attribute at seq 1. `opening` holds no attributes yet.
    pub(super) fn open(rae: &Rae, opening: SavedDevice, mut found: Attributes) -> Record {
        found.insert(connection(), Value::Text("attached".into()));
        let attributes = found.into_iter().map(|(name, value)| (name, (value, Seq::FIRST))).collect();
        Record::resume(rae, Arc::new(SavedDevice { seq: Seq::FIRST, attributes, ..opening }))
    }

    /// The record that was saved.
    pub(super) fn resume(rae: &Rae, saved: Arc<SavedDevice>) -> Record {
        let topic = Topic::State(rae.clone(), saved.session).to_string().into();
        let bytes = saved.attributes.iter().map(|(name, (value, _))| attribute_bytes(name, value)).sum();
        Record { saved, topic, bytes }
    }

    /// What is to be saved of it.
    pub(super) fn saved(&self) -> &Arc<SavedDevice> {
        &self.saved
    }

    /// The topic of its session.
    pub(super) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Its session.
    pub(super) fn session(&self) -> Session {
        self.saved.session
    }

    /// Its attributes without seqs; the agent's own apart.
    pub(super) fn plain(&self) -> Attributes {
        let named = self.saved.attributes.iter().filter(|(name, _)| name.as_str() != CONNECTION);
        named.map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    }

    /// Whether the device was plugged in when last heard of.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self.saved.attributes.get(CONNECTION), Some((Value::Text(state), _)) if state.as_ref() == "attached")
    }

    /// Whether the session has no seq left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.saved.seq.next().is_none()
    }

    /// A probe found the device.
    pub(super) fn found(&mut self, at: Wall) {
        Arc::make_mut(&mut self.saved).found_at = at;
    }

    /// What of a report is a change: equal values are not, nor is the removal of what is not there.
    pub(super) fn changed(&self, set: Attributes, unset: BTreeSet<AttributeName>) -> Difference {
        let attributes = &self.saved.attributes;
        let is_new = |name: &AttributeName, value: &Value| attributes.get(name).is_none_or(|(old, _)| old != value);
        Difference {
            unset: unset.into_iter().filter(|name| attributes.contains_key(name) && !set.contains_key(name)).collect(),
            set: set.into_iter().filter(|(name, value)| is_new(name, value)).collect(),
        }
    }

    /// What makes this record the one that a probe found; the agent's own attribute apart.
    pub(super) fn difference_to(&self, found: Attributes) -> Difference {
        let names = self.saved.attributes.keys();
        let gone = names.filter(|name| name.as_str() != CONNECTION && !found.contains_key(*name)).cloned().collect();
        self.changed(found, gone)
    }

    /// Whether the record's snapshot still fits into a payload after this change.
    pub(super) fn would_fit(&self, change: &Difference) -> bool {
        fits(self.bytes_after(change))
    }

    /// Makes a change and numbers its event; `None` if no seq is left, and then nothing changes.
    pub(super) fn change(&mut self, change: &Difference) -> Option<Version> {
        let seq = self.saved.seq.next()?;
        self.bytes = self.bytes_after(change);
        let saved = Arc::make_mut(&mut self.saved);
        saved.seq = seq;
        for name in &change.unset {
            saved.attributes.remove(name);
        }
        for (name, value) in &change.set {
            saved.attributes.insert(name.clone(), (value.clone(), seq));
        }
        Some(self.version())
    }

    /// Numbers the event of a snapshot; `None` if no seq is left.
    pub(super) fn advance(&mut self) -> Option<Version> {
        let seq = self.saved.seq.next()?;
        Arc::make_mut(&mut self.saved).seq = seq;
        Some(self.version())
    }

    /// Version of its newest event.
    pub(super) fn version(&self) -> Version {
        Version { epoch: self.saved.epoch, session: self.saved.session, seq: self.saved.seq }
    }

    /// The snapshot at its newest seq.
    pub(super) fn snapshot(&self, rae: &Rae, device: Device, at: Wall) -> StateEvent {
        let body = Body::Snapshot { attributes: self.saved.attributes.clone() };
        StateEvent { rae: rae.clone(), device, version: self.version(), at, body }
    }

    fn bytes_after(&self, change: &Difference) -> usize {
        let old =
            |name: &AttributeName| self.saved.attributes.get(name).map_or(0, |(value, _)| attribute_bytes(name, value));
        let gone: usize = change.unset.iter().chain(change.set.keys()).map(old).sum();
        let come: usize = change.set.iter().map(|(name, value)| attribute_bytes(name, value)).sum();
        self.bytes - gone + come
    }
}
