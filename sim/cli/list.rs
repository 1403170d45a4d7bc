//! `fleetproof list`: the scenarios in a directory, or those of them that a target can run, each with the question it asks.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Exit, On, refused, run::print};
use crate::scenario::Scenario;

pub(super) fn list(directory: &Path, on: Option<On>) -> Exit {
    let files = match scenario_files(directory) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("error: reading {}: {error}", directory.display());
            return Exit::Usage;
        }
    };
    let width = files.iter().map(|file| file.display().to_string().len()).max().unwrap_or(0);
    let mut exit = Exit::Pass;
    for file in files {
        match Scenario::from_file(&file, &[], None) {
            Ok(scenario) if on == Some(On::Embedded) && scenario.needs_containers() => {}
            Ok(scenario) => print(&format!("{:<width$}  {}\n", file.display().to_string(), scenario.question)),
            Err(error) => exit = refused(&error),
        }
    }
    exit
}

fn scenario_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<_> = entries.collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    Ok(files)
}
