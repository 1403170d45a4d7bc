//! Life of a connection: subscriptions, pings, back-pressure, and how it ends.

use std::time::Duration;

use dmp_core::{
    core::{ConnectionId, PacketId, Publication, Qos},
    event::MAX_PAYLOAD_BYTES,
};
use dmp_service::mqtt::{Closed, ConnectOptions, Incoming, MAX_OUTGOING_BYTES, MAX_PACKET_BYTES};
use rumqttc::mqttbytes::{
    QoS,
    v4::{ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode},
};
use tokio::io::AsyncWriteExt;

use crate::peer::{FIRST, Peer, connecting, dialer, event, listen, options, pair};

fn message(packet: u16, payload: impl Into<Vec<u8>>) -> Packet {
    let mut publish = Publish::new("a/b", QoS::AtLeastOnce, payload);
    publish.pkid = packet;
    Packet::Publish(publish)
}

fn publication(payload: Vec<u8>) -> Publication {
    Publication { topic: "a/b".into(), payload: payload.into(), qos: Qos::AtLeastOnce, retain: false }
}

fn impatient() -> ConnectOptions {
    ConnectOptions { keep_alive: Duration::from_secs(1), ..options() }
}

#[tokio::test]
async fn a_refused_subscription_ends_the_connection_and_names_the_filter() {
    for refusal in [SubscribeReasonCode::Failure, SubscribeReasonCode::Success(QoS::AtMostOnce)] {
        let (mut client, mut peer) = pair(options()).await;
        client.subscribe(FIRST, PacketId(7), vec!["good/#".into(), "bad/#".into()]);
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let serve = async {
            let packet = peer.packet().await;
            assert!(matches!(&packet, Some(Packet::Subscribe(s)) if s.pkid == 7 && s.filters.len() == 2), "{packet:?}");
            peer.send(Packet::SubAck(SubAck::new(7, vec![granted, refusal]))).await;
        };
        let (event, ()) = tokio::join!(event(&mut client), serve);
        let refused =
            matches!(&event, Incoming::Closed(Closed::SubscriptionRefused { filter, .. }) if filter == "bad/#");
        assert!(refused, "{event:?}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_given_up_though_it_takes_every_publish() {
    let (mut client, mut peer) = pair(impatient()).await;
    client.publish(FIRST, None, false, &publication(b"x".to_vec()));
    let read = async { while peer.packet().await.is_some() {} };
    let (event, ()) = tokio::join!(
        async {
            let event = event(&mut client).await;
            drop(client);
            event
        },
        read
    );
    assert!(matches!(event, Incoming::Closed(Closed::Silent { .. })), "{event:?}");
}

#[tokio::test]
async fn an_idle_connection_lives_on_answered_pings() {
    let (mut client, mut peer) = pair(impatient()).await;
    let serve = async {
        for _ in 0..4 {
            assert_eq!(peer.packet().await, Some(Packet::PingReq));
            peer.send(Packet::PingResp).await;
        }
        peer.send(message(1, "still here")).await;
    };
    let (event, ()) = tokio::join!(event(&mut client), serve);
    assert!(matches!(event, Incoming::Message(_)), "{event:?}");
}

#[tokio::test]
async fn a_paused_connection_pings_takes_nothing_and_is_not_taken_for_dead() {
    let (mut client, mut peer) = pair(impatient()).await;
    client.pause_reading(FIRST);
    let serve = async {
        peer.send(message(1, "one")).await;
        for _ in 0..4 {
            assert_eq!(peer.packet().await, Some(Packet::PingReq));
            peer.send(Packet::PingResp).await;
        }
    };
    tokio::select! {
        event = client.next() => panic!("{event:?} from a paused connection"),
        () = serve => {}
    }
    client.resume_reading(FIRST);
    assert!(matches!(event(&mut client).await, Incoming::Message(_)));
}

#[tokio::test]
async fn a_client_that_is_not_asked_for_events_stops_the_peer() {
    let (mut client, mut peer) = pair(options()).await;
    let mut packet = bytes::BytesMut::new();
    message(1, vec![b'x'; 100_000]).write(&mut packet, usize::MAX).expect("a packet");
    // The system's buffers take some; then there is nothing that takes more.
    let mut written = 0;
    let full = tokio::time::timeout(Duration::from_millis(500), async {
        for _ in 0..2_000 {
            peer.stream.write_all(&packet).await.expect("written");
            written += 1;
        }
    });
    assert!(full.await.is_err(), "200 MB went to a client that reads nothing");
    for _ in 0..written {
        assert!(matches!(event(&mut client).await, Incoming::Message(_)));
    }
}

#[tokio::test]
async fn what_waits_for_a_peer_that_does_not_read_is_bounded() {
    let (mut client, _peer) = pair(options()).await;
    let large = publication(vec![b'x'; 256 * 1024]);
    let mut sent = 0;
    let closed = loop {
        client.publish(FIRST, None, false, &large);
        sent += large.payload.len();
        assert!(client.waiting() <= MAX_OUTGOING_BYTES + large.payload.len() + 100);
        assert!(sent < 1 << 30, "a gigabyte went to a peer that reads nothing");
        if let Ok((_, event)) = tokio::time::timeout(Duration::ZERO, client.next()).await {
            break event;
        }
    };
    assert!(matches!(closed, Incoming::Closed(Closed::Overrun { .. })), "{closed:?}");
}

#[tokio::test]
async fn packets_that_break_the_protocol_end_the_connection() {
    let mut qos_2 = Publish::new("a/b", QoS::ExactlyOnce, "x");
    qos_2.pkid = 1;
    let stray = SubAck::new(3, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
    for packet in [Packet::Publish(qos_2), Packet::SubAck(stray), Packet::PingReq] {
        let (mut client, mut peer) = pair(options()).await;
        peer.send(packet).await;
        let event = event(&mut client).await;
        assert!(matches!(event, Incoming::Closed(Closed::Protocol { .. })), "{event:?}");
    }
    let (mut client, mut peer) = pair(options()).await;
    peer.stream.write_all(&[0x40, 0xff, 0xff, 0xff, 0x7f]).await.expect("a PUBACK of 256 MiB begins");
    let event = event(&mut client).await;
    assert!(matches!(event, Incoming::Closed(Closed::Protocol { .. })), "{event:?}");
}

#[tokio::test]
async fn a_message_above_the_packet_limit_arrives_cut_and_its_neighbours_whole() {
    let (mut client, mut peer) = pair(options()).await;
    let serve = async {
        for (packet, size) in [(1, 10), (2, 3 << 20), (3, 20), (4, (1 << 20) + 1), (5, 30)] {
            let mut bytes = bytes::BytesMut::new();
            message(packet, vec![b'x'; size]).write(&mut bytes, usize::MAX).expect("a packet");
            peer.stream.write_all(&bytes).await.expect("the client reads");
        }
    };
    let receive = async {
        let mut sizes = Vec::new();
        for number in 1..=5 {
            let Incoming::Message(message) = event(&mut client).await else { panic!("expected a message") };
            assert_eq!((message.packet, &*message.topic), (Some(PacketId(number)), "a/b"));
            assert!(message.payload.iter().all(|byte| *byte == b'x'));
            sizes.push(message.payload.len());
        }
        sizes
    };
    let (sizes, ()) = tokio::join!(receive, serve);
    assert_eq!([sizes[0], sizes[2], sizes[4]], [10, 20, 30]);
    for cut in [sizes[1], sizes[3]] {
        assert!((MAX_PAYLOAD_BYTES + 1..MAX_PACKET_BYTES).contains(&cut), "{cut} bytes");
    }
}

#[tokio::test]
async fn a_message_that_mqtt_cannot_carry_is_not_half_sent() {
    let (mut client, mut peer) = pair(options()).await;
    client.publish(FIRST, None, false, &Publication { topic: "a/+".into(), ..publication(vec![]) });
    let event = event(&mut client).await;
    assert!(matches!(event, Incoming::Closed(Closed::Unsendable { .. })), "{event:?}");
    assert_eq!(peer.packet().await, None);
}

#[tokio::test]
async fn requests_for_another_connection_do_nothing() {
    let (mut client, mut peer) = pair(options()).await;
    let gone = ConnectionId(0);
    client.acknowledge(gone, PacketId(1));
    client.publish(gone, Some(PacketId(1)), false, &publication(vec![]));
    client.pause_reading(gone);
    client.disconnect(gone);
    client.publish(FIRST, Some(PacketId(2)), true, &publication(b"x".to_vec()));
    let serve = async {
        let packet = peer.packet().await;
        assert!(matches!(&packet, Some(Packet::Publish(p)) if p.pkid == 2 && p.dup), "{packet:?}");
        peer.send(Packet::PubAck(PubAck::new(2))).await;
    };
    let (event, ()) = tokio::join!(event(&mut client), serve);
    assert!(matches!(event, Incoming::Acknowledged(PacketId(2))), "{event:?}");
}

#[tokio::test]
async fn each_connect_ends_in_one_closed_also_when_another_takes_its_place() {
    let (listener, endpoint) = listen().await;
    let mut client = connecting(dialer(&endpoint), options());
    client.connect(ConnectionId(2), options());
    client.connect(ConnectionId(3), options());
    for replaced in [1, 2] {
        let (connection, event) = client.next().await;
        assert_eq!(connection, ConnectionId(replaced));
        assert!(matches!(event, Incoming::Closed(Closed::Replaced)), "{event:?}");
    }
    let serve = async {
        let mut peer = Peer::accept(&listener).await;
        peer.answer(ConnectReturnCode::Success).await;
        peer
    };
    let ((connection, event), peer) = tokio::join!(client.next(), serve);
    assert!(matches!((connection, &event), (ConnectionId(3), Incoming::Connected { .. })), "{event:?}");
    drop(peer);
    let (connection, event) = client.next().await;
    let ended = matches!(event, Incoming::Closed(Closed::ByPeer(_) | Closed::Broken { .. }));
    assert!(connection == ConnectionId(3) && ended, "{event:?}");
    let nothing = tokio::time::timeout(Duration::from_millis(20), client.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_new_connection_waits_until_the_old_one_has_said_goodbye() {
    let (listener, endpoint) = listen().await;
    let mut client = connecting(dialer(&endpoint), options());
    let serve = async {
        let mut first = Peer::accept(&listener).await;
        first.answer(ConnectReturnCode::Success).await;
        first
    };
    let (connected, mut first) = tokio::join!(event(&mut client), serve);
    assert!(matches!(connected, Incoming::Connected { .. }));
    client.publish(FIRST, None, false, &publication(b"last words".to_vec()));
    client.disconnect(FIRST);
    client.connect(ConnectionId(2), options());
    assert!(matches!(event(&mut client).await, Incoming::Closed(Closed::AsAsked)));
    let serve = async {
        let packet = first.packet().await;
        assert!(matches!(packet, Some(Packet::Publish(_))), "{packet:?}");
        assert_eq!(first.packet().await, Some(Packet::Disconnect));
        assert_eq!(first.packet().await, None);
        drop(first);
        Peer::accept(&listener).await.answer(ConnectReturnCode::Success).await;
    };
    let ((connection, event), ()) = tokio::join!(client.next(), serve);
    assert!(matches!((connection, &event), (ConnectionId(2), Incoming::Connected { .. })), "{event:?}");
}
