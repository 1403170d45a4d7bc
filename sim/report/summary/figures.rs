//! The figures of a run: per phase, lag over time, and who healed what.

use super::super::{
    chart,
    layout::{Align, Terminal, columns, wrapped},
};
use crate::{
    observe::{FaultFigures, Figures, Healed, HealedBy, Percentiles, PhaseFigures, ReconstructionFigures},
    run::RunOutcome,
    scenario::{ReadFrom, quantity::show_whole},
};

/// Rates, latency, staleness and lag of each phase.
pub(super) fn phases(outcome: &RunOutcome, terminal: Terminal) -> String {
    let Figures { phases, .. } = &outcome.figures;
    if phases.is_empty() {
        return String::new();
    }
    let title = |words: [&str; 8]| words.map(|word| terminal.dim(word)).to_vec();
    let mut rows = vec![
        title(["", "", "latency", "ms", "staleness", "ms", "lag reflected", "committed"]),
        title(["", "msg/s", "p50", "p99", "p99", "max", "p99", "max"]),
    ];
    rows.extend(phases.iter().map(row));
    let align = [[Align::Left].as_slice(), &[Align::Right; 7]].concat();
    let table = columns(&rows, &align, "  ", terminal.width());
    format!("{}\n{table}", terminal.heading("phases"))
}

fn row(phase: &PhaseFigures) -> Vec<String> {
    let seconds = phase.ends_s - phase.begins_s;
    let per_s = if seconds > 0.0 { phase.published as f64 / seconds } else { 0.0 };
    let of = |percentiles: &Percentiles, value: f64| match percentiles.count {
        0 => "-".to_owned(),
        _ => show_whole(value.max(0.0).round() as u64),
    };
    vec![
        phase.name.clone(),
        show_whole(per_s.round() as u64),
        of(&phase.latency_ms, phase.latency_ms.p50),
        of(&phase.latency_ms, phase.latency_ms.p99),
        of(&phase.staleness_ms, phase.staleness_ms.p99),
        of(&phase.staleness_ms, phase.staleness_ms.max),
        of(&phase.lag_reflected, phase.lag_reflected.p99),
        of(&phase.lag_committed, phase.lag_committed.max),
    ]
}

/// The lag over the whole run as a row of blocks, and below it where faults held.
pub(super) fn lag(outcome: &RunOutcome, terminal: Terminal) -> String {
    let Figures { phases, series, faults, .. } = &outcome.figures;
    let Some(last) = series.last() else { return String::new() };
    let blocks = terminal.width() - 2;
    let ends_s = last.at_s.max(1.0);
    // Of every reading, not only of those that are points of the series.
    let peak = phases.iter().map(|phase| phase.lag_committed.max).fold(0.0, f64::max).round() as u64;
    let heading = terminal.heading("lag");
    let line = chart::sparkline(&chart::lag(series), ends_s, blocks);
    let mut text = format!("{heading}  end - committed, peak {} records, 0 to {ends_s:.0} s\n", show_whole(peak));
    text.push_str(&format!("  {line}\n"));
    if !faults.is_empty() {
        text.push_str(&format!("  {}\n", chart::fault_marks(faults, ends_s, blocks)));
    }
    text
}

/// Convergence, who healed what, faults, lateness and memory.
pub(super) fn facts(outcome: &RunOutcome, terminal: Terminal) -> String {
    let Figures {
        phases, healed_by, faults, memory_bytes, lateness_ms_max, converged_after_s, reconstructions, ..
    } = &outcome.figures;
    let mut rows = vec![
        (
            "converged",
            match converged_after_s {
                Some(after) => format!("{after:.1} s after heal"),
                None => "never".to_owned(),
            },
        ),
        ("changes", changes(*healed_by)),
        ("healed by", healed(*healed_by)),
        ("commands", commands(phases)),
    ];
    let label = |first: bool| if first { "rebuilt" } else { "" };
    rows.extend(reconstructions.iter().enumerate().map(|(index, build)| (label(index == 0), rebuilt(build))));
    let label = |first: bool| if first { "faults" } else { "" };
    rows.extend(faults.iter().enumerate().map(|(index, fault)| (label(index == 0), held(fault))));
    rows.push(("generator", format!("at most {lateness_ms_max:.0} ms behind its plan")));
    let memory = memory_bytes.iter().map(|(process, bytes)| format!("{process} {} MiB", bytes >> 20));
    rows.push(("memory", memory.collect::<Vec<_>>().join(", ")));
    let mut text = String::new();
    for (label, fact) in rows.into_iter().filter(|(_, fact)| !fact.is_empty()) {
        let label = terminal.dim(&format!("{label:<9}"));
        text.push_str(&format!("{label}  {}\n", wrapped(&fact, 11, terminal.width())));
    }
    text
}

/// What brought the changes into the log; of those that were missed, what healed them and when.
fn changes(healed: HealedBy) -> String {
    let HealedBy { own_update, update, snapshot, requested_snapshot, never } = healed;
    let missed = update.count + snapshot.count + requested_snapshot.count;
    // What is in no log yet, when a run is cut short, need not have been missed.
    let all = own_update + missed + never;
    let part = missed as f64 / all.max(1) as f64 * 100.0;
    format!("{}, of which {} ({part:.2} %) were missed at first", show_whole(all), show_whole(missed))
}

fn healed(HealedBy { update, snapshot, requested_snapshot, never, .. }: HealedBy) -> String {
    let ways = [("late update", update), ("snapshot", snapshot), ("requested snapshot", requested_snapshot)];
    let ways = ways.into_iter().filter(|(_, healed)| healed.count > 0).map(|(word, Healed { count, after_ms })| {
        let [median, p99] = [after_ms.p50, after_ms.p99].map(|ms| ms / 1e3);
        format!("{word} {} (median {median:.1} s, p99 {p99:.1} s)", show_whole(count))
    });
    let never = (never > 0).then(|| format!("nothing by the end {}", show_whole(never)));
    ways.chain(never).collect::<Vec<_>>().join(", ")
}

/// Round trips of commands, per phase.
fn commands(phases: &[PhaseFigures]) -> String {
    let sent = phases.iter().filter(|phase| phase.command_ms.count > 0);
    let shown = sent.map(|PhaseFigures { name, command_ms, .. }| {
        let Percentiles { count, p50, p99, max, .. } = command_ms;
        format!("{name} {}: p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms", show_whole(*count))
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn rebuilt(build: &ReconstructionFigures) -> String {
    let ReconstructionFigures { who, from, complete_after_s, backlog, reflected_per_s, normal_per_s, commands, .. } =
        build;
    let complete = complete_after_s.map_or("never complete".to_owned(), |after| format!("complete after {after:.1} s"));
    let per_s = |rate: &Option<f64>| rate.map_or("-".to_owned(), |rate| show_whole(rate.round() as u64));
    let rate = format!("{} records/s (normally {})", per_s(reflected_per_s), per_s(normal_per_s));
    let sent = if *commands == 0 { "no commands".to_owned() } else { format!("{} commands", show_whole(*commands)) };
    match from {
        ReadFrom::Earliest => {
            format!("{who} from the log: {complete}; {} records behind it at {rate}; {sent}", show_whole(*backlog))
        }
        ReadFrom::Latest => format!("{who} by snapshots alone: {complete}; {rate}; {sent}"),
    }
}

fn held(fault: &FaultFigures) -> String {
    match fault.ended_s {
        Some(ended_s) => format!("{:.1} to {ended_s:.1} s: {}", fault.began_s, fault.what),
        None => format!("{:.1} s to the end: {}", fault.began_s, fault.what),
    }
}
