//! From the form of a target's file to a valid target: what must be there, what must fit together, and which secrets are
//! at hand.

mod credentials;
mod hooks;

use std::path::Path;

use toml::Spanned;

use self::{
    credentials::{Around, Given, certificate, credentials, file, password},
    hooks::hooks,
};
use super::raw::{RawAbortIf, RawBring, RawKafka, RawLimits, RawMqtt, RawObserve, RawRun, RawStore, RawTarget};
use crate::{
    fleet::RunPrefix,
    live::store_url,
    scenario::parse::{Builder, Field, Table},
    target::{AbortIf, Address, Bring, Deployment, Door, Kafka, KafkaSecurity, Limits, Mqtt, Observe, Store, Topics},
};

/// The group of the reference's registry.
const GROUP: &str = "dmp-registry";

/// Mechanisms of SASL that the Kafka client is built with.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

const DOOR_HELP: &str = "such as \"mqtts://broker.staging.example:8883\", or mqtt:// without TLS";

/// The target, of use only if the builder has found no problem.
pub(super) fn deployment(
    builder: &mut Builder<'_>,
    name: &str,
    raw: RawTarget,
    beside: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Deployment {
    let around = Around { beside, environment };
    let given = raw.limits.is_some();
    let topics_span = raw.kafka.as_ref().and_then(|kafka| kafka.get_ref().topics.as_ref()).map(Spanned::span);
    let view_span = raw.store.as_ref().and_then(|store| store.get_ref().view.as_ref()).map(Spanned::span);
    let deployment = Deployment {
        name: name.to_owned(),
        mqtt: mqtt(builder, raw.mqtt, &around),
        kafka: kafka(builder, raw.kafka, &around),
        store: store(builder, raw.store, &around),
        bring: bring(raw.bring),
        observe: observe(raw.observe),
        prefix: prefix(builder, raw.run),
        limits: limits(builder, raw.limits),
        abort_if: abort_if(builder, raw.abort_if),
        hooks: hooks(builder, raw.hooks),
    };
    let brings = deployment.bring.bridge || deployment.bring.registry;
    if let Some(span) = topics_span.filter(|_| brings && deployment.kafka.topics != Topics::default()) {
        let what = "the bridge and the registry that are brought know only their own topics";
        builder.refuse(span, "kafka.topics", what, "leave them out, or bring neither");
    }
    if let Some(span) = view_span.filter(|_| deployment.bring.registry) {
        let what = "the registry that is brought writes its own tables";
        builder.refuse(span, "store.view", what, "leave it out, or do not bring the registry");
    }
    // What is wrong with an address is told already, and says nothing of where it is.
    let placed =
        ["mqtt.url", "mqtt.bridge.url", "kafka.bootstrap", "store.url"].into_iter().all(|key| builder.is_sound(key));
    if placed && !deployment.is_loopback() {
        must_be_limited(builder, &deployment.limits, given);
    }
    deployment
}

fn must_be_limited(builder: &mut Builder<'_>, limits: &Limits, given: bool) {
    let stated = [("max_messages_per_s", limits.max_messages_per_s), ("max_connections", limits.max_connections)];
    for (key, _) in stated.into_iter().filter(|(_, limit)| limit.is_none()) {
        let key = format!("limits.{key}");
        if builder.is_sound(&key) {
            let what = "missing: this target is not on loopback";
            let help = "say under [limits] how much a run may do to it";
            builder.refuse(0..0, if given { key } else { "limits".to_owned() }, what, help);
        }
        if !given {
            return;
        }
    }
}

fn mqtt(builder: &mut Builder<'_>, raw: Field<RawMqtt>, around: &Around<'_>) -> Mqtt {
    let (table, raw) = Table::of("mqtt", raw);
    let url = builder.required(&table, "url", raw.url, DOOR_HELP);
    let door = url.and_then(|url| door(builder, "mqtt.url", url)).unwrap_or_else(nowhere);
    let ca = file(builder, &table, "ca", raw.ca, around);
    let rae = Given {
        username: raw.username,
        password_file: raw.password_file,
        password_env: raw.password_env,
        certificate: raw.certificate,
        key: raw.key,
    };
    let rae = credentials(builder, &table, rae, around, true);
    let (bridge_table, bridge) = Table::of("mqtt.bridge", raw.bridge);
    let bridge_door = match bridge.url {
        Some(url) => self::door(builder, "mqtt.bridge.url", url).unwrap_or_else(nowhere),
        None => door.clone(),
    };
    let bridge = Given {
        username: bridge.username,
        password_file: bridge.password_file,
        password_env: bridge.password_env,
        certificate: bridge.certificate,
        key: bridge.key,
    };
    let bridge = credentials(builder, &bridge_table, bridge, around, false);
    for (key, used, with_tls) in [
        ("mqtt.ca", ca.is_some(), door.tls || bridge_door.tls),
        ("mqtt.certificate", rae.certificate.is_some(), door.tls),
        ("mqtt.bridge.certificate", bridge.certificate.is_some(), bridge_door.tls),
    ] {
        let sound = [key, "mqtt.url", "mqtt.bridge.url"].into_iter().all(|key| builder.is_sound(key));
        if used && !with_tls && sound {
            let (what, help) = ("there is no TLS without mqtts://", "write mqtts:// in the URL, or leave it out");
            builder.refuse(table.span(), key, what, help);
        }
    }
    Mqtt { door, bridge_door, ca, server_name: raw.server_name.map(Spanned::into_inner), rae, bridge }
}

fn door(builder: &mut Builder<'_>, key: &str, url: Spanned<String>) -> Option<Door> {
    let (tls, rest) = match url.get_ref().split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        Some(_) | None => {
            builder.refuse(url.span(), key, "begins with neither mqtt:// nor mqtts://", DOOR_HELP);
            return None;
        }
    };
    match rest.trim_end_matches('/').parse() {
        Ok(address) => Some(Door { address, tls }),
        Err(error) => {
            builder.refuse(url.span(), key, format!("{error}"), DOOR_HELP);
            None
        }
    }
}

/// In the place of a door that is wrong; what is told of that ends the reading.
fn nowhere() -> Door {
    Door { address: Address { host: "localhost".to_owned(), port: 1883 }, tls: false }
}

fn kafka(builder: &mut Builder<'_>, raw: Field<RawKafka>, around: &Around<'_>) -> Kafka {
    let (table, raw) = Table::of("kafka", raw);
    let bootstrap = bootstrap(builder, &table, raw.bootstrap);
    let group = raw.group.map_or_else(|| GROUP.to_owned(), Spanned::into_inner);
    let (_, names) = Table::of("kafka.topics", raw.topics);
    let default = Topics::default();
    let named = |field: Field<String>, default: String| field.map_or(default, Spanned::into_inner);
    let topics = Topics {
        events: named(names.events, default.events),
        commands: named(names.commands, default.commands),
        replies: named(names.replies, default.replies),
        dead_letter: named(names.dead_letter, default.dead_letter),
    };
    let asked =
        [raw.tls.as_ref().filter(|tls| *tls.get_ref()).map(Spanned::span), raw.sasl.as_ref().map(Spanned::span)];
    let span = asked.into_iter().flatten().next();
    let security = KafkaSecurity {
        tls: raw.tls.is_some_and(Spanned::into_inner),
        ca: file(builder, &table, "ca", raw.ca, around),
        certificate: certificate(builder, &table, raw.certificate, raw.key, around, false),
        sasl: mechanism(builder, raw.sasl),
        username: raw.username.map(Spanned::into_inner),
        password: password(builder, &table, raw.password_file, raw.password_env, around, false),
    };
    let incomplete = security.sasl.is_some() && (security.username.is_none() || security.password.is_none());
    if incomplete && builder.is_sound("kafka.password_file") && builder.is_sound("kafka.password_env") {
        let help = "give kafka.username, and kafka.password_file or kafka.password_env";
        builder.refuse(table.span(), "kafka.sasl", "needs a user and a password", help);
    }
    // A password on a plain connection needs no OpenSSL.
    let needs_openssl = security.tls || security.sasl.as_deref().is_some_and(|mechanism| mechanism != "PLAIN");
    if let Some(span) = span.clone().filter(|_| needs_openssl && !cfg!(feature = "kafka-tls")) {
        let key = if security.tls { "kafka.tls" } else { "kafka.sasl" };
        let what = "this build has no TLS and SCRAM for Kafka";
        builder.refuse(span, key, what, "build with the cargo feature `kafka-tls`");
    }
    if span.is_none() && (security.username.is_some() || security.password.is_some() || security.ca.is_some()) {
        let what = "credentials without a way to use them";
        builder.refuse(table.span(), "kafka", what, "say tls = true, or sasl = \"SCRAM-SHA-512\", or leave them out");
    }
    Kafka { bootstrap, group, topics, security: span.map(|_| security) }
}

fn bootstrap(builder: &mut Builder<'_>, table: &Table, field: Field<String>) -> Vec<Address> {
    let help = "such as \"kafka-1.staging.example:9093,kafka-2.staging.example:9093\"";
    let Some(field) = builder.required(table, "bootstrap", field, help) else { return Vec::new() };
    let mut addresses = Vec::new();
    for text in field.get_ref().split(',').map(str::trim) {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(error) => builder.refuse(field.span(), "kafka.bootstrap", format!("{text:?} {error}"), help),
        }
    }
    addresses
}

fn mechanism(builder: &mut Builder<'_>, field: Field<String>) -> Option<String> {
    let field = field?;
    if !MECHANISMS.contains(&field.get_ref().as_str()) {
        let what = format!("{:?} is no mechanism of SASL that is known here", field.get_ref());
        builder.refuse(field.span(), "kafka.sasl", what, format!("known are {}", MECHANISMS.join(", ")));
    }
    Some(field.into_inner())
}

fn store(builder: &mut Builder<'_>, raw: Field<RawStore>, around: &Around<'_>) -> Store {
    let (table, raw) = Table::of("store", raw);
    let help = "such as \"postgres://reader@db.staging.example:5432/dmp?sslmode=verify-full\", or \"sqlite:FILE\"";
    let url = builder.required(&table, "url", raw.url, help);
    let password = password(builder, &table, raw.password_file, raw.password_env, around, false);
    let url = url.map(|url| {
        let (span, url) = (url.span(), files_beside(url.get_ref(), around));
        if let Err((what, help)) = store_url::check(&url, password.is_some(), help) {
            builder.refuse(span, "store.url", what, help);
        }
        url
    });
    Store { url: url.unwrap_or_default(), password, view: raw.view.and_then(|view| view_name(builder, view)) }
}

/// Files are named beside the target's, also within the URL.
fn files_beside(url: &str, around: &Around<'_>) -> String {
    let beside = |file: &str| around.beside.join(file).display().to_string();
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        // No file stays none.
        let none = path.is_empty() || path.starts_with('?');
        return if none { url.to_owned() } else { format!("sqlite:{}", beside(path)) };
    }
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let option = |option: &str| match option.split_once('=') {
        Some(("sslrootcert", file)) => format!("sslrootcert={}", beside(file)),
        Some(_) | None => option.to_owned(),
    };
    format!("{base}?{}", query.split('&').map(option).collect::<Vec<_>>().join("&"))
}

/// A table's or view's name goes into a statement, and is nothing else.
fn view_name(builder: &mut Builder<'_>, view: Spanned<String>) -> Option<String> {
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with(|c: char| c.is_ascii_digit())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if view.get_ref().split('.').count() > 2 || !view.get_ref().split('.').all(word) {
        let what = format!("{:?} is no name of a view", view.get_ref());
        builder.refuse(
            view.span(),
            "store.view",
            what,
            "letters, digits and _, with its schema before a dot if need be",
        );
        return None;
    }
    Some(view.into_inner())
}

fn bring(raw: Field<RawBring>) -> Bring {
    let (_, raw) = Table::of("bring", raw);
    let yes = |field: Field<bool>| field.is_some_and(Spanned::into_inner);
    Bring { bridge: yes(raw.bridge), registry: yes(raw.registry) }
}

fn observe(raw: Field<RawObserve>) -> Observe {
    let (_, raw) = Table::of("observe", raw);
    let unless_no = |field: Field<bool>| field.is_none_or(Spanned::into_inner);
    Observe { dead_letters: unless_no(raw.dead_letters), commands: unless_no(raw.commands) }
}

fn prefix(builder: &mut Builder<'_>, raw: Field<RawRun>) -> Option<RunPrefix> {
    let (_, raw) = Table::of("run", raw);
    let prefix = raw.prefix?;
    match prefix.get_ref().parse() {
        Ok(prefix) => Some(prefix),
        Err(error) => {
            builder.refuse(prefix.span(), "run.prefix", format!("{error}"), "such as \"LAB1\"");
            None
        }
    }
}

fn limits(builder: &mut Builder<'_>, raw: Field<RawLimits>) -> Limits {
    let (table, raw) = Table::of("limits", raw);
    Limits {
        max_messages_per_s: builder.whole_or_none(&table, "max_messages_per_s", raw.max_messages_per_s, 1..=1_000_000),
        max_connections: builder.whole_or_none(&table, "max_connections", raw.max_connections, 1..=100_000),
    }
}

fn abort_if(builder: &mut Builder<'_>, raw: Field<RawAbortIf>) -> AbortIf {
    let (table, raw) = Table::of("abort_if", raw);
    AbortIf {
        lag: builder.whole_or_none(&table, "lag", raw.lag, 1..=1_000_000_000),
        errors_per_s: builder.whole_or_none(&table, "errors_per_s", raw.errors_per_s, 1..=1_000_000),
    }
}
