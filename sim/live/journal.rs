//! The way of entries into the history: one bounded channel, so that their order is that of arrival.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::clock::RunClock;
use crate::history::{Entry, What};

/// Entries on their way at a time: about a second of the heaviest load. When it is full, sources wait, and the
/// generator's lateness shows it.
const ENTRIES: usize = 65_536;

/// Puts entries into the history; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    clock: Arc<RunClock>,
    entries: mpsc::Sender<Entry>,
}

impl Journal {
    /// A journal, and the end at which its entries come out.
    #[must_use]
    pub(super) fn new(clock: Arc<RunClock>) -> (Journal, mpsc::Receiver<Entry>) {
        let (entries, out) = mpsc::channel(ENTRIES);
        (Journal { clock, entries }, out)
    }

    /// An entry of now, for [`Journal::enter_all`].
    #[must_use]
    pub(super) fn entry(&self, what: What) -> Entry {
        Entry { at: self.clock.at(), what }
    }

    /// Enters what happened just now.
    pub(super) async fn enter(&self, what: What) {
        self.enter_at(self.clock.at(), what).await;
    }

    /// Enters what happened at `at`.
    pub(super) async fn enter_at(&self, at: Duration, what: What) {
        // The judge outlives every source; where it does not, the run has failed and says so itself.
        let _judge_gone = self.entries.send(Entry { at, what }).await;
    }

    /// Enters all of `entries`, in their order, and leaves it empty.
    pub(super) async fn enter_all(&self, entries: &mut Vec<Entry>) {
        for entry in entries.drain(..) {
            let _judge_gone = self.entries.send(entry).await;
        }
    }
}
