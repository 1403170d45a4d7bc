//! One small MQTT 3.1.1 client, for the fleet (thousands of connections), the agent and the bridge.
//!
//! ```text
//! Dialer (shared: where, TLS, how many at a time) -> Client (one a core) -> Connection (one a network connection)
//! ```
//!
//! It carries packets and keeps the connection alive, no more: what to resend, in which order, when to connect again
//! and what is a duplicate are the cores' business. Every event names its connection, so that an answer of one that is
//! gone is told apart. Everything is polled from the task that owns the [`Client`]; an idle connection holds no buffer.

mod client;
mod connection;
mod credentials;
mod dialer;
mod endpoint;
mod error;
mod oversize;
mod packet;
mod tls;

pub use client::Client;
pub use connection::MAX_OUTGOING_BYTES;
pub use credentials::{Credentials, Secret};
pub use dialer::{ConnectOptions, Dialer};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Closed, ConnectError};
pub use packet::{Incoming, MAX_PACKET_BYTES};
pub use tls::{ClientIdentity, TlsError, TlsSettings};
