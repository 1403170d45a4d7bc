//! Reads the packets of one connection out of the bytes of its two directions, however those are split.

use std::{collections::HashMap, sync::Arc};

use bytes::BytesMut;
use dmp_core::core::PacketId;
use rumqttc::mqttbytes::{self, v4::Packet};

use super::{Delivery, Wire};

/// Largest packet that is read: the largest there is (MQTT 3.1.1, section 2.2.3). What is too large for a bridge is
/// the bridge's affair, and has to be seen.
const MAX_PACKET_BYTES: usize = 268_435_455;

/// What one connection has delivered and not seen acknowledged, by packet id: at most 65,535 entries.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    open: HashMap<PacketId, Arc<Delivery>>,
}

/// One direction: bytes that are no whole packet yet.
#[derive(Debug, Default)]
pub(super) struct Tap {
    pending: BytesMut,
    unreadable: bool,
}

impl Tap {
    /// Takes bytes from the broker; appends what they meant to `seen`.
    pub(super) fn broker_sent(&mut self, bytes: &[u8], deliveries: &mut Deliveries, seen: &mut Vec<Wire>) {
        self.feed(bytes, true, seen, |packet| match packet {
            Packet::Publish(publish) => {
                let delivery = Arc::new(Delivery {
                    packet: (publish.pkid != 0).then_some(PacketId(publish.pkid)),
                    topic: Arc::from(publish.topic),
                    payload: publish.payload,
                    dup: publish.dup,
                    retain: publish.retain,
                });
                if let Some(packet) = delivery.packet {
                    deliveries.open.insert(packet, delivery.clone());
                }
                Some(Wire::BridgeReceived(delivery))
            }
            _ => None,
        });
    }

    /// Takes bytes from the bridge; appends what they meant to `seen`.
    pub(super) fn bridge_sent(&mut self, bytes: &[u8], deliveries: &mut Deliveries, seen: &mut Vec<Wire>) {
        self.feed(bytes, false, seen, |packet| match packet {
            Packet::PubAck(ack) => {
                let packet = PacketId(ack.pkid);
                let delivery = deliveries.open.remove(&packet);
                Some(delivery.map_or(Wire::StrayAcknowledgement(packet), Wire::BridgeAcknowledged))
            }
            Packet::Connect(connect) => Some(Wire::Opened { client_id: Arc::from(connect.client_id) }),
            _ => None,
        });
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        from_broker: bool,
        seen: &mut Vec<Wire>,
        mut meaning: impl FnMut(Packet) -> Option<Wire>,
    ) {
        if self.unreadable {
            return;
        }
        self.pending.extend_from_slice(bytes);
        loop {
            match Packet::read(&mut self.pending, MAX_PACKET_BYTES) {
                Ok(packet) => seen.extend(meaning(packet)),
                Err(mqttbytes::Error::InsufficientBytes(_)) => break,
                Err(error) => {
                    self.unreadable = true;
                    self.pending = BytesMut::new();
                    seen.push(Wire::Unreadable { from_broker, reason: error.to_string() });
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rumqttc::mqttbytes::{
        QoS,
        v4::{Connect, PingResp, PubAck, Publish},
    };

    use super::*;

    fn delivered(buffer: &mut BytesMut, packet: u16, payload: Vec<u8>) {
        let mut publish = Publish::new("dmp/v1/s00/RAE-1/a/state", QoS::AtLeastOnce, payload);
        publish.pkid = packet;
        publish.write(buffer).expect("a packet");
    }

    fn text(seen: &[Wire]) -> Vec<String> {
        seen.iter().map(|wire| format!("{wire:?}")).collect()
    }

    #[test]
    fn packets_are_read_the_same_wherever_their_bytes_are_split() {
        let mut broker = BytesMut::new();
        for (packet, size) in [(1, 0), (2, 1), (3, 200), (4, 20_000)] {
            delivered(&mut broker, packet, vec![b'x'; size]);
            PingResp.write(&mut broker).expect("a packet");
        }
        let mut bridge = BytesMut::new();
        Connect::new("bridge-0").write(&mut bridge).expect("a packet");
        for packet in [1, 2, 3, 4, 9] {
            PubAck::new(packet).write(&mut bridge).expect("a packet");
        }
        let read = |split: &mut dyn FnMut(usize) -> usize| {
            let (mut down, mut up, mut deliveries) = (Tap::default(), Tap::default(), Deliveries::default());
            let mut seen = Vec::new();
            let mut rest = &broker[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(split(rest.len()).clamp(1, rest.len()));
                down.broker_sent(now, &mut deliveries, &mut seen);
                rest = later;
            }
            let mut rest = &bridge[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(split(rest.len()).clamp(1, rest.len()));
                up.bridge_sent(now, &mut deliveries, &mut seen);
                rest = later;
            }
            text(&seen)
        };
        let whole = read(&mut |all| all);
        assert_eq!(whole.len(), 4 + 1 + 4 + 1);
        assert!(whole[9].starts_with("StrayAcknowledgement"), "{}", whole[9]);
        assert_eq!(whole, read(&mut |_| 1));
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(7);
        for _ in 0..200 {
            assert_eq!(whole, read(&mut |_| random.random_range(1..3_000)), "seed 7");
        }
    }

    #[test]
    fn a_packet_id_that_is_used_again_names_its_newest_delivery() {
        let (mut down, mut up, mut deliveries) = (Tap::default(), Tap::default(), Deliveries::default());
        let mut seen = Vec::new();
        for payload in [b"one".to_vec(), b"two".to_vec()] {
            let mut bytes = BytesMut::new();
            delivered(&mut bytes, 1, payload);
            down.broker_sent(&bytes, &mut deliveries, &mut seen);
            let mut ack = BytesMut::new();
            PubAck::new(1).write(&mut ack).expect("a packet");
            up.bridge_sent(&ack, &mut deliveries, &mut seen);
        }
        let acknowledged: Vec<_> = seen
            .iter()
            .filter_map(|wire| match wire {
                Wire::BridgeAcknowledged(delivery) => Some(delivery.payload.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(acknowledged, ["one", "two"]);
    }

    #[test]
    fn what_is_not_mqtt_is_told_once() {
        let (mut up, mut deliveries, mut seen) = (Tap::default(), Deliveries::default(), Vec::new());
        for _ in 0..3 {
            // Packet type 15 is reserved (MQTT 3.1.1, section 2.2.1).
            up.bridge_sent(&[0xf0, 1, 0], &mut deliveries, &mut seen);
        }
        assert!(matches!(seen[..], [Wire::Unreadable { from_broker: false, .. }]), "{seen:?}");
    }
}
