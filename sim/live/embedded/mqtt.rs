//! An MQTT broker inside this process: rumqttd on a runtime of its own, on a port that the system chooses.
//!
//! It keeps a log for each distinct subscription filter, read or not, and silently drops the oldest part of it when it
//! outgrows its segments, even what a subscriber has not had yet: so the segments are large, each bridge should use
//! few filters, and a loss still has to be looked for by seq. It sends a subscriber 100 unacknowledged messages at
//! most, and while there are so many answers it nothing, no ping either: a bridge whose Kafka is away for longer than its
//! keep-alive connects again, and gets the same messages. Never use `$share` on it: the last member that leaves with
//! unacknowledged messages stops its router. A client that comes back at the moment when its old connection breaks may be
//! closed once more, and then gets in. In what else it differs from Mosquitto is declared in `tests/conformance/mqtt.rs`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dmp_core::core::ConnectionId;
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Dialer, Endpoint, Incoming, MAX_PACKET_BYTES, TlsSettings};
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings, protocol::v4::V4};
use tokio::{runtime::Runtime, task::JoinHandle};

/// Connections that it takes: what the usual limit of 20,000 open files leaves for it.
const MAX_CONNECTIONS: usize = 20_000;

/// Bytes of a segment of a filter's log; allocated as they fill.
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// Segments of a filter's log. With fewer than 1 GiB in all, a stalled bridge loses acknowledged messages.
const SEGMENTS: usize = 16;

/// Largest packet that it takes: above the payload limit, and below what the client takes, so that no message can
/// arrive here that would break a subscriber's connection at each redelivery.
const MAX_BROKER_PACKET_BYTES: usize = MAX_PACKET_BYTES / 2;

/// Packets that it reads from a connection at a time.
const READ_PACKETS: usize = 100;

/// Packets that it hands to a connection at a time.
const SEND_PACKETS: u64 = 200;

/// Time for a client's CONNECT packet to arrive.
const CONNECT_WITHIN_MS: u16 = 60_000;

/// Another process may take the chosen port before the broker has it; that this happens over and over is no accident.
const PORT_ATTEMPTS: usize = 5;

/// Time for the broker to answer its first CONNECT.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Pause between two looks whether it answers.
const READY_POLL: Duration = Duration::from_millis(5);

/// A running broker; dropping it closes all connections and frees the port.
pub struct Broker {
    endpoint: Endpoint,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The system gave no runtime or no port.
    #[error("cannot start the embedded MQTT broker")]
    System(#[from] io::Error),
    /// It could not listen on any of the ports that were free a moment before.
    #[error("the embedded MQTT broker could not listen on {0}: {1}")]
    Listen(Endpoint, String),
    /// It listens, but does not answer.
    #[error("the embedded MQTT broker does not answer")]
    Silent(#[source] Closed),
}

impl Broker {
    /// Starts a broker on a free loopback port and waits until it answers a CONNECT.
    ///
    /// # Errors
    /// See [`BrokerError`]; nothing is left running then.
    pub async fn start() -> Result<Broker, BrokerError> {
        let router = Router::new(0, router_settings()).spawn();
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Dropped before the broker binds it: rumqttd takes an address, not a socket.
            let address = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let endpoint = Endpoint { host: address.ip().to_string(), port: address.port(), tls: false };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("mqtt-broker")
                .enable_all()
                .build()?;
            let mut server = Server::new(server_settings(address), router.clone(), V4);
            let serving = runtime.spawn(async move { server.start(LinkType::Remote).await.map_err(|e| e.to_string()) });
            let broker = Broker { endpoint, runtime: Some(runtime) };
            match broker.ready(serving).await {
                Ok(()) => return Ok(broker),
                Err(BrokerError::Listen(..)) if attempts < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits for the first CONNACK, or for the end of the server.
    async fn ready(&self, mut serving: JoinHandle<Result<(), String>>) -> Result<(), BrokerError> {
        tokio::select! {
            // In this order: if the server could not listen, it may be somebody else who answers.
            biased;
            ended = &mut serving => {
                let reason = match ended {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => error,
                    Err(panicked) => panicked.to_string(),
                };
                Err(BrokerError::Listen(self.endpoint.clone(), reason))
            }
            answered = answers(&self.endpoint) => answered.map_err(BrokerError::Silent),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not a plain drop: that waits, which is not allowed inside another runtime.
            runtime.shutdown_background();
        }
    }
}

/// Connects again and again until a CONNACK comes.
async fn answers(endpoint: &Endpoint) -> Result<(), Closed> {
    let dialer =
        Dialer::new(endpoint.clone(), &TlsSettings::default()).map_err(|error| Closed::NotMade(error.into()))?;
    let dialer = Arc::new(dialer.within(READY_WITHIN));
    let options = ConnectOptions {
        client_id: "readiness".into(),
        clean_session: true,
        keep_alive: READY_WITHIN,
        will: None,
        credentials: None,
    };
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    let mut client = Client::new(dialer);
    loop {
        client.connect(ConnectionId(0), options.clone());
        match client.next().await.1 {
            Incoming::Closed(closed) if tokio::time::Instant::now() > deadline => return Err(closed),
            Incoming::Closed(_) => tokio::time::sleep(READY_POLL).await,
            Incoming::Connected { .. } | Incoming::Acknowledged(_) | Incoming::Subscribed(_) | Incoming::Message(_) => {
                return Ok(());
            }
        }
    }
}

fn router_settings() -> RouterConfig {
    RouterConfig {
        max_connections: MAX_CONNECTIONS,
        max_outgoing_packet_count: SEND_PACKETS,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    }
}

fn server_settings(listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: "embedded".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: CONNECT_WITHIN_MS,
            max_payload_size: MAX_BROKER_PACKET_BYTES,
            max_inflight_count: READ_PACKETS,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    }
}

#[cfg(test)]
mod tests;
