//! The registries beside the baseline consumer: two columns, and how each follows what is published.

use super::super::layout::{Align, Terminal, columns};
use crate::{
    observe::{BeforeAfterFigures, SideFigures, WindowFigures},
    run::RunOutcome,
    scenario::quantity::show_whole,
};

/// The comparison; empty where there is no baseline.
pub(super) fn table(outcome: &RunOutcome, terminal: Terminal) -> String {
    let Some(BeforeAfterFigures { before, after }) = &outcome.figures.before_after else { return String::new() };
    let row = |name: &str, of: fn(&SideFigures) -> String| vec![name.to_owned(), of(before), of(after)];
    let mut rows = vec![
        ["", "baseline (what not to do)", "registries"].map(|word| terminal.dim(word)).to_vec(),
        row("quiet lag, p50", |side| show_whole(side.quiet_lag.p50.round() as u64)),
        row("quiet lag, p99", |side| show_whole(side.quiet_lag.p99.round() as u64)),
        row("burst lag", |side| show_whole(side.burst_lag)),
        row("queue", queue),
        row("memory", |side| format!("{} MiB", side.memory_bytes >> 20)),
        row("records", |side| show_whole(side.records)),
        row("commits", |side| show_whole(side.commits)),
        row("commits per record", |side| {
            side.commits_per_record().map_or("-".to_owned(), |commits| format!("{commits:.4}"))
        }),
        row("wrong rows", |side| format!("{} of {}", show_whole(side.wrong_rows), show_whole(side.devices))),
    ];
    rows.extend(before.windows.iter().zip(&after.windows).map(|(before, after)| followed(before, after)));
    let align = [Align::Left, Align::Right, Align::Right];
    format!("{}\n{}", terminal.heading("before and after"), columns(&rows, &align, "  ", terminal.width()))
}

fn queue(side: &SideFigures) -> String {
    let bound = side.queue_cap.map_or("no bound".to_owned(), |cap| format!("of {}", show_whole(cap)));
    format!("{} {bound}", show_whole(side.queue))
}

/// A quiet window: what was published, and what each side reflected of it.
fn followed(before: &WindowFigures, after: &WindowFigures) -> Vec<String> {
    let per_s = |records: u64, of: &WindowFigures| {
        show_whole((records as f64 / (of.ends_s - of.begins_s).max(1e-3)).round() as u64)
    };
    let side = |of: &WindowFigures| format!("{}/s, {:.1} %", per_s(of.reflected, of), of.followed() * 1e2);
    let name = format!("{:.0} to {:.0} s: {}/s published", after.begins_s, after.ends_s, per_s(after.published, after));
    vec![name, side(before), side(after)]
}
