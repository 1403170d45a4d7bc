//! The bridge on its own: every claim of its header as a test, then random histories.

mod random;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{agent::Backoff, core::EffectId, event::MAX_PAYLOAD_BYTES, id::Rae, time::Wall};

const C1: ConnectionId = ConnectionId(1);
const C2: ConnectionId = ConnectionId(2);
const STORED: ProduceOutcome = ProduceOutcome::Stored { partition: 0, offset: 0 };
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

fn config(window: usize) -> Config {
    Config { id: "b-1".into(), filters: vec!["dmp/v1/+/+/+/state".to_owned()], window, backoff: BACKOFF }
}

fn topic(session: u128) -> Arc<str> {
    let rae = Rae::try_from("RAE-1").expect("a serial");
    let session = crate::id::Session(uuid::Uuid::from_u128(session));
    crate::event::Topic::State(rae, session).to_string().into()
}

fn status_topic() -> Arc<str> {
    crate::event::Topic::Status(Rae::try_from("RAE-1").expect("a serial")).to_string().into()
}

fn message(topic: Arc<str>, packet: u16) -> Message {
    let packet = (packet > 0).then_some(PacketId(packet));
    Message { topic, payload: Bytes::from_static(b"{}"), packet, dup: false, retain: false }
}

fn failed() -> ProduceOutcome {
    ProduceOutcome::Failed { reason: "queue is full".to_owned() }
}

/// A bridge under hand control: a clock, and what came out at the last step.
struct Bench {
    bridge: Bridge,
    now: Now,
}

impl Bench {
    fn new(window: usize) -> Bench {
        Bench { bridge: Bridge::new(config(window), 7), now: Now { mono: Mono(0), wall: Wall(1_000) } }
    }

    fn connected(window: usize) -> Bench {
        let mut bench = Bench::new(window);
        bench.tell(Event::Start);
        bench.connect(C1);
        bench
    }

    fn connect(&mut self, connection: ConnectionId) -> Vec<Effect> {
        self.tell(Event::Connected { connection, session_present: true })
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.bridge.handle(self.now, event, &mut effects);
        effects
    }

    fn arrives(&mut self, connection: ConnectionId, message: Message) -> Vec<Effect> {
        self.tell(Event::Message(connection, message))
    }

    fn answers(&mut self, id: EffectId, outcome: ProduceOutcome) -> Vec<Effect> {
        self.tell(Event::Produced(id, outcome))
    }

    /// Moves the clock to the deadline and wakes.
    fn wait(&mut self) -> Vec<Effect> {
        self.now.mono = self.bridge.deadline().expect("something waits");
        let mut effects = Vec::new();
        self.bridge.wake(self.now, &mut effects);
        effects
    }
}

fn produces(effects: &[Effect]) -> Vec<(EffectId, OutgoingRecord)> {
    let produce = |effect: &Effect| match effect {
        Effect::Produce(id, record) => Some((*id, record.clone())),
        _ => None,
    };
    effects.iter().filter_map(produce).collect()
}

fn produced(effects: &[Effect]) -> EffectId {
    match produces(effects).as_slice() {
        [(id, _)] => *id,
        other => panic!("expected one produce, got {other:?}"),
    }
}

fn acks(effects: &[Effect]) -> Vec<(ConnectionId, u16)> {
    let ack = |effect: &Effect| match effect {
        Effect::Acknowledge(connection, packet) => Some((*connection, packet.0)),
        _ => None,
    };
    effects.iter().filter_map(ack).collect()
}

fn headers(record: &OutgoingRecord) -> BTreeMap<&str, &str> {
    record.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn a_message_becomes_one_record_keyed_by_its_topic_with_its_payload_untouched() {
    let mut bench = Bench::connected(10);
    let payload = Bytes::from_static(b"\xff not even JSON");
    let sent = Message { payload: payload.clone(), dup: true, ..message(topic(1), 9) };
    let [(_, record)] = produces(&bench.arrives(C1, sent)).try_into().expect("one record");
    assert_eq!((record.topic, &record.value, record.timestamp), ("dmp.events", &payload, Wall(1_000)));
    assert_eq!(record.key, topic(1).as_bytes());
    let expected = [("bridge", "b-1"), ("mqtt-dup", "1"), ("mqtt-qos", "1"), ("mqtt-retain", "0")];
    assert_eq!(headers(&record), BTreeMap::from(expected));
}

#[test]
fn a_reply_goes_to_the_topic_of_replies() {
    let mut bench = Bench::connected(10);
    let reply = topic(1).replace("/state", "/reply").into();
    assert_eq!(produces(&bench.arrives(C1, message(reply, 1)))[0].1.topic, "dmp.replies");
}

#[test]
fn messages_are_acknowledged_after_kafka_stored_them_and_in_arrival_order() {
    let mut bench = Bench::connected(10);
    let first = bench.arrives(C1, message(topic(1), 1));
    let second = bench.arrives(C1, message(topic(2), 2));
    assert!(acks(&first).is_empty() && acks(&second).is_empty());
    assert!(acks(&bench.answers(produced(&second), STORED)).is_empty(), "the first is not stored yet");
    let effects = bench.answers(produced(&first), STORED);
    assert_eq!(acks(&effects), [(C1, 1), (C1, 2)]);
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Fact(Fact::Forwarded)).count(), 2);
}

#[test]
fn a_message_of_qos_0_is_stored_and_not_acknowledged() {
    let mut bench = Bench::connected(10);
    let effects = bench.arrives(C1, message(topic(1), 0));
    assert_eq!(headers(&produces(&effects)[0].1)["mqtt-qos"], "0");
    assert_eq!(bench.answers(produced(&effects), STORED), [Effect::Fact(Fact::Forwarded)]);
}

#[test]
fn a_retained_message_is_acknowledged_in_its_turn_and_stored_only_if_it_is_a_status() {
    let mut bench = Bench::connected(10);
    let status = bench.arrives(C1, Message { retain: true, ..message(status_topic(), 1) });
    assert_eq!(headers(&produces(&status)[0].1)["mqtt-retain"], "1");
    let state = bench.arrives(C1, Message { retain: true, ..message(topic(1), 2) });
    assert_eq!(state, [], "not before the status in front of it");
    let effects = bench.answers(produced(&status), STORED);
    assert_eq!(acks(&effects), [(C1, 1), (C1, 2)]);
    assert!(effects.contains(&Effect::Fact(Fact::IgnoredRetained)));
}

#[test]
fn the_removal_of_a_retained_status_is_acknowledged_and_says_nothing() {
    let mut bench = Bench::connected(10);
    let removal = bench.arrives(C1, Message { payload: Bytes::new(), ..message(status_topic(), 1) });
    assert_eq!(produces(&removal), []);
    assert_eq!(acks(&removal), [(C1, 1)]);
    assert!(removal.contains(&Effect::Fact(Fact::IgnoredRetained)));
}

#[test]
fn what_is_not_of_the_platform_or_too_large_goes_to_the_dead_letter_topic() {
    let mut bench = Bench::connected(10);
    let large = Bytes::from(vec![b'x'; MAX_PAYLOAD_BYTES + 1]);
    let command: Arc<str> = topic(1).replace("/state", "/cmd").into();
    let poison = [
        (message("elsewhere/entirely".into(), 1), "topic"),
        (Message { payload: large, ..message(topic(1), 2) }, "oversized"),
        (message(command, 3), "direction"),
    ];
    for (message, reason) in poison {
        let (source, packet) = (message.topic.clone(), message.packet.expect("QoS 1").0);
        let effects = bench.arrives(C1, message);
        let record = &produces(&effects)[0].1;
        assert_eq!(record.topic, "dmp.dead-letter");
        assert_eq!((headers(record)["reason"], headers(record)["source-topic"]), (reason, &*source));
        assert!(record.value.len() <= crate::dead_letter::MAX_BYTES);
        let effects = bench.answers(produced(&effects), STORED);
        assert_eq!(effects, [Effect::Acknowledge(C1, PacketId(packet)), Effect::Fact(Fact::DeadLettered)]);
    }
}

#[test]
fn a_record_that_kafka_refuses_for_good_is_acknowledged_after_its_dead_letter_is_stored() {
    let mut bench = Bench::connected(10);
    let effects = bench.arrives(C1, message(topic(1), 1));
    let refused = ProduceOutcome::Refused { reason: "too large".to_owned() };
    let effects = bench.answers(produced(&effects), refused.clone());
    let record = &produces(&effects)[0].1;
    assert_eq!(
        (record.topic, headers(record)["reason"], headers(record)["detail"]),
        ("dmp.dead-letter", "kafka", "too large")
    );
    assert!(acks(&bench.answers(produced(&effects), refused)).is_empty(), "a refused dead letter is not lost");
    let effects = bench.wait();
    assert_eq!(acks(&bench.answers(produced(&effects), STORED)), [(C1, 1)]);
}

#[test]
fn no_later_record_of_a_key_is_produced_before_a_failed_one_is_stored() {
    let mut bench = Bench::connected(10);
    let first = bench.arrives(C1, message(topic(1), 1));
    assert_eq!(bench.arrives(C1, message(topic(1), 2)), [], "held behind the first of its key");
    let other = bench.arrives(C1, message(topic(2), 3));
    assert_eq!(produces(&other).len(), 1, "another key does not wait");
    assert_eq!(bench.answers(produced(&first), failed()), []);
    let again = bench.wait();
    assert_eq!(again[0], Effect::Fact(Fact::Retried));
    assert_eq!(produces(&again)[0].1, produces(&first)[0].1, "the same record, with its first receive time");
    let unknown = ProduceOutcome::Unknown { reason: "timed out".to_owned() };
    assert_eq!(bench.answers(produced(&again), unknown), []);
    let again = bench.wait();
    let effects = bench.answers(produced(&again), STORED);
    assert_eq!(acks(&effects), [(C1, 1)]);
    assert_eq!(produces(&effects).len(), 1, "now the second of the key");
}

#[test]
fn retries_wait_longer_and_longer_up_to_the_cap() {
    let mut bench = Bench::connected(10);
    let mut effects = bench.arrives(C1, message(topic(1), 1));
    for failure in 0..12 {
        bench.answers(produced(&effects), failed());
        let wait = bench.bridge.deadline().expect("a retry").since(bench.now.mono);
        let upper = Duration::from_millis(100 << failure.min(10)).min(BACKOFF.most);
        assert!(upper / 2 <= wait && wait <= upper, "failure {failure}: {wait:?}");
        effects = bench.wait();
    }
}

#[test]
fn a_full_window_pauses_reading_and_half_of_it_resumes() {
    let mut bench = Bench::connected(4);
    let arrived: Vec<_> = (1..=4).map(|n| bench.arrives(C1, message(topic(n.into()), n))).collect();
    assert!(arrived[3].ends_with(&[Effect::PauseReading(C1), Effect::Fact(Fact::Window(4))]));
    let late = bench.arrives(C1, message(topic(5), 5));
    assert_eq!(produces(&late).len(), 1, "what had been read already is taken");
    assert_eq!(bench.bridge.gauges().window, 5);
    let ids = arrived.iter().chain([&late]).map(|effects| produced(effects));
    let resumed: Vec<bool> = ids.map(|id| bench.answers(id, STORED).contains(&Effect::ResumeReading(C1))).collect();
    assert_eq!(resumed, [false, false, true, false, false]);
}

#[test]
fn answers_of_an_old_connection_never_acknowledge_on_the_new_one() {
    let mut bench = Bench::connected(10);
    let first = bench.arrives(C1, message(topic(1), 1));
    bench.tell(Event::Disconnected(C1));
    assert_eq!(bench.wait(), [Effect::Connect(C2)]);
    bench.connect(C2);
    let redelivered = bench.arrives(C2, Message { dup: true, ..message(topic(1), 1) });
    assert_eq!(redelivered, [], "the first copy is still in flight");
    let effects = bench.answers(produced(&first), STORED);
    assert!(acks(&effects).is_empty());
    assert_eq!(effects[1], Effect::Fact(Fact::Orphaned));
    assert_eq!(acks(&bench.answers(produced(&effects), STORED)), [(C2, 1)]);
}

#[test]
fn messages_and_ends_of_an_older_connection_are_ignored() {
    let mut bench = Bench::connected(10);
    bench.tell(Event::Disconnected(C1));
    bench.wait();
    assert_eq!(bench.arrives(C1, message(topic(1), 1)), []);
    bench.connect(C2);
    assert_eq!(bench.tell(Event::Disconnected(C1)), []);
    assert!(bench.bridge.gauges().connected);
}

#[test]
fn a_connection_made_while_the_window_is_full_is_paused_at_once() {
    let mut bench = Bench::connected(1);
    bench.arrives(C1, message(topic(1), 1));
    bench.tell(Event::Disconnected(C1));
    bench.wait();
    assert_eq!(bench.connect(C2).last(), Some(&Effect::PauseReading(C2)));
}

#[test]
fn the_back_off_of_connecting_is_reset_by_a_subscription_and_not_by_an_accepted_connection() {
    let mut bench = Bench::new(10);
    bench.tell(Event::Start);
    let mut upper_of_wait = |attempt: u64, subscribed: bool| {
        let connection = ConnectionId(attempt);
        bench.connect(connection);
        if subscribed {
            bench.tell(Event::Subscribed(connection, SUBSCRIPTION));
        }
        bench.tell(Event::Disconnected(connection));
        let wait = bench.bridge.deadline().expect("a retry").since(bench.now.mono);
        bench.wait();
        wait
    };
    let waits: Vec<_> = (1..=5).map(|attempt| upper_of_wait(attempt, false)).collect();
    assert!(waits[4] >= Duration::from_millis(800), "{waits:?}");
    assert!(upper_of_wait(6, true) <= BACKOFF.first);
}

#[test]
fn a_stop_waits_for_kafka_acknowledges_and_disconnects() {
    let mut bench = Bench::connected(10);
    let effects = bench.arrives(C1, message(topic(1), 1));
    assert_eq!(bench.tell(Event::Stop { within: Duration::from_secs(3) }), [Effect::PauseReading(C1)]);
    assert_eq!(bench.arrives(C1, message(topic(2), 2)), [], "left to the next owner of the session");
    let last = bench.answers(produced(&effects), STORED);
    let forwarded = Effect::Fact(Fact::Forwarded);
    assert_eq!(last, [Effect::Acknowledge(C1, PacketId(1)), forwarded, Effect::Disconnect(C1), Effect::Stopped]);
    assert_eq!(bench.tell(Event::Start), [], "nothing follows");
    assert_eq!(bench.bridge.deadline(), None);
}

#[test]
fn a_stop_ends_at_its_bound_without_acknowledging_what_is_not_stored() {
    let mut bench = Bench::connected(10);
    let effects = bench.arrives(C1, message(topic(1), 1));
    bench.tell(Event::Stop { within: Duration::from_secs(3) });
    bench.answers(produced(&effects), failed());
    let mut ended = Vec::new();
    while !ended.contains(&Effect::Stopped) {
        ended = bench.wait();
        for (id, _) in produces(&ended) {
            bench.answers(id, failed());
        }
    }
    assert_eq!(ended, [Effect::Disconnect(C1), Effect::Stopped]);
    assert_eq!(bench.now.mono, Mono(0) + Duration::from_secs(3));
}

#[test]
fn a_stop_before_the_start_or_while_the_broker_is_away_ends_at_once() {
    assert_eq!(Bench::new(1).tell(Event::Stop { within: Duration::from_secs(3) }), [Effect::Stopped]);
    let mut bench = Bench::connected(1);
    bench.tell(Event::Disconnected(C1));
    assert_eq!(bench.tell(Event::Stop { within: Duration::from_secs(3) }), [Effect::Stopped]);
}
