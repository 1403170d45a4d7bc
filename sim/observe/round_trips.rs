//! Round trips of commands: from the time at which each was due until its first reply was in the log.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use crate::{
    history::{Down, Issued},
    scenario::Addressee,
};

/// Commands that have no reply yet.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    open: BTreeMap<Uuid, Open>,
}

#[derive(Debug)]
struct Open {
    due: Duration,
    expires: Duration,
    /// Whether somebody is there to answer.
    living: bool,
}

impl RoundTrips {
    /// Takes one step of a command. Returns when the command was due that is now answered for the first time.
    pub(super) fn observe(&mut self, down: &Down) -> Option<Duration> {
        match down {
            Down::Issued(issued) => {
                let Issued { id, due, expires, to, .. } = **issued;
                self.open.insert(id, Open { due, expires, living: to == Addressee::Living });
                None
            }
            Down::Replied { id, .. } => self.open.remove(id).map(|open| open.due),
            Down::Logged(_)
            | Down::Malformed
            | Down::Tampered { .. }
            | Down::Taken { .. }
            | Down::Executed { .. }
            | Down::Repeated { .. }
            | Down::Refused { .. }
            | Down::Changed { .. } => None,
        }
    }

    /// When those were due that should have been answered and never were, and when they were given up.
    pub(super) fn never_answered(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.open.values().filter(|open| open.living).map(|open| (open.due, open.expires))
    }
}
