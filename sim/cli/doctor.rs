//! `fleetproof doctor`: whether somebody's servers are as a run needs them, a line for each thing that was looked at.

use std::path::Path;

use super::{Exit, chain, deployment, run::print, runtime};
use crate::{
    live::{self, Mark},
    run::RunError,
};

pub(super) fn doctor(target: &Path) -> Exit {
    let deployment = match deployment(target) {
        Ok(deployment) => deployment,
        Err(exit) => return exit,
    };
    let name = deployment.name.clone();
    let mut wrong = 0_usize;
    let looked = runtime().map_err(|error| RunError::Harness(error.into())).and_then(|runtime| {
        runtime.block_on(live::doctor(deployment, |finding| {
            wrong += usize::from(finding.mark == Mark::Wrong);
            print(&format!("{finding}\n"));
        }))
    });
    match looked {
        Ok(Mark::Wrong) => {
            print(&format!("\n{name}: {wrong} of these must be put right before a run\n"));
            Exit::Fail
        }
        Ok(Mark::Right | Mark::Unknown) => {
            print(&format!("\n{name}: ready\n"));
            Exit::Pass
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            Exit::Invalid
        }
    }
}
