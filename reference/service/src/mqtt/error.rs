//! How a connection could not be made, and how one ended.

use std::{io, sync::Arc, time::Duration};

use super::{Endpoint, TlsError};

/// Why a connection could not be made. Each text names the endpoint and what was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection: nobody listens there, no route, or no such name.
    #[error("MQTT broker {endpoint} cannot be reached")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed: unknown authority, wrong name, client certificate refused, or no TLS there.
    #[error("MQTT broker {endpoint} and this client did not agree on TLS")]
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// The handshake's words.
        source: Arc<io::Error>,
    },
    /// The endpoint asks for TLS and the settings do not fit it.
    #[error("TLS settings do not fit the MQTT endpoint {endpoint}")]
    TlsSettings {
        /// Where.
        endpoint: Endpoint,
        /// What does not fit.
        source: Box<TlsError>,
    },
    /// CONNACK 4 or 5 (MQTT 3.1.1, section 3.2.2.3).
    #[error("MQTT broker {endpoint} refused {}", credentials_of(user))]
    BadCredentials {
        /// Where.
        endpoint: Endpoint,
        /// Who; empty without a user name.
        user: String,
    },
    /// CONNACK 1 to 3 (MQTT 3.1.1, section 3.2.2.3).
    #[error("MQTT broker {endpoint} refused client id {client_id:?}: {reason}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// Who.
        client_id: Arc<str>,
        /// What the code says.
        reason: &'static str,
    },
    /// The peer closed before CONNACK. Some brokers say no to credentials like this.
    #[error(
        "MQTT broker {endpoint} closed the connection instead of answering CONNECT (full, or it refuses the client)"
    )]
    ClosedEarly {
        /// Where.
        endpoint: Endpoint,
    },
    /// The connection broke before CONNACK.
    #[error("connection to MQTT broker {endpoint} broke before it answered CONNECT")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// What came is not MQTT 3.1.1, or not a CONNACK.
    #[error("{endpoint} does not answer as an MQTT broker: {what}")]
    Protocol {
        /// Where.
        endpoint: Endpoint,
        /// What came.
        what: String,
    },
    /// The handshakes took too long.
    #[error("MQTT broker {endpoint} did not complete {step} within {within:?}")]
    Timeout {
        /// Where.
        endpoint: Endpoint,
        /// The step that hung.
        step: &'static str,
        /// The bound.
        within: Duration,
    },
    /// The options make no valid CONNECT packet.
    #[error("cannot connect to MQTT broker {endpoint} like this: {what}")]
    Options {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong.
        what: &'static str,
    },
}

/// How a connection ended; the last event of each.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Closed {
    /// It was never made.
    #[error(transparent)]
    NotMade(#[from] Box<ConnectError>),
    /// By this side, in good order.
    #[error("disconnected as asked")]
    AsAsked,
    /// By this side: another attempt took its place.
    #[error("given up for a new connection")]
    Replaced,
    /// By the peer: restart, takeover by the same client id, or something that it refuses.
    #[error("MQTT broker {0} closed the connection")]
    ByPeer(Endpoint),
    /// By the network.
    #[error("connection to MQTT broker {endpoint} broke")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// The system's words.
        source: Arc<io::Error>,
    },
    /// Nothing came back within half a keep-alive of a PINGREQ: half open (MQTT 3.1.1, section 3.1.2.10).
    #[error("MQTT broker {endpoint} did not answer a ping within {within:?}")]
    Silent {
        /// Where.
        endpoint: Endpoint,
        /// The bound.
        within: Duration,
    },
    /// A packet that breaks MQTT 3.1.1.
    #[error("MQTT broker {endpoint} broke the protocol: {what}")]
    Protocol {
        /// Where.
        endpoint: Endpoint,
        /// What came.
        what: String,
    },
    /// SUBACK 0x80, or a delivery quality below the one asked for (MQTT 3.1.1, section 3.9.3).
    #[error("MQTT broker {endpoint} refused the subscription to {filter:?}")]
    SubscriptionRefused {
        /// Where.
        endpoint: Endpoint,
        /// The first filter that was refused.
        filter: String,
    },
    /// The peer takes so little that more than [`super::MAX_OUTGOING_BYTES`] would wait for it.
    #[error("MQTT broker {endpoint} takes too little: {waiting} bytes wait to be sent")]
    Overrun {
        /// Where.
        endpoint: Endpoint,
        /// How much waits.
        waiting: usize,
    },
    /// This side tried to send what MQTT cannot carry.
    #[error("message to MQTT broker {endpoint} cannot be sent: {what}")]
    Unsendable {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        what: String,
    },
}

fn credentials_of(user: &str) -> String {
    match user {
        "" => "a client without a user name".to_owned(),
        user => format!("the credentials of user {user:?}"),
    }
}
