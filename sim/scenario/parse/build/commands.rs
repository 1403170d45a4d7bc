//! The commands of a scenario: all sent while the load lasts, and at their end before its heal is over.

use std::time::Duration;

use toml::Spanned;

use super::{
    DAY, HOUR, MILLISECOND, SECOND,
    builder::{Builder, Fallback, Table},
};
use crate::scenario::{
    Addressee, Ask, Commands, HEAL, Scenario,
    parse::{moment::parse_moment, raw::RawCommand},
    quantity::show_duration,
};

/// Commands of one table: what a second of a large fleet's deltas comes to, and all are remembered.
const MOST_COMMANDS: u64 = 100_000;

/// The commands in order of time.
pub(super) fn commands(builder: &mut Builder<'_>, raw: Vec<Spanned<RawCommand>>, scenario: &Scenario) -> Vec<Commands> {
    let tables = raw.into_iter().enumerate().filter_map(|(index, raw)| {
        let table = Table::new(format!("command[{index}]"), raw.span());
        commands_of(builder, &table, raw.into_inner(), scenario)
    });
    let mut commands: Vec<_> = tables.collect();
    commands.sort_by_key(|commands| commands.at);
    commands
}

fn commands_of(builder: &mut Builder<'_>, table: &Table, raw: RawCommand, scenario: &Scenario) -> Option<Commands> {
    let help = "kind = \"snapshot\", \"probe\", \"set\" or \"reonboard\"";
    let kind = builder.required(table, "kind", raw.kind, help).map_or(Ask::Probe, Spanned::into_inner);
    let count = builder.whole(table, "count", raw.count, 1..=MOST_COMMANDS, Fallback::Required) as u32;
    let over = builder.required_length(table, "over", raw.over, MILLISECOND..=DAY);
    let expires_after = builder.length(table, "expires_after", raw.expires_after, SECOND..=HOUR, 10 * SECOND);
    let to = raw.to.map_or(Addressee::Living, Spanned::into_inner);
    let at = builder.required(
        table,
        "at",
        raw.at,
        "say when, such as at = \"5s\", or \"burst + 5s\" with a phase of that name",
    )?;
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
    if let Some((what, help)) = too_late(at + over, expires_after, scenario) {
        builder.refuse(span, table.key("at"), what, help);
    }
    Some(Commands { at, at_text, kind, count, over, expires_after, to })
}

fn too_late(sent_by: Duration, expires_after: Duration, scenario: &Scenario) -> Option<(String, &'static str)> {
    let (load, end) = (scenario.load(), scenario.load() + HEAL);
    if sent_by > load {
        let [sent_by, load] = [sent_by, load].map(show_duration);
        let what = format!("the last is sent at {sent_by}, and the load ends at {load}");
        return Some((what, "begin earlier, shorten `over`, or lengthen a phase"));
    }
    if sent_by + expires_after > end {
        let [expires, end] = [sent_by + expires_after, end].map(show_duration);
        let what = format!("the last expires at {expires}, and heal ends at {end}");
        return Some((what, "every command has its end within heal: begin earlier, or set a shorter `expires_after`"));
    }
    None
}
