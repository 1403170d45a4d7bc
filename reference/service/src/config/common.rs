//! The parts of a configuration that several programs share.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ConfigError, Fault,
    unit::{duration, size},
};
use crate::mqtt;

/// A password: never shown, never written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Option<String>);

impl Secret {
    /// This secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(Some(secret.into()))
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// From the environment, else from the file that `key` names, less its last line break.
    pub(crate) fn load(
        &mut self,
        key: &str,
        from_environment: Option<String>,
        file: Option<&Path>,
    ) -> Result<(), ConfigError> {
        if let Some(secret) = from_environment {
            self.0 = Some(secret);
        } else if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Secret {
                key: key.to_owned(),
                path: path.to_owned(),
                source,
            })?;
            self.0 = Some(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(set)" } else { "Secret(none)" })
    }
}

/// The MQTT broker and how to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `host:port`.
    pub address: String,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File that holds the password; the environment variable `<PREFIX>MQTT_PASSWORD` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The password.
    #[serde(skip)]
    pub password: Secret,
    /// TLS; absent for plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<MqttTls>,
    /// Keep-alive interval.
    #[serde(with = "duration", default = "thirty_seconds")]
    pub keep_alive: Duration,
    /// Longest wait for a connection: TCP, TLS and CONNACK together.
    #[serde(with = "duration", default = "five_seconds")]
    pub connect_timeout: Duration,
}

/// TLS of the MQTT connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttTls {
    /// PEM file of the authorities to trust; absent for the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Name that the broker's certificate must hold, where it is not the host of `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl Mqtt {
    /// A broker at `address` with everything else as by default.
    pub fn at(address: impl Into<String>) -> Mqtt {
        Mqtt {
            address: address.into(),
            username: None,
            password_file: None,
            password: Secret::default(),
            tls: None,
            keep_alive: thirty_seconds(),
            connect_timeout: five_seconds(),
        }
    }

    /// The client that dials this broker; reads the certificate files.
    ///
    /// # Errors
    /// [`mqtt::ConnectError::TlsSettings`] where a file or the host name is of no use.
    ///
    /// # Panics
    /// If the address is not `host:port`, which loading a configuration refuses.
    pub fn dialer(&self) -> Result<mqtt::Dialer, mqtt::ConnectError> {
        let (host, port) = split_address(&self.address).expect("the address was checked");
        let endpoint = mqtt::Endpoint { host: host.to_owned(), port, tls: self.tls.is_some() };
        let tls = self.tls.clone().unwrap_or_default();
        let identity = tls.certificate.zip(tls.key);
        let settings = mqtt::TlsSettings {
            authorities: tls.ca,
            server_name: tls.server_name,
            identity: identity.map(|(certificate, key)| mqtt::ClientIdentity { certificate, key }),
        };
        Ok(mqtt::Dialer::new(endpoint, &settings)?.within(self.connect_timeout))
    }

    /// What a CONNECT of `client_id` says.
    #[must_use]
    pub fn options(&self, client_id: &str, clean_session: bool) -> mqtt::ConnectOptions {
        mqtt::ConnectOptions {
            client_id: client_id.into(),
            clean_session,
            keep_alive: self.keep_alive,
            will: None,
            credentials: self
                .username
                .clone()
                .map(|user| mqtt::Credentials { user, password: self.password.reveal().map(mqtt::Secret::new) }),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        check_address("mqtt.address", &self.address)?;
        check_positive("mqtt.connect_timeout", self.connect_timeout)?;
        if self.keep_alive < Duration::from_secs(1) || self.keep_alive > Duration::from_secs(65_535) {
            return Err(Fault::at("mqtt.keep_alive", "must be within \"1s\" and \"65535s\""));
        }
        match &self.tls {
            Some(MqttTls { certificate: Some(_), key: None, .. }) => {
                Err(Fault::at("mqtt.tls", "a client certificate needs its `key`"))
            }
            Some(MqttTls { certificate: None, key: Some(_), .. }) => {
                Err(Fault::at("mqtt.tls", "a key needs its `certificate`"))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn load_secret(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        self.password.load("mqtt.password_file", environment("MQTT_PASSWORD"), self.password_file.as_deref())
    }
}

/// The Kafka cluster and how to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub bootstrap: String,
    /// TLS and SASL; absent for a plain connection. All but SASL PLAIN without TLS needs the cargo feature `kafka-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<KafkaSecurity>,
    /// How long the producer keeps trying to store a record. Long, so that an outage is back-pressure and no failure.
    #[serde(with = "duration", default = "five_minutes")]
    pub message_timeout: Duration,
    /// How long the producer waits for company for a record.
    #[serde(with = "duration", default = "five_millis")]
    pub linger: Duration,
    /// Bound of what the producer buffers; full means that its caller waits.
    #[serde(with = "size", default = "sixty_four_mib")]
    pub producer_buffer: usize,
    /// Bound of what the consumer fetches ahead, over all its partitions.
    #[serde(with = "size", default = "sixty_four_mib")]
    pub consumer_buffer: usize,
    /// After how long without a heartbeat the group gives the partitions away.
    #[serde(with = "duration", default = "ten_seconds")]
    pub session_timeout: Duration,
    /// Longest time between two polls, and longest rebalance.
    #[serde(with = "duration", default = "five_minutes")]
    pub max_poll_interval: Duration,
    /// Bound of one request and of one blocking answer, commits included.
    #[serde(with = "duration", default = "ten_seconds")]
    pub request_timeout: Duration,
    /// Further librdkafka settings, taken as they are; they come before the program's own defaults. Those on which
    /// delivery rests are refused.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub extra: std::collections::BTreeMap<String, String>,
}

/// librdkafka settings on which delivery, order or drain rest.
const RELIED_ON: [&str; 10] = [
    "bootstrap.servers",
    "group.id",
    "group.protocol",
    "partition.assignment.strategy",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "acks",
    "partitioner",
    "auto.offset.reset",
];

/// Where a group starts in a partition in which it has no committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record that is kept.
    #[default]
    Earliest,
    /// At the end, as it is at the first assignment; that is committed at once.
    Latest,
}

/// TLS and SASL of the Kafka connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSecurity {
    /// Whether to use TLS.
    #[serde(default)]
    pub tls: bool,
    /// PEM file of the authorities to trust; absent for the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<String>,
    /// SASL user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File that holds the SASL password; the environment variable `<PREFIX>KAFKA_PASSWORD` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The SASL password.
    #[serde(skip)]
    pub password: Secret,
}

impl Kafka {
    /// A cluster at `bootstrap` with everything else as by default.
    pub fn at(bootstrap: impl Into<String>) -> Kafka {
        Kafka {
            bootstrap: bootstrap.into(),
            security: None,
            message_timeout: five_minutes(),
            linger: five_millis(),
            producer_buffer: sixty_four_mib(),
            consumer_buffer: sixty_four_mib(),
            session_timeout: ten_seconds(),
            max_poll_interval: five_minutes(),
            request_timeout: ten_seconds(),
            extra: std::collections::BTreeMap::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        for address in self.bootstrap.split(',') {
            check_address("kafka.bootstrap", address)?;
        }
        check_positive("kafka.message_timeout", self.message_timeout)?;
        check_positive("kafka.session_timeout", self.session_timeout)?;
        check_positive("kafka.request_timeout", self.request_timeout)?;
        if self.max_poll_interval < self.session_timeout {
            return Err(Fault::at("kafka.max_poll_interval", "must be at least `kafka.session_timeout`"));
        }
        for (key, bytes) in
            [("kafka.producer_buffer", self.producer_buffer), ("kafka.consumer_buffer", self.consumer_buffer)]
        {
            if bytes < 1 << 20 {
                return Err(Fault::at(key, "must be at least \"1MiB\": several records of the largest size"));
            }
        }
        if let Some(key) = self.extra.keys().find(|key| RELIED_ON.contains(&key.as_str())) {
            return Err(Fault::at("kafka.extra", format!("{key:?} is not to be changed: delivery rests on it")));
        }
        self.security.as_ref().map_or(Ok(()), KafkaSecurity::check)
    }

    pub(crate) fn load_secret(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let Some(security) = &mut self.security else { return Ok(()) };
        let file = security.password_file.clone();
        security.password.load("kafka.security.password_file", environment("KAFKA_PASSWORD"), file.as_deref())
    }
}

impl KafkaSecurity {
    /// Whether librdkafka needs OpenSSL for it: for all but SASL PLAIN on a plain connection.
    pub(crate) fn needs_openssl(&self) -> bool {
        self.tls || self.sasl_mechanism.as_deref().is_some_and(|mechanism| mechanism != "PLAIN")
    }

    fn check(&self) -> Result<(), Fault> {
        if self.needs_openssl() && !cfg!(feature = "kafka-tls") {
            let reason = "this build has no TLS and SCRAM for Kafka; build with the cargo feature `kafka-tls`";
            return Err(Fault::at("kafka.security", reason));
        }
        match self.sasl_mechanism.as_deref() {
            None | Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512") => Ok(()),
            Some(other) => Err(Fault::at(
                "kafka.security.sasl_mechanism",
                format!("{other:?} is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
            )),
        }
    }
}

/// The health and metrics endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to listen; port 0 lets the system choose.
    #[serde(default = "loopback")]
    pub listen: std::net::SocketAddr,
}

impl Default for Http {
    fn default() -> Http {
        Http { listen: loopback() }
    }
}

/// A capped back-off, as [`dmp_core::agent::Backoff`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Upper end of the first wait.
    #[serde(with = "duration")]
    pub first: Duration,
    /// Upper end of any wait.
    #[serde(with = "duration")]
    pub most: Duration,
}

impl Default for Backoff {
    /// 100 ms to 5 s: short enough to be back within a snapshot period, long enough not to storm.
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) }
    }
}

impl Backoff {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        // A back-off of nothing would try again without end and without a rest.
        check_positive("backoff.first", self.first)?;
        check_positive("backoff.most", self.most)?;
        if self.most < self.first {
            return Err(Fault::at("backoff.most", "must be at least `backoff.first`"));
        }
        Ok(())
    }
}

impl From<Backoff> for dmp_core::agent::Backoff {
    fn from(from: Backoff) -> dmp_core::agent::Backoff {
        dmp_core::agent::Backoff { first: from.first, most: from.most }
    }
}

/// Refuses zero.
pub(crate) fn check_positive(key: &str, duration: Duration) -> Result<(), Fault> {
    if duration.is_zero() { Err(Fault::at(key, "must be above zero")) } else { Ok(()) }
}

/// Refuses a number outside of `from..=to`.
pub(crate) fn check_within(key: &str, number: usize, from: usize, to: usize) -> Result<(), Fault> {
    if (from..=to).contains(&number) {
        Ok(())
    } else {
        Err(Fault::at(key, format!("{number} is not within {from} and {to}")))
    }
}

fn check_address(key: &str, address: &str) -> Result<(), Fault> {
    match split_address(address.trim()) {
        Some(_) => Ok(()),
        None => Err(Fault::at(key, format!("{address:?} is not host:port"))),
    }
}

fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && !host.contains('/')).then_some((host, port))
}

fn loopback() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

fn five_millis() -> Duration {
    Duration::from_millis(5)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn sixty_four_mib() -> usize {
    64 << 20
}
