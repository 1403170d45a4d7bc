//! C1: every visible attribute has a value that the device really had at a change it had made, at the version under
//! which it was published.

use super::{
    model::{Models, Offered, Source, Step, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    fleet::plan::DeviceIndex,
    history::{Entry, What},
};

/// C1.
#[derive(Debug)]
pub(super) struct Provenance(Tally);

impl Provenance {
    pub(super) fn new() -> Provenance {
        Provenance(Tally::new(CheckId::C1))
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match (step, &entry.what) {
            (Step::Row { device, source, offered, .. }, What::Row { .. }) => {
                self.row(models, entry, *device, *source, *offered);
            }
            (Step::Floor { device, offered: false, .. }, What::Floor { version, .. }) if models.observable.records => {
                self.0.fail(entry.at, || {
                    let what = format!(
                        "device {} shows a floor at {}, and the log holds no snapshot of that version",
                        models.id(*device),
                        brief(*version)
                    );
                    (what, models.timeline(*device, entry.at))
                });
            }
            (Step::Foreign(device), What::Row { .. } | What::Floor { .. }) if !models.observable.shared => {
                self.0.saw();
                let what = || (format!("the store shows device {device}, which nobody has"), Vec::new());
                self.0.fail(entry.at, what);
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) -> CheckResult {
        let figure = format!("{} rows read", self.0.observed);
        self.0.result(figure, String::new(), "row")
    }

    fn row(&mut self, models: &Models, entry: &Entry, device: DeviceIndex, source: Source, offered: Offered) {
        let What::Row { name, value, version, .. } = &entry.what else { return };
        self.0.saw();
        // The log has gone on: the version stands for itself if the fleet published it.
        let published = offered != Offered::Past || models.ledger.life(device, *version).is_some();
        let wrong = match (source, offered) {
            (Source::Nowhere, _) => "which the device never had by then",
            (_, Offered::Other) => "and the log offers another value at that version",
            (_, Offered::Nothing) => "and the log offers nothing at that version",
            (_, Offered::Past) if !published => "and nobody published that version",
            (Source::Connection | Source::Command | Source::Change(_), Offered::Same | Offered::Past) => return,
        };
        self.0.fail(entry.at, || {
            let shown: String = value.to_string().chars().take(80).collect();
            let what = format!("device {} shows {name} = {shown} at {}, {wrong}", models.id(device), brief(*version));
            (what, models.timeline(device, entry.at))
        });
    }
}
