//! From the agent to the broker: faults that lie between the two act here, where the agent cannot see them.

use dmp_core::{
    agent::{Event, Published},
    core::{ConnectionId, PacketId, Publication, Qos},
};

use super::LiveRae;
use crate::{
    faults::Handling,
    history::{Copy, PayloadHash, Publish, What},
};

impl LiveRae {
    pub(super) fn publish(
        &mut self,
        connection: ConnectionId,
        packet: Option<PacketId>,
        dup: bool,
        message: &Publication,
        of: Published,
    ) -> Option<Event> {
        let publish = match of {
            Published::Status | Published::Reply(_) => {
                self.client.publish(connection, packet, dup, message);
                return None;
            }
            Published::Delta(device, version) => self.publish_of(device, version, false)?,
            Published::Snapshot(device, version, _) => self.publish_of(device, version, true)?,
        };
        let acknowledged = packet.map(|packet| Event::Acknowledged(connection, packet));
        match self.handling(publish, dup) {
            Handling::Send => {
                self.client.publish(connection, packet, dup, message);
                self.enter(What::Sent(
                    publish,
                    if dup { Copy::Resent } else { Copy::First },
                    PayloadHash::of(&message.payload),
                ));
                None
            }
            Handling::SendTwice(later) => {
                self.client.publish(connection, packet, dup, message);
                self.enter(What::Sent(publish, Copy::First, PayloadHash::of(&message.payload)));
                let at = self.shared.clock.in_load().unwrap_or_default() + later;
                self.copies.add(at, publish, Copy::Duplicate, message.clone());
                None
            }
            Handling::Withhold => {
                self.spoof(publish, message.qos);
                self.enter(What::Withheld(publish));
                acknowledged
            }
            Handling::Lose => {
                self.enter(What::LostAtQos0(publish));
                None
            }
            Handling::HoldUntil(at) => {
                self.spoof(publish, message.qos);
                self.copies.add(at, publish, Copy::Delayed, message.clone());
                acknowledged
            }
        }
    }

    fn handling(&mut self, publish: Publish, dup: bool) -> Handling {
        let canary = self.shared.plan.raes[self.index.0 as usize].stay.is_some();
        let Some(at) = self.shared.clock.in_load().filter(|_| !canary) else { return Handling::Send };
        let mut held = self.held.get(&publish.device).copied();
        let handling = self.shared.tampering.handle(at, publish, dup, &mut held);
        if let Some(tail) = held {
            self.held.insert(publish.device, tail);
        }
        handling
    }

    fn spoof(&mut self, publish: Publish, qos: Qos) {
        if qos == Qos::AtLeastOnce {
            let device = self.shared.plan.devices[publish.device.0 as usize].id;
            self.spoofed.insert((device, publish.version));
        }
    }

    pub(super) fn send_copies(&mut self) {
        let (Some(connection), Some(now)) = (self.connection.filter(|_| self.online), self.shared.clock.in_load())
        else {
            return;
        };
        while let Some((packet, copy)) = self.copies.next(now) {
            self.client.publish(connection, packet, false, &copy.message);
            let payload = PayloadHash::of(&copy.message.payload);
            self.entries.push(self.shared.journal.entry(What::Sent(copy.publish, copy.kind, payload)));
        }
    }
}
