//! C5: below a committed offset, every record is reflected in the rows, or quarantined with a reason.
//!
//! Each read of the store names the offsets that were committed before it. What the log demands up to them and the rows
//! do not show is a suspicion: it stands unless a dead letter that is read later says that the record was quarantined.

use std::time::Duration;

use super::{
    model::{Gap, GapKind, Models, Step, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult, Moment},
};
use crate::history::Entry;

/// Suspicions kept; what comes beyond is counted as a failure at once.
const SUSPICIONS: usize = 10_000;

/// Suspicions that are kept with their timeline: a few more than are shown, since some may be dismissed.
const WITH_TIMELINE: usize = 50;

/// C5.
#[derive(Debug)]
pub(super) struct CommitSafety {
    tally: Tally,
    suspicions: Vec<Suspicion>,
    beyond: u64,
}

/// Something that a committed record demands and the rows do not show.
#[derive(Debug)]
struct Suspicion {
    gap: Gap,
    at: Duration,
    timeline: Vec<Moment>,
}

impl CommitSafety {
    pub(super) fn new() -> CommitSafety {
        CommitSafety { tally: Tally::new(CheckId::C5), suspicions: Vec::new(), beyond: 0 }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        let Step::Read { records, gaps, .. } = step else { return };
        self.tally.observed += records;
        for gap in gaps.iter().filter(|gap| matches!(gap.kind, GapKind::NeverWritten | GapKind::NotHidden)) {
            if self.suspicions.len() == SUSPICIONS {
                self.beyond += 1;
                continue;
            }
            let kept = self.suspicions.len() < WITH_TIMELINE;
            let timeline = if kept { models.timeline(gap.device, entry.at) } else { Vec::new() };
            self.suspicions.push(Suspicion { gap: gap.clone(), at: entry.at, timeline });
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        for suspicion in std::mem::take(&mut self.suspicions) {
            if models.quarantined(suspicion.gap.device, suspicion.gap.expected) {
                continue;
            }
            let Suspicion { gap, at, timeline } = suspicion;
            self.tally.fail(at, || (sentence(models, &gap), timeline));
        }
        self.tally.add_failures(std::mem::take(&mut self.beyond));
        let figure = format!("{} committed records", self.tally.observed);
        self.tally.result(figure, String::new(), "committed record")
    }
}

fn sentence(models: &Models, gap: &Gap) -> String {
    let what = gap.name.as_ref().map_or("its floor".to_owned(), |name| format!("{name}"));
    let stored = gap.stored.map_or("is not shown".to_owned(), |stored| format!("is stored at {}", brief(stored)));
    let place = models.ledger.life(gap.device, gap.expected).filter(|life| life.in_log());
    let place = place.map_or(String::new(), |life| format!(" (record {}/{})", life.partition, life.offset));
    let because = match gap.kind {
        GapKind::NeverWritten => "was committed and never written",
        GapKind::Overwritten => "was overwritten by a late offer",
        GapKind::Removed => "was shown and is gone",
        GapKind::NotHidden => "removes it",
    };
    format!("device {}: {what} {stored}, although {}{place} {because}", models.id(gap.device), brief(gap.expected))
}
