//! C24: after the number of bridges or registries changed, consumption is back at the rate of publication within a limit,
//! and follows it when the limit is over.
//!
//! What is published and what is reflected is compared over the last seconds, again and again from the change on. Catching
//! up with what piled up meanwhile is faster than publication, so it counts as back. What is published counts when it is
//! sent, so that what waits in the broker while shard groups move is missing too.

use std::{collections::VecDeque, time::Duration};

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    history::{Copy, Entry, Stage, What},
    observe::lag::Lag,
    scenario::{FaultKind, Scenario, quantity::show_whole},
};

/// Over how long the two rates are compared: on two busy cores the lag flickers by some hundred records, and they are to be
/// little beside what is published meanwhile.
const OVER: Duration = Duration::from_secs(5);

/// Reflected records as a part of those published, from which on consumption follows.
const FOLLOWS: f64 = 0.95;

/// A comparison this recently that was as it must be counts: batches and readings come now a moment sooner, now later.
const RECENTLY: Duration = Duration::from_secs(2);

/// C24.
#[derive(Debug)]
pub(super) struct ScaleOut {
    tally: Tally,
    offsets: Lag,
    published: u64,
    change: Option<Change>,
    slowest: Duration,
    /// Changes whose time was cut short before consumption was back.
    unjudged: Vec<String>,
}

/// A change that is being judged; both parts may change at a moment.
#[derive(Debug)]
struct Change {
    what: String,
    /// Its moment in the scenario.
    planned: Duration,
    began: Duration,
    marks: VecDeque<Mark>,
    follows: Option<Stretch>,
}

/// When consumption follows publication, but for a moment.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    since: Duration,
    until: Duration,
}

/// A reading of both numbers.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    published: u64,
    reflected: u64,
}

impl ScaleOut {
    pub(super) fn new() -> ScaleOut {
        ScaleOut {
            tally: Tally::new(CheckId::C24),
            offsets: Lag::default(),
            published: 0,
            change: None,
            slowest: Duration::ZERO,
            unjudged: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            // What is sent once more after a reconnect may be in the log already.
            What::Sent(_, Copy::Resent, _) => {}
            What::Sent(..) => self.published += 1,
            What::FaultBegan(fault) => self.began(&models.scenario, *fault, entry.at),
            // Nothing new is published from here on.
            What::Phase { stage: Stage::Settle, .. } => self.cut_short(),
            _ => {}
        }
        if self.offsets.observe(entry) {
            let reflected = self.offsets.reflected_records();
            let mark = Mark { at: entry.at, published: self.published, reflected };
            self.round(models.scenario.checks.scaled_within, mark);
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        self.cut_short();
        if !models.scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Scale { .. })) {
            return self.tally.not_observable("the number of processes never changes");
        }
        let figure = format!("{} changes, back after {:.1?} at most", self.tally.observed, self.slowest);
        let limit = format!(
            "within {:?}: {:.0} % of what is published over {OVER:?}",
            models.scenario.checks.scaled_within,
            FOLLOWS * 1e2
        );
        if self.tally.failures() == 0 && !self.unjudged.is_empty() {
            let why = format!("too little time to judge it passed after {}", self.unjudged.join(", "));
            return self.tally.with(Outcome::Invalid(why), figure, limit);
        }
        self.tally.result(figure, limit, "change of the number of processes")
    }

    /// A fault begins; another change of the same moment is a part of the first one.
    fn began(&mut self, scenario: &Scenario, fault: usize, at: Duration) {
        let Some(fault) = scenario.faults.get(fault).filter(|fault| matches!(fault.kind, FaultKind::Scale { .. }))
        else {
            return;
        };
        let what = format!("`{}` at {:?}", fault.kind, fault.at_text);
        if let Some(change) = self.change.as_mut().filter(|change| change.planned == fault.at) {
            change.what = format!("{} and {what}", change.what);
            return;
        }
        self.cut_short();
        self.change = Some(Change { what, planned: fault.at, began: at, marks: VecDeque::new(), follows: None });
    }

    fn round(&mut self, within: Duration, now: Mark) {
        let Some(change) = &mut self.change else { return };
        let since = change.compare(now);
        if now.at < change.began + within {
            return;
        }
        self.tally.saw();
        if let Some(back) = change.back_after() {
            self.slowest = self.slowest.max(back);
        } else {
            let [reflected, published] = since.map_or([0, 0], |since| now.more_than(since)).map(show_whole);
            let what = format!(
                "{:.1?} after {} {reflected} records are reflected in {OVER:?}, and {published} are published",
                now.at - change.began,
                change.what,
            );
            self.tally.fail(now.at, || (what, Vec::new()));
        }
        self.change = None;
    }

    /// Ends the judgement of a change before its time is over: good, if consumption is back.
    fn cut_short(&mut self) {
        let Some(change) = self.change.take() else { return };
        match change.back_after() {
            Some(back) => {
                self.tally.saw();
                self.slowest = self.slowest.max(back);
            }
            None => self.unjudged.push(change.what),
        }
    }
}

impl Change {
    /// Compares the rates up to `now`; returns the reading that it was compared with, where there is one so old.
    fn compare(&mut self, now: Mark) -> Option<Mark> {
        self.marks.push_back(now);
        // The newest that is old enough stays in front.
        while self.marks.get(1).is_some_and(|next| next.at + OVER <= now.at) {
            self.marks.pop_front();
        }
        let since = *self.marks.front().filter(|since| since.at + OVER <= now.at)?;
        let [reflected, published] = now.more_than(since);
        if reflected as f64 >= FOLLOWS * published as f64 {
            let since = self.following(now.at).map_or(now.at, |stretch| stretch.since);
            self.follows = Some(Stretch { since, until: now.at });
        }
        Some(since)
    }

    /// How long after its begin consumption was back, if it follows publication at the last reading.
    fn back_after(&self) -> Option<Duration> {
        Some(self.following(self.marks.back()?.at)?.since - self.began)
    }

    fn following(&self, at: Duration) -> Option<Stretch> {
        self.follows.filter(|stretch| at <= stretch.until + RECENTLY)
    }
}

impl Mark {
    /// Records reflected and published since `earlier`.
    fn more_than(self, earlier: Mark) -> [u64; 2] {
        [self.reflected.saturating_sub(earlier.reflected), self.published - earlier.published]
    }
}
