//! Bridge and agent as running programs, each against a broker of a few lines that does only what the test needs.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome, downlink::EXPIRED},
    core::EffectId,
    event::{
        Body, Command, CommandKind, Event, Presence, PresenceState, Reply, ReplyOutcome, Topic, Value, decode,
        kafka_topic,
    },
    id::{Rae, Session},
    time::Wall,
};
use dmp_service::{
    agent, bridge,
    config::{Kafka, Mqtt, parse},
    drive::wall,
    kafka::{
        Producer,
        inspect::{Inspector, Tail},
    },
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use rumqttc::mqttbytes::{
    self, QoS,
    v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Client ids of a bridge of default settings: its only shard group, and its way down.
const GROUP: &str = "dmp-bridge-0of1";
const DOWN: &str = "dmp-bridge-down-bridge";

/// What the broker saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Connect(String, bool),
    Publish(String, Vec<u8>),
    Acknowledged(u16),
    Disconnect,
}

/// What a broker saw, by client.
struct Saw {
    packets: mpsc::Receiver<(String, Seen)>,
    /// Of clients that were not asked for yet.
    kept: VecDeque<(String, Seen)>,
}

impl Saw {
    /// The next packet of a client.
    async fn of(&mut self, client: &str) -> Seen {
        if let Some(at) = self.kept.iter().position(|(of, _)| of == client) {
            return self.kept.remove(at).expect("found just now").1;
        }
        loop {
            let (of, packet) = next(&mut self.packets).await;
            if of == client {
                return packet;
            }
            self.kept.push_back((of, packet));
        }
    }
}

type Messages = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes every connection, answers every packet, and delivers `messages` to the first subscription.
async fn broker(answer: ConnectReturnCode, messages: Vec<(String, Vec<u8>)>) -> (SocketAddr, Saw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (seen, packets) = mpsc::channel(1_000);
    let messages = Messages::new(Mutex::new(messages));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer, Arc::clone(&messages), seen.clone()));
        }
    });
    (address, Saw { packets, kept: VecDeque::new() })
}

async fn serve(
    mut stream: TcpStream,
    answer: ConnectReturnCode,
    messages: Messages,
    seen: mpsc::Sender<(String, Seen)>,
) {
    let mut client = String::new();
    let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let packet = match Packet::read(&mut received, 1 << 20) {
            Ok(packet) => packet,
            Err(mqttbytes::Error::InsufficientBytes(_)) => match stream.read_buf(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            },
            Err(error) => panic!("not MQTT: {error}"),
        };
        let tell = match packet {
            Packet::Connect(connect) => {
                ConnAck::new(answer, false).write(&mut out).expect("it fits");
                client.clone_from(&connect.client_id);
                Some(Seen::Connect(connect.client_id, connect.clean_session))
            }
            Packet::Subscribe(subscribe) => {
                let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); subscribe.filters.len()];
                SubAck::new(subscribe.pkid, granted).write(&mut out).expect("it fits");
                let messages = std::mem::take(&mut *messages.lock().expect("nothing panics with it"));
                for (number, (topic, payload)) in messages.into_iter().enumerate() {
                    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
                    publish.pkid = u16::try_from(number + 1).expect("few messages");
                    publish.write(&mut out).expect("it fits");
                }
                None
            }
            Packet::Publish(publish) => {
                if publish.qos == QoS::AtLeastOnce {
                    PubAck::new(publish.pkid).write(&mut out).expect("it fits");
                }
                Some(Seen::Publish(publish.topic, publish.payload.to_vec()))
            }
            Packet::PubAck(ack) => Some(Seen::Acknowledged(ack.pkid)),
            Packet::Disconnect => Some(Seen::Disconnect),
            other => panic!("not expected: {other:?}"),
        };
        if let Some(tell) = tell {
            // A test that is over listens no more.
            let _over = seen.send((client.clone(), tell)).await;
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

async fn next<T>(from: &mut mpsc::Receiver<T>) -> T {
    timeout(PATIENCE, from.recv()).await.expect("in time").expect("the other side lives")
}

async fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("the API is there");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, Kafka) {
    let cluster = MockCluster::new(1).expect("a mock cluster starts");
    for topic in [kafka_topic::EVENTS, kafka_topic::COMMANDS, kafka_topic::REPLIES, kafka_topic::DEAD_LETTER] {
        cluster.create_topic(topic, 2, 1).expect("the mock cluster takes a topic");
    }
    let kafka = Kafka::at(cluster.bootstrap_servers());
    (cluster, kafka)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_turns_messages_into_records_acknowledges_them_in_order_and_ends_in_good_order() {
    let rae = Rae::try_from("RAE-0000001").expect("a serial");
    let topic = format!("dmp/v1/{}/{rae}/status", rae.shard());
    let messages: Vec<_> = (0..50_u8).map(|number| (topic.clone(), vec![number])).collect();
    let (address, mut seen) = broker(ConnectReturnCode::Success, messages).await;
    let (_cluster, kafka) = cluster();
    let mut running =
        bridge::start(bridge::Config::between(Mqtt::at(address.to_string()), kafka.clone())).await.expect("it starts");
    assert_eq!(seen.of(GROUP).await, Seen::Connect(GROUP.to_owned(), false));
    for number in 1..=50 {
        assert_eq!(seen.of(GROUP).await, Seen::Acknowledged(number));
    }
    let (sender, mut records) = mpsc::channel(100);
    let _tail = Tail::start(&kafka, kafka_topic::EVENTS, BTreeMap::new(), sender).await.expect("the topic is there");
    for number in 0..50_u8 {
        let record = next(&mut records).await;
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(topic.as_bytes()), Some(&[number][..])));
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mqtt-qos", "mqtt-dup", "mqtt-retain", "bridge"]);
    }
    running.stop();
    assert_eq!(seen.of(GROUP).await, Seen::Disconnect);
    running.wait().await.expect("it was told to stop");
}

/// Stores commands and what is none, in order, under one key.
async fn command(kafka: &Kafka, topic: &str, values: Vec<Vec<u8>>) {
    let (answers, mut answered) = mpsc::channel(100);
    let answer = move |id: EffectId, outcome| answers.blocking_send((id, outcome)).expect("the test listens");
    let producer = Producer::start(kafka, "test-producer", 100, answer).expect("the settings are good");
    let count = values.len();
    for (number, value) in (0..).zip(values) {
        let (topic, key, headers) = (kafka_topic::COMMANDS, topic.to_owned().into(), vec![]);
        let record = OutgoingRecord { topic, key, value: value.into(), timestamp: wall(), headers };
        producer.produce(EffectId(number), record).expect("the queue has room");
    }
    for _ in 0..count {
        let (_, outcome) = next(&mut answered).await;
        assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_down_in_order_or_are_answered_or_dead_lettered_and_are_committed_when_all_have_ended() {
    let rae = Rae::try_from("RAE-0000001").expect("a serial");
    let topic = Topic::Command(rae, Session(Uuid::from_u128(1))).to_string();
    let until =
        |number: u128, expires_at| Command { id: Uuid::from_u128(number), expires_at, kind: CommandKind::Probe };
    let of = |number| until(number, Wall(wall().0 + 600_000)).encode();
    let (address, mut seen) = broker(ConnectReturnCode::Success, vec![]).await;
    let (_cluster, kafka) = cluster();
    command(&kafka, &topic, vec![of(1), b"{".to_vec(), until(2, Wall(wall().0 - 1)).encode(), of(3)]).await;
    let mut running =
        bridge::start(bridge::Config::between(Mqtt::at(address.to_string()), kafka.clone())).await.expect("it starts");
    assert_eq!(seen.of(DOWN).await, Seen::Connect(DOWN.to_owned(), true));
    for number in [1, 3] {
        let Seen::Publish(at, payload) = seen.of(DOWN).await else { panic!("no command for {number}") };
        assert_eq!(at, topic);
        assert_eq!(Command::decode(&payload).expect("a command").id, Uuid::from_u128(number));
    }
    let (sender, mut records) = mpsc::channel(100);
    let _tail =
        Tail::start(&kafka, kafka_topic::REPLIES, BTreeMap::new(), sender.clone()).await.expect("the topic is there");
    let reply = Reply::decode(&next(&mut records).await.value.expect("a value")).expect("a reply");
    assert_eq!(reply, Reply { id: Uuid::from_u128(2), outcome: ReplyOutcome::error(EXPIRED) });
    let _tail = Tail::start(&kafka, kafka_topic::DEAD_LETTER, BTreeMap::new(), sender).await.expect("it is there");
    assert_eq!(next(&mut records).await.value.as_deref(), Some(b"{".as_slice()));
    running.stop();
    assert_eq!(seen.of(DOWN).await, Seen::Disconnect);
    running.wait().await.expect("it was told to stop");
    let inspector = Inspector::new(&kafka, "dmp-bridge").expect("good settings");
    assert_eq!(inspector.committed(kafka_topic::COMMANDS).await.expect("it answers").values().sum::<i64>(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_the_broker_refuses_end_a_bridge_with_a_clear_error() {
    let (address, _seen) = broker(ConnectReturnCode::BadUserNamePassword, vec![]).await;
    let (_cluster, kafka) = cluster();
    let mut mqtt = Mqtt::at(address.to_string());
    mqtt.username = Some("bridge".to_owned());
    let mut running = bridge::start(bridge::Config::between(mqtt, kafka)).await.expect("kafka is there");
    let error = timeout(PATIENCE, running.wait()).await.expect("in time").expect_err("it cannot go on");
    assert!(format!("{error:#}").contains("refused the credentials of user \"bridge\""), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_reports_is_published_and_survives_a_restart_of_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, mut seen) = broker(ConnectReturnCode::Success, vec![]).await;
    let text = format!(
        "rae = \"RAE-0000007\"\nrecords = {:?}\n[mqtt]\naddress = \"{address}\"\n[intervals]\nstatus_wait = \"10ms\"\n",
        folder.path().join("agent.db")
    );
    let config: agent::Config = parse("agent.toml".as_ref(), &text, []).expect("right");
    let mut newest = None;
    for life in 0..2 {
        let mut started = agent::start(config.clone()).await.expect("it starts");
        assert_eq!(post(started.devices, "/devices/SN-1/report", r#"{"set":{"rev":9}}"#).await, "409");
        let record = format!(r#"{{"record":{{"rev":{life},"firmware":"1.2"}}}}"#);
        assert_eq!(post(started.devices, "/devices/SN-1/attached", &record).await, "202");
        assert_eq!(post(started.devices, "/devices/SN-1/attached", r#"{"record":{"connection":"x"}}"#).await, "422");
        let report = format!(r#"{{"set":{{"rev":{}}},"unset":["firmware"]}}"#, life + 10);
        assert_eq!(post(started.devices, "/devices/SN-1/report", &report).await, "202");
        let last = until_rev(&mut seen, life + 10).await;
        if let Some(before) = newest {
            assert!(last > before, "the session goes on where it was");
        }
        newest = Some(last);
        started.running.stop();
        let offline = loop {
            if let Seen::Publish(topic, payload) = seen.of("RAE-0000007").await
                && let Ok(Event::Status(_, presence)) = decode(&topic, &payload)
            {
                break presence;
            }
        };
        assert!(matches!(offline, Presence { state: PresenceState::Offline, .. }), "{offline:?}");
        started.running.wait().await.expect("it was told to stop");
    }
}

/// Waits for an event that sets `rev` so; returns its epoch and seq.
async fn until_rev(seen: &mut Saw, rev: i64) -> (u64, u64) {
    loop {
        let Seen::Publish(topic, payload) = seen.of("RAE-0000007").await else { continue };
        let Ok(Event::State(event)) = decode(&topic, &payload) else { continue };
        let found = match &event.body {
            Body::Delta { set, .. } => set.get("rev").cloned(),
            Body::Snapshot { attributes } => attributes.get("rev").map(|(value, _)| value.clone()),
        };
        if found == Some(Value::Integer(rev)) {
            return (event.version.epoch.get(), event.version.seq.get());
        }
    }
}
