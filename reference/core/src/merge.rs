//! The merge rule: any order, repetition, subset and batching of the same events ends in the same state.
//!
//! The state of a device is a product of last-writer-wins registers under one total order ([`Version`]): a join,
//! commutative, associative and idempotent. What is visible is derived when reading. [`Rows`] is the same join for a
//! batch, in the form in which the registry hands it to a store.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::{AttributeName, Body, Event, Presence, StateEvent, Value},
    id::{Device, Epoch, Rae, Session, Version},
    time::Wall,
};

/// The newest snapshot of a device, less its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// Version of the snapshot.
    pub version: Version,
    /// Names of the attributes that it held.
    pub names: BTreeSet<AttributeName>,
    /// The RAE that sent it.
    pub rae: Rae,
    /// When it was received; outside the join: copies of one snapshot may differ in it.
    pub seen_at: Wall,
}

/// The newest offer for one attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The version of the change.
    pub version: Version,
    /// The value, or `None` for an attribute that was unset: a tombstone.
    pub value: Option<Value>,
}

/// All that is stored of one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceState {
    /// The newest snapshot; a device without one is not shown.
    pub floor: Option<Floor>,
    /// The newest offer per name.
    pub attributes: BTreeMap<AttributeName, Offer>,
}

impl DeviceState {
    /// Takes one event that was received at `received`. Returns whether anything was replaced.
    pub fn apply(&mut self, event: &StateEvent, received: Wall) -> bool {
        let Version { epoch, session, .. } = event.version;
        let mut replaced = false;
        match &event.body {
            Body::Delta { set, unset } => {
                for (name, value) in set {
                    replaced |= self.offer(name, event.version, Some(value));
                }
                for name in unset {
                    replaced |= self.offer(name, event.version, None);
                }
            }
            Body::Snapshot { attributes } => {
                replaced |= self.raise(
                    || Floor {
                        version: event.version,
                        names: attributes.keys().cloned().collect(),
                        rae: event.rae.clone(),
                        seen_at: received,
                    },
                    event.version,
                );
                for (name, (value, seq)) in attributes {
                    replaced |= self.offer(name, Version { epoch, session, seq: *seq }, Some(value));
                }
            }
        }
        replaced
    }

    /// Takes everything that `other` holds. Returns whether anything was replaced.
    pub fn join(&mut self, other: &DeviceState) -> bool {
        let mut replaced = other.floor.as_ref().is_some_and(|floor| self.raise(|| floor.clone(), floor.version));
        for (name, offer) in &other.attributes {
            replaced |= self.offer(name, offer.version, offer.value.as_ref());
        }
        replaced
    }

    /// The record as a reader sees it; `None` for a device without a floor: never a partial record.
    #[must_use]
    pub fn visible(&self) -> Option<BTreeMap<&AttributeName, (&Value, Version)>> {
        let floor = self.floor.as_ref()?;
        let shown = |name: &AttributeName, version: Version| version > floor.version || floor.names.contains(name);
        Some(
            self.attributes
                .iter()
                .filter(|(name, offer)| shown(name, offer.version))
                .filter_map(|(name, offer)| Some((name, (offer.value.as_ref()?, offer.version))))
                .collect(),
        )
    }

    /// Drops what can never be visible again: attributes at or below the floor whose name is not in it.
    ///
    /// A tombstone above the floor stays: it still guards.
    pub fn clean(&mut self) {
        if let Some(floor) = &self.floor {
            self.attributes.retain(|name, offer| offer.version > floor.version || floor.names.contains(name));
        }
    }

    fn raise(&mut self, floor: impl FnOnce() -> Floor, version: Version) -> bool {
        let newer = self.floor.as_ref().is_none_or(|stored| version > stored.version);
        if newer {
            self.floor = Some(floor());
        }
        newer
    }

    fn offer(&mut self, name: &AttributeName, version: Version, value: Option<&Value>) -> bool {
        match self.attributes.get_mut(name) {
            Some(stored) if version <= stored.version => false,
            Some(stored) => {
                *stored = Offer { version, value: value.cloned() };
                true
            }
            None => {
                self.attributes.insert(name.clone(), Offer { version, value: value.cloned() });
                true
            }
        }
    }
}

/// A session of a device, as entered by its first event that is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Orders the sessions of the device.
    pub epoch: Epoch,
    /// The RAE that holds it.
    pub rae: Rae,
    /// When its first event was received.
    pub opened: Wall,
    /// When the newest of its snapshots in this batch was received; `None` for deltas alone. Not stored: it tells whose
    /// standing among the device's sessions the writer asks for.
    pub snapshot: Option<Wall>,
}

/// How far a partition has been read: written with the rows, so that readers see what those rows reflect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Kafka partition.
    pub partition: i32,
    /// The offset after the newest record that these rows reflect.
    pub next_offset: i64,
    /// Receive time at the bridge of the newest record.
    pub received: Wall,
}

/// What one batch of a partition changes in the store: one row per key, sorted by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Floors and attributes per device.
    pub devices: BTreeMap<Device, DeviceState>,
    /// Sessions seen, deltas included.
    pub sessions: BTreeMap<(Device, Session), SessionRow>,
    /// Presence of RAEs.
    pub raes: BTreeMap<Rae, Presence>,
    /// How far the partition is read with these rows.
    pub feed: Option<Feed>,
}

impl Rows {
    /// Takes one event that was received at `received`. Returns whether anything in the batch was replaced.
    pub fn apply(&mut self, event: &Event, received: Wall) -> bool {
        match event {
            Event::State(event) => {
                let Version { epoch, session, .. } = event.version;
                let row = self.sessions.entry((event.device, session)).or_insert_with(|| SessionRow {
                    epoch,
                    rae: event.rae.clone(),
                    opened: received,
                    snapshot: None,
                });
                if matches!(event.body, Body::Snapshot { .. }) {
                    row.snapshot = row.snapshot.max(Some(received));
                }
                self.devices.entry(event.device).or_default().apply(event, received)
            }
            Event::Status(rae, presence) => match self.raes.get_mut(rae) {
                Some(stored) if presence <= stored => false,
                Some(stored) => {
                    *stored = *presence;
                    true
                }
                None => {
                    self.raes.insert(rae.clone(), *presence);
                    true
                }
            },
        }
    }

    /// Rows of `device` and `device_attribute`: what the batch limit counts.
    #[must_use]
    pub fn len(&self) -> usize {
        let states = self.devices.values();
        states.map(|state| usize::from(state.floor.is_some()) + state.attributes.len()).sum::<usize>() + self.raes.len()
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.raes.is_empty()
    }
}

#[cfg(test)]
mod tests;
