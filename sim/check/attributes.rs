//! C2: the stored version of an attribute never falls, and no older offer is written over a newer one.
//!
//! A fall between two reads is seen as such. One that happened before the newer version was ever read is told from a
//! record that was never written by the log: there the older offer comes again after the newer one.

use super::{
    model::{Fell, Gap, GapKind, Models, RowChange, Step, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::history::{Entry, What};

/// C2.
#[derive(Debug)]
pub(super) struct Attributes(Tally);

impl Attributes {
    pub(super) fn new() -> Attributes {
        Attributes(Tally::new(CheckId::C2))
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match (step, &entry.what) {
            (Step::Row { device, change, .. }, What::Row { name, .. }) => {
                self.0.saw();
                let wrong = match change {
                    RowChange::Rose => return,
                    RowChange::Fell(Fell { from, to }) => format!("fell from {} to {}", brief(*from), brief(*to)),
                    RowChange::Rewritten => "has another value at the same version".to_owned(),
                };
                self.0.fail(entry.at, || {
                    let what = format!("{name} of device {} {wrong}", models.id(*device));
                    (what, models.timeline(*device, entry.at))
                });
            }
            (Step::Read { gaps, .. }, _) => gaps.iter().for_each(|gap| self.overwritten(models, entry, gap)),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) -> CheckResult {
        let figure = format!("{} rows read", self.0.observed);
        self.0.result(figure, String::new(), "row")
    }

    fn overwritten(&mut self, models: &Models, entry: &Entry, gap: &Gap) {
        let (Gap { kind: GapKind::Overwritten, name: Some(name), .. }, Some(stored)) = (gap, gap.stored) else {
            return;
        };
        self.0.fail(entry.at, || {
            let what = format!(
                "{name} of device {} is stored at {}, a late offer, although {} was committed before it",
                models.id(gap.device),
                brief(stored),
                brief(gap.expected)
            );
            (what, models.timeline(gap.device, entry.at))
        });
    }
}
