//! What became of each event of the fleet, once the history has ended: exactly one fate each.

use std::{collections::BTreeSet, time::Duration};

use dmp_core::{core::Qos, id::Version};

use super::{Life, Models, ledger::SessionLife};
use crate::{
    fleet::plan::{DeviceIndex, RaeIndex, hits},
    history::Stage,
    scenario::{Fault, FaultKind, Server, ServerFault},
};

/// An event that is this young when the history ends may still be on its way.
pub(in crate::check) const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// After an orderly end, nothing that was recorded this long before the end of heal is still on its way: an agent needs
/// its back-off and one turn of its outbox, and has had the whole of settle and verify on top.
const OVERDUE: Duration = Duration::from_secs(10);

/// A broker that has lost its sessions gets its bridges' subscriptions back by then: until then it acknowledges what it
/// hands to nobody.
const SUBSCRIBED: Duration = Duration::from_secs(10);

/// A RAE that is to lose its power does so when its task gets its turn.
const TURN: Duration = Duration::from_secs(1);

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::check) enum Fate {
    /// In the log, for the registry to reflect.
    InLog,
    /// In the log, and quarantined by the registry.
    Quarantined,
    /// Dead-lettered by a bridge.
    DeadLettered,
    /// Swallowed by a fault.
    Withheld,
    /// Lost on a QoS 0 leg.
    LostAtQos0,
    /// Shed from the full outbox.
    Shed,
    /// In the outbox of an agent that restarted: not durable, a snapshot is due instead.
    LostWithRestart,
    /// In the outbox of a RAE that is gone for ever.
    LostWithRae,
    /// In the memory of an MQTT broker that a fault killed, or sent to one that did not know its bridges again yet.
    LostWithBroker,
    /// On its way when the history ended.
    InFlight,
    /// In an agent that was never let in: for the generator to answer for.
    NeverOnline,
    /// Acknowledged by the broker to its agent, and never handed to a bridge.
    LostByBroker,
    /// Acknowledged by a bridge, and stored nowhere.
    LostByBridge,
    /// Nowhere, and nothing says why.
    Vanished,
    /// Still on its way long after it should have arrived.
    Overdue,
    /// Withheld, and in the log all the same.
    Contradiction,
}

impl Fate {
    /// Every fate, in the order in which they are told.
    pub(in crate::check) const ALL: [Fate; 16] = [
        Fate::InLog,
        Fate::Quarantined,
        Fate::DeadLettered,
        Fate::Withheld,
        Fate::LostAtQos0,
        Fate::Shed,
        Fate::LostWithRestart,
        Fate::LostWithRae,
        Fate::LostWithBroker,
        Fate::InFlight,
        Fate::NeverOnline,
        Fate::LostByBroker,
        Fate::LostByBridge,
        Fate::Vanished,
        Fate::Overdue,
        Fate::Contradiction,
    ];

    /// In words, after a number.
    pub(in crate::check) fn text(self) -> &'static str {
        match self {
            Fate::InLog => "in the log",
            Fate::Quarantined => "quarantined",
            Fate::DeadLettered => "dead-lettered by a bridge",
            Fate::Withheld => "withheld by faults",
            Fate::LostAtQos0 => "lost at QoS 0",
            Fate::Shed => "shed",
            Fate::LostWithRestart => "lost with the reboot of its agent",
            Fate::LostWithRae => "lost with a RAE that is gone",
            Fate::LostWithBroker => "lost with the MQTT broker that was killed",
            Fate::InFlight => "in flight",
            Fate::NeverOnline => "in agents that never came online",
            Fate::LostByBroker => "lost by the MQTT broker",
            Fate::LostByBridge => "lost by the bridge",
            Fate::Vanished => "vanished",
            Fate::Overdue => "overdue",
            Fate::Contradiction => "withheld and yet in the log",
        }
    }
}

/// The fates of all events.
#[derive(Debug, Default)]
pub(in crate::check) struct Fates {
    /// How many of each, by place in [`Fate::ALL`].
    pub(in crate::check) counts: [u64; Fate::ALL.len()],
    /// Copies in the log beyond the first of each event.
    pub(in crate::check) copies: u64,
    /// Events whose fate somebody must answer for.
    pub(in crate::check) bad: Vec<(DeviceIndex, Version, Fate)>,
}

impl Fates {
    /// How many events there are.
    pub(in crate::check) fn recorded(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many events have this fate.
    pub(in crate::check) fn count(&self, fate: Fate) -> u64 {
        self.counts[fate as usize]
    }

    /// The events with this fate.
    pub(in crate::check) fn of(&self, fate: Fate) -> impl Iterator<Item = (DeviceIndex, Version)> {
        self.bad.iter().filter(move |(_, _, is)| *is == fate).map(|&(device, version, _)| (device, version))
    }
}

impl Models {
    /// The fates of all events; to be asked once the history has ended.
    pub(in crate::check) fn fates(&self) -> Fates {
        let mut fates = Fates::default();
        for (device, sessions) in self.ledger.all() {
            // Backwards, so that it is known whether anything later from the same RAE has gone further.
            let mut overtaking: BTreeSet<RaeIndex> = BTreeSet::new();
            for session in sessions.iter().rev() {
                for (index, life) in session.events.iter().enumerate().rev().filter(|(_, life)| life.recorded.is()) {
                    let fate = self.fate(session.rae, life, overtaking.contains(&session.rae));
                    fates.counts[fate as usize] += 1;
                    fates.copies += u64::from(life.copies.saturating_sub(1));
                    if fate >= Fate::LostByBroker {
                        fates.bad.push((device, version(session, index), fate));
                    }
                    if life.in_log() || life.delivered.is() || life.acknowledged.is() {
                        overtaking.insert(session.rae);
                    }
                }
            }
        }
        fates.bad.sort_unstable();
        fates
    }

    fn fate(&self, rae: RaeIndex, life: &Life, overtaken: bool) -> Fate {
        match () {
            () if life.in_log() && life.withheld() => Fate::Contradiction,
            () if life.in_log() && life.quarantined() => Fate::Quarantined,
            () if life.in_log() => Fate::InLog,
            () if life.dead_lettered() => Fate::DeadLettered,
            () if life.bridge_acknowledged.is() => Fate::LostByBridge,
            () if life.withheld() => Fate::Withheld,
            () if life.lost_at_qos0() => Fate::LostAtQos0,
            () if life.shed() => Fate::Shed,
            () => self.fate_on_the_way(rae, life, overtaken),
        }
    }

    /// The fate of an event that is in no log and that nothing is known to have dropped.
    fn fate_on_the_way(&self, rae: RaeIndex, life: &Life, overtaken: bool) -> Fate {
        let newest = [life.recorded, life.sent, life.acknowledged, life.delivered].into_iter().max();
        let newest = newest.and_then(|moment| moment.get()).unwrap_or_default();
        let gone = overtaken || newest + ON_ITS_WAY < self.clock.now;
        let overdue = self.overdue(life);
        let at_qos0 = self.scenario.fleet.qos == Qos::AtMostOnce;
        match () {
            () if !gone => Fate::InFlight,
            () if at_qos0 && life.sent.is() => Fate::LostAtQos0,
            () if self.lost_with_broker(life) => Fate::LostWithBroker,
            // A bridge holds it unacknowledged: the broker hands it out again.
            () if life.delivered.is() && overdue => Fate::Overdue,
            () if life.delivered.is() => Fate::InFlight,
            // A run that was cut short leaves what nobody had fetched in the broker.
            () if life.acknowledged.is() && !self.orderly() => Fate::InFlight,
            () if life.acknowledged.is() && self.observable.wire => Fate::LostByBroker,
            () if life.acknowledged.is() => Fate::Vanished,
            () if self.gone_since(rae, life) => Fate::LostWithRae,
            // Not acknowledged: it waits in the outbox, whose order nothing passes.
            () if !overtaken && !overdue => Fate::InFlight,
            () if self.online[rae.0 as usize].is_none() => Fate::NeverOnline,
            () if self.restarted_since(rae, life) => Fate::LostWithRestart,
            // A tail that is held back is sent once, and not again if its connection breaks.
            () if life.delayed() || (!life.sent.is() && self.has_delayed_tails(rae)) => Fate::Withheld,
            () if !overtaken => Fate::Overdue,
            () => Fate::Vanished,
        }
    }

    /// Whether the run ended in order and the event had all the time that it can need.
    fn overdue(&self, life: &Life) -> bool {
        let recorded = life.recorded.get().unwrap_or_default();
        self.orderly() && self.clock.settle.is_some_and(|settle| recorded + OVERDUE < settle)
    }

    /// Whether the run went through all its stages.
    fn orderly(&self) -> bool {
        self.clock.stage == Some(Stage::VerifyAgain)
    }

    /// Whether the RAE is gone for ever, and was not when the event was recorded.
    fn gone_since(&self, rae: RaeIndex, life: &Life) -> bool {
        let gone = self.plan.raes[rae.0 as usize].gone_at.map(|at| self.clock.in_run(at));
        gone.is_some_and(|gone| self.clock.now >= gone && life.recorded.get().unwrap_or_default() <= gone + TURN)
    }

    /// Whether the broker had acknowledged it when a fault took the broker's memory, or before its bridges were back.
    fn lost_with_broker(&self, life: &Life) -> bool {
        let Some(acknowledged) = life.acknowledged.get() else { return false };
        self.faults.windows.iter().any(|&(fault, _, ended)| {
            let takes = self.scenario.faults.get(fault).is_some_and(|fault| self.takes_memory(&fault.kind));
            takes && ended.is_none_or(|ended| acknowledged <= ended + SUBSCRIBED)
        })
    }

    /// Whether the broker starts without what it knew: killed, it has not saved it, and a small disk goes with its
    /// container.
    fn takes_memory(&self, kind: &FaultKind) -> bool {
        let small_disk = |fault: &Fault| matches!(fault.kind, FaultKind::Server(ServerFault::FullDisk { .. }));
        match kind {
            FaultKind::Server(ServerFault::Kill { part: Server::Broker, .. }) => true,
            FaultKind::Server(ServerFault::Restart { part: Server::Broker, .. }) => {
                self.scenario.faults.iter().any(small_disk)
            }
            _ => false,
        }
    }

    /// Whether a fault took the power of this RAE after the event was recorded; canaries are never hit.
    fn restarted_since(&self, rae: RaeIndex, life: &Life) -> bool {
        let recorded = life.recorded.get().unwrap_or_default();
        self.faults.windows.iter().any(|&(fault, began, ended)| {
            let share = self.scenario.faults.get(fault).and_then(|fault| fault.kind.powers_off());
            let hit = || share.is_some_and(|share| hits(self.scenario.seed, fault, u64::from(rae.0), share));
            ended.unwrap_or(began) >= recorded && self.plan.raes[rae.0 as usize].stay.is_none() && hit()
        })
    }

    fn has_delayed_tails(&self, rae: RaeIndex) -> bool {
        let standing = self.plan.raes[rae.0 as usize].stay.is_none();
        standing && self.scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::DelayedTails { .. }))
    }
}

fn version(session: &SessionLife, index: usize) -> Version {
    let seq = dmp_core::id::Seq::try_from(index as u64 + 1).expect("an index of an event that was recorded");
    Version { epoch: session.epoch, session: session.session, seq }
}
