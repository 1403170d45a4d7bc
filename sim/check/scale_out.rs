//! C24: after the number of bridges or registries changed, consumption is back at the rate of publication within a limit,
//! and stays there until the limit is over.
//!
//! What is published and what is reflected is compared over the last seconds, again and again from the change on. Catching
//! up with what piled up meanwhile is faster than publication, so it counts as back; a second stop does not.

use std::{collections::VecDeque, time::Duration};

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    history::{Entry, Stage, What},
    observe::lag::Lag,
    scenario::{FaultKind, quantity::show_whole},
};

/// Over how long the two rates are compared: some thousand records, so that a batch more or less is no matter.
const OVER: Duration = Duration::from_secs(3);

/// Reflected records as a part of those published, from which on consumption follows.
const FOLLOWS: f64 = 0.95;

/// C24.
#[derive(Debug)]
pub(super) struct ScaleOut {
    tally: Tally,
    offsets: Lag,
    published: u64,
    change: Option<Change>,
    slowest: Duration,
    /// A change whose time was cut short before consumption was back.
    early: Option<String>,
}

/// A change that is being judged.
#[derive(Debug)]
struct Change {
    what: String,
    began: Duration,
    marks: VecDeque<Mark>,
    /// Since when each comparison was as it must be.
    back: Option<Duration>,
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
            early: None,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        let at = entry.at;
        match &entry.what {
            What::Sent(..) => self.published += 1,
            What::FaultBegan(fault) => {
                let fault = models.scenario.faults.get(*fault);
                if let Some(fault) = fault.filter(|fault| matches!(fault.kind, FaultKind::Scale { .. })) {
                    self.cut_short();
                    let what = format!("`{}` at {:?}", fault.kind, fault.at_text);
                    self.change = Some(Change { what, began: at, marks: VecDeque::new(), back: None });
                }
            }
            // Nothing new is published from here on.
            What::Phase { stage: Stage::Settle, .. } => self.cut_short(),
            _ => {}
        }
        if self.offsets.observe(entry) {
            let mark = Mark { at, published: self.published, reflected: self.offsets.reflected_records() };
            self.round(models.scenario.checks.scaled_within, mark);
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        self.cut_short();
        if !models.scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Scale { .. })) {
            return self.tally.not_observable("the number of processes never changes");
        }
        let figure = format!("{} changes, back after {:.1?} at most", self.tally.observed, self.slowest);
        let limit = format!("within {:?}", models.scenario.checks.scaled_within);
        match self.early.take().filter(|_| self.tally.failures() == 0) {
            Some(early) => self.tally.with(Outcome::Invalid(early), figure, limit),
            None => self.tally.result(figure, limit, "change of the number of processes"),
        }
    }

    fn round(&mut self, within: Duration, now: Mark) {
        let Some(change) = &mut self.change else { return };
        let behind = change.compare(now);
        if now.at < change.began + within {
            return;
        }
        self.tally.saw();
        match (change.back, behind) {
            (Some(back), _) => self.slowest = self.slowest.max(back - change.began),
            (None, since) => {
                let [reflected, published] = since.map_or([0, 0], |since| {
                    [now.reflected.saturating_sub(since.reflected), now.published - since.published]
                });
                let what = format!(
                    "{:.1?} after {} {} records are reflected in {OVER:?}, and {} are published",
                    now.at - change.began,
                    change.what,
                    show_whole(reflected),
                    show_whole(published)
                );
                self.tally.fail(now.at, || (what, Vec::new()));
            }
        }
        self.change = None;
    }

    /// Ends the judgement of a change before its time is over: good, if consumption is back.
    fn cut_short(&mut self) {
        let Some(change) = self.change.take() else { return };
        match change.back {
            Some(back) => {
                self.tally.saw();
                self.slowest = self.slowest.max(back - change.began);
            }
            None => self.early = Some(format!("too little time passed after {} to judge it", change.what)),
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
        let (published, reflected) = (now.published - since.published, now.reflected.saturating_sub(since.reflected));
        if reflected as f64 >= FOLLOWS * published as f64 {
            self.back.get_or_insert(now.at);
        } else {
            self.back = None;
        }
        Some(since)
    }
}
