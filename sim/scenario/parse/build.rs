//! From the form of a scenario to a valid one: ranges, defaults, and what must fit together.

mod builder;
mod commands;
mod faults;

use std::{ops::Range, time::Duration};

use dmp_core::core::Qos;
use toml::Spanned;

use builder::Fallback;
pub(crate) use builder::{Builder, Table};

use super::raw::{Field, RawBeforeAfter, RawCanary, RawChecks, RawFleet, RawPhase, RawPipeline, RawScenario};
use crate::{
    fleet::plan::CANARY_PACE,
    scenario::{
        BeforeAfter, Canary, Checks, Fault, FaultKind, Fleet, Phase, Pipeline, Scenario,
        quantity::{show_duration, show_whole},
    },
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Devices of a fleet: about 200 bytes each of plan and bookkeeping, and every change on top.
const MOST_DEVICES: u64 = 1_000_000;

/// Names that the phases of every run have beside the scenario's own.
const RESERVED_PHASES: [&str; 5] = ["warm-up", "heal", "settle", "verify", "verify again"];

/// The scenario, of use only if the builder has found no problem.
pub(super) fn scenario(builder: &mut Builder<'_>, name: &str, raw: RawScenario) -> Scenario {
    let root = Table::root();
    let question = question(builder);
    let seed = builder.whole(&root, "seed", raw.seed, 0..=i64::MAX as u64, Fallback::Value(1));
    let fleet = fleet(builder, raw.fleet);
    let pipeline = pipeline(builder, raw.pipeline, fleet.snapshot_every);
    let phases = phases(builder, raw.phase, pipeline.repair);
    let limits = raw.checks.as_ref().map(Spanned::get_ref);
    let limits_commands = limits.and_then(|checks| checks.command_p99.as_ref()).map(Spanned::span);
    let limits_repair = limits.and_then(|checks| checks.repair_ratio.as_ref()).map(Spanned::span);
    let compares = limits.and_then(|checks| checks.before_after.as_ref()).map(Spanned::span);
    let checks = checks(builder, raw.checks);
    let mut scenario = Scenario {
        name: name.to_owned(),
        question,
        seed,
        fleet,
        pipeline,
        phases,
        faults: Vec::new(),
        commands: Vec::new(),
        checks,
    };
    scenario.faults = faults::faults(builder, raw.fault, &scenario);
    scenario.commands = commands::commands(builder, raw.command, &scenario);
    if let Some(span) = limits_commands.filter(|_| scenario.commands.is_empty()) {
        let what = "there is nothing to measure: the scenario sends no commands".to_owned();
        builder.refuse(span, "checks.command_p99", what, "at least one [[command]], or no such limit");
    }
    let sound = builder.is_sound("phase") && builder.is_sound("fault");
    if let Some(span) =
        limits_repair.filter(|_| sound && ![true, false].map(|on| misses(&scenario, on)).iter().all(|&is| is))
    {
        let what = "there is nothing to compare: updates have to be missed while repair is on, and while it is off";
        let help = "a missed_updates in a phase with `repair = true` and one with `repair = false`, or no such limit";
        builder.refuse(span, "checks.repair_ratio", what, help);
    }
    if let Some(span) = compares.filter(|_| !scenario.pipeline.baseline) {
        let what = "there is nothing to compare with: the scenario runs no baseline".to_owned();
        builder.refuse(span, "checks.before_after", what, "baseline = true in [pipeline], or no such limit");
    }
    scenario
}

/// Whether a fault makes updates be missed in a phase in which repair is on, or off.
fn misses(scenario: &Scenario, repair: bool) -> bool {
    let phases = scenario.phases.iter().enumerate().filter(|(_, phase)| phase.repair == repair);
    let phases = phases.map(|(index, phase)| (scenario.phase_begins(index), phase.lasts));
    let lossy = |kind: &FaultKind| matches!(kind, FaultKind::MissedUpdates { .. } | FaultKind::Qos0Loss { .. });
    let mut lossy = scenario.faults.iter().filter(|fault| lossy(&fault.kind));
    let overlaps = |fault: &Fault, (begins, lasts): (Duration, Duration)| {
        fault.at < begins + lasts && begins < fault.at + fault.kind.lasts()
    };
    lossy.any(|fault| phases.clone().any(|phase| overlaps(fault, phase)))
}

/// The first line, which must be a comment.
fn question(builder: &mut Builder<'_>) -> String {
    let line = builder.first_line();
    let question = line.strip_prefix('#').map(|text| text.trim_start_matches('#').trim().to_owned());
    question.filter(|text| !text.is_empty()).unwrap_or_else(|| {
        let what = "the first line must be a comment that says what the scenario asks";
        let help = "begin with `# Does the registry catch up after a burst?`";
        builder.refuse(0..line.len(), "question", what, help);
        String::new()
    })
}

fn fleet(builder: &mut Builder<'_>, raw: Field<RawFleet>) -> Fleet {
    let (table, raw) = Table::of("fleet", raw);
    let raes_span = raw.raes.as_ref().or(raw.devices_per_rae.as_ref()).map_or(table.span(), Spanned::span);
    let fleet = Fleet {
        raes: builder.whole(&table, "raes", raw.raes, 1..=20_000, Fallback::Value(100)) as u32,
        devices_per_rae: builder.whole(&table, "devices_per_rae", raw.devices_per_rae, 1..=1_000, Fallback::Value(12))
            as u32,
        update_every: builder.length(&table, "update_every", raw.update_every, MILLISECOND * 10..=DAY, 10 * SECOND),
        unset_share: builder.number(&table, "unset_share", raw.unset_share, 0.0..=1.0, Fallback::Value(0.05)),
        reattach_every: builder.length_or_none(&table, "reattach_every", raw.reattach_every, SECOND..=DAY),
        snapshot_every: builder.length(&table, "snapshot_every", raw.snapshot_every, SECOND..=HOUR, 10 * SECOND),
        probe_every: builder.length(&table, "probe_every", raw.probe_every, SECOND..=HOUR, 30 * SECOND),
        record_bytes: builder.size(&table, "record_bytes", raw.record_bytes, 400..=64 << 10, Fallback::Value(930))
            as u32,
        qos: match builder.whole(&table, "qos", raw.qos, 0..=1, Fallback::Value(1)) {
            0 => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        },
        connects_per_s: builder.whole(&table, "connects_per_s", raw.connects_per_s, 1..=2_000, Fallback::Value(400))
            as u32,
        clock_offset: builder.length_or_none(&table, "clock_offset", raw.clock_offset, MILLISECOND..=DAY),
    };
    let devices = u64::from(fleet.raes) * u64::from(fleet.devices_per_rae);
    if devices > MOST_DEVICES {
        let what = format!("{} devices in all (raes x devices_per_rae)", show_whole(devices));
        builder.refuse(raes_span, "fleet.raes", what, format!("at most {}", show_whole(MOST_DEVICES)));
    }
    fleet
}

fn pipeline(builder: &mut Builder<'_>, raw: Field<RawPipeline>, snapshot_every: Duration) -> Pipeline {
    let (table, raw) = Table::of("pipeline", raw);
    let gap_span = raw.gap_wait.as_ref().map(Spanned::span);
    let bridges_span = raw.bridges.as_ref().map(Spanned::span);
    let groups_span = raw.shard_groups.as_ref().map(Spanned::span);
    let mut whole = |key, field, range, value| builder.whole(&table, key, field, range, Fallback::Value(value));
    let shard_groups = whole("shard_groups", raw.shard_groups, 1..=16, 1) as u8;
    let bridges = whole("bridges", raw.bridges, 1..=16, 1) as u8;
    let registries = whole("registries", raw.registries, 1..=16, 1) as u8;
    let partitions = whole("partitions", raw.partitions, 1..=256, 12) as u16;
    let bridge_window = whole("bridge_window", raw.bridge_window, 1..=100_000, 1_000) as u32;
    let batch_rows = whole("batch_rows", raw.batch_rows, 1..=10_000, 200) as u32;
    let partition_credit = whole("partition_credit", raw.partition_credit, 1..=1_000_000, 2_000) as u32;
    let commit_records = whole("commit_records", raw.commit_records, 1..=1_000_000, 1_000) as u32;
    let mut length = |key, field, range, default| builder.length(&table, key, field, range, default);
    let pipeline = Pipeline {
        shard_groups,
        bridges,
        registries,
        partitions,
        bridge_window,
        batch_rows,
        batch_wait: length("batch_wait", raw.batch_wait, MILLISECOND..=10 * SECOND, 10 * MILLISECOND),
        partition_credit,
        commit_records,
        commit_every: length("commit_every", raw.commit_every, 10 * MILLISECOND..=60 * SECOND, SECOND),
        session_timeout: length("session_timeout", raw.session_timeout, SECOND..=300 * SECOND, 6 * SECOND),
        clean_every: length("clean_every", raw.clean_every, 100 * MILLISECOND..=HOUR, 5 * SECOND),
        repair: raw.repair.is_none_or(Spanned::into_inner),
        gap_wait: length("gap_wait", raw.gap_wait, 100 * MILLISECOND..=HOUR, (2 * SECOND).min(snapshot_every / 2)),
        baseline: raw.baseline.is_some_and(Spanned::into_inner),
    };
    if pipeline.gap_wait >= snapshot_every {
        let what = "a snapshot would come before it is asked for".to_owned();
        let wanted = format!("a time below fleet.snapshot_every, {}", show_duration(snapshot_every));
        builder.refuse(gap_span.unwrap_or(0..0), "pipeline.gap_wait", what, wanted);
    }
    if !shard_groups.is_power_of_two() {
        let what = format!("{shard_groups} does not divide the 16 shards evenly");
        builder.refuse(groups_span.clone().unwrap_or(0..0), "pipeline.shard_groups", what, "1, 2, 4, 8 or 16");
    } else if bridges > shard_groups {
        let what = format!("{bridges} bridges and only {shard_groups} shard_groups: some would have nothing to do");
        let span = bridges_span.or(groups_span).unwrap_or(0..0);
        builder.refuse(span, "pipeline.bridges", what, format!("1 to {shard_groups}, or more shard_groups"));
    }
    pipeline
}

fn phases(builder: &mut Builder<'_>, raw: Vec<Spanned<RawPhase>>, mut repair: bool) -> Vec<Phase> {
    if raw.is_empty() {
        builder.missing(&Table::root(), "phase", "a scenario needs at least one [[phase]] with `name` and `lasts`");
    }
    let mut phases: Vec<Phase> = Vec::new();
    let mut canaries = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let table = Table::new(format!("phase[{index}]"), raw.span());
        let raw = raw.into_inner();
        let name = phase_name(builder, &table, raw.name, &phases);
        let lasts = builder.required_length(&table, "lasts", raw.lasts, 100 * MILLISECOND..=DAY);
        let rate = builder.number(&table, "rate", raw.rate, 0.0..=1_000.0, Fallback::Value(1.0));
        repair = raw.repair.map_or(repair, Spanned::into_inner);
        let span = raw.canary.as_ref().map(Spanned::span);
        let canary = raw.canary.map(|raw| canary(builder, &table, raw, lasts));
        canaries.extend(canary.as_ref().zip(span).map(|(canary, span)| (index, canary.clone(), span)));
        phases.push(Phase { name, lasts, rate, repair, canary });
    }
    let load: Duration = phases.iter().map(|phase| phase.lasts).sum();
    for (index, canary, span) in canaries {
        let begins: Duration = phases[..index].iter().map(|phase| phase.lasts).sum();
        if begins + canary.over + CANARY_PACE * canary.messages > load {
            let what = "the last clients would still be sending when the load ends";
            let help = "each sends ten messages a second: shorten `over`, send fewer `messages`, or add time";
            builder.refuse(span, format!("phase[{index}].canary"), what, help);
        }
    }
    phases
}

fn phase_name(builder: &mut Builder<'_>, table: &Table, raw: Field<String>, before: &[Phase]) -> String {
    let Some(raw) = raw else {
        builder.missing(table, "name", "every phase needs a name, such as name = \"burst\"");
        return String::new();
    };
    let (span, key, name) = (raw.span(), table.key("name"), raw.into_inner());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || name.len() > 40 || !name.chars().all(allowed) {
        builder.refuse(span, key, format!("{name:?} is not a name"), "1 to 40 of a-z, 0-9, - and _");
    } else if RESERVED_PHASES.contains(&name.as_str()) {
        let what = format!("{name:?} is a phase of every run");
        builder.refuse(span, key, what, "any other name");
    } else if let Some(other) = before.iter().position(|phase| phase.name == name) {
        let what = format!("phase[{other}] is called {name:?} already");
        builder.refuse(span, key, what, "a name of its own: faults and figures refer to it");
    }
    name
}

fn canary(builder: &mut Builder<'_>, phase: &Table, raw: Spanned<RawCanary>, lasts: Duration) -> Canary {
    let table = Table::new(phase.key("canary"), raw.span());
    let raw = raw.into_inner();
    Canary {
        clients: builder.whole(&table, "clients", raw.clients, 1..=20_000, Fallback::Required) as u32,
        over: builder.required_length(&table, "over", raw.over, MILLISECOND..=lasts.max(MILLISECOND)),
        messages: builder.whole(&table, "messages", raw.messages, 1..=1_000, Fallback::Required) as u32,
    }
}

fn checks(builder: &mut Builder<'_>, raw: Field<RawChecks>) -> Checks {
    let (table, raw) = Table::of("checks", raw);
    let records = 0..=1_000_000_000;
    let times = MILLISECOND..=DAY;
    Checks {
        converged_within: builder.length_or_none(&table, "converged_within", raw.converged_within, times.clone()),
        lag_peak: builder.at_most_whole(&table, "lag_peak", raw.lag_peak, records.clone()),
        lag_reflected_p99: builder.at_most_whole(&table, "lag_reflected_p99", raw.lag_reflected_p99, records.clone()),
        lag_committed_p99: builder.at_most_whole(&table, "lag_committed_p99", raw.lag_committed_p99, records.clone()),
        drained_within: builder.length_or_none(&table, "drained_within", raw.drained_within, times.clone()),
        quiet_lag: builder.whole(&table, "quiet_lag", raw.quiet_lag, records, Fallback::Value(300)),
        staleness_p99: builder.at_most_length(&table, "staleness_p99", raw.staleness_p99, times.clone()),
        stalled_at_most: builder.length(&table, "stalled_at_most", raw.stalled_at_most, times.clone(), 10 * SECOND),
        lateness_at_most: builder.length(
            &table,
            "lateness_at_most",
            raw.lateness_at_most,
            times.clone(),
            500 * MILLISECOND,
        ),
        command_p99: builder.at_most_length(&table, "command_p99", raw.command_p99, times),
        repair_ratio: builder.at_most_number(&table, "repair_ratio", raw.repair_ratio, 0.0..=1.0),
        before_after: raw.before_after.map(|raw| before_after(builder, &table, raw)),
        scaled_within: builder.length(&table, "scaled_within", raw.scaled_within, 7 * SECOND..=DAY, 10 * SECOND),
    }
}

fn before_after(builder: &mut Builder<'_>, checks: &Table, raw: Spanned<RawBeforeAfter>) -> BeforeAfter {
    let table = Table::new(checks.key("before_after"), raw.span());
    let raw = raw.into_inner();
    let mut number = |key, field, range| builder.number(&table, key, field, range, Fallback::Required);
    BeforeAfter {
        fewer_commits: number("fewer_commits", raw.fewer_commits, 1.0..=1e6),
        follows_within: number("follows_within", raw.follows_within, 0.0..=1.0),
        wrong_rows: builder.whole(&table, "wrong_rows", raw.wrong_rows, 0..=MOST_DEVICES, Fallback::Required),
    }
}

/// A span that stands for a whole file.
pub(super) const WHOLE_FILE: Range<usize> = 0..0;
