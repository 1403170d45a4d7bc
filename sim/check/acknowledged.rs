//! C8: what a bridge acknowledged is in the log, or in the dead letters, by the end of the run.
//!
//! Both sides of the bridge are seen: the packets between broker and bridge, and the log. What the broker acknowledged to
//! an agent and never handed to a bridge is the broker's loss: told as such where a fault took its memory, and else the run
//! is invalid.

use super::{
    model::{Fate, Fates, Models, ON_ITS_WAY, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult},
};

/// C8.
#[derive(Debug)]
pub(super) struct Acknowledged(Tally);

impl Acknowledged {
    pub(super) fn new() -> Acknowledged {
        Acknowledged(Tally::new(CheckId::C8))
    }

    pub(super) fn finish(&mut self, models: &Models, fates: &Fates) -> CheckResult {
        if !models.observable.wire {
            return self.0.not_observable("the packets between broker and bridge are not seen");
        }
        self.0.observed = models.ledger.bridge_acknowledged;
        for (device, version) in fates.of(Fate::LostByBridge) {
            let life = models.ledger.life(device, version);
            let at = life.and_then(|life| life.bridge_acknowledged.get()).unwrap_or(models.clock.now);
            if at + ON_ITS_WAY > models.clock.now {
                continue;
            }
            self.0.fail(at, || {
                let what = format!(
                    "{} of device {} was acknowledged by a bridge and is neither in the log nor in the dead letters",
                    brief(version),
                    models.id(device)
                );
                (what, models.timeline(device, at))
            });
        }
        for ((topic, payload), loose) in &models.ledger.loose {
            let Some(at) = loose.acknowledged.get() else { continue };
            if at + ON_ITS_WAY > models.clock.now || loose.stored || models.letters.has_message(topic, *payload) {
                continue;
            }
            self.0.fail(at, || {
                let what = format!(
                    "a message of {} B on {topic} was acknowledged by a bridge and is neither in the log nor in the dead \
                     letters",
                    payload.bytes
                );
                (what, Vec::new())
            });
        }
        let figure = format!("{} messages acknowledged by bridges", self.0.observed);
        self.0.result(figure, String::new(), "acknowledgement of a bridge")
    }
}
