//! One MQTT connection that is driven step by step: to look at a broker, and to clean up on it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use dmp_core::{
    agent::Message,
    core::{ConnectionId, PacketId, Publication},
};
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Incoming};

use super::access::Entrance;

/// Longest wait for each answer. A connection has its own bound, below this, and says at which step it was reached.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

const CONNECTION: ConnectionId = ConnectionId(1);

/// A connection.
pub(super) struct Peer {
    client: Client,
    packets: u16,
}

impl Peer {
    /// Connects, without a session that outlives the connection.
    ///
    /// # Errors
    /// Why the broker is not reached, or does not let this client in.
    pub(super) async fn connect(entrance: &Entrance, client_id: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer { client: Client::new(entrance.dialer.clone()), packets: 0 };
        let options = ConnectOptions {
            client_id: client_id.into(),
            clean_session: true,
            keep_alive: Duration::from_secs(30),
            will: None,
            credentials: entrance.credentials.clone(),
        };
        peer.client.connect(CONNECTION, options);
        peer.until("the connection", |incoming| matches!(incoming, Incoming::Connected { .. })).await?;
        Ok(peer)
    }

    /// Subscribes, and waits until that is granted.
    pub(super) async fn subscribe(&mut self, filters: Vec<String>) -> anyhow::Result<()> {
        let packet = self.packet();
        self.client.subscribe(CONNECTION, packet, filters);
        self.until("the subscription", |incoming| matches!(incoming, Incoming::Subscribed(of) if *of == packet)).await
    }

    /// Publishes, and waits until that is acknowledged.
    pub(super) async fn publish(&mut self, message: &Publication) -> anyhow::Result<()> {
        let packet = self.packet();
        self.client.publish(CONNECTION, Some(packet), false, message);
        self.until("the acknowledgement", |incoming| matches!(incoming, Incoming::Acknowledged(of) if *of == packet))
            .await
    }

    /// The next message; `None` where none comes for so long.
    pub(super) async fn message(&mut self, within: Duration) -> anyhow::Result<Option<Message>> {
        let deadline = tokio::time::Instant::now() + within;
        while let Ok((_, incoming)) = tokio::time::timeout_at(deadline, self.client.next()).await {
            match incoming {
                Incoming::Message(message) => {
                    self.acknowledge(&message);
                    return Ok(Some(message));
                }
                Incoming::Closed(reason) => return Err(reason.into()),
                Incoming::Connected { .. } | Incoming::Acknowledged(_) | Incoming::Subscribed(_) => {}
            }
        }
        Ok(None)
    }

    /// Leaves in good order.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        self.client.disconnect(CONNECTION);
        self.until("the end", |incoming| matches!(incoming, Incoming::Closed(Closed::AsAsked))).await
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Incoming) -> bool) -> anyhow::Result<()> {
        loop {
            let next = tokio::time::timeout(ANSWER_WITHIN, self.client.next()).await;
            let (_, incoming) = next.with_context(|| format!("{what} did not come within {ANSWER_WITHIN:?}"))?;
            if wanted(&incoming) {
                return Ok(());
            }
            match incoming {
                Incoming::Closed(reason) => return Err(reason.into()),
                Incoming::Message(message) => self.acknowledge(&message),
                Incoming::Connected { .. } | Incoming::Acknowledged(_) | Incoming::Subscribed(_) => {}
            }
        }
    }

    fn acknowledge(&mut self, message: &Message) {
        if let Some(packet) = message.packet {
            self.client.acknowledge(CONNECTION, packet);
        }
    }

    fn packet(&mut self) -> PacketId {
        self.packets = self.packets % u16::MAX + 1;
        PacketId(self.packets)
    }
}

/// A retained message that takes the place of what is retained on `topic`: nothing.
pub(super) fn nothing_retained(topic: &str) -> Publication {
    let qos = dmp_core::core::Qos::AtLeastOnce;
    Publication { topic: Arc::from(topic), payload: bytes::Bytes::new(), qos, retain: true }
}
