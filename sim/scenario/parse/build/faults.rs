//! The faults of a scenario: one kind each, possible with this fleet and pipeline, over before the load is, and none that
//! holds what another one holds, or needs, at that time.

mod counts;

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use dmp_core::core::Qos;
use toml::Spanned;

use super::{
    DAY, MILLISECOND,
    builder::{Builder, Fallback, Table},
};
use crate::scenario::{
    Fault, FaultKind, OldRae, Part, PoisonKind, ReadFrom, Scenario, Server, ServerFault,
    parse::{
        moment::parse_moment,
        raw::{
            Field, Number, RawClockDrift, RawClockStep, RawFault, RawFullDisk, RawLink, RawMove, RawPart, RawRestart,
            RawScale, RawSlowLink, ShareDelayLasts, ShareLasts, Whole,
        },
    },
    quantity::{Shift, show_duration},
};

const LASTS: RangeInclusive<Duration> = MILLISECOND..=DAY;

/// Below a kilobyte a second nothing gets through within a run.
const BYTES_PER_S: RangeInclusive<u64> = 1_000..=1 << 30;

/// Seconds that a drifting clock gains per second: what days of a bad clock come to, within a run.
const DRIFT: RangeInclusive<f64> = -1_000.0..=1_000.0;

/// Devices per RAE where devices move: a RAE takes 1,024, those included that have left it, and who goes where is drawn.
const DEVICES_THAT_MOVE: u32 = 200;

/// Failures of a stage in a row. From the eighth on the same rows a registry takes them for what breaks its writer, and
/// rightly puts a good record into quarantine.
const STAGE_FAILURES: RangeInclusive<u64> = 1..=7;

/// New consumers in one run: each is a process and a store, beside what is measured.
const CONSUMERS: usize = 4;

/// A fault, and where it stands.
#[derive(Debug)]
struct Placed {
    /// Its number in the file.
    number: usize,
    table: Table,
    /// Where it says which process, or how many there are to be.
    processes: Option<Range<usize>>,
    fault: Fault,
}

/// The faults in order of time.
pub(super) fn faults(builder: &mut Builder<'_>, raw: Vec<Spanned<RawFault>>, scenario: &Scenario) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, raw) in raw.into_iter().enumerate() {
        let table = Table::new(format!("fault[{number}]"), raw.span());
        faults.extend(fault(builder, number, table, raw.into_inner(), scenario));
    }
    refuse_contradictions(builder, &faults);
    refuse_consumers(builder, &faults);
    counts::refuse(builder, &faults, &scenario.pipeline);
    let mut faults: Vec<_> = faults.into_iter().map(|placed| placed.fault).collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn refuse_consumers(builder: &mut Builder<'_>, faults: &[Placed]) {
    let consumers = faults.iter().filter(|placed| matches!(placed.fault.kind, FaultKind::NewConsumer { .. }));
    for Placed { table, .. } in consumers.skip(CONSUMERS) {
        let what = format!("more than {CONSUMERS} new consumers");
        builder.refuse(
            table.span(),
            table.key("new_consumer"),
            what,
            "each is a process with a store of its own: fewer",
        );
    }
}

fn fault(
    builder: &mut Builder<'_>,
    number: usize,
    table: Table,
    mut raw: RawFault,
    scenario: &Scenario,
) -> Option<Placed> {
    let at = raw.at.take();
    let kind = kind(builder, &table, raw, scenario);
    let at = builder.required(&table, "at", at, "say when, such as at = \"burst + 5s\"")?;
    if !builder.is_sound("phase") {
        // What a moment means depends on the phases.
        return None;
    }
    let (span, at_text) = (at.span(), at.into_inner());
    let at = match parse_moment(&at_text, &scenario.phases) {
        Ok(at) => at,
        Err((what, help)) => {
            builder.refuse(span, table.key("at"), what, help);
            return None;
        }
    };
    let (kind, processes) = kind?;
    let (ends, load) = (at + kind.lasts(), scenario.load());
    if ends > load {
        let [at, ends, load] = [at, ends, load].map(show_duration);
        let what = format!("the fault holds from {at} to {ends}, and the load ends at {load}");
        let help = "every fault is over when the last phase is: begin it earlier, shorten it, or lengthen a phase";
        builder.refuse(span, table.key("at"), what, help);
    }
    Some(Placed { number, table, processes, fault: Fault { at, at_text, kind } })
}

/// The one kind that is given, and where it says which process, or how many.
fn kind(
    builder: &mut Builder<'_>,
    table: &Table,
    raw: RawFault,
    scenario: &Scenario,
) -> Option<(FaultKind, Option<Range<usize>>)> {
    let mut reader = Reader { builder, fault: table, scenario, processes: None, found: Vec::new() };
    reader.read(raw);
    let (mut found, processes) = (reader.found, reader.processes);
    if found.is_empty() {
        builder.missing_kind(table);
        return None;
    }
    let (_, first) = found.remove(0);
    for (span, second) in found {
        let what = format!("a second kind in one fault, beside `{}`", first.key());
        builder.refuse(span, table.key(second.key()), what, "one kind per [[fault]]: give it a [[fault]] of its own");
    }
    Some((first, processes))
}

impl Builder<'_> {
    /// Notes that a fault has no kind, unless one was there and its form was wrong.
    fn missing_kind(&mut self, table: &Table) {
        let help = "add one kind, such as kill = { part = \"bridge\", back_after = \"2s\" }";
        self.missing(table, "", help);
    }
}

struct Reader<'b, 's> {
    builder: &'b mut Builder<'s>,
    fault: &'b Table,
    scenario: &'b Scenario,
    /// Where a kind says which process, or how many.
    processes: Option<Range<usize>>,
    found: Vec<(Range<usize>, FaultKind)>,
}

impl Reader<'_, '_> {
    /// Reads every kind that is given.
    fn read(&mut self, raw: RawFault) {
        self.one("missed_updates", raw.missed_updates, Self::missed_updates);
        self.one("qos0_loss", raw.qos0_loss, Self::qos0_loss);
        self.one("duplicates", raw.duplicates, |reader, table, raw| {
            let (share, delay, lasts) = reader.share_delay_lasts(table, raw);
            FaultKind::Duplicates { share, delay, lasts }
        });
        self.one("delayed_tails", raw.delayed_tails, |reader, table, raw| {
            let (share, delay, lasts) = reader.share_delay_lasts(table, raw);
            FaultKind::DelayedTails { share, delay, lasts }
        });
        self.one("command_loss", raw.command_loss, |reader, table, raw| {
            let (share, lasts) = reader.share_lasts(table, raw);
            FaultKind::CommandLoss { share, lasts }
        });
        self.one("command_duplicates", raw.command_duplicates, |reader, table, raw| {
            let (share, delay, lasts) = reader.share_delay_lasts(table, raw);
            FaultKind::CommandDuplicates { share, delay, lasts }
        });
        self.one("late_commands", raw.late_commands, |reader, table, raw| {
            let (share, delay, lasts) = reader.share_delay_lasts(table, raw);
            FaultKind::LateCommands { share, delay, lasts }
        });
        self.one("poison", raw.poison, |reader, table, raw| FaultKind::Poison {
            kind: reader.poison_kind(table, raw.kind),
            messages: reader.whole(table, "messages", raw.messages, 1..=100_000),
            lasts: reader.builder.required_length(table, "lasts", raw.lasts, LASTS),
        });
        self.one("reboot", raw.reboot, |reader, table, raw| FaultKind::Reboot {
            share: reader.share(table, raw.share),
            down: reader.builder.required_length(table, "down", raw.down, LASTS),
        });
        self.one("wipe", raw.wipe, |reader, table, raw| FaultKind::Wipe {
            share: reader.share(table, raw.share),
            down: reader.builder.required_length(table, "down", raw.down, LASTS),
        });
        self.one("gone", raw.gone, |reader, table, raw| FaultKind::Gone { share: reader.share(table, raw.share) });
        self.one("clock_step", raw.clock_step, Self::clock_step);
        self.one("clock_drift", raw.clock_drift, Self::clock_drift);
        self.one("move", raw.moves, Self::moves);
        self.one("flapping", raw.flapping, |reader, table, raw| FaultKind::Flapping {
            share: reader.share(table, raw.share),
            every: reader.builder.required_length(table, "every", raw.every, 100 * MILLISECOND..=DAY),
            lasts: reader.builder.required_length(table, "lasts", raw.lasts, LASTS),
        });
        self.one("disconnect", raw.disconnect, |reader, table, raw| {
            let (share, lasts) = reader.share_lasts(table, raw);
            FaultKind::Disconnect { share, lasts }
        });
        self.one("kill", raw.kill, |reader, table, raw| {
            let back_after = reader.builder.required_length(table, "back_after", raw.back_after, LASTS);
            match reader.part(table, raw.part, raw.index) {
                Named::Process(part, index) => FaultKind::Kill { part, index, back_after },
                Named::Server(part) => FaultKind::Server(ServerFault::Kill { part, back_after }),
            }
        });
        self.one("pause", raw.pause, |reader, table, raw| {
            let lasts = reader.builder.required_length(table, "lasts", raw.lasts, LASTS);
            match reader.part(table, raw.part, raw.index) {
                Named::Process(part, index) => FaultKind::Pause { part, index, lasts },
                Named::Server(part) => FaultKind::Server(ServerFault::Pause { part, lasts }),
            }
        });
        self.one("scale", raw.scale, Self::scale);
        self.servers(raw.restart, raw.full_disk);
        self.links(raw.cut_link, raw.slow_link, raw.half_open_link);
        self.one("stage_failure", raw.stage_failure, |reader, table, raw| FaultKind::StageFailure {
            index: reader.index(table, raw.index),
            times: reader.whole(table, "times", raw.times, STAGE_FAILURES),
        });
        self.one("throttled_store", raw.throttled_store, |reader, table, raw| FaultKind::ThrottledStore {
            rows_per_s: reader.whole(table, "rows_per_s", raw.rows_per_s, 1..=1_000_000),
            lasts: reader.builder.required_length(table, "lasts", raw.lasts, LASTS),
        });
        self.one("slow_store", raw.slow_store, |reader, table, raw| FaultKind::SlowStore {
            delay: reader.builder.required_length(table, "delay", raw.delay, MILLISECOND..=60_000 * MILLISECOND),
            lasts: reader.builder.required_length(table, "lasts", raw.lasts, LASTS),
        });
        self.one("wipe_store", raw.wipe_store, |reader, table, raw| FaultKind::WipeStore {
            back_after: reader.builder.required_length(table, "back_after", raw.back_after, LASTS),
        });
        self.one("new_consumer", raw.new_consumer, |reader, table, raw| {
            let from = reader.builder.required(table, "from", raw.from, "from = \"earliest\" or \"latest\"");
            FaultKind::NewConsumer { from: from.map_or(ReadFrom::Latest, Spanned::into_inner) }
        });
    }

    /// Faults that only a server has.
    fn servers(&mut self, restart: Field<RawRestart>, full_disk: Field<RawFullDisk>) {
        self.one("restart", restart, |reader, table, raw| {
            let part = reader.server(table, raw.part);
            let back_after = reader.builder.required_length(table, "back_after", raw.back_after, LASTS);
            FaultKind::Server(ServerFault::Restart { part, back_after })
        });
        self.one("full_disk", full_disk, |reader, table, raw| {
            let span = raw.part.as_ref().map(Spanned::span);
            let part = reader.server(table, raw.part);
            if let Some(span) = span.filter(|_| part != Server::Broker) {
                let what = "only the broker's disk can be filled";
                reader.builder.refuse(span, table.key("part"), what, "part = \"broker\"");
            }
            let lasts = reader.builder.required_length(table, "lasts", raw.lasts, LASTS);
            FaultKind::Server(ServerFault::FullDisk { part, lasts })
        });
    }

    /// Faults of the way to a server.
    fn links(&mut self, cut: Field<RawLink>, slow: Field<RawSlowLink>, half_open: Field<RawLink>) {
        let to = |to: Field<Server>| to.map_or(Server::Broker, Spanned::into_inner);
        self.one("cut_link", cut, |reader, table, raw| {
            let lasts = reader.builder.required_length(table, "lasts", raw.lasts, LASTS);
            FaultKind::Server(ServerFault::CutLink { to: to(raw.to), lasts })
        });
        self.one("slow_link", slow, |reader, table, raw| {
            if raw.delay.is_none() && raw.bytes_per_s.is_none() {
                reader.builder.missing(table, "bytes_per_s", "bytes_per_s = \"64KiB\", or delay = \"100ms\", or both");
            }
            let size = |builder: &mut Builder<'_>, raw| {
                builder.size(table, "bytes_per_s", Some(raw), BYTES_PER_S, Fallback::Required)
            };
            let bytes_per_s = raw.bytes_per_s.map(|raw| size(reader.builder, raw));
            let delay = reader.builder.length_or_none(table, "delay", raw.delay, MILLISECOND..=60_000 * MILLISECOND);
            let lasts = reader.builder.required_length(table, "lasts", raw.lasts, LASTS);
            FaultKind::Server(ServerFault::SlowLink { to: to(raw.to), delay, bytes_per_s, lasts })
        });
        self.one("half_open_link", half_open, |reader, table, raw| {
            let lasts = reader.builder.required_length(table, "lasts", raw.lasts, LASTS);
            FaultKind::Server(ServerFault::HalfOpenLink { to: to(raw.to), lasts })
        });
    }

    fn one<T>(&mut self, key: &str, field: Field<T>, read: impl FnOnce(&mut Self, &Table, T) -> FaultKind) {
        let Some(field) = field else { return };
        let span = field.span();
        let table = Table::new(self.fault.key(key), span.clone());
        let kind = read(self, &table, field.into_inner());
        self.found.push((span, kind));
    }

    fn missed_updates(&mut self, table: &Table, raw: ShareLasts) -> FaultKind {
        let (share, lasts) = self.share_lasts(table, raw);
        FaultKind::MissedUpdates { share, lasts }
    }

    fn qos0_loss(&mut self, table: &Table, raw: ShareLasts) -> FaultKind {
        let (share, lasts) = self.share_lasts(table, raw);
        if self.scenario.fleet.qos != Qos::AtMostOnce {
            let what = "nothing is lost at QoS 1: this fault would do nothing";
            self.builder.refuse(table.span(), table.key(""), what, "set qos = 0 in [fleet], or use missed_updates");
        }
        FaultKind::Qos0Loss { share, lasts }
    }

    fn clock_step(&mut self, table: &Table, raw: RawClockStep) -> FaultKind {
        let span = raw.by.as_ref().map(Spanned::span);
        let by = self.builder.required_shift(table, "by", raw.by, Shift::back(DAY)..=DAY.into());
        if let Some(span) = span.filter(|_| by == Shift::default()) {
            self.does_nothing(span, table.key("by"), "by = \"-3h\"");
        }
        FaultKind::ClockStep {
            share: self.share(table, raw.share),
            by,
            lasts: self.builder.length_or_none(table, "lasts", raw.lasts, LASTS),
        }
    }

    fn clock_drift(&mut self, table: &Table, raw: RawClockDrift) -> FaultKind {
        let span = raw.rate.as_ref().map(Spanned::span);
        let rate = self.builder.number(table, "rate", raw.rate, DRIFT, Fallback::Required);
        if let Some(span) = span.filter(|_| rate == 0.0) {
            self.does_nothing(span, table.key("rate"), "rate = 60, which gains a minute per second");
        }
        let lasts = self.builder.required_length(table, "lasts", raw.lasts, LASTS);
        FaultKind::ClockDrift { share: self.share(table, raw.share), rate, lasts }
    }

    fn does_nothing(&mut self, span: Range<usize>, key: String, instead: &str) {
        self.builder.refuse(
            span,
            key,
            "the clock stays right: this fault would do nothing",
            format!("such as {instead}"),
        );
    }

    fn moves(&mut self, table: &Table, raw: RawMove) -> FaultKind {
        let fleet = &self.scenario.fleet;
        if fleet.raes < 2 {
            let help = "at least raes = 2 in [fleet]";
            self.builder.refuse(table.span(), table.key(""), "there is no other RAE to move to", help);
        }
        if fleet.devices_per_rae > DEVICES_THAT_MOVE {
            let what = format!("devices_per_rae = {}: more could gather on a RAE than it takes", fleet.devices_per_rae);
            let help = format!("at most devices_per_rae = {DEVICES_THAT_MOVE} where devices move");
            self.builder.refuse(table.span(), table.key(""), what, help);
        }
        let old = raw.old.map_or(OldRae::Up, Spanned::into_inner);
        let back_after = match (old, raw.back_after) {
            (OldRae::Down | OldRae::Isolated, back) => {
                Some(self.builder.required_length(table, "back_after", back, LASTS))
            }
            (OldRae::Up, None) => None,
            (OldRae::Up, Some(back)) => {
                let what = "an old RAE that stays up does not come back";
                let help = "leave it out, or set old = \"down\" or \"isolated\"";
                self.builder.refuse(back.span(), table.key("back_after"), what, help);
                None
            }
        };
        FaultKind::Move {
            share: self.share(table, raw.share),
            over: self.builder.required_length(table, "over", raw.over, 2_000 * MILLISECOND..=DAY),
            old,
            back_after,
        }
    }

    fn share_lasts(&mut self, table: &Table, raw: ShareLasts) -> (f64, Duration) {
        (self.share(table, raw.share), self.builder.required_length(table, "lasts", raw.lasts, LASTS))
    }

    fn share_delay_lasts(&mut self, table: &Table, raw: ShareDelayLasts) -> (f64, Duration, Duration) {
        let share = self.share(table, raw.share);
        let delay = self.builder.required_length(table, "delay", raw.delay, LASTS);
        (share, delay, self.builder.required_length(table, "lasts", raw.lasts, LASTS))
    }

    fn share(&mut self, table: &Table, raw: Field<Number>) -> f64 {
        let span = raw.as_ref().map(Spanned::span);
        let share = self.builder.number(table, "share", raw, 0.0..=1.0, Fallback::Required);
        if let Some(span) = span.filter(|_| share == 0.0 && self.builder.is_sound(&table.key("share"))) {
            let what = "a share of nothing: this fault would hit nothing";
            self.builder.refuse(span, table.key("share"), what, "above 0, such as share = 0.1");
        }
        share
    }

    fn whole(&mut self, table: &Table, key: &str, raw: Field<Whole>, range: RangeInclusive<u64>) -> u32 {
        self.builder.whole(table, key, raw, range, Fallback::Required) as u32
    }

    fn poison_kind(&mut self, table: &Table, raw: Field<PoisonKind>) -> PoisonKind {
        let help = "kind = \"undecodable\" or \"refused_by_store\"";
        let kind = self.builder.required(table, "kind", raw, help);
        kind.map_or(PoisonKind::Undecodable, Spanned::into_inner)
    }

    /// A process of the pipeline, or a server, of which there is one each.
    fn part(&mut self, table: &Table, part: Field<RawPart>, index: Field<Whole>) -> Named {
        let help = "part = \"bridge\", \"registry\", \"broker\", \"kafka\" or \"store\"";
        let server = match self.builder.required(table, "part", part, help).map(Spanned::into_inner) {
            None => return Named::Process(Part::Bridge, 0),
            Some(RawPart::Bridge) => return Named::Process(Part::Bridge, self.index(table, index)),
            Some(RawPart::Registry) => return Named::Process(Part::Registry, self.index(table, index)),
            Some(RawPart::Broker) => Server::Broker,
            Some(RawPart::Kafka) => Server::Kafka,
            Some(RawPart::Store) => Server::Store,
        };
        if let Some(index) = index {
            let what = "there is one of this server";
            self.builder.refuse(index.span(), table.key("index"), what, "leave it out");
        }
        Named::Server(server)
    }

    fn server(&mut self, table: &Table, part: Field<Server>) -> Server {
        let help = "part = \"broker\", \"kafka\" or \"store\"";
        self.builder.required(table, "part", part, help).map_or(Server::Broker, Spanned::into_inner)
    }

    /// The number of a process; whether it is there then is seen when all faults are known.
    fn index(&mut self, table: &Table, raw: Field<Whole>) -> u8 {
        self.processes = raw.as_ref().map(Spanned::span);
        self.builder.whole(table, "index", raw, 0..=15, Fallback::Value(0)) as u8
    }

    fn scale(&mut self, table: &Table, raw: RawScale) -> FaultKind {
        let part = self.builder.required(table, "part", raw.part, "part = \"bridge\" or \"registry\"");
        let part = part.map_or(Part::Registry, Spanned::into_inner);
        self.processes = raw.to.as_ref().map(Spanned::span);
        let to = self.whole(table, "to", raw.to, 1..=16) as u8;
        let groups = self.scenario.pipeline.shard_groups;
        if let Some(span) = self.processes.clone().filter(|_| part == Part::Bridge && to > groups) {
            let what = format!("{to} bridges and only {groups} shard_groups: some would have nothing to do");
            self.builder.refuse(span, table.key("to"), what, format!("1 to {groups}, or more shard_groups"));
        }
        FaultKind::Scale { part, to }
    }
}

/// Whom a fault names.
enum Named {
    Process(Part, u8),
    Server(Server),
}

/// What a fault has for itself while it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Process(Part, u8),
    /// All processes of a part; of the registry also their store.
    All(Part),
    Server(Server),
    Link(Server),
    Disk,
    StoreRate,
    StoreDelay,
}

fn held(kind: &FaultKind) -> Option<Held> {
    match *kind {
        FaultKind::Kill { part, index, .. } | FaultKind::Pause { part, index, .. } => Some(Held::Process(part, index)),
        FaultKind::Server(ServerFault::FullDisk { .. }) => Some(Held::Disk),
        FaultKind::Server(ref fault) if fault.is_of_link() => Some(Held::Link(fault.server())),
        FaultKind::Server(ref fault) => Some(Held::Server(fault.server())),
        FaultKind::ThrottledStore { .. } => Some(Held::StoreRate),
        FaultKind::SlowStore { .. } => Some(Held::StoreDelay),
        FaultKind::WipeStore { .. } => Some(Held::All(Part::Registry)),
        FaultKind::Scale { part, .. } => Some(Held::All(part)),
        FaultKind::MissedUpdates { .. }
        | FaultKind::Qos0Loss { .. }
        | FaultKind::Duplicates { .. }
        | FaultKind::DelayedTails { .. }
        | FaultKind::Poison { .. }
        | FaultKind::Reboot { .. }
        | FaultKind::Wipe { .. }
        | FaultKind::Gone { .. }
        | FaultKind::ClockStep { .. }
        | FaultKind::ClockDrift { .. }
        | FaultKind::Move { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::Disconnect { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::NewConsumer { .. }
        | FaultKind::StageFailure { .. } => None,
    }
}

/// The registry that a fault needs to be running at its moment.
fn needs(kind: &FaultKind) -> Option<Held> {
    match *kind {
        FaultKind::StageFailure { index, .. } => Some(Held::Process(Part::Registry, index)),
        FaultKind::MissedUpdates { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::Qos0Loss { .. }
        | FaultKind::Duplicates { .. }
        | FaultKind::DelayedTails { .. }
        | FaultKind::Poison { .. }
        | FaultKind::Reboot { .. }
        | FaultKind::Wipe { .. }
        | FaultKind::Gone { .. }
        | FaultKind::ClockStep { .. }
        | FaultKind::ClockDrift { .. }
        | FaultKind::Move { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::Disconnect { .. }
        | FaultKind::Kill { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Scale { .. }
        | FaultKind::Server(_)
        | FaultKind::ThrottledStore { .. }
        | FaultKind::SlowStore { .. }
        | FaultKind::WipeStore { .. }
        | FaultKind::NewConsumer { .. } => None,
    }
}

/// Whether two faults want the same.
fn clash(one: Option<Held>, other: Option<Held>) -> bool {
    match (one, other) {
        (Some(Held::All(all)), Some(Held::Process(part, _))) | (Some(Held::Process(part, _)), Some(Held::All(all))) => {
            all == part
        }
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => false,
    }
}

/// Why two faults cannot be, in words after "it" and "fault[..]"; and what would be right.
fn contradiction(one: &Fault, other: &Fault) -> Option<(&'static str, &'static str)> {
    let ends = |fault: &Fault| fault.at + fault.kind.lasts();
    // A fault without duration holds at its moment.
    let overlap = one.at == other.at || (one.at < ends(other) && other.at < ends(one));
    // What holds a process ends before anything else of that moment begins.
    let within = |moment: &Fault, holder: &Fault| {
        let holds = moment.at == holder.at || (holder.at < moment.at && moment.at < ends(holder));
        holds && clash(needs(&moment.kind), held(&holder.kind))
    };
    let same_moment = one.at == other.at && needs(&one.kind).is_some() && needs(&one.kind) == needs(&other.kind);
    match () {
        () if overlap && clash(held(&one.kind), held(&other.kind)) => Some((
            "it holds what {} holds at that time",
            "the end of one would end the other: let one begin when the other is over",
        )),
        () if within(one, other) => Some((
            "the registry whose stage is to fail is taken down by {} at that time",
            "no stage fails in a process that does not run: let it fail before, or after the other fault is over",
        )),
        () if within(other, one) => Some((
            "it takes down the registry whose stage is to fail by {} at that time",
            "no stage fails in a process that does not run: let this begin later, or be over before",
        )),
        () if same_moment => Some((
            "the same stage is to fail by {} at that moment",
            "both add up to failures in a row: one stage_failure with the sum of both `times`",
        )),
        () => None,
    }
}

fn refuse_contradictions(builder: &mut Builder<'_>, faults: &[Placed]) {
    for (place, Placed { table, fault, .. }) in faults.iter().enumerate() {
        let contradicted = faults[..place].iter().find_map(|Placed { number, fault: other, .. }| {
            let (what, help) = contradiction(fault, other)?;
            Some((what.replace("{}", &format!("fault[{number}] (`{}`)", other.kind.key())), help))
        });
        if let Some((what, help)) = contradicted {
            builder.refuse(table.span(), table.key(fault.kind.key()), what, help);
        }
    }
}
