//! The Kafka cluster: whether it is reached, has the topics, lets this client read and, where it must, write; and how the
//! topics are set.

use std::time::Duration;

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::{Topic, kafka_topic},
};
use dmp_service::{
    config::Kafka,
    kafka::{
        Producer,
        inspect::{Inspector, TopicSettings},
        topics,
    },
};
use tokio::sync::mpsc;

use super::{Finding, Mark, presence, rae, right, unknown, words, wrong};
use crate::{
    live::{clock, deployed::Deployed},
    target::{Deployment, Topics},
};

const SERVER: &str = "kafka";

/// Longest wait for a broker to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Longest wait for one request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait for a record to be stored.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// A payload has at most 256 KiB, and its key, headers and batch some hundred bytes more.
const LEAST_MESSAGE_BYTES: u64 = 260 << 10;

/// What the bridge says of when it received a message must stay.
const TIMESTAMP_TYPE: &str = "CreateTime";

/// What the readers of a run cannot do without.
pub(super) async fn essentials(deployed: &Deployed) -> Vec<Finding> {
    let deployment = &deployed.deployment;
    let kafka = patient(deployed);
    if let Err(error) = topics::wait_for(&kafka, &[], ANSWERS_WITHIN).await {
        return vec![wrong(SERVER, words(&error.into()))];
    }
    let mut found = vec![right(SERVER, format!("{} answers", kafka.bootstrap))];
    let inspector = match Inspector::new(&kafka, &deployment.kafka.group) {
        Ok(inspector) => inspector,
        Err(error) => return vec![wrong(SERVER, words(&error.into()))],
    };
    for topic in looked_at(deployment) {
        found.extend(of_topic(&inspector, topic, &deployment.kafka.topics).await);
    }
    found.push(of_group(&inspector, deployment).await);
    found
}

/// Everything.
pub(super) async fn look(deployed: &Deployed) -> Vec<Finding> {
    let mut found = essentials(deployed).await;
    if deployed.deployment.bring.bridge && found.iter().all(|finding| finding.mark != Mark::Wrong) {
        found.push(write(deployed, &patient(deployed)).await);
    }
    found
}

async fn of_topic(inspector: &Inspector, topic: &str, topics: &Topics) -> Vec<Finding> {
    let ends = match inspector.end_offsets(topic).await {
        Ok(ends) => ends,
        Err(error) => return vec![wrong(SERVER, words(&error.into()))],
    };
    let read = match inspector.read(topic).await {
        Ok(()) => right(SERVER, format!("topic {topic} has {} partitions, and may be read", ends.len())),
        Err(error) => wrong(SERVER, format!("records of {topic} may not be read: {}", words(&error.into()))),
    };
    let mut found = vec![read];
    match inspector.settings(topic).await {
        Ok(settings) => found.extend(of_settings(&settings, topic, topic == topics.events)),
        Err(error) => {
            let text = format!("how {topic} is set may not be known: {}", words(&error.into()));
            found.push(unknown(SERVER, text));
        }
    }
    found
}

async fn of_group(inspector: &Inspector, deployment: &Deployment) -> Finding {
    let group = &deployment.kafka.group;
    match inspector.committed(&deployment.kafka.topics.events).await {
        Ok(committed) if committed.is_empty() && !deployment.bring.registry => unknown(
            SERVER,
            format!("group {group} has committed nothing yet: is it the group of the registry that runs there?"),
        ),
        Ok(_) => right(SERVER, format!("what group {group} commits may be read")),
        Err(error) => wrong(SERVER, format!("what group {group} commits may not be read: {}", words(&error.into()))),
    }
}

/// How a topic is set; the times of records, and records that are older than the newest of their key, are of use only in that of
/// the `events`.
fn of_settings(settings: &TopicSettings, topic: &str, events: bool) -> Vec<Finding> {
    let mut found = vec![match settings.max_message_bytes {
        Some(bytes) if bytes < LEAST_MESSAGE_BYTES => wrong(
            SERVER,
            format!(
                "max.message.bytes of {topic} is {bytes}; a payload of 256 KiB needs at least {LEAST_MESSAGE_BYTES}"
            ),
        ),
        Some(bytes) => right(SERVER, format!("max.message.bytes of {topic} is {bytes}")),
        None => unknown(SERVER, format!("max.message.bytes of {topic} is not told")),
    }];
    if events {
        found.push(match settings.timestamp_type.as_deref() {
            Some(TIMESTAMP_TYPE) => right(SERVER, format!("message.timestamp.type of {topic} is {TIMESTAMP_TYPE}")),
            Some(other) => wrong(
                SERVER,
                format!(
                    "message.timestamp.type of {topic} is {other}; set {TIMESTAMP_TYPE}, else the time at which a bridge \
                     received a message is lost"
                ),
            ),
            None => unknown(SERVER, format!("message.timestamp.type of {topic} is not told")),
        });
        found.push(match settings.cleanup_policy.as_deref() {
            Some(policy) if policy.contains("compact") => wrong(
                SERVER,
                format!(
                    "cleanup.policy of {topic} is {policy}; set delete, else the attributes of older records are lost: of \
                     those with one key a compacted topic keeps the newest alone, and an update holds only what changed"
                ),
            ),
            Some(policy) => right(SERVER, format!("cleanup.policy of {topic} is {policy}")),
            None => unknown(SERVER, format!("cleanup.policy of {topic} is not told")),
        });
    }
    found
}

/// Writes what a bridge would: the status of a RAE of the run.
async fn write(deployed: &Deployed, kafka: &Kafka) -> Finding {
    let record = OutgoingRecord {
        topic: kafka_topic::EVENTS,
        key: Topic::Status(rae(deployed)).to_string().into(),
        value: presence().encode().into(),
        timestamp: clock::wall(),
        headers: Vec::new(),
    };
    let (answers, mut answered) = mpsc::channel(1);
    let answer = move |_, outcome| {
        // Nobody waits any more once the time is up.
        let _gone = answers.try_send(outcome);
    };
    // It is to say what is wrong, and not to try for long.
    let kafka = Kafka { message_timeout: STORED_WITHIN / 2, ..kafka.clone() };
    let topic = kafka_topic::EVENTS;
    let producer = match Producer::start(&kafka, "fleetproof-doctor", 1, answer) {
        Ok(producer) => producer,
        Err(error) => return wrong(SERVER, words(&error.into())),
    };
    if let Err(outcome) = producer.produce(EffectId(1), record) {
        return wrong(SERVER, format!("records may not be written to {topic}: {outcome:?}"));
    }
    match tokio::time::timeout(STORED_WITHIN, answered.recv()).await {
        Ok(Some(ProduceOutcome::Stored { .. })) => right(SERVER, format!("records may be written to {topic}")),
        Ok(Some(outcome)) => wrong(SERVER, format!("records may not be written to {topic}: {outcome:?}")),
        Ok(None) | Err(_) => wrong(SERVER, format!("a record for {topic} was not stored within {STORED_WITHIN:?}")),
    }
}

fn looked_at(deployment: &Deployment) -> Vec<&str> {
    let (topics, observe) = (&deployment.kafka.topics, deployment.observe);
    let mut looked_at = vec![topics.events.as_str()];
    if observe.commands {
        looked_at.extend([topics.commands.as_str(), topics.replies.as_str()]);
    }
    if observe.dead_letters {
        looked_at.push(&topics.dead_letter);
    }
    looked_at
}

fn patient(deployed: &Deployed) -> Kafka {
    Kafka { request_timeout: REQUEST_WITHIN, ..deployed.kafka() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_takes_the_longest_payload_and_that_of_events_keeps_every_record_and_the_time_of_its_bridge() {
        let marks = |bytes: Option<u64>, stamps: Option<&str>, policy: Option<&str>, events| {
            let settings = TopicSettings {
                max_message_bytes: bytes,
                timestamp_type: stamps.map(str::to_owned),
                cleanup_policy: policy.map(str::to_owned),
            };
            of_settings(&settings, "dmp.events", events).iter().map(|finding| finding.mark).collect::<Vec<_>>()
        };
        let (created, appended, deleted) = (Some("CreateTime"), Some("LogAppendTime"), Some("delete"));
        let room = Some(1_048_588);
        assert_eq!(marks(room, created, deleted, true), [Mark::Right, Mark::Right, Mark::Right]);
        assert_eq!(marks(room, appended, deleted, true), [Mark::Right, Mark::Wrong, Mark::Right]);
        assert_eq!(marks(room, created, Some("compact,delete"), true), [Mark::Right, Mark::Right, Mark::Wrong]);
        assert_eq!(marks(Some(262_144), appended, Some("compact"), false), [Mark::Wrong], "no room for the key");
        assert_eq!(marks(None, None, None, true), [Mark::Unknown, Mark::Unknown, Mark::Unknown]);
    }
}
