//! One MQTT connection, step by step.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dmp_core::{
    agent::Message,
    core::{ConnectionId, PacketId, Publication, Qos},
};
use dmp_service::mqtt::{Client, Closed, ConnectError, ConnectOptions, Credentials, Dialer, Incoming};

use crate::{
    broker::{Broker, Door},
    lab::Lab,
};

const FIRST: ConnectionId = ConnectionId(1);

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Wire {
    client: Client,
    session_present: bool,
    packet: u16,
    came: VecDeque<Message>,
}

pub(crate) fn options(client_id: &str, credentials: Option<Credentials>) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.into(),
        clean_session: true,
        keep_alive: Duration::from_secs(60),
        will: None,
        credentials,
    }
}

impl Wire {
    pub(crate) async fn connect(dialer: Dialer, options: ConnectOptions) -> Result<Wire, ConnectError> {
        let mut client = Client::new(Arc::new(dialer.within(PATIENCE)));
        client.connect(FIRST, options);
        match client.next().await.1 {
            Incoming::Connected { session_present } => {
                Ok(Wire { client, session_present, packet: 0, came: VecDeque::new() })
            }
            Incoming::Closed(Closed::NotMade(error)) => Err(*error),
            other => panic!("neither connected nor refused: {other:?}"),
        }
    }

    /// A RAE with its password.
    pub(crate) async fn rae(broker: &Broker, lab: &Lab, serial: &str) -> Wire {
        Wire::to(broker, lab, Door::RaePassword, options(serial, Some(lab.rae(serial)))).await
    }

    /// A bridge; its session is kept.
    pub(crate) async fn bridge(broker: &Broker, lab: &Lab, client_id: &str) -> Wire {
        let options = ConnectOptions { clean_session: false, ..options(client_id, Some(lab.bridge())) };
        Wire::to(broker, lab, Door::Bridge, options).await
    }

    /// An operator.
    pub(crate) async fn operator(broker: &Broker, lab: &Lab, name: &str) -> Wire {
        Wire::to(broker, lab, Door::Operator, options(name, Some(lab.operator(name)))).await
    }

    pub(crate) async fn to(broker: &Broker, lab: &Lab, door: Door, options: ConnectOptions) -> Wire {
        let dialer = broker.dialer(door, &lab.trusting());
        Wire::connect(dialer, options).await.unwrap_or_else(|error| panic!("{door:?}: {error}"))
    }

    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Subscribes, and sees that it is granted.
    pub(crate) async fn subscribe(&mut self, filters: &[&str]) {
        let packet = self.next_packet();
        self.client.subscribe(FIRST, packet, filters.iter().map(|&filter| filter.to_owned()).collect());
        self.until(|incoming| matches!(incoming, Incoming::Subscribed(granted) if *granted == packet)).await;
    }

    /// Publishes, and waits until the broker has taken it.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str) {
        let packet = self.send(topic, payload, false);
        self.until(|incoming| matches!(incoming, Incoming::Acknowledged(taken) if *taken == packet)).await;
    }

    /// Publishes what is not allowed, and waits until the broker is done with it: it may acknowledge or close.
    pub(crate) async fn publish_in_vain(mut self, topic: &str, payload: &str, retain: bool) {
        let packet = self.send(topic, payload, retain);
        self.until(|incoming| match incoming {
            Incoming::Acknowledged(taken) => *taken == packet,
            Incoming::Closed(Closed::ByPeer(_) | Closed::Broken { .. }) => true,
            Incoming::Connected { .. } | Incoming::Subscribed(_) | Incoming::Message(_) | Incoming::Closed(_) => false,
        })
        .await;
    }

    /// The topic and payload of the next message.
    pub(crate) async fn message(&mut self) -> (String, String) {
        while self.came.is_empty() {
            self.step().await;
        }
        let Message { topic, payload, .. } = self.came.pop_front().expect("seen just now");
        (topic.to_string(), String::from_utf8(payload.to_vec()).expect("tests send text"))
    }

    fn send(&mut self, topic: &str, payload: &str, retain: bool) -> PacketId {
        let packet = self.next_packet();
        let message =
            Publication { topic: topic.into(), payload: payload.to_owned().into(), qos: Qos::AtLeastOnce, retain };
        self.client.publish(FIRST, Some(packet), false, &message);
        packet
    }

    async fn until(&mut self, mut wanted: impl FnMut(&Incoming) -> bool) {
        loop {
            let incoming = self.step().await;
            if wanted(&incoming) {
                return;
            }
            assert!(!matches!(incoming, Incoming::Closed(_)), "{incoming:?}");
        }
    }

    async fn step(&mut self) -> Incoming {
        let next = tokio::time::timeout(PATIENCE, self.client.next()).await;
        let (_, incoming) = next.unwrap_or_else(|_| panic!("nothing came within {PATIENCE:?}"));
        if let Incoming::Message(message) = &incoming {
            if let Some(packet) = message.packet {
                self.client.acknowledge(FIRST, packet);
            }
            self.came.push_back(message.clone());
        }
        incoming
    }

    fn next_packet(&mut self) -> PacketId {
        self.packet += 1;
        PacketId(self.packet)
    }
}
