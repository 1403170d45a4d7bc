//! C15: every event that an agent recorded ends in exactly one fate, and the log holds nothing that nobody sent.

use super::{
    Observable,
    model::{Fate, Fates, Models, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{fleet::plan::DeviceIndex, history::PayloadHash};
use dmp_core::id::Version;

/// C15.
#[derive(Debug)]
pub(super) struct Conservation(Tally);

impl Conservation {
    pub(super) fn new() -> Conservation {
        Conservation(Tally::new(CheckId::C15))
    }

    pub(super) fn finish(&mut self, models: &Models, fates: &Fates) -> CheckResult {
        self.0.observed = fates.recorded();
        for fate in [Fate::Vanished, Fate::Overdue, Fate::Contradiction] {
            for (device, version) in fates.of(fate) {
                let recorded = models.ledger.life(device, version).and_then(|life| life.recorded.get());
                let at = recorded.unwrap_or(models.clock.now);
                self.0.fail(at, || {
                    let what = format!(
                        "{} of device {}: {}",
                        brief(version),
                        models.id(device),
                        why(fate, models, device, version)
                    );
                    (what, models.timeline(device, models.clock.now))
                });
            }
        }
        self.strangers(models);
        self.poison(models);
        let limit = "every event has one fate".to_owned();
        let unheard = fates.count(Fate::NeverOnline);
        if unheard > 0 && self.0.failures() == 0 {
            let because = format!("{unheard} events are in agents that never came online");
            return self.0.with(Outcome::Invalid(because), balance(fates), limit);
        }
        self.0.result(balance(fates), limit, "recorded event")
    }

    /// Records of the log that no agent of the fleet recorded, poison apart.
    fn strangers(&mut self, models: &Models) {
        if models.observable.shared {
            return;
        }
        for ((key, payload), &(partition, offset, at)) in &models.letters.strangers {
            if models.letters.is_poison(key, *payload) {
                continue;
            }
            let what = format!("record {partition}/{offset} of {key} was never recorded by an agent");
            self.0.fail(at, || (what, Vec::new()));
        }
    }

    /// Poison ends in the dead letters.
    fn poison(&mut self, models: &Models) {
        let Observable { dead_letters: true, .. } = models.observable else { return };
        for (topic, payload) in &models.letters.poison {
            let missing = match models.letters.strangers.get(&(topic.clone(), *payload)) {
                Some(&(partition, offset, _)) if !models.letters.records.contains_key(&(partition, offset)) => {
                    format!("is in the log at {partition}/{offset} and was not quarantined")
                }
                None if !models.letters.has_message(topic, *payload) && acknowledged(models, topic, *payload) => {
                    "was acknowledged by a bridge and is neither in the log nor in the dead letters".to_owned()
                }
                Some(_) | None => continue,
            };
            let what = format!("poison of {} B on {topic} {missing}", payload.bytes);
            self.0.fail(models.clock.now, || (what, Vec::new()));
        }
    }
}

fn acknowledged(models: &Models, topic: &std::sync::Arc<str>, payload: PayloadHash) -> bool {
    models.ledger.loose.get(&(topic.clone(), payload)).is_some_and(|loose| loose.acknowledged.is())
}

fn why(fate: Fate, models: &Models, device: DeviceIndex, version: Version) -> &'static str {
    let life = models.ledger.life(device, version);
    match fate {
        Fate::Overdue if life.is_some_and(|life| life.delivered.is()) => {
            "overdue: last seen when the broker handed it to a bridge, which never acknowledged it"
        }
        Fate::Overdue if life.is_some_and(|life| life.sent.is()) => {
            "overdue: last seen when its agent sent it, and never acknowledged by the broker"
        }
        Fate::Overdue => "overdue: it never left its agent",
        Fate::Contradiction => "withheld by a fault, and in the log all the same",
        _ if models.observable.wire => "saved, and nothing says what became of it, although later events went through",
        _ => "acknowledged by the broker or overtaken, and not in the log",
    }
}

fn balance(fates: &Fates) -> String {
    let parts = Fate::ALL.iter().filter(|&&fate| fates.count(fate) > 0).map(|&fate| {
        let copies = if fate == Fate::InLog && fates.copies > 0 {
            format!(" (and {} further copies)", fates.copies)
        } else {
            String::new()
        };
        format!("{} {}{copies}", fates.count(fate), fate.text())
    });
    format!("{} recorded = {}", fates.recorded(), parts.collect::<Vec<_>>().join(" + "))
}
