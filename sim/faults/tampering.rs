//! What becomes of a message between an agent and the broker while faults hold.

use std::time::Duration;

use dmp_core::{core::Qos, id::Session};
use uuid::Uuid;

use crate::{
    fleet::plan::DeviceIndex,
    history::Publish,
    random::chosen,
    scenario::{FaultKind, Scenario},
};

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// It is sent.
    Send,
    /// It is sent, and once more so much later.
    SendTwice(Duration),
    /// It is swallowed, and the agent believes that it was acknowledged.
    Withhold,
    /// It is lost on its way.
    Lose,
    /// It is sent at this time from the begin of the load, and the agent believes that it was acknowledged.
    HoldUntil(Duration),
}

/// What becomes of a command between broker and agent, if a fault acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandHandling {
    /// It is lost.
    Lose,
    /// It arrives, and once more so much later.
    Twice(Duration),
    /// It arrives so much later.
    Late(Duration),
}

/// A session whose tail is being held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTail {
    /// When the fault that holds it began, from the begin of the load.
    fault: Duration,
    session: Session,
}

/// Decides what becomes of messages; the same for the same scenario, message and time.
#[derive(Debug)]
pub struct Tampering {
    seed: u64,
    qos: Qos,
    /// With the index of each in the scenario, and its name in the random streams.
    faults: Vec<(String, Duration, FaultKind)>,
}

impl Tampering {
    /// The tampering of `scenario`'s faults.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Tampering {
        let faults = scenario
            .faults
            .iter()
            .enumerate()
            .map(|(index, fault)| (format!("fault {index}"), fault.at, fault.kind.clone()));
        let mut faults: Vec<_> = faults.collect();
        // A tail is held back whole: an event of it that another fault sent at once would overtake those before it.
        faults.sort_by_key(|(_, _, kind)| !matches!(kind, FaultKind::DelayedTails { .. }));
        Tampering { seed: scenario.seed, qos: scenario.fleet.qos, faults }
    }

    /// What becomes of `publish`, sent for the first time or again (`resent`), `at` from the begin of the load.
    ///
    /// `held` is what is being held back of the device; it is set when a tail begins to be held.
    pub fn handle(&self, at: Duration, publish: Publish, resent: bool, held: &mut Option<HeldTail>) -> Handling {
        for (name, begin, kind) in
            self.faults.iter().filter(|(_, begin, kind)| *begin <= at && at < *begin + kind.lasts())
        {
            let Some(handling) = self.of_fault(name, at - *begin, *begin, kind, publish, resent, held) else {
                continue;
            };
            return handling;
        }
        Handling::Send
    }

    /// What a fault does to the command with this id, `at` from the begin of the load; `None` where it just arrives.
    #[must_use]
    pub fn handle_command(&self, at: Duration, id: Uuid) -> Option<CommandHandling> {
        let (entity, _) = id.as_u64_pair();
        self.faults.iter().find_map(|(name, begin, kind)| {
            let hit = |share, lasts| *begin <= at && at < *begin + lasts && chosen(self.seed, name, entity, share);
            match *kind {
                FaultKind::CommandLoss { share, lasts } if hit(share, lasts) => Some(CommandHandling::Lose),
                FaultKind::CommandDuplicates { share, delay, lasts } if hit(share, lasts) => {
                    Some(CommandHandling::Twice(part_of(delay, self.seed, name, entity)))
                }
                FaultKind::LateCommands { share, delay, lasts } if hit(share, lasts) => {
                    Some(CommandHandling::Late(part_of(delay, self.seed, name, entity)))
                }
                _ => None,
            }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one decision from all that it depends on; called once")]
    fn of_fault(
        &self,
        name: &str,
        into: Duration,
        begin: Duration,
        kind: &FaultKind,
        publish: Publish,
        resent: bool,
        held: &mut Option<HeldTail>,
    ) -> Option<Handling> {
        let event = || event_number(publish);
        let device = u64::from(publish.device.0);
        match *kind {
            FaultKind::MissedUpdates { share, .. } => {
                let misses = !publish.snapshot && !resent && chosen(self.seed, name, event(), share);
                misses.then_some(Handling::Withhold)
            }
            FaultKind::Qos0Loss { share, .. } => {
                let loses = self.qos == Qos::AtMostOnce && chosen(self.seed, name, event(), share);
                loses.then_some(Handling::Lose)
            }
            FaultKind::Duplicates { share, delay, lasts } => {
                let repeats = into < lasts && !resent && chosen(self.seed, name, event(), share);
                repeats.then(|| Handling::SendTwice(part_of(delay, self.seed, name, event())))
            }
            FaultKind::DelayedTails { share, delay, lasts } if chosen(self.seed, name, device, share) => {
                // The session that is open when the fault takes hold is the one whose tail is late.
                let tail = held.filter(|tail| tail.fault == begin);
                let tail = *held.insert(tail.unwrap_or(HeldTail { fault: begin, session: publish.version.session }));
                let tail = tail.session == publish.version.session;
                let until = begin + lasts + part_of(delay, self.seed, name, device);
                (tail && begin + into < until).then_some(Handling::HoldUntil(until))
            }
            FaultKind::DelayedTails { .. }
            | FaultKind::Poison { .. }
            | FaultKind::Reboot { .. }
            | FaultKind::Wipe { .. }
            | FaultKind::WipeStore { .. }
            | FaultKind::NewConsumer { .. }
            | FaultKind::Gone { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::Move { .. }
            | FaultKind::Flapping { .. }
            | FaultKind::Disconnect { .. }
            | FaultKind::Kill { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Scale { .. }
            | FaultKind::StageFailure { .. }
            | FaultKind::Server(_)
            | FaultKind::ThrottledStore { .. }
            | FaultKind::CommandLoss { .. }
            | FaultKind::CommandDuplicates { .. }
            | FaultKind::LateCommands { .. }
            | FaultKind::SlowStore { .. } => None,
        }
    }
}

/// Tells events of the whole fleet apart, the same in each run of a seed however sessions are named.
fn event_number(publish: Publish) -> u64 {
    let DeviceIndex(device) = publish.device;
    (u64::from(device) << 32) ^ publish.version.seq.get()
}

/// A part of `whole`, drawn for `entity`.
fn part_of(whole: Duration, seed: u64, name: &str, entity: u64) -> Duration {
    use rand::RngExt;
    whole.mul_f64(crate::random::stream(seed, name, entity).random::<f64>())
}

#[cfg(test)]
mod tests {
    use dmp_core::id::{Epoch, Seq, Version};
    use uuid::Uuid;

    use super::*;
    use crate::fleet::plan::RaeIndex;

    #[test]
    fn a_held_tail_stays_whole_while_another_fault_repeats_messages() {
        let text = "# Is the order inside a late tail kept?
[[phase]]
name = \"load\"
lasts = \"20s\"
[[fault]]
at = \"1s\"
duplicates = { share = 1.0, delay = \"2s\", lasts = \"10s\" }
[[fault]]
at = \"2s\"
delayed_tails = { share = 1.0, delay = \"3s\", lasts = \"5s\" }
";
        let scenario = Scenario::from_text("tails", text, &[], None).unwrap_or_else(|error| panic!("{error}"));
        let tampering = Tampering::new(&scenario);
        let session = Session(Uuid::from_u128(7));
        let publish = |seq| {
            let version = Version { epoch: Epoch::FIRST, session, seq: Seq::try_from(seq).expect("in range") };
            Publish { device: DeviceIndex(3), rae: RaeIndex(1), version, snapshot: false }
        };
        let mut held = None;
        let until: Vec<_> =
            (1..50).map(|seq| tampering.handle(Duration::from_secs(4), publish(seq), false, &mut held)).collect();
        assert!(matches!(until[0], Handling::HoldUntil(_)), "{:?}", until[0]);
        assert!(until.iter().all(|handling| *handling == until[0]), "{until:?}");
    }
}
