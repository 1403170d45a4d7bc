//! Copies of messages that a fault sends outside the agent's window: duplicates, and tails that were held back.
//!
//! A tail that was held back is the only copy there is, so it is sent in order and again after a reconnect until the
//! broker has acknowledged it; a lost duplicate is no loss.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use dmp_core::core::{PacketId, Publication, Qos};

use crate::history::{Copy, Publish};

/// Packet ids of copies begin here: an agent's own window stays far below.
const FIRST_PACKET: u16 = 40_000;

/// Copies that wait for an acknowledgement at a time.
const WINDOW: usize = 20;

/// A copy on its way.
#[derive(Debug)]
pub(super) struct CopyOf {
    pub(super) publish: Publish,
    pub(super) kind: Copy,
    pub(super) message: Publication,
}

/// Copies that wait for their time, and those that wait for their acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// By time from the begin of the load, then by order.
    waiting: BTreeMap<(Duration, u64), CopyOf>,
    in_flight: VecDeque<(PacketId, CopyOf)>,
    added: u64,
    sent: u16,
}

impl Copies {
    /// Adds a copy, to be sent at `at` from the begin of the load.
    pub(super) fn add(&mut self, at: Duration, publish: Publish, kind: Copy, message: Publication) {
        self.added += 1;
        self.waiting.insert((at, self.added), CopyOf { publish, kind, message });
    }

    /// When the next one is due; `None` where the window is full or none waits.
    pub(super) fn due(&self) -> Option<Duration> {
        let (&(at, _), _) = self.waiting.first_key_value().filter(|_| self.in_flight.len() < WINDOW)?;
        Some(at)
    }

    /// The next one that is due at `now`, to be sent.
    pub(super) fn next(&mut self, now: Duration) -> Option<(Option<PacketId>, &CopyOf)> {
        self.due().filter(|&due| due <= now)?;
        let (_, copy) = self.waiting.pop_first()?;
        let packet = (copy.message.qos == Qos::AtLeastOnce).then(|| self.packet());
        // At QoS 0 nothing is awaited; it passes through the window so that it can be lent from there.
        self.in_flight.push_back((packet.unwrap_or(PacketId(0)), copy));
        if packet.is_none() && self.in_flight.len() == WINDOW {
            self.in_flight.retain(|(packet, _)| packet.0 != 0);
        }
        self.in_flight.back().map(|(_, copy)| (packet, copy))
    }

    /// The copy that `packet` acknowledges; `None` where it is not one of these.
    pub(super) fn acknowledged(&mut self, packet: PacketId) -> Option<(Publish, Copy)> {
        let index = self.in_flight.iter().position(|(sent, _)| *sent == packet)?;
        self.in_flight.remove(index).map(|(_, copy)| (copy.publish, copy.kind))
    }

    /// What was held back and not acknowledged is to be sent again, first and in its order.
    pub(super) fn connection_lost(&mut self) {
        let unacknowledged: Vec<_> = self.in_flight.drain(..).filter(|(_, copy)| copy.kind == Copy::Delayed).collect();
        // Orders count from 1, and are never reused: 0 to the number of copies in flight come before them at time 0.
        let mut waiting = BTreeMap::new();
        for (order, (_, copy)) in (0..).zip(unacknowledged) {
            waiting.insert((Duration::ZERO, order), copy);
        }
        let behind = waiting.len() as u64;
        for (order, ((at, _), copy)) in (behind..).zip(std::mem::take(&mut self.waiting)) {
            waiting.insert((at, order), copy);
        }
        self.added = waiting.len() as u64;
        self.waiting = waiting;
    }

    fn packet(&mut self) -> PacketId {
        self.sent = (self.sent + 1) % (u16::MAX - FIRST_PACKET);
        PacketId(FIRST_PACKET + self.sent)
    }
}

#[cfg(test)]
mod tests {
    use dmp_core::id::{Epoch, Seq, Session, Version};

    use super::*;
    use crate::fleet::plan::{DeviceIndex, RaeIndex};

    fn copy(number: u64) -> (Publish, Publication) {
        let session = Session(uuid::Uuid::from_u128(1));
        let version = Version { epoch: Epoch::FIRST, session, seq: Seq::try_from(number).unwrap() };
        let publish = Publish { device: DeviceIndex(0), rae: RaeIndex(0), version, snapshot: false };
        let payload = number.to_string().into();
        (publish, Publication { topic: "t".into(), payload, qos: Qos::AtLeastOnce, retain: false })
    }

    fn sent(copies: &mut Copies, now: Duration) -> Vec<u64> {
        std::iter::from_fn(|| copies.next(now).map(|(_, copy)| copy.publish.version.seq.get())).collect()
    }

    #[test]
    fn a_tail_that_was_held_back_is_sent_in_order_and_again_after_a_reconnect_until_acknowledged() {
        let mut copies = Copies::default();
        let at = Duration::from_secs(5);
        for number in 1..=4 {
            let (publish, message) = copy(number);
            copies.add(at, publish, Copy::Delayed, message);
        }
        assert_eq!(sent(&mut copies, Duration::from_secs(4)), [0; 0]);
        assert_eq!(sent(&mut copies, at), [1, 2, 3, 4]);
        assert!(copies.acknowledged(PacketId(FIRST_PACKET + 1)).is_some());
        let (publish, message) = copy(5);
        copies.add(at, publish, Copy::Delayed, message);
        copies.connection_lost();
        assert_eq!(sent(&mut copies, at), [2, 3, 4, 5]);
    }

    #[test]
    fn a_duplicate_that_was_lost_with_its_connection_is_not_sent_again() {
        let mut copies = Copies::default();
        let (publish, message) = copy(1);
        copies.add(Duration::ZERO, publish, Copy::Duplicate, message);
        assert_eq!(sent(&mut copies, Duration::ZERO), [1]);
        copies.connection_lost();
        assert_eq!(copies.due(), None);
    }

    #[test]
    fn copies_beyond_the_window_wait_for_acknowledgements() {
        let mut copies = Copies::default();
        for number in 1..=30 {
            let (publish, message) = copy(number);
            copies.add(Duration::ZERO, publish, Copy::Duplicate, message);
        }
        assert_eq!(sent(&mut copies, Duration::ZERO).len(), WINDOW);
        assert_eq!(copies.due(), None);
        assert!(copies.acknowledged(PacketId(FIRST_PACKET + 3)).is_some());
        assert_eq!(sent(&mut copies, Duration::ZERO), [21]);
    }
}
