//! Clients of a test: the pipeline's own, and one that speaks what the pipeline does not.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use dmp_core::{
    agent::Message,
    core::{ConnectionId, PacketId, Publication, Qos},
};
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Credentials, Dialer, Endpoint, Incoming};
use rumqttc::mqttbytes::v4::{Connect, Packet};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest packet that a foreign client sends or takes.
const FOREIGN_PACKET_BYTES: usize = 4 << 20;

/// The pipeline's client, whose every event is awaited within a bound.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) connection: ConnectionId,
    packet: u16,
}

impl Peer {
    pub(super) fn new(dialer: &Arc<Dialer>) -> Peer {
        Peer { client: Client::new(dialer.clone()), connection: ConnectionId(0), packet: 0 }
    }

    /// One that is connected, and whether the broker had its session.
    pub(super) async fn connected(dialer: &Arc<Dialer>, options: ConnectOptions) -> (Peer, bool) {
        let mut peer = Peer::new(dialer);
        let session_present = peer.connect(options).await;
        (peer, session_present)
    }

    /// Connects; a connection that there was breaks as by a crash.
    pub(super) async fn connect(&mut self, options: ConnectOptions) -> bool {
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

    pub(super) async fn event(&mut self) -> (ConnectionId, Incoming) {
        timeout(PATIENCE, self.client.next()).await.expect("an event in time")
    }

    /// Asks for a subscription, and does not wait for it.
    pub(super) fn ask(&mut self, filter: &str) -> PacketId {
        let packet = self.next_packet();
        self.client.subscribe(self.connection, packet, vec![filter.to_owned()]);
        packet
    }

    pub(super) async fn subscribe(&mut self, filter: &str) {
        let packet = self.ask(filter);
        let event = self.event().await.1;
        assert!(matches!(event, Incoming::Subscribed(of) if of == packet), "expected Subscribed, got {event:?}");
    }

    pub(super) fn send(&mut self, publication: &Publication) -> PacketId {
        let packet = self.next_packet();
        self.client.publish(self.connection, Some(packet), false, publication);
        packet
    }

    pub(super) async fn publish(&mut self, publication: &Publication) {
        let packet = self.send(publication);
        self.acknowledged(packet).await;
    }

    pub(super) async fn acknowledged(&mut self, packet: PacketId) {
        let event = self.event().await.1;
        assert!(matches!(event, Incoming::Acknowledged(of) if of == packet), "expected Acknowledged, got {event:?}");
    }

    pub(super) async fn message(&mut self) -> Message {
        match self.event().await.1 {
            Incoming::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    pub(super) fn acknowledge(&mut self, message: &Message) {
        self.client.acknowledge(self.connection, message.packet.expect("a QoS 1 message"));
    }

    /// Ends in good order: all that was sent before has arrived.
    pub(super) async fn disconnect(&mut self) {
        self.client.disconnect(self.connection);
        let closed = self.closed().await;
        assert!(matches!(closed, Closed::AsAsked), "{closed:?}");
    }

    /// How the connection ends; what arrives before that is let go.
    pub(super) async fn closed(&mut self) -> Closed {
        loop {
            match self.event().await.1 {
                Incoming::Closed(closed) => return closed,
                Incoming::Acknowledged(_) | Incoming::Message(_) => {}
                other => panic!("expected Closed, got {other:?}"),
            }
        }
    }

    fn next_packet(&mut self) -> PacketId {
        self.packet += 1;
        PacketId(self.packet)
    }
}

pub(super) fn clean(client_id: &str) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.into(),
        clean_session: true,
        keep_alive: Duration::from_secs(30),
        will: None,
        credentials: None,
    }
}

pub(super) fn persistent(client_id: &str) -> ConnectOptions {
    ConnectOptions { clean_session: false, ..clean(client_id) }
}

/// A RAE, whose user name is its serial, as access lists ask.
pub(super) fn user(name: &str) -> ConnectOptions {
    let credentials = Credentials { user: name.to_owned(), password: None };
    ConnectOptions { credentials: Some(credentials), ..clean(name) }
}

pub(super) fn publication(topic: &str, payload: impl Into<Bytes>) -> Publication {
    Publication { topic: topic.into(), payload: payload.into(), qos: Qos::AtLeastOnce, retain: false }
}

/// A client that is not ours, packet by packet.
pub(super) struct Foreign {
    stream: TcpStream,
    received: BytesMut,
}

impl Foreign {
    pub(super) async fn connected(endpoint: &Endpoint, client_id: &str) -> Foreign {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.expect("the broker listens");
        let mut foreign = Foreign { stream, received: BytesMut::new() };
        let mut connect = BytesMut::new();
        Connect::new(client_id).write(&mut connect).expect("a packet");
        foreign.stream.write_all(&connect).await.expect("it takes bytes");
        let answer = foreign.next().await;
        assert!(matches!(answer, Some(Packet::ConnAck(_))), "{answer:?}");
        foreign
    }

    /// Sends a packet; that the broker has gone is found out by reading.
    pub(super) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, FOREIGN_PACKET_BYTES).expect("a packet");
        let _gone = self.stream.write_all(&bytes).await;
    }

    /// The next packet; none where the broker has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.received, FOREIGN_PACKET_BYTES) {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("an answer in time");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }
}
