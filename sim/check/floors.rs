//! C3: the version of a floor never falls, and nothing visible is removed unless the log says so.

use super::{
    model::{Fell, GapKind, Models, Step, brief},
    tally::{ATTRIBUTES_ALONE, Tally},
    verdict::{CheckId, CheckResult},
};
use crate::history::{Entry, What};

/// C3.
#[derive(Debug)]
pub(super) struct Floors(Tally);

impl Floors {
    pub(super) fn new() -> Floors {
        Floors(Tally::new(CheckId::C3))
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match (step, &entry.what) {
            (Step::Floor { device, fell, .. }, _) if models.observable.records => {
                self.0.saw();
                let Some(Fell { from, to }) = fell else { return };
                self.0.fail(entry.at, || {
                    let what =
                        format!("floor of device {} fell from {} to {}", models.id(*device), brief(*from), brief(*to));
                    (what, models.timeline(*device, entry.at))
                });
            }
            (Step::RowGone { device, unexplained: Some(version) }, What::RowGone { name, .. }) => {
                self.0.fail(entry.at, || {
                    let what = format!(
                        "{name} of device {} at {} is gone, and nothing in the log removes it",
                        models.id(*device),
                        brief(*version)
                    );
                    (what, models.timeline(*device, entry.at))
                });
            }
            (Step::Plain, What::DeviceGone(device)) => {
                let Some(index) = models.plan.device(*device) else { return };
                self.0.fail(entry.at, || {
                    (format!("device {device} is gone from the store"), models.timeline(index, entry.at))
                });
            }
            (Step::Read { gaps, .. }, _) => {
                let floors = gaps.iter().filter(|gap| gap.name.is_none() && gap.kind == GapKind::Overwritten);
                for gap in floors {
                    self.0.fail(entry.at, || {
                        let what = format!(
                            "floor of device {} is a late snapshot's, although {} was committed before it",
                            models.id(gap.device),
                            brief(gap.expected)
                        );
                        (what, models.timeline(gap.device, entry.at))
                    });
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if !models.observable.records {
            return self.0.not_observable(ATTRIBUTES_ALONE);
        }
        let figure = format!("{} floors read", self.0.observed);
        self.0.result(figure, String::new(), "floor")
    }
}
