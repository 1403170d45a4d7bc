//! `fleetproof validate`: reads scenarios and runs nothing.

use std::path::PathBuf;

use super::{Exit, run::print, scenario};
use crate::scenario::quantity::show_duration;

pub(super) fn validate(files: &[PathBuf]) -> Exit {
    let mut exit = Exit::Pass;
    for file in files {
        match scenario(file, &[], None) {
            Ok(scenario) => {
                let (devices, load) = (scenario.devices(), show_duration(scenario.load()));
                print(&format!("{}: correct; {devices} devices, {load} of load\n", file.display()));
            }
            Err(refused) => exit = refused,
        }
    }
    exit
}
