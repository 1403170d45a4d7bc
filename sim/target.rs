//! Somebody's own servers as a target: where they are, how to be let in, what the harness brings, and how far it may go.
//!
//! A TOML file, read as strictly as a scenario. Secrets never stand in it: it names a file or an environment variable, and
//! no error, log or result shows what is in there. `{serial}` in a credential is the serial of the RAE that uses it.

mod address;
mod parse;
mod password;
#[cfg(test)]
mod tests;

pub(crate) use address::is_loopback as is_loopback_host;
pub use address::{Address, AddressError};
pub use parse::TargetError;
pub use password::Password;
pub(crate) use password::of_rae;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    fleet::RunPrefix,
    live::store_url,
    scenario::{Part, Server},
};

/// Stands for the serial of a RAE in a credential.
pub const SERIAL: &str = "{serial}";

/// Somebody's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Name: the file's.
    pub name: String,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// The database.
    pub store: Store,
    /// What the harness brings.
    pub bring: Bring,
    /// What can be looked at.
    pub observe: Observe,
    /// Before every serial of a run; `None`: a new one for each run.
    pub prefix: Option<RunPrefix>,
    /// How much a run may do.
    pub limits: Limits,
    /// When a run is given up.
    pub abort_if: AbortIf,
    /// How faults are done by commands.
    pub hooks: Hooks,
}

/// The MQTT broker, and how RAEs are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// Where RAEs come in.
    pub door: Door,
    /// Where bridges come in: another port, where they have rights of their own there.
    pub bridge_door: Door,
    /// PEM file of the authorities to trust; `None` for the public ones.
    pub ca: Option<PathBuf>,
    /// Name in the broker's certificate, where it is not the host.
    pub server_name: Option<String>,
    /// How a RAE is let in.
    pub rae: Credentials,
    /// How a bridge that is brought is let in, and whoever looks for retained messages.
    pub bridge: Credentials,
}

/// A port of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Where it is.
    pub address: Address,
    /// Whether TLS is spoken: `mqtts://`.
    pub tls: bool,
}

/// How a client is let in; each part may hold [`SERIAL`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// User name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Password>,
    /// PEM files of certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Credentials {
    /// Whether each RAE has its own.
    #[must_use]
    pub fn individual(&self) -> bool {
        let file = |path: &PathBuf| path.to_string_lossy().contains(SERIAL);
        self.username.as_deref().is_some_and(|name| name.contains(SERIAL))
            || self.password.as_ref().is_some_and(Password::individual)
            || self.certificate.as_ref().is_some_and(|(certificate, key)| file(certificate) || file(key))
    }
}

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// Addresses to begin with.
    pub bootstrap: Vec<Address>,
    /// The consumer group of the registries.
    pub group: String,
    /// Names of the topics.
    pub topics: Topics,
    /// TLS and SASL; `None` for a plain connection.
    pub security: Option<KafkaSecurity>,
}

/// How the Kafka cluster is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// PEM file of the authorities to trust; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl: Option<String>,
    /// SASL user name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Password>,
}

/// Names of the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// State and status, up.
    pub events: String,
    /// Commands, down.
    pub commands: String,
    /// Replies, up.
    pub replies: String,
    /// What cannot be decoded or stored.
    pub dead_letter: String,
}

impl Default for Topics {
    /// Those of the reference, which alone its own bridge and registry know.
    fn default() -> Topics {
        use dmp_core::event::kafka_topic;
        Topics {
            events: kafka_topic::EVENTS.to_owned(),
            commands: kafka_topic::COMMANDS.to_owned(),
            replies: kafka_topic::REPLIES.to_owned(),
            dead_letter: kafka_topic::DEAD_LETTER.to_owned(),
        }
    }
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its URL, without a password.
    pub url: String,
    /// The password.
    pub password: Option<Password>,
    /// The view that maps other tables than the reference's.
    pub view: Option<String>,
}

/// What the harness brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bring {
    /// Bridges.
    pub bridge: bool,
    /// Registries.
    pub registry: bool,
}

/// What can be looked at beside log, offsets and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observe {
    /// The dead-letter topic.
    pub dead_letters: bool,
    /// The topics of the way down.
    pub commands: bool,
}

/// How much a run may do. A target that is not on loopback says both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Messages that the fleet publishes, in any second of the plan.
    pub max_messages_per_s: Option<u64>,
    /// MQTT connections at a time.
    pub max_connections: Option<u64>,
}

/// When a run is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AbortIf {
    /// Records that are not yet committed.
    pub lag: Option<u64>,
    /// Connections of the fleet that were refused or broke, per second, without a fault of the scenario.
    pub errors_per_s: Option<u64>,
}

/// Commands of a shell that do what the harness cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Longest that a command may take.
    pub within: Duration,
    /// The commands, by what they do to what.
    pub commands: BTreeMap<Hook, String>,
}

/// What a hook does to what. A fault begins with one and ends with the other of its pair, where that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Ends it at once.
    Kill(Subject),
    /// Ends it in good order.
    Stop(Subject),
    /// Starts it again; without one, whatever supervises it does.
    Start(Subject),
    /// Lets it stand still without ending it.
    Pause(Subject),
    /// Lets it go on.
    Resume(Subject),
    /// Cuts the way from bridges and registries to it.
    CutLink(Server),
    /// Mends that.
    MendLink(Server),
}

/// Whom a hook acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A bridge or registry, by its index.
    Part(Part),
    /// A server.
    Server(Server),
}

impl Deployment {
    /// Whether every server is on this machine's loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.mqtt.door.address.is_loopback()
            && self.mqtt.bridge_door.address.is_loopback()
            && self.kafka.bootstrap.iter().all(Address::is_loopback)
            && store_url::is_loopback(&self.store.url)
    }
}

impl Bring {
    /// Whether processes of `part` are the harness's own.
    #[must_use]
    pub fn has(self, part: Part) -> bool {
        match part {
            Part::Bridge => self.bridge,
            Part::Registry | Part::Consumer | Part::Baseline => self.registry,
        }
    }
}

impl Hook {
    /// Its dotted key, below `hooks`.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Hook::Kill(subject) => format!("{}.kill", subject.key()),
            Hook::Stop(subject) => format!("{}.stop", subject.key()),
            Hook::Start(subject) => format!("{}.start", subject.key()),
            Hook::Pause(subject) => format!("{}.pause", subject.key()),
            Hook::Resume(subject) => format!("{}.resume", subject.key()),
            Hook::CutLink(server) => format!("{}.cut_link", Subject::Server(server).key()),
            Hook::MendLink(server) => format!("{}.mend_link", Subject::Server(server).key()),
        }
    }
}

impl Subject {
    /// Its name in a target's file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Subject::Part(Part::Bridge) => "bridge",
            Subject::Part(Part::Registry) => "registry",
            Subject::Part(Part::Consumer) => "consumer",
            Subject::Part(Part::Baseline) => "baseline",
            Subject::Server(Server::Broker) => "broker",
            Subject::Server(Server::Kafka) => "kafka",
            Subject::Server(Server::Store) => "store",
        }
    }
}
