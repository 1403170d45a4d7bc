//! Messages larger than a packet may be: delivered cut, instead of breaking the connection.
//!
//! A broker resends what was not acknowledged (MQTT 3.1.1, section 4.4), so a message that its reader cannot take would
//! end every connection of a persistent session for ever. What is left of it here is still above the payload limit:
//! whoever gets it refuses it by name, puts it aside and acknowledges it.

use bytes::{Buf, BufMut, BytesMut};
use dmp_core::event::MAX_PAYLOAD_BYTES;
use rumqttc::mqttbytes::v4::{Packet, Publish};

use super::MAX_PACKET_BYTES;

/// What is kept behind the fixed header: the longest topic, a packet id, and more payload than is allowed.
const KEPT_BYTES: usize = 2 + u16::MAX as usize + 2 + MAX_PAYLOAD_BYTES + 1;

/// Rest of a message that was cut, yet to be thrown away.
#[derive(Debug, Default)]
pub(super) struct Excess {
    bytes: usize,
}

impl Excess {
    /// Throws away what of the rest is in `buffer`.
    pub(super) fn discard(&mut self, buffer: &mut BytesMut) {
        let here = self.bytes.min(buffer.len());
        buffer.advance(here);
        self.bytes -= here;
    }

    /// Takes the beginning of a packet that exceeds [`MAX_PACKET_BYTES`]; `None` until enough of it is there.
    ///
    /// # Errors
    /// Where it is no PUBLISH: no other packet is ever that large.
    pub(super) fn cut(&mut self, buffer: &mut BytesMut) -> Result<Option<Publish>, String> {
        let Some((header, length)) = fixed_header(buffer) else { return Ok(None) };
        if buffer[0] >> 4 != 3 {
            return Err(format!("a packet of {length} bytes that is no message"));
        }
        if buffer.len() < header + KEPT_BYTES {
            return Ok(None);
        }
        let mut kept = BytesMut::with_capacity(5 + KEPT_BYTES);
        kept.put_u8(buffer[0]);
        put_length(&mut kept, KEPT_BYTES);
        kept.put_slice(&buffer[header..header + KEPT_BYTES]);
        buffer.advance(header + KEPT_BYTES);
        self.bytes = length - KEPT_BYTES;
        self.discard(buffer);
        match Packet::read(&mut kept, MAX_PACKET_BYTES) {
            Ok(Packet::Publish(publish)) => Ok(Some(publish)),
            Ok(other) => Err(format!("an unexpected packet: {other:?}")),
            Err(error) => Err(format!("a message that cannot be read ({error})")),
        }
    }
}

/// Lengths of the fixed header and of what follows it (MQTT 3.1.1, section 2.2).
fn fixed_header(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((index + 2, length));
        }
    }
    None
}

fn put_length(buffer: &mut BytesMut, mut length: usize) {
    while length > 0x7f {
        buffer.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    buffer.put_u8(length as u8);
}
