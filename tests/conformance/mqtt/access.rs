//! What a user may do.

use dmp_core::{
    agent::Message,
    event::{StateEvent, Topic, commands_filter, decode},
    id::{Rae, Session},
};
use uuid::Uuid;

use super::{
    Bench,
    peer::{Peer, publication, user},
    pipeline::{events, rows},
};

/// The bridge's user, which may do everything below `dmp/v1`.
const BRIDGE: &str = "bridge";

fn rae(serial: &str) -> Rae {
    Rae::try_from(serial).expect("a serial")
}

fn command_to(serial: &str) -> String {
    Topic::Command(rae(serial), Session(Uuid::from_u128(1))).to_string()
}

/// Reads until the event that it knows to be the last.
async fn read_until(reader: &mut Peer, last: &StateEvent) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = reader.message().await;
        reader.acknowledge(&message);
        let is_last = message.payload == last.encode() && *message.topic == last.topic().to_string();
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

pub(super) async fn what_a_rae_says_and_hears_of_its_own_passes_with_access_lists_and_without(bench: &Bench) {
    let (mut bridge, _) = Peer::connected(&bench.dialer, user(BRIDGE)).await;
    bridge.subscribe("dmp/v1/+/+/+/state").await;
    let (mut honest, _) = Peer::connected(&bench.dialer, user("RAE-1")).await;
    honest.subscribe(&commands_filter(&rae("RAE-1"))).await;
    let events = events("RAE-1", 5);
    for event in &events {
        honest.publish(&publication(&event.topic().to_string(), event.encode())).await;
    }
    let arrived = read_until(&mut bridge, &events[4]).await;
    let said: Vec<_> = arrived.iter().map(|message| message.payload.clone()).collect();
    assert_eq!(said, events.iter().map(|event| event.encode().into()).collect::<Vec<bytes::Bytes>>());
    assert!(!rows(&arrived).is_empty());
    bridge.publish(&publication(&command_to("RAE-1"), "do")).await;
    assert_eq!(honest.message().await.payload, "do");
}

pub(super) async fn what_a_rae_says_for_another_is_kept_out_by_access_lists_alone(bench: &Bench) {
    let (mut bridge, _) = Peer::connected(&bench.dialer, user(BRIDGE)).await;
    bridge.subscribe("dmp/v1/+/+/+/state").await;
    let (mut forger, _) = Peer::connected(&bench.dialer, user("RAE-2")).await;
    let (forged, honest) = (&events("RAE-1", 1)[0], &events("RAE-2", 2)[1]);
    forger.send(&publication(&forged.topic().to_string(), forged.encode()));
    // Acknowledged or not, and whether the connection lives on, is the broker's own affair.
    if bench.product.has_access_lists {
        forger.client.disconnect(forger.connection);
        forger.closed().await;
        forger.connect(user("RAE-2")).await;
    }
    forger.send(&publication(&honest.topic().to_string(), honest.encode()));
    forger.client.disconnect(forger.connection);
    forger.closed().await;
    let arrived = read_until(&mut bridge, honest).await;
    let forgeries: Vec<&Message> = arrived.iter().filter(|of| *of.topic == forged.topic().to_string()).collect();
    assert_eq!(forgeries.len(), usize::from(!bench.product.has_access_lists));
    // Nothing behind the broker could tell: it is a good event, and would be stored.
    decode(&forged.topic().to_string(), &forged.encode()).expect("a good event");
}

pub(super) async fn what_is_said_to_another_rae_is_heard_only_without_access_lists(bench: &Bench) {
    let (mut spy, _) = Peer::connected(&bench.dialer, user("RAE-2")).await;
    // Granted by both, heard by one.
    spy.subscribe("dmp/v1/+/+/+/cmd").await;
    let (mut bridge, _) = Peer::connected(&bench.dialer, user(BRIDGE)).await;
    for serial in ["RAE-1", "RAE-2"] {
        bridge.publish(&publication(&command_to(serial), serial)).await;
    }
    let first = spy.message().await;
    let heard = if bench.product.has_access_lists { "RAE-2" } else { "RAE-1" };
    assert_eq!(first.payload, heard);
}
