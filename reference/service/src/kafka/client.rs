//! librdkafka settings, and its words into our log.

use std::sync::{Mutex, PoisonError};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError as NativeError, RDKafkaErrorCode},
};

use super::{Fetch, KafkaError};
use crate::config::{Kafka, KafkaSecurity};

/// Settings of a client: those that all share, then its `own`, then what the operator wants instead. Those on which
/// delivery rests are refused by the check of the configuration.
fn settings(
    kafka: &Kafka,
    client_id: &str,
    own: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<ClientConfig, KafkaError> {
    let mut config = shared(kafka, client_id)?;
    for (key, value) in own {
        config.set(key, value);
    }
    for (key, value) in &kafka.extra {
        config.set(key, value);
    }
    Ok(config)
}

fn shared(kafka: &Kafka, client_id: &str) -> Result<ClientConfig, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("client.id", client_id)
        .set("socket.nagle.disable", "true")
        .set("socket.timeout.ms", millis(kafka.request_timeout))
        .set("reconnect.backoff.ms", "50")
        // The default of 10 s is what a broker that is just starting would cost.
        .set("reconnect.backoff.max.ms", "300")
        .set("log_level", "5")
        .set_log_level(RDKafkaLogLevel::Notice);
    if let Some(security) = &kafka.security {
        secure(&mut config, security)?;
    }
    Ok(config)
}

/// Settings of a client that asks and makes, and neither reads nor writes records.
pub(super) fn admin(kafka: &Kafka, client_id: &str) -> Result<ClientConfig, KafkaError> {
    settings(kafka, client_id, [])
}

/// Settings of a producer: idempotent, and an outage is back-pressure for `message_timeout`.
pub(super) fn producer(kafka: &Kafka, client_id: &str) -> Result<ClientConfig, KafkaError> {
    let own = [
        ("enable.idempotence", "true".to_owned()),
        ("acks", "all".to_owned()),
        ("linger.ms", millis(kafka.linger)),
        ("message.timeout.ms", millis(kafka.message_timeout)),
        // The default hash disagrees with Java producers.
        ("partitioner", "murmur2_random".to_owned()),
        ("queue.buffering.max.kbytes", (kafka.producer_buffer / 1024).to_string()),
    ];
    settings(kafka, client_id, own)
}

/// Settings of a group member whose offsets are committed by hand.
pub(super) fn consumer(kafka: &Kafka, client_id: &str, group: &str, fetch: Fetch) -> Result<ClientConfig, KafkaError> {
    let member = [
        ("partition.assignment.strategy", "range".to_owned()),
        ("session.timeout.ms", millis(kafka.session_timeout)),
        ("heartbeat.interval.ms", millis(kafka.session_timeout / 5)),
        ("max.poll.interval.ms", millis(kafka.max_poll_interval.max(kafka.session_timeout))),
    ];
    let own = reading(kafka, group, fetch).into_iter().chain(member);
    settings(kafka, client_id, own)
}

/// Settings of a consumer of assigned partitions, from the oldest record on. librdkafka wants a group in name, and it
/// gets its own name; it neither joins nor commits.
pub(super) fn reader(kafka: &Kafka, client_id: &str, fetch: Fetch) -> Result<ClientConfig, KafkaError> {
    settings(kafka, client_id, reading(kafka, client_id, fetch))
}

fn reading(kafka: &Kafka, group: &str, fetch: Fetch) -> [(&'static str, String); 11] {
    let (min_bytes, wait_ms) = match fetch {
        Fetch::Prompt => (1, 100),
        Fetch::Bulk => (64 * 1024, 20),
    };
    [
        ("group.id", group.to_owned()),
        // Reading starts at explicit offsets; this is where it goes on when retention has deleted the next record.
        ("auto.offset.reset", "earliest".to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        // Else what the closing consumer polls and throws away would be committed unread.
        ("enable.auto.offset.store", "false".to_owned()),
        ("queued.max.messages.kbytes", (kafka.consumer_buffer / 1024).to_string()),
        ("queued.min.messages", "10000".to_owned()),
        ("fetch.min.bytes", min_bytes.to_string()),
        ("fetch.wait.max.ms", wait_ms.to_string()),
        ("fetch.error.backoff.ms", "100".to_owned()),
        // The default lets a full prefetch queue rest for a second.
        ("fetch.queue.backoff.ms", "20".to_owned()),
        ("allow.auto.create.topics", "false".to_owned()),
    ]
}

fn secure(config: &mut ClientConfig, security: &KafkaSecurity) -> Result<(), KafkaError> {
    if security.needs_openssl() && !cfg!(feature = "kafka-tls") {
        return Err(KafkaError::WithoutTls);
    }
    let protocol = match (security.tls, security.sasl_mechanism.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    let files = [
        ("ssl.ca.location", &security.ca),
        ("ssl.certificate.location", &security.certificate),
        ("ssl.key.location", &security.key),
    ];
    for (key, path) in files {
        if let Some(path) = path {
            config.set(key, path.to_string_lossy());
        }
    }
    let texts = [
        ("sasl.mechanisms", security.sasl_mechanism.as_deref()),
        ("sasl.username", security.username.as_deref()),
        ("sasl.password", security.password.reveal()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            config.set(key, text);
        }
    }
    Ok(())
}

fn millis(duration: std::time::Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// Sends librdkafka's words into our log and remembers the last error.
#[derive(Debug, Default)]
pub(super) struct Words {
    last: Mutex<Option<String>>,
}

impl Words {
    /// What librdkafka complained of last.
    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Words {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(facility, "kafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::trace!(facility, "kafka: {message}"),
        }
    }

    fn error(&self, error: NativeError, reason: &str) {
        tracing::warn!("kafka: {reason}");
        // "All brokers are down" follows each real reason and would hide it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn kafka(mechanism: &str) -> Kafka {
        let security = KafkaSecurity {
            tls: true,
            ca: Some("/certificates/ca.pem".into()),
            sasl_mechanism: Some(mechanism.to_owned()),
            username: Some("registry".to_owned()),
            password: Secret::new("secret"),
            ..KafkaSecurity::default()
        };
        Kafka { security: Some(security), ..Kafka::at("127.0.0.1:1") }
    }

    #[test]
    fn what_the_operator_sets_reaches_every_client_and_wins_over_our_own_settings() {
        let mut kafka = Kafka::at("127.0.0.1:1");
        for (key, value) in [("socket.nagle.disable", "false"), ("fetch.wait.max.ms", "7"), ("linger.ms", "9")] {
            kafka.extra.insert(key.to_owned(), value.to_owned());
        }
        for made in [
            admin(&kafka, "c"),
            producer(&kafka, "c"),
            reader(&kafka, "c", Fetch::Prompt),
            consumer(&kafka, "c", "g", Fetch::Bulk),
        ] {
            let made = made.expect("no security");
            let value = |key| made.get(key).expect("a value");
            assert_eq!(["socket.nagle.disable", "fetch.wait.max.ms", "linger.ms"].map(value), ["false", "7", "9"]);
        }
    }

    #[test]
    fn only_bulk_lets_the_broker_wait_for_more_than_one_record() {
        let kafka = Kafka::at("127.0.0.1:1");
        for (fetch, wanted) in [(Fetch::Prompt, ["1", "100"]), (Fetch::Bulk, ["65536", "20"])] {
            for made in [reader(&kafka, "c", fetch), consumer(&kafka, "c", "g", fetch)] {
                let made = made.expect("no security");
                let value = |key| made.get(key).expect("a value");
                assert_eq!(["fetch.min.bytes", "fetch.wait.max.ms"].map(value), wanted, "{fetch:?}");
            }
        }
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn tls_and_scram_are_refused_by_a_build_without_them_and_the_feature_is_named() {
        let mut scram = kafka("SCRAM-SHA-512");
        scram.security.as_mut().expect("set above").tls = false;
        for kafka in [kafka("PLAIN"), scram] {
            for made in
                [producer(&kafka, "c"), consumer(&kafka, "c", "g", Fetch::Bulk), reader(&kafka, "c", Fetch::Prompt)]
            {
                let error = made.expect_err("never unprotected instead");
                assert!(error.to_string().contains("kafka-tls"), "{error}");
            }
        }
    }

    #[test]
    fn a_password_without_tls_needs_no_feature() {
        let mut kafka = kafka("PLAIN");
        let security = kafka.security.as_mut().expect("set above");
        (security.tls, security.ca) = (false, None);
        for made in [producer(&kafka, "c"), consumer(&kafka, "c", "g", Fetch::Bulk), reader(&kafka, "c", Fetch::Prompt)]
        {
            let native = made.expect("any build").create_native_config().expect("librdkafka knows the keys");
            let value = |key: &str| native.get(key).expect("a value");
            assert_eq!([value("security.protocol"), value("sasl.mechanisms")], ["sasl_plaintext", "PLAIN"]);
            assert_eq!([value("sasl.username"), value("sasl.password")], ["registry", "secret"]);
        }
    }

    #[cfg(feature = "kafka-tls")]
    #[test]
    fn security_reaches_librdkafka_and_it_knows_the_mechanisms() {
        use rdkafka::consumer::BaseConsumer;

        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let kafka = kafka(mechanism);
            for made in
                [producer(&kafka, "c"), consumer(&kafka, "c", "g", Fetch::Bulk), reader(&kafka, "c", Fetch::Prompt)]
            {
                let native = made.expect("a build with TLS").create_native_config().expect("librdkafka knows the keys");
                let value = |key: &str| native.get(key).expect("a value");
                assert_eq!(value("security.protocol"), "sasl_ssl");
                assert_eq!(value("sasl.mechanisms"), mechanism);
                assert_eq!([value("sasl.username"), value("sasl.password")], ["registry", "secret"]);
                assert_eq!(value("ssl.ca.location"), "/certificates/ca.pem");
            }
            // A client is only made where the mechanism is built in; authorities are read then, so the system's here.
            let mut config = consumer(&kafka, "c", "g", Fetch::Bulk).expect("a build with TLS");
            config.remove("ssl.ca.location");
            let _client: BaseConsumer = config.create().unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        }
    }

    #[cfg(feature = "kafka-tls")]
    #[test]
    fn tls_and_sasl_are_chosen_one_by_one_and_a_certificate_can_be_the_name() {
        let protocol = |tls, sasl: Option<&str>| {
            let mut kafka = kafka("PLAIN");
            let security = kafka.security.as_mut().expect("set above");
            (security.tls, security.sasl_mechanism) = (tls, sasl.map(str::to_owned));
            security.certificate = Some("/certificates/bridge.pem".into());
            security.key = Some("/certificates/bridge.key".into());
            let config = admin(&kafka, "c").expect("a build with TLS");
            assert_eq!(config.get("ssl.certificate.location"), Some("/certificates/bridge.pem"));
            assert_eq!(config.get("ssl.key.location"), Some("/certificates/bridge.key"));
            config.get("security.protocol").map(str::to_owned)
        };
        assert_eq!(protocol(true, None).as_deref(), Some("ssl"));
        assert_eq!(protocol(false, Some("PLAIN")).as_deref(), Some("sasl_plaintext"));
        assert_eq!(protocol(true, Some("PLAIN")).as_deref(), Some("sasl_ssl"));
        assert_eq!(protocol(false, None).as_deref(), Some("plaintext"));
    }
}
