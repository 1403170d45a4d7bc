//! Another number of bridges or registries.

use crate::{
    history::{Process, What},
    live::stack::Settings,
    scenario::Part,
};

use super::{World, last_restarts};

/// Starts processes of a part, or lets some drain and end, until there are so many.
pub(super) async fn scale(fault: usize, part: Part, to: u8, mut world: World<'_>) -> anyhow::Result<()> {
    let now = world.scenario.faults[fault].at;
    let before = world.scenario.processes_at(part, now);
    let settings = Settings::at(world.scenario, now);
    let settings = match part {
        Part::Bridge => Settings { bridges: to, ..settings },
        Part::Registry | Part::Consumer | Part::Baseline => settings,
    };
    for index in before..to {
        world.start(Process { part, index }, settings, now).await?;
    }
    if part == Part::Bridge {
        // A bridge learns at its start which shard groups are its own, and takes those of others over by their client ids.
        // Whoever still serves what is another's now would take it back: so the rest follow at once.
        for index in 0..before.min(to) {
            let process = Process { part, index };
            let config = world.target.child(process, world.scenario, settings);
            world.processes.restart(process, &config).await?;
        }
    }
    for index in to..before {
        let process = Process { part, index };
        last_restarts(process, fault, &world).await;
        world.processes.end(process).await?;
    }
    world.journal.enter(What::FaultActed { fault, times: 1 }).await;
    Ok(())
}
