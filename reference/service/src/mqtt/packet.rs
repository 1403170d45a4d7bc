//! Packets as the rest of this crate sees them, over the codec of `rumqttc`.
//!
//! The codec truncates lengths above 65,535 in its string fields and leaves the buffer half written when it fails, so
//! what is sent is checked before it gets there.

use std::sync::Arc;

use bytes::BytesMut;
use dmp_core::{
    agent::Message,
    core::{PacketId, Publication, Qos},
};
use rumqttc::mqttbytes::{
    self, QoS,
    v4::{Connect, LastWill, Login, Packet, PubAck, Publish, Subscribe, SubscribeFilter, SubscribeReasonCode},
};

use super::{Closed, ConnectOptions, oversize::Excess};

/// Largest packet that is sent, or taken whole: four times the payload limit, so that a payload above the limit arrives
/// where it is refused by name. Of a larger message the beginning arrives, more than the payload limit allows.
pub const MAX_PACKET_BYTES: usize = 4 * dmp_core::event::MAX_PAYLOAD_BYTES;

/// Longest string or binary field (MQTT 3.1.1, section 1.5.3).
const MAX_FIELD_BYTES: usize = u16::MAX as usize;

/// What happens on a connection, in this order: `Connected` at most once, `Closed` exactly once, at the end.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// The broker accepted the connection.
    Connected {
        /// Whether it still had the session.
        session_present: bool,
    },
    /// The broker acknowledged a QoS 1 publish.
    Acknowledged(PacketId),
    /// The broker granted a subscription as asked.
    Subscribed(PacketId),
    /// A message arrived; to be acknowledged, in the order of arrival, if it has a packet id.
    Message(Message),
    /// The connection ended, or could not be made.
    Closed(Closed),
}

/// Takes the next packet out of `buffer`, cut if it is too large; `None` if it is not complete yet.
pub(super) fn decode(buffer: &mut BytesMut, excess: &mut Excess) -> Result<Option<Packet>, String> {
    excess.discard(buffer);
    match Packet::read(buffer, MAX_PACKET_BYTES) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(mqttbytes::Error::PayloadSizeLimitExceeded(_)) => Ok(excess.cut(buffer)?.map(Packet::Publish)),
        Err(error) => Err(format!("a packet that cannot be read ({error})")),
    }
}

/// A message of a PUBLISH packet; QoS 2 is never subscribed to.
pub(super) fn message(publish: Publish) -> Result<Message, String> {
    let packet = match publish.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => Some(PacketId(publish.pkid)),
        QoS::ExactlyOnce => return Err("a message of QoS 2, which was not subscribed to".into()),
    };
    Ok(Message {
        topic: Arc::from(publish.topic),
        payload: publish.payload,
        packet,
        dup: publish.dup,
        retain: publish.retain,
    })
}

/// Whether each of `asked` filters was granted QoS 1; else the first that was not.
pub(super) fn granted(asked: &[String], codes: &[SubscribeReasonCode]) -> Result<(), Option<String>> {
    if asked.len() != codes.len() {
        return Err(None);
    }
    let refused = asked.iter().zip(codes).find(|(_, code)| match code {
        SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce) => false,
        SubscribeReasonCode::Success(QoS::AtMostOnce) | SubscribeReasonCode::Failure => true,
    });
    refused.map_or(Ok(()), |(filter, _)| Err(Some(filter.clone())))
}

/// Appends a PUBLISH. The packet id decides the delivery quality: with one QoS 1, without QoS 0.
pub(super) fn publish(
    buffer: &mut BytesMut,
    packet: Option<PacketId>,
    dup: bool,
    message: &Publication,
) -> Result<(), String> {
    if message.topic.is_empty() || message.topic.len() > MAX_FIELD_BYTES || mqttbytes::has_wildcards(&message.topic) {
        return Err(format!("topic {:?} is empty, too long or has wildcards", message.topic));
    }
    let publish = Publish {
        dup,
        qos: packet.map_or(QoS::AtMostOnce, |_| QoS::AtLeastOnce),
        retain: message.retain,
        topic: String::from(&*message.topic),
        pkid: packet.map_or(0, |packet| packet.0),
        payload: message.payload.clone(),
    };
    append(buffer, Packet::Publish(publish))
}

/// Appends a SUBSCRIBE at QoS 1.
pub(super) fn subscribe(buffer: &mut BytesMut, packet: PacketId, filters: &[String]) -> Result<(), String> {
    if let Some(filter) = filters.iter().find(|f| f.len() > MAX_FIELD_BYTES || !mqttbytes::valid_filter(f)) {
        return Err(format!("topic filter {filter:?} is not valid"));
    }
    if filters.is_empty() {
        return Err("a subscription without topic filters".into());
    }
    let filters = filters.iter().map(|path| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce));
    let mut subscribe = Subscribe::new_many(filters);
    subscribe.pkid = packet.0;
    append(buffer, Packet::Subscribe(subscribe))
}

/// Appends a PUBACK.
pub(super) fn acknowledge(buffer: &mut BytesMut, packet: PacketId) -> Result<(), String> {
    append(buffer, Packet::PubAck(PubAck::new(packet.0)))
}

/// Appends a packet that has no content.
pub(super) fn append(buffer: &mut BytesMut, packet: Packet) -> Result<(), String> {
    packet.write(buffer, MAX_PACKET_BYTES).map(drop).map_err(|error| error.to_string())
}

/// The CONNECT packet of these options (MQTT 3.1.1, section 3.1).
pub(super) fn connect(options: &ConnectOptions) -> Result<BytesMut, &'static str> {
    if options.client_id.len() > MAX_FIELD_BYTES || (options.client_id.is_empty() && !options.clean_session) {
        return Err("the client id is too long, or empty with a persistent session");
    }
    let mut connect = Connect::new(&*options.client_id);
    connect.clean_session = options.clean_session;
    connect.keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
    connect.last_will = options.will.as_ref().map(last_will).transpose()?;
    if let Some(credentials) = &options.credentials {
        let password = credentials.password.as_ref().map_or("", |password| password.expose());
        if credentials.user.is_empty() || credentials.user.len().max(password.len()) > MAX_FIELD_BYTES {
            return Err("user name or password is too long, or the user name is empty");
        }
        connect.login = Some(Login::new(credentials.user.as_str(), password));
    }
    let mut buffer = BytesMut::with_capacity(connect.size());
    connect.write(&mut buffer).map_err(|_| "the CONNECT packet is too long")?;
    Ok(buffer)
}

fn last_will(will: &Publication) -> Result<LastWill, &'static str> {
    if will.topic.is_empty() || will.topic.len() > MAX_FIELD_BYTES || will.payload.len() > MAX_FIELD_BYTES {
        return Err("the will's topic or payload is too long, or its topic empty");
    }
    Ok(LastWill {
        topic: String::from(&*will.topic),
        message: will.payload.clone(),
        qos: match will.qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
        },
        retain: will.retain,
    })
}
