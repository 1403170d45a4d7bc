//! The commands of a shell that do faults: none is empty, and what one begins another ends.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use crate::{
    scenario::{
        Part, Server,
        parse::{Builder, Field, Table},
    },
    target::{
        Hook, Hooks, Subject,
        parse::raw::{RawHooks, RawPartHooks, RawServerHooks},
    },
};

/// Longest that a hook may take, unless set.
const WITHIN: Duration = Duration::from_secs(30);

type Given = Vec<(Hook, Field<String>)>;

pub(super) fn hooks(builder: &mut Builder<'_>, raw: Field<RawHooks>) -> Hooks {
    let (table, raw) = Table::of("hooks", raw);
    let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
    let within = builder.length(&table, "within", raw.within, bounds, WITHIN);
    let mut given = Given::new();
    of_part(&mut given, Part::Bridge, raw.bridge);
    of_part(&mut given, Part::Registry, raw.registry);
    of_server(&mut given, Server::Broker, raw.broker);
    of_server(&mut given, Server::Kafka, raw.kafka);
    of_server(&mut given, Server::Store, raw.store);
    let mut commands = BTreeMap::new();
    for (hook, command) in given {
        let Some(command) = command else { continue };
        if command.get_ref().trim().is_empty() {
            let key = format!("hooks.{}", hook.key());
            builder.refuse(command.span(), key, "an empty command", "what a shell is to run");
        }
        commands.insert(hook, command.into_inner());
    }
    for begin in commands.keys() {
        if let Some(end) = must_be_ended(*begin).filter(|end| !commands.contains_key(end)) {
            let (begin, end) = (format!("hooks.{}", begin.key()), format!("hooks.{}", end.key()));
            builder.refuse(table.span(), end, format!("missing: nothing would end what {begin} does"), "give both");
        }
    }
    Hooks { within, commands }
}

fn of_part(given: &mut Given, part: Part, raw: Field<RawPartHooks>) {
    let RawPartHooks { kill, start, pause, resume } = raw.map(Spanned::into_inner).unwrap_or_default();
    let subject = Subject::Part(part);
    given.extend([
        (Hook::Kill(subject), kill),
        (Hook::Start(subject), start),
        (Hook::Pause(subject), pause),
        (Hook::Resume(subject), resume),
    ]);
}

fn of_server(given: &mut Given, server: Server, raw: Field<RawServerHooks>) {
    let RawServerHooks { kill, stop, start, pause, resume, cut_link, mend_link } =
        raw.map(Spanned::into_inner).unwrap_or_default();
    let subject = Subject::Server(server);
    given.extend([
        (Hook::Kill(subject), kill),
        (Hook::Stop(subject), stop),
        (Hook::Start(subject), start),
        (Hook::Pause(subject), pause),
        (Hook::Resume(subject), resume),
        (Hook::CutLink(server), cut_link),
        (Hook::MendLink(server), mend_link),
    ]);
}

/// The other of a pair, where nobody else would do it: what is killed may have a supervisor.
fn must_be_ended(begin: Hook) -> Option<Hook> {
    match begin {
        Hook::Stop(subject) => Some(Hook::Start(subject)),
        Hook::Pause(subject) => Some(Hook::Resume(subject)),
        Hook::CutLink(server) => Some(Hook::MendLink(server)),
        Hook::Kill(_) | Hook::Start(_) | Hook::Resume(_) | Hook::MendLink(_) => None,
    }
}
