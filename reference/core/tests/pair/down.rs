//! The way down through the whole small world: gaps that are asked for, consumers that must not speak, commands while the bridge
//! dies.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    bridge::OutgoingRecord,
    core::Qos,
    event::{Command, CommandKind, Topic, kafka_topic},
    id::Session,
    registry::Feedback,
    time::Wall,
};
use rand::RngExt;
use uuid::Uuid;

use crate::{
    BOUND, LOAD,
    faults::{Fault, Faults},
    feedback::feedback,
    verify,
    world::World,
};

fn world(seed: u64, faults: Faults, qos: Qos, feedback: Option<Feedback>) -> World {
    let mut world = World::new(seed, faults, qos);
    world.registries[0].feedback = feedback;
    world
}

/// How long the gaps were open that were healed, shortest first.
fn healing_times(repair: bool) -> (Vec<Duration>, BTreeMap<&'static str, u64>) {
    let (mut times, mut reached) = (Vec::new(), BTreeMap::new());
    for seed in 5000..5012 {
        let lossy = Faults::NONE.with(Fault::Loss);
        let mut world = world(seed, lossy, Qos::AtMostOnce, Some(feedback(repair)));
        world.run(LOAD);
        (world.faults, world.calm) = (Faults::NONE, true);
        world.run(BOUND);
        verify(&world, "after the bound");
        times.append(&mut world.registries[0].healed);
        for (situation, count) in world.reached {
            *reached.entry(situation).or_default() += count;
        }
    }
    times.sort();
    (times, reached)
}

#[test]
fn a_gap_that_is_asked_for_heals_faster_than_by_the_period_and_nobody_is_asked_too_often() {
    let ((passive, silent), (active, asked)) = (healing_times(false), healing_times(true));
    let median = |times: &[Duration]| times[times.len() / 2];
    println!("median {:?} passive, {:?} active; {asked:?}", median(&passive), median(&active));
    assert!(passive.len() > 60 && active.len() > 60, "{} and {} gaps", passive.len(), active.len());
    assert!(median(&active) < median(&passive) / 2, "{:?} against {:?}", median(&active), median(&passive));
    assert!(!silent.contains_key("repair requested"));
    let requested = asked["gap closed by a requested snapshot"];
    assert!(requested > 50 && asked["repair requested"] >= requested / 4, "{asked:?}");
}

#[test]
fn a_second_consumer_and_a_rebuild_are_complete_and_the_rebuild_says_nothing_of_what_it_reads_again() {
    for seed in 6000..6012 {
        let mut world = world(seed, Faults::drawn(seed), Qos::AtLeastOnce, Some(feedback(true)));
        world.run(LOAD);
        let late = world.start_consumer(true, None);
        (world.faults, world.calm) = (Faults::NONE, true);
        // A restart, then one period with its jitter, then what is on its way.
        world.run(BOUND);
        // It is a registry with its voice, and reads every session that ever lost, and every gap.
        let rebuilt = world.start_consumer(false, Some(feedback(true)));
        world.run(Duration::from_secs(10));
        verify(&world, "after the bound");
        let shown = |which: usize| {
            let devices = &world.registries[which].store.devices;
            let visible = devices.iter().filter_map(|(device, state)| Some((*device, state.visible()?)));
            visible.collect::<BTreeMap<_, _>>()
        };
        let primary = shown(0);
        assert_eq!(shown(rebuilt), primary, "seed {seed}: rebuilt from the log");
        let from_latest = shown(late);
        for hardware in world.devices.iter().filter(|hardware| hardware.plugged) {
            let device = hardware.device();
            assert_eq!(from_latest.get(&device), primary.get(&device), "seed {seed}: {device} from the latest offset");
        }
        assert_eq!(world.registries[rebuilt].commanded, 0, "seed {seed}: no command");
    }
}

#[test]
fn a_registry_that_joins_or_rebuilds_while_nothing_is_wrong_has_nothing_to_say() {
    for seed in 6100..6106 {
        let mut world = world(seed, Faults::NONE, Qos::AtLeastOnce, Some(feedback(true)));
        world.run(LOAD / 2);
        let joined = [true, false].map(|from_latest| world.start_consumer(from_latest, Some(feedback(true))));
        world.run(LOAD / 2);
        for registry in [0].into_iter().chain(joined) {
            assert_eq!(world.registries[registry].commanded, 0, "seed {seed}: registry {registry} sends no command");
        }
    }
}

#[test]
fn commands_reach_their_agents_once_or_their_issuer_is_told_while_the_bridge_crashes() {
    let (mut delivered, mut again, mut executed, mut expired) = (0, 0, 0, 0);
    for seed in 7000..7020 {
        let faults = if seed % 2 == 0 { Faults::NONE.with(Fault::Bridge) } else { Faults::drawn(seed) };
        let mut world = world(seed, faults, Qos::AtLeastOnce, Some(feedback(true)));
        for _ in 0..200 {
            world.run(LOAD / 200);
            let life = if world.rng.random_bool(0.2) { world.rng.random_range(0..500) } else { 60_000 };
            world.order_command(life);
        }
        (world.faults, world.calm) = (Faults::NONE, true);
        world.run(BOUND);
        verify(&world, "after the bound");
        assert_eq!(world.log.commands_end(), world.downlink.group.committed, "seed {seed}: all came to their end");
        let count = |situation| world.reached.get(situation).copied().unwrap_or(0);
        delivered += count("command delivered");
        again += count("command sent again") + count("bridge crash");
        executed += world.commands.taken.len();
        expired += count("command expired");
    }
    println!("{delivered} delivered, {again} crashes and repetitions, {executed} executed, {expired} expired");
    assert!(delivered > 1000 && again > 30 && executed > 500 && expired > 30);
}

impl World {
    /// Somebody stores a command for a device's current session, or for one that never was, in Kafka.
    fn order_command(&mut self, life_ms: i64) {
        let index = self.rng.random_range(0..self.raes.len());
        let sessions: Vec<Session> = self.raes[index].disk.devices.values().map(|saved| saved.session).collect();
        let dead = Session(Uuid::from_u128(self.rng.random()));
        let session = if sessions.is_empty() { dead } else { sessions[self.rng.random_range(0..sessions.len())] };
        let id = Uuid::from_u128(self.rng.random());
        let kind = if self.rng.random_bool(0.5) { CommandKind::Snapshot } else { CommandKind::Probe };
        let now = self.now_of_cloud().wall;
        let command = Command { id, expires_at: Wall(now.0 + life_ms), kind };
        self.log.append(OutgoingRecord {
            topic: kafka_topic::COMMANDS,
            key: Topic::Command(self.raes[index].config.rae.clone(), session).to_string().into(),
            value: command.encode().into(),
            timestamp: now,
            headers: Vec::new(),
        });
    }
}
