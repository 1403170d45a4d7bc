//! The shape that agent, bridge and registry share: events in, effects out, one deadline.
//!
//! An effect that needs an answer carries an id; its answer comes back later as an event, and "unknown" is one of the
//! answers. A driver carries effects out in the order in which they were emitted.

use crate::time::{Mono, Now};

/// A state machine without I/O.
pub trait Core {
    /// What happened outside.
    type Event;
    /// What the core wants done.
    type Effect;

    /// Takes one event; appends what follows from it to `effects`.
    fn handle(&mut self, now: Now, event: Self::Event, effects: &mut Vec<Self::Effect>);

    /// Takes the passing of time; to be called at or after [`Core::deadline`]. Calling it early is harmless.
    fn wake(&mut self, now: Now, effects: &mut Vec<Self::Effect>);

    /// When [`Core::wake`] wants to be called next; `None` where nothing is waiting on time.
    fn deadline(&self) -> Option<Mono>;
}

/// Ties an answer to the effect that asked for it. Unique within one life of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub u64);

/// One connection attempt to the MQTT broker; rises with each attempt within one life of a core.
///
/// Every event of a connection carries it, so that an answer of a connection that is gone is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// An MQTT packet id, 1 to 65,535 (MQTT 3.1.1, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub u16);

/// MQTT delivery quality. QoS 2 is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum Qos {
    /// At most once: no acknowledgement, lost with the connection.
    #[serde(rename = "0")]
    AtMostOnce,
    /// At least once: resent until acknowledged.
    #[default]
    #[serde(rename = "1")]
    AtLeastOnce,
}

/// An MQTT message on its way to the broker: also the form of a last will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Topic name, without wildcards.
    pub topic: std::sync::Arc<str>,
    /// Payload.
    pub payload: bytes::Bytes,
    /// Delivery quality.
    pub qos: Qos,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}
