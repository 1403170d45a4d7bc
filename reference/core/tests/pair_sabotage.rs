//! Without `reonboard`, or without its probe, the small world does not heal: the checks that hold there can fail.
//! One test: a planted bug is the process's.

#![cfg(feature = "sabotage")]
#![expect(dead_code, reason = "the small world is shared with the tests of the sound cores")]

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
#[path = "pair/faults.rs"]
mod faults;
#[path = "pair/feedback.rs"]
mod feedback;
#[path = "pair/world.rs"]
mod world;

use dmp_core::sabotage::{Bug, hits, plant};
use feedback::{Trouble, heals};

#[test]
fn without_reonboard_or_without_its_probe_the_world_does_not_heal() {
    for bug in [Bug::NoReonboard, Bug::ReonboardUnprobed] {
        plant(bug);
        for (trouble, seeds) in
            [(Trouble::Clocks, 4000..4010), (Trouble::Wipes, 5000..5010), (Trouble::Moves, 6000..6010)]
        {
            let wrong: Vec<String> = seeds.filter_map(|seed| heals(seed, trouble).err()).collect();
            // A device is where it was before its RAE was wiped: there the probe would only have said so.
            let is_harmless = (bug, trouble) == (Bug::ReonboardUnprobed, Trouble::Wipes);
            assert!(is_harmless || wrong.len() >= 5, "{} {trouble:?}: {wrong:?}", bug.name());
        }
        assert!(hits() > 0, "{}", bug.name());
    }
}
