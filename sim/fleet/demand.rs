//! How much a scenario asks of the servers at most, before it runs: so that what would be too much is never begun.

use std::time::Duration;

use super::plan::CANARY_PACE;
use crate::scenario::{Canary, FaultKind, OldRae, Part, Phase, Scenario};

/// The most that a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Messages that the fleet publishes, in the busiest second.
    pub messages_per_s: u64,
    /// MQTT connections at a time.
    pub connections: u64,
}

/// Connections of the harness beside those of the fleet: one that sends poison for each such fault.
fn besides(scenario: &Scenario) -> u64 {
    scenario.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Poison { .. })).count() as u64
}

impl Demand {
    /// What `scenario` asks for.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Demand {
        let busiest = scenario.phases.iter().map(|phase| under_load(scenario, phase)).fold(0.0, f64::max);
        let crowd = scenario.faults.iter().map(|fault| at_once(scenario, &fault.kind)).fold(0.0, f64::max);
        let clients = scenario.phases.iter().filter_map(|phase| phase.canary.as_ref()).map(|canary| canary.clients);
        let groups = u64::from(scenario.pipeline.shard_groups) + u64::from(scenario.most_processes(Part::Bridge));
        Demand {
            messages_per_s: connecting(scenario).max(busiest + crowd).ceil() as u64,
            connections: u64::from(scenario.fleet.raes)
                + u64::from(clients.max().unwrap_or(0))
                + groups
                + besides(scenario),
        }
    }
}

/// A RAE that connects says that it is online and sends the snapshot of each of its devices.
fn greeting(scenario: &Scenario) -> f64 {
    f64::from(scenario.fleet.devices_per_rae) + 1.0
}

/// While the fleet connects.
fn connecting(scenario: &Scenario) -> f64 {
    f64::from(scenario.fleet.connects_per_s.min(scenario.fleet.raes)) * greeting(scenario)
}

fn under_load(scenario: &Scenario, phase: &Phase) -> f64 {
    let per_s = |every: Duration| 1.0 / every.as_secs_f64();
    let changes = phase.rate * per_s(scenario.fleet.update_every);
    let sessions = scenario.fleet.reattach_every.map_or(0.0, per_s);
    let each = changes + per_s(scenario.fleet.snapshot_every) + sessions;
    let twice: f64 = scenario.faults.iter().map(|fault| added_share(&fault.kind)).sum();
    let poison: f64 = scenario.faults.iter().map(|fault| poison_per_s(&fault.kind)).sum();
    f64::from(scenario.devices()) * each * (1.0 + twice) + poison + phase.canary.as_ref().map_or(0.0, canary_per_s)
}

/// Canaries that are there at a time send at their pace.
fn canary_per_s(canary: &Canary) -> f64 {
    let stay = CANARY_PACE * canary.messages;
    let there = (stay.as_secs_f64() / canary.over.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
    f64::from(canary.clients) * (there / CANARY_PACE.as_secs_f64()).min(f64::from(canary.messages))
}

/// Messages that a fault sends a second time, as a share of all.
fn added_share(kind: &FaultKind) -> f64 {
    match *kind {
        FaultKind::Duplicates { share, .. } => share,
        _ => 0.0,
    }
}

fn poison_per_s(kind: &FaultKind) -> f64 {
    match *kind {
        FaultKind::Poison { messages, lasts, .. } => f64::from(messages) / lasts.as_secs_f64().max(1.0),
        _ => 0.0,
    }
}

/// RAEs that come back at the same moment all greet within about a second.
fn at_once(scenario: &Scenario, kind: &FaultKind) -> f64 {
    let share = match *kind {
        FaultKind::Reboot { share, .. }
        | FaultKind::Wipe { share, .. }
        | FaultKind::Disconnect { share, .. }
        | FaultKind::Move { share, old: OldRae::Down | OldRae::Isolated, .. } => share,
        _ => 0.0,
    };
    share * f64::from(scenario.fleet.raes) * greeting(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(rest: &str) -> Demand {
        let text = format!("# How much?\n[fleet]\nraes = 100\ndevices_per_rae = 10\nconnects_per_s = 20\n{rest}");
        Demand::of(&Scenario::from_text("demand", &text, &[], None).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn the_busiest_second_is_that_of_connecting_where_the_load_is_light() {
        let calm = demand("[[phase]]\nname = \"load\"\nlasts = \"5s\"\nrate = 0.0\n");
        assert_eq!(calm, Demand { messages_per_s: 220, connections: 102 });
    }

    #[test]
    fn bursts_canaries_copies_and_crowds_add_up() {
        let load = demand("update_every = \"10s\"\n[[phase]]\nname = \"load\"\nlasts = \"5s\"\nrate = 8.0\n");
        assert_eq!(load.messages_per_s, 900, "1,000 devices x (8 / 10 s + 1 / 10 s)");
        let canary = "[[phase]]\nname = \"load\"\nlasts = \"8s\"\nrate = 0.0\n\
                      canary = { clients = 50, over = \"5s\", messages = 20 }\n";
        let canary = demand(canary);
        assert_eq!((canary.messages_per_s, canary.connections), (300, 152), "20 at a time send ten a second");
        let crowd = "[[phase]]\nname = \"load\"\nlasts = \"9s\"\nrate = 0.0\n\
                     [[fault]]\nat = \"1s\"\nduplicates = { share = 0.5, delay = \"1s\", lasts = \"2s\" }\n\
                     [[fault]]\nat = \"1s\"\nreboot = { share = 0.2, down = \"1s\" }\n";
        assert_eq!(demand(crowd).messages_per_s, 150 + 220);
    }
}
