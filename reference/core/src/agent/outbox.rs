//! The bounded outbox: events in the order in which they were numbered, from "not yet durable" to "acknowledged".
//!
//! ```text
//!   0 ..= on_wire ..= sent ..= durable ..= covered ..= entries.len()
//!     unacknowledged  sent on   saved:     in the     not yet
//!     on this         an older  may be     save under in a save
//!     connection      one       sent       way
//! ```
//!
//! What was sent before goes out again, in order and with DUP, before anything new: both are the same loop over
//! `on_wire`. When the outbox is full, one device's events are shed; what was sent already is never shed, because the
//! broker may have it, and an event behind it must not overtake its repetition.
//!
//! Replies to commands travel among the events, always at least once and never shed; they have a bound of their own, which
//! the commands keep.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::Published;
use crate::{
    core::{PacketId, Publication, Qos},
    event::{Reply, Topic},
    id::{Device, Rae, Session, Version},
};

/// Events on their way to the broker.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    bound: usize,
    on_wire: usize,
    sent: usize,
    durable: usize,
    covered: usize,
    replies: usize,
}

/// One event.
#[derive(Debug)]
struct Entry {
    of: Published,
    message: Publication,
    packet: Option<PacketId>,
}

/// A publish that is to go out now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) of: Published,
    pub(super) message: Publication,
    pub(super) packet: Option<PacketId>,
    pub(super) dup: bool,
}

/// An event that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShedEvent {
    pub(super) of: Published,
    /// Whether it had been told as recorded.
    pub(super) durable: bool,
}

impl Published {
    /// The device and version of a state event.
    pub(super) fn state(self) -> Option<(Device, Version)> {
        match self {
            Published::Status | Published::Reply(_) => None,
            Published::Delta(device, version) | Published::Snapshot(device, version, _) => Some((device, version)),
        }
    }
}

impl Outbox {
    /// An empty outbox of at most `bound` events, at least one.
    pub(super) fn new(bound: usize) -> Outbox {
        Outbox {
            entries: VecDeque::new(),
            bound: bound.max(1),
            on_wire: 0,
            sent: 0,
            durable: 0,
            covered: 0,
            replies: 0,
        }
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.replies
    }

    /// How many replies it holds.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// Whether the reply to this command waits or is unacknowledged.
    pub(super) fn holds_reply(&self, id: Uuid) -> bool {
        self.entries.iter().any(|entry| entry.of == Published::Reply(id))
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more event fits.
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.bound
    }

    /// Appends an event that is not durable yet.
    ///
    /// # Panics
    /// If there is no room.
    pub(super) fn push(&mut self, of: Published, message: Publication) {
        assert!(self.has_room(), "the outbox of {} events is full", self.bound);
        self.entries.push_back(Entry { of, message, packet: None });
    }

    /// Appends a reply; the commands see to it that there is a place.
    pub(super) fn push_reply(&mut self, rae: &Rae, session: Session, reply: &Reply) {
        let message = Publication {
            topic: Topic::Reply(rae.clone(), session).to_string().into(),
            payload: reply.encode().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
        };
        self.entries.push_back(Entry { of: Published::Reply(reply.id), message, packet: None });
        self.replies += 1;
    }

    /// A save begins that covers everything held.
    pub(super) fn cover(&mut self) {
        self.covered = self.entries.len();
    }

    /// The save ended well: returns what may be sent now.
    pub(super) fn commit(&mut self) -> impl Iterator<Item = Published> {
        let from = self.durable;
        self.durable = self.covered;
        self.entries.range(from..self.covered).map(|entry| entry.of)
    }

    /// The connection is gone: everything unacknowledged has to be sent again.
    pub(super) fn disconnected(&mut self) {
        self.on_wire = 0;
    }

    /// The next event to send, if there is one and less than `window` are unacknowledged. One of QoS 0 leaves the
    /// outbox with this.
    pub(super) fn send(&mut self, window: usize, packet: impl FnOnce(&Outbox) -> PacketId) -> Option<Outgoing> {
        if self.on_wire >= window || self.on_wire >= self.durable {
            return None;
        }
        if self.entries[self.on_wire].message.qos == Qos::AtMostOnce {
            let entry = self.remove(self.on_wire)?;
            return Some(Outgoing { of: entry.of, message: entry.message, packet: None, dup: false });
        }
        let dup = self.on_wire < self.sent;
        let packet = self.entries[self.on_wire].packet.unwrap_or_else(|| packet(self));
        let entry = &mut self.entries[self.on_wire];
        entry.packet = Some(packet);
        let outgoing = Outgoing { of: entry.of, message: entry.message.clone(), packet: Some(packet), dup };
        self.on_wire += 1;
        self.sent = self.sent.max(self.on_wire);
        Some(outgoing)
    }

    /// Whether an unacknowledged event has this packet id.
    pub(super) fn uses(&self, packet: PacketId) -> bool {
        self.entries.range(..self.sent).any(|entry| entry.packet == Some(packet))
    }

    /// The broker acknowledged a packet of this connection; `None` if none such was waited for.
    pub(super) fn acknowledge(&mut self, packet: PacketId) -> Option<Published> {
        let at = self.entries.range(..self.on_wire).position(|entry| entry.packet == Some(packet))?;
        self.remove(at).map(|entry| entry.of)
    }

    /// Drops the unsent deltas, and the unsent events of former sessions, of the device that has most of them;
    /// `current` tells a device's current session. Returns what was dropped: nothing if there is nothing to drop.
    pub(super) fn shed(&mut self, current: impl Fn(Device) -> Option<Session>) -> Vec<ShedEvent> {
        let expendable = |entry: &Entry| {
            let (device, version) = entry.of.state()?;
            let delta = matches!(entry.of, Published::Delta(..));
            (delta || current(device) != Some(version.session)).then_some(device)
        };
        let mut counts = BTreeMap::<Device, usize>::new();
        for device in self.entries.range(self.sent..).filter_map(expendable) {
            *counts.entry(device).or_default() += 1;
        }
        let Some((&most, _)) = counts.iter().max_by_key(|&(_, count)| count) else {
            return Vec::new();
        };
        let dropped: Vec<usize> =
            (self.sent..self.entries.len()).filter(|&at| expendable(&self.entries[at]) == Some(most)).collect();
        let durable = self.durable;
        let mut shed: Vec<ShedEvent> = dropped
            .into_iter()
            .rev()
            .filter_map(|at| Some(ShedEvent { of: self.remove(at)?.of, durable: at < durable }))
            .collect();
        shed.reverse();
        shed
    }

    fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.entries.remove(at)?;
        self.replies -= usize::from(matches!(entry.of, Published::Reply(_)));
        for boundary in [&mut self.on_wire, &mut self.sent, &mut self.durable, &mut self.covered] {
            *boundary -= usize::from(at < *boundary);
        }
        Some(entry)
    }
}
