//! Dead letters: what cannot be decoded or stored, with where it came from and why.
//!
//! Source topic, partition and offset are the letter's identity, so a repeat is harmless. Key and value are cut at
//! [`MAX_BYTES`]: a letter must not be refused for the size that may be what made it one.

use bytes::Bytes;

use crate::{bridge::OutgoingRecord, event::kafka_topic, time::Wall};

/// Longest key and longest value of a dead letter.
pub const MAX_BYTES: usize = 64 * 1024;

/// Longest text in a header: topics of MQTT may have 64 KiB, and a store's words any length.
const MAX_HEADER_CHARS: usize = 500;

/// Names of the headers.
pub mod header {
    /// One word: [`crate::event::Poison::reason`], `kafka` or `store`.
    pub const REASON: &str = "reason";
    /// The same for a human.
    pub const DETAIL: &str = "detail";
    /// MQTT topic of a message, Kafka topic of a record.
    pub const SOURCE_TOPIC: &str = "source-topic";
    /// Kafka partition of a record.
    pub const SOURCE_PARTITION: &str = "source-partition";
    /// Kafka offset of a record.
    pub const SOURCE_OFFSET: &str = "source-offset";
    /// The bridge that got the message.
    pub const BRIDGE: &str = "bridge";
    /// Bytes that the value had before it was cut.
    pub const VALUE_BYTES: &str = "value-bytes";
}

/// Where a dead letter comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// An MQTT message that a bridge got.
    Message {
        /// Its topic.
        topic: &'a str,
        /// Id of the bridge.
        bridge: &'a str,
    },
    /// A Kafka record.
    Record {
        /// Its topic.
        topic: &'a str,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
}

/// What a dead letter says besides where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter<'a> {
    /// One word for metrics.
    pub reason: &'a str,
    /// The same for a human.
    pub detail: &'a str,
    /// Key of the source.
    pub key: &'a Bytes,
    /// Value of the source.
    pub value: &'a Bytes,
    /// Receive time of the source at the bridge.
    pub received: Wall,
}

/// The record to store in the dead-letter topic.
#[must_use]
pub fn dead_letter(source: Source<'_>, letter: &Letter<'_>) -> OutgoingRecord {
    let mut headers = vec![
        (header::REASON, ascii(letter.reason)),
        (header::DETAIL, ascii(letter.detail)),
        (header::VALUE_BYTES, letter.value.len().to_string()),
    ];
    match source {
        Source::Message { topic, bridge } => {
            headers.push((header::SOURCE_TOPIC, ascii(topic)));
            headers.push((header::BRIDGE, ascii(bridge)));
        }
        Source::Record { topic, partition, offset } => {
            headers.push((header::SOURCE_TOPIC, ascii(topic)));
            headers.push((header::SOURCE_PARTITION, partition.to_string()));
            headers.push((header::SOURCE_OFFSET, offset.to_string()));
        }
    }
    OutgoingRecord {
        topic: kafka_topic::DEAD_LETTER,
        key: cut(letter.key),
        value: cut(letter.value),
        timestamp: letter.received,
        headers,
    }
}

fn cut(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len().min(MAX_BYTES))
}

fn ascii(text: &str) -> String {
    text.chars().take(MAX_HEADER_CHARS).map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of<'a>(record: &'a OutgoingRecord, name: &str) -> Option<&'a str> {
        record.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_letter_of_a_record_names_its_source_and_cuts_its_value_at_64_kib() {
        let (key, value) = (Bytes::from_static(b"a/b"), Bytes::from(vec![7; MAX_BYTES + 1]));
        let letter = Letter { reason: "json", detail: "n\u{f6}\n", key: &key, value: &value, received: Wall(5) };
        let record = dead_letter(Source::Record { topic: "dmp.events", partition: 3, offset: 9 }, &letter);
        assert_eq!(record.topic, "dmp.dead-letter");
        assert_eq!((record.key.as_ref(), record.value.len(), record.timestamp), (&b"a/b"[..], MAX_BYTES, Wall(5)));
        let expected = [
            (header::REASON, "json"),
            (header::DETAIL, "n??"),
            (header::VALUE_BYTES, "65537"),
            (header::SOURCE_TOPIC, "dmp.events"),
            (header::SOURCE_PARTITION, "3"),
            (header::SOURCE_OFFSET, "9"),
        ];
        for (name, value) in expected {
            assert_eq!(value_of(&record, name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_letter_of_a_message_names_its_topic_and_bridge_in_bounded_ascii() {
        let (key, value) = (Bytes::new(), Bytes::new());
        let letter = Letter { reason: "topic", detail: "", key: &key, value: &value, received: Wall(5) };
        let topic = "\u{e9}".repeat(30_000);
        let record = dead_letter(Source::Message { topic: &topic, bridge: "b-1" }, &letter);
        assert_eq!(value_of(&record, header::SOURCE_TOPIC).map(str::len), Some(MAX_HEADER_CHARS));
        assert_eq!(value_of(&record, header::BRIDGE), Some("b-1"));
        assert_eq!(value_of(&record, header::SOURCE_OFFSET), None);
    }
}
