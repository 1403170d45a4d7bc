//! How many processes of each part there are, in order of time: a fault of a process that is not there then is refused, and
//! a `scale` that changes nothing.

use super::{Builder, Placed};
use crate::scenario::{FaultKind, Part, Pipeline};

/// Refuses what does not fit the number of processes at its time.
pub(super) fn refuse(builder: &mut Builder<'_>, faults: &[Placed], pipeline: &Pipeline) {
    let mut in_time: Vec<&Placed> = faults.iter().collect();
    in_time.sort_by_key(|placed| placed.fault.at);
    let (mut bridges, mut registries) = (pipeline.bridges, pipeline.registries);
    for placed in in_time {
        let Some((part, named)) = named(&placed.fault.kind) else { continue };
        let (count, key) = match part {
            Part::Bridge => (&mut bridges, "bridges"),
            Part::Registry => (&mut registries, "registries"),
            // No fault can name it.
            Part::Consumer | Part::Baseline => continue,
        };
        let (field, what, help) = match named {
            Named::One(index) if index >= *count => (
                "index",
                format!("there is no such process then: {key} = {count}, counted from 0"),
                format!("0 to {}, or more {key} in [pipeline] or by a `scale` before", count.saturating_sub(1)),
            ),
            Named::All(to) if to == *count => (
                "to",
                format!("{key} = {count} then: this fault would do nothing"),
                "another number, or no such fault".to_owned(),
            ),
            Named::One(_) => continue,
            Named::All(to) => {
                *count = to;
                continue;
            }
        };
        let table = &placed.table;
        let key = table.key(&format!("{}.{field}", placed.fault.kind.key()));
        // A number that is out of range has been refused.
        if builder.is_sound(&key) {
            builder.refuse(placed.processes.clone().unwrap_or(table.span()), key, what, help);
        }
    }
}

/// What of a part a fault names.
enum Named {
    /// The process of this index.
    One(u8),
    /// So many processes.
    All(u8),
}

fn named(kind: &FaultKind) -> Option<(Part, Named)> {
    match *kind {
        FaultKind::Kill { part, index, .. } | FaultKind::Pause { part, index, .. } => Some((part, Named::One(index))),
        FaultKind::StageFailure { index, .. } => Some((Part::Registry, Named::One(index))),
        FaultKind::Scale { part, to } => Some((part, Named::All(to))),
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
        | FaultKind::Server(_)
        | FaultKind::ThrottledStore { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::SlowStore { .. }
        | FaultKind::WipeStore { .. }
        | FaultKind::NewConsumer { .. } => None,
    }
}
