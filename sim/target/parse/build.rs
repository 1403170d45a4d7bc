//! From the form of a target's file to a valid target: what must be there, what must fit together, and which secrets are
//! at hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::raw::{
    RawAbortIf, RawBring, RawCredentials, RawHooks, RawKafka, RawLimits, RawMqtt, RawObserve, RawPartHooks, RawRun,
    RawStore, RawTarget,
};
use crate::{
    fleet::RunPrefix,
    scenario::{
        Part,
        parse::{Builder, Field, Table},
    },
    target::{
        AbortIf, Address, Bring, Credentials, Deployment, Hook, Hooks, Kafka, KafkaSecurity, Limits, Mqtt, Observe,
        Password, SERIAL, Store, Topics,
    },
};

/// The group of the reference's registry.
const GROUP: &str = "dmp-registry";

/// Mechanisms of SASL that the Kafka client is built with.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Longest that a hook may take, unless set.
const HOOK_WITHIN: Duration = Duration::from_secs(30);

/// What paths and secrets are found by.
struct Around<'a> {
    beside: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

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
    let placed = ["mqtt.url", "kafka.bootstrap", "store.url"].into_iter().all(|key| builder.is_sound(key));
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
    let (tls, address) = mqtt_url(builder, &table, raw.url);
    let ca = file(builder, &table, "ca", raw.ca, around);
    let rae = RawCredentials {
        username: raw.username,
        password_file: raw.password_file,
        password_env: raw.password_env,
        certificate: raw.certificate,
        key: raw.key,
    };
    let rae = credentials(builder, &table, rae, around, true);
    let (bridge_table, bridge) = Table::of("mqtt.bridge", raw.bridge);
    let bridge = credentials(builder, &bridge_table, bridge, around, false);
    for (key, used) in [
        ("mqtt.ca", ca.is_some()),
        ("mqtt.certificate", rae.certificate.is_some()),
        ("mqtt.bridge.certificate", bridge.certificate.is_some()),
    ] {
        if used && !tls && builder.is_sound("mqtt.url") {
            builder.refuse(
                table.span(),
                key,
                "there is no TLS without mqtts://",
                "write mqtts:// in mqtt.url, or leave it out",
            );
        }
    }
    Mqtt { address, tls, ca, server_name: raw.server_name.map(Spanned::into_inner), rae, bridge }
}

fn mqtt_url(builder: &mut Builder<'_>, table: &Table, url: Field<String>) -> (bool, Address) {
    let nowhere = (false, Address { host: "localhost".to_owned(), port: 1883 });
    let help = "such as \"mqtts://broker.staging.example:8883\", or mqtt:// without TLS";
    let Some(url) = builder.required(table, "url", url, help) else { return nowhere };
    let (tls, rest) = match url.get_ref().split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        Some(_) | None => {
            builder.refuse(url.span(), "mqtt.url", "begins with neither mqtt:// nor mqtts://", help);
            return nowhere;
        }
    };
    match rest.trim_end_matches('/').parse() {
        Ok(address) => (tls, address),
        Err(error) => {
            builder.refuse(url.span(), "mqtt.url", format!("{error}"), help);
            nowhere
        }
    }
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
    let url = builder.required(&table, "url", raw.url, help).map(|url| store_url(builder, url, help, around));
    Store {
        url: url.unwrap_or_default(),
        password: password(builder, &table, raw.password_file, raw.password_env, around, false),
        view: raw.view.and_then(|view| view_name(builder, view)),
    }
}

fn store_url(builder: &mut Builder<'_>, url: Spanned<String>, help: &str, around: &Around<'_>) -> String {
    let (span, url) = (url.span(), url.into_inner());
    let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return format!("sqlite:{}", around.beside.join(path).display());
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        builder.refuse(span, "store.url", "begins with neither postgres:// nor sqlite:", help);
    } else if user.is_some_and(|user| user.contains(':')) {
        let help = "name it by store.password_file or store.password_env";
        builder.refuse(span, "store.url", "must not hold a password", help);
    }
    authority_beside(&url, around)
}

/// Files are named beside the target's, also within the URL.
fn authority_beside(url: &str, around: &Around<'_>) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let option = |option: &str| match option.split_once('=') {
        Some(("sslrootcert", file)) => format!("sslrootcert={}", around.beside.join(file).display()),
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

fn hooks(builder: &mut Builder<'_>, raw: Field<RawHooks>) -> Hooks {
    let (table, raw) = Table::of("hooks", raw);
    let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
    let within = builder.length(&table, "within", raw.within, bounds, HOOK_WITHIN);
    let (_, link) = Table::of("hooks.link", raw.link);
    let mut given = vec![(Hook::CutLink, link.cut), (Hook::MendLink, link.mend)];
    for (part, raw) in [(Part::Bridge, raw.bridge), (Part::Registry, raw.registry)] {
        let RawPartHooks { kill, start, pause, resume } = raw.map(Spanned::into_inner).unwrap_or_default();
        given.extend([
            (Hook::Kill(part), kill),
            (Hook::Start(part), start),
            (Hook::Pause(part), pause),
            (Hook::Resume(part), resume),
        ]);
    }
    let mut commands = BTreeMap::new();
    for (hook, command) in given {
        let Some(command) = command else { continue };
        if command.get_ref().trim().is_empty() {
            builder.refuse(
                command.span(),
                format!("hooks.{}", hook.key()),
                "an empty command",
                "what a shell is to run",
            );
        }
        commands.insert(hook, command.into_inner());
    }
    for (begin, end) in [
        (Hook::Pause(Part::Bridge), Hook::Resume(Part::Bridge)),
        (Hook::Pause(Part::Registry), Hook::Resume(Part::Registry)),
        (Hook::CutLink, Hook::MendLink),
    ] {
        if commands.contains_key(&begin) && !commands.contains_key(&end) {
            let (begin, end) = (format!("hooks.{}", begin.key()), format!("hooks.{}", end.key()));
            builder.refuse(table.span(), end, format!("missing: nothing would end what {begin} does"), "give both");
        }
    }
    Hooks { within, commands }
}

fn credentials(
    builder: &mut Builder<'_>,
    table: &Table,
    raw: RawCredentials,
    around: &Around<'_>,
    of_raes: bool,
) -> Credentials {
    let username = raw.username.map(|username| {
        if !of_raes {
            refuse_serial(builder, table, "username", username.get_ref(), username.span());
        }
        username.into_inner()
    });
    let password_span = raw.password_file.as_ref().or(raw.password_env.as_ref()).map(Spanned::span);
    let password = password(builder, table, raw.password_file, raw.password_env, around, of_raes);
    if let Some(span) = password_span.filter(|_| username.is_none()) {
        builder.refuse(span, table.key("username"), "missing: a password is somebody's", "give the user name, too");
    }
    let certificate = certificate(builder, table, raw.certificate, raw.key, around, of_raes);
    Credentials { username, password, certificate }
}

fn certificate(
    builder: &mut Builder<'_>,
    table: &Table,
    certificate: Field<String>,
    key: Field<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let certificate = one_or_per_rae(builder, table, "certificate", certificate, around, of_raes);
            Some((certificate, one_or_per_rae(builder, table, "key", key, around, of_raes)))
        }
        (Some(certificate), None) => {
            builder.refuse(
                certificate.span(),
                table.key("key"),
                "missing: a certificate needs its key",
                "name its PEM file",
            );
            None
        }
        (None, Some(key)) => {
            let what = "missing: a key needs its certificate";
            builder.refuse(key.span(), table.key("certificate"), what, "name its PEM file");
            None
        }
        (None, None) => None,
    }
}

fn password(
    builder: &mut Builder<'_>,
    table: &Table,
    file: Field<String>,
    variable: Field<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> Option<Password> {
    match (file, variable) {
        (Some(_), Some(variable)) => {
            let help = "name one of the two";
            builder.refuse(variable.span(), table.key("password_env"), "beside a password_file", help);
            None
        }
        (Some(file), None) => {
            Some(Password::File(one_or_per_rae(builder, table, "password_file", file, around, of_raes)))
        }
        (None, Some(variable)) => {
            let held = (around.environment)(variable.get_ref());
            if held.is_none() {
                let what = format!("the environment variable {} is not set", variable.get_ref());
                builder.refuse(variable.span(), table.key("password_env"), what, "set it to the password");
            }
            held.map(Password::Held)
        }
        (None, None) => None,
    }
}

fn file(
    builder: &mut Builder<'_>,
    table: &Table,
    key: &str,
    field: Field<String>,
    around: &Around<'_>,
) -> Option<PathBuf> {
    field.map(|field| one_or_per_rae(builder, table, key, field, around, false))
}

/// A file that can be read, or a pattern for the files of RAEs, which are read when the serials are known.
fn one_or_per_rae(
    builder: &mut Builder<'_>,
    table: &Table,
    key: &str,
    field: Spanned<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> PathBuf {
    let path = around.beside.join(field.get_ref());
    if field.get_ref().contains(SERIAL) {
        if !of_raes {
            refuse_serial(builder, table, key, field.get_ref(), field.span());
        }
        return path;
    }
    if let Err(error) = std::fs::File::open(&path) {
        let what = format!("{} cannot be read: {error}", path.display());
        builder.refuse(field.span(), table.key(key), what, "a path beside this file, or from the root");
    }
    path
}

fn refuse_serial(builder: &mut Builder<'_>, table: &Table, key: &str, text: &str, span: std::ops::Range<usize>) {
    if text.contains(SERIAL) {
        let what = format!("{SERIAL} stands for a RAE, and this is not a RAE's");
        builder.refuse(span, table.key(key), what, "write it out");
    }
}
