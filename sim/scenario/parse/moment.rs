//! When a fault begins, as a scenario writes it: `burst`, `burst + 5s`, or `12s` from the begin of the load.

use std::time::Duration;

use super::shape::nearest;
use crate::scenario::{
    Phase,
    quantity::{A_DURATION, parse_duration},
};

/// The moment that `text` names, from the begin of the load.
///
/// # Errors
/// What is wrong, and what would be right.
pub(super) fn parse_moment(text: &str, phases: &[Phase]) -> Result<Duration, (String, String)> {
    if let Some(moment) = parse_duration(text) {
        return Ok(moment);
    }
    let (name, offset) = match text.split_once('+') {
        Some((name, offset)) => (name.trim(), Some(offset.trim())),
        None => (text.trim(), None),
    };
    let Some(index) = phases.iter().position(|phase| phase.name == name) else {
        return Err((format!("there is no phase {name:?}"), known(name, phases)));
    };
    let begins: Duration = phases[..index].iter().map(|phase| phase.lasts).sum();
    let offset = match offset {
        Some(text) => parse_duration(text).ok_or_else(|| {
            (format!("{text:?} is no duration"), format!("{name} + {A_DURATION}, without the quotes"))
        })?,
        None => Duration::ZERO,
    };
    Ok(offset + begins)
}

fn known(name: &str, phases: &[Phase]) -> String {
    let names: Vec<_> = phases.iter().map(|phase| phase.name.as_str()).collect();
    let example = names.first().copied().unwrap_or("load");
    let form = format!("write a phase and an offset, such as \"{example} + 5s\"; the phases are {}", names.join(", "));
    match nearest(name, &names) {
        Some(near) => format!("did you mean `{near}`? {form}"),
        None => form,
    }
}
