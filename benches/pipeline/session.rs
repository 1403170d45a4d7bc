//! One MQTT connection with a session that stays, on the client of the pipeline itself.

use std::time::Duration;

use dmp_core::core::{ConnectionId, PacketId, Publication};
use dmp_service::mqtt::{Client, ConnectOptions, Incoming};

use crate::servers::Servers;

/// Longest wait for the broker, so that a fault ends the bench and does not hang it.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Publishes that are not acknowledged.
const IN_FLIGHT: usize = 100;

const CONNECTION: ConnectionId = ConnectionId(1);

pub(crate) struct Session {
    client: Client,
    options: ConnectOptions,
    packet: u16,
}

impl Session {
    /// Connects, and subscribes where there are filters: for a new session, since what comes until then is lost.
    pub(crate) async fn open(servers: &Servers, client_id: &str, filters: Vec<String>) -> Session {
        let mut session = Session::connect(servers, servers.mqtt.options(client_id, false)).await;
        if !filters.is_empty() {
            let packet = session.next_packet();
            session.client.subscribe(CONNECTION, packet, filters);
            while !matches!(session.next().await, Incoming::Subscribed(_)) {}
        }
        session
    }

    pub(crate) async fn next(&mut self) -> Incoming {
        let (_, incoming) = tokio::time::timeout(ANSWER_WITHIN, self.client.next()).await.expect("the broker answers");
        assert!(!matches!(incoming, Incoming::Closed(_)), "{incoming:?}");
        incoming
    }

    pub(crate) fn publish(&mut self, publication: &Publication) {
        let packet = self.next_packet();
        self.client.publish(CONNECTION, Some(packet), false, publication);
    }

    /// Publishes all, and waits until the broker has them.
    pub(crate) async fn publish_all(&mut self, publications: &[Publication]) {
        let mut in_flight = 0;
        for publication in publications {
            if in_flight == IN_FLIGHT {
                self.acknowledged().await;
                in_flight -= 1;
            }
            self.publish(publication);
            in_flight += 1;
        }
        for _ in 0..in_flight {
            self.acknowledged().await;
        }
    }

    pub(crate) fn acknowledge(&mut self, packet: PacketId) {
        self.client.acknowledge(CONNECTION, packet);
    }

    /// Disconnects; the broker keeps what comes for the session.
    pub(crate) async fn close(mut self) {
        self.client.disconnect(CONNECTION);
        let closed = async { while !matches!(self.client.next().await.1, Incoming::Closed(_)) {} };
        tokio::time::timeout(ANSWER_WITHIN, closed).await.expect("the connection closes");
    }

    /// Lets the broker forget the session of a client that is gone.
    pub(crate) async fn forget(servers: &Servers, client_id: &str) {
        Session::connect(servers, servers.mqtt.options(client_id, true)).await.close().await;
    }

    async fn connect(servers: &Servers, options: ConnectOptions) -> Session {
        let mut session = Session { client: Client::new(servers.dialer.clone()), options, packet: 0 };
        session.client.connect(CONNECTION, session.options.clone());
        while !matches!(session.next().await, Incoming::Connected { .. }) {}
        session
    }

    async fn acknowledged(&mut self) {
        while !matches!(self.next().await, Incoming::Acknowledged(_)) {}
    }

    fn next_packet(&mut self) -> PacketId {
        self.packet = self.packet % u16::MAX + 1;
        PacketId(self.packet)
    }
}
