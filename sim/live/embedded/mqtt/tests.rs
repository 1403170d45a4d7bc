//! The client against a real broker: what the cores rely on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dmp_core::{
    agent::Message,
    core::{ConnectionId, PacketId, Publication, Qos},
};
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Dialer, Incoming, TlsSettings};

use super::Broker;

/// One client whose every event is awaited within a bound.
struct Peer {
    client: Client,
    connection: ConnectionId,
    packet: u16,
}

impl Peer {
    fn new(dialer: &Arc<Dialer>) -> Peer {
        Peer { client: Client::new(dialer.clone()), connection: ConnectionId(0), packet: 0 }
    }

    async fn connected(dialer: &Arc<Dialer>, options: ConnectOptions) -> (Peer, bool) {
        let mut peer = Peer::new(dialer);
        let session_present = peer.connect(options).await;
        (peer, session_present)
    }

    async fn connect(&mut self, options: ConnectOptions) -> bool {
        self.connection = ConnectionId(self.connection.0 + 1);
        self.client.connect(self.connection, options);
        loop {
            match self.event().await {
                (of, Incoming::Connected { session_present }) if of == self.connection => return session_present,
                (of, Incoming::Closed(_)) if of < self.connection => {}
                other => panic!("expected Connected, got {other:?}"),
            }
        }
    }

    async fn event(&mut self) -> (ConnectionId, Incoming) {
        tokio::time::timeout(Duration::from_secs(20), self.client.next()).await.expect("an event within 20 s")
    }

    async fn subscribe(&mut self, filter: &str) {
        let packet = self.next_packet();
        self.client.subscribe(self.connection, packet, vec![filter.to_owned()]);
        let event = self.event().await.1;
        assert!(matches!(event, Incoming::Subscribed(of) if of == packet), "expected Subscribed, got {event:?}");
    }

    fn send(&mut self, publication: &Publication) -> PacketId {
        let packet = self.next_packet();
        self.client.publish(self.connection, Some(packet), false, publication);
        packet
    }

    async fn publish(&mut self, publication: &Publication) {
        let packet = self.send(publication);
        let event = self.event().await.1;
        assert!(matches!(event, Incoming::Acknowledged(of) if of == packet), "expected Acknowledged, got {event:?}");
    }

    async fn message(&mut self) -> Message {
        match self.event().await.1 {
            Incoming::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    fn acknowledge(&mut self, message: &Message) {
        self.client.acknowledge(self.connection, message.packet.expect("a QoS 1 message"));
    }

    async fn closed(&mut self) -> Closed {
        match self.event().await.1 {
            Incoming::Closed(closed) => closed,
            other => panic!("expected Closed, got {other:?}"),
        }
    }

    fn next_packet(&mut self) -> PacketId {
        self.packet += 1;
        PacketId(self.packet)
    }
}

fn clean(client_id: &str) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.into(),
        clean_session: true,
        keep_alive: Duration::from_secs(30),
        will: None,
        credentials: None,
    }
}

fn persistent(client_id: &str) -> ConnectOptions {
    ConnectOptions { clean_session: false, ..clean(client_id) }
}

fn publication(topic: &str, payload: impl Into<Bytes>) -> Publication {
    Publication { topic: topic.into(), payload: payload.into(), qos: Qos::AtLeastOnce, retain: false }
}

async fn broker() -> (Broker, Arc<Dialer>) {
    let broker = Broker::start().await.expect("the broker starts");
    let dialer = Dialer::new(broker.endpoint().clone(), &TlsSettings::default()).expect("no TLS, no error");
    (broker, Arc::new(dialer.at_most(80)))
}

#[tokio::test]
async fn messages_arrive_in_the_order_of_publishing_up_to_the_payload_limit() {
    let (_broker, dialer) = broker().await;
    let (mut reader, session_present) = Peer::connected(&dialer, persistent("bridge")).await;
    assert!(!session_present);
    reader.subscribe("dmp/v1/s00/+/+/state").await;
    let (mut writer, _) = Peer::connected(&dialer, clean("RAE-1")).await;
    for round in 0..500u32 {
        writer.publish(&publication("dmp/v1/s00/RAE-1/a/state", round.to_be_bytes().to_vec())).await;
    }
    for round in 0..500u32 {
        let message = reader.message().await;
        assert_eq!(message.payload, &round.to_be_bytes()[..]);
        assert!(!message.dup && !message.retain);
        reader.acknowledge(&message);
    }
    let largest = vec![b'x'; dmp_core::event::MAX_PAYLOAD_BYTES];
    writer.publish(&publication("dmp/v1/s00/RAE-1/a/state", largest.clone())).await;
    assert_eq!(reader.message().await.payload, largest);
}

#[tokio::test]
async fn qos_0_arrives_and_is_not_acknowledged() {
    let (_broker, dialer) = broker().await;
    let (mut peer, _) = Peer::connected(&dialer, clean("RAE-1")).await;
    peer.subscribe("a/b").await;
    let message = Publication { qos: Qos::AtMostOnce, ..publication("a/b", "x") };
    peer.client.publish(peer.connection, None, false, &message);
    // With a packet id: rumqttd raises a message to the quality of the subscription, where MQTT 3.1.1 (section 3.8.4)
    // would have the lower of the two. Nothing in the pipeline minds.
    assert_eq!(peer.message().await.payload, "x");
    peer.publish(&publication("c/d", "next")).await;
}

#[tokio::test]
async fn the_will_is_published_when_a_client_vanishes_and_not_when_it_says_goodbye() {
    let (_broker, dialer) = broker().await;
    let (mut reader, _) = Peer::connected(&dialer, clean("reader")).await;
    reader.subscribe("dmp/v1/+/+/status").await;
    let with_will = |rae: &str| {
        let will = publication(&format!("dmp/v1/s00/{rae}/status"), format!("{rae} offline"));
        ConnectOptions { will: Some(Publication { retain: true, ..will }), ..clean(rae) }
    };
    let (mut polite, _) = Peer::connected(&dialer, with_will("RAE-polite")).await;
    polite.client.disconnect(polite.connection);
    assert!(matches!(polite.closed().await, Closed::AsAsked));
    let (crashed, _) = Peer::connected(&dialer, with_will("RAE-crashed")).await;
    drop(crashed);
    assert_eq!(reader.message().await.payload, "RAE-crashed offline");
}

#[tokio::test]
async fn what_is_queued_before_a_disconnect_arrives() {
    let (_broker, dialer) = broker().await;
    let (mut reader, _) = Peer::connected(&dialer, clean("reader")).await;
    reader.subscribe("last/words").await;
    let (mut writer, _) = Peer::connected(&dialer, clean("writer")).await;
    for round in 0..20u8 {
        writer.send(&publication("last/words", vec![round; 10_000]));
    }
    writer.client.disconnect(writer.connection);
    assert!(matches!(writer.closed().await, Closed::AsAsked));
    for round in 0..20u8 {
        assert_eq!(reader.message().await.payload[0], round);
    }
}

#[tokio::test]
async fn a_retained_status_is_replayed_to_a_later_subscriber() {
    let (_broker, dialer) = broker().await;
    let (mut rae, _) = Peer::connected(&dialer, clean("RAE-1")).await;
    rae.publish(&Publication { retain: true, ..publication("dmp/v1/s00/RAE-1/status", "boot 7") }).await;
    let (mut later, _) = Peer::connected(&dialer, clean("later")).await;
    later.subscribe("dmp/v1/s00/RAE-1/status").await;
    let message = later.message().await;
    assert!(message.retain);
    assert_eq!(message.payload, "boot 7");
}

#[tokio::test]
async fn a_persistent_session_gets_again_in_order_what_it_had_not_acknowledged() {
    let (_broker, dialer) = broker().await;
    let (mut reader, _) = Peer::connected(&dialer, persistent("bridge")).await;
    reader.subscribe("a/#").await;
    let (mut writer, _) = Peer::connected(&dialer, clean("writer")).await;
    for round in 0..10u8 {
        writer.publish(&publication("a/b", vec![round])).await;
    }
    for round in 0..10u8 {
        let message = reader.message().await;
        assert_eq!(message.payload[0], round);
        if round < 4 {
            reader.acknowledge(&message);
        }
    }
    // In good order, so that the four acknowledgements have arrived.
    reader.client.disconnect(reader.connection);
    assert!(matches!(reader.closed().await, Closed::AsAsked));
    for round in 10..13u8 {
        writer.publish(&publication("a/b", vec![round])).await;
    }
    assert!(reader.connect(persistent("bridge")).await, "the session is still there");
    for round in 4..13u8 {
        let message = reader.message().await;
        assert_eq!(message.payload[0], round);
        // `dup` says nothing here: rumqttd resends without it, which MQTT 3.1.1 (section 3.3.1.1) does not allow.
        reader.acknowledge(&message);
    }
}

#[tokio::test]
async fn a_second_connection_of_the_same_client_id_takes_over_and_loses_nothing() {
    let (_broker, dialer) = broker().await;
    let (mut first, _) = Peer::connected(&dialer, persistent("bridge")).await;
    first.subscribe("a/#").await;
    let (mut writer, _) = Peer::connected(&dialer, clean("writer")).await;
    writer.publish(&publication("a/b", "one")).await;
    assert_eq!(first.message().await.payload, "one");
    let (mut second, session_present) = Peer::connected(&dialer, persistent("bridge")).await;
    assert!(session_present);
    assert!(matches!(first.closed().await, Closed::ByPeer(_) | Closed::Broken { .. }));
    writer.publish(&publication("a/b", "two")).await;
    assert_eq!(second.message().await.payload, "one");
    assert_eq!(second.message().await.payload, "two");
}

#[tokio::test]
async fn five_hundred_clients_that_come_at_once_all_get_in() {
    let (_broker, dialer) = broker().await;
    let mut peers = tokio::task::JoinSet::new();
    for rae in 0..500 {
        let dialer = dialer.clone();
        peers.spawn(async move { Peer::connected(&dialer, clean(&format!("RAE-{rae}"))).await.0 });
    }
    let peers = peers.join_all().await;
    assert_eq!(peers.len(), 500);
}

#[tokio::test]
async fn a_broker_that_was_dropped_is_gone() {
    let (broker, dialer) = broker().await;
    let (mut peer, _) = Peer::connected(&dialer, clean("RAE-1")).await;
    drop(broker);
    assert!(matches!(peer.closed().await, Closed::ByPeer(_) | Closed::Broken { .. }));
    peer.client.connect(ConnectionId(9), clean("RAE-1"));
    let closed = peer.closed().await;
    assert!(matches!(closed, Closed::NotMade(_)), "{closed:?}");
}
