//! The rights of Kafka's users, as `reference/deploy` gives them: on Kafka in a container, each user does what its program
//! does, and nothing else. Needs the feature `containers` and a Docker engine; the passwords travel without TLS here, which
//! needs no OpenSSL in this build.
#![cfg(feature = "containers")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::kafka_topic,
};
use dmp_service::{
    config::{Kafka, KafkaSecurity, Secret},
    drive::wall,
    kafka::{KafkaError, Producer, inspect::Inspector, topics},
    registry::{self, Faults},
    store::{Access, Record, SqliteStore, Store, StoreUrl},
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaErrorCode as Code,
};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{ContainerPort, ExecCommand, WaitFor},
    runners::AsyncRunner,
};
use tokio::time::{sleep, timeout};

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(180);

/// In which a reader has to see a record, or its refusal.
const POLLS: u32 = 1800;

const TOPICS: [&str; 4] = [kafka_topic::EVENTS, kafka_topic::COMMANDS, kafka_topic::REPLIES, kafka_topic::DEAD_LETTER];

/// Kafka as it is deployed, but for TLS and the address; stopped and removed when dropped.
struct Server {
    bootstrap: String,
    secrets: tempfile::TempDir,
    _container: ContainerAsync<GenericImage>,
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/deploy")
}

impl Server {
    async fn start() -> anyhow::Result<Server> {
        let secrets = tempfile::tempdir()?;
        let made = Command::new(deploy().join("secrets")).arg(secrets.path()).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let image = std::env::var("FLEETPROOF_IMAGE_KAFKA").unwrap_or_else(|_| "apache/kafka:4.1.0".to_owned());
        let (name, tag) = image.rsplit_once(':').context("FLEETPROOF_IMAGE_KAFKA is NAME:TAG")?;
        let mut request = GenericImage::new(name, tag)
            .with_wait_for(WaitFor::message_on_either_std("Kafka Server started"))
            .with_mapped_port(port, ContainerPort::Tcp(9092))
            .with_startup_timeout(PATIENCE)
            .with_env_var("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
            .with_env_var("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
            .with_env_var("KAFKA_ADVERTISED_LISTENERS", format!("CLIENTS://127.0.0.1:{port},INTERNAL://localhost:9093"))
            .with_env_var("KAFKA_LISTENERS", "CLIENTS://:9092,INTERNAL://localhost:9093,CONTROLLER://localhost:9094")
            .with_env_var(
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
                "CLIENTS:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            );
        let copies = [
            (deploy().join("kafka/server.properties"), "/mnt/shared/config/server.properties"),
            (deploy().join("kafka/setup"), "/deploy/setup"),
            (secrets.path().join("kafka/keystore.pem"), "/etc/kafka/secrets/keystore.pem"),
            (secrets.path().join("kafka/users.properties"), "/etc/kafka/secrets/users.properties"),
        ];
        for (from, to) in copies {
            request = request.with_copy_to(to, std::fs::read(&from).with_context(|| from.display().to_string())?);
        }
        let container = request.start().await.context("starting Kafka")?;
        // Whoever is inside is the node itself, and needs no password.
        let setup = ExecCommand::new(["bash", "/deploy/setup", "localhost:9093", "/dev/null"]);
        let mut ran = container.exec(setup).await.context("running the setup")?;
        let said = ran.stderr_to_vec().await?;
        ensure!(ran.exit_code().await? == Some(0), "{}", String::from_utf8_lossy(&said));
        Ok(Server { bootstrap: format!("127.0.0.1:{port}"), secrets, _container: container })
    }

    fn password(&self, user: &str) -> String {
        let file = self.secrets.path().join(user).join("kafka-password");
        std::fs::read_to_string(file).expect("the script made it").trim().to_owned()
    }

    fn as_user(&self, user: &str) -> Kafka {
        self.with(Some((user, &self.password(user))))
    }

    fn with(&self, credentials: Option<(&str, &str)>) -> Kafka {
        let security = credentials.map(|(user, password)| KafkaSecurity {
            sasl_mechanism: Some("PLAIN".to_owned()),
            username: Some(user.to_owned()),
            password: Secret::new(password),
            ..KafkaSecurity::default()
        });
        Kafka { security, message_timeout: PATIENCE, ..Kafka::at(&self.bootstrap) }
    }

    fn native(&self, user: &str, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanisms", "PLAIN")
            .set("sasl.username", user)
            .set("sasl.password", self.password(user))
            .set("group.id", group)
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("auto.offset.reset", "earliest");
        config
    }

    /// Writes one record by the adapter of the programs.
    async fn write(&self, user: &str, topic: &'static str, key: &str, value: &str) -> ProduceOutcome {
        let (answer, mut answered) = tokio::sync::mpsc::channel(1);
        let producer = Producer::start(&self.as_user(user), user, 1, move |_, outcome| {
            answer.blocking_send(outcome).expect("the test waits");
        })
        .expect("good settings");
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        // Of today: what is older than the retention time is gone at the broker's first look, half a minute after its start.
        let record = OutgoingRecord { topic, key, value, timestamp: wall(), headers: vec![] };
        producer.produce(EffectId(1), record).expect("there is room");
        timeout(PATIENCE, answered.recv()).await.expect("in time").expect("the producer lives")
    }

    /// Reads one record as a member of a group; or the error that says that it may not.
    async fn read(&self, user: &str, group: &str, topic: &'static str) -> Result<(), Code> {
        let consumer: BaseConsumer = self.native(user, group).create().expect("good settings");
        let reading = tokio::task::spawn_blocking(move || {
            consumer.subscribe(&[topic]).expect("a topic");
            let mut said = Vec::new();
            for _ in 0..POLLS {
                match consumer.poll(PATIENCE / POLLS) {
                    None => {}
                    Some(Ok(_)) => return Ok(()),
                    Some(Err(error)) => match error.rdkafka_error_code() {
                        Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)) => {
                            return Err(code);
                        }
                        // A broker that has only just started.
                        Some(_) | None => said.push(error.to_string()),
                    },
                }
            }
            panic!("neither a record nor a refusal within {PATIENCE:?}: {said:?}")
        });
        reading.await.expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_of_kafka_does_what_its_program_does_and_nothing_else() -> anyhow::Result<()> {
    let server = Server::start().await?;
    writes_go_to_own_topics(&server).await;
    reads_come_from_own_topics_in_own_groups(&server).await;
    nobody_changes_topics(&server).await;
    strangers_are_told_why_they_do_not_come_in(&server).await;
    a_registry_needs_no_more(&server).await
}

async fn writes_go_to_own_topics(server: &Server) {
    use kafka_topic::{COMMANDS, DEAD_LETTER, EVENTS, REPLIES};
    let writers = [
        ("bridge", [EVENTS, REPLIES, DEAD_LETTER].as_slice()),
        ("registry", &[COMMANDS, DEAD_LETTER]),
        ("commander", &[COMMANDS]),
        ("observer", &[]),
    ];
    for (user, own) in writers {
        for topic in TOPICS {
            let outcome = server.write(user, topic, "a key", "a value").await;
            match own.contains(&topic) {
                true => assert!(matches!(outcome, ProduceOutcome::Stored { .. }), "{user}, {topic}: {outcome:?}"),
                // Never taken for the record's fault, which would put it into quarantine. The producer of a user who may
                // write nowhere is stopped as a whole, and may purge the record before it is refused.
                false => assert!(
                    matches!(&outcome, ProduceOutcome::Failed { reason }
                        if reason.contains("uthoriz") || own.is_empty() && reason.contains("Purged")),
                    "{user}, {topic}: {outcome:?}"
                ),
            }
        }
    }
}

/// Every topic has a record by now.
async fn reads_come_from_own_topics_in_own_groups(server: &Server) {
    use kafka_topic::{COMMANDS, DEAD_LETTER, EVENTS, REPLIES};
    let may = [("bridge", "dmp-bridge", COMMANDS), ("registry", "dmp-registry", EVENTS)];
    for (user, group, topic) in may {
        assert_eq!(server.read(user, group, topic).await, Ok(()), "{user} in {group}, {topic}");
    }
    let may_not = [
        ("bridge", "dmp-bridge", EVENTS),
        ("bridge", "dmp-bridge", DEAD_LETTER),
        ("bridge", "dmp-registry", COMMANDS),
        ("registry", "dmp-registry", COMMANDS),
        ("registry", "dmp-registry", REPLIES),
        ("registry", "dmp-bridge", EVENTS),
        ("registry", "another", EVENTS),
        ("commander", "dmp-registry", REPLIES),
        ("commander", "dmp-command", EVENTS),
        ("observer", "dmp-registry", EVENTS),
    ];
    for (user, group, topic) in may_not {
        assert!(server.read(user, group, topic).await.is_err(), "{user} in {group}, {topic}");
    }
    let inspector = Inspector::new(&server.as_user("observer"), "dmp-registry").expect("good settings");
    for topic in TOPICS {
        let ends = inspector.end_offsets(topic).await.expect("it may look");
        assert_eq!(ends.values().filter(|end| **end > 0).count(), 1, "{topic}: one key, one partition");
    }
    inspector.committed(EVENTS).await.expect("it may look how far the group is");
    let registry = Inspector::new(&server.as_user("registry"), "dmp-registry").expect("good settings");
    let hidden = registry.end_offsets(REPLIES).await.map_err(|error| format!("{:#}", anyhow::Error::new(error)));
    assert!(hidden.as_ref().is_err_and(|words| words.contains("uthoriz")), "no right is not no topic: {hidden:?}");
    let admin = Inspector::new(&server.as_user("kafka-admin"), "dmp-registry").expect("good settings");
    let missing = admin.end_offsets("none").await;
    assert!(matches!(missing, Err(KafkaError::MissingTopics { .. })), "{missing:?}");
    let settings = inspector.settings(EVENTS).await.expect("it may look how topics are set");
    assert_eq!(settings.timestamp_type.as_deref(), Some("CreateTime"));
}

async fn nobody_changes_topics(server: &Server) {
    for user in ["bridge", "registry", "commander"] {
        let error = topics::create(&server.as_user(user), &[("more", 1)], 1).await.expect_err("it may not");
        assert!(matches!(&error, KafkaError::CreateTopic { reason, .. } if reason.contains("uthoriz")), "{error:?}");
    }
    topics::create(&server.as_user("kafka-admin"), &[("more", 1)], 1).await.expect("the administrator may");
}

async fn strangers_are_told_why_they_do_not_come_in(server: &Server) {
    let refused = async |credentials| {
        let within = Duration::from_secs(3);
        topics::wait_for(&server.with(credentials), &[kafka_topic::EVENTS], within).await.expect_err("it is a stranger")
    };
    for user in ["bridge", "nobody"] {
        let words = refused(Some((user, "hunter2"))).await.to_string();
        assert!(words.contains(&server.bootstrap) && words.contains("uthentication failed"), "{words}");
        assert!(!words.contains("hunter2"), "{words}");
    }
    // To who does not even ask, the broker says nothing and closes.
    let error = refused(None).await;
    assert!(matches!(error, KafkaError::Unreachable { .. }), "{error:?}");
}

/// The program itself, from the log to the store.
async fn a_registry_needs_no_more(server: &Server) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url: StoreUrl = format!("sqlite:{}", folder.path().join("store.db").display()).parse()?;
    let StoreUrl::Sqlite(url) = url else { unreachable!("it is a file") };
    let open = async || SqliteStore::open(&url, Access::Write).await;
    let mut running =
        registry::start(registry::Config::reading(server.as_user("registry")), open().await?, Faults::default())
            .await?;
    let topic = "dmp/v1/s07/RAE-0000042/6f1c1a2e-3d21-4b7a-9d55-0d7f53c1a001/state";
    let snapshot = r#"{"v":1,"kind":"snapshot","device":"0b5e7c1e-6a64-5d0e-9a4b-6a8a3f1d2c3b","epoch":1,"seq":1,
        "at":"2026-01-01T00:00:00.000Z","attributes":{"firmware":["7.2.1",1]}}"#;
    let outcome = server.write("bridge", kafka_topic::EVENTS, topic, snapshot).await;
    ensure!(matches!(outcome, ProduceOutcome::Stored { .. }), "{outcome:?}");
    let store = open().await?;
    let shown = async {
        loop {
            let records: Vec<Record> = store.records().await?.into_values().collect();
            if let [record] = &records[..] {
                return anyhow::Ok(record.rae.as_str().to_owned());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, shown).await.context("the record does not reach the store")??, "RAE-0000042");
    running.stop();
    running.wait().await
}
