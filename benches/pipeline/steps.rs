//! The steps of the pipeline, each with its time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::{ConnectionId, EffectId, PacketId, Publication, Qos},
    event::{StateEvent, kafka_topic, subscriptions},
};
use dmp_service::{
    bridge, config,
    kafka::{Producer, inspect::Inspector},
    mqtt::{Client, ConnectOptions, Incoming},
    program::Running,
    registry,
    store::{Access, Database, Store},
};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};

use crate::{
    events::{mixed, state},
    parts::{NewStore, Parts},
};

/// Bound of anything here, so that a fault ends the run and does not hang it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two looks at a counter: small against the seconds that are measured.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Publishes of one client that are not acknowledged.
const IN_FLIGHT: usize = 100;

/// Netflix's rate.
const FLOW_PER_S: u64 = 900;

/// Messages of the flow that are sent at a time.
const FLOW_AT_ONCE: u64 = 9;

/// Records of the log: where they begin, and how many.
pub struct Span {
    begins: BTreeMap<i32, i64>,
    records: u64,
}

/// Puts the records of `events` at the end of the log.
pub async fn store_in_kafka(parts: &Parts, events: &[StateEvent]) -> Span {
    let inspector = Inspector::new(&parts.kafka, "bench").expect("good settings");
    let begins = inspector.end_offsets(kafka_topic::EVENTS).await.expect("Kafka answers");
    let (answers, mut answered) = mpsc::channel(10_000);
    let answer = move |id: EffectId, outcome| {
        let _nobody_waits = answers.blocking_send((id, outcome));
    };
    let producer = Producer::start(&parts.kafka, "bench", events.len(), answer).expect("good settings");
    for (id, event) in (0..).map(EffectId).zip(events) {
        let record = OutgoingRecord {
            topic: kafka_topic::EVENTS,
            key: event.topic().to_string().into(),
            value: event.encode().into(),
            timestamp: dmp_service::drive::wall(),
            headers: vec![],
        };
        producer.produce(id, record).expect("the queue has room for all");
    }
    for _ in events {
        let (_, outcome) = answered.recv().await.expect("each record is answered");
        assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
    }
    Span { begins, records: events.len() as u64 }
}

/// The time in which a registry reflects a part of the log in an empty store, from its first record on.
pub async fn reflect(parts: &Parts, span: &Span) -> Duration {
    let store = parts.new_store().await;
    let config = registry_of(parts, &store, group_at(parts, &span.begins).await);
    let running = registry::start(config, store.open(Access::Write).await, registry::Faults::default());
    let running = running.await.expect("the registry starts");
    let took = passes(running.http(), "dmp_registry_reflected_total", span.records).await;
    stop(running).await;
    parts.remove(store).await;
    took
}

/// The time in which a bridge forwards a backlog of messages, from the first on: in Kafka, and acknowledged.
pub async fn forward(parts: &Parts, messages: u64) -> Duration {
    let config = bridge::Config::between(parts.mqtt.clone(), parts.kafka.clone());
    let client_id = config.shards.client_id(0);
    Session::open(parts, &client_id, subscriptions(0, 1)).await.close().await;
    publish(parts, messages).await;
    let running = bridge::start(config).await.expect("the bridge starts");
    let took = passes(running.http(), "dmp_bridge_forwarded_total", messages).await;
    stop(running).await;
    Session::open(parts, &client_id, Vec::new()).await.forget(parts).await;
    took
}

/// Publishes so many messages at QoS 1, and waits until the broker has all.
pub async fn publish(parts: &Parts, messages: u64) {
    let mut session = Session::open(parts, &parts.name("publisher"), Vec::new()).await;
    let mut in_flight = 0;
    for event in mixed(messages) {
        if in_flight == IN_FLIGHT {
            session.acknowledged().await;
            in_flight -= 1;
        }
        session.publish(&event);
        in_flight += 1;
    }
    for _ in 0..in_flight {
        session.acknowledged().await;
    }
    session.forget(parts).await;
}

/// The whole pipeline with messages on their way through it.
pub struct Flow {
    store: NewStore,
    reader: Database,
    bridge: Running,
    registry: Running,
    changes: mpsc::Sender<u64>,
    changed: AtomicU64,
    wanted: Arc<AtomicBool>,
    flowing: JoinHandle<()>,
}

/// The device that is watched; the flow's are others.
const WATCHED: u64 = 30_000_000;

impl Flow {
    pub async fn start(parts: &Parts) -> Flow {
        let store = parts.new_store().await;
        let inspector = Inspector::new(&parts.kafka, "bench").expect("good settings");
        let ends = inspector.end_offsets(kafka_topic::EVENTS).await.expect("Kafka answers");
        let config = registry_of(parts, &store, group_at(parts, &ends).await);
        let database = store.open(Access::Write).await;
        let registry = registry::start(config, database, registry::Faults::default()).await.expect("it starts");
        let config = bridge::Config::between(parts.mqtt.clone(), parts.kafka.clone());
        let bridge = bridge::start(config).await.expect("the bridge starts");
        for running in [&bridge, &registry] {
            ready(running.http()).await;
        }
        let (changes, asked) = mpsc::channel(1);
        let wanted = Arc::new(AtomicBool::new(true));
        let session = Session::open(parts, &parts.name("flow"), Vec::new()).await;
        let flowing = tokio::spawn(flow(session, asked, wanted.clone()));
        let reader = store.open(Access::Read).await;
        let changed = AtomicU64::new(0);
        let flow = Flow { store, reader, bridge, registry, changes, changed, wanted, flowing };
        flow.change().await;
        flow
    }

    /// From a publish until a reader sees it.
    pub async fn change(&self) -> Duration {
        let seq = self.changed.fetch_add(1, Ordering::Relaxed) + 1;
        let device = state(WATCHED, seq).device;
        let began = Instant::now();
        self.changes.send(seq).await.expect("the flow goes on");
        let shown = async {
            loop {
                let records = self.reader.records_of(&[device]).await.expect("the store answers");
                let record = records.get(&device);
                let newest = record.and_then(|record| record.attributes.values().map(|(_, at)| at.seq.get()).max());
                if newest >= Some(seq) {
                    return;
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        };
        tokio::time::timeout(PATIENCE, shown).await.expect("the change is shown");
        began.elapsed()
    }

    pub async fn stop(self) {
        self.wanted.store(false, Ordering::Relaxed);
        self.flowing.await.expect("the flow does not panic");
        stop(self.bridge).await;
        stop(self.registry).await;
    }
}

/// Publishes 900 messages a second, and the change of the watched device that is asked for at once.
async fn flow(mut session: Session, mut asked: mpsc::Receiver<u64>, wanted: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * FLOW_AT_ONCE as u32 / FLOW_PER_S as u32);
    let events = mixed(FLOW_PER_S * 60);
    let mut events = events.iter().cycle();
    while wanted.load(Ordering::Relaxed) {
        tokio::select! {
            Some(seq) = asked.recv() => session.publish(&state(WATCHED, seq)),
            _ = ticks.tick() => {
                for event in events.by_ref().take(FLOW_AT_ONCE as usize) {
                    session.publish(event);
                }
            }
            _acknowledged = session.next() => {}
        }
    }
}

/// One MQTT connection.
pub struct Session {
    client: Client,
    options: ConnectOptions,
    packet: u16,
}

const CONNECTION: ConnectionId = ConnectionId(1);

impl Session {
    /// Connects with a session that stays, and subscribes.
    pub async fn open(parts: &Parts, client_id: &str, filters: Vec<String>) -> Session {
        let options = parts.mqtt.options(client_id, false);
        let mut session = Session { client: Client::new(parts.dialer.clone()), options, packet: 0 };
        session.client.connect(CONNECTION, session.options.clone());
        while !matches!(session.next().await, Incoming::Connected { .. }) {}
        if !filters.is_empty() {
            let packet = session.packet();
            session.client.subscribe(CONNECTION, packet, filters);
            while !matches!(session.next().await, Incoming::Subscribed(_)) {}
        }
        session
    }

    pub async fn next(&mut self) -> Incoming {
        let (_, incoming) = tokio::time::timeout(PATIENCE, self.client.next()).await.expect("the broker answers");
        assert!(!matches!(incoming, Incoming::Closed(_)), "{incoming:?}");
        incoming
    }

    pub fn publish(&mut self, event: &StateEvent) {
        let topic = event.topic().to_string().into();
        let publication = Publication { topic, payload: event.encode().into(), qos: Qos::AtLeastOnce, retain: false };
        let packet = self.packet();
        self.client.publish(CONNECTION, Some(packet), false, &publication);
    }

    pub fn acknowledge(&mut self, packet: PacketId) {
        self.client.acknowledge(CONNECTION, packet);
    }

    async fn acknowledged(&mut self) {
        while !matches!(self.next().await, Incoming::Acknowledged(_)) {}
    }

    /// Disconnects; the broker keeps what comes for the session.
    pub async fn close(mut self) {
        self.client.disconnect(CONNECTION);
        let closed = async { while !matches!(self.client.next().await.1, Incoming::Closed(_)) {} };
        tokio::time::timeout(PATIENCE, closed).await.expect("the connection closes");
    }

    /// Disconnects, and lets the broker forget the session.
    pub async fn forget(self, parts: &Parts) {
        let options = ConnectOptions { clean_session: true, ..self.options.clone() };
        self.close().await;
        let mut session = Session { client: Client::new(parts.dialer.clone()), options, packet: 0 };
        session.client.connect(CONNECTION, session.options.clone());
        while !matches!(session.next().await, Incoming::Connected { .. }) {}
        session.close().await;
    }

    fn packet(&mut self) -> PacketId {
        self.packet = self.packet % u16::MAX + 1;
        PacketId(self.packet)
    }
}

fn registry_of(parts: &Parts, store: &NewStore, group: String) -> registry::Config {
    let defaults = registry::Config::reading(parts.kafka.clone());
    registry::Config {
        group,
        start: config::Start::Earliest,
        feedback: registry::Feedback { enabled: Some(false), ..defaults.feedback },
        store: registry::StoreConfig { url: store.url(), ..defaults.store },
        ..defaults
    }
}

/// A new group that is to read from these offsets on.
async fn group_at(parts: &Parts, offsets: &BTreeMap<i32, i64>) -> String {
    let group = parts.name("group");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &parts.kafka.bootstrap).set("group.id", &group).set("enable.auto.commit", "false");
    let offsets = offsets.clone();
    let committed = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(kafka_topic::EVENTS, partition, rdkafka::Offset::Offset(offset))?;
        }
        consumer.commit(&list, CommitMode::Sync)
    });
    committed.await.expect("nothing panics").expect("the group can be placed");
    group
}

/// The time in which a counter passes `all`, from its first move on: before it a group is joined, or a connection made.
async fn passes(http: SocketAddr, name: &str, all: u64) -> Duration {
    let passed = async {
        let mut first = 0;
        while first == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            first = counter(http, name).await;
        }
        let began = Instant::now();
        assert!(first < all, "{first} of {all} had passed at the first look");
        while counter(http, name).await < all {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // What had passed before the clock began is not timed.
        began.elapsed().mul_f64(all as f64 / (all - first) as f64)
    };
    tokio::time::timeout(PATIENCE, passed).await.expect("all passes in time")
}

/// Sum of a counter over its labels.
async fn counter(http: SocketAddr, name: &str) -> u64 {
    let text = get(http, "/metrics").await;
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).unwrap_or(0.0);
    text.lines().filter(of).map(value).sum::<f64>() as u64
}

/// Waits until all parts of a program work.
async fn ready(http: SocketAddr) {
    let works = async {
        while !get(http, "/readyz").await.starts_with("HTTP/1.0 200") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("the program works in time");
}

async fn get(http: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(http).await.expect("the program answers");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

async fn stop(mut running: Running) {
    running.stop();
    running.wait().await.expect("the program ends well");
}
