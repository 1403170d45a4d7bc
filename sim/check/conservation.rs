//! C15: what became of every event that an agent recorded, and of every record that the log holds.
//!
//! Each recorded event is given one fate, the first that fits, from what was seen of it on its way; the figure is how many
//! have which. It fails for fates that nothing explains: vanished, withheld and yet in the log, and overdue, which is still
//! on its way after an orderly end. Losses that are seen at one hop are told by that hop's own check: of a bridge by C8, of
//! the MQTT broker by the generator's. Events overdue in a run whose generator fell short, and those of agents that never
//! came online, make it INVALID: the harness owes them, not the system. Whether what is in the log is in the rows is for
//! C5 and C9. The other way round, a record that no agent recorded fails, and poison that is in the log, or was acknowledged
//! by a bridge, fails unless it is in the dead letters.

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

    /// `sound` tells whether the generator's own check passed.
    pub(super) fn finish(&mut self, models: &Models, fates: &Fates, sound: bool) -> CheckResult {
        self.0.observed = fates.recorded();
        let overdue = sound.then_some(Fate::Overdue);
        for fate in [Fate::Vanished, Fate::Contradiction].into_iter().chain(overdue) {
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
        let (unheard, late) = (fates.count(Fate::NeverOnline), fates.count(Fate::Overdue));
        let because = match (unheard, late) {
            (0, 0) => None,
            (0, late) => Some(format!("{late} events are overdue, and the generator fell short")),
            (unheard, _) => Some(format!("{unheard} events are in agents that never came online")),
        };
        if let Some(because) = because.filter(|_| self.0.failures() == 0) {
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
