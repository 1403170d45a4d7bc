//! Agents, bridge and registry stepped together by hand, in memory, without a runtime: the proof that the cores need
//! none, and the first place where their bugs meet.
//!
//! A small seeded link drops, duplicates, delays and crashes. As things happen it holds that an acknowledged message is
//! in the log, that a committed offset is never ahead of the durable rows, that the seqs of a session first appear in
//! order and that no stored value is invented; after the faults, that every record equals its device.

#[path = "pair/answers.rs"]
mod answers;
#[path = "pair/broker.rs"]
mod broker;
#[path = "pair/carry.rs"]
mod carry;
#[path = "pair/cloud.rs"]
mod cloud;
#[path = "pair/commands.rs"]
mod commands;
#[path = "pair/device.rs"]
mod device;
#[path = "pair/down.rs"]
mod down;
#[path = "pair/faults.rs"]
mod faults;
#[path = "pair/feedback.rs"]
mod feedback;
#[path = "pair/world.rs"]
mod world;

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    core::Qos,
    event::{CONNECTION, PresenceState},
    time::Mono,
};
use faults::{Fault, Faults};
use feedback::{Trouble, heals};
use world::{PROBE_EVERY, RegistrySide, SNAPSHOT_EVERY, World};

/// Faults and load.
const LOAD: Duration = Duration::from_secs(20);

/// After the faults a record is right within: a restart (3 s), a back-off (2 s), a probe period, a snapshot period with
/// its jitter, and what the backlog and the last late answers take.
const BOUND: Duration = Duration::from_secs(3 + 2 + 2 + 4 + 7);

/// Runs one seed; panics with what it violates.
fn run(seed: u64, faults: Faults, qos: Qos) -> World {
    let mut world = World::new(seed, faults, qos);
    world.run(LOAD);
    (world.faults, world.calm) = (Faults::NONE, true);
    world.run(BOUND);
    verify(&world, "after the bound");
    world.run(SNAPSHOT_EVERY + PROBE_EVERY);
    verify(&world, "one period later");
    world
}

fn verify(world: &World, when: &str) {
    for hardware in &world.devices {
        let state = world.registries[0].store.devices.get(&hardware.device());
        let record = state.and_then(|state| state.visible()).map(|visible| {
            visible.into_iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        });
        let (shown, truth) = match record {
            // What an unplugged device changed last, or whether it was there at all, may never have been seen.
            Some(record) if !hardware.plugged => (record.get(CONNECTION).cloned(), hardware.truth().remove(CONNECTION)),
            None if !hardware.plugged => continue,
            record => {
                assert_eq!(
                    record,
                    Some(hardware.truth()),
                    "C9 {when}: {} of agent {}",
                    hardware.device(),
                    hardware.agent
                );
                continue;
            }
        };
        assert_eq!(shown, truth, "C9 {when}: {} of agent {}", hardware.device(), hardware.agent);
    }
    for rae in &world.raes {
        let presence = world.registries[0].store.presence(&rae.config.rae).map(|presence| presence.state);
        assert_eq!(presence, Some(PresenceState::Online), "{when}: {}", rae.config.rae);
    }
    assert!(world.broker.backlog() < 10, "{when}: backlog {}", world.broker.backlog());
    let lag = world.log.lag(&world.registries[0].group.committed);
    assert!(lag < 60, "{when}: lag {lag}");
}

/// Runs many seeds; names the seed that fails, and returns how often each situation was reached.
fn run_all(seeds: std::ops::Range<u64>, qos: Qos) -> BTreeMap<&'static str, u64> {
    let mut reached = BTreeMap::new();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed, Faults::drawn(seed), qos).reached);
        let Ok(situations) = outcome else { panic!("seed {seed} with {qos:?} failed, see above") };
        for (situation, times) in situations {
            *reached.entry(situation).or_default() += times;
        }
    }
    reached
}

#[test]
fn every_record_equals_its_device_after_any_mix_of_faults() {
    let reached = run_all(0..150, Qos::AtLeastOnce);
    for situation in [
        "agent crash",
        "agent stop",
        "ambiguous write",
        "bridge crash",
        "bridge paused",
        "bridge stop",
        "connection cut",
        "gap",
        "late write",
        "partition paused",
        "quarantined",
        "rebalance",
        "registry crash",
        "repeated message",
        "resend",
        "save retried",
        "shed",
        "stale commit",
        "straggling record",
        "unknown produce",
    ] {
        assert!(reached.contains_key(situation), "{situation} was never reached: {reached:?}");
    }
}

#[test]
fn qos_1_misses_nothing_while_its_agent_lives_and_its_outbox_holds() {
    let mut runs = 0;
    for seed in 2000..2060 {
        let world = run(seed, Faults::ALL.without(Fault::Agents), Qos::AtLeastOnce);
        if !world.reached.contains_key("shed") {
            assert_eq!(world.log.sessions_with_gaps(), 0, "seed {seed}");
            runs += usize::from(world.reached.contains_key("resend"));
        }
    }
    assert!(runs > 20, "only {runs} seeds had resends and shed nothing");
}

#[test]
fn snapshots_heal_what_qos_0_loses() {
    let reached = run_all(1000..1060, Qos::AtMostOnce);
    assert!(reached["lost message"] > 0 && reached["gap"] > 0, "{reached:?}");
}

#[test]
fn the_same_seed_ends_in_the_same_world() {
    let end = |seed| {
        let world = run(seed, Faults::ALL, Qos::AtLeastOnce);
        let mut world = world;
        let RegistrySide { group, store, .. } = world.registries.swap_remove(0);
        (world.reached, group.committed, world.now, store.devices)
    };
    let (one, two) = (end(7), end(7));
    assert_eq!(one, two);
    assert_eq!(one.2, Mono(0) + LOAD + BOUND + SNAPSHOT_EVERY + PROBE_EVERY);
}

#[test]
fn a_command_is_executed_at_most_once_and_answered_unless_it_or_its_agent_was_lost() {
    let (mut executed, mut answered) = (0, 0);
    for seed in 3000..3040 {
        let mut world = World::new(seed, Faults::drawn(seed), Qos::AtLeastOnce);
        for _ in 0..100 {
            world.run(LOAD / 100);
            world.issue_command();
        }
        (world.faults, world.calm) = (Faults::NONE, true);
        world.run(BOUND);
        verify(&world, "after the bound");
        let (book, replies) = (&world.commands, world.replies());
        assert!(replies.keys().all(|id| book.taken.contains(id) || book.refused.contains(id)), "seed {seed}");
        let lives_lost = ["agent crash", "agent stop"].iter().any(|fault| world.reached.contains_key(fault));
        let unanswered = book.taken.iter().filter(|id| !replies.contains_key(id)).count();
        assert!(unanswered == 0 || lives_lost, "seed {seed}: {unanswered} without a reply");
        executed += book.taken.len();
        answered += replies.len();
    }
    assert!(executed > 1000 && answered > executed / 2, "{executed} executed, {answered} answered");
}

/// Runs seeds of a trouble; each must heal, and the feedback must have been needed.
fn all_heal(trouble: Trouble, seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let (mut notices, mut reached) = (0, BTreeMap::new());
    for seed in seeds {
        match heals(seed, trouble) {
            Ok(world) => {
                notices += world.told();
                for (situation, count) in world.reached {
                    *reached.entry(situation).or_default() += count;
                }
            }
            Err(wrong) => panic!("seed {seed}, {trouble:?}: {wrong}"),
        }
    }
    assert!(notices > 20, "{trouble:?}: only {notices} notices");
    reached
}

#[test]
fn clocks_that_are_hours_apart_and_step_are_healed_by_feedback() {
    all_heal(Trouble::Clocks, 4000..4030);
}

#[test]
fn wiped_raes_are_healed_by_feedback() {
    all_heal(Trouble::Wipes, 5000..5030);
}

#[test]
fn devices_that_move_are_shown_where_they_are() {
    let reached = all_heal(Trouble::Moves, 6000..6030);
    assert!(reached["device moved from an isolated RAE"] > 20, "{reached:?}");
}
