//! Messages that can never be applied: of every kind that the wire contract knows, and the one that only a store refuses.

use dmp_core::{
    event::{AttributeName, Body, StateEvent, Topic, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::Wall,
};
use rand::RngExt;
use uuid::Uuid;

use crate::{random::stream, scenario::PoisonKind};

/// A poison message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoisonMessage {
    /// Its MQTT topic: a session of its own, of a RAE of the fleet.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Characters of the value that no store takes: above the store's limit of 64 KiB, below the payload's of 256 KiB.
const REFUSED_VALUE_BYTES: usize = 80 * 1024;

/// Poison message number `number` of fault number `fault`.
#[must_use]
pub fn poison(seed: u64, fault: usize, number: u32, kind: PoisonKind, rae: &Rae, now: Wall) -> PoisonMessage {
    let mut rng = stream(seed, &format!("poison {fault}"), u64::from(number));
    let session = Session(Uuid::from_u128(rng.random()));
    let topic = Topic::State(rae.clone(), session).to_string();
    let payload = match kind {
        PoisonKind::Undecodable => undecodable(number),
        PoisonKind::RefusedByStore => refused_by_store(rae, session, number, now),
    };
    PoisonMessage { topic, payload }
}

/// Each kind of poison in turn, made unique by `number`.
fn undecodable(number: u32) -> Vec<u8> {
    let device = "2f1c9a52-0000-5000-8000-000000000000";
    let event = |rest: &str| {
        format!(
            r#"{{"v":1,"kind":"delta","device":"{device}","epoch":1,"seq":1,"at":"2026-01-01T00:00:00.000Z","n":{number}{rest}}}"#
        )
    };
    let text = match number % 10 {
        0 => format!("not json {number}"),
        1 => format!(r#"{{"v":2,"kind":"delta","n":{number}}}"#),
        2 => format!(r#"{{"v":1,"kind":"gossip","n":{number}}}"#),
        3 => event(r#","set":{"x":null}"#),
        4 => event(r#","set":{"x":"a\u0000b"}"#),
        5 => event(r#","set":{"x":18446744073709551615}"#),
        6 => event(r#","set":{"Not A Name":1}"#),
        7 => event(r#","set":{"x":1},"unset":["x"]"#),
        8 => event("").replace(r#""seq":1"#, r#""seq":0"#),
        _ => event("").replace(device, "no-uuid"),
    };
    text.into_bytes()
}

/// A snapshot that decodes, of a device outside the plan, with one value above the column's limit.
fn refused_by_store(rae: &Rae, session: Session, number: u32, now: Wall) -> Vec<u8> {
    let name = AttributeName::try_from("dump").expect("valid by hand");
    let word = format!("{number} ");
    let value = Value::Text(word.repeat(REFUSED_VALUE_BYTES / word.len()).into());
    let event = StateEvent {
        rae: rae.clone(),
        device: Device::of_hardware(&format!("POISON-{number}")),
        version: Version { epoch: Epoch::after(None, now), session, seq: Seq::FIRST },
        at: now,
        body: Body::Snapshot { attributes: [(name, (value, Seq::FIRST))].into() },
    };
    event.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmp_core::event::decode;

    #[test]
    fn undecodable_poison_never_decodes_and_refused_poison_does() {
        let rae = Rae::try_from("RAE-0000001").unwrap();
        for number in 0..40 {
            let message = poison(7, 0, number, PoisonKind::Undecodable, &rae, Wall(0));
            assert!(decode(&message.topic, &message.payload).is_err(), "{number}");
            let message = poison(7, 0, number, PoisonKind::RefusedByStore, &rae, Wall(0));
            decode(&message.topic, &message.payload).unwrap();
        }
    }
}
