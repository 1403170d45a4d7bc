//! The way down, end to end: commands through Kafka, bridge and broker to a real agent, and their replies back.

mod common;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use common::Up;
use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::{ConnectionId, EffectId, PacketId, Publication, Qos},
    event::{Command, CommandKind, Reply, ReplyOutcome, Topic, kafka_topic},
    id::{Device, Epoch, Rae, Session},
    time::Wall,
};
use dmp_service::{
    agent, command,
    config::{Kafka, Mqtt, parse},
    drive::wall,
    kafka::{
        Producer,
        inspect::{Tail, Tailed},
    },
    mqtt::{Client, Incoming},
};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// The embedded target with one agent and one device at it.
struct Bench {
    up: Up,
    kafka: Kafka,
    rae: Rae,
    agent: agent::RunningAgent,
    _records: tempfile::TempDir,
}

impl Bench {
    async fn start(name: &str) -> Bench {
        let up = tokio::task::spawn_blocking(Up::start).await.expect("it starts");
        let kafka = Kafka::at(up.value("Kafka broker"));
        let records = tempfile::tempdir().expect("a directory");
        let text = format!(
            "rae = \"{name}\"\nrecords = {:?}\n[mqtt]\naddress = \"{}\"\n[devices]\nanswer_within = \"2s\"\n[intervals]\nstatus_wait = \"100ms\"\n",
            records.path().join("agent.db"),
            mqtt_address(&up),
        );
        let config: agent::Config = parse("agent.toml".as_ref(), &text, []).expect("right");
        let agent = agent::start(config).await.expect("it starts");
        let rae = Rae::try_from(name).expect("a serial");
        Bench { up, kafka, rae, agent, _records: records }
    }

    /// Sends a command and waits for its reply.
    async fn ask(&self, session: Session, kind: CommandKind) -> ReplyOutcome {
        let id = Uuid::from_u128(rand_id());
        let command = Command { id, expires_at: Wall(wall().0 + 30_000), kind };
        let sent = command::send(&self.kafka, &self.rae, session, &command, |_| {}).await.expect("kafka is there");
        sent.expect("a reply").reply.outcome
    }

    /// Waits until the store shows `device` as `right` wants it: its session, and the value of `rate`; that session and
    /// its epoch.
    async fn shown(&self, device: Device, right: impl Fn(Session, Option<&str>) -> bool) -> (Session, u64) {
        let file = self.up.value("store").strip_prefix("sqlite:").expect("the embedded store is a file").to_owned();
        let looking = async {
            loop {
                match look(&file, device) {
                    Ok((session, epoch, rate)) if right(session, rate.as_deref()) => return (session, epoch),
                    _not_yet => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, looking)
            .await
            .unwrap_or_else(|_| panic!("the store shows {device} as {:?}", look(&file, device)))
    }
}

/// The session, its epoch and the value of `rate` that a reader of the view sees.
fn look(file: &str, device: Device) -> rusqlite::Result<(Session, u64, Option<String>)> {
    let sql = "SELECT session, epoch, max(CASE name WHEN 'rate' THEN value END) FROM device_record WHERE device = ?1 GROUP BY 1, 2";
    rusqlite::Connection::open(file)?.query_row(sql, [device.0.as_bytes()], |row| {
        let (session, epoch): (_, i64) = (Session(Uuid::from_bytes(row.get(0)?)), row.get(1)?);
        Ok((session, epoch.unsigned_abs(), row.get(2)?))
    })
}

fn mqtt_address(up: &Up) -> String {
    let port = up.value("MQTT broker").rsplit(':').next().expect("a port");
    format!("127.0.0.1:{port}")
}

/// Ids of this process's commands: distinct, and not those of another run's.
fn rand_id() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    u128::from(RandomState::new().hash_one(wall())) << 64 | u128::from(RandomState::new().hash_one(0))
}

/// One HTTP request; the status, and the body's JSON where there is one.
async fn request(address: SocketAddr, method: &str, path: &str, body: &Json) -> (u16, Json) {
    let mut connection = TcpStream::connect(address).await.expect("the API is there");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let request = format!("{head}content-length: {length}\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn set(rate: i64) -> CommandKind {
    let rate = BTreeMap::from([("rate".try_into().expect("a name"), dmp_core::event::Value::Integer(rate))]);
    CommandKind::Set { set: rate, unset: ["error".try_into().expect("a name")].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_command_does_what_it_says_and_a_session_that_is_gone_says_so() {
    let bench = Bench::start("RAE-COMMANDS").await;
    let (api, device) = (bench.agent.devices, Device::of_hardware("SN-1"));
    let record = json!({"record": {"rate": 1, "error": "e7"}});
    assert_eq!(request(api, "POST", "/devices/SN-1/attached", &record).await.0, 202);
    let (session, epoch) = bench.shown(device, |_, rate| rate == Some("1")).await;

    assert_eq!(bench.ask(session, CommandKind::Snapshot).await, ReplyOutcome::Ok);
    assert_eq!(bench.ask(session, CommandKind::Probe).await, ReplyOutcome::Ok);

    // A device that fetches its change and takes it.
    let taking = async {
        let (status, change) = request(api, "GET", "/devices/SN-1/change", &Json::Null).await;
        assert_eq!((status, &change["set"], &change["unset"]), (200, &json!({"rate": 5}), &json!(["error"])));
        let path = format!("/devices/SN-1/change/{}", change["id"].as_str().expect("an id"));
        assert_eq!(request(api, "POST", &path, &json!({"taken": true})).await.0, 202);
        assert_eq!(request(api, "POST", &path, &json!({"taken": true})).await.0, 404, "it is answered");
    };
    let (outcome, ()) = tokio::join!(bench.ask(session, set(5)), taking);
    assert_eq!(outcome, ReplyOutcome::Ok);
    bench.shown(device, |_, rate| rate == Some("5")).await;
    // One that refuses, and one that does not ask.
    let refusing = async {
        let change = request(api, "GET", "/devices/SN-1/change", &Json::Null).await.1;
        let path = format!("/devices/SN-1/change/{}", change["id"].as_str().expect("an id"));
        assert_eq!(request(api, "POST", &path, &json!({"refused": "too fast"})).await.0, 202);
    };
    let (outcome, ()) = tokio::join!(bench.ask(session, set(9)), refusing);
    assert_eq!(outcome, ReplyOutcome::error("the device refused: too fast"));
    let ReplyOutcome::Error(why) = bench.ask(session, set(9)).await else { panic!("nobody took it") };
    assert!(why.contains("did not ask for changes"), "{why}");

    let above = Epoch::try_from(epoch + 1_000).expect("an epoch");
    assert_eq!(bench.ask(session, CommandKind::Reonboard { device, epoch: above }).await, ReplyOutcome::Ok);
    let gone = session;
    let (session, epoch) = bench.shown(device, |session, _| session != gone).await;
    assert!(epoch > above.get(), "the new session is above the one that beat the old");
    assert_eq!(bench.ask(gone, CommandKind::Probe).await, ReplyOutcome::error("session is gone"));
    assert_eq!(bench.ask(session, CommandKind::Probe).await, ReplyOutcome::Ok);
}

/// What is no command, each in its own way; those whose id can be read have `id`.
fn malformed(id: &str) -> Vec<Json> {
    let good = json!({"v": 1, "kind": "set", "id": id, "expires_at": "2100-01-01T00:00:00.000Z", "set": {"rate": 1}});
    let with = |changes: Json| {
        let mut command = good.clone();
        for (key, value) in changes.as_object().expect("an object") {
            command[key] = value.clone();
        }
        command
    };
    vec![
        json!([good]),
        with(json!({"id": null})),
        with(json!({"id": "seven"})),
        with(json!({"v": 2})),
        with(json!({"kind": "reboot"})),
        with(json!({"expires_at": "soon"})),
        with(json!({"set": null})),
        with(json!({"set": {"rate": null}})),
        with(json!({"set": {"Rate": 1}})),
        with(json!({"set": {"connection": "attached"}})),
        with(json!({"unset": ["rate"]})),
        with(json!({"kind": "reonboard", "device": id, "epoch": 0})),
        with(json!({"kind": "reonboard", "epoch": 1})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_ends_as_a_dead_letter_or_an_error_reply_and_agent_and_bridge_go_on() {
    let bench = Bench::start("RAE-MALFORMED").await;
    let record = json!({"record": {"rate": 1}});
    assert_eq!(request(bench.agent.devices, "POST", "/devices/SN-2/attached", &record).await.0, 202);
    let (session, _) = bench.shown(Device::of_hardware("SN-2"), |_, rate| rate == Some("1")).await;
    let topic = Topic::Command(bench.rae.clone(), session).to_string();

    // Through Kafka: the bridge lets none of them through.
    let id = Uuid::from_u128(rand_id()).to_string();
    let good = json!({"v": 1, "kind": "probe", "id": id, "expires_at": "2100-01-01T00:00:00.000Z"}).to_string();
    let mut records: Vec<(String, Vec<u8>)> =
        malformed(&id).iter().map(|command| (topic.clone(), command.to_string().into_bytes())).collect();
    let state = Topic::State(bench.rae.clone(), session).to_string();
    records.extend([
        (topic.clone(), b"{".to_vec()),
        (topic.clone(), vec![]),
        (topic.clone(), vec![b' '; 300 << 10]),
        (state, good.clone().into_bytes()),
        ("dmp/v1/s00".to_owned(), good.into_bytes()),
    ]);
    let wanted = records.len();
    produce(&bench.kafka, records).await;
    let (sender, mut letters) = mpsc::channel(100);
    let _tail =
        Tail::start(&bench.kafka, kafka_topic::DEAD_LETTER, BTreeMap::new(), sender).await.expect("it is there");
    for _ in 0..wanted {
        let letter = next(&mut letters).await;
        let source =
            letter.headers.iter().find(|(name, _)| name.contains("topic")).and_then(|(_, value)| value.clone());
        assert_eq!(source.as_deref(), Some(kafka_topic::COMMANDS.as_bytes()), "{:?}", letter.headers);
    }

    // Past the bridge, straight to the agent: it answers where it can read whom to answer.
    let (sender, mut replies) = mpsc::channel(100);
    let _tail = Tail::start(&bench.kafka, kafka_topic::REPLIES, BTreeMap::new(), sender).await.expect("it is there");
    let commands = malformed(&id);
    let readable = commands.iter().filter(|command| command["id"] == id.as_str()).count();
    publish(&mqtt_address(&bench.up), &topic, &commands).await;
    for _ in 0..readable {
        let reply = Reply::decode(&next(&mut replies).await.value.expect("a value")).expect("a reply");
        assert_eq!(reply.id.to_string(), id);
        assert!(matches!(reply.outcome, ReplyOutcome::Error(_)), "{reply:?}");
    }

    assert_eq!(bench.ask(session, CommandKind::Probe).await, ReplyOutcome::Ok);
}

async fn next(records: &mut mpsc::Receiver<Tailed>) -> Tailed {
    timeout(PATIENCE, records.recv()).await.expect("in time").expect("the tail goes on")
}

async fn produce(kafka: &Kafka, records: Vec<(String, Vec<u8>)>) {
    let (answer, mut answered) = mpsc::channel(100);
    let answer = move |_, outcome| answer.blocking_send(outcome).expect("the test listens");
    let producer = Producer::start(kafka, "test-producer", 100, answer).expect("good settings");
    let wanted = records.len();
    for (number, (key, value)) in (0..).zip(records) {
        let (topic, key, headers) = (kafka_topic::COMMANDS, key.into(), vec![]);
        let record = OutgoingRecord { topic, key, value: value.into(), timestamp: wall(), headers };
        producer.produce(EffectId(number), record).expect("the queue has room");
    }
    for _ in 0..wanted {
        let outcome = timeout(PATIENCE, answered.recv()).await.expect("in time").expect("an answer");
        assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
    }
}

/// Publishes payloads on a topic, each once the one before it is acknowledged.
async fn publish(address: &str, topic: &str, payloads: &[Json]) {
    let mqtt = Mqtt::at(address);
    let mut client = Client::new(mqtt.dialer().expect("no TLS").into());
    let connection = ConnectionId(1);
    client.connect(connection, mqtt.options("test-publisher", true));
    let connected = timeout(PATIENCE, client.next()).await.expect("in time").1;
    assert!(matches!(connected, Incoming::Connected { .. }), "{connected:?}");
    for (packet, payload) in (1..).map(PacketId).zip(payloads) {
        let payload = payload.to_string().into();
        let message = Publication { topic: topic.into(), payload, qos: Qos::AtLeastOnce, retain: false };
        client.publish(connection, Some(packet), false, &message);
        let answer = timeout(PATIENCE, client.next()).await.expect("in time").1;
        assert!(matches!(answer, Incoming::Acknowledged(acknowledged) if acknowledged == packet), "{answer:?}");
    }
}
