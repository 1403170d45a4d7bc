//! What becomes of a message: order, quality, repetition, limits.

use std::{collections::VecDeque, time::Duration};

use dmp_core::{
    agent::Message,
    core::{Publication, Qos},
    event::{MAX_PAYLOAD_BYTES, StateEvent, kafka_topic},
};
use dmp_service::mqtt::{Closed, ConnectOptions, Incoming};
use rumqttc::mqttbytes::{
    QoS,
    v4::{Packet, PubRel, Publish},
};

use super::{
    Bench,
    peer::{Foreign, Peer, clean, persistent, publication},
    pipeline::{bridged, events, rows},
};

const STATE: &str = "dmp/v1/+/+/+/state";

fn of(event: &StateEvent) -> Publication {
    publication(&event.topic().to_string(), event.encode())
}

pub(super) async fn messages_arrive_in_the_order_of_publishing_up_to_the_payload_limit(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe(STATE).await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    for round in 0..500u32 {
        writer.publish(&publication("dmp/v1/s00/RAE-1/a/state", round.to_be_bytes().to_vec())).await;
    }
    for round in 0..500u32 {
        let message = reader.message().await;
        assert_eq!(message.payload, &round.to_be_bytes()[..]);
        assert!(!message.dup && !message.retain);
        reader.acknowledge(&message);
    }
    let largest = vec![b'x'; MAX_PAYLOAD_BYTES];
    writer.publish(&publication("dmp/v1/s00/RAE-1/a/state", largest.clone())).await;
    assert_eq!(reader.message().await.payload, largest);
}

pub(super) async fn what_is_not_acknowledged_comes_again_in_order_marked_or_not_and_ends_in_the_same_rows(
    bench: &Bench,
) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe(STATE).await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    let events = events("RAE-1", 13);
    for event in &events[..10] {
        writer.publish(&of(event)).await;
    }
    let mut first = Vec::new();
    for event in &events[..10] {
        let message = reader.message().await;
        assert_eq!(message.payload, event.encode());
        if first.len() < 4 {
            reader.acknowledge(&message);
        }
        first.push(message);
    }
    // In good order, so that the four acknowledgements have arrived.
    reader.disconnect().await;
    for event in &events[10..] {
        writer.publish(&of(event)).await;
    }
    assert!(reader.connect(persistent("bridge")).await, "the session is still there");
    let mut again = Vec::new();
    for (number, event) in events.iter().enumerate().skip(4) {
        let message = reader.message().await;
        assert_eq!(message.payload, event.encode());
        // MQTT 3.1.1 (section 3.3.1.1) has a broker mark what it sends again.
        assert_eq!(message.dup, bench.product.marks_what_it_sends_again && number < 10, "message {number}");
        reader.acknowledge(&message);
        again.push(message);
    }

    // Repeated, and with the mark as either product has it: nothing is left of the difference but a header.
    let once: Vec<Message> = first.iter().chain(&again[6..]).cloned().collect();
    let all: Vec<Message> = first.iter().chain(&again).cloned().collect();
    let with_mark = |dup| all.iter().map(|message| Message { dup, ..message.clone() }).collect::<Vec<_>>();
    for messages in [all.clone(), with_mark(false), with_mark(true)] {
        assert_eq!(rows(&messages), rows(&once));
    }
    let unmarked = |messages: &[Message]| {
        let (mut records, acknowledged) = bridged(messages);
        records.iter_mut().for_each(|record| record.headers.retain(|(name, _)| *name != "mqtt-dup"));
        (records, acknowledged)
    };
    assert_eq!(unmarked(&with_mark(true)), unmarked(&with_mark(false)));
}

pub(super) async fn a_publisher_that_sends_again_is_heard_twice_marked_or_not_and_ends_in_the_same_rows(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe(STATE).await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    let event = &events("RAE-1", 1)[0];
    let message = of(event);
    let packet = writer.send(&message);
    writer.acknowledged(packet).await;
    // Its acknowledgement might have been lost: the agent sends it again, and the log has it twice.
    writer.client.publish(writer.connection, Some(packet), true, &message);
    writer.acknowledged(packet).await;
    let mut copies = Vec::new();
    for number in 0..2 {
        let message = reader.message().await;
        assert_eq!(message.payload, event.encode());
        // MQTT 3.1.1 (section 3.3.1.1) has a broker not pass it on.
        assert_eq!(message.dup, bench.product.passes_on_a_publishers_mark && number == 1, "copy {number}");
        reader.acknowledge(&message);
        copies.push(message);
    }
    assert_eq!(rows(&copies), rows(&copies[..1]));
}

pub(super) async fn quality_0_arrives_raised_or_not_and_ends_in_the_same_rows(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe(STATE).await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    let events = events("RAE-1", 3);
    let mut arrived = Vec::new();
    for event in &events {
        let message = Publication { qos: Qos::AtMostOnce, ..of(event) };
        writer.client.publish(writer.connection, None, false, &message);
        // Sends; and is answered, while the message itself is not.
        writer.publish(&publication("nobody/listens", "")).await;
        let message = reader.message().await;
        assert_eq!(message.payload, event.encode());
        // MQTT 3.1.1 (section 3.8.4) has the lower of the two qualities.
        assert_eq!(message.packet.is_some(), bench.product.raises_quality_0);
        if message.packet.is_some() {
            reader.acknowledge(&message);
        }
        arrived.push(message);
    }
    let lowered: Vec<Message> = arrived.iter().map(|message| Message { packet: None, ..message.clone() }).collect();
    assert_eq!(rows(&arrived), rows(&lowered));
    let packets: Vec<_> = arrived.iter().filter_map(|message| message.packet).collect();
    assert_eq!(bridged(&arrived).1, packets, "what can be acknowledged is");
    assert_eq!(bridged(&lowered).1, []);
}

pub(super) async fn quality_2_arrives_once_at_the_quality_of_the_subscription(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe("a/b").await;
    let mut foreign = Foreign::connected(&bench.endpoint, "foreign").await;
    let mut publish = Publish::new("a/b", QoS::ExactlyOnce, "x");
    publish.pkid = 7;
    foreign.send(Packet::Publish(publish)).await;
    let answer = foreign.next().await;
    assert!(matches!(&answer, Some(Packet::PubRec(received)) if received.pkid == 7), "{answer:?}");
    foreign.send(Packet::PubRel(PubRel::new(7))).await;
    let answer = foreign.next().await;
    assert!(matches!(&answer, Some(Packet::PubComp(completed)) if completed.pkid == 7), "{answer:?}");
    let message = reader.message().await;
    assert_eq!(message.payload, "x");
    reader.acknowledge(&message);
    // Whatever may still come has come before this.
    reader.subscribe("barrier").await;
}

pub(super) async fn what_nobody_subscribes_to_is_acknowledged_and_gone(bench: &Bench) {
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    writer.publish(&publication("a/b", "early")).await;
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe("a/b").await;
    writer.publish(&publication("a/b", "late")).await;
    assert_eq!(reader.message().await.payload, "late");
}

pub(super) async fn who_acknowledges_nothing_gets_one_window_and_later_all_in_order(bench: &Bench) {
    // A ping each three seconds: a broker that does not answer is given up after six.
    let bridge = ConnectOptions { keep_alive: Duration::from_secs(6), ..persistent("bridge") };
    let (mut reader, _) = Peer::connected(&bench.dialer, bridge.clone()).await;
    reader.subscribe("a/b").await;
    reader.disconnect().await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    for number in 0..1_200u32 {
        writer.publish(&publication("a/b", number.to_be_bytes().to_vec())).await;
    }
    reader.connect(bridge).await;
    let mut held = window(bench, &mut reader).await;
    // Whatever else it would send now comes before this.
    let barrier = reader.ask("barrier");
    match reader.event().await.1 {
        Incoming::Subscribed(packet) if bench.product.answers_in_a_full_window => assert_eq!(packet, barrier),
        // Nothing was acknowledged, so nothing is lost: it begins again with the same, in a window that stays full.
        Incoming::Closed(Closed::Silent { .. }) if !bench.product.answers_in_a_full_window => {
            assert!(reader.connect(persistent("bridge")).await, "the session is still there");
            held = window(bench, &mut reader).await;
        }
        other => panic!("{other:?}"),
    }
    for number in bench.product.window..1_200 {
        reader.acknowledge(&held.pop_front().expect("a window of them"));
        let message = reader.message().await;
        assert_eq!(message.payload, &number.to_be_bytes()[..]);
        held.push_back(message);
    }
}

/// The first messages, as many as are sent to who acknowledges none.
async fn window(bench: &Bench, reader: &mut Peer) -> VecDeque<Message> {
    let mut held = VecDeque::new();
    for number in 0..bench.product.window {
        let message = reader.message().await;
        assert_eq!(message.payload, &number.to_be_bytes()[..]);
        held.push_back(message);
    }
    held
}

pub(super) async fn what_is_queued_before_a_disconnect_arrives(bench: &Bench) {
    let (mut reader, _) = Peer::connected(&bench.dialer, clean("reader")).await;
    reader.subscribe("last/words").await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("writer")).await;
    for round in 0..20u8 {
        writer.send(&publication("last/words", vec![round; 10_000]));
    }
    writer.disconnect().await;
    for round in 0..20u8 {
        assert_eq!(reader.message().await.payload[0], round);
    }
}

pub(super) async fn a_payload_above_the_limit_ends_as_a_dead_letter_or_at_the_broker_and_harms_no_neighbour(
    bench: &Bench,
) {
    let (mut reader, _) = Peer::connected(&bench.dialer, persistent("bridge")).await;
    reader.subscribe("a/b").await;
    let (mut writer, _) = Peer::connected(&bench.dialer, clean("RAE-1")).await;
    for payload_bytes in [MAX_PAYLOAD_BYTES + 1, 2 * MAX_PAYLOAD_BYTES + 1, 3 << 20] {
        let mut foreign = Foreign::connected(&bench.endpoint, "foreign").await;
        let mut publish = Publish::new("a/b", QoS::AtLeastOnce, vec![b'x'; payload_bytes]);
        publish.pkid = 1;
        foreign.send(Packet::Publish(publish)).await;
        let answer = foreign.next().await;
        let is_taken = payload_bytes < bench.product.largest_packet_bytes;
        assert_eq!(matches!(answer, Some(Packet::PubAck(_))), is_taken, "{payload_bytes}: {answer:?}");
        if is_taken {
            let message = reader.message().await;
            assert!(message.payload.len() > MAX_PAYLOAD_BYTES);
            reader.acknowledge(&message);
            let (records, acknowledged) = bridged(&[message]);
            let topics: Vec<_> = records.iter().map(|record| record.topic).collect();
            assert_eq!((topics.as_slice(), acknowledged.len()), ([kafka_topic::DEAD_LETTER].as_slice(), 1));
        }
        writer.publish(&publication("a/b", "neighbour")).await;
        let message = reader.message().await;
        assert_eq!(message.payload, "neighbour");
        reader.acknowledge(&message);
    }
}

pub(super) async fn five_hundred_clients_that_come_at_once_all_get_in(bench: &Bench) {
    let mut peers = tokio::task::JoinSet::new();
    for rae in 0..500 {
        let dialer = bench.dialer.clone();
        peers.spawn(async move { Peer::connected(&dialer, clean(&format!("RAE-{rae}"))).await.0 });
    }
    let mut peers = peers.join_all().await;
    let last = peers.last_mut().expect("500 of them");
    last.publish(&publication("a/b", "x")).await;
    assert!(!matches!(last.client.waiting(), 1..), "and is served");
}
