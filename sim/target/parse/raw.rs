//! The form of a target's file, before anything is judged but types and key names.

use serde::Deserialize;

use crate::scenario::parse::{Field, Length, Whole};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    pub(super) mqtt: Field<RawMqtt>,
    pub(super) kafka: Field<RawKafka>,
    pub(super) store: Field<RawStore>,
    pub(super) bring: Field<RawBring>,
    pub(super) observe: Field<RawObserve>,
    pub(super) run: Field<RawRun>,
    pub(super) limits: Field<RawLimits>,
    pub(super) abort_if: Field<RawAbortIf>,
    pub(super) hooks: Field<RawHooks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMqtt {
    pub(super) url: Field<String>,
    pub(super) ca: Field<String>,
    pub(super) server_name: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) certificate: Field<String>,
    pub(super) key: Field<String>,
    pub(super) bridge: Field<RawMqttBridge>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMqttBridge {
    pub(super) url: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) certificate: Field<String>,
    pub(super) key: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    pub(super) bootstrap: Field<String>,
    pub(super) group: Field<String>,
    pub(super) topics: Field<RawTopics>,
    pub(super) tls: Field<bool>,
    pub(super) ca: Field<String>,
    pub(super) certificate: Field<String>,
    pub(super) key: Field<String>,
    pub(super) sasl: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) password_env: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopics {
    pub(super) events: Field<String>,
    pub(super) commands: Field<String>,
    pub(super) replies: Field<String>,
    pub(super) dead_letter: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) url: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) view: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBring {
    pub(super) bridge: Field<bool>,
    pub(super) registry: Field<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawObserve {
    pub(super) dead_letters: Field<bool>,
    pub(super) commands: Field<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRun {
    pub(super) prefix: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_messages_per_s: Field<Whole>,
    pub(super) max_connections: Field<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAbortIf {
    pub(super) lag: Field<Whole>,
    pub(super) errors_per_s: Field<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHooks {
    pub(super) within: Field<Length>,
    pub(super) bridge: Field<RawPartHooks>,
    pub(super) registry: Field<RawPartHooks>,
    pub(super) broker: Field<RawServerHooks>,
    pub(super) kafka: Field<RawServerHooks>,
    pub(super) store: Field<RawServerHooks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPartHooks {
    pub(super) kill: Field<String>,
    pub(super) start: Field<String>,
    pub(super) pause: Field<String>,
    pub(super) resume: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServerHooks {
    pub(super) kill: Field<String>,
    pub(super) stop: Field<String>,
    pub(super) start: Field<String>,
    pub(super) pause: Field<String>,
    pub(super) resume: Field<String>,
    pub(super) cut_link: Field<String>,
    pub(super) mend_link: Field<String>,
}
