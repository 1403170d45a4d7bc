//! A peer that does what a test tells it, packet by packet.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use dmp_core::core::ConnectionId;
use dmp_service::mqtt::{Client, ConnectOptions, Dialer, Endpoint, Incoming, MAX_PACKET_BYTES, TlsSettings};
use rumqttc::mqttbytes::{
    self,
    v4::{ConnAck, ConnectReturnCode, Packet},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The connection that every test here makes.
pub(crate) const FIRST: ConnectionId = ConnectionId(1);

/// One accepted connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    received: BytesMut,
}

impl Peer {
    /// Accepts a connection and its CONNECT packet.
    pub(crate) async fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut peer = Peer { stream, received: BytesMut::new() };
        let first = peer.packet().await;
        assert!(matches!(first, Some(Packet::Connect(_))), "{first:?}");
        peer
    }

    /// The next packet; `None` at the end.
    pub(crate) async fn packet(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.received, MAX_PACKET_BYTES) {
                Ok(packet) => return Some(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the client sent what cannot be read: {error}"),
            }
            if self.stream.read_buf(&mut self.received).await.expect("the client's bytes") == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, MAX_PACKET_BYTES).expect("a valid packet");
        self.stream.write_all(&bytes).await.expect("the client reads");
    }

    pub(crate) async fn answer(&mut self, code: ConnectReturnCode) {
        self.send(Packet::ConnAck(ConnAck::new(code, false))).await;
    }
}

/// A listener on a loopback port that the system chooses.
pub(crate) async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    (listener, Endpoint { host: "127.0.0.1".into(), port, tls: false })
}

pub(crate) fn options() -> ConnectOptions {
    ConnectOptions {
        client_id: "RAE-1".into(),
        clean_session: true,
        keep_alive: Duration::from_secs(60),
        will: None,
        credentials: None,
    }
}

pub(crate) fn dialer(endpoint: &Endpoint) -> Dialer {
    Dialer::new(endpoint.clone(), &TlsSettings::default()).expect("no TLS, no error")
}

/// A client that has begun to connect.
pub(crate) fn connecting(dialer: Dialer, options: ConnectOptions) -> Client {
    let mut client = Client::new(Arc::new(dialer));
    client.connect(FIRST, options);
    client
}

/// A connected pair.
pub(crate) async fn pair(options: ConnectOptions) -> (Client, Peer) {
    let (listener, endpoint) = listen().await;
    let mut client = connecting(dialer(&endpoint), options);
    let serve = async {
        let mut peer = Peer::accept(&listener).await;
        peer.answer(ConnectReturnCode::Success).await;
        peer
    };
    let (event, peer) = tokio::join!(event(&mut client), serve);
    assert!(matches!(event, Incoming::Connected { session_present: false }), "{event:?}");
    (client, peer)
}

/// The next event.
pub(crate) async fn event(client: &mut Client) -> Incoming {
    let (connection, event) =
        tokio::time::timeout(Duration::from_secs(20), client.next()).await.expect("an event within 20 s");
    assert_eq!(connection, FIRST);
    event
}

/// The error chain as it is logged.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
