//! The gaps of one session: runs of seqs that are missing, each open until it is filled or a later snapshot covers it.

use crate::{
    id::{Rae, Seq},
    registry::GapEnd,
    time::{Mono, Wall},
};

/// Most gaps of a session that are told apart, and most runs into which late arrivals may split one. A session that
/// misses more is healed by its next snapshot all the same.
const MOST: usize = 8;

/// What is missing of a session.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Who holds the session.
    pub(super) rae: Rae,
    /// When a request is due, if one is.
    pub(super) due: Option<Mono>,
    open: Vec<Gap>,
}

#[derive(Debug)]
struct Gap {
    opened: Mono,
    /// Receive time of the record behind the gap.
    received: Wall,
    asked: bool,
    /// First and last of each run, ascending.
    missing: Vec<(u64, u64)>,
}

/// The end of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) by: GapEnd,
    pub(super) opened: Mono,
}

impl Gaps {
    pub(super) fn new(rae: Rae) -> Gaps {
        Gaps { rae, due: None, open: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Everything between `after` and `before` is missing, which the record `before` tells.
    pub(super) fn open(&mut self, now: Mono, received: Wall, after: Seq, before: Seq, closed: &mut Vec<Closed>) {
        if self.open.len() == MOST {
            let oldest = self.open.remove(0);
            // Its time to be asked for goes to the next: else a session that misses much is never asked.
            self.open[0].opened = self.open[0].opened.min(oldest.opened);
            closed.push(oldest.closed(GapEnd::Forgotten));
        }
        let missing = vec![(after.get() + 1, before.get() - 1)];
        self.open.push(Gap { opened: now, received, asked: false, missing });
    }

    /// A record that came late. Returns whether it was missing.
    pub(super) fn fill(&mut self, seq: Seq, closed: &mut Vec<Closed>) -> bool {
        let seq = seq.get();
        let within = |gap: &Gap| gap.missing.iter().any(|&(first, last)| (first..=last).contains(&seq));
        let Some(at) = self.open.iter().position(within) else { return false };
        self.open[at].take_out(seq);
        if self.open[at].missing.is_empty() {
            closed.push(self.open.remove(at).closed(GapEnd::Update));
        }
        true
    }

    /// A snapshot: what is missing below it is missed no longer.
    pub(super) fn cover(&mut self, snapshot: Seq, closed: &mut Vec<Closed>) {
        for gap in &mut self.open {
            gap.cover(snapshot.get());
        }
        let over = self.open.extract_if(.., |gap| gap.missing.is_empty());
        closed.extend(over.map(|gap| gap.closed(if gap.asked { GapEnd::RequestedSnapshot } else { GapEnd::Snapshot })));
    }

    pub(super) fn forget(&mut self, closed: &mut Vec<Closed>) {
        closed.extend(self.open.drain(..).map(|gap| gap.closed(GapEnd::Forgotten)));
    }

    /// Whether there is a gap to ask for: open for long enough, not asked for, and told by a record for which `is_young`.
    pub(super) fn is_to_be_asked(&self, opened_by: Mono, is_young: impl Fn(Wall) -> bool) -> bool {
        self.open.iter().any(|gap| !gap.asked && gap.opened <= opened_by && is_young(gap.received))
    }

    /// When the oldest gap was opened that is not asked for and was opened after `by`.
    pub(super) fn next_to_be_asked(&self, by: Mono) -> Option<Mono> {
        self.open.iter().filter(|gap| !gap.asked && gap.opened > by).map(|gap| gap.opened).min()
    }

    /// The session is asked for a snapshot, which covers them all.
    pub(super) fn set_asked(&mut self) {
        self.open.iter_mut().for_each(|gap| gap.asked = true);
    }
}

impl Gap {
    fn closed(&self, by: GapEnd) -> Closed {
        Closed { by, opened: self.opened }
    }

    fn take_out(&mut self, seq: u64) {
        let Some(at) = self.missing.iter().position(|&(first, last)| (first..=last).contains(&seq)) else { return };
        let (first, last) = self.missing[at];
        let rest: Vec<_> = [(first, seq - 1), (seq + 1, last)].into_iter().filter(|(from, to)| from <= to).collect();
        // With too many runs the record counts as missing still: a snapshot will cover it.
        if self.missing.len() + rest.len() <= MOST + 1 {
            self.missing.splice(at..=at, rest);
        }
    }

    fn cover(&mut self, snapshot: u64) {
        self.missing.retain(|&(_, last)| last > snapshot);
        if let Some((first, _)) = self.missing.first_mut() {
            *first = (*first).max(snapshot + 1);
        }
    }
}
