//! What a broker remembers of a client: its session, its will, and what is retained.

use dmp_core::{
    agent::Message,
    core::Publication,
    event::{Presence, PresenceState, Topic},
    id::{Epoch, Rae, Seq},
};
use dmp_service::mqtt::{Closed, ConnectOptions};

use super::{
    Bench,
    peer::{Peer, clean, persistent, publication},
    pipeline::rows,
};

const STATUS: &str = "dmp/v1/s00/RAE-1/status";

fn status(payload: &'static str) -> Publication {
    Publication { retain: true, ..publication(STATUS, payload) }
}

fn with_will(client_id: &str, payload: &'static str) -> ConnectOptions {
    ConnectOptions { will: Some(status(payload)), ..clean(client_id) }
}

pub(super) async fn a_persistent_session_is_told_to_be_there_and_a_clean_one_never(bench: &Bench) {
    let (mut peer, present) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    assert!(!present, "the first time");
    peer.subscribe("a/b").await;
    peer.disconnect().await;
    assert!(peer.connect(persistent("bridge")).await, "after a good end");
    assert!(peer.connect(persistent("bridge")).await, "after a break");
    assert!(!peer.connect(clean("bridge")).await, "a clean one begins with nothing");
    peer.disconnect().await;
    assert!(!peer.connect(persistent("bridge")).await, "and has removed what there was");
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    writer.publish(&publication("a/b", "x")).await;
    // A subscription of the old session would have brought it before this.
    peer.subscribe("barrier").await;
}

pub(super) async fn a_second_connection_of_the_same_client_id_takes_over_and_loses_nothing(bench: &Bench) {
    let (mut first, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    first.subscribe("a/#").await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("writer")).await;
    writer.publish(&publication("a/b", "one")).await;
    assert_eq!(first.message().await.payload, "one");
    let (mut second, session_present) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    assert!(session_present);
    assert!(matches!(first.closed().await, Closed::ByPeer(_) | Closed::Broken { .. }));
    writer.publish(&publication("a/b", "two")).await;
    for payload in ["one", "two"] {
        let message = second.message().await;
        assert_eq!(message.payload, payload);
        second.acknowledge(&message);
    }
}

pub(super) async fn a_session_that_is_away_gets_everything_when_it_comes_back(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe("a/b").await;
    reader.disconnect().await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    // Far more than a broker that has a limit keeps by default.
    for number in 0..2_000u32 {
        writer.publish(&publication("a/b", number.to_be_bytes().to_vec())).await;
    }
    assert!(reader.connect(persistent("bridge")).await);
    for number in 0..2_000u32 {
        let message = reader.message().await;
        assert_eq!(message.payload, &number.to_be_bytes()[..]);
        reader.acknowledge(&message);
    }
}

pub(super) async fn the_will_is_published_when_a_client_vanishes_and_not_when_it_says_goodbye(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, clean("reader")).await;
    reader.subscribe("dmp/v1/+/+/status").await;
    let (mut polite, _) = Peer::connected(&bench.dialer, with_will("RAE-polite", "polite offline")).await;
    polite.disconnect().await;
    let (crashed, _) = Peer::connected(&bench.dialer, with_will("RAE-crashed", "crashed offline")).await;
    drop(crashed);
    let message = reader.message().await;
    assert_eq!(message.payload, "crashed offline");
    assert!(!message.retain, "to who has subscribed before it is news");
}

pub(super) async fn a_will_is_retained_in_place_of_the_status_before_it(bench: &Bench) {
    let (mut rae, _) = Peer::connected(&bench.dialer, with_will("RAE-1", "offline")).await;
    let (mut reader, _) = Peer::connected(&bench.dialer, clean("reader")).await;
    reader.subscribe(STATUS).await;
    rae.publish(&status("online")).await;
    assert_eq!(reader.message().await.payload, "online");
    drop(rae);
    assert_eq!(reader.message().await.payload, "offline");
    let (mut later, _) = Peer::connected(&bench.dialer, clean("later")).await;
    later.subscribe(STATUS).await;
    let message = later.message().await;
    assert_eq!((message.payload.as_ref(), message.retain), (b"offline".as_slice(), true));
}

pub(super) async fn the_newest_retained_message_is_replayed_to_who_subscribes_until_an_empty_one_removes_it(
    bench: &Bench,
) {
    let (mut rae, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    for boot in ["boot 6", "boot 7"] {
        rae.publish(&status(boot)).await;
    }
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    // The second time as the bridge does at each connection, though the session has the subscription.
    for is_replayed in [true, bench.product.replays_to_who_has_subscribed] {
        reader.subscribe("dmp/v1/+/+/status").await;
        if is_replayed {
            let message = reader.message().await;
            assert_eq!((message.payload.as_ref(), message.retain), (b"boot 7".as_slice(), true));
            reader.acknowledge(&message);
        }
        // In good order, so that the acknowledgement has arrived.
        reader.disconnect().await;
        reader.connect(persistent("bridge")).await;
    }
    rae.publish(&status("")).await;
    assert_eq!(reader.message().await.payload, "", "and nothing else before it");
    let (mut later, _) = Peer::connected(&bench.dialer, clean("later")).await;
    later.subscribe(STATUS).await;
    // What is retained would have come before this.
    later.subscribe("barrier").await;
}

/// More than either product's window towards a subscriber could hide.
const RAES: usize = 150;

pub(super) async fn a_replay_may_be_cut_short_and_tells_who_was_there_before_nothing_new(bench: &Bench) {
    let (mut bridge, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    bridge.subscribe("dmp/v1/+/+/status").await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("writer")).await;
    let mut live: Vec<Message> = Vec::new();
    for number in 0..RAES {
        let rae = Rae::try_from(format!("RAE-{number}").as_str()).expect("a serial");
        let presence = Presence {
            boot: Epoch::try_from(7).expect("an epoch"),
            connection: Seq::try_from(1).expect("a counter"),
            state: PresenceState::Online,
        };
        let topic = Topic::Status(rae).to_string();
        writer.publish(&Publication { retain: true, ..publication(&topic, presence.encode()) }).await;
        let message = bridge.message().await;
        assert!(!message.retain, "to who has subscribed before it is news");
        bridge.acknowledge(&message);
        live.push(message);
    }
    let (mut later, _) = Peer::connected(&bench.dialer, persistent("later")).await;
    later.subscribe("dmp/v1/+/+/status").await;
    let mut replayed = Vec::new();
    for _ in 0..RAES.min(bench.product.replays) {
        let message = later.message().await;
        assert!(message.retain);
        later.acknowledge(&message);
        replayed.push(message);
    }
    // What else it would replay comes before this.
    later.subscribe("barrier").await;
    let all: Vec<Message> = live.iter().chain(&replayed).cloned().collect();
    assert_eq!(rows(&all), rows(&live));
    assert_eq!(rows(&live).raes.len(), RAES);
}
